"""The stages that move an endpoint: certificates, every host's way, the record, kubeconfigs, kube-proxy, the proof."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from shipway.cluster.model import node_ip
from shipway.converge import Permit, converge, look_at_all
from shipway.errors import Permanent
from shipway.facts.files import FileText
from shipway.facts.services import UnitState
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.kube.record import SYSTEM
from shipway.kubeadm.certificates import APISERVER, LEAFS, MANAGER, SCHEDULER
from shipway.ownership.evidence import AUTHORITY, KUBELET_CONF
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.endpoint.certificate import CertificateNames, names_of
from shipway.steps.endpoint.kubeconfigs import KubeconfigLeads, KubeletAsks, leads_to
from shipway.steps.endpoint.objects import ClusterInfoLeads, EndpointRecorded, KubeProxyLeads
from shipway.steps.endpoint.old_way import OldNamesGone, ProxyGone
from shipway.steps.endpoint.possible import ApiAnswersByName
from shipway.steps.kubernetes.health_cluster import NodeReady
from shipway.steps.kubernetes.nodes import NodesReady, WorkloadRuns
from shipway.steps.kubernetes.renewal import ClockRight
from shipway.steps.kubernetes.static_pods import ManifestsBack, StaticPodLoaded
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from shipway.steps.system.names import HostsNamed
from tasks import gates
from tasks.certificates.stages import keep_renewed, permit_alone
from tasks.context import Run
from tasks.endpoint.look import running
from tasks.endpoint.users import find_users
from tasks.locking import new_lease
from tasks.stage_result import CLUSTER
from tasks.stages.prepare_system import way_to_api
from tasks.waiting import by_api, hear_results, wait_for
from tasks.workloads import find_busy, permit_undisturbed

API_SECONDS, NODE_SECONDS = 180.0, 180.0
ROLLOUT_SECONDS, ROLLOUT_SECONDS_A_NODE = 300.0, 30.0  # kube-proxy's pods are made anew one node after the other
AT_ONCE = 50
READ_BY = {leaf.read_by: leaf.path for leaf in LEAFS if leaf.read_by in (MANAGER, SCHEDULER)}
LEFT = "no place that Shipway knows names another endpoint"


def certificate_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps of a control plane's certificate: what its port shows afterwards is the proof."""
    spec, port = run.cluster.host(host), run.cluster.kubernetes.api_port
    served = StaticPodLoaded(APISERVER, host, node_ip(spec), port)
    return [ManifestsBack(), ClockRight(), CertificateNames(run.cluster, spec), served]


def way_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps of a host's way: its proxy where it has one, and the name, though no kubeconfig has it yet."""
    there = running(run)
    way = way_to_api(there, run.cluster.host(host), run.family(host), run.cluster)
    return [replace(step, always=True) if isinstance(step, HostsNamed) else step for step in way]


def kubeconfig_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps of a host's kubeconfigs, and of what reads them only when it starts."""
    spec, port = run.cluster.host(host), run.cluster.kubernetes.api_port
    control = spec in run.cluster.control_planes
    leads = [KubeconfigLeads(path, allowed) for path, allowed in leads_to(run.cluster, spec).items()]
    parts = [StaticPodLoaded(part, host, node_ip(spec), port) for part in (MANAGER, SCHEDULER)] if control else []
    user = [UserHasKubeconfig(run.cluster.target(spec).user)] if control else []
    return [*leads, *user, *parts, KubeletAsks()]


def old_way_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps by which the way of an endpoint before leaves a host."""
    there = running(run)
    spec, planes = run.cluster.host(host), tuple(node_ip(one) for one in run.cluster.control_planes)
    names = tuple(one.name for one in run.cluster.hosts)
    proxied = spec in there.control_planes or there.proxies_api
    proxy = [] if proxied else [ProxyGone(port=run.cluster.kubernetes.api_port)]
    return [OldNamesGone(names, planes, run.cluster.api_name, run.endpoint.used), *proxy]


def object_steps(run: Run) -> list[Check[Kube]]:
    """Return the steps of what kubeadm keeps in the cluster, but for kube-proxy's."""
    return [EndpointRecorded(run.cluster.endpoint, names_of(run.cluster)), ClusterInfoLeads(run.cluster.endpoint)]


