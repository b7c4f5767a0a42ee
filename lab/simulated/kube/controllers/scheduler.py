"""The scheduler: gives pods a node, or says in the real scheduler's words why none will do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable

from lab.simulated.kube.objects import Obj, condition, dig, is_true, key_of, name_of, set_condition, with_status
from lab.simulated.kube.store import DELETED, Change, Key
from lab.simulated.kube.world import World, is_finished

from .base import MIN_DELAY, Controller
from .claims import CLAIMS, LACKING, SLICES, Claims, is_waiting
from .placement import Usage, Usages, explain, pinned_node, refusals, requests

TURN = 0.02  # wall seconds of scheduling after which the event loop may answer others
ENOUGH = 50  # nodes that fit are enough to choose from; the real scheduler stops early in large clusters too
MIN_RETRY = 0.05  # wall seconds between two looks at the pods that no node would take


class Scheduler(Controller):
    """Schedules pods as they come; pods without a place are tried again when a node or a pod makes room."""

    def __init__(self, world: World, claims: Claims) -> None:
        super().__init__(world)
        self._claims = claims
        self._usages = Usages(world.store)
        self._new: dict[Key, None] = {}
        self._waiting: dict[Key, None] = {}
        self._retry_due = False
        self._start = 0
        self.store.listen(["pods"], self._pod_changed)
        self.store.listen(["nodes"], self._node_changed)
        self.store.listen([CLAIMS, SLICES], lambda _: self._room())

    def _pod_changed(self, change: Change) -> None:
        pod, key = change.obj, key_of(change.obj)
        if dig(pod, "spec", "nodeName"):
            if change.kind == DELETED or (is_finished(pod) and not is_finished(change.before or pod)):
                self._room()
            return
        if change.kind == DELETED or pod["metadata"].get("deletionTimestamp"):
            self._new.pop(key, None)
            self._waiting.pop(key, None)
        elif (
            key not in self._waiting
            and not is_waiting(pod)
            and dig(pod, "spec", "schedulerName") == "default-scheduler"
        ):
            self._new[key] = None
            self.enqueue("new", self.latencies.scheduling)

    def _node_changed(self, change: Change) -> None:
        before, after = change.before or {}, change.obj
        same = before.get("spec") == after["spec"] and dig(before, "metadata", "labels") == after["metadata"].get(
            "labels"
        )
        if not same or dig(before, "status", "allocatable") != dig(after, "status", "allocatable"):
            self._room()

    def _room(self) -> None:
        """Try waiting pods again soon; many changes make one try."""
        if self._waiting and not self._retry_due:
            self._retry_due = True
            delay = max(MIN_RETRY, self.pace.scaled(self.latencies.scheduling_retry))
            self.pace.after_exactly(delay, self._retry)

    def _retry(self) -> None:
        self._retry_due = False
        self._new |= self._waiting
        self._waiting.clear()
        self.reconcile("new")

    def reconcile(self, key: Hashable) -> None:
        """Schedule everything that is queued, the most important first."""
        pods = [pod for where in self._new if (pod := self.store.get("pods", *where)) is not None]
        self._new.clear()
        pods.sort(key=lambda pod: -int(dig(pod, "spec", "priority", default=0)))
        clock = asyncio.get_running_loop().time
        until = clock() + TURN
        for count, pod in enumerate(pods):
            if clock() > until:
                for later in pods[count:]:
                    self._new[key_of(later)] = None
                self.pace.after_exactly(MIN_DELAY, self.reconcile, "new")
                return
            if not dig(pod, "spec", "nodeName"):
                self._schedule(pod)

    def _schedule(self, pod: Obj) -> None:
        wanted = requests(pod)
        pinned = pinned_node(pod)
        if pinned is not None:
            node = self.store.get("nodes", "", pinned)
            candidates = [node] if node is not None else []
        else:
            candidates = self._rotated(self.store.objects("nodes"))
        best, reasons = self._best(pod, wanted, candidates)
        if best is not None:
            if pod["spec"].get("resourceClaims"):
                self._claims.allocate(pod, name_of(best), self._claims.choose(pod, name_of(best)) or {})
            self._bind(pod, name_of(best))
            return
        total = len(self.store.objects("nodes"))
        others = total - len(candidates)
        if others:
            suffix = "/selector" if self.world.config.minor >= 22 else ""
            reasons[f"node(s) didn't match Pod's node affinity{suffix}"] += others
        self._waiting[key_of(pod)] = None
        self._refuse(pod, explain(reasons, total, self.world.config.minor))

    def _rotated(self, nodes: list[Obj]) -> list[Obj]:
        """Return the nodes from where the last look ended, as all are to get their share."""
        self._start = (self._start + ENOUGH) % len(nodes) if len(nodes) > ENOUGH else 0
        return nodes[self._start :] + nodes[: self._start]

    def _best(self, pod: Obj, wanted: Usage, candidates: list[Obj]) -> tuple[Obj | None, Counter[str]]:
        """Return the node with least to do of the first that will take the pod, or the reasons why none will."""
        reasons: Counter[str] = Counter()
        best: Obj | None = None
        fit = 0
        least: tuple[object, ...] = ()
        for node in candidates:
            used = self._usages.of(name_of(node))
            refused = refusals(pod, wanted, node, used, self.world.config.minor)
            if not refused and pod["spec"].get("resourceClaims") and self._claims.choose(pod, name_of(node)) is None:
                refused = [LACKING]
            reasons.update(refused)
            if not refused:
                load = (used.get("nvidia.com/gpu", 0), used.get("pods", 0), self.pace.dice.random())
                if best is None or load < least:
                    best, least = node, load
                fit += 1
                if fit == ENOUGH:
                    break
        return best, reasons

    def _bind(self, pod: Obj, node: str) -> None:
        conditions = set_condition(dig(pod, "status", "conditions", default=[]), "PodScheduled", "True")
        bound = with_status({**pod, "spec": {**pod["spec"], "nodeName": node}}, conditions=conditions)
        bound = self.store.replace("pods", bound)
        where = f"{pod['metadata']['namespace']}/{name_of(pod)}"
        self.world.event(bound, "Scheduled", f"Successfully assigned {where} to {node}", "default-scheduler")

    def _refuse(self, pod: Obj, message: str) -> None:
        known = condition(pod, "PodScheduled")
        if known is None or known.get("message") != message or is_true(pod, "PodScheduled"):
            conditions = dig(pod, "status", "conditions", default=[])
            conditions = set_condition(conditions, "PodScheduled", "False", "Unschedulable", message)
            pod = self.store.replace("pods", with_status(pod, conditions=conditions))
        self.world.event(pod, "FailedScheduling", message, "default-scheduler")
