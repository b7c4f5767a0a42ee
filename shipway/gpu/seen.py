"""What was seen of hosts, nodes and pods when a GPU proof failed: plain data, free of secrets."""

from __future__ import annotations

from dataclasses import dataclass, field

from shipway.cluster.parts import GpuMode
from shipway.gpu.offers import Offer
from shipway.gpu.sharing import Sharing


@dataclass(frozen=True, slots=True)
class HostGpuFacts:
    """What was seen on a host over SSH; None means that it was not looked at.

    `pci` counts the vendor's GPUs on the bus, `driver` the GPUs its driver lists, `driver_said` its error, `parts` the
    parts of GPUs that it lists, `uuids` who its GPUs are.
    """

    pci: int | None = None
    driver: int | None = None
    driver_said: str = ""
    toolkit: bool | None = None
    handler: bool | None = None
    default_runtime: str | None = None
    parts: int | None = None
    uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod as it was seen: why it waits, its events (`reason: message`) and its log, redacted."""

    name: str
    node: str = ""
    phase: str = ""
    why: str = ""
    events: tuple[str, ...] = ()
    log: str = ""

    @property
    def runs(self) -> bool:
        """Whether its containers run: its phase stays Running while they crash again and again."""
        return self.phase == "Running" and not self.why

    @property
    def text(self) -> str:
        """Everything that was said about it and by it."""
        return "\n".join((self.why, *self.events, self.log))


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node as it was seen; `why_not_ready` and `barred` (what keeps pods away) are empty when all is well.

    So is `kept`: what keeps workloads away, and not the proof's pods.
    """

    name: str
    expected: int
    allocatable: int = 0
    capacity: int = 0
    why_not_ready: str = ""
    barred: str = ""
    labelled: bool = True
    host: HostGpuFacts = HostGpuFacts()
    plugin: PodSeen | None = None
    offer: Offer = field(default_factory=Offer)
    declared: Sharing | None = None
    kept: str = ""

    @property
    def wanted(self) -> int:
        """How many pods with GPUs it should take at once, by how it shares them."""
        return self.offer.wanted(self.expected, self.host.parts)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a failed proof leaves behind; `handler` is that of the vendor's RuntimeClass, if any."""

    mode: GpuMode
    nodes: tuple[NodeSeen, ...] = ()
    pods: tuple[PodSeen, ...] = ()
    handler: str | None = None
    plugin_declared: bool = True
    refusal: str = ""
