"""Before an endpoint is moved: every host is looked at, and all that forbids it is named at once."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.converge import look_at_all
from shipway.errors import ErrorReport, Refused, ShipwayError
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.record import read_record
from shipway.os.families import recognise
from shipway.ownership.evidence import address_of
from shipway.step import Check, StepResult
from shipway.steps.endpoint.certificate import CertificateNames
from shipway.steps.endpoint.kubeconfigs import KubeconfigLeads, leads_to
from shipway.steps.endpoint.possible import EndpointMayMove, EveryNodeAnswers
from shipway.steps.system.api_proxy import ProxyPortFree
from shipway.survey.first_look import survey
from tasks import gates
from tasks.context import Run
from tasks.leading import known
from tasks.ownership import disagreement
from tasks.waiting import hear_results
from tasks.workloads import find_busy

ADDRESS_OF_ONE = "SHW-762"  # what is mended here is no reason against it


def running(run: Run) -> Cluster:
    """Return the cluster without the hosts that have not joined yet: the name leads to control planes that serve."""
    seen = run.seen.surveys
    joined = tuple(host for host in run.cluster.hosts if (one := seen.get(host.name)) is not None and one.joined)
    return run.cluster.model_copy(update={"hosts": joined})


async def look(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at a host: whether it has joined, and what on it forbids the move."""
    session, spec = run.session(host), run.cluster.host(host)
    session.forget()
    run.seen.families[host] = await recognise(session)
    seen = run.seen.surveys[host] = await survey(session)
    if not seen.joined or not run.cluster.api_name:
        return [StepResult("the host was looked at", "ok")]
    own: list[Check[Host]] = [KubeconfigLeads(path, allowed) for path, allowed in leads_to(run.cluster, spec).items()]
    if spec in run.cluster.control_planes:
        own.append(CertificateNames(run.cluster, spec))
    elif run.cluster.proxies_api:
        own.append(ProxyPortFree(run.cluster.kubernetes.api_port))
    results = [result for result in await look_at_all(own, session) if isinstance(result.error, ShipwayError)]
    for result in results:
        hear_results(run, stage, host)(result)
    return results or [StepResult("nothing on the host forbids the move", "ok")]


async def contradicted(run: Run) -> list[ErrorReport]:
    """Return where the hosts contradict the file, but for the endpoint: that is what is moved.

    Keeps what that is now, by kubeadm's record. Raises what keeps from asking the API.
    """
    target = run.cluster
    lead = known(run).get(run.control.name)
    told = str((await read_record(await run.kube())).get("controlPlaneEndpoint") or "")
    run.endpoint.was = told or (address_of(lead.endpoint) if lead else "")  # kubeadm goes by the address without one
    if run.endpoint.was not in ("", target.endpoint):
        kubernetes = target.kubernetes.model_copy(update={"api_endpoint": run.endpoint.was})
        run.cluster = target.model_copy(update={"kubernetes": kubernetes})
    try:
        faults = await disagreement(run)
    finally:
        run.cluster = target
    return [fault for fault in faults if fault.code != ADDRESS_OF_ONE]


async def may_move(run: Run, stage: str, host: str) -> list[StepResult]:
    """Ask the cluster for all that forbids the move, and keep on which hosts pods hold GPUs."""
    kube = await run.kube()
    kube.forget()
    joined = [one.name for one in running(run).hosts]
    move = EndpointMayMove(run.cluster, run.endpoint.was)
    checks: list[Check[Kube]] = [move, gates.ApiAnswers(), gates.EtcdHealthy(), EveryNodeAnswers(joined)]
    results = await look_at_all(checks, kube, hear_results(run, stage, host))
    if not any(isinstance(result.error, Refused) for result in results):
        await find_busy(run)
    return results
