"""The steps about classes of GPUs: which node is of which, the plugin of each, and what is left of one that is gone.

A pod keeps the GPU that it was given, and a plugin that starts with another configuration knows nothing of it: it would
offer that GPU once more. So neither a node's class nor a class's configuration changes while pods hold GPUs there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar
from weakref import WeakKeyDictionary

from shipway.cluster.parts import CLAIMED, GpuClass
from shipway.converge import wait_until
from shipway.errors import Blocked, DeadlineExceeded
from shipway.gpu.chosen import VENDOR
from shipway.gpu.claims import GROUP, allocated_on, list_slices
from shipway.gpu.classes import LABEL, OURS, leaves_classes
from shipway.gpu.holders import gpu_holders
from shipway.gpu.owners import find_owner
from shipway.gpu.plugin_pods import node_of_pod, plugin_logs, plugin_pods
from shipway.gpu.pods import NAMESPACE, NoPods, find_space
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import few, nodes_by_name
from shipway.rules.gpu_classes import CHANGING
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.nodes import node_of

LEAVE_SECONDS, LOOK_SECONDS = 90.0, 1.0  # a pod that ends has 30 s; its node's count follows at once
NONE = "whole GPUs"
CLAIMS = "claimed GPUs (DRA)"
# Beside the label `changing`: the class until then, "" for none, by which a run that was killed is made good.
BEFORE = "shipway.dev/gpu-class-before"
# One change of a node's class at a time: a node's own stage and the plugin's both come to it in one run.
_TURNS: WeakKeyDictionary[Kube, dict[str, asyncio.Lock]] = WeakKeyDictionary()
# The account of the driver of claims is made first and goes last: while it is there, the rest is looked for.
KINDS = (("apps/v1", "DaemonSet"), ("v1", "ConfigMap"), ("v1", "ServiceAccount"))
# What that driver has besides, of the whole cluster.
OF_CLAIMS = (
    (f"{GROUP}/v1", "DeviceClass"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
)


def class_of(node: Object) -> str | None:
    """Return the class that a node is labelled with; None where it has none."""
    labels = node["metadata"].get("labels") or {}
    return labels.get(LABEL)


def _before(node: Object) -> str | None:
    """Return the class before a change that was broken off, "" for none; None where there is none, or nothing tells."""
    if class_of(node) != CHANGING:
        return None
    annotations = node["metadata"].get("annotations") or {}
    return annotations.get(BEFORE)


async def _plugins_on(on: Kube, node: str) -> list[Object]:
    return [pod for pod in await plugin_pods(on) if node_of_pod(pod) == node]


async def who_holds(on: Kube, nodes: list[str]) -> str:
    """Return which pods hold GPUs of these nodes; "" where none does."""
    held = await asyncio.gather(*(gpu_holders(on, node) for node in nodes))
    told = [f"{node}: {pod}" for node, pods in zip(nodes, held, strict=True) for pod in pods]
    return f"GPUs are held by {few(told)}" if told else ""


@dataclass(frozen=True)
class PluginGone:
    """No pod of the plugin is left on a node."""

    node: str

    @property
    def name(self) -> str:
        """The node."""
        return f"no device plugin is left on {self.node}"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for its pods."""
        pods = await _plugins_on(on, self.node)
        return Drift(f"{pods[0]['metadata']['name']} is there", "none") if pods else None


