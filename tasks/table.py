"""The table of stages: what each one does on a host or the cluster, and how long one attempt may take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType

from shipway.cluster.model import Cluster
from shipway.converge import On, converge
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kubeadm import hardening
from shipway.locks.bare import claim_left
from shipway.os.families import recognise
from shipway.stage import StageName
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.authority.possible import NoRotation
from shipway.steps.backup.brought import VERIFY_SECONDS
from shipway.steps.backup.restored import RESTORE_SECONDS
from shipway.steps.backup.several import STOP_SECONDS
from shipway.steps.backup.taken import TAKE_SECONDS
from shipway.steps.hardening.record import HardeningDeclared
from shipway.steps.kubernetes.health import KubeletDeclared
from shipway.steps.kubernetes.health_cluster import SettledAsDeclared
from shipway.steps.kubernetes.join_tokens import NoTokenLeft
from shipway.steps.kubernetes.kubeadm_objects import JoinsGetDeclared, KubeProxyDeclared
from shipway.steps.kubernetes.nodes import NodeRegistered, NodesReady
from shipway.steps.kubernetes.skew import VersionRuns
from shipway.steps.upgrade.control_plane import SECONDS as SETTLE_SECONDS
from shipway.steps.upgrade.fetched import PULL_SECONDS
from shipway.survey.first_look import CLOCK, Survey, survey
from shipway.survey.notices import read_notices
from tasks import gates
from tasks.authority import work as authorities
from tasks.authority.look import SETTLE_SECONDS as AUTHORITY_SETTLES
from tasks.authority.look import look as authority_look
from tasks.authority.look import may_rotate
from tasks.authority.work import PARTS_SECONDS, PARTS_SECONDS_A_NODE
from tasks.backup import restores
from tasks.backup import work as backups
from tasks.certificates.stages import approve_requests, look, mend_kubelet, renew
from tasks.context import Run
from tasks.drift.look import look_at_cluster, look_at_host
from tasks.drift.parts import kubelet_declared, list_settled, peers_of
from tasks.drift.repair import DRAIN_SECONDS, READY_SECONDS, repair_cluster, repair_drained, repair_host
from tasks.endpoint import work as endpoints
from tasks.endpoint.look import look as endpoint_look
from tasks.endpoint.look import may_move as endpoint_possible
from tasks.endpoint.work import ROLLOUT_SECONDS as PROXY_SECONDS
from tasks.endpoint.work import ROLLOUT_SECONDS_A_NODE as PROXY_SECONDS_A_NODE
from tasks.harden import stages as harden
from tasks.kubeconfig import keep_kubeconfig
from tasks.leading import refuse_second_cluster
from tasks.locking import new_lease
from tasks.maintain import work as maintains
from tasks.maintain.look import SETTLE_SECONDS as MAINTAIN_SETTLE_SECONDS
from tasks.maintain.look import look_at_possible as maintain_look
from tasks.maintain.look import look_at_system
from tasks.retire.allowed import may_remove, may_reset
from tasks.retire.whole import may_reset_all
from tasks.retire.work import DRAIN_SECONDS as NODE_DRAIN_SECONDS
from tasks.retire.work import delete_node, drain_node, leave_api, leave_etcd, reset_host, stop_kubelet
from tasks.stages import (
    control_plane,
    device_plugin,
    gpu_isolation,
    join_control_plane,
    join_worker,
    preflight,
    prepare_system,
)
from tasks.stages.listed import ADD_ONS, PREPARATION, name_of
from tasks.stages.verify import (
    GPU_SECONDS,
    NODE_SECONDS,
    ROLLOUT_SECONDS,
    SERVING_SECONDS,
    gpu_proof,
    gpus_allocatable,
    nodes_ready,
)
from tasks.upgrade import work as upgrades
from tasks.upgrade.look import look_at_possible, look_at_versions
from tasks.waiting import by_api, hear_results, wait_for
from tasks.waves.turn import DRAIN_SECONDS as WAVE_DRAIN_SECONDS
from tasks.workloads import permit_undisturbed

Work = Callable[[Run, str, str], Awaitable[list[StepResult]]]
RETRIES = 2
REGISTER_SECONDS = 120.0  # a join of an interrupted run may have ended a moment ago; kubeadm itself waits for minutes
CONTROL_PLANE_NODE_SECONDS = 300.0  # its pod network may still be on its way
GATE_SECONDS = 300.0  # an API server that restarts, or an image that is pulled slowly, is given this long


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: `work(run, stage, host)` gives the results of its steps, within `seconds` an attempt.

    `retries` is the outer retry layer (the inner one is shipway.retry); what waits by itself needs none. A `terse`
    one logs only what is not as wanted: of a thousand hosts nobody reads the rest.
    """

    name: StageName
    work: Work
    seconds: Callable[[Cluster], float]
    retries: int = RETRIES
    terse: bool = False


