"""The step about what a node's labels tell of its GPUs, for workloads that choose among them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.cluster.parts import GpuClass
from shipway.gpu.chosen import VENDOR
from shipway.kube.client import Kube, Object
from shipway.step import Drift, Impact
from shipway.steps.gpu.classes import class_of
from shipway.steps.kubernetes.nodes import node_of

OURS = "shipway.dev/gpu-labels"  # an annotation: the keys that Shipway has set, and nobody else


@dataclass(frozen=True)
class GpuLabels:
    """A node's labels tell product, number, memory, sharing and driver of its GPUs, as the driver of its host does.

    A label that somebody else has set stays as it is, and all do where feature discovery sets them. A host without GPUs
    (`report` None) has none of ours.
    """

    impact: ClassVar[Impact] = Impact.FILES
    node: str
    report: str | None
    classes: Mapping[str, GpuClass] = field(default_factory=dict, hash=False)
    others: Collection[str] = ()

    @property
    def id(self) -> str:
        """What it is about, whatever the labels."""
        return f"GpuLabels {self.node}"

    @property
    def name(self) -> str:
        """The node, and whether it has GPUs."""
        return f"node {self.node} is labelled with {'no GPUs' if self.report is None else 'what its GPUs are'}"

    def _changes(self, node: Object) -> dict[str, str | None]:
        """Return what is to be set, and what is to go (None)."""
        if VENDOR.label_owner(node):
            return {}
        live, ours = node["metadata"].get("labels") or {}, _ours(node)
        wanted = VENDOR.labels_of(self.report, self.classes.get(class_of(node) or "")) if self.report else {}
        if self.report and not wanted:  # one that tells of no GPU, or that a program has written into, takes none away
            return {}
        wanted = {key: value for key, value in wanted.items() if key not in self.others}
        wrong = {
            key: value for key, value in wanted.items() if live.get(key) != value and (key in ours or key not in live)
        }
        return {**wrong, **{key: None for key in ours if key not in wanted and key in live and key not in self.others}}

    async def check(self, on: Kube) -> Drift | None:
        """Compare the labels that are ours to set."""
        node = await node_of(on, self.node)
        live, changes = node["metadata"].get("labels") or {}, self._changes(node)
        if not changes:
            return None
        have = ", ".join(f"{key}={live[key]}" if key in live else f"no {key}" for key in sorted(changes)[:4])
        want = ", ".join(f"no {key}" if (to := changes[key]) is None else f"{key}={to}" for key in sorted(changes)[:4])
        more = f" and {len(changes) - 4} more" if len(changes) > 4 else ""  # noqa: PLR2004 - as many as are shown
        return Drift(have + more, want + more)

    async def apply(self, on: Kube) -> None:
        """Set them, and keep which are ours."""
        on.forget()
        node = await node_of(on, self.node)
        changes = self._changes(node)
        kept = {key for key in _ours(node) if key not in changes} | {
            key for key, to in changes.items() if to is not None
        }
        meta = {"labels": changes, "annotations": {OURS: ",".join(sorted(kept)) or None}}
        await on.patch("v1", "Node", self.node, {"metadata": meta})


def _ours(node: Object) -> list[str]:
    text = str((node["metadata"].get("annotations") or {}).get(OURS, ""))
    return [key for key in text.split(",") if key]
