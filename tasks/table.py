"""The table of stages: what those of a bootstrap do, and where those of the other verbs are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Self

from shipway.cluster.model import node_ip
from shipway.cluster.parts import HostSpec
from shipway.converge import On, converge
from shipway.errors import Blocked, Refused, ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kubeadm import hardening
from shipway.locks.bare import claim_left
from shipway.os.families import recognise
from shipway.stage import StageName
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.authority.possible import NoRotation
from shipway.steps.hardening.record import HardeningDeclared
from shipway.steps.kubernetes.health import KubeletDeclared
from shipway.steps.kubernetes.health_cluster import SettledAsDeclared
from shipway.steps.kubernetes.join.tokens import NoTokenLeft
from shipway.steps.kubernetes.kubeadm_objects import JoinsGetDeclared, KubeProxyDeclared
from shipway.steps.kubernetes.nodes import NodeRegistered, NodesReady
from shipway.steps.kubernetes.skew import VersionRuns
from shipway.steps.vip.held import VipHeld, told_otherwise
from shipway.survey.first_look import CLOCK, Survey, survey
from shipway.survey.gpu_health import labelled
from shipway.survey.notices import read_notices
from tasks import gates
from tasks.backup.before import BackupBefore
from tasks.context import Run
from tasks.drift.parts import kubelet_declared, list_settled, peers_of, planes_of
from tasks.drivers import PROOF_SECONDS, install_driver
from tasks.imex import READY_SECONDS, bring_undisturbed
from tasks.kubeconfig import keep_kubeconfig
from tasks.leading import refuse_second_cluster
from tasks.locking import new_lease
from tasks.retire.place import internal_address
from tasks.stage import CLUSTER_SECONDS, HOST_SECONDS, Stage, always
from tasks.stages import (
    control_plane,
    device_plugin,
    gpu_isolation,
    join_control_plane,
    join_worker,
    nvidia_runtime,
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
from tasks.waiting import by_api, hear_results, hear_waits, wait_for
from tasks.workloads import permit_undisturbed

# Each has its own stages in tasks/VERB/table.py.
VERBS = (
    "authority",
    "drift",
    "backup",
    "certificates",
    "endpoint",
    "figures",
    "harden",
    "maintain",
    "replace",
    "retire",
    "upgrade",
)
REGISTER_SECONDS = 120.0  # a join of an interrupted run may have ended a moment ago; kubeadm itself waits for minutes
CONTROL_PLANE_NODE_SECONDS = 300.0  # its pod network may still be on its way
VIP_SECONDS = 30.0
GATE_SECONDS = 300.0  # an API server that restarts, or an image that is pulled slowly, is given this long


async def _bring(run: Run, stage: str, on: On, steps: Sequence[Check[On]], allow: Impact) -> list[StepResult]:
    """Converge, with the progress shown; what a step may disturb is asked again right before it is applied."""
    return await converge(steps, on, allow, hear_results(run, stage, on.name), permit_undisturbed(run, on.name))


async def _bring_node(run: Run, stage: str, host: str, steps: Sequence[Check[Host]]) -> list[StepResult]:
    """Converge a host that is to be a node; of one that has joined, what its labels tell of its GPUs is read as well.

    That costs no exchange of its own: the node's settings, which follow, find it known.
    """
    survey = run.seen.surveys.get(host)
    bring = _bring(run, stage, run.session(host), steps, run.allowed(host))
    if run.allow is Impact.NOTHING or survey is None or not survey.joined:
        return await bring
    results, _ = await asyncio.gather(bring, _told_of_gpus(run, run.cluster.host(host)))
    return results


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
    results = await _bring(run, stage, session, steps, allow)
    if survey is not None and any(one.outcome == "changed" and one.id in nvidia_runtime.DIVIDES for one in results):
        said = await session.read(VENDOR.probe)  # the first look was before GPUs were divided
        run.seen.surveys[host] = replace(survey, driver_parts=VENDOR.count_parts(said.stdout) if said.ok else 0)
    return results


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
    results = await _bring_node(run, stage, host, steps)
    results += await _vip_held(run, stage, session, results)
    if any(result.outcome == "changed" for result in results):
        await run.reconnect()  # what an init that broke off had left may have been asked for its API, and is gone now
    return results


async def _vip_held(run: Run, stage: str, on: Host, before: Sequence[StepResult]) -> list[StepResult]:
    """Wait until a control plane holds the address for clients outside, where nothing of it was withheld or failed.

    One that none holds is told of, and stops nothing: no node needs it.
    """
    if run.allow is Impact.NOTHING or not run.cluster.api_vip:
        return []
    if any(result.outcome not in ("ok", "changed") for result in before):
        return []
    planes = planes_of(run)
    if await told_otherwise(run.cluster, planes):
        return []  # their turn comes: until then another one may hold it, by a virtual router of its own
    held, ends = VipHeld(run.cluster, planes), time.monotonic() + VIP_SECONDS
    while (drift := await held.check(on)) is not None and time.monotonic() < ends:
        hear_waits(run, stage, on.name)(f"waiting until {held.name}: {drift.have}")
    result = StepResult(held.name, "drifted" if drift else "ok", Impact.START, drift)
    if drift and (told := f"not so: {held.name} ({drift})") not in run.warned:
        run.warned.append(told)
    hear_results(run, stage, on.name)(result)
    return [result]


async def _join_control_plane(run: Run, stage: str, host: str) -> list[StepResult]:
    """Join a further control plane, and wait until its node is Ready: then the next one may join.

    Raises Refused: SHW-360 under the name of another machine's node, SHW-856 while the CA is rotated, SHW-789 without a
    young backup where backups are declared. In the place of one that this run took out of etcd, the backup that was
    asked for then is the one.
    """
    await _refuse_name_taken(run, host)
    session, lead = run.session(host), run.session(run.control.name)
    session.forget()
    survey = run.seen.surveys.get(host)
    if survey is None or survey.evidence is None or not survey.evidence.whole:
        await NoRotation().check(lead)
        if not run.backup.source and not run.retirement.control_plane:  # a restore has the backup that it needs
            await BackupBefore(run, f"{host} becomes a member of etcd").check(lead)
    steps = join_control_plane.steps(run.cluster, run.cluster.host(host), run.family(host), lead, peers_of(run, host))
    steps.append(KubeletDeclared(kubelet_declared(run)))
    if hardening.declared(run.cluster):
        steps.append(HardeningDeclared(run.cluster))
    results = await _bring_node(run, stage, host, steps)
    if run.allow is not Impact.NOTHING and all(result.outcome in ("ok", "changed") for result in results):
        results += await _vip_held(run, stage, session, results)
        ready = NodesReady((host,))
        results.append(await wait_for(run, stage, ready, await run.kube(), seconds=CONTROL_PLANE_NODE_SECONDS))
    return results


async def _refuse_name_taken(run: Run, host: str) -> None:
    """Refuse to let a bare machine join under the name of a node that is at another address. Raises Refused SHW-360.

    kubeadm refuses where that node is Ready. One that is not may be cut off, with its pods at work: a second kubelet of
    the name would start them again. Where there is no cluster yet a plan asks nobody; what goes before frees a name.
    """
    survey, plan = run.seen.surveys.get(host), run.allow is Impact.NOTHING
    if survey is None or survey.joined or (plan and run.replacement.old is not None):
        return
    try:
        node = await (await run.kube()).get("v1", "Node", host, fresh=True)
    except Blocked:
        if plan:
            return
        raise
    own, address = internal_address(node), node_ip(run.cluster.host(host))
    if own and own != address:
        message = f"the cluster has a node {host} at {own}, and this machine, at {address}, is another one"
        fix = (
            f"To let it take that one's place: `shipway replace {run.file or 'FILE'} {host}` (with --dead where that "
            "one is off for good); else correct the address, or give this machine a name of its own."
        )
        raise Refused(message, host=host, code="SHW-360", fix=fix)


async def _join(run: Run, stage: str, host: str) -> list[StepResult]:
    """Join a worker; its token is made through the control plane's session. Raises Refused SHW-360."""
    await _refuse_name_taken(run, host)
    session, control = run.session(host), run.session(run.control.name)
    session.forget()
    steps = join_worker.steps(run.cluster, run.cluster.host(host), run.family(host), control)
    steps.append(KubeletDeclared(kubelet_declared(run)))
    return await _bring_node(run, stage, host, steps)