async def _bring(run: Run, stage: str, on: On, steps: Sequence[Check[On]], allow: Impact) -> list[StepResult]:
    """Converge, with the progress shown; what a step may disturb is asked again right before it is applied."""
    return await converge(steps, on, allow, hear_results(run, stage, on.name), permit_undisturbed(run, on.name))


@dataclass(frozen=True)
class Reached:
    """The host answers over SSH, and the login user may run commands as root."""

    name: str = "SSH and sudo work"

    async def check(self, on: Host) -> Drift | None:
        """Read the clock; what keeps from that is raised by the session."""
        await on.read(CLOCK)
        return None


async def _look_over(run: Run, stage: str, host: str) -> list[StepResult]:
    """Preflight: look at a host, and keep what later stages ask of it; all in one round trip."""
    session = run.session(host)
    session.forget()
    family = run.seen.families[host] = await recognise(session)
    checks: list[Check[Host]] = [Reached(), *preflight.checks(run.cluster, run.cluster.host(host), family)]
    looking = _bring(run, stage, session, checks, Impact.NOTHING)
    others = claim_left(session) if host == run.control.name else asyncio.sleep(0)  # in the same exchange
    looked, seen, heard_of, _ = await asyncio.gather(
        looking, survey(session), read_notices(session), others, return_exceptions=True
    )
    if isinstance(looked, BaseException):
        raise looked
    if isinstance(seen, Survey):
        heard = () if isinstance(heard_of, BaseException) else heard_of
        vouched = run.cluster.host(host).not_cloned
        run.seen.surveys[host] = replace(seen, notices=(*seen.left_out, *heard), vouched=vouched)
    elif all(result.outcome == "ok" for result in looked):
        raise seen
    return looked


async def _on_host(module: ModuleType, run: Run, stage: str, host: str) -> list[StepResult]:
    """Bring a host to what the stage's steps want; on one that has joined nothing that may end its pods is done.

    One of which nobody knows whether it has joined is treated as if it had.
    """
    session = run.session(host)
    session.forget()
    survey = run.seen.surveys.get(host)
    bare = survey is not None and not survey.joined
    allow = run.allowed(host) if bare else min(run.allowed(host), Impact.SERVICE)
    steps = module.steps(run.cluster, run.cluster.host(host), run.family(host))
    return await _bring(run, stage, session, steps, allow)


async def _control_plane(run: Run, stage: str, host: str) -> list[StepResult]:
    """Initialise the control plane."""
    refuse_second_cluster(run, host)
    session = run.session(host)
    session.forget()
    steps = control_plane.steps(
        run.cluster, run.cluster.host(host), run.family(host), reset=host in run.reset, peers=peers_of(run, host)
    )
    steps.append(KubeletDeclared(kubelet_declared(run)))
    if hardening.declared(run.cluster):
        steps.append(HardeningDeclared(run.cluster))
    results = await _bring(run, stage, session, steps, run.allowed(host))
    if any(result.outcome == "changed" for result in results):
        await run.reconnect()  # what an init that broke off had left may have been asked for its API, and is gone now
    return results


