"""What kubeadm remembers of a node's container runtime: an annotation that a join which broke off did not write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shipway.kube.client import Kube
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.nodes import node_of

ANNOTATION = "kubeadm.alpha.kubernetes.io/cri-socket"
# From 1.34 on kubeadm keeps it in /var/lib/kubelet/instance-config.yaml, written before the kubelet starts, and takes
# the annotation away (feature gate NodeLocalCRISocket, on by default since its beta: changelog of 1.34).
LAST_ANNOTATED = (1, 33)


@dataclass(frozen=True)
class SocketRemembered:
    """A node says which socket its runtime has: without it `kubeadm upgrade node` ends, and `kubeadm reset` must guess.

    kubeadm writes it as a join's last act ("uploading crisocket"). Where a restart of the host broke that off, the
    kubelet ends the join by itself, and nobody writes it.
    """

    impact: ClassVar[Impact] = Impact.FILES
    node: str
    socket: str

    @property
    def name(self) -> str:
        """The node whose socket is remembered."""
        return f"node {self.node} tells kubeadm its runtime's socket"

    async def check(self, on: Kube) -> Drift | None:
        """Compare the annotation; with or without `unix://` it is the same socket. Raises Blocked without the node."""
        node = await node_of(on, self.node)
        have = str((node["metadata"].get("annotations") or {}).get(ANNOTATION, ""))
        same = have.removeprefix("unix://") == self.socket.removeprefix("unix://")
        return None if same else Drift(have or "not there", self.socket)

    async def apply(self, on: Kube) -> None:
        """Merge the annotation into the node; a node that is gone meanwhile is not made anew."""
        await on.patch("v1", "Node", self.node, {"metadata": {"annotations": {ANNOTATION: self.socket}}})
