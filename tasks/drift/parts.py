"""What a drift pass looks at: every stage's steps of a host and of the cluster, and how far repairing them may go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, TypeVar

from shipway.backup.script import script_of
from shipway.cluster.model import node_ip
from shipway.cluster.parts import HostSpec
from shipway.cluster.profiles import merge
from shipway.gpu.chosen import VENDOR
from shipway.gpu.classes import daemon_sets, declared_sharing
from shipway.gpu.health.model import GpuHealth
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kubeadm import hardening
from shipway.kubeadm.config import init_documents
from shipway.kubeadm.writes import kubelet_fields, static_pod_args
from shipway.stage import StageName
from shipway.step import Check, Impact
from shipway.steps.authority.left import NoneLeftBehind
from shipway.steps.backup.taken import BackupFresh
from shipway.steps.gpu.healthy import FabricReady, GpusHealthy
from shipway.steps.gpu.proven import GpusProvenAnew, GpusProvenLater
from shipway.steps.gpu.sound import GpusSound, ReleasedByProof, UnfitKeptFromPods
from shipway.steps.hardening.listed import modes, pods_of, sealed
from shipway.steps.hardening.record import HardeningRemembered
from shipway.steps.kubernetes import health
from shipway.steps.kubernetes.endpoint import BalancerReached
from shipway.steps.kubernetes.etcd_members import EtcdMembersDeclared
from shipway.steps.kubernetes.health_cluster import (
    EveryNodeDeclared,
    HostIsNode,
    KubeadmRemembers,
    NodeOpen,
    NodeReady,
    NodeTaints,
    NodeUnpressed,
    PodsStable,
)
from shipway.steps.kubernetes.kubeadm_objects import (
    CoreDnsAsWritten,
    JoiningRights,
    JoinsGetDeclared,
    KubeletRuns,
    KubeProxyAsWritten,
)
from shipway.steps.kubernetes.nodes import NoNoteLeft
from shipway.steps.kubernetes.running import (
    ContainerdConfigUsed,
    HostsResolve,
    KubeletFlags,
    NameServersThere,
    StaticPodsAsWritten,
)
from shipway.steps.kubernetes.skew import VersionDeclared
from shipway.steps.runtime.containerd import ContainerdConfigured, CriAnswers
from shipway.steps.system.preflight import AddressOnHost
from shipway.steps.system.services import ServiceLoaded
from shipway.steps.vip.held import VipHeld
from shipway.survey.first_look import survey
from shipway.survey.gpu_health import HealthLook, look_at_health, with_missing
from tasks import gates, imex
from tasks.context import Run
from tasks.drift.gpu_evidence import keep_evidence
from tasks.figures.kept import read_history
from tasks.gates import node_steps
from tasks.stage_result import CLUSTER
from tasks.stages import (
    container_runtime,
    control_plane,
    dashboard,
    device_plugin,
    gpu_driver,
    gpu_isolation,
    join_control_plane,
    join_worker,
    nvidia_runtime,
)
from tasks.stages.listed import ADD_ONS, GPU_HOSTS, PREPARATION, name_of

On = TypeVar("On", Host, Kube)
OF_GPUS = tuple(name_of(stage) for stage in GPU_HOSTS)


@dataclass(frozen=True)
class Part(Generic[On]):
    """Steps of one stage about one host (or the cluster), and the highest impact a repair of them may ever have."""

    host: str
    stage: StageName
    steps: Sequence[Check[On]]
    most: Impact = Impact.WORKLOADS


def host_parts(run: Run, spec: HostSpec) -> list[Part[Host]]:
    """Return what is looked at on a host, in the order in which it is repaired."""
    closed = Part(spec.name, name_of(gpu_isolation), gpu_isolation.steps(run.cluster, gpu_isolation.holding(run)))
    parts = [
        *(Part(spec.name, name_of(module), _steps(run, module, spec), _most(module)) for module in PREPARATION),
        _join(run, spec),
        closed,
        Part(spec.name, StageName.HEALTH, _health(run, spec), Impact.SERVICE),
    ]
    return [part for part in parts if spec.gpus != 0 or part.stage not in OF_GPUS]


def _steps(run: Run, module: ModuleType, spec: HostSpec) -> list[Check[Host]]:
    """Return a stage's steps; on a host with GPUs containerd's configuration is the vendor's stage's alone.

    A bootstrap writes it first without and then with the GPUs' runtime; a repair that did so would take the runtime
    away from running pods for a moment.
    """
    if module is gpu_driver:
        declared = gpu_driver.declared(run.cluster, spec, run.family(spec.name), run.file)
        return [*declared, *imex.steps(run, spec.name)]
    steps = _steps_of(run, module, spec)
    if module is container_runtime and spec.gpus != 0 and VENDOR.runtime:
        return [step for step in steps if not isinstance(step, ContainerdConfigured | ServiceLoaded | CriAnswers)]
    return steps


def _most(module: ModuleType) -> Impact:
    """Return how far a stage may be repaired: a driver is changed by maintenance alone."""
    return Impact.SERVICE if module is gpu_driver else Impact.WORKLOADS


def _steps_of(run: Run, module: ModuleType, spec: HostSpec) -> list[Check[Host]]:
    steps: list[Check[Host]] = module.steps(run.cluster, spec, run.family(spec.name))
    return steps


def plain_runtime(run: Run, spec: HostSpec) -> Part[Host]:
    """Return the container runtime's part of a host that turned out to have no GPUs (`gpus: auto`)."""
    return Part(spec.name, name_of(container_runtime), _steps_of(run, container_runtime, spec))


