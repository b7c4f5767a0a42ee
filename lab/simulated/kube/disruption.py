"""PodDisruptionBudgets: whether one more pod of those that a budget guards may be evicted now."""

from __future__ import annotations

from .api_errors import ApiError
from .objects import Obj, dig, is_true
from .quantities import share
from .selectors import selects
from .store import Store


def guard(store: Store, pod: Obj) -> None:
    """Refuse an eviction that a budget forbids, in the API server's words; raises ApiError 429."""
    namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}
    for budget in store.objects("poddisruptionbudgets.policy", namespace):
        if not selects(dig(budget, "spec", "selector"), labels):
            continue
        guarded = [one for one in store.objects("pods", namespace) if selects(budget["spec"]["selector"], _labels(one))]
        healthy = sum(is_true(one, "Ready") for one in guarded)
        needed = _needed(budget["spec"], len(guarded))
        if healthy - 1 < needed:
            name = budget["metadata"]["name"]
            said = f"The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
            causes = [{"reason": "DisruptionBudget", "message": said}]
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise ApiError(429, "TooManyRequests", message, {"causes": causes})


def _labels(pod: Obj) -> dict[str, str]:
    return pod["metadata"].get("labels") or {}


def _needed(spec: Obj, guarded: int) -> int:
    """Return how many pods must stay healthy; a percentage is rounded up, as the disruption controller does."""
    if "minAvailable" in spec:
        return share(spec["minAvailable"], guarded, up=True)
    return guarded - share(spec.get("maxUnavailable", 0), guarded, up=True)
