"""Objects of others in the cluster that name an endpoint before: they are their owners' to move."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from shipway.errors import ShipwayError
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import few
from shipway.steps.kubernetes.kubeadm_objects import managers
from tasks.context import Run

# kubeadm's own, which the run moves; kubeadm's record goes on naming the address of each API server.
OWN = {("kube-system", "kubeadm-config"), ("kube-public", "cluster-info"), ("kube-system", "kube-proxy")}


async def find_users(run: Run, kube: Kube) -> None:
    """Keep which objects name a name of ours that is to go, and warn of ConfigMaps that name any endpoint before.

    An address, and a load balancer, go on answering; a name of ours stays where somebody has it.
    """
    now = run.cluster.endpoint.rpartition(":")[0]
    going = sorted(run.endpoint.named - {now})
    old = [one for one in dict.fromkeys([run.endpoint.was.rpartition(":")[0], *going]) if one not in ("", now)]
    run.endpoint.used = {}
    if not old:
        return
    said = ", ".join(old)
    try:
        maps = [one for one in await kube.list_("v1", "ConfigMap") if _place(one) not in OWN]
        pods = await kube.list_("v1", "Pod") if going else []
    except ShipwayError as error:
        run.warned.append(f"whether ConfigMaps of others name {said} could not be asked: {error.message}")
        run.endpoint.used = dict.fromkeys(going, "objects that could not be asked for")
        return
    if named := [_title(one) for one in maps if _has(_texts(one), old)]:
        run.warned.append(f"these ConfigMaps name {said}, and are their owners' to move: {few(named)}")
    for name in going:
        by = [_title(one) for one in maps if _has(_texts(one), [name])]
        by += [f"pod {'/'.join(_place(one))}" for one in pods if _has([json.dumps(one.get("spec"))], [name])]
        if by:
            run.endpoint.used = {**run.endpoint.used, name: few(by)}


def _place(found: Object) -> tuple[str, str]:
    meta = found["metadata"]
    return str(meta["namespace"]), str(meta["name"])


def _title(found: Object) -> str:
    return f"{'/'.join(_place(found))}{managers(found)}"


def _texts(found: Object) -> list[str]:
    return [str(text) for text in (found.get("data") or {}).values()]


def _has(texts: Iterable[str], names: Iterable[str]) -> bool:
    """Say whether a text has one of these names or addresses, and not a longer one that begins or ends with it."""
    words = "|".join(re.escape(name) for name in names)
    return any(re.search(rf"(?<![\w.:-])(?:{words})(?![\w-]|\.\w)", text) for text in texts)
