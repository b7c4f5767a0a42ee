"""Steps that take a node out of its cluster: closed, drained, deleted, and nothing left under its name."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.converge import wait_until
from shipway.errors import DeadlineExceeded, Refused, ShipwayError
from shipway.gpu.holders import gpu_holders
from shipway.gpu.jobs import given_up
from shipway.kube.client import Kube, Object
from shipway.kube.drain import OnWait, cordon, drain, may_drain, movable, uncordon
from shipway.kube.errors import KindMissing
from shipway.kube.nodes import few, nodes_by_name
from shipway.step import Drift, Impact

WHY = "removal by Shipway"
DETACH_SECONDS = 180.0
NODE_USER = "system:node:"
CORDON = "node.kubernetes.io/unschedulable"  # the taint of a closed node
AFFINITY = ("crd.projectcalico.org/v1", "BlockAffinity")


def _unheard(sentence: str) -> None:
    """Hear a wait's sentence, and do nothing."""


async def _none(on: Kube) -> Sequence[str]:
    """Keep no pod."""
    del on
    return ()


async def _always() -> None:
    """Let a node be deleted whenever it is drained."""


@dataclass(frozen=True)
class NodeClosed:
    """A node takes no new pods; one that somebody else closed stays theirs."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    node: str
    why: str = WHY

    @property
    def name(self) -> str:
        """The node."""
        return f"node {self.node} takes no new pods"

    async def check(self, on: Kube) -> Drift | None:
        """Read whether it is cordoned; one that is gone takes none."""
        node = (await nodes_by_name(on)).get(self.node)
        return Drift("open", "cordoned") if node and not (node.get("spec") or {}).get("unschedulable") else None

    async def apply(self, on: Kube) -> None:
        """Cordon it, with a note that it was us."""
        await cordon(on, self.node, self.why)


@dataclass(frozen=True)
class NodeDrained:
    """No pod that a drain would move is on a node.

    `kept` tells at that moment which pods are not to be evicted yet; without `reopens` a drain that does not end leaves
    the node closed. Pods that tolerate the cordon and come once the others have left stay: they would come again.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    node: str
    seconds: float = 600.0
    local_data: Collection[str] | None = ()
    evict_gpu_pods: bool = False
    on_wait: OnWait = field(default=_unheard, compare=False, repr=False)
    again: str = "remove again"
    kept: Callable[[Kube], Awaitable[Sequence[str]]] = field(default=_none, compare=False, repr=False)
    reopens: bool = True
    drained: asyncio.Event = field(default_factory=asyncio.Event, compare=False, repr=False)  # all that were there left

    @property
    def name(self) -> str:
        """The node."""
        return f"node {self.node} is drained"

    async def check(self, on: Kube) -> Drift | None:
        """List the pods that would be evicted. Raises Refused SHW-337, SHW-703 where some forbid it."""
        if self.node not in await nodes_by_name(on):
            return None
        leaving = [
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in await self._may_leave(on)
            if not (self.drained.is_set() and tolerates_cordon(pod))
        ]
        return Drift(f"{len(leaving)} pods: {few(sorted(leaving))}", "none") if leaving else None

    async def apply(self, on: Kube) -> None:
        """Evict them as disruption budgets allow; a node whose drain does not end is opened again, if we closed it.

        Raises Refused as `check` does, DeadlineExceeded SHW-336 with the pods that are left.
        """
        try:
            await self._may_leave(on)
            await drain(on, self.node, seconds=self.seconds, on_wait=self.on_wait, local_data=self.local_data)
            self.drained.set()
        except BaseException as error:
            if self.reopens:
                with contextlib.suppress(ShipwayError):  # what ended the drain is the news
                    await uncordon(on, self.node)
            if isinstance(error, DeadlineExceeded):
                state = "is as open as before" if self.reopens else "stays closed"
                error.fix = f"Do what each pod's reason asks for, then {self.again}; the node {state}."
            raise

    async def _may_leave(self, on: Kube) -> list[Object]:
        on.forget()  # a job may have started since
        if left := await self.kept(on):
            fix = f"Let their owners end them, then {self.again}."
            raise Refused(f"pods are waited for on {self.node}: {few(left)}", host=self.node, code="SHW-795", fix=fix)
        return await may_leave(on, self.node, local_data=self.local_data, evict_gpu_pods=self.evict_gpu_pods)