async def _on_cluster(module: ModuleType, run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001
    """Bring the cluster to what the stage's steps want."""
    return await by_api(run, stage, module.steps(run.cluster))


async def _plugin(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001
    """Bring the device plugin, once every host that it will run on is as it needs it."""
    await device_plugin.wait_for_hosts(run)
    results = await by_api(run, stage, device_plugin.steps(run.cluster, device_plugin.unready(run)))
    left = await device_plugin.classes_left(run)
    return [*results, *await by_api(run, stage, left)] if left else results


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
    told = await _told_of_gpus(run, spec) if run.allow is not Impact.NOTHING else ""
    undivided = nvidia_runtime.undivided(run, spec)
    return await by_api(run, stage, gates.node_steps(run.cluster, spec, run.gpus_of(spec), told, undivided), host)


async def _told_of_gpus(run: Run, spec: HostSpec) -> str:
    """Return what the driver of a host tells of its GPUs; "" where it has none, or tells nothing."""
    if VENDOR.health is None or not run.gpus_of(spec):
        return ""
    try:
        said = await run.session(spec.name).read(VENDOR.health.report, VENDOR.health.capabilities)
    except ShipwayError:
        return ""  # its own stages tell
    return labelled(*said)


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


DRIVER_SECONDS = 7200.0  # packages of a gigabyte, a module that is built for two kernels, boot images
UPGRADE_SECONDS = 2400.0  # prepare_system may bring all base packages up to date
_SPECIAL = (
    Stage(StageName.PREFLIGHT, _look_over, always(180.0)),
    Stage(
        StageName.GPU_DRIVER,
        install_driver,
        lambda cluster: DRIVER_SECONDS + 2.0 * PROOF_SECONDS + 60.0 * cluster.maintain.reboot_minutes,
    ),
    Stage(StageName.CONTROL_PLANE, _control_plane, lambda cluster: 2.0 * cluster.kubernetes.init_seconds + 600),
    Stage(StageName.CONTROL_PLANE_READY, _gate, always(2 * GATE_SECONDS + 120), 0),
    Stage(
        StageName.JOIN_CONTROL_PLANE,
        _join_control_plane,
        lambda cluster: 2.0 * cluster.kubernetes.init_seconds + 600 + CONTROL_PLANE_NODE_SECONDS,
    ),
    Stage(StageName.JOIN_WORKER, _join, lambda cluster: 2.0 * cluster.kubernetes.join_seconds + 300),
    Stage(StageName.NODE_SETTINGS, _node, always(300.0)),
    Stage(StageName.DEVICE_PLUGIN, _plugin, always(device_plugin.HOSTS_SECONDS + 1200)),
    Stage(StageName.GPU_IMEX, bring_undisturbed, always(READY_SECONDS + 300.0)),
    Stage(StageName.GPU_ISOLATION, _isolate, always(300.0)),
    Stage(StageName.NODES_READY, nodes_ready, always(NODE_SECONDS + SERVING_SECONDS + 120), 0),
    Stage(StageName.GPUS_ALLOCATABLE, gpus_allocatable, always(GPU_SECONDS + ROLLOUT_SECONDS + 120), 0),
    Stage(StageName.GPU_PROOF, gpu_proof, lambda cluster: 2.0 * cluster.gpu.verify_seconds + 600, 0),
)


def _host_seconds(stage: ModuleType) -> float:
    return UPGRADE_SECONDS if stage is prepare_system else HOST_SECONDS


class Stages(dict[StageName, Stage]):
    """The stages by name; those of the other verbs are imported with the first of them that is asked for.

    A command has read Prefect's modules for seconds before it begins; what another verb needs it does not read.
    """

    def __missing__(self, name: StageName) -> Stage:
        """Bring the tables of all verbs; raises KeyError for a name that no table has."""
        if name in (found := self.complete()):
            return found[name]
        raise KeyError(name)

    def complete(self) -> Self:
        """Return the table with the stages of every verb in it."""
        for verb in VERBS:
            for stage in import_module(f"tasks.{verb}.table").STAGES:
                self.setdefault(stage.name, stage)
        return self


STAGES = Stages(
    {
        stage.name: stage
        for stage in (
            *(Stage(name_of(one), partial(_on_host, one), always(_host_seconds(one))) for one in PREPARATION),
            *(Stage(name_of(one), partial(_on_cluster, one), always(CLUSTER_SECONDS)) for one in ADD_ONS),
            *_SPECIAL,  # what needs more than its steps
        )
    }
)
