"""The stages that rotate a CA: made, trusted, told, signing, proved; then the old one is trusted no more."""

from __future__ import annotations

import asyncio

from shipway.cluster.model import node_ip
from shipway.converge import On, converge, look_at_all
from shipway.errors import Permanent
from shipway.facts.files import FileText
from shipway.facts.services import UnitState
from shipway.host.session import Host
from shipway.kube.access import ADMIN_CONF
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.kube.record import SYSTEM
from shipway.kubeadm.certificates import APISERVER, ETCD, ETCD_CLIENTS, ETCD_PEERS, KUBELET_PORT, MANAGER, SCHEDULER
from shipway.ownership.evidence import KUBELET_CONF
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.authority.etcd import KeysRead, MembersHealthy
from shipway.steps.authority.front_proxy import (
    LOST,
    ExtensionsAnswer,
    ExtensionsTold,
    FrontProxyTaken,
    list_extensions,
    paths_of,
)
from shipway.steps.authority.leafs import KubeletClientSigned, KubeletServingSigned, LeafsSigned
from shipway.steps.authority.objects import (
    TOLD,
    ClusterInfoTrusts,
    NoTimeKept,
    PartsReadAnew,
    PodsAreTold,
    PodsToldSince,
    SigningChanges,
    holders_of_old,
)
from shipway.steps.authority.pair import Pair, PairKept, PairThere, SignerIs, who
from shipway.steps.authority.signing import ManagerSigns
from shipway.steps.authority.token_secrets import OwnTokensSigned, find_waiting, tokens_of_others
from shipway.steps.authority.tokens import KeysPublished, TokenSigned, TokensTaken
from shipway.steps.authority.trust import AuthorityTrusted, ClientsAccepted, KubeconfigTrusts, Serves
from shipway.steps.authority.which import CLUSTER_CA, ETCD_CA, FRONT_PROXY, SERVICE_ACCOUNTS
from shipway.steps.endpoint.kubeconfigs import FILES, KubeletAsks
from shipway.steps.hardening.manifest import ManifestSettled
from shipway.steps.kubernetes.health_cluster import NodeReady
from shipway.steps.kubernetes.join.worker import NoBootstrapCredentials
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
from shipway.steps.maintain.pause import EtcdMayStop
from shipway.steps.vip.kube_vip import VipPodReadAdmin
from tasks import gates
from tasks.authority.look import TOKEN_SPACES, find_left, planes, server_of, stale_of
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
AVAILABLE_SECONDS = 120.0  # each API server asks aggregated APIs every 30 s (kube-aggregator, available_controller.go)
AT_ONCE = 50
ASKS = KubeletAsks("the kubelet trusts what its kubelet.conf holds")
NOTHING_LEFT = "nothing holds or shows a certificate of the other CA alone"
PODS_READ = "pods of others have read the CA that is wanted"
ALL_SIGN = "every control plane signs tokens with the key that is wanted, and every node is Ready"
SECRETS_SIGNED = "tokens in Secrets of others are signed by the key that is wanted"
PODS_ASKED = "kubelets have asked for the tokens of all pods anew"
EMPTY = (
    "An owner has one signed anew by `kubectl -n NAMESPACE patch secret NAME --type json -p "
    """'[{"op":"remove","path":"/data/token"}]'`: copies outside of the cluster end at once, pods that mount it read """
    "the new one within two minutes."
)
# What steps are called by what is rotated.
MADE = {"CA": PairThere.name, "key": "the old and the new key that signs tokens lie beside each other"}
TRUSTS = {"CA": AuthorityTrusted.name, "key": "tokens of the keys that are wanted are to be taken"}
SIGNS = {"CA": SignerIs.name, "key": "tokens are to be signed with the key that is wanted"}
KEPT = {"CA": PairKept.name, "key": "the old key that signed tokens is put aside"}


def _control(run: Run, host: str) -> bool:
    return run.cluster.host(host) in run.cluster.control_planes


def _loaded(run: Run, host: str, part: str) -> StaticPodLoaded:
    of, server = run.authority.of, server_of(run, host)
    return StaticPodLoaded(part, host, server.address, server.port, of.read_by(part))


def _readers(run: Run, host: str, because: Check[Host]) -> list[Check[Host]]:
    """Return what starts anew those that read etcd's or the front proxy's CA; etcd is asked right before its own."""
    loads = [_loaded(run, host, part) for part in run.authority.of.readers]
    return [EtcdMayStop((because, loads[0])), *loads] if run.authority.of is ETCD_CA else [*loads]


