"""The steps about GPUs that pods claim: NVIDIA's driver of claims is there, and in the end no device plugin beside it.

Two that offer the GPUs of one node each offer all of them. So a node is one's or the other's by its class
(`NodeClass`): the plugin stays off nodes of a class, and the driver is for those of its own alone. What is left to do
here is that each is there before the first node is its, and that the plugin goes once no node is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shipway.cluster.parts import CLAIMED
from shipway.errors import Blocked, Refused
from shipway.gpu.chosen import VENDOR
from shipway.gpu.claims import GROUP
from shipway.gpu.classes import leaves_classes, off_classes
from shipway.gpu.offers import amounts_of
from shipway.gpu.owners import CLAIM_DRIVER, find_owner
from shipway.kube.client import Kube, Object
from shipway.kube.errors import KindMissing
from shipway.kube.nodes import nodes_by_name
from shipway.step import Drift, Impact
from shipway.steps.gpu.classes import class_of
from shipway.steps.gpu.device_list import PluginPresent


@dataclass(frozen=True)
class ClaimsPresent(PluginPresent):
    """The driver by which pods claim GPUs is as declared, once its hosts can put GPUs into containers."""

    async def check(self, on: Kube) -> Drift | None:
        """Compare the objects; the drift says what keeps from applying them.

        Raises Refused SHW-657 where an operator's device plugin offers the GPUs, SHW-656 where our driver is beside it,
        Blocked where the API server is older than claims.
        """
        try:
            drift = await super().check(on)
        except KindMissing as error:
            fix = "Run `shipway upgrade` with this file, then a bootstrap: until then the device plugin stays."
            raise Blocked(
                f"gpu.mode is dra, and the API serves no {GROUP}/v1 (Kubernetes 1.34 does)", fix=fix
            ) from error
        owner = await find_owner(on)
        if owner and not owner.startswith(CLAIM_DRIVER):
            fix = f"Switch its device plugin off there, or take `gpu.mode: dra` out of the file: {owner} then stays."
            raise Refused(f"gpu.mode is dra, and the GPUs are offered by {owner}", code="SHW-657", fix=fix)
        return drift


async def _plugin(on: Kube) -> Object | None:
    return await on.get("apps/v1", "DaemonSet", VENDOR.plugin.daemon_set, VENDOR.plugin.namespace)


@dataclass(frozen=True)
class PluginLeaves:
    """A device plugin that is still there stays off the nodes whose GPUs are claimed."""

    impact: ClassVar[Impact] = Impact.SERVICE
    name: str = "a device plugin that is still there leaves the nodes whose GPUs are claimed"

    async def check(self, on: Kube) -> Drift | None:
        """Look for its node affinity."""
        plugin = await _plugin(on)
        return (
            Drift("it runs on every node with GPUs", "not on these") if plugin and not leaves_classes(plugin) else None
        )

    async def apply(self, on: Kube) -> None:
        """Set the affinity that the plugin has which Shipway declares; nothing else of it is changed."""
        plugin = await _plugin(on)
        if plugin is not None:
            affinity = off_classes(plugin)["spec"]["template"]["spec"]["affinity"]
            change = {"spec": {"template": {"spec": {"affinity": affinity}}}}
            await on.patch("apps/v1", "DaemonSet", VENDOR.plugin.daemon_set, change, VENDOR.plugin.namespace)


@dataclass(frozen=True)
class PluginRetired:
    """No device plugin is left in the cluster once every node's GPUs are claimed; until then it serves the others."""

    impact: ClassVar[Impact] = Impact.SERVICE
    name: str = "no device plugin is left that no node needs"

    async def check(self, on: Kube) -> Drift | None:
        """Look for its DaemonSet; one that does not leave the claimed nodes yet is not known to be needed by none."""
        plugin, nodes = await _plugin(on), await nodes_by_name(on)
        if plugin is None or not leaves_classes(plugin):
            return None
        if any(class_of(node) != CLAIMED and _has_gpus(node) for node in nodes.values()):
            return None
        return Drift(f"DaemonSet {VENDOR.plugin.namespace}/{VENDOR.plugin.daemon_set} is there", "no such DaemonSet")

    async def apply(self, on: Kube) -> None:
        """Delete the DaemonSet, of which no pod is left, unless a node has come to need it meanwhile."""
        on.forget()
        if await self.check(on):
            await on.delete("apps/v1", "DaemonSet", VENDOR.plugin.daemon_set, VENDOR.plugin.namespace)


def _has_gpus(node: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    return labels.get(VENDOR.label) == "true" or any(amounts_of(node, "capacity").values())
