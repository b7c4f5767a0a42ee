"""How a GPU proof ended, as the report gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from shipway.cluster.model import Cluster
from shipway.errors import PostconditionFailed, ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.gpu.claims import Device
from shipway.gpu.links import Link
from shipway.gpu.pods import Said
from shipway.gpu.seen import Evidence
from shipway.gpu.vendor import Vendor

# "all held": pods of others hold every GPU, so that none could be proven, and none is known to be broken.
ProofOutcome = Literal["ok", "failed", "all held", "no GPUs declared"]


@dataclass(frozen=True, slots=True)
class Proof:
    """How the proof ended. `verified` counts GPUs that a pod held while all others were held too.

    Where the plugin shares GPUs, all numbers are of places on them, and `shared` says so by node.

    `devices` maps pod to GPU; `compute` is "not run" where gpu.compute is off; `notes` are for the report; on
    failure `error` names the broken `link`, and the pods and `evidence` are kept. `without` tells by node how many GPUs
    a pod saw that asked for none; None where that is not known.
    """

    outcome: ProofOutcome
    expected: int
    allocatable: int = 0
    verified: int = 0
    devices: Mapping[str, str] = field(default_factory=dict)
    compute: Literal["passed", "failed", "not run"] = "not run"
    notes: tuple[str, ...] = ()
    link: Link | None = None
    error: ShipwayError | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    without: Mapping[str, int | None] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the part `gpus` of the report as plain data."""
        return {
            "outcome": self.outcome,
            "expected": self.expected,
            "allocatable": self.allocatable,
            "verified": self.verified,
            "devices": sorted(self.devices.values()),
            "compute": self.compute,
            "without_asking": dict(self.without),
            "shared": dict(self.shared),
            "notes": list(self.notes),
            "link": asdict(self.link) if self.link else None,
            "evidence": dict(self.evidence),
        }


def no_gpus(cluster: Cluster, vendor: Vendor = VENDOR) -> Proof:
    """Return the proof of no GPUs: right where the cluster file says so of every host, else a failure."""
    if all(host.gpus == 0 for host in cluster.hosts):
        return Proof("no GPUs declared", 0, notes=("every host declares gpus: 0, so there is nothing to prove",))
    fix = f"Look at `{vendor.bus}` on the hosts; declare `gpus: 0` for every host of a cluster without GPUs."
    error = PostconditionFailed("no GPU was found on any host: there is nothing to prove", code="SHW-613", fix=fix)
    return Proof("failed", 0, error=error)


def none_ready(expected: Mapping[str, int]) -> PostconditionFailed:
    """Return the error of a proof of GPUs on nodes of which none is Ready; `expected` counts their GPUs by node."""
    return PostconditionFailed(
        f"no node with GPUs is Ready, so no GPU was proven: {', '.join(sorted(expected))}",
        code="SHW-616",
        fix="See why these nodes are not Ready (`kubectl describe node NAME`), then run again.",
    )


def plain(evidence: Evidence, missing: Sequence[str]) -> dict[str, Any]:
    """Return the evidence as plain data for the report."""
    return {**asdict(evidence), "not_collected": list(missing)}


def same_gpus(heard: Mapping[str, Said], replicas: Mapping[str, int] | None = None) -> list[str]:
    """Return what is wrong with the GPUs that were given: none, several, or the same one to more pods than share it.

    `replicas` is by node how many pods share a device; one has it alone where nothing else is known.
    """
    faults = [
        f"{name} was given {len(words.devices)} GPUs ({', '.join(words.devices) or 'none'}) instead of one"
        for name, words in sorted(heard.items())
        if len(words.devices) != 1
    ]
    holders: dict[str, list[str]] = {}
    for name, words in sorted(heard.items()):
        for device in words.devices:
            holders.setdefault(device, []).append(name)
    limits = {device: (replicas or {}).get(heard[names[0]].node, 1) for device, names in holders.items()}
    return faults + [
        f"the same GPU was given to {' and '.join(names)}: {device}{f' ({limit} at most share it)' * (limit > 1)}"
        for device, names in holders.items()
        if len(names) > (limit := limits[device])
    ]


def not_as_claimed(
    heard: Mapping[str, Said], given: Mapping[str, Sequence[Device | None]], hosts: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Return which pods see another GPU than the one that their claim was given (`given`), or than their host has.

    `hosts` is by node what the driver of its host lists; nothing where nobody looked. A pod that tells only device
    nodes is not judged.
    """
    faults: list[str] = []
    for name, words in sorted(heard.items()):
        seen = [device for device in words.devices if "/" not in device]
        claimed = [one.uuid for one in given.get(name, ()) if one]
        if seen and name in given and sorted(seen) != sorted(claimed):
            had = ", ".join(claimed) or "none that is offered"
            faults.append(f"{name} on {words.node} sees {', '.join(seen)}, and its claim was given {had}")
        there = hosts.get(words.node, ())
        if strange := [device for device in seen if there and device not in there]:
            faults.append(f"{name} sees {', '.join(strange)}, which {words.node} does not have by its driver")
    return faults