def _join(run: Run, spec: HostSpec) -> Part[Host]:
    if spec == run.control:
        own = control_plane.steps(run.cluster, spec, run.family(spec.name), peers=peers_of(run, spec.name))
        return Part(spec.name, StageName.CONTROL_PLANE, own, Impact.SERVICE)
    if spec in run.cluster.control_planes:
        lead, peers = run.session(run.control.name), peers_of(run, spec.name)
        further = join_control_plane.steps(run.cluster, spec, run.family(spec.name), lead, peers)
        return Part(spec.name, StageName.JOIN_CONTROL_PLANE, further, Impact.SERVICE)
    steps = join_worker.steps(run.cluster, spec, run.family(spec.name), run.session(run.control.name))
    return Part(spec.name, StageName.JOIN_WORKER, steps, Impact.SERVICE)


def _health(run: Run, spec: HostSpec) -> list[Check[Host]]:
    """Return the checks that only a running host needs."""
    control = spec in run.cluster.control_planes
    own = (health.KUBELET_CERTIFICATE, *(health.CONTROL_PLANE_CERTIFICATES if control else ()))
    names = {host.name: node_ip(host) for host in run.cluster.hosts}
    flags = hardening.flags(run.cluster)
    pods = [StaticPodsAsWritten(static_pod_args(run.cluster, spec), beside=flags)] if control else []
    hardened = _hardened(run, spec) if control else [*modes(run.cluster)]
    oldest = run.cluster.backup.oldest_hours
    backups = [BackupFresh(script_of(run.cluster), oldest)] if control and oldest is not None else []
    return [
        health.CertificatesValid(own),
        KubeletFlags(),
        ContainerdConfigUsed(),
        NameServersThere(),
        run.family(spec.name).sources_readable(),
        HostsResolve(names, spec.name),
        *([BalancerReached(run.cluster.endpoint)] if run.cluster.balancer else []),
        *pods,
        *hardened,
        *backups,
        health.DiskRoomLeft(),
        AddressOnHost(node_ip(spec)),
        GpusHealthy(None if spec.gpus == "auto" else spec.gpus),
        FabricReady(),
        health.KubeletConfigured(kubelet_wanted(run)),
        health.KubeletLoaded(),
    ]


def peers_of(run: Run, host: str) -> tuple[Host, ...]:
    """Return the sessions of the control planes beside a host."""
    return tuple(run.session(spec.name) for spec in run.cluster.control_planes if spec.name != host)


def planes_of(run: Run) -> tuple[Host, ...]:
    """Return the sessions of all control planes."""
    return tuple(run.session(spec.name) for spec in run.cluster.control_planes)


def _hardened(run: Run, spec: HostSpec) -> list[Check[Host]]:
    """Return what hardening declares of a control plane, where it declares anything: what went away is brought back."""
    if not hardening.declared(run.cluster):
        return []
    peers = peers_of(run, spec.name)
    pods = pods_of(run.cluster, spec, peers, again=True)
    secrets = sealed(run.cluster, spec, peers) if spec == run.control else []
    return [*pods, *secrets, *modes(run.cluster)]


def list_settled(run: Run) -> dict[str, str]:
    """Return what kubeadm's record of the cluster is to say, by kubeadm's names."""
    declared = init_documents(run.cluster, run.control)[1]
    keys = ("kubernetesVersion", "controlPlaneEndpoint", "imageRepository")
    return {**{key: str(declared[key]) for key in keys}, **declared["networking"]}


def kubelet_declared(run: Run) -> dict[str, Any]:
    """Return the fields of the kubelets' configuration that are declared."""
    declared = init_documents(run.cluster, run.control)[2]
    return {key: value for key, value in declared.items() if key not in ("apiVersion", "kind")}


def kubelet_wanted(run: Run) -> dict[str, Any]:
    """Return what every kubelet runs with: kubeadm's own fields, and over them what is declared."""
    return merge(kubelet_fields(run.cluster), kubelet_declared(run))


def cluster_parts(run: Run) -> list[Part[Kube]]:
    """Return what is looked at through the API: what all share, then every node of the run."""
    shared = [Part(CLUSTER, name_of(module), _add_on(module, run), Impact.SERVICE) for module in ADD_ONS]
    nodes = [_node(run, spec) for spec in run.hosts]
    whole = [] if run.only else [Part(CLUSTER, StageName.HEALTH, _shared_health(run), Impact.NOTHING)]
    kubeadms = [] if run.only else [Part(CLUSTER, StageName.KUBEADM, _kubeadms(run), Impact.SERVICE)]
    return [*([] if run.only else shared), *whole, *kubeadms, *nodes, *_proofs(run)]


