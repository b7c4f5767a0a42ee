"""Cordon, drain, uncordon: pods leave a node by the eviction API, so that disruption budgets are kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from shipway.errors import DeadlineExceeded, Refused
from shipway.kube import Kube, Object
from shipway.kube_errors import NOT_FOUND, refusal, status_of

CORDONED = "shipway.dev/cordoned-by"  # an annotation: who cordoned the node, why, since when
MIRROR = "kubernetes.io/config.mirror"  # a static pod's image in the API; only its file ends it
TOO_MANY = 429  # the answer of a disruption budget that allows no more (Kubernetes: API-initiated eviction)
EVERY_SECONDS = 2.0
Told = Callable[[str], None]


async def cordon(kube: Kube, node: str, why: str) -> None:
    """Keep new pods off a node, and write on it who did so and why. Raises the errors of the API."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    note = json.dumps({"by": "shipway", "why": why, "since": since})
    await kube.patch(
        "v1", "Node", node, {"metadata": {"annotations": {CORDONED: note}}, "spec": {"unschedulable": True}}
    )


async def uncordon(kube: Kube, node: str) -> None:
    """Open a node for pods again. Raises the errors of the API."""
    changes = {"metadata": {"annotations": {CORDONED: None}}, "spec": {"unschedulable": None}}
    await kube.patch("v1", "Node", node, changes)


async def left_cordoned(kube: Kube) -> dict[str, str]:
    """Give the nodes that Shipway cordoned and did not open again, with the reason: their run was killed."""
    nodes = {node["metadata"]["name"]: cordon_note(node) for node in await kube.list_("v1", "Node")}
    return {name: note for name, note in nodes.items() if note}


def cordon_note(node: Mapping[str, Any]) -> str:
    """Give why and since when Shipway keeps a node closed; empty where it does not."""
    meta, spec = node.get("metadata") or {}, node.get("spec") or {}
    text = (meta.get("annotations") or {}).get(CORDONED)
    if not text or not spec.get("unschedulable"):
        return ""
    try:
        note = json.loads(text)
        return f"{note['why']} (since {note['since']})"
    except (ValueError, KeyError, TypeError):
        return "a note that cannot be read"


async def drain(kube: Kube, node: str, *, seconds: float, told: Told = lambda _: None) -> list[str]:
    """Evict every pod of a cordoned node but DaemonSets' and static ones; give their names once all are gone.

    A pod that nobody would start again is not evicted: raises Refused naming it. Raises DeadlineExceeded after
    `seconds` with the pods that are left, and what the budget that holds them up says.
    """
    leaving = {_title(pod): pod for pod in await _pods(kube, node)}
    orphans = sorted(name for name, pod in leaving.items() if not _owned(pod))
    if orphans:
        fix = f"Let their owner end them, or delete them yourself; then repair {node} again."
        raise Refused(f"pods that nothing would start again run there: {', '.join(orphans[:6])}", host=node, fix=fix)
    ends, said, evicted = time.monotonic() + seconds, "", sorted(leaving)
    while leaving:
        answers = await asyncio.gather(*(_evict(kube, pod) for pod in leaving.values() if not _going(pod)))
        held = sorted({answer for answer in answers if answer})
        kube.forget()
        leaving = {_title(pod): pod for pod in await _pods(kube, node)}
        line = f"{len(leaving)} pods left" + (f"; {held[0]}" if held else "")
        if line != said:
            told(said := line)
        if leaving and time.monotonic() > ends:
            names = ", ".join(sorted(leaving)[:6])
            fix = "Give them replicas elsewhere or raise their PodDisruptionBudget; the node was opened again."
            message = f"the drain of {node} is held up by {names}{f' ({held[0]})' if held else ''}"
            raise DeadlineExceeded(message, host=node, fix=fix)
        if leaving:
            await asyncio.sleep(EVERY_SECONDS)
    return evicted


def _title(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _going(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _owned(pod: Object) -> bool:
    """Say whether a controller would start the pod again, or it has ended anyway."""
    over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return over or any(owner.get("controller") for owner in pod["metadata"].get("ownerReferences") or ())


async def _pods(kube: Kube, node: str) -> list[Object]:
    """Give the pods that must leave: neither DaemonSets', which ignore a cordon, nor static ones."""
    pods = await kube.list_("v1", "Pod", fields=f"spec.nodeName={node}")
    return [pod for pod in pods if not _stays(pod["metadata"])]


def _stays(meta: Mapping[str, Any]) -> bool:
    owners = {owner.get("kind") for owner in meta.get("ownerReferences") or () if owner.get("controller")}
    return MIRROR in (meta.get("annotations") or {}) or "DaemonSet" in owners


async def _evict(kube: Kube, pod: Object) -> str:
    """Ask for an eviction; give what a budget says against it, else nothing. Raises the errors of the API."""
    meta = pod["metadata"]
    path = (await kube.resource("v1", "Pod")).path(meta["name"], meta["namespace"], under="eviction")
    body = {
        "apiVersion": await _eviction_version(kube),
        "kind": "Eviction",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
    }
    code, text = await kube.send("POST", path, body=body)
    if code == TOO_MANY:
        causes = (status_of(text).get("details") or {}).get("causes") or ()
        detail = next((cause.get("message", "") for cause in causes), "")
        return f"{_title(pod)}: {detail or status_of(text).get('message', 'a PodDisruptionBudget forbids it')}"
    if code >= 300 and code != NOT_FOUND:  # noqa: PLR2004 - anything but a success
        raise refusal(f"eviction of {_title(pod)}", code, text)
    return ""


async def _eviction_version(kube: Kube) -> str:
    """Give the version of the Eviction kind: policy/v1 from Kubernetes 1.22 on, v1beta1 until 1.24."""
    minor = (await kube.version()).removeprefix("v").split(".")[1]
    return "policy/v1" if int("".join(filter(str.isdigit, minor)) or 0) >= 22 else "policy/v1beta1"  # noqa: PLR2004