def _signs(run: Run, host: str, *, keeps: bool = False, over: bool = False) -> ManagerSigns:
    spec, port = run.cluster.host(host), run.cluster.kubernetes.api_port
    return ManagerSigns(run.authority.pair, host, node_ip(spec), port, keeps, over)


def _settled(run: Run, host: str) -> list[Check[Host]]:
    """Return what a run that was killed may have left of a control plane's manifests, and its clock."""
    spec, port = run.cluster.host(host), run.cluster.kubernetes.api_port
    return [ManifestsBack(), ManifestSettled(host, node_ip(spec), port), ClockRight()]


def _asks_by_admin(run: Run) -> list[Check[Host]]:
    """Return what starts kube-vip anew, which asks by admin.conf: one that trusts the old CA takes nothing over."""
    return [VipPodReadAdmin()] if run.cluster.kube_vip_image else []


def trust_steps(run: Run, host: str, trusted: tuple[str, ...], *, over: bool = False) -> list[Check[Host]]:
    """Return the steps by which a host trusts these CAs and no other, and what reads that was started since.

    The controller manager signs from the folder before ca.crt holds two; by kubeadm's own pair once it holds one.
    """
    of = run.authority.of
    if of is not CLUSTER_CA:
        trusts = AuthorityTrusted(trusted, of=of, name=TRUSTS[of.noun])
        return [*_settled(run, host), trusts, *_readers(run, host, trusts)]
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
        *_asks_by_admin(run),
        ASKS,
    ]


def leaf_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return the steps by which a control plane's own certificates, and what it signs, are of the wanted CA."""
    pair = run.authority.pair
    if pair.of is not CLUSTER_CA:
        signs = SignerIs(pair, SIGNS[pair.of.noun])
        signed = signs if pair.of is SERVICE_ACCOUNTS else LeafsSigned(pair)
        return [*_settled(run, host), *dict.fromkeys((signs, signed)), *_readers(run, host, signed)]
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
        *_asks_by_admin(run),
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
    steps: list[Check[Host]] = [PairThere(source, own.of, MADE[own.of.noun])]
    allow = min(run.allow, Impact.FILES)
    results = await converge(steps, session, allow, hear_results(run, stage, host), permit_alone(run))
    if run.allow is not Impact.NOTHING and not own.source and all(one.outcome != "failed" for one in results):
        old, new = await session.read_all(
            [FileText(f"{own.of.folder}/{role}.{own.of.half}") for role in ("old", "new")]
        )
        own.source, own.pair = host, Pair(old or "", new or "", own.back, own.of)
    return results


async def trust(run: Run, stage: str, host: str) -> list[StepResult]:
    """Let a host trust both CAs; every other host is still right with the old one."""
    results = await _bring(run, stage, host, trust_steps(run, host, run.authority.pair.both))
    if _failed(results) or run.allow is Impact.NOTHING or not _control(run, host):
        return results
    accepts = _accepts(run, host, run.authority.pair.both, ())
    return [*results, *await _wait_all(run, stage, host, [*accepts, *_takes(run, host)])]


async def sign(run: Run, stage: str, host: str) -> list[StepResult]:
    """Have a control plane's certificates signed by the wanted CA (or tokens by the key), and see that shown."""
    kept = await _keep_change(run, stage, host) if run.authority.of is SERVICE_ACCOUNTS else []
    results = kept if _failed(kept) else kept + await _bring(run, stage, host, leaf_steps(run, host))
    if _failed(results) or run.allow is Impact.NOTHING:
        return results
    takes = _takes(run, host, signs=True)
    return [*results, *await _wait_all(run, stage, host, [*_shows(run, host), *await _works(run, host), *takes])]


async def _keep_change(run: Run, stage: str, host: str) -> list[StepResult]:
    """Keep in the cluster that another key begins to sign tokens, where this control plane changes over to it."""
    session = run.session(host)
    session.forget()
    changes = await SignerIs(run.authority.pair).check(session) is not None
    return await by_api(run, stage, [SigningChanges()]) if changes else []


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
    accepts = _accepts(run, host, (wanted,), (run.authority.pair.leaving,))
    takes = _takes(run, host, signs=True, over=True)
    return [*results, *await _wait_all(run, stage, host, [*accepts, *await _works(run, host), *takes])]


