"""Disruption budgets: which there are, and which pods of a node each one guards against a drain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from shipway.kube.client import Kube, Object
from shipway.kube.drain import movable
from shipway.kube.errors import KindMissing


async def list_budgets(on: Kube) -> list[Object]:
    """Return all disruption budgets. Raises the API's errors."""
    try:
        return await on.list_("policy/v1", "PodDisruptionBudget")
    except KindMissing:  # before 1.21; it is asked, for an API server may serve less than its version says
        return await on.list_("policy/v1beta1", "PodDisruptionBudget")


async def guarded_pods(on: Kube, budget: Mapping[str, Any], nodes: Collection[str]) -> list[Object]:
    """Return the pods on these nodes that a budget guards, and that a drain would move. Raises the API's errors.

    A budget without a selector guards nothing, one with an empty selector every pod of its namespace (Kubernetes API
    reference, PodDisruptionBudgetSpec).
    """
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None:
        return []
    pods = await on.list_("v1", "Pod", budget["metadata"]["namespace"], labels=selector_text(selector))
    return [one for one in pods if (one.get("spec") or {}).get("nodeName") in nodes and movable(one)]


def selector_text(selector: Mapping[str, Any]) -> str:
    """Return a label selector as the API takes it in a query."""
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or ():
        key, values = one.get("key", ""), ",".join(map(str, one.get("values") or ()))
        form = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append(form.get(str(one.get("operator")), key))
    return ",".join(parts)
