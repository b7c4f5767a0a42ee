"""Who owns an object of the API: its controller, and that one's controller, up to the top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shipway.errors import ShipwayError
from shipway.kube.client import Kube, Object

HIGHEST = 5  # owners above each other: a pod of a Job of a JobSet of a queue has three


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the reference to the owner that makes an object anew (its controller); empty where it has none."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), {})


async def walk_up(kube: Kube, obj: Object) -> list[Object]:
    """Return the owners of an object, the nearest first.

    Ends at the top, or with one that is gone or that may not be asked for: that one is its kind and name only. Raises
    the API's errors that may pass: what is not known now is not taken for nobody's.
    """
    found: list[Object] = []
    while len(found) < HIGHEST and (owner := controller_of(obj)):
        try:
            above = await kube.get(owner["apiVersion"], owner["kind"], owner["name"], _space(obj))
        except ShipwayError as error:
            if error.may_retry:
                raise
            above = None
        found.append({"metadata": {"name": owner["name"]}, **(above or {}), "kind": owner["kind"]})
        if above is None:
            break
        obj = above
    return found


def _space(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", ""))
