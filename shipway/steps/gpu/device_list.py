"""How the device plugin tells NVIDIA's toolkit which GPUs a container was given, and when each side may change its way.

The plugin's strategies `envvar` and `volume-mounts` cannot serve two kinds of toolkit at once: with both, the variable
is set to the path of the mounts (k8s-device-plugin, internal/plugin/server.go, updateResponseForDeviceMounts), which a
toolkit that does not accept mounts takes for the name of a GPU. So the order is: every toolkit accepts mounts as well;
the plugin makes mounts; a toolkit ignores the variable, once no container on its host was given GPUs by it.

With `gpu.mode: default_runtime` the plugin's pods name no RuntimeClass: on a host where containerd still starts
containers with runc they see no GPU. So every containerd comes to its default runtime first, and the plugin then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.cluster.parts import CLAIMED
from shipway.errors import Refused, ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.gpu.classes import LABEL
from shipway.gpu.counts import count_asked_gpus, count_gpus
from shipway.gpu.nvidia.answers import BY_CDI, BY_MOUNTS
from shipway.gpu.owners import find_owner
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import nodes_by_name
from shipway.step import Drift
from shipway.steps.kubernetes.nodes import pod_ready
from shipway.steps.kubernetes.objects import ObjectsPresent

STRATEGY = "DEVICE_LIST_STRATEGY"
BY_VARIABLE = "envvar"  # NVIDIA's default
ENDED = ("Succeeded", "Failed")
SHOWN = 4
Unready = Callable[[Sequence[str]], Awaitable[str]]


def lets_claim(pod_spec: Mapping[str, Any]) -> bool:
    """Tell whether a pod is our driver of claims: it is for the nodes whose GPUs are claimed."""
    return bool((pod_spec.get("nodeSelector") or {}).get(LABEL) == CLAIMED)


def strategy_of(pod_spec: Mapping[str, Any]) -> str:
    """Return how a plugin's pod hands GPUs out; the driver of claims does so by CDI."""
    if lets_claim(pod_spec):
        return BY_CDI
    variables = [one for container in pod_spec.get("containers") or () for one in container.get("env") or ()]
    return next((str(one.get("value", "")) for one in variables if one.get("name") == STRATEGY), BY_VARIABLE)


def makes_mounts(pod_spec: Mapping[str, Any]) -> bool:
    """Tell whether a plugin's pod hands GPUs out by mounts."""
    return BY_MOUNTS in strategy_of(pod_spec)


def hands_by_cdi(pod_spec: Mapping[str, Any]) -> bool:
    """Tell whether a plugin's pod, or the driver of claims, hands GPUs out by CDI."""
    return strategy_of(pod_spec) == BY_CDI


def spares_variable(pod_spec: Mapping[str, Any]) -> bool:
    """Tell whether a plugin's pod hands GPUs out without the variable: by mounts, or by CDI."""
    return makes_mounts(pod_spec) or hands_by_cdi(pod_spec)


@dataclass(frozen=True)
class PluginPresent(ObjectsPresent):
    """The plugin as NVIDIA's static manifest has it, with RuntimeClass and node selector where they are needed.

    `unready` tells why the hosts of these nodes are not all ready for it, "" where they are: until then a plugin that
    asks less of them stays, for its pods and those that it gives GPUs would not start, or would see none.
    """

    traps: ClassVar[tuple[int, ...]] = (23, 29)
    unready: Unready | None = field(default=None, hash=False, compare=False)

    async def check(self, on: Kube) -> Drift | None:
        """Compare the objects; the drift says what keeps from applying them.

        Raises Refused SHW-656 where somebody else's plugin offers the same GPUs; where only that is there, all is well.
        """
        if owner := await find_owner(on):
            await self._refuse_second(on, owner)
            return None
        drift = await super().check(on)
        return Drift.held(drift.have, drift.want, await self.hold(on)) if drift else None

    async def _refuse_second(self, on: Kube, owner: str) -> None:
        (mine,) = [obj["metadata"]["name"] for obj in await self._load() if VENDOR.plugin.has(_labels_of(obj))]
        if await _pod_spec(on, mine) is not None:
            place = f"{VENDOR.plugin.namespace}/{mine}"
            away = f"`kubectl -n {VENDOR.plugin.namespace} delete daemonset {mine}` leaves the GPUs to the other"
            fix = f"Keep one, once no pod holds a GPU that the other gave it: {away}; or switch that one off there."
            raise Refused(f"two device plugins offer the same GPUs: {place} and {owner}", code="SHW-656", fix=fix)

    async def hold(self, on: Kube) -> str:
        """Return why the plugin may not be as declared yet."""
        if self.unready is None or not await self.asks_more(on):
            return ""
        nodes = await nodes_by_name(on)
        names = [name for name, node in nodes.items() if count_gpus(node, "capacity") or _is_labelled(node)]
        return await self.unready(names) if names else ""

    async def asks_more(self, on: Kube) -> bool:
        """Return whether the declared plugin asks something of its hosts that the one in the cluster does not."""
        (declared,) = [obj for obj in await self._load() if VENDOR.plugin.has(_labels_of(obj))]
        there = await _pod_spec(on, declared["metadata"]["name"])
        return there is None or not _asks_as_much(there, declared["spec"]["template"]["spec"])


