"""The stages of a run about certificates: all is looked at first, then renewed, one control plane after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from shipway.cluster.model import node_ip
from shipway.converge import Permit, converge, look_at_all
from shipway.errors import Refused, ShipwayError
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.kube.access import ADMIN_CONF
from shipway.kubeadm.certificates import ETCD
from shipway.kubeadm.writes import PARTS
from shipway.os.families import recognise
from shipway.step import Check, Drift, Impact, Step, StepResult
from shipway.steps.kubernetes.health_cluster import NodeReady
from shipway.steps.kubernetes.join.worker import NoBootstrapCredentials
from shipway.steps.kubernetes.kubelet_client import KubeletClientValid, KubeletConfPoints, KubeletRotates
from shipway.steps.kubernetes.renewal import CertificatesRenewed, ClockRight
from shipway.steps.kubernetes.serving_requests import ServingRequestsApproved, inventories, judge_requests
from shipway.steps.kubernetes.static_pods import ManifestsBack, StaticPodLoaded
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from shipway.steps.maintain.pause import EtcdMayStop
from shipway.survey.first_look import survey
from tasks import gates
from tasks.certificates.rows import KUBEADM, look_at_certificates
from tasks.context import Run
from tasks.kubeconfig import keep_kubeconfig
from tasks.locking import new_lease, still_alone
from tasks.stage_result import CLUSTER
from tasks.waiting import by_api, hear_results, wait_for

KEPT = "the kubeconfig on this machine is the new one"
API_SECONDS, NODE_SECONDS = 180.0, 180.0
AGGREGATED_SECONDS = 60.0  # the API server asks each of them every 30 s


def renewal_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps of a control plane, in order: what a broken restart left, files, then pod after pod.

    etcd comes before the API server, which needs it, and that before those that need the API; then what holds a copy.
    Right before its member is stopped etcd is asked whether the others are a quorum.
    """
    spec = run.cluster.host(host)
    *before, renewed = file_steps(run, host)
    etcd, *others = (StaticPodLoaded(part, host, node_ip(spec), run.cluster.kubernetes.api_port) for part in PARTS)
    own = UserHasKubeconfig(run.cluster.target(spec).user)
    return [*before, renewed, EtcdMayStop((renewed, etcd)), etcd, *others, own]


def file_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps of a control plane's files: what a broken restart left, then what kubeadm renews."""
    wish = run.certificates
    renewed = CertificatesRenewed(wish.within, wish.everything, wish.before.setdefault(host, {}))
    return [ManifestsBack(), ClockRight(), renewed]


def kubelet_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps of a host's kubelet."""
    control = run.session(run.control.name)
    return [KubeletRotates(), KubeletClientValid(host, control), KubeletConfPoints(), NoBootstrapCredentials()]


def is_control(run: Run, host: str) -> bool:
    """Say whether a host runs a control plane by the cluster file."""
    return run.cluster.host(host) in run.cluster.control_planes