async def certify(run: Run, stage: str, host: str) -> list[StepResult]:
    """Make a control plane's certificate anew where it lacks a name, and wait until its API serves that."""
    session = run.session(host)
    session.forget()
    allow = min(run.allow, Impact.SERVICE)
    results = await converge(
        certificate_steps(run, host), session, allow, hear_results(run, stage, host), permit_alone(run)
    )
    if run.allow is Impact.NOTHING:
        return foresee(results, CertificateNames.name, loaded(APISERVER))
    if any(result.outcome == "failed" for result in results):
        return results
    kube = await run.kube()
    kube.forget()
    for check in (gates.ApiAnswers(), gates.EtcdHealthy()):
        results.append(await wait_for(run, stage, check, kube, seconds=API_SECONDS))
    await new_lease(run)
    return results


def loaded(part: str) -> str:
    """Return the sentence of a static pod's step."""
    return StaticPodLoaded(part, "", "", 0).name


def foresee(results: list[StepResult], first: str, then: str) -> list[StepResult]:
    """Return a plan's results with the restart that follows a change."""
    if not any(result.outcome == "drifted" and result.step.startswith(first) for result in results):
        return results
    restarted = Drift("runs with what is there now", "started anew")
    return [
        replace(one, outcome="drifted", drift=restarted) if one.step == then and one.outcome == "ok" else one
        for one in results
    ]


async def name_way(run: Run, stage: str, host: str) -> list[StepResult]:
    """Let a host know the name, by its own proxy where there are several control planes; then ask the API by it.

    Beside GPU pods nothing is installed and systemd reads no unit anew: the name leads to every control plane then.
    """
    session = run.session(host)
    session.forget()
    await find_busy(run, host)
    allow = min(run.allowed(host), Impact.SERVICE)
    steps = way_steps(run, host)
    results = await converge(steps, session, allow, hear_results(run, stage, host), permit_undisturbed(run, host))
    if run.allow is Impact.NOTHING or any(result.outcome == "failed" for result in results):
        return results
    results.append(await wait_for(run, stage, await _by_name(run), session, seconds=API_SECONDS))
    return results


async def _by_name(run: Run) -> ApiAnswersByName:
    ca = await run.session(run.control.name).read(FileText(AUTHORITY))
    return ApiAnswersByName(run.cluster.endpoint, ca or "")


