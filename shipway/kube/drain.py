"""Cordon, drain, uncordon: pods leave a node by the eviction API, so that disruption budgets are kept.

Which pods leave, stay, or forbid the drain is decided as `kubectl drain --ignore-daemonsets` decides it (its source,
pkg/drain/filters.go). The pods that leave are listed once, by UID: what comes to the node afterwards tolerates the
cordon, would come again after every eviction, and is left alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from shipway.errors import ApiUnavailable, DeadlineExceeded, Refused, ShipwayError
from shipway.kube.calls import SUCCESS
from shipway.kube.client import Kube, Object
from shipway.kube.errors import CONFLICT, NOT_FOUND, refusal, status_of
from shipway.kube.owners import controller_of
from shipway.retry import patiently
from shipway.rules.compatibility import minor_of

CORDONED = "shipway.dev/cordoned-by"  # an annotation: who cordoned the node, why, since when
MIRROR = "kubernetes.io/config.mirror"  # a static pod's image in the API; only its file ends it
OURS = ("app.kubernetes.io/managed-by", "shipway")  # a label of the proof's namespace and pods (manifests/verify)
PROOFS = "shipway-verify"  # that namespace
TOO_MANY = 429  # a disruption budget that allows no more, or an API server that has too much to do
EVERY_SECONDS = 2.0
SHOWN = 6
OnWait = Callable[[str], None]


async def cordon(kube: Kube, node: str, why: str) -> bool:
    """Keep new pods off a node, and write on it who did so and why; return whether it was open before.

    A node that somebody else closed stays theirs: nothing is written, and `uncordon` leaves it closed. Raises Refused
    where there is no such node, and the errors of the API.
    """

    async def close() -> bool:
        found = await _node(kube, node)
        if (found.get("spec") or {}).get("unschedulable"):
            return bool(cordon_note(found))
        since = datetime.now(UTC).isoformat(timespec="seconds")
        note = json.dumps({"by": "shipway", "why": why, "since": since})
        await _write(kube, found, {CORDONED: note}, unschedulable=True)
        return True

    return await patiently(close)


async def uncordon(kube: Kube, node: str) -> None:
    """Open a node that Shipway closed; one that somebody else closed, or opened meanwhile, only loses our note.

    Raises Refused where there is no such node, and the errors of the API.
    """

    async def open_again() -> None:
        found = await _node(kube, node)
        closed = (found.get("spec") or {}).get("unschedulable")
        if CORDONED in (found["metadata"].get("annotations") or {}):
            await _write(kube, found, {CORDONED: None}, unschedulable=None if cordon_note(found) else closed)

    await patiently(open_again)


async def _node(kube: Kube, name: str) -> Object:
    found = await kube.get("v1", "Node", name, fresh=True)
    if found is None:
        raise Refused(f"there is no node {name}", host=name, code="SHW-337", fix="See `kubectl get nodes`.")
    return found


async def _write(kube: Kube, node: Object, notes: Mapping[str, str | None], *, unschedulable: bool | None) -> None:
    """Write annotations and whether the node is open, only if nobody wrote the node since it was read."""
    meta = {"annotations": dict(notes), "resourceVersion": node["metadata"]["resourceVersion"]}
    changes = {"metadata": meta, "spec": {"unschedulable": unschedulable}}
    await kube.patch("v1", "Node", node["metadata"]["name"], changes)


async def find_left_cordoned(kube: Kube) -> dict[str, str]:
    """Return the nodes that Shipway cordoned and did not open again, with the reason: their run was killed."""
    nodes = {node["metadata"]["name"]: cordon_note(node) for node in await kube.list_("v1", "Node")}
    return {name: note for name, note in nodes.items() if note}


def cordon_note(node: Mapping[str, Any]) -> str:
    """Return why and since when Shipway keeps a node closed; empty where it does not, or a person does by now.

    Both are written at once. Who closed it after our note was left has written that alone, which the API keeps in its
    managedFields (Kubernetes API reference, ObjectMeta); where it keeps none, the note counts.
    """
    text = (node["metadata"].get("annotations") or {}).get(CORDONED)
    if not text or not (node.get("spec") or {}).get("unschedulable"):
        return ""
    entries = [one.get("fieldsV1") or {} for one in node["metadata"].get("managedFields") or ()]
    closing = [one for one in entries if "f:unschedulable" in (one.get("f:spec") or {})]
    if closing and not any(_names_note(one) for one in closing):
        return ""
    try:
        note = json.loads(text)
        return f"{note['why']} (since {note['since']})"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "a note that cannot be read"


def _names_note(fields: Mapping[str, Any]) -> bool:
    return f"f:{CORDONED}" in ((fields.get("f:metadata") or {}).get("f:annotations") or {})


def left_note(node: Mapping[str, Any]) -> str:
    """Return our note on a node that it does not keep closed: a person opened it after a killed run; else empty."""
    text = str((node["metadata"].get("annotations") or {}).get(CORDONED) or "")
    return "" if cordon_note(node) else text


@dataclass
class _Drain:
    """A drain under way: the pods that have not left yet by UID, and what the API last said about each."""

    kube: Kube
    node: str
    waiting: dict[str, Object]
    accepted: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)

    async def step(self) -> None:
        """Evict what is not on its way yet, then see what has left. Raises the errors of the API."""
        asked = [uid for uid in self.waiting if uid not in self.accepted]
        answers = await asyncio.gather(*(_evict(self.kube, self.waiting[uid]) for uid in asked), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer  # once all have ended: no eviction is sent after the drain was given up
        self.held = {uid: str(answer) for uid, answer in zip(asked, answers, strict=True) if answer}
        self.accepted |= set(asked) - set(self.held)
        self.kube.forget()
        there = {pod["metadata"]["uid"]: pod for pod in await _pods(self.kube, self.node)}
        self.waiting = {uid: there[uid] for uid in self.waiting if uid in there}

    def said(self) -> str:
        """Return which pods are left, each with what keeps it."""
        pods = sorted((_title(pod), self.held.get(uid) or _ending(pod)) for uid, pod in self.waiting.items())
        more = f"; and {len(pods) - SHOWN} more" if len(pods) > SHOWN else ""
        return "; ".join(f"{name}: {why}" for name, why in pods[:SHOWN]) + more


async def drain(
    kube: Kube, node: str, *, seconds: float, on_wait: OnWait = lambda _: None, local_data: Collection[str] | None = ()
) -> list[str]:
    """Evict the pods of a cordoned node; return their names once all are gone.

    `local_data` names the namespaces whose pods may lose their emptyDir volumes; None means all. Raises Refused
    SHW-337 as `may_drain` does, and DeadlineExceeded SHW-336 after `seconds` with the pods that are left, each with
    what keeps it: what the API says (a budget only where the API names one), or that it is still ending.
    """
    leaving = await may_drain(kube, node, local_data=local_data)
    ends, said = time.monotonic() + seconds, ""
    work = _Drain(kube, node, {pod["metadata"]["uid"]: pod for pod in leaving})
    while work.waiting:
        trouble = ""
        try:
            await work.step()
        except ShipwayError as error:
            if not error.may_retry:
                raise
            trouble = error.message  # an API server that restarts is asked again until the time is over
        line = f"{len(work.waiting)} of {len(leaving)} pods left: {trouble or work.said()}"
        if work.waiting and line != said:
            said = line
            on_wait(f"waiting until {node} is drained: {line}")
        if work.waiting and time.monotonic() > ends:
            fix = "Do what each pod's reason asks for, then repair again; the node is as open as before."
            message = f"the drain of {node} was given up after {seconds:.0f} s, {line}"
            raise DeadlineExceeded(message, host=node, code="SHW-336", fix=fix)
        if work.waiting:
            await asyncio.sleep(EVERY_SECONDS)
    if back := sorted(_title(pod) for pod in await _pods(kube, node) if movable(pod)):
        on_wait(f"pods that tolerate the cordon came to {node}, and are left there: {', '.join(back[:SHOWN])}")
    return sorted(_title(pod) for pod in leaving)


async def may_drain(
    kube: Kube, node: str, *, local_data: Collection[str] | None = (), besides: Collection[str] = ()
) -> list[Object]:
    """Return the pods that a drain would evict, but for those (namespace/name) that are over by then; changes nothing.

    Mirror pods and those of DaemonSets stay; pods that have ended leave whoever owned them, and so do those of a proof
    of Shipway's own whose run was killed (by their namespace and label). Raises Refused SHW-337 naming the pods that a
    drain would destroy something of: those that nothing would start again, and those with data in an emptyDir, outside
    the namespaces `local_data` (None: all may lose it).
    """
    kube.forget()
    leaving, refused = [], []
    for pod in await _pods(kube, node):
        if MIRROR in (pod["metadata"].get("annotations") or {}) or _title(pod) in besides:
            continue
        owner = controller_of(pod)
        if _over(pod) or (pod["metadata"]["namespace"] == PROOFS and is_ours(pod)):
            leaving.append(pod)
        elif owner.get("kind") == "DaemonSet":
            if await kube.get("apps/v1", "DaemonSet", owner["name"], pod["metadata"]["namespace"]) is None:
                refused.append(f"{_title(pod)} (its DaemonSet {owner['name']} is gone: nothing would start it again)")
        elif not owner:
            refused.append(f"{_title(pod)} (nothing would start it again)")
        elif _local(pod) and local_data is not None and pod["metadata"]["namespace"] not in local_data:
            refused.append(f"{_title(pod)} (its emptyDir {', '.join(_local(pod))} would be lost)")
        else:
            leaving.append(pod)
    if refused:
        more = f" and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        fix = (
            f"Let their owners end them, or delete them yourself, then repair {node} again; where every emptyDir may "
            "be lost, set repair.delete_emptydir_data: true."
        )
        message = f"a drain of {node} would destroy {', '.join(refused[:SHOWN])}{more}"
        raise Refused(message, host=node, code="SHW-337", fix=fix)
    return leaving


def _title(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_ours(obj: Mapping[str, Any]) -> bool:
    """Say whether an object is one that Shipway made for a proof, and nobody misses: by the label of its manifests."""
    return (obj["metadata"].get("labels") or {}).get(OURS[0]) == OURS[1]


def _local(pod: Object) -> list[str]:
    """Return the names of a pod's emptyDir volumes."""
    volumes = pod["spec"].get("volumes") or ()
    return [str(volume.get("name", "")) for volume in volumes if "emptyDir" in volume]


