"""What a maker of GPUs is to Shipway: the questions that every vendor answers, and no answer.

`shipway.gpu.nvidia` holds the answers of NVIDIA, `shipway.gpu.chosen` names the vendor that Shipway builds for. What
is None or empty here is what a vendor may do without; everything else is needed to find, offer and prove its GPUs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shipway.cluster.parts import GpuClass
from shipway.facts.commands import Says, Watched
from shipway.facts.files import FileText, Listing
from shipway.gpu.figures.judge import Row
from shipway.gpu.health.model import HealthReport
from shipway.gpu.sharing import Sharing, tells_nothing
from shipway.gpu.verdict import Verdict

Patterns = tuple[str, ...]  # regular expressions, compared with lines of text without regard to case


@dataclass(frozen=True)
class GpuRuntime:
    """The vendor's runtime in containerd; its RuntimeClass has the handler's name, and its manifest makes it."""

    handler: str
    program: str
    manifest: str
    # What containerd or the runtime says where the handler, or a program of the vendor's, is not there.
    no_handler: Patterns = ()
    no_program: Patterns = ()


@dataclass(frozen=True)
class PluginClasses:
    """What a plugin needs that shares the GPUs of some hosts: a DaemonSet for each class, `daemon_set` and its name.

    Their pods have the `labels`, which have the keys of the plugin's own. `config_of` gives a class's configuration,
    which the plugin reads from a file, and `find_difference` what its log says that it runs with instead. Where pods
    share a GPU at once the manifest `daemon` divides it, in DaemonSets `daemon_set_of_daemon`; both meet below `root`.
    """

    daemon_set: str
    labels: Mapping[str, str] = field(hash=False)
    config_of: Callable[[GpuClass], dict[str, Any]]
    find_difference: Callable[[GpuClass, str], str]
    daemon: str
    daemon_set_of_daemon: str
    root: str


@dataclass(frozen=True)
class DevicePlugin:
    """The DaemonSet that tells the kubelet of the GPUs, and what its log says of them.

    `values` fill what its manifest has beside image, RuntimeClass and node selector; `cdi` is the manifest of one that
    hands GPUs out by CDI, "" where there is none; `classes` is None where it cannot share GPUs; `claims` has its place
    on nodes whose GPUs are claimed. From version
    `needs_gpus` on (major, minor) its pod fails on a node without GPUs; None: it runs there, and waits. `sharing` reads
    how GPUs are shared out of a node's labels and the plugin's log; `sick` is what the log has where it calls a GPU
    unhealthy.
    """

    daemon_set: str
    namespace: str
    labels: Mapping[str, str] = field(hash=False)
    manifest: str
    registered: str
    sees_none: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)
    cdi: str = ""
    classes: PluginClasses | None = None
    claims: ClaimDriver | None = None
    needs_gpus: tuple[int, int] | None = None
    sharing: Callable[[Mapping[str, str], str], Sharing] = tells_nothing
    sick: str = ""

    @property
    def selector(self) -> str:
        """The label selector of the pods that offer GPUs, those of classes and of claims with them."""
        if len(self._labels) == 1:
            return ",".join(f"{key}={value}" for key, value in self.labels.items())
        return ",".join(f"{key} in ({','.join(one[key] for one in self._labels)})" for key in self.labels)

    @property
    def _labels(self) -> list[Mapping[str, str]]:
        return [self.labels, *(one.labels for one in (self.classes, self.claims) if one)]

    def has(self, labels: Mapping[str, str]) -> bool:
        """Say whether a pod with these labels is one of those that offer GPUs."""
        return any(wanted.items() <= labels.items() for wanted in self._labels)

    def is_blind(self, log: str) -> bool:
        """Say whether the newest thing a plugin's log tells about GPUs is that it sees none."""
        return max(log.rfind(text) for text in self.sees_none) > log.rfind(self.registered)


@dataclass(frozen=True)
class ClaimDriver:
    """The driver by which pods claim GPUs (DRA): its name, and the `type` that a whole GPU has with it.

    Claims name the class `device_class`; the `manifest` makes it, with the DaemonSet `daemon_set`, whose pods have the
    `labels` (keys of the device plugin's own) and run the `program`, as those of anybody else's do. It begins only
    where one of `looks_for` is a file of the host; links there it does not follow.
    """

    driver: str
    whole: str
    device_class: str
    daemon_set: str
    labels: Mapping[str, str] = field(hash=False)
    manifest: str
    program: str
    looks_for: tuple[str, ...] = ()

    @property
    def full(self) -> str:
        """What the scheduler says of nodes that have no device left for a claim (kube-scheduler, DynamicResources)."""
        return "cannot allocate all claims"