def _takes(run: Run, host: str, *, signs: bool = False, over: bool = False) -> list[Check[Host]]:
    """Return the checks of whose tokens the API server here signs and takes."""
    if run.authority.of is not SERVICE_ACCOUNTS:
        return []
    pair, server = run.authority.pair, server_of(run, host)
    published: list[Check[Host]] = [KeysPublished((pair.wanted,) if over else pair.both, server)]
    published += [TokenSigned(pair.wanted, server)] if signs else []
    return [*published, TokensTaken(pair, server, over)]


def _accepts(run: Run, host: str, yes: tuple[str, ...], no: tuple[str, ...]) -> list[Check[Host]]:
    """Return the checks of whom the ports accept that know clients by the CA."""
    server = server_of(run, host)
    if run.authority.of is SERVICE_ACCOUNTS:
        return []
    ports = (ETCD_CLIENTS, ETCD_PEERS) if run.authority.of is ETCD_CA else (server.port,)
    return [ClientsAccepted(yes, no, server.address, port) for port in ports]


def _shows(run: Run, host: str) -> list[Check[Host]]:
    """Return the checks of what the ports show that is signed by the CA; the front proxy's is shown to servers only."""
    server, wanted = server_of(run, host), run.authority.pair.wanted
    if run.authority.of is ETCD_CA:
        return [Serves(wanted, server.address, port, asks=True) for port in (ETCD_CLIENTS, ETCD_PEERS)]
    return [Serves(wanted, server.address, server.port)] if run.authority.of is CLUSTER_CA else []


async def _works(run: Run, host: str) -> list[Check[Host]]:
    """Return the checks of what goes by the CA: etcd's members and what is read of them, aggregated APIs."""
    if run.authority.of is ETCD_CA:
        return [MembersHealthy(), KeysRead(server_of(run, host))]
    if run.authority.of is FRONT_PROXY:
        kube = await run.kube()
        kube.forget()
        paths = paths_of(await list_extensions(kube))
        return [FrontProxyTaken(server_of(run, host)), ExtensionsAnswer(paths, server_of(run, host))]
    return []


async def _wait_all(run: Run, stage: str, host: str, checks: list[Check[Host]]) -> list[StepResult]:
    """Return the results of waiting for each; of aggregated APIs that are lost all are told."""
    results = await _wait_each(run, stage, checks, run.session(host), SHOWN_SECONDS)
    if _failed(results) and isinstance(checks[len(results) - 1], ExtensionsAnswer):
        run.warned.append(f"aggregated APIs are lost by the API server of {host}. {LOST}")
    return results


async def _wait_each(run: Run, stage: str, checks: list[Check[On]], on: On, seconds: float) -> list[StepResult]:
    """Return the results of waiting for each, until one is not so."""
    results: list[StepResult] = []
    for check in checks:
        results.append(await wait_for(run, stage, check, on, seconds=seconds))
        if _failed(results):
            break
    return results


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
        if run.authority.of is ETCD_CA:  # before the next member is stopped
            results.append(await wait_for(run, stage, MembersHealthy(), session, seconds=API_SECONDS))
        await new_lease(run)
    if any(result.outcome == "changed" and result.restarts for result in results):
        since = (await session.read(UnitState("kubelet.service"))).active_since
        ready = NodeReady(host, kubelet_since=since)
        results.append(await wait_for(run, stage, ready, await run.kube(), seconds=NODE_SECONDS))
    return results


def _foreseen(results: list[StepResult]) -> list[StepResult]:
    """Return a plan's results with the restarts that follow what would be changed, as far as they are its steps."""
    changed = {
        AuthorityTrusted.name: (ETCD, APISERVER, MANAGER),
        LeafsSigned.name: (ETCD, APISERVER, MANAGER, SCHEDULER),
        TRUSTS["key"]: (APISERVER, MANAGER),
        SIGNS["key"]: (APISERVER, MANAGER),
    }
    for first, parts in changed.items():
        for part in parts:
            results = foresee(results, first, loaded(part))
    results = foresee(results, ADMIN_CONF, VipPodReadAdmin.name)
    return foresee(results, KUBELET_CONF, ASKS.name)


async def spread(run: Run, stage: str, host: str) -> list[StepResult]:
    """Tell joining hosts and pods of both CAs; have the cluster's own pods read that; find others that did not.

    Once a control plane signs with the wanted one, every pod that still works has read both. Of the front proxy's only
    aggregated API servers are told, which read it anew by themselves.
    """
    own = run.authority
    if own.of is SERVICE_ACCOUNTS:
        return await _spread_tokens(run, stage, host)
    results = await _tell_all(run, stage, own.pair.both)
    if own.of is not CLUSTER_CA:
        return results
    signed = any(own.hosts[name].trusted[:1] == (who(own.pair.wanted),) for name in planes(run))
    if run.allow is Impact.NOTHING or _failed(results) or own.back or signed:
        return results
    results += await _read_anew(run, stage, PodsToldSince(own.pair.both))
    if _failed(results):
        return results
    kube = await run.kube()
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