async def look(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at all of a host at once, and keep its table, and what a run would be refused for.

    Of a host that has joined no cluster nothing is looked at. Needs no API.
    """
    session = run.session(host)
    session.forget()
    run.seen.families[host] = await recognise(session)
    steps = [*(renewal_steps(run, host) if is_control(run, host) else ()), *kubelet_steps(run, host)]
    looking = asyncio.ensure_future(look_at_all(steps, session))
    rows = asyncio.ensure_future(look_at_certificates(run, session))
    try:
        seen = run.seen.surveys[host] = await survey(session)
    finally:
        results, table = await asyncio.gather(looking, rows, return_exceptions=True)
    if not seen.joined:
        return [StepResult("the host has joined a cluster", "unknown", drift=Drift("not joined", "joined"))]
    if isinstance(results, BaseException):
        raise results
    if isinstance(table, BaseException):
        raise table
    run.certificates.rows[host] = table
    if is_control(run, host):
        run.certificates.refusals[host] = [r.error for r in results if isinstance(r.error, Refused)]
    if any(result.outcome != "ok" for result in results[-len(kubelet_steps(run, host)) :]):
        run.certificates.kubelets.add(host)
    for result in results:
        hear_results(run, stage, host)(result)
    return results


def permit_alone(run: Run) -> Permit:
    """Return what is asked right before a step is applied: whether the run still holds the cluster.

    Pods of users hold nothing back: none of them ends by what is restarted here.
    """

    async def permit(step: Step[Any]) -> Impact:  # noqa: ARG001 - a permit's signature
        still_alone(run)
        return run.allow

    return permit


def etcd_expired(run: Run, planes: Sequence[str]) -> bool:
    """Say whether a certificate of etcd's has expired on one of several control planes."""
    rows = [row for plane in planes for row in run.certificates.rows.get(plane, ()) if row.renewed_by == KUBEADM]
    return len(planes) > 1 and any(row.name.startswith(f"{ETCD}/") and row.ends and row.days <= 0 for row in rows)


async def renew_files(run: Run, stage: str, host: str) -> list[StepResult]:
    """Renew the files alone, and start nothing anew: etcd reads them at each new connection (its release 3.2)."""
    return await _bring(run, stage, run.session(host), file_steps(run, host))


async def renew(run: Run, stage: str, host: str) -> list[StepResult]:
    """Renew a control plane's certificates, start its pods anew, and wait until its API and etcd are well."""
    session = run.session(host)
    results = await _bring(run, stage, session, renewal_steps(run, host))
    if any(result.outcome == "failed" for result in results):
        return results
    await run.reconnect()  # by the new admin.conf
    results.append(await keep_renewed(run))
    kube = await run.kube()
    for check in (gates.ApiAnswers(), gates.EtcdHealthy()):
        results.append(await wait_for(run, stage, check, kube, seconds=API_SECONDS))
    if any(result.outcome == "changed" for result in results):
        await _say_lost(run, stage)
    if not any(result.outcome == "failed" for result in results):
        await new_lease(run)  # an API that refused our certificate gave none before
    return results


async def _say_lost(run: Run, stage: str) -> None:
    """Warn of aggregated APIs that the new front-proxy certificate does not reach; some may have been lost before."""
    found = await wait_for(run, stage, gates.AggregatedApisAvailable(), await run.kube(), seconds=AGGREGATED_SECONDS)
    if found.error is not None:
        why = f"{found.error.message}; see `kubectl get apiservices`, and restart the pods behind them"
        run.warned.append(f"{found.step}: {why}")


async def mend_kubelet(run: Run, stage: str, host: str) -> list[StepResult]:
    """Let a kubelet that was cut off ask for a new client certificate, and wait until its node is Ready."""
    await new_lease(run)
    results = await _bring(run, stage, run.session(host), kubelet_steps(run, host))
    if any(result.outcome == "changed" and result.restarts for result in results):
        results.append(await wait_for(run, stage, NodeReady(host), await run.kube(), seconds=NODE_SECONDS))
    return results


async def _bring(run: Run, stage: str, session: Host, steps: Sequence[Check[Host]]) -> list[StepResult]:
    """Converge a host, and look at its table again."""
    session.forget()
    allow = min(run.allow, Impact.SERVICE)
    results = await converge(steps, session, allow, hear_results(run, stage, session.name), permit_alone(run))
    if any(result.outcome == "changed" for result in results):
        session.forget()
        run.certificates.rows[session.name] = await look_at_certificates(run, session)
    return results


async def keep_renewed(run: Run) -> StepResult:
    """Keep the new admin.conf on this machine as well, where a bootstrap has kept the old one."""
    text = await run.session(run.control.name).read(FileText(ADMIN_CONF))
    if text is None or not (run.folder / "kubeconfig").exists():
        return StepResult(KEPT, "ok", Impact.FILES)
    return keep_kubeconfig(run, text, KEPT, renewed=True)


async def approve_requests(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's signature
    """Approve what the cluster file vouches for; every other request is left, and the report names it."""
    hosts = inventories(run.cluster)
    await new_lease(run)
    results = await by_api(run, stage, [ServingRequestsApproved(hosts)], CLUSTER)
    try:
        kube = await run.kube()
        kube.forget()
        _, left = await judge_requests(kube, hosts)
        run.certificates.left = tuple(left)
    except ShipwayError:  # the results say so
        pass
    return results