def _asks_as_much(there: Mapping[str, Any], declared: Mapping[str, Any]) -> bool:
    """Tell whether a plugin's pod that runs needs all that the declared one needs: CDI, mounts, the default runtime."""
    if hands_by_cdi(declared):
        return hands_by_cdi(there)
    by_default = not there.get("runtimeClassName") or bool(declared.get("runtimeClassName"))
    return by_default and (makes_mounts(there) or not makes_mounts(declared))


def _labels_of(obj: Object) -> Mapping[str, str]:
    template = (obj.get("spec") or {}).get("template") or {"metadata": {}}
    return template["metadata"].get("labels") or {}


async def _pod_spec(on: Kube, name: str = VENDOR.plugin.daemon_set) -> Mapping[str, Any] | None:
    """Return the pods of a device plugin in the cluster, as its DaemonSet makes them; None where there is none."""
    live = await on.get("apps/v1", "DaemonSet", name, VENDOR.plugin.namespace, fresh=True)
    return live["spec"]["template"]["spec"] if live else None


async def plugin_spares_variable(on: Kube) -> bool:
    """Return whether what offers the cluster's GPUs is declared to hand them out without the variable."""
    names = [VENDOR.plugin.daemon_set, *([VENDOR.claims.daemon_set] if VENDOR.claims else [])]
    specs = [spec for name in names if (spec := await _pod_spec(on, name)) is not None]
    return bool(specs) and all(map(spares_variable, specs))


def _is_labelled(node: Object) -> bool:
    return (node["metadata"].get("labels") or {}).get(VENDOR.label) == "true"


async def needs_variable(on: Kube, node: str) -> str:
    """Return why containers of a node need the vendor's variable to be accepted; "" where none does.

    A kubelet keeps what a pod was given for as long as the pod is there, and hands it to each of its containers that
    starts again: one given its GPUs by the variable would start without any. A pod is of the new way where it was
    admitted after the plugin's pod that spares it; both times are the same kubelet's. Raises the errors of the API.
    """
    if owner := await find_owner(on):
        return f"the GPUs are offered by {owner}, and how its toolkit takes a request is set there"
    if not await plugin_spares_variable(on):
        return "the device plugin does not hand GPUs out by mounts yet"
    pods = await on.list_("v1", "Pod", fields=f"spec.nodeName={node}")
    plugins = [
        pod
        for pod in pods
        if pod["metadata"]["namespace"] == VENDOR.plugin.namespace
        and VENDOR.plugin.has(pod["metadata"].get("labels") or {})
    ]
    if not plugins or not all(spares_variable(pod["spec"]) and pod_ready(pod) for pod in plugins):
        return "the device plugin of this node does not hand GPUs out by mounts yet, or is not ready"
    since = max(_admitted(pod) for pod in plugins)
    older = [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if count_asked_gpus(pod)
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


async def ask_safely(ask: Callable[[], Awaitable[str]]) -> str:
    """Return what is answered; where nobody answers, that: what is not known is a reason to leave all as it is."""
    try:
        return await ask()
    except ShipwayError as error:
        return f"it cannot be determined whether it may be changed ({error.message})"