def tolerates_cordon(pod: Object) -> bool:
    """Say whether a pod tolerates a cordon: it would come again after each eviction, and goes with the node.

    The cordon's taint has no value, and its effect is NoSchedule (Kubernetes documentation, "Taints and Tolerations").
    """
    return any(
        one.get("operator") == "Exists"
        and one.get("key") in (CORDON, None, "")
        and one.get("effect") in ("NoSchedule", None, "")
        for one in (pod.get("spec") or {}).get("tolerations") or ()
    )


async def refuse_in_use(on: Kube, node: str, own: Collection[str] = ()) -> None:
    """Refuse to go on with a node that was opened, or that pods came to, since it was closed and emptied.

    Pods of the namespaces `own` and those that tolerate a cordon do not count; a node that is gone is none. Raises
    Refused SHW-714 with what was seen.
    """
    on.forget()
    found = (await nodes_by_name(on)).get(node)
    if found is None:
        return
    came = [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in await on.list_("v1", "Pod", fields=f"spec.nodeName={node}")
        if movable(pod) and not tolerates_cordon(pod) and pod["metadata"]["namespace"] not in own
    ]
    opened = [] if (found.get("spec") or {}).get("unschedulable") else ["it was opened"]
    if seen := opened + ([f"pods came to it ({few(sorted(came))})"] if came else []):
        message = f"the node is not as it was left, closed and without pods: {', and '.join(seen)}"
        raise Refused(message, host=node, code="SHW-714", fix="Find who opens it, then run again: it is drained anew.")


async def may_leave(on: Kube, node: str, *, local_data: Collection[str] | None, evict_gpu_pods: bool) -> list[Object]:
    """Return the pods that a drain would evict, unless some forbid it. Raises Refused SHW-337 and SHW-703."""
    if not evict_gpu_pods and (holders := await gpu_holders(on, node, besides=await given_up(on, node))):
        raise refuse_holders(node, holders)
    try:
        return await may_drain(on, node, local_data=local_data)
    except Refused as error:
        error.fix = (
            "Let their owners end them, or delete them yourself, then run again; where every emptyDir may be lost, set "
            "repair.delete_emptydir_data: true."
        )
        raise


def refuse_holders(node: str, holders: Sequence[str]) -> Refused:
    """Return the refusal for pods that hold GPUs of a node."""
    message = f"pods hold GPUs of {node}: {few(holders)}"
    fix = "Wait for their end, or end them; where they may be broken off: --evict-gpu-pods (budgets are kept)."
    return Refused(message, host=node, code="SHW-703", fix=fix)