@dataclass(frozen=True)
class NodeClass:
    """A node is of the class of GPUs that is declared; it changes only while no pod holds one of its GPUs."""

    impact: ClassVar[Impact] = Impact.SERVICE
    node: str
    gpu_class: str | None
    wait: float = LEAVE_SECONDS
    unready: str = ""  # why the node's host is not as the class needs it yet

    @property
    def id(self) -> str:
        """What it is about, whatever the class."""
        return f"NodeClass {self.node}"

    @property
    def name(self) -> str:
        """The node and its class."""
        if self.gpu_class == CLAIMED:
            return f"node {self.node} has its GPUs claimed (DRA)"
        return f"node {self.node} offers {f'GPUs of class {self.gpu_class}' if self.gpu_class else NONE}"

    async def check(self, on: Kube) -> Drift | None:
        """Compare the label; the drift says who keeps it from being changed."""
        have = class_of(await node_of(on, self.node))
        if have == self.gpu_class:
            return None
        said, want = (CLAIMS if one == CLAIMED else f"class {one}" if one else NONE for one in (have, self.gpu_class))
        return Drift.held(said, want, await self.hold(on))

    async def hold(self, on: Kube) -> str:
        """Return who holds GPUs of the node, or what else keeps its class from changing; "" where nothing does.

        Nothing does of a change that was broken off: beside pods the node has its plugin back by it.
        """
        on.forget()
        if _before(await node_of(on, self.node)) is not None:
            return ""
        who = await self._held(on)
        if self.unready or who:
            return "; ".join(why for why in (self.unready, who) if why)
        plugin = await on.get("apps/v1", "DaemonSet", VENDOR.plugin.daemon_set, VENDOR.plugin.namespace)
        there = await _plugins_on(on, self.node)
        if there and plugin and not leaves_classes(plugin):
            return "the device plugin in the cluster does not leave the nodes of a class yet"
        return await self._not_followed(on) if there or plugin else ""

    async def _held(self, on: Kube) -> str:
        """Return which pods hold GPUs of the node, or which claims their driver would leave behind."""
        who = await who_holds(on, [self.node])
        if who or class_of(await node_of(on, self.node)) not in (CLAIMED, CHANGING):
            return who
        claims = [one for one in await allocated_on(on, self.node) if one.partition("/")[0] != NAMESPACE]
        return f"claims have devices there, and their pods end by its driver: {few(claims)}" if claims else ""

    async def _not_followed(self, on: Kube) -> str:
        """Return that nobody would offer the node's GPUs once they are claimed, or are not any more: it comes later."""
        have = class_of(await node_of(on, self.node))
        if VENDOR.claims is None or CLAIMED not in (have, self.gpu_class):
            return ""
        next_ = VENDOR.claims.daemon_set if self.gpu_class == CLAIMED else VENDOR.plugin.daemon_set
        there = await on.get("apps/v1", "DaemonSet", next_, VENDOR.plugin.namespace)
        return "" if there else f"DaemonSet {VENDOR.plugin.namespace}/{next_} is not there yet, which is to offer them"

    async def apply(self, on: Kube) -> None:
        """Take the plugin off the node, look again, and give the node its class.

        Between the two the node offers no GPU, so no pod can have come to hold one. Raises Blocked, with the old class
        back, where one did before, or where the plugin does not go.
        """
        async with _TURNS.setdefault(on, {}).setdefault(self.node, asyncio.Lock()):
            await self._change(on)

    async def _change(self, on: Kube) -> None:
        on.forget()
        node = await node_of(on, self.node)
        have, before = class_of(node), _before(node)
        if have == self.gpu_class:  # the other stage has changed it meanwhile: its new plugin is there, and stays
            return None
        earlier = have if before is None else before or None
        if earlier == self.gpu_class:  # a change that was broken off, and is not wanted any more
            return await self._label(on, earlier)
        offered = await self._take_off(on, earlier)
        sliced = have in (CLAIMED, CHANGING) and self.gpu_class != CLAIMED and await self._take_slices(on)
        if offered or sliced or before is not None:
            on.forget()
            why = self.unready or await self._held(on)
            why = why or (await self._not_followed(on) if before is not None else "")
            if why:
                await self._label(on, earlier)
                raise Blocked(f"it stays as it is: {why}")
        return await self._label(on, self.gpu_class)

    async def _take_off(self, on: Kube, earlier: str | None, *, always: bool = False) -> bool:
        """Take the plugin off the node, with what a proof has left there; return whether one was to be taken off.

        Raises Blocked, with the old class back, where it does not go.
        """
        await self._end_tests(on)
        if not always and not await _plugins_on(on, self.node):
            return False
        await self._label(on, CHANGING, before=None if earlier == CHANGING else earlier or "")
        try:
            await wait_until(PluginGone(self.node), on, seconds=self.wait, every=LOOK_SECONDS)
        except DeadlineExceeded as error:
            await self._label(on, earlier)
            raise Blocked(f"the device plugin did not leave {self.node}: {error.message}") from error
        return True

    async def leave(self, on: Kube) -> str | None:
        """Keep every plugin off the node while its GPUs are divided anew, and return the class to come back to.

        A plugin offers what it saw when it started, and is a client that keeps the driver from changing the mode.
        Raises Blocked, with all as it was, where a pod holds a GPU, or the plugin does not go.
        """
        async with _TURNS.setdefault(on, {}).setdefault(self.node, asyncio.Lock()):
            on.forget()
            node = await node_of(on, self.node)
            before = _before(node)
            earlier = class_of(node) if before is None else before or None
            if why := await replace(self, unready="").hold(on):
                raise Blocked(f"its GPUs stay as they are: {why}")
            await self._take_off(on, earlier, always=True)
            on.forget()
            if why := await self._held(on):
                await self._label(on, earlier)
                raise Blocked(f"its GPUs stay as they are: {why}")
            return earlier

    async def come_back(self, on: Kube, earlier: str | None, *, as_declared: bool) -> None:
        """Let a plugin see the GPUs as they are now: that of the declared class, where it is there already."""
        names = {one["metadata"]["name"] for one in await on.list_("apps/v1", "DaemonSet", VENDOR.plugin.namespace)}
        classes = VENDOR.plugin.classes
        own = f"{classes.daemon_set}-{self.gpu_class}" if classes and self.gpu_class else VENDOR.plugin.daemon_set
        follows = as_declared and own in names and CLAIMED not in (earlier, self.gpu_class)
        await self._label(on, self.gpu_class if follows else earlier)

    async def _end_tests(self, on: Kube) -> None:
        """End what a proof has left on the node: no kubelet ends a pod with a claim whose driver has gone.

        Raises Blocked where it does not end.
        """
        names = [pod["metadata"]["name"] for pod in await on.list_("v1", "Pod", NAMESPACE) if self._is_mine(pod)]
        if not names or await find_space(on) is None:
            return
        for name in names:
            await on.delete("v1", "Pod", name, NAMESPACE, grace=1)
        try:
            await wait_until(NoPods(names), on, seconds=self.wait, every=LOOK_SECONDS)
        except DeadlineExceeded as error:
            raise Blocked(f"test pods on {self.node} do not end: {error.message}") from error

    def _is_mine(self, pod: Object) -> bool:
        return node_of_pod(pod) == self.node

    async def _take_slices(self, on: Kube) -> bool:
        """Delete what our driver has offered on the node: its kubelet does so later, and pods would come until then.

        Returns whether there was something; what a driver of somebody else offers is left alone.
        """
        on.forget()
        if await find_owner(on):
            return False
        found = [one["metadata"]["name"] for one in await list_slices(on) if one["spec"].get("nodeName") == self.node]
        for name in found:
            await on.delete(f"{GROUP}/v1", "ResourceSlice", name)
        return bool(found)

    async def _label(self, on: Kube, value: str | None, *, before: str | None = None) -> None:
        change = {"labels": {LABEL: value}, "annotations": {BEFORE: before}}
        await on.patch("v1", "Node", self.node, {"metadata": change})
        on.forget()


