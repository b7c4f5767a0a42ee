"""Where a pod may run: node selectors and affinity, taints, resources, and the reasons why not in the real words."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from lab.simulated.kube.objects import Obj, dig, name_of
from lab.simulated.kube.quantities import amount
from lab.simulated.kube.selectors import selects
from lab.simulated.kube.store import Store
from lab.simulated.kube.world import is_finished

Usage = dict[str, Decimal]
_PSEUDO = {"pods"}


def tolerated(taint: Obj, tolerations: list[Obj]) -> bool:
    """Say whether one of these tolerations covers a taint."""
    for toleration in tolerations:
        if toleration.get("effect") not in {None, "", taint["effect"]}:
            continue
        key = toleration.get("key")
        if toleration.get("operator", "Equal") == "Exists":
            if key in {None, "", taint["key"]}:
                return True
        elif key == taint["key"] and toleration.get("value", "") == taint.get("value", ""):
            return True
    return False


def untolerated(node: Obj, tolerations: list[Obj]) -> Obj | None:
    """Return the first taint that keeps a pod with these tolerations away from a node."""
    for taint in dig(node, "spec", "taints", default=[]):
        if taint["effect"] in {"NoSchedule", "NoExecute"} and not tolerated(taint, tolerations):
            return dict(taint)
    return None


def wants_node(pod_spec: Obj, node: Obj) -> bool:
    """Say whether a pod's node selector and required node affinity accept a node."""
    labels = node["metadata"].get("labels") or {}
    if not selects({"matchLabels": pod_spec.get("nodeSelector")}, labels):
        return False
    terms = dig(
        pod_spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"
    )
    if terms is None:
        return True
    fields = {"metadata.name": name_of(node)}
    return any(
        selects({"matchExpressions": term.get("matchExpressions")}, labels)
        and selects({"matchExpressions": term.get("matchFields")}, fields)
        for term in terms
    )


def pinned_node(pod: Obj) -> str | None:
    """Return the one node that a DaemonSet's pod is made for."""
    terms = dig(
        pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"
    )
    if terms and len(terms) == 1:
        for expression in terms[0].get("matchFields") or []:
            if (expression["key"], expression["operator"]) == ("metadata.name", "In") and len(
                expression["values"]
            ) == 1:
                return str(expression["values"][0])
    return None


def requests(pod: Obj) -> Usage:
    """Return what a pod asks for, summed over its containers."""
    total: Usage = {"pods": Decimal(1)}
    for container in pod["spec"]["containers"]:
        for name, value in (dig(container, "resources", "requests") or {}).items():
            total[name] = total.get(name, Decimal(0)) + amount(value)
    return total


class Usages:
    """What is asked for on every node, counted anew only where pods have come or gone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[int, Usage]] = {}

    def of(self, node: str) -> Usage:
        """Return the sum of all requests of the pods on a node."""
        stamp = self._store.stamp("pods", "node", node)
        known = self._known.get(node)
        if known is not None and known[0] == stamp:
            return known[1]
        total: Usage = {}
        for pod in self._store.indexed("pods", "node", node):
            if not is_finished(pod):
                for name, value in requests(pod).items():
                    total[name] = total.get(name, Decimal(0)) + value
        self._known[node] = (stamp, total)
        return total


def refusals(pod: Obj, wanted: Usage, node: Obj, used: Usage, minor: int) -> list[str]:
    """Return the reasons why a node cannot take a pod, in the scheduler's words; none where it can."""
    spec = pod["spec"]
    tolerations = spec.get("tolerations") or []
    if dig(node, "spec", "unschedulable") and not tolerated(
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, tolerations
    ):
        return ["node(s) were unschedulable"]
    taint = untolerated(node, tolerations)
    if taint is not None:
        shown = f"{{{taint['key']}: {taint.get('value', '')}}}"
        if minor < 24:
            return [f"node(s) had taint {shown}, that the pod didn't tolerate"]
        return [f"node(s) had untolerated taint {shown}"]
    if not wants_node(spec, node):
        return ["node(s) didn't match Pod's node affinity" + ("/selector" if minor >= 22 else "")]
    return _lacking(wanted, node, used)


def _lacking(wanted: Usage, node: Obj, used: Usage) -> list[str]:
    allocatable = dig(node, "status", "allocatable", default={})
    reasons = []
    for name, value in wanted.items():
        if value and value + used.get(name, Decimal(0)) > amount(allocatable.get(name, "0")):
            reasons.append("Too many pods" if name in _PSEUDO else f"Insufficient {name}")
    return reasons


def explain(found: Counter[str], nodes: int, minor: int) -> str:
    """Return the scheduler's message about `nodes` refusals; since 1.24 it also says what preemption would bring."""
    if not nodes:
        return "no nodes available to schedule pods"
    reasons = sorted(f"{count} {reason}" for reason, count in found.items())
    text = f"0/{nodes} nodes are available: {', '.join(reasons)}."
    if minor < 24:
        return text
    lacking = sum(count for reason, count in found.items() if reason.startswith(("Insufficient", "Too many")))
    lacking = min(nodes, lacking)
    parts = []
    if nodes - lacking:
        parts.append(f"{nodes - lacking} Preemption is not helpful for scheduling")
    if lacking:
        parts.append(f"{lacking} No preemption victims found for incoming pod")
    if len(parts) == 2 and parts[0] > parts[1]:
        parts.reverse()
    return f"{text} preemption: 0/{nodes} nodes are available: {', '.join(parts)}."
