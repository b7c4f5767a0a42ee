"""PodDisruptionBudgets: whether one more pod of those that a budget guards may be evicted now."""

from __future__ import annotations

from .api_errors import ApiError
from .objects import Obj, dig
from .selectors import selects
from .store import Store


def guard(store: Store, pod: Obj) -> None:
    """Refuse an eviction that a budget forbids, in the API server's words; raises ApiError 429."""
    namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}
    for budget in store.objects("poddisruptionbudgets.policy", namespace):
        if not selects(dig(budget, "spec", "selector"), labels):
            continue
        guarded = [one for one in store.objects("pods", namespace) if selects(budget["spec"]["selector"], _labels(one))]
        healthy = sum(_ready(one) for one in guarded)
        needed = _needed(budget["spec"], len(guarded))
        if healthy - 1 < needed:
            name = budget["metadata"]["name"]
            said = f"The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
            causes = [{"reason": "DisruptionBudget", "message": said}]
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise ApiError(429, "TooManyRequests", message, {"causes": causes})


def _labels(pod: Obj) -> dict[str, str]:
    return pod["metadata"].get("labels") or {}


def _ready(pod: Obj) -> bool:
    conditions = dig(pod, "status", "conditions", default=[])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _needed(spec: Obj, guarded: int) -> int:
    """Return how many pods must stay healthy; a percentage is rounded up, as the disruption controller does."""
    given: str | int = spec["minAvailable"] if "minAvailable" in spec else spec.get("maxUnavailable", 0)
    number = -(-int(given[:-1]) * guarded // 100) if isinstance(given, str) else int(given)
    return number if "minAvailable" in spec else guarded - number