@dataclass(frozen=True)
class ClassesGone:
    """No plugin is left of a class of GPUs that no host is of any more, once no node is."""

    impact: ClassVar[Impact] = Impact.SERVICE
    classes: tuple[str, ...]
    name: str = "no device plugin is left of a class of GPUs that is not declared"

    async def _left(self, on: Kube) -> list[tuple[str, str, str]]:
        """Return API version, kind and name of what is left, but for classes that nodes still are of."""
        nodes = (await nodes_by_name(on)).values()
        kept = {*self.classes, *(one for node in nodes for one in (class_of(node), _before(node)) if one)}
        listed = await asyncio.gather(
            *(on.list_(api, kind, VENDOR.plugin.namespace, labels=OURS) for api, kind in KINDS)
        )
        left = [
            (api, kind, obj)
            for (api, kind), objects in zip(KINDS, listed, strict=True)
            for obj in objects
            if obj["metadata"]["labels"][LABEL] not in kept
        ]
        found = [(api, kind, obj["metadata"]["name"]) for api, kind, obj in left]
        if any(obj["metadata"]["labels"][LABEL] == CLAIMED for _, _, obj in left):
            of_claims = f"{OURS}={CLAIMED}"  # its DaemonSet goes last: while it is there the rest is looked for
            listed = await asyncio.gather(*(on.list_(api, kind, labels=of_claims) for api, kind in OF_CLAIMS))
            names = [(place, obj) for place, some in zip(OF_CLAIMS, listed, strict=True) for obj in some]
            found = [*((*place, obj["metadata"]["name"]) for place, obj in names), *found]
        return found

    async def check(self, on: Kube) -> Drift | None:
        """List what Shipway made for classes."""
        left = await self._left(on)
        return Drift(few([f"{kind} {name}" for _, kind, name in left]), "none") if left else None

    async def apply(self, on: Kube) -> None:
        """Delete it: plugins first, then what they read; no pod of the driver of claims is left."""
        on.forget()
        for api, kind, name in await self._left(on):
            await on.delete(api, kind, name, VENDOR.plugin.namespace)


@dataclass(frozen=True)
class PluginsConfigured:
    """Every plugin runs with the configuration of its node's class, by its own log.

    A log that does not tell it (any more) is no drift.
    """

    classes: Mapping[str, GpuClass] = field(hash=False)
    name: str = "every device plugin runs with the configuration of its class"

    async def check(self, on: Kube) -> Drift | None:
        """Read the log of each plugin's pod on a node of a class."""
        classes, nodes = VENDOR.plugin.classes, await nodes_by_name(on)
        shared: list[tuple[Object, GpuClass]] = [
            (pod, self.classes[name])
            for pod in await plugin_pods(on)
            if (node := nodes.get(node_of_pod(pod))) and not pod["metadata"].get("deletionTimestamp")
            if (name := class_of(node) or "") in self.classes
        ]
        if classes is None or not shared:
            return None
        logs = await plugin_logs(on, [pod for pod, _ in shared])
        found = [
            f"{node_of_pod(pod)}: {said}"
            for (pod, one), log in zip(shared, logs, strict=True)
            if (said := classes.find_difference(one, log))
        ]
        want = "as gpu.classes has it (delete the plugin's pod there, and it starts with its file anew)"
        return Drift(few(sorted(found)), want) if found else None