async def _read_anew(run: Run, stage: str, told: PodsToldSince) -> list[StepResult]:
    """Keep when pods were told, and have the cluster's own that are older made anew."""
    results = await by_api(run, stage, [told])
    kube, seconds = await run.kube(), PARTS_SECONDS + PARTS_SECONDS_A_NODE * len(run.hosts)
    parts = PartsReadAnew(OWN_NAMESPACES, seconds)
    kube.forget()
    restarted = await parts.workloads(kube)
    results += await by_api(run, stage, [parts])
    for kind, name, space in restarted if not _failed(results) else ():
        results.append(await wait_for(run, stage, WorkloadRuns(kind, name, space), kube, seconds=seconds))
    return results


async def _spread_tokens(run: Run, stage: str, host: str) -> list[StepResult]:
    """Have the cluster's own tokens signed by the wanted key; hold for others that end with the other one.

    On a way back where no token was signed by the new one there is nothing to do.
    """
    own, kube = run.authority, await run.kube()
    kube.forget()
    if own.back and await kube.get("v1", "ConfigMap", TOLD, SYSTEM) is None:
        return [StepResult("no token was signed by the other key", "ok")]
    results = await by_api(run, stage, [OwnTokensSigned(own.pair, TOKEN_SPACES, TOLD_SECONDS)])
    if run.allow is Impact.NOTHING or _failed(results):
        return results
    results += await _read_anew(run, stage, PodsToldSince((own.pair.wanted,)))
    if _failed(results):
        return results
    kube.forget()
    return [*results, *await _hold_tokens(run, stage, host, kube)]


async def _hold_tokens(run: Run, stage: str, host: str, kube: Kube) -> list[StepResult]:
    """Return whether Secrets of others and pods hold the last stage, each by its name and what ends that."""
    own = run.authority
    tokens, waiting = await asyncio.gather(tokens_of_others(kube, own.pair, TOKEN_SPACES), find_waiting(kube))
    held, holds = [StepResult(SECRETS_SIGNED, "ok"), StepResult(PODS_ASKED, "ok")], list[str]()
    if tokens:
        run.warned.append(f"these Secrets hold a token that ends with the other key: {few(tokens)}. {EMPTY}")
    if tokens and not own.despite_tokens:
        want = "signed anew for their owners, or `--despite-tokens`"
        held[0] = StepResult(SECRETS_SIGNED, "drifted", Impact.SERVICE, Drift(few(tokens), want))
        holds += tokens
    if waiting and not waiting.over:
        when = f"{waiting.until:%Y-%m-%d %H:%M} UTC"
        seen = Drift(f"{len(waiting.pods)} pods are older: {few(list(waiting.pods))}", f"run again after {when}")
        held[1] = StepResult(PODS_ASKED, "drifted", Impact.SERVICE, seen)
        run.warned.append(f"the run rests: kubelets bring pods their new tokens by {when}; run it again after that")
        holds += waiting.pods
    own.stale = tuple(holds)
    for result in held:
        hear_results(run, stage, host)(result)
    return held


