"""The stages that rotate the CA: made, trusted, told, signing, proved; then the old one is trusted no more."""

from __future__ import annotations

import asyncio

from shipway.cluster.model import node_ip
from shipway.converge import converge, look_at_all
from shipway.errors import Permanent
from shipway.facts.files import FileText
from shipway.facts.services import UnitState
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.kubeadm.certificates import APISERVER, KUBELET_PORT, MANAGER, SCHEDULER
from shipway.ownership.evidence import AUTHORITY, KUBELET_CONF
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.authority.leafs import KubeletClientSigned, KubeletServingSigned, LeafsSigned
from shipway.steps.authority.objects import (
    ClusterInfoTrusts,
    NoTimeKept,
    PartsReadAnew,
    PodsAreTold,
    PodsToldSince,
    holders_of_old,
)
from shipway.steps.authority.pair import FOLDER, Pair, PairKept, PairThere, SignerIs, who
from shipway.steps.authority.signing import ManagerSigns
from shipway.steps.authority.trust import AuthorityTrusted, ClientsAccepted, KubeconfigTrusts, Serves
from shipway.steps.endpoint.kubeconfigs import FILES, KubeletAsks
from shipway.steps.hardening.manifest import ManifestSettled
from shipway.steps.kubernetes.health_cluster import NodeReady
from shipway.steps.kubernetes.join import NoBootstrapCredentials
from shipway.steps.kubernetes.kubelet_client import KubeletConfPoints
from shipway.steps.kubernetes.nodes import NodesReady, WorkloadRuns
from shipway.steps.kubernetes.renewal import ClockRight
from shipway.steps.kubernetes.serving_requests import (
    KubeletsAnswer,
    ServingRequestsApproved,
    inventories,
    is_declared,
)
from shipway.steps.kubernetes.static_pods import ManifestsBack, StaticPodLoaded
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from tasks import gates
from tasks.authority.look import planes, stale_of
from tasks.certificates.stages import keep_renewed, permit_alone
from tasks.context import Run
from tasks.endpoint.look import running
from tasks.endpoint.work import foresee, loaded, said_of
from tasks.locking import new_lease
from tasks.stage_result import CLUSTER
from tasks.waiting import by_api, hear_results, wait_for
from tasks.workloads import OWN_NAMESPACES

API_SECONDS, NODE_SECONDS, SHOWN_SECONDS = 180.0, 180.0, 60.0
TOLD_SECONDS = 300.0  # the controller manager that leads is another one for a while
PARTS_SECONDS, PARTS_SECONDS_A_NODE = 300.0, 30.0  # DaemonSets are made anew one node after the other
AT_ONCE = 50
ASKS = KubeletAsks("the kubelet trusts what its kubelet.conf holds")
NOTHING_LEFT = "nothing holds or shows a certificate of the other CA alone"
PODS_READ = "pods of others have read the CA that is wanted"


def _control(run: Run, host: str) -> bool:
    return run.cluster.host(host) in run.cluster.control_planes


def _loaded(run: Run, host: str, part: str) -> StaticPodLoaded:
    spec, port = run.cluster.host(host), run.cluster.kubernetes.api_port
    also = () if part == SCHEDULER else (AUTHORITY,)
    return StaticPodLoaded(part, host, node_ip(spec), port, also)


def _signs(run: Run, host: str, *, keeps: bool = False, over: bool = False) -> ManagerSigns:
    spec, port = run.cluster.host(host), run.cluster.kubernetes.api_port
    return ManagerSigns(run.authority.pair, host, node_ip(spec), port, keeps, over)


def _settled(run: Run, host: str) -> list[Check[Host]]:
    """Return what a run that was killed may have left of a control plane's manifests, and its clock."""
    spec, port = run.cluster.host(host), run.cluster.kubernetes.api_port
    return [ManifestsBack(), ManifestSettled(host, node_ip(spec), port), ClockRight()]


