"""Checks and steps about the cluster's nodes: Ready, their labels and taints."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.errors import Blocked, PostconditionFailed
from shipway.known_failures.entry import Known
from shipway.kube.client import Kube, Object
from shipway.kube.drain import left_note, uncordon
from shipway.kube.nodes import UNREADY, few, nodes_by_name, taints_of
from shipway.kube.pod_states import find_known, find_trouble
from shipway.kube.status import why_not_ready
from shipway.redact import keep_ends
from shipway.step import Drift, Impact

SHOWN_WHY = 400  # characters of a pod's own words: a runtime's error names its cause at its end
LOOKED_AT = 20  # pods that are not ready, of which the events are asked for
# `master` until Kubernetes 1.24 took it away, `control-plane` since 1.20 knows it (kubeadm's upgrade notes).
CONTROL_PLANE_TAINTS = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


@dataclass(frozen=True)
class NodesReady:
    """Every one of these nodes is registered and Ready, and the taint of one that is not was taken off it.

    The controller manager takes it off seconds after the kubelet's word, or later where it is busy or changes its
    leader; no pod comes before.
    """

    traps: ClassVar[tuple[int, ...]] = (43,)
    names: Collection[str]
    name: str = "every node is Ready"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for the nodes; the drift names each one that is not Ready and why."""
        nodes = await nodes_by_name(on)
        reasons = {name: why_not_ready(nodes.get(name)) or _kept(nodes[name]) for name in sorted(self.names)}
        waiting = [f"{name}: {why}" for name, why in reasons.items() if why]
        if not waiting:
            return None
        have = f"{len(self.names) - len(waiting)} of {len(self.names)} ready; {few(waiting)}"
        return Drift(have, f"{len(self.names)} of {len(self.names)} ready")


def _kept(node: Object) -> str:
    left = [taint["key"] for taint in taints_of(node) if taint["key"] in UNREADY]
    return f"Ready, and still tainted {left[0]}" if left else ""


@dataclass(frozen=True)
class NodeRegistered:
    """The node's kubelet has registered it: some seconds after the join's last file is there."""

    node: str

    @property
    def name(self) -> str:
        """The node."""
        return f"node {self.node} is registered"

    async def check(self, on: Kube) -> Drift | None:
        """Look for the node."""
        return None if self.node in await nodes_by_name(on) else Drift("no such node", "registered")


@dataclass(frozen=True)
class NodeLabels:
    """A node has these labels; other labels stay as they are."""

    impact: ClassVar[Impact] = Impact.FILES
    traps: ClassVar[tuple[int, ...]] = (29,)
    node: str
    labels: Mapping[str, str] = field(hash=False)

    @property
    def name(self) -> str:
        """The node and what it is labelled with."""
        return (
            f"node {self.node} is labelled {', '.join(f'{key}={value}' for key, value in sorted(self.labels.items()))}"
        )

    async def check(self, on: Kube) -> Drift | None:
        """Compare the labels that are asked for."""
        node = await node_of(on, self.node)
        live = node["metadata"].get("labels") or {}
        wrong = [key for key, value in sorted(self.labels.items()) if live.get(key) != value]
        if not wrong:
            return None
        have = ", ".join(f"{key}={live[key]}" if key in live else f"no {key}" for key in wrong)
        return Drift(have, ", ".join(f"{key}={self.labels[key]}" for key in wrong))

    async def apply(self, on: Kube) -> None:
        """Merge the labels into the node; a node that is gone meanwhile is not made anew."""
        await on.patch("v1", "Node", self.node, {"metadata": {"labels": dict(self.labels)}})


@dataclass(frozen=True)
class NodeUntainted:
    """A control-plane node takes ordinary pods: it has no control-plane taint; other taints stay."""

    impact: ClassVar[Impact] = Impact.FILES
    node: str

    @property
    def name(self) -> str:
        """The node that takes pods."""
        return f"node {self.node} takes ordinary pods"

    async def check(self, on: Kube) -> Drift | None:
        """Look for the taint under both of its names."""
        found = [
            taint["key"] for taint in taints_of(await node_of(on, self.node)) if taint["key"] in CONTROL_PLANE_TAINTS
        ]
        return Drift(f"taint {', '.join(found)}", "no control-plane taint") if found else None

    async def apply(self, on: Kube) -> None:
        """Write the other taints back, only if nobody wrote the node meanwhile (else ApiUnavailable: look again)."""
        on.forget()
        node = await node_of(on, self.node)
        rest = [taint for taint in taints_of(node) if taint["key"] not in CONTROL_PLANE_TAINTS]
        version = node["metadata"]["resourceVersion"]
        changes = {"metadata": {"resourceVersion": version}, "spec": {"taints": rest}}
        await on.patch("v1", "Node", self.node, changes)