def movable(pod: Object) -> bool:
    """Return whether a drain would move a pod: it runs, and no file of its host and no DaemonSet keeps it there."""
    static = MIRROR in (pod["metadata"].get("annotations") or {})
    return not (static or _over(pod) or controller_of(pod).get("kind") == "DaemonSet")


def _ending(pod: Object) -> str:
    """Return how far a pod is that was evicted and is still there."""
    meta = pod["metadata"]
    if not meta.get("deletionTimestamp"):
        return "not asked to leave yet"
    finalizers = f", finalizers {', '.join(meta['finalizers'])}" if meta.get("finalizers") else ""
    return f"is ending until {meta['deletionTimestamp']}{finalizers}"


async def _pods(kube: Kube, node: str) -> list[Object]:
    return await kube.list_("v1", "Pod", fields=f"spec.nodeName={node}")


async def _evict(kube: Kube, pod: Object) -> str:
    """Ask for the eviction of this very pod; return what keeps from it, else nothing. Raises the errors of the API.

    The UID goes along: a StatefulSet's next pod has the same name, and was not meant.
    """
    meta = pod["metadata"]
    if meta.get("deletionTimestamp"):
        return ""
    path = (await kube.resource("v1", "Pod")).path(meta["name"], meta["namespace"], under="eviction")
    body = {
        "apiVersion": await _eviction_version(kube),
        "kind": "Eviction",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
        "deleteOptions": {"preconditions": {"uid": meta["uid"]}},
    }
    try:
        code, text = await kube.send("POST", path, body=body)
    except ApiUnavailable as error:
        return error.message  # asked again: an eviction that took effect shows in the next look
    status = status_of(text)
    causes = {str(cause.get("reason")): str(cause.get("message", "")) for cause in _causes(status)}
    if code == TOO_MANY:
        busy = f"the API asks to wait ({status.get('message') or 'too many requests'})"
        return causes.get("DisruptionBudget") or busy
    if code == NOT_FOUND or "NamespaceTerminating" in causes:
        return ""  # it has left, or its whole namespace is going
    if code == CONFLICT:  # another pod has its name by now, which the next look shows; or somebody wrote it meanwhile
        return f"the API says: {status.get('message')}"
    if code not in SUCCESS:
        raise refusal(f"eviction of {_title(pod)}", code, text)
    return ""


def _causes(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((status.get("details") or {}).get("causes") or ())


async def _eviction_version(kube: Kube) -> str:
    """Return the version of the Eviction kind: policy/v1 from Kubernetes 1.22 on, v1beta1 until 1.24."""
    return "policy/v1" if minor_of((await kube.version()).removeprefix("v")) >= (1, 22) else "policy/v1beta1"
