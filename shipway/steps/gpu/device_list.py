"""How the device plugin tells NVIDIA's toolkit which GPUs a container was given, and when a host needs no other way.

The plugin's strategies `envvar` and `volume-mounts` cannot serve two kinds of toolkit at once: with both, the variable
is set to the path of the mounts (k8s-device-plugin, internal/plugin/server.go, updateResponseForDeviceMounts), which a
toolkit that does not accept mounts takes for the name of a GPU. So the order is: every toolkit accepts mounts as well;
the plugin makes mounts; a toolkit ignores the variable, once no container on its host was given GPUs by it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.errors import ShipwayError
from shipway.kube.client import Kube, Object
from shipway.kube.status import cards, cards_asked
from shipway.step import Drift
from shipway.steps.gpu.plugin import GPU_LABEL, NAMESPACE, PLUGIN, SELECTOR
from shipway.steps.kubernetes.nodes import nodes_by_name, pod_ready
from shipway.steps.kubernetes.objects import ObjectsPresent

STRATEGY = "DEVICE_LIST_STRATEGY"
BY_MOUNTS = "volume-mounts"
ENDED = ("Succeeded", "Failed")
SHOWN = 4
Unready = Callable[[Sequence[str]], Awaitable[str]]


def makes_mounts(pod_spec: Mapping[str, Any]) -> bool:
    """Tell whether a plugin's pod hands GPUs out by mounts."""
    variables = [one for container in pod_spec.get("containers") or () for one in container.get("env") or ()]
    return any(one.get("name") == STRATEGY and BY_MOUNTS in str(one.get("value", "")) for one in variables)


@dataclass(frozen=True)
class PluginPresent(ObjectsPresent):
    """The plugin as NVIDIA's static manifest has it, with RuntimeClass and node selector where they are needed.

    `unready` tells why the toolkits of these nodes do not all accept mounts, "" where they do: until then a plugin that
    hands GPUs out by the variable stays, for pods of those nodes would not start.
    """

    traps: ClassVar[tuple[int, ...]] = (23, 29)
    unready: Unready | None = field(default=None, hash=False, compare=False)

    async def check(self, on: Kube) -> Drift | None:
        """Compare the objects; the drift says what keeps from applying them."""
        drift = await super().check(on)
        why = await self.hold(on) if drift else ""
        return Drift(f"{drift.have}; it stays so for now: {why}", drift.want) if drift and why else drift

    async def hold(self, on: Kube) -> str:
        """Return why the plugin may not make mounts yet."""
        if self.unready is None or await plugin_makes_mounts(on):
            return ""
        nodes = await nodes_by_name(on)
        names = [name for name, node in nodes.items() if cards(node, "capacity") or _labelled(node)]
        return await self.unready(names) if names else ""


async def plugin_makes_mounts(on: Kube) -> bool:
    """Return whether the cluster's device plugin is declared to make mounts."""
    live = await on.get("apps/v1", "DaemonSet", PLUGIN, NAMESPACE, fresh=True)
    return live is not None and makes_mounts(live["spec"]["template"]["spec"])


def _labelled(node: Object) -> bool:
    return (node["metadata"].get("labels") or {}).get(GPU_LABEL) == "true"


async def needs_variable(on: Kube, node: str) -> str:
    """Return why containers of a node need NVIDIA_VISIBLE_DEVICES to be accepted; "" where none does.

    A kubelet keeps what a pod was given for as long as the pod is there, and hands it to each of its containers that
    starts again: one given its GPUs by the variable would start without any. A pod is of the new way where it was
    admitted after the plugin's pod that makes mounts; both times are the same kubelet's. Raises the errors of the API.
    """
    if not await plugin_makes_mounts(on):
        return "the device plugin does not hand GPUs out by mounts yet"
    labels = dict([SELECTOR.split("=")])
    pods = await on.list_("v1", "Pod", fields=f"spec.nodeName={node}")
    plugins = [
        pod
        for pod in pods
        if pod["metadata"]["namespace"] == NAMESPACE and labels.items() <= (pod["metadata"].get("labels") or {}).items()
    ]
    if not plugins or not all(makes_mounts(pod["spec"]) and pod_ready(pod) for pod in plugins):
        return "the device plugin of this node does not hand GPUs out by mounts yet, or is not ready"
    since = max(_admitted(pod) for pod in plugins)
    older = [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if cards_asked(pod)
        and (pod.get("status") or {}).get("phase") not in ENDED
        and _admitted(pod)
        and _admitted(pod) <= since
    ]
    if not older:
        return ""
    more = f" and {len(older) - SHOWN} more" if len(older) > SHOWN else ""
    return f"{', '.join(sorted(older)[:SHOWN])}{more} may have been given GPUs by the variable; it is set once they end"


def _admitted(pod: Object) -> str:
    """Return when the kubelet took a pod, as it says it: RFC 3339 in UTC, which sorts as text; "" before that."""
    return str((pod.get("status") or {}).get("startTime") or "")


async def asked_safely(ask: Callable[[], Awaitable[str]]) -> str:
    """Return what is answered; where nobody answers, that: what cannot be told is a reason to leave all as it is."""
    try:
        return await ask()
    except ShipwayError as error:
        return f"it cannot be told whether it may be changed ({error.message})"