async def node_of(on: Kube, name: str) -> Object:
    """Return a node; raises Blocked while it is not registered."""
    nodes = await nodes_by_name(on)
    if name not in nodes:
        fix = f"Join the host first; if it has joined, see `journalctl -u kubelet` on {name}."
        raise Blocked(f"node {name} is not registered", fix=fix)
    return nodes[name]


@dataclass(frozen=True)
class WorkloadRuns:
    """A DaemonSet or Deployment runs in its newest form wherever it should."""

    traps: ClassVar[tuple[int, ...]] = (47,)
    kind: str
    workload: str
    namespace: str

    @property
    def name(self) -> str:
        """The workload that runs."""
        return f"{self.kind} {self.namespace}/{self.workload} runs everywhere it should"

    async def check(self, on: Kube) -> Drift | None:
        """Compare its numbers; where pods are missing, the events of one of them say why."""
        found = await on.get("apps/v1", self.kind, self.workload, self.namespace)
        if found is None:
            return Drift("not there", "running")
        wanted, ready = _numbers(found)
        status = found.get("status") or {}
        seen = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
        if seen and wanted == ready:
            return None
        if not seen:
            return Drift(f"{ready} of {wanted} ready; its controller has not looked yet", f"{wanted} of {wanted} ready")
        waiting = await self._waiting(on, found)
        broken = [(pod, known) for pod, said in waiting if (known := find_known(pod, said))]
        if broken and len(broken) >= wanted - ready:
            raise _hopeless(broken, dict(_troubles(waiting)))
        why = next(iter(_troubles(waiting)), None)
        shown = f"; {why[0]}: {keep_ends(why[1], SHOWN_WHY)}" if why else ""
        return Drift(f"{ready} of {wanted} ready{shown}", f"{wanted} of {wanted} ready")

    async def _waiting(self, on: Kube, found: Object) -> list[tuple[Object, list[str]]]:
        """Return the pods that are to be ready and are not, at most `LOOKED_AT`, each with the events about it."""
        selector = found["spec"]["selector"].get("matchLabels") or {}
        labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        return await find_waiting(on, self.namespace, labels, LOOKED_AT)


async def find_waiting(
    on: Kube, namespace: str, labels: str, most: int | None = None
) -> list[tuple[Object, list[str]]]:
    """Return the pods that are to be ready and are not, each with the events about it; raises the errors of the API."""
    pods = await on.list_("v1", "Pod", namespace, labels=labels)
    waiting = [pod for pod in pods if not pod_ready(pod) and not is_ending(pod)][:most]
    events = await asyncio.gather(*(on.events_of(pod) for pod in waiting))
    return list(zip(waiting, events, strict=True))


def _troubles(waiting: Sequence[tuple[Object, list[str]]]) -> Iterator[tuple[str, str]]:
    """Yield the name of each pod that says what keeps it, with that."""
    for pod, said in waiting:
        if why := find_trouble(pod, said):
            yield pod["metadata"]["name"], why


def _hopeless(broken: Sequence[tuple[Object, Known]], troubles: Mapping[str, str]) -> PostconditionFailed:
    """Return the error for pods that waiting cannot help, with their nodes and the catalogue's cause and fix."""
    pod, known = broken[0]
    nodes = sorted({(pod.get("spec") or {}).get("nodeName") or "no node" for pod, _ in broken})
    name = pod["metadata"]["name"]
    message = f"{known.cause} (on {few(nodes)}; {name}: {keep_ends(troubles.get(name, known.title), SHOWN_WHY)})"
    return PostconditionFailed(message, host=nodes[0] if len(nodes) == 1 else "", code=known.code, fix=known.fix)


def pod_ready(pod: Object) -> bool:
    """Say whether a pod's containers are all ready."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in conditions)


def is_ending(pod: Object) -> bool:
    """Say whether a pod is being deleted: what it says then keeps nobody waiting."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def _numbers(found: Object) -> tuple[int, int]:
    """Return how many pods a workload wants, and how many of its newest form are ready."""
    status = found.get("status") or {}
    if found["kind"] == "DaemonSet":
        wanted = int(status.get("desiredNumberScheduled", 0))
        return wanted, min(int(status.get("numberReady", 0)), int(status.get("updatedNumberScheduled", 0)))
    wanted = int(found["spec"].get("replicas", 1))
    return wanted, min(int(status.get("readyReplicas", 0)), int(status.get("updatedReplicas", 0)))


@dataclass(frozen=True)
class NoNoteLeft:
    """No note of Shipway's is on a node that it does not keep closed: the next cordon of a person is not ours."""

    impact: ClassVar[Impact] = Impact.FILES
    node: str
    name: str = "no note says that Shipway keeps the node closed where it does not"

    async def check(self, on: Kube) -> Drift | None:
        """Look for one that a killed run left, on a node that a person has opened since."""
        note = left_note((await nodes_by_name(on)).get(self.node) or {"metadata": {}})
        return Drift(note, "no note") if note else None

    async def apply(self, on: Kube) -> None:
        """Take it off; whether the node is open stays as it is."""
        await uncordon(on, self.node)
