"""The solver: refuses what cannot work, all of it at once, and warns of what is past its end or untested together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

from shipway.cluster.faults import Fault
from shipway.cluster.model import Cluster
from shipway.rules import backups as solver_backups
from shipway.rules import gpu_classes
from shipway.rules import hardening as solver_hardening
from shipway.rules import networks as solver_networks
from shipway.rules import versions as solver_versions
from shipway.rules import warnings as solver_warnings
from shipway.rules.files import missing_files, unknown_add_ons

__all__ = ["REFUSALS", "WARNINGS", "Rule", "Warner", "missing_files", "refusals", "warnings_of"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that cannot work; `traps` are numbers of docs/traps.md."""

    title: str
    find: Callable[[Cluster], Iterator[Fault]]
    traps: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Warner:
    """One thing that works and should not stay so on the given day; `traps` are numbers of docs/traps.md."""

    title: str
    find: Callable[[Cluster, date], Iterator[str]]
    traps: tuple[int, ...] = ()


REFUSALS: tuple[Rule, ...] = (
    Rule("host names are unique", solver_networks.names, (12,)),
    Rule("addresses are unique", solver_networks.addresses, (12,)),
    Rule("every node's address is known and usable", solver_networks.node_addresses, (13,)),
    Rule("there are one, three or five control planes", solver_networks.control_planes),
    Rule("the API's endpoint leads to every control plane", solver_networks.endpoints),
    Rule("the API's address for clients outside can be held", solver_networks.vip),
    Rule("the pod network holds every host", solver_networks.room, (35,)),
    Rule("pod, service and host networks do not overlap", solver_networks.overlaps, (36,)),
    Rule("the service network has a size the API server takes", solver_networks.services),
    Rule("Calico's blocks fit into the pod network", solver_networks.blocks, (35,)),
    Rule("the API's port is not another component's", solver_networks.ports),
    Rule("hosts that may be disturbed are hosts of the file", solver_networks.find_unknown_disturbed),
    Rule("no backup lies in clear in an object store unless the file says so", solver_backups.in_clear),
    Rule("this Kubernetes version is known", solver_versions.kubernetes, (39,)),
    Rule("containerd and Kubernetes speak the same CRI", solver_versions.runtime, (51,)),
    Rule("the toolkit is not a broken release", solver_versions.toolkit, (24,)),
    Rule("GPUs by CDI are known to all that hand them on", solver_versions.cdi),
    Rule("GPUs by claims are known to all that hand them on", solver_versions.claims),
    Rule("GPUs that pods claim are whole ones", gpu_classes.claimed),
    Rule("every class of GPUs is one that can be", gpu_classes.classes),
    Rule("every host's class of GPUs is declared and can be on it", gpu_classes.hosts),
    Rule("the network provider has what it needs", solver_versions.provider, (42,)),
    Rule("manifests by URL are of the declared version", solver_versions.manifests),
    Rule("every add-on is one that there is", unknown_add_ons),
    Rule("every needed apt repository is named", solver_versions.repositories),
    Rule("kubelet and containerd use the systemd cgroup driver", solver_versions.cgroup_driver, (20,)),
    Rule("this Kubernetes has PodSecurity admission where it is declared", solver_hardening.pod_security),
    Rule("no field of the kubelet is declared in two places", solver_hardening.kubelet),
)
WARNINGS: tuple[Warner, ...] = (
    Warner("Kubernetes is supported", solver_warnings.kubernetes),
    Warner("containerd is supported and fits", solver_warnings.runtime, (6, 51)),
    Warner("Calico is tested on this Kubernetes", solver_warnings.calico),
    Warner("toolkit and device plugin are recent", solver_warnings.gpu_parts, (24, 29)),
    Warner("pods without a GPU request see no GPU", solver_warnings.default_runtime, (26, 27)),
    Warner("every pod the kubelet takes gets an address", solver_warnings.pod_addresses, (35,)),
    Warner("cgroup v2 is used", solver_warnings.cgroup, (16,)),
    Warner("the dashboard is off", solver_warnings.dashboard, (45,)),
    Warner("some host may have a GPU", solver_warnings.gpus, (46,)),
    Warner("apt keys are pinned", solver_warnings.keys, (7,)),
)


def refusals(cluster: Cluster) -> list[Fault]:
    """Return everything about this cluster that cannot work, with its place in the file."""
    return [fault for rule in REFUSALS for fault in rule.find(cluster)]


def warnings_of(cluster: Cluster, today: date | None = None) -> list[str]:
    """Return a sentence for everything that is past its end of life on that day (default: now) or untested together."""
    day = today or datetime.now(tz=UTC).date()
    return [text for warner in WARNINGS for text in warner.find(cluster, day)]