def _proofs(run: Run) -> list[Part[Kube]]:
    """Return what makes GPUs count again that their plugin only calls healthy."""
    gpus = {spec.name: count for spec in run.hosts if (count := run.provable(spec))}
    steps: list[Check[Kube]] = [GpusProvenAnew(run.cluster, gpus), GpusProvenLater(gpus)]
    return [Part(CLUSTER, StageName.GPU_PROOF, steps, Impact.SERVICE)] if gpus else []


def _kubeadms(run: Run) -> list[Check[Kube]]:
    """Return what kubeadm put into the cluster, and what is still to be so."""
    control = run.session(run.control.name)
    return [
        KubeProxyAsWritten(run.cluster, run.control, control),
        CoreDnsAsWritten(run.cluster, run.control, control),
        JoiningRights(run.cluster),
        JoinsGetDeclared(run.cluster.kubernetes.minor, kubelet_wanted(run)),
    ]


def _add_on(module: ModuleType, run: Run) -> list[Check[Kube]]:
    if module is device_plugin:
        return device_plugin.steps(run.cluster, device_plugin.unready(run))
    return _lasting(module.steps(run.cluster))


def _lasting(steps: list[Check[Kube]]) -> list[Check[Kube]]:
    """Leave out what is no part of the cluster: a login token on this machine, which ends every day."""
    return [step for step in steps if not isinstance(step, dashboard.TokenFile)]


def _node(run: Run, spec: HostSpec) -> Part[Kube]:
    kept_away = spec in run.cluster.control_planes and not run.cluster.schedules_on_control_plane
    ready = NodeReady(spec.name, kubelet_since=run.drift.kubelet_since.get(spec.name, 0))
    steps: list[Check[Kube]] = [HostIsNode(spec.name), ready, NodeOpen(spec.name), NoNoteLeft(spec.name)]
    steps += [NodeUnpressed(spec.name), NodeTaints(spec.name, kept_away), KubeletRuns(spec.name, kubelet_wanted(run))]
    if run.provable(spec):
        declared = declared_sharing(run.cluster)
        gpus = {spec.name: run.provable(spec)}
        steps.append(gates.GpusAllocatable(gpus, declared=declared, parts=run.seen.gpu_parts))
    told = run.drift.health.get(spec.name, HealthLook()).report
    steps += node_steps(run.cluster, spec, run.gpus_of(spec), told, nvidia_runtime.undivided(run, spec))
    return Part(spec.name, StageName.NODE_SETTINGS, [*steps, *_sound(run, spec)], Impact.SERVICE)


def _sound(run: Run, spec: HostSpec) -> list[Check[Kube]]:
    """Return what is asked of a node's GPUs by what its host tells of them."""
    look, gpus = run.drift.health.get(spec.name, HealthLook()), run.drift.gpus_of(spec.name)
    steps: list[Check[Kube]] = [GpusSound(spec.name, gpus)] if gpus else []
    if gpus and run.cluster.repair.quarantine and run.provable(spec):  # no pod comes to the others anyway
        steps.append(
            UnfitKeptFromPods(
                spec.name, gpus, lambda: keep_evidence(run.folder, spec.name, look.evidence, [one.uuid for one in gpus])
            )
        )
    released = ReleasedByProof(
        spec.name,
        gpus,
        run.cluster,
        run.provable(spec),
        again=lambda: look_again(run, spec),
        recall=lambda: read_history(run.folder),
    )
    return [*steps, released] if spec.gpus != 0 else []


async def look_again(run: Run, spec: HostSpec) -> tuple[GpuHealth, ...]:
    """Return what a host's GPUs tell of their health now; raises what keeps from reaching it."""
    session = run.session(spec.name)
    session.forget()
    seen, health = await asyncio.gather(survey(session), look_at_health(session))
    return with_missing(health, seen, run.gpus_of(spec)).gpus


def _shared_health(run: Run) -> list[Check[Kube]]:
    cluster = run.cluster
    wanted = list_settled(run)
    checks: list[Check[Kube]] = [
        gates.ApiAnswers(),
        gates.EtcdHealthy(),
        VersionDeclared(run.drift.declared or cluster.kubernetes.version),
        EveryNodeDeclared([host.name for host in cluster.hosts]),
        KubeadmRemembers(wanted),
        *([HardeningRemembered(cluster)] if hardening.declared(cluster) else []),
        NoneLeftBehind(planes_of(run)),
    ]
    if cluster.api_vip:
        checks.append(VipHeld(cluster, planes_of(run)))
    if len(cluster.control_planes) > 1:
        planes = {host.name: node_ip(host) for host in cluster.control_planes}
        checks.append(EtcdMembersDeclared(planes, run.session(run.control.name)))
    if any(run.gpus_of(host) for host in run.hosts):
        plugin = VENDOR.plugin
        pods = PodsStable(plugin.daemon_set, plugin.namespace, plugin.selector)
        checks += [gates.PluginRunning(cluster.gpu.mode, sets=tuple(daemon_sets(cluster))), pods]
        checks += [gates.PluginsConfigured(cluster.gpu_classes)] if cluster.gpu_classes else []
    return checks