def trust_steps(run: Run, host: str, trusted: tuple[str, ...], *, over: bool = False) -> list[Check[Host]]:
    """Return the steps by which a host trusts these CAs and no other, and what reads that was started since.

    The controller manager signs from the folder before ca.crt holds two; by kubeadm's own pair once it holds one.
    """
    confs: list[Check[Host]] = [KubeconfigTrusts(path, trusted) for path in FILES]
    if not _control(run, host):
        return [AuthorityTrusted(trusted), *confs, ASKS]
    user = UserHasKubeconfig(run.cluster.target(run.cluster.host(host)).user)
    api, manager, scheduler = (_loaded(run, host, part) for part in (APISERVER, MANAGER, SCHEDULER))
    first: list[Check[Host]] = [] if over else [_signs(run, host, keeps=True)]
    then: list[Check[Host]] = [_signs(run, host, over=True)] if over else []
    return [
        *_settled(run, host),
        *first,
        AuthorityTrusted(trusted),
        *confs,
        user,
        api,
        *then,
        manager,
        scheduler,
        ASKS,
    ]


def leaf_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps by which a control plane's own certificates, and what it signs, are of the wanted CA."""
    pair = run.authority.pair
    api, manager, scheduler = (_loaded(run, host, part) for part in (APISERVER, MANAGER, SCHEDULER))
    return [
        *_settled(run, host),
        SignerIs(pair),
        LeafsSigned(pair),
        *(KubeconfigTrusts(path, pair.both) for path in FILES),  # kubeadm writes the first CA alone into what it renews
        UserHasKubeconfig(run.cluster.target(run.cluster.host(host)).user),
        api,
        _signs(run, host),
        manager,
        scheduler,
        ASKS,
    ]


def kubelet_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps of a kubelet's own certificates."""
    pair, control = run.authority.pair, run.session(run.control.name)
    return [
        KubeletServingSigned(pair),
        KubeletClientSigned(pair, host, control),
        KubeletConfPoints(),
        NoBootstrapCredentials(),
    ]


async def make(run: Run, stage: str, host: str) -> list[StepResult]:
    """Make the new CA on the first control plane; bring both, with their keys, to the others."""
    session, own = run.session(host), run.authority
    session.forget()
    source = run.session(own.source) if own.source else None
    steps: list[Check[Host]] = [PairThere(source)]
    allow = min(run.allow, Impact.FILES)
    results = await converge(steps, session, allow, hear_results(run, stage, host), permit_alone(run))
    if run.allow is not Impact.NOTHING and not own.source and all(one.outcome != "failed" for one in results):
        old, new = await session.read(FileText(f"{FOLDER}/old.crt"), FileText(f"{FOLDER}/new.crt"))
        own.source, own.pair = host, Pair(old or "", new or "", own.back)
    return results


async def trust(run: Run, stage: str, host: str) -> list[StepResult]:
    """Let a host trust both CAs; every other host is still right with the old one."""
    results = await _bring(run, stage, host, trust_steps(run, host, run.authority.pair.both))
    if _failed(results) or run.allow is Impact.NOTHING or not _control(run, host):
        return results
    return [*results, await _accepts(run, stage, host, run.authority.pair.both, ())]


async def sign(run: Run, stage: str, host: str) -> list[StepResult]:
    """Have a control plane's certificates signed by the wanted CA, and see that its port shows that."""
    results = await _bring(run, stage, host, leaf_steps(run, host))
    if _failed(results) or run.allow is Impact.NOTHING:
        return results
    spec, session = run.cluster.host(host), run.session(host)
    shown = Serves(run.authority.pair.wanted, node_ip(spec), run.cluster.kubernetes.api_port)
    return [*results, await wait_for(run, stage, shown, session, seconds=SHOWN_SECONDS)]