async def _join_control_plane(run: Run, stage: str, host: str) -> list[StepResult]:
    """Join a further control plane, and wait until its node is Ready: then the next one may join.

    Raises Refused SHW-856 while the CA is rotated.
    """
    session, lead = run.session(host), run.session(run.control.name)
    session.forget()
    survey = run.seen.surveys.get(host)
    if survey is None or survey.evidence is None or not survey.evidence.whole:
        await NoRotation().check(lead)
    steps = join_control_plane.steps(run.cluster, run.cluster.host(host), run.family(host), lead, peers_of(run, host))
    steps.append(KubeletDeclared(kubelet_declared(run)))
    if hardening.declared(run.cluster):
        steps.append(HardeningDeclared(run.cluster))
    results = await _bring(run, stage, session, steps, run.allowed(host))
    if run.allow is not Impact.NOTHING and all(result.outcome in ("ok", "changed") for result in results):
        ready = NodesReady((host,))
        results.append(await wait_for(run, stage, ready, await run.kube(), seconds=CONTROL_PLANE_NODE_SECONDS))
    return results


async def _join(run: Run, stage: str, host: str) -> list[StepResult]:
    """Join a worker; its token is made through the control plane's session."""
    session, control = run.session(host), run.session(run.control.name)
    session.forget()
    steps = join_worker.steps(run.cluster, run.cluster.host(host), run.family(host), control)
    steps.append(KubeletDeclared(kubelet_declared(run)))
    return await _bring(run, stage, session, steps, run.allowed(host))