@dataclass(frozen=True)
class Operator:
    """The vendor's operator: what it is declared by in a cluster, and the labels of its own device plugin's DaemonSet.

    `part` of the declaration switches that on; `runtime` is the runtime's program that it puts on hosts.
    """

    name: str
    api_version: str
    kind: str
    part: str
    plugin: str
    runtime: str


@dataclass(frozen=True)
class Sample:
    """The program in the verification image that computes on a GPU with what it `needs`, and what it says of that."""

    name: str
    needs: str
    path: str
    passed: str
    failed: Patterns

    @property
    def ended(self) -> str:
        """What a test pod says after it, before the exit status."""
        return f"{self.path.rpartition('/')[2]} ended with exit status"


@dataclass(frozen=True)
class Fabric:
    """The switches that join GPUs of one machine: who manages them, and where it says that they are joined.

    Switches that the GPUs' driver drives are in `switches`. Newer ones are no devices of its: a host that has to manage
    some has `ports`, of which `managed` prints one at least; these need the processes `beside` the service's own
    `process`, and the kernel's module `module`, which is there where `loaded` lists something. A machine whose switches
    are managed elsewhere has neither, and no manager is right there; `judge` tells of the GPUs in what `states` says.
    """

    service: str
    process: str
    machines: str
    switches: Listing
    ports: Listing
    managed: Says
    beside: tuple[str, ...]
    module: str
    loaded: Listing
    running: Says  # a line for each process of these names: number, name
    driver: FileText
    manager: Says
    states: Watched
    judge: Callable[[str], list[Verdict]]
    # What a workload says on GPUs that are not joined yet.
    not_ready: Patterns


@dataclass(frozen=True)
class FigureProgram:
    """How GPUs are measured: the text of a Python program, its options, and what lists the processes that use a GPU.

    `burn` is a script of the vendor's own diagnosis ($0: what lists those processes, $1: its level), and
    `burned(host, said)` judges what it said; `needs` looks at what network adapters need to reach a GPU's memory,
    `needed(host, said)` judges that.
    """

    text: Callable[[], str]
    options: tuple[str, ...]
    holders: tuple[str, ...]
    burn: str
    burned: Callable[[str, str], list[Row]]
    needs: Says
    needed: Callable[[str, str], list[Row]]


def has_no_labels(report: str, shared: GpuClass | None) -> dict[str, str]:  # noqa: ARG001 - a vendor's signature
    """Return no labels: no feature discovery of the vendor's is known."""
    return {}


def has_no_owner(node: Mapping[str, Any]) -> str:  # noqa: ARG001 - a vendor's signature
    """Return that nobody else sets labels."""
    return ""


def supports_all(log: str) -> tuple[bool, frozenset[str]]:  # noqa: ARG001 - a vendor's signature
    """Return that a kernel's log tells of no GPU that its driver does not support: nothing is known to say so."""
    return False, frozenset()