async def unspread(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's signature
    """Tell joining hosts, pods and aggregated API servers of the wanted CA alone; the latter of no earlier one."""
    own = run.authority
    if own.of is SERVICE_ACCOUNTS:
        return await by_api(run, stage, [NoTimeKept()])
    left = await find_left(run)
    if own.left:
        return await by_api(run, stage, [ExtensionsTold(own.of, (own.pair.old,), left)])
    results = await _tell_all(run, stage, (own.pair.wanted,))
    if _failed(results):
        return results
    results += await by_api(run, stage, [ExtensionsTold(own.of, (own.pair.wanted,), (own.pair.leaving, *left))])
    if _failed(results) or run.allow is Impact.NOTHING:
        return results
    if own.of is CLUSTER_CA:
        return [*results, *await by_api(run, stage, [NoTimeKept()])]
    return [*results, await _available(run, stage)]


async def _available(run: Run, stage: str) -> StepResult:
    """Wait until the API servers say of each aggregated API that it is available; what is not is told."""
    found = await wait_for(run, stage, gates.AggregatedApisAvailable(), await run.kube(), seconds=AVAILABLE_SECONDS)
    if found.error is not None:
        run.warned.append(f"{found.step}: {found.error.message}. {LOST}")
    return found


async def _tell_all(run: Run, stage: str, trusted: tuple[str, ...]) -> list[StepResult]:
    """Let cluster-info hold these CAs; wait until all pods, and aggregated API servers, have been told of them.

    The controller manager tells pods, the API servers tell the others.
    """
    own, told = run.authority, list[Check[Kube]]()
    results: list[StepResult] = []
    if own.of is CLUSTER_CA:
        results = await by_api(run, stage, [ClusterInfoTrusts(trusted)])
        told.append(PodsAreTold(trusted))
    told.append(ExtensionsTold(own.of, trusted))
    if run.allow is Impact.NOTHING or _failed(results):
        return results
    return [*results, *await _wait_each(run, stage, told, await run.kube(), TOLD_SECONDS)]


async def prove(run: Run, stage: str, host: str) -> list[StepResult]:
    """Ask every place anew before the other CA is trusted no more. Raises Permanent SHW-855 naming what needs it.

    Where that has begun, what was cut off on its way is for the next stage; what is held and shown is asked again.
    """
    own, kube = run.authority, await run.kube()
    hosts = [one.name for one in running(run).hosts] if own.of is CLUSTER_CA else planes(run)
    wanted = own.pair.wanted
    kube.forget()
    if own.of is FRONT_PROXY and (found := await _available(run, stage)).error is not None:
        return [found]
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(name: str) -> list[StepResult]:
        session = run.session(name)
        session.forget()
        steps: list[Check[Host]] = [AuthorityTrusted((wanted,), exactly=False, of=own.of, name=TRUSTS[own.of.noun])]
        steps += _clients(run, name) if own.of is CLUSTER_CA else []
        if own.of is SERVICE_ACCOUNTS:
            steps += [SignerIs(own.pair, SIGNS["key"]), TokenSigned(wanted, server_of(run, name))]
        elif _control(run, name):
            steps += [LeafsSigned(own.pair), *_shows(run, name), *await _works(run, name)]
        if _control(run, name) and not own.dropping:
            steps += [_loaded(run, name, part) for part in own.of.readers]
        async with gate:
            return [one for one in await look_at_all(steps, session) if one.outcome != "ok"]

    left = dict(zip(hosts, await asyncio.gather(*(ask(name) for name in hosts)), strict=True))
    told: list[Check[Kube]] = [ExtensionsTold(own.of, (wanted,))] if own.of.told else []
    if own.of is CLUSTER_CA:
        told += [ClusterInfoTrusts((wanted,), exactly=False), PodsAreTold((wanted,), exactly=False)]
    if own.of in (CLUSTER_CA, SERVICE_ACCOUNTS):  # a kubelet that is away has asked for nothing
        told.append(NodesReady(tuple(one.name for one in running(run).hosts)))
    left[CLUSTER] = [one for one in await look_at_all(told, kube) if one.outcome != "ok"]
    if keep := [f"{name}: {said_of(one)}" for name, some in left.items() for one in some]:
        noun = own.of.noun
        fix = f"Run the same command again: it does only what is missing. Both {noun}s are trusted until then."
        raise Permanent(f"the other {noun} is needed still: {few(keep)}", code="SHW-855", fix=fix)
    result = StepResult(ALL_SIGN if own.of is SERVICE_ACCOUNTS else NOTHING_LEFT, "ok")
    hear_results(run, stage, host)(result)
    return [result]


def _clients(run: Run, host: str) -> list[Check[Host]]:
    """Return what on any host is of the cluster's CA: its kubelet's certificates, kubeconfigs and who reads them."""
    own, spec = run.authority, run.cluster.host(host)
    steps = kubelet_steps(run, host)
    steps += [] if own.dropping else [ASKS]
    steps += [KubeconfigTrusts(path, (own.pair.wanted,), exactly=False) for path in FILES]
    if is_declared(run.cluster):
        steps.append(Serves(own.pair.wanted, node_ip(spec), KUBELET_PORT))
    if _control(run, host) and not own.dropping:
        steps += [_loaded(run, host, SCHEDULER), UserHasKubeconfig(run.cluster.target(spec).user)]
    return steps


async def end(run: Run, stage: str, host: str) -> list[StepResult]:
    """Put the folder of both CAs aside: from then on the cluster is one of the wanted CA."""
    return await _bring(run, stage, host, [PairKept(run.authority.of, KEPT[run.authority.of.noun])])