async def sign_kubelet(run: Run, stage: str, host: str) -> list[StepResult]:
    """Have a kubelet ask for its certificates anew, and wait until its node is Ready by them."""
    results = await _bring(run, stage, host, kubelet_steps(run, host))
    if _failed(results) or run.allow is Impact.NOTHING or not is_declared(run.cluster):
        return results
    kube = await run.kube()
    if any(one.outcome == "changed" for one in results):
        results += await by_api(run, stage, [ServingRequestsApproved(inventories(run.cluster))], host)
    asked = [Serves(run.authority.pair.wanted, node_ip(run.cluster.host(host)), KUBELET_PORT)]
    results += [await wait_for(run, stage, one, run.session(host), seconds=API_SECONDS) for one in asked]
    return [*results, await wait_for(run, stage, KubeletsAnswer((host,)), kube, seconds=API_SECONDS)]


async def drop(run: Run, stage: str, host: str) -> list[StepResult]:
    """Let a host trust the wanted CA alone."""
    wanted = run.authority.pair.wanted
    results = await _bring(run, stage, host, trust_steps(run, host, (wanted,), over=True))
    if _failed(results) or run.allow is Impact.NOTHING or not _control(run, host):
        return results
    return [*results, await _accepts(run, stage, host, (wanted,), (run.authority.pair.leaving,))]


async def _accepts(run: Run, stage: str, host: str, yes: tuple[str, ...], no: tuple[str, ...]) -> StepResult:
    accepted = ClientsAccepted(yes, no, node_ip(run.cluster.host(host)), run.cluster.kubernetes.api_port)
    return await wait_for(run, stage, accepted, run.session(host), seconds=SHOWN_SECONDS)


def _failed(results: list[StepResult]) -> bool:
    return any(result.outcome == "failed" for result in results)


async def _bring(run: Run, stage: str, host: str, steps: list[Check[Host]]) -> list[StepResult]:
    """Converge a host, then wait: for its API and etcd where it is a control plane, for its node by a new status."""
    session, control = run.session(host), _control(run, host)
    session.forget()
    allow = min(run.allow, Impact.SERVICE)
    results = await converge(steps, session, allow, hear_results(run, stage, host), permit_alone(run))
    if run.allow is Impact.NOTHING:
        return _foreseen(results)
    if _failed(results):
        return results
    if control:
        if host == run.control.name:
            await run.reconnect()
            results.append(await keep_renewed(run))
        kube = await run.kube()
        kube.forget()
        for check in (gates.ApiAnswers(), gates.EtcdHealthy()):
            results.append(await wait_for(run, stage, check, kube, seconds=API_SECONDS))
        await new_lease(run)
    if any(result.outcome == "changed" and result.restarts for result in results):
        since = (await session.read(UnitState("kubelet.service"))).active_since
        ready = NodeReady(host, kubelet_since=since)
        results.append(await wait_for(run, stage, ready, await run.kube(), seconds=NODE_SECONDS))
    return results


def _foreseen(results: list[StepResult]) -> list[StepResult]:
    """Return a plan's results with the restarts that follow what would be changed."""
    changed = {AuthorityTrusted.name: (APISERVER, MANAGER), LeafsSigned.name: (APISERVER, MANAGER, SCHEDULER)}
    for first, parts in changed.items():
        for part in parts:
            results = foresee(results, first, loaded(part))
    return foresee(results, KUBELET_CONF, ASKS.name)


async def spread(run: Run, stage: str, host: str) -> list[StepResult]:
    """Tell joining hosts and pods of both CAs; have the cluster's own pods read that; find others that did not.

    Once a control plane signs with the wanted one, every pod that still works has read both.
    """
    own = run.authority
    results = await _tell_all(run, stage, own.pair.both)
    signed = any(own.hosts[name].trusted[:1] == (who(own.pair.wanted),) for name in planes(run))
    if run.allow is Impact.NOTHING or _failed(results) or own.back or signed:
        return results
    results += await by_api(run, stage, [PodsToldSince(own.pair.both)])
    kube, seconds = await run.kube(), PARTS_SECONDS + PARTS_SECONDS_A_NODE * len(run.hosts)
    parts = PartsReadAnew(OWN_NAMESPACES, seconds)
    kube.forget()
    restarted = await parts.workloads(kube)
    results += await by_api(run, stage, [parts])
    for kind, name, space in restarted if not _failed(results) else ():
        results.append(await wait_for(run, stage, WorkloadRuns(kind, name, space), kube, seconds=seconds))
    if _failed(results):
        return results
    kube.forget()
    own.stale = tuple(stale_of(await holders_of_old(kube)))
    seen = Drift(f"made before: {few(list(own.stale))}", "restarted by their owners, or `--despite-pods`")
    held = bool(own.stale) and not own.despite_pods
    result = StepResult(PODS_READ, "drifted", Impact.SERVICE, seen) if held else StepResult(PODS_READ, "ok")
    if own.stale:
        what = "the run rests until they are restarted" if held else "they will not reach the API"
        run.warned.append(f"these pods have read the old CA alone, {what}: {few(list(own.stale))}")
    hear_results(run, stage, host)(result)
    return [*results, result]


