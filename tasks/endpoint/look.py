"""Before an endpoint is moved: every host is looked at, and all that forbids it is named at once."""

from __future__ import annotations

from shipway.cluster.model import Cluster, node_ip
from shipway.converge import look_at_all
from shipway.edits.lines import read_block
from shipway.errors import ApiUnavailable, ErrorReport, Refused, ShipwayError
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.kube.record import read_record
from shipway.os.families import recognise
from shipway.ownership.evidence import address_of
from shipway.step import Check, StepResult
from shipway.steps.endpoint.balancer import TRIES, BalancerAnswers, EveryPlaneBehind, read_shown, shown, unseen
from shipway.steps.endpoint.certificate import CertificateNames
from shipway.steps.endpoint.kubeconfigs import KubeconfigLeads, leads_to
from shipway.steps.endpoint.possible import EndpointMayMove, EveryNodeAnswers
from shipway.steps.system.api_proxy import ProxyPortFree
from shipway.steps.system.names import HOSTS, api_names
from shipway.survey.first_look import survey
from tasks import gates
from tasks.backup.before import BackupBefore
from tasks.context import Run
from tasks.endpoint.here import meet_here
from tasks.endpoint.users import find_users
from tasks.leading import choose, known
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
    if not seen.joined or not (run.cluster.api_name or run.cluster.balancer):
        return [StepResult("the host was looked at", "ok")]
    await _see_ways(run, session)
    own: list[Check[Host]] = [KubeconfigLeads(path, allowed) for path, allowed in leads_to(run.cluster, spec).items()]
    if spec in run.cluster.control_planes:
        own.append(CertificateNames(run.cluster, spec))
    elif run.cluster.proxies_api:
        own.append(ProxyPortFree(run.cluster.kubernetes.api_port))
    results = [result for result in await look_at_all(own, session) if isinstance(result.error, ShipwayError)]
    for result in results:
        hear_results(run, stage, host)(result)
    return results or [StepResult("nothing on the host forbids the move", "ok")]


async def _see_ways(run: Run, session: Host) -> None:
    """Keep by which names of ours the API is asked on a host, and what a load balancer shows it.

    Raises ApiUnavailable SHW-768 for a control plane that shows no certificate on its own address.
    """
    cluster, host = run.cluster, run.cluster.host(session.name)
    planes = [node_ip(plane) for plane in cluster.control_planes]
    text = await session.read(FileText(HOSTS))
    run.endpoint.named |= set(api_names(read_block(text or ""), [one.name for one in cluster.hosts], planes))
    if not cluster.balancer:
        return
    name, port = cluster.balancer, int(cluster.endpoint.rpartition(":")[2])
    through = shown(name, port, TRIES * len(planes), name)
    own = [shown(node_ip(host), cluster.kubernetes.api_port, 1, name)] if host in cluster.control_planes else []
    met, *mine = [read_shown(one) for one in await session.read_all([through, *own])]
    run.endpoint.met[host.name] = met
    for one in mine:
        if not one.prints:
            fix = f"See `journalctl -u kubelet -n 50` and the API server's log on {host.name}, then run again."
            message = f"its API server shows no certificate on {node_ip(host)}"
            raise ApiUnavailable(message, host=host.name, code="SHW-768", fix=fix)
        run.endpoint.shows[host.name] = one.prints[0]


async def contradicted(run: Run) -> list[ErrorReport]:
    """Return where the hosts contradict the file, but for the endpoint: that is what is moved.

    Keeps what that is now, by kubeadm's record. Raises what keeps from asking the API.
    """
    target = run.cluster
    await choose(run)  # the first one of the file may be one that is still to join
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
    move = EndpointMayMove(run.cluster, run.endpoint.named)
    checks: list[Check[Kube]] = [move, gates.ApiAnswers(), gates.EtcdHealthy(), EveryNodeAnswers(joined)]
    checks += await balancer_checks(run) if run.cluster.balancer else []
    if run.endpoint.was != run.cluster.endpoint:  # else a move is only ended
        checks.append(BackupBefore(run, "every place that names the endpoint is changed"))
    results = await look_at_all(checks, kube, hear_results(run, stage, host))
    if not any(isinstance(result.error, Refused) for result in results):
        await find_busy(run)
        if run.mode == "plan":
            await find_users(run, kube)
    return results


async def balancer_checks(run: Run) -> list[Check[Kube]]:
    """Return what is asked of a load balancer, by what every host and this machine saw; warn of what none can tell.

    Where hosts are reached by a jump host this machine need not reach it: only its own kubeconfig would. Nothing is
    asked while a control plane's own certificate is not known: its look said why.
    """
    endpoint, own, seen = run.cluster.endpoint, run.endpoint, run.seen.surveys
    if any(
        one.name not in own.shows and (one.name not in seen or seen[one.name].joined)
        for one in run.cluster.control_planes
    ):
        return []
    times = TRIES * len(run.cluster.control_planes)
    here = await meet_here(run.cluster.balancer, int(endpoint.rpartition(":")[2]), times)
    checks: list[Check[Kube]] = [BalancerAnswers(*(name, endpoint, met, own.planes)) for name, met in own.met.items()]
    mine = BalancerAnswers("this machine", endpoint, here, own.planes)
    if run.cluster.target(run.control).jump is None:
        checks.append(mine)
    elif here.status:
        run.warned.append(f"{endpoint} does not answer this machine, where its kubeconfig in {run.folder} will lead")
    run.warned += [
        f"{names} show one certificate: which of them is behind {endpoint} cannot be told from it"
        for names in own.planes.values()
        if ", " in names
    ]
    everyone = [*own.met.values(), here]
    missing, several = unseen(everyone, own.planes)
    if missing and not several and all(one.prints for one in everyone):
        run.warned.append(
            f"{endpoint} keeps each machine at one server: whether {few(missing)} is behind it cannot be told from here"
        )
    return [*checks, EveryPlaneBehind(endpoint, everyone, own.planes)]