@dataclass(frozen=True)
class Vendor:
    """One maker of GPUs.

    On a host: `pci_id` (four hexadecimal digits, PCI ID database), `module` (the kernel's), `module_aliases` (what
    distributions call its file else, as patterns), `rival_module` (one that drives the same GPUs for no pod), `probe`
    (lists the GPUs that the driver shows) and `listed` (finds the identity of each in its answer), `driver_failed`
    (what programs say where the driver does not answer), `kernel_word` (what the kernel's log has where a GPU fails),
    `unsupported` (tells from that log whether, and which, GPUs the driver does not support), `packages` and `sources`
    (patterns of the driver's package names and source package names, never changed in passing).

    For containers: `runtime`, None where runc alone does; `toolkit` (asks whether it is installed), `toolkit_packages`
    and the title of their `repository` in the cluster file; `stage`, which installs them; `hook`, the program that a
    CDI specification of its GPUs runs, and `specified`, what the names of the files begin with that have pods' GPUs;
    `variable` by which an image asks for GPUs without Kubernetes, and `closed`, what must be seen on a host where that
    is refused.

    In the cluster: `resource`, and the other resources that pods get GPUs by: `shared` ones, and `part` ones (in the
    probe's answer `listed_parts`); the `label` of nodes that have some, the `product_label` by which feature discovery
    says which, the `plugin`. `labels_of` gives the labels of a node by its GPUs' report and its class of GPUs, and
    `label_owner` who else has set such labels on it.

    `operator`, where it has one that may own all of that in a cluster.

    In a pod: `held` finds the identity of each GPU, or part of one, in what `probe` says there; `devices` is the glob
    of the device nodes and `device` finds those of whole GPUs; `environment` of the test pods; the `sample`.
    """

    name: str
    pci_id: str
    module: str
    probe: Watched
    listed: re.Pattern[str]
    driver_failed: Patterns
    kernel_word: str
    packages: tuple[str, ...]
    sources: tuple[str, ...]
    resource: str
    label: str
    plugin: DevicePlugin
    held: re.Pattern[str]
    devices: str
    device: re.Pattern[str]
    sample: Sample
    rival_module: str = ""
    module_aliases: tuple[str, ...] = ()
    product_label: str = ""
    shared: re.Pattern[str] | None = None
    part: re.Pattern[str] | None = None
    listed_parts: re.Pattern[str] | None = None
    unsupported: Callable[[str], tuple[bool, frozenset[str]]] = supports_all
    labels_of: Callable[[str, GpuClass | None], dict[str, str]] = has_no_labels
    label_owner: Callable[[Mapping[str, Any]], str] = has_no_owner
    runtime: GpuRuntime | None = None
    toolkit: Says | None = None
    toolkit_packages: tuple[str, ...] = ()
    repository: str = ""
    stage: str = ""
    hook: str = ""
    specified: tuple[str, ...] = ()
    variable: str = ""
    closed: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    fabric: Fabric | None = None
    operator: Operator | None = None
    health: HealthReport | None = None
    figures: FigureProgram | None = None

    @property
    def program(self) -> str:
        """The program that the probe runs."""
        return self.probe.command[0]

    @property
    def hangs(self) -> str:
        """What is said of a probe that never ends."""
        return f"{self.program} does not end: the driver hangs in the kernel"

    @property
    def rival(self) -> str:
        """What is said where the other driver is loaded."""
        return f"the {self.rival_module.capitalize()} kernel driver is currently in use"

    @property
    def claims(self) -> ClaimDriver | None:
        """The driver by which pods claim its GPUs; None where there is none."""
        return self.plugin.claims

    def is_claimed(self, resource: str) -> bool:
        """Say whether GPUs of this name are claimed, and not asked for as a resource."""
        return self.claims is not None and resource == self.claims.driver

    def full(self, resource: str = "") -> str:
        """Return what the scheduler says where nothing of a resource is left (kube-scheduler, NodeResourcesFit)."""
        if self.claims and self.is_claimed(resource):
            return self.claims.full
        return f"Insufficient {resource or self.resource}"

    @property
    def lacking(self) -> tuple[str, ...]:
        """What the scheduler's word for the lack of any of its GPUs has in it."""
        claimed = (self.claims.full,) if self.claims else ()
        return (f"Insufficient {self.resource.partition('/')[0]}/", *claimed)

    def is_part(self, resource: str) -> bool:
        """Say whether a resource is parts of GPUs."""
        return bool(self.part and self.part.fullmatch(resource))

    def offers(self, resource: str) -> bool:
        """Say whether a resource is GPUs, or shares or parts of them."""
        return (
            resource == self.resource or self.is_part(resource) or bool(self.shared and self.shared.fullmatch(resource))
        )

    @property
    def bus(self) -> str:
        """The command that lists its GPUs on a host's bus, for people."""
        return f"lspci -d {self.pci_id}:"

    @property
    def kernel_log(self) -> str:
        """The command that shows what the kernel's log says of failed GPUs, for people."""
        return f"dmesg | grep -i {self.kernel_word}"

    @property
    def handler(self) -> str:
        """The handler of its runtime, which is its RuntimeClass's name too; "" where runc does."""
        return self.runtime.handler if self.runtime else ""

    @property
    def toolkit_package(self) -> str:
        """The package that brings its toolkit; "" where none is needed."""
        return self.toolkit_packages[0] if self.toolkit_packages else ""

    @property
    def fabric_needs(self) -> str:
        """Which machines need which service to join their GPUs; "" where none do."""
        return f"{self.fabric.machines} {self.fabric.service}" if self.fabric else ""

    def uuids(self, said: str) -> list[str]:
        """Return the identities of the GPUs that the probe lists on a host."""
        return self.listed.findall(said)

    def count_parts(self, said: str) -> int:
        """Return how many parts of GPUs the probe lists on a host."""
        return len(self.listed_parts.findall(said)) if self.listed_parts else 0

    def runtime_class(self, mode: str) -> str | None:
        """Return the RuntimeClass that pods with GPUs name in this `gpu.mode`; None where they name none."""
        return self.runtime.handler if self.runtime and mode == "runtime_class" else None