async def unspread(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's signature
    """Tell joining hosts and pods of the wanted CA alone."""
    results = await _tell_all(run, stage, (run.authority.pair.wanted,))
    return results if _failed(results) else [*results, *await by_api(run, stage, [NoTimeKept()])]


async def _tell_all(run: Run, stage: str, trusted: tuple[str, ...]) -> list[StepResult]:
    """Let cluster-info hold these CAs, and wait until the controller manager has told all pods of them."""
    results = await by_api(run, stage, [ClusterInfoTrusts(trusted)])
    if run.allow is Impact.NOTHING or _failed(results):
        return results
    return [*results, await wait_for(run, stage, PodsAreTold(trusted), await run.kube(), seconds=TOLD_SECONDS)]


async def prove(run: Run, stage: str, host: str) -> list[StepResult]:
    """Ask every place anew before the other CA is trusted no more. Raises Permanent SHW-855 naming what needs it.

    Where that has begun, what was cut off on its way is for the next stage; what is held and shown is asked again.
    """
    own, kube, hosts = run.authority, await run.kube(), [one.name for one in running(run).hosts]
    wanted, port = own.pair.wanted, run.cluster.kubernetes.api_port
    kube.forget()
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(name: str) -> list[StepResult]:
        session, spec = run.session(name), run.cluster.host(name)
        session.forget()
        steps: list[Check[Host]] = [AuthorityTrusted((wanted,), exactly=False), *kubelet_steps(run, name)]
        steps += [] if own.dropping else [ASKS]
        steps += [KubeconfigTrusts(path, (wanted,), exactly=False) for path in FILES]
        if is_declared(run.cluster):
            steps.append(Serves(wanted, node_ip(spec), KUBELET_PORT))
        if _control(run, name):
            steps += [LeafsSigned(own.pair), Serves(wanted, node_ip(spec), port)]
        if _control(run, name) and not own.dropping:
            steps += [_loaded(run, name, part) for part in (APISERVER, MANAGER, SCHEDULER)]
            steps += [UserHasKubeconfig(run.cluster.target(spec).user)]
        async with gate:
            return [one for one in await look_at_all(steps, session) if one.outcome != "ok"]

    left = dict(zip(hosts, await asyncio.gather(*(ask(name) for name in hosts)), strict=True))
    told: list[Check[Kube]] = [ClusterInfoTrusts((wanted,), exactly=False), PodsAreTold((wanted,), exactly=False)]
    left[CLUSTER] = [one for one in await look_at_all([*told, NodesReady(tuple(hosts))], kube) if one.outcome != "ok"]
    if keep := [f"{name}: {said_of(one)}" for name, some in left.items() for one in some]:
        fix = "Run the same command again: it does only what is missing. Both CAs are trusted until then."
        raise Permanent(f"the other CA is needed still: {few(keep)}", code="SHW-855", fix=fix)
    result = StepResult(NOTHING_LEFT, "ok")
    hear_results(run, stage, host)(result)
    return [result]


async def end(run: Run, stage: str, host: str) -> list[StepResult]:
    """Put the folder of both CAs aside: from then on the cluster is one of the wanted CA."""
    return await _bring(run, stage, host, [PairKept()])