async def _on_cluster(module: ModuleType, run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001
    """Bring the cluster to what the stage's steps want."""
    return await by_api(run, stage, module.steps(run.cluster))


async def _plugin(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001
    """Bring the device plugin, once every host that it will run on is as it needs it."""
    await device_plugin.wait_for_hosts(run)
    return await by_api(run, stage, device_plugin.steps(run.cluster, device_plugin.unready(run)))


async def _isolate(run: Run, stage: str, host: str) -> list[StepResult]:
    """Close a GPU host to pods that ask for no GPU; whatever was given GPUs the old way holds it open."""
    session = run.session(host)
    session.forget()
    return await _bring(
        run, stage, session, gpu_isolation.steps(run.cluster, gpu_isolation.holding(run)), run.allowed(host)
    )


async def _node(run: Run, stage: str, host: str) -> list[StepResult]:
    """Return a node its labels, and take the control plane's taint away where pods are wanted there."""
    spec = run.cluster.host(host)
    if run.allow is not Impact.NOTHING and gates.node_steps(run.cluster, spec, run.gpus_of(spec)):
        registered = await wait_for(run, stage, NodeRegistered(host), await run.kube(), seconds=REGISTER_SECONDS)
        if registered.outcome != "ok":
            return [registered]
    return await by_api(run, stage, gates.node_steps(run.cluster, spec, run.gpus_of(spec)), host)


async def _gate(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001
    """Wait for an API that answers, in its version, and a healthy etcd; then lease, tokens and kubeconfig.

    A plan only looks.
    """
    running = VersionRuns(run.cluster.kubernetes.version)
    checks: list[Check[Kube]] = [gates.ApiAnswers(), gates.EtcdHealthy(), running, SettledAsDeclared(list_settled(run))]
    checks.append(KubeProxyDeclared(run.cluster.kubernetes.kube_proxy))
    if run.allow is Impact.NOTHING:
        return await by_api(run, stage, checks)
    kube = await run.kube()
    results = [await wait_for(run, stage, check, kube, seconds=GATE_SECONDS) for check in checks]
    if any(result.outcome != "ok" for result in results):
        return results
    await new_lease(run)
    joins = JoinsGetDeclared(run.cluster.kubernetes.minor, kubelet_declared(run))
    return [
        *results,
        *await by_api(run, stage, [NoTokenLeft(), joins]),
        keep_kubeconfig(run, kube.admin_conf, "the kubeconfig is on this machine"),
    ]


def _always(seconds: float) -> Callable[[Cluster], float]:
    return lambda _: seconds


def _upgrade_seconds(cluster: Cluster) -> float:
    """Return how long a host may take: for its GPU jobs, its drain, kubeadm, packages, and its proof."""
    jobs = cluster.upgrade.wait_minutes * 60.0 if cluster.upgrade.gpu_jobs != "evict" else 0.0
    return jobs + WAVE_DRAIN_SECONDS + SETTLE_SECONDS + 2.0 * cluster.gpu.verify_seconds + 3600.0


def _maintain_seconds(cluster: Cluster) -> float:
    """Return how long a host may take: as for an upgrade, and its restart."""
    return _upgrade_seconds(cluster) + cluster.maintain.reboot_minutes * 60.0


# An attempt's limit is far above what it takes; what is slow within it has limits of its own, command by command.
HOST_SECONDS, CLUSTER_SECONDS = 1500.0, 1200.0
UPGRADE_SECONDS = 2400.0  # prepare_system may bring all base packages up to date
_DRIFT = (
    Stage(StageName.LOOK, look_at_host, _always(240.0), terse=True),
    Stage(StageName.LOOK_AT_CLUSTER, look_at_cluster, _always(300.0), terse=True),
    Stage(StageName.REPAIR, repair_host, _always(3600.0), 0, terse=True),
    Stage(StageName.REPAIR_DRAINED, repair_drained, _always(DRAIN_SECONDS + READY_SECONDS + 3600), 0, terse=True),
    Stage(StageName.REPAIR_CLUSTER, repair_cluster, _always(1200.0), 0, terse=True),
)
_BACKUP = (
    Stage(StageName.BACKUP_POSSIBLE, backups.backup_possible, _always(TAKE_SECONDS + 120.0)),
    Stage(StageName.BACKUP_FILES, backups.backup_files, _always(300.0)),
    Stage(StageName.TAKE_BACKUP, backups.take_backup, _always(2.0 * TAKE_SECONDS)),
    Stage(StageName.KEEP_BACKUP, backups.keep_backup, _always(7200.0)),
    Stage(StageName.RESTORE_POSSIBLE, restores.restore_possible, _always(RESTORE_SECONDS + 120.0)),
    Stage(StageName.RESTORE_LOSES, restores.restore_loses, _always(300.0), 0),
    Stage(StageName.RESTORE_BRING, restores.restore_bring, _always(7200.0 + VERIFY_SECONDS + PULL_SECONDS)),
    Stage(StageName.RESTORE_STOP, restores.restore_stop, _always(2.0 * STOP_SECONDS)),
    Stage(StageName.RESTORE_UNDO, restores.restore_undo, _always(2.0 * STOP_SECONDS)),
    Stage(StageName.RESTORE_ASIDE, restores.restore_aside, _always(2.0 * RESTORE_SECONDS)),
    Stage(StageName.FORGET_NODES, restores.forget_nodes, _always(300.0)),
    Stage(StageName.RESTORE_BACKUP, restores.restore_backup, _always(2.0 * RESTORE_SECONDS)),
    Stage(StageName.RESTART_KUBELET, restores.restart_kubelet, _always(300.0)),
    Stage(StageName.START_WATCHERS, restores.start_watchers, _always(restores.READY_SECONDS + 300)),
)
# A control plane's four pods are each given what one restart may take at most; kubelets their API.
_CERTIFICATES = (
    Stage(StageName.CERTIFICATES, look, _always(240.0), terse=True),
    Stage(StageName.RENEW_CERTIFICATES, renew, _always(2400.0)),
    Stage(StageName.KUBELET_CERTIFICATES, mend_kubelet, _always(900.0)),
    Stage(StageName.SERVING_REQUESTS, approve_requests, _always(300.0)),
)
# Each of a control plane's three pods may be started anew twice: with its new manifest, and with its old one.
_HARDEN = (
    Stage(StageName.MAY_HARDEN, harden.may_harden, _always(240.0)),
    Stage(StageName.HARDEN_FILES, harden.harden_files, _always(300.0)),
    Stage(StageName.HARDEN_CONTROL_PLANE, harden.harden_control_plane, _always(3600.0)),
    Stage(StageName.HARDEN_RECORD, harden.harden_record, _always(300.0)),
    Stage(StageName.SEAL_SECRETS, harden.seal_secrets, _always(4200.0)),
    Stage(StageName.HARDEN_HOST, harden.harden_host, _always(900.0)),
)
_ENDPOINT = (
    Stage(StageName.ENDPOINT_LOOK, endpoint_look, _always(240.0), terse=True),
    Stage(StageName.ENDPOINT_POSSIBLE, endpoint_possible, _always(120.0)),
    Stage(StageName.ENDPOINT_CERTIFICATE, endpoints.certify, _always(1500.0)),
    Stage(StageName.ENDPOINT_WAY, endpoints.name_way, _always(HOST_SECONDS)),
    Stage(StageName.ENDPOINT_RECORD, endpoints.record, _always(300.0)),
    Stage(StageName.ENDPOINT_KUBECONFIGS, endpoints.point_kubeconfigs, _always(2400.0)),
    Stage(
        StageName.ENDPOINT_KUBE_PROXY,
        endpoints.point_kube_proxy,
        lambda cluster: PROXY_SECONDS + PROXY_SECONDS_A_NODE * len(cluster.hosts) + 120,
    ),
    Stage(StageName.ENDPOINT_PROOF, endpoints.prove, _always(600.0)),
)
# A control plane's three pods are started anew one by one, the controller manager twice, and its kubelet.
_AUTHORITY = (
    Stage(StageName.AUTHORITY_LOOK, authority_look, _always(AUTHORITY_SETTLES + 240.0), terse=True),
    Stage(StageName.AUTHORITY_POSSIBLE, may_rotate, _always(600.0)),
    Stage(StageName.AUTHORITY_MADE, authorities.make, _always(300.0)),
    Stage(StageName.AUTHORITY_TRUSTED, authorities.trust, _always(3600.0)),
    Stage(
        StageName.AUTHORITY_TOLD,
        authorities.spread,
        lambda cluster: 2 * (PARTS_SECONDS + PARTS_SECONDS_A_NODE * len(cluster.hosts)) + 600,
    ),
    Stage(StageName.AUTHORITY_SIGNS, authorities.sign, _always(3600.0)),
    Stage(StageName.AUTHORITY_KUBELETS, authorities.sign_kubelet, _always(1200.0)),
    Stage(StageName.AUTHORITY_PROOF, authorities.prove, _always(600.0)),
    Stage(StageName.AUTHORITY_DROPPED, authorities.drop, _always(3600.0)),
    Stage(StageName.AUTHORITY_ALONE, authorities.unspread, _always(600.0)),
    Stage(StageName.AUTHORITY_KEPT, authorities.end, _always(600.0)),
)
_SPECIAL = (
    Stage(StageName.PREFLIGHT, _look_over, _always(180.0)),
    Stage(StageName.CONTROL_PLANE, _control_plane, lambda cluster: 2.0 * cluster.kubernetes.init_seconds + 600),
    Stage(StageName.CONTROL_PLANE_READY, _gate, _always(2 * GATE_SECONDS + 120), 0),
    Stage(
        StageName.JOIN_CONTROL_PLANE,
        _join_control_plane,
        lambda cluster: 2.0 * cluster.kubernetes.init_seconds + 600 + CONTROL_PLANE_NODE_SECONDS,
    ),
    Stage(StageName.JOIN_WORKER, _join, lambda cluster: 2.0 * cluster.kubernetes.join_seconds + 300),
    Stage(StageName.NODE_SETTINGS, _node, _always(300.0)),
    Stage(StageName.DEVICE_PLUGIN, _plugin, _always(device_plugin.HOSTS_SECONDS + 1200)),
    Stage(StageName.GPU_ISOLATION, _isolate, _always(300.0)),
    Stage(StageName.NODES_READY, nodes_ready, _always(NODE_SECONDS + SERVING_SECONDS + 120), 0),
    Stage(StageName.GPUS_ALLOCATABLE, gpus_allocatable, _always(GPU_SECONDS + ROLLOUT_SECONDS + 120), 0),
    Stage(StageName.GPU_PROOF, gpu_proof, lambda cluster: 2.0 * cluster.gpu.verify_seconds + 600, 0),
)
_RETIRE = (
    Stage(StageName.MAY_REMOVE, may_remove, _always(180.0), 0),
    Stage(StageName.MAY_RESET, may_reset, _always(180.0), 0),
    Stage(StageName.MAY_RESET_ALL, may_reset_all, _always(300.0), 0),
    Stage(StageName.LEAVE_API, leave_api, _always(300.0)),
    Stage(StageName.DRAIN_NODE, drain_node, _always(NODE_DRAIN_SECONDS + 600), 0),
    Stage(StageName.STOP_KUBELET, stop_kubelet, _always(300.0)),
    Stage(StageName.LEAVE_ETCD, leave_etcd, _always(300.0)),
    Stage(StageName.DELETE_NODE, delete_node, _always(300.0)),
    Stage(StageName.RESET_HOST, reset_host, _always(3600.0)),
)


_UPGRADE = (
    Stage(StageName.UPGRADE_LOOK, look_at_versions, _always(SETTLE_SECONDS + 240.0), terse=True),
    Stage(StageName.UPGRADE_POSSIBLE, look_at_possible, _always(300.0), terse=True),
    Stage(StageName.UPGRADE_FETCH, upgrades.fetch, _always(2.0 * PULL_SECONDS + 1800)),
    Stage(StageName.UPGRADE_CONTROL_PLANE, upgrades.upgrade_control_plane, _upgrade_seconds),
    Stage(StageName.UPGRADE_ADDONS, upgrades.upgrade_addons, _always(SETTLE_SECONDS + 600.0)),
    Stage(StageName.UPGRADE_WORKER, upgrades.upgrade_worker, _upgrade_seconds),
)

_MAINTAIN = (
    Stage(StageName.MAINTAIN_LOOK, look_at_system, _always(MAINTAIN_SETTLE_SECONDS + 240.0), terse=True),
    Stage(StageName.MAINTAIN_POSSIBLE, maintain_look, _always(300.0), terse=True),
    Stage(StageName.MAINTAIN_FETCH, maintains.fetch, _always(3600.0)),
    Stage(StageName.MAINTAIN_CONTROL_PLANE, maintains.maintain_control_plane, _maintain_seconds),
    Stage(StageName.MAINTAIN_WORKER, maintains.maintain_worker, _maintain_seconds),
)


def _host_seconds(stage: ModuleType) -> float:
    return UPGRADE_SECONDS if stage is prepare_system else HOST_SECONDS


STAGES: dict[StageName, Stage] = {
    **{name_of(one): Stage(name_of(one), partial(_on_host, one), _always(_host_seconds(one))) for one in PREPARATION},
    **{name_of(one): Stage(name_of(one), partial(_on_cluster, one), _always(CLUSTER_SECONDS)) for one in ADD_ONS},
    **{
        stage.name: stage
        for stage in (
            *_SPECIAL,
            *_DRIFT,
            *_RETIRE,
            *_BACKUP,
            *_CERTIFICATES,
            *_ENDPOINT,
            *_AUTHORITY,
            *_HARDEN,
            *_UPGRADE,
            *_MAINTAIN,
        )
    },  # what needs more than its steps
}