@dataclass(frozen=True)
class VolumesDetached:
    """No volume is attached to a node: one that is detached from a running host by force may lose writes."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    node: str

    @property
    def name(self) -> str:
        """The node."""
        return f"no volume is attached to node {self.node}"

    async def check(self, on: Kube) -> Drift | None:
        """List the attachments."""
        found = await _list(on, "storage.k8s.io/v1", "VolumeAttachment")
        names = [one["metadata"]["name"] for one in found if one["spec"].get("nodeName") == self.node]
        return Drift(f"{len(names)}: {few(names)}", "none") if names else None

    async def apply(self, on: Kube) -> None:
        """Wait for the driver, which detaches what no pod uses any more. Raises DeadlineExceeded SHW-713."""
        try:
            await wait_until(self, on, seconds=DETACH_SECONDS)
        except DeadlineExceeded as error:
            fix = f"See `kubectl get volumeattachments` and the log of the volumes' CSI driver on {self.node}."
            error.explain(f"volumes are still attached: {error.message}", code="SHW-713", fix=fix, retry=True)
            raise


async def _list(on: Kube, api_version: str, kind: str) -> list[Object]:
    """Return all objects of a kind, none where the API does not know it."""
    try:
        return await on.list_(api_version, kind)
    except KindMissing:
        return []


@dataclass(frozen=True)
class NodeDeleted:
    """A node is not in the cluster any more."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    node: str
    still: Callable[[], Awaitable[None]] = field(default=_always, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The node."""
        return f"node {self.node} is not in the cluster"

    async def check(self, on: Kube) -> Drift | None:
        """Look for it."""
        return Drift("there", "deleted") if self.node in await nodes_by_name(on) else None

    async def apply(self, on: Kube) -> None:
        """Delete this very node: one that joins under its name meanwhile is not meant."""
        found = await on.get("v1", "Node", self.node, fresh=True)
        if found is not None:
            await self.still()
            await on.delete("v1", "Node", self.node, uid=found["metadata"]["uid"])


@dataclass(frozen=True)
class NothingOfNode:
    """No object is left under a removed node's name: its lease, its CSI node, its certificate requests, its addresses.

    What it offered to claims goes as well.

    A host that joins under the name again finds a cluster that never knew it.
    """

    impact: ClassVar[Impact] = Impact.FILES
    node: str

    @property
    def name(self) -> str:
        """The node."""
        return f"no object of node {self.node} is left"

    async def _left(self, on: Kube) -> list[tuple[str, str, str, str]]:
        """Return apiVersion, kind, name and namespace of each."""
        left = []
        for api, kind, space in (
            ("coordination.k8s.io/v1", "Lease", "kube-node-lease"),
            ("storage.k8s.io/v1", "CSINode", ""),
        ):
            try:
                if await on.get(api, kind, self.node, space):
                    left.append((api, kind, self.node, space))
            except KindMissing:
                continue
        api, kind = "certificates.k8s.io/v1", "CertificateSigningRequest"
        left += [
            (api, kind, one["metadata"]["name"], "") for one in await _list(on, api, kind) if asks_for(one, self.node)
        ]
        left += [
            (*AFFINITY, one["metadata"]["name"], "")
            for one in await _list(on, *AFFINITY)
            if (one.get("spec") or {}).get("node") == self.node
        ]
        api, kind = "resource.k8s.io/v1", "ResourceSlice"  # what its drivers of claims have offered
        left += [
            (api, kind, one["metadata"]["name"], "")
            for one in await _list(on, api, kind)
            if (one.get("spec") or {}).get("nodeName") == self.node
        ]
        return left

    async def check(self, on: Kube) -> Drift | None:
        """Look for each."""
        left = await self._left(on)
        return Drift(few([f"{kind}/{name}" for _, kind, name, _ in left]), "none") if left else None

    async def apply(self, on: Kube) -> None:
        """Delete what the cluster has not taken away by itself, unless a node of the name is there again."""
        on.forget()
        if self.node in await nodes_by_name(on):
            raise Refused(f"node {self.node} is in the cluster again", code="SHW-702", fix="Run again: it is drained.")
        for api, kind, name, space in await self._left(on):
            await on.delete(api, kind, name, space)


def asks_for(request: Object, node: str) -> bool:
    """Say whether a certificate request is one of a node's kubelet: its own, or the first one, by a bootstrap token."""
    from cryptography import x509  # noqa: PLC0415 - 60 ms of import that most runs need not pay
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    spec: dict[str, Any] = request.get("spec") or {}
    if spec.get("username") == f"{NODE_USER}{node}":
        return True
    try:
        asked = x509.load_pem_x509_csr(base64.b64decode(str(spec.get("request", "")), validate=True))
    except (binascii.Error, ValueError):
        return False
    names = asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return bool(names) and names[0].value == f"{NODE_USER}{node}"