async def record(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's signature
    """Let kubeadm's record and cluster-info name it: from then on every run takes the name for the cluster's own."""
    return await by_api(run, stage, object_steps(run))


async def point_kubeconfigs(run: Run, stage: str, host: str) -> list[StepResult]:
    """Let a host's kubeconfigs lead to the name, restart its kubelet, and wait until the node is Ready since.

    Beside pods that hold GPUs the kubelet is restarted only where that was asked for: it asks the old address until
    then, which goes on answering.
    """
    session, control = run.session(host), run.cluster.host(host) in run.cluster.control_planes
    session.forget()
    await find_busy(run, host)
    allow, permit = _permission(run, host)
    steps = kubeconfig_steps(run, host)
    results = await converge(steps, session, allow, hear_results(run, stage, host), permit)
    if run.allow is Impact.NOTHING:
        for path, then in ((KUBELET_CONF, KubeletAsks.name), *((READ_BY[part], loaded(part)) for part in READ_BY)):
            results = foresee(results, path, then)
        return results
    if any(result.outcome == "failed" for result in results):
        return results
    if control:
        if host == run.control.name:
            await run.reconnect()
            results.append(await keep_renewed(run))
        results.append(await wait_for(run, stage, gates.ApiAnswers(), await run.kube(), seconds=API_SECONDS))
    if any(result.outcome == "changed" and result.restarts for result in results):
        since = (await session.read(UnitState("kubelet.service"))).active_since
        ready = NodeReady(host, kubelet_since=since)
        results.append(await wait_for(run, stage, ready, await run.kube(), seconds=NODE_SECONDS))
    return results


def _permission(run: Run, host: str) -> tuple[Impact, Permit]:
    """Return what may be disturbed on a host, and what asks that again at the act."""
    if run.endpoint.beside_gpu_pods:
        return min(run.allow, Impact.SERVICE), permit_alone(run)
    return min(run.allowed(host), Impact.SERVICE), permit_undisturbed(run, host)


async def point_kube_proxy(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's signature
    """Let kube-proxy's kubeconfig lead to the name, and wait until all of its pods were made anew."""
    results = await by_api(run, stage, [KubeProxyLeads(run.cluster.endpoint)])
    if run.allow is Impact.NOTHING or any(result.outcome == "failed" for result in results):
        return results
    kube = await run.kube()
    if await kube.get("apps/v1", "DaemonSet", "kube-proxy", SYSTEM) is not None:
        seconds = ROLLOUT_SECONDS + ROLLOUT_SECONDS_A_NODE * len(run.hosts)
        rolled = WorkloadRuns("DaemonSet", "kube-proxy", SYSTEM)
        results.append(await wait_for(run, stage, rolled, kube, seconds=seconds))
    return results


async def prove(run: Run, stage: str, host: str) -> list[StepResult]:
    """Ask every place again, none of it from memory: on each host, what is served, in the cluster; every node is Ready.

    Raises Permanent SHW-779 naming each that keeps another endpoint.
    """
    kube, by_name, hosts = await run.kube(), await _by_name(run), [one.name for one in running(run).hosts]
    kube.forget()
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(name: str) -> list[StepResult]:
        session = run.session(name)
        session.forget()
        plane = run.cluster.host(name) in run.cluster.control_planes
        steps: list[Check[Host]] = [*kubeconfig_steps(run, name), by_name]
        steps += certificate_steps(run, name) if plane else []
        async with gate:
            return [one for one in await look_at_all(steps, session) if one.outcome != "ok"]

    left = dict(zip(hosts, await asyncio.gather(*(ask(name) for name in hosts)), strict=True))
    objects: list[Check[Kube]] = [*object_steps(run), KubeProxyLeads(run.cluster.endpoint), NodesReady(tuple(hosts))]
    left[CLUSTER] = [one for one in await look_at_all(objects, kube) if one.outcome != "ok"]
    await find_users(run, kube)
    held = [one for name, some in left.items() if _withheld(run, name) for one in some if one.step == KubeletAsks.name]
    keep = [f"{name}: {said_of(one)}" for name, some in left.items() for one in some if one not in held]
    if keep:
        fix = "Run the same command again: it does only what is missing."
        raise Permanent(f"not moved: {few(keep)}", code="SHW-779", fix=fix)
    result = StepResult(LEFT, "ok")
    hear_results(run, stage, host)(result)
    return [result, *(replace(one, step=f"{LEFT}, and its kubelet asks there") for one in held[:1])]


def _withheld(run: Run, host: str) -> bool:
    return host in run.seen.busy and not run.endpoint.beside_gpu_pods


def said_of(result: StepResult) -> str:
    """Return a step's name, and what was seen of it."""
    return f"{result.step}: {result.drift.have if result.drift else result.error.message if result.error else ''}"


async def leave_old_way(run: Run, stage: str, host: str) -> list[StepResult]:
    """Take away what an endpoint before had on a host, unless somebody asks by it; then ask the API by its name again.

    So it comes last of all: whoever is cut off before has both ways.
    """
    session = run.session(host)
    session.forget()
    await find_busy(run, host)
    allow, permit = _permission(run, host)
    results = await converge(old_way_steps(run, host), session, allow, hear_results(run, stage, host), permit)
    if run.allow is Impact.NOTHING:
        return results
    if host not in run.seen.busy and host not in run.seen.podded:  # what is kept beside pods, every report tells
        kept = [said_of(one) for one in results if one.outcome == "drifted"]
        run.warned += [f"{host}: kept: {one}; run the same command again when nothing asks by it" for one in kept]
    if any(result.outcome == "changed" for result in results):
        results.append(await wait_for(run, stage, await _by_name(run), session, seconds=API_SECONDS))
    return results
