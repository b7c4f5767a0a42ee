"""The kubelets' requests for serving certificates, approved by the cluster file and by nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from shipway.cluster.model import Cluster, node_ip
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import few, nodes_by_name
from shipway.kube.serving_csr import Inventory, inventory, is_waiting, objections
from shipway.step import Drift, Impact

API, KIND = "certificates.k8s.io/v1", "CertificateSigningRequest"
REASON = "ApprovedByShipway"
OK = 200
FIELD = "serverTLSBootstrap"  # of KubeletConfiguration


def is_declared(cluster: Cluster) -> bool:
    """Say whether the cluster file has the kubelets ask for serving certificates."""
    return cluster.kubernetes.kubelet.get(FIELD) is True


def inventories(cluster: Cluster) -> dict[str, Inventory]:
    """Return by node what its host may be called: its name and its addresses."""
    return {host.name: inventory(host.name, host.address, node_ip(host)) for host in cluster.hosts}


@dataclass(frozen=True)
class ServingRequestsApproved:
    """No request for a kubelet's serving certificate waits that the cluster file vouches for."""

    impact: ClassVar[Impact] = Impact.FILES
    hosts: Mapping[str, Inventory] = field(hash=False)
    name: str = "the kubelets' requests for serving certificates are approved"

    async def check(self, on: Kube) -> Drift | None:
        """List what waits and may be approved."""
        good, _ = await judge_requests(on, self.hosts)
        return Drift(f"waiting: {few([_say(one) for one in good])}", "approved") if good else None

    async def apply(self, on: Kube) -> None:
        """Judge each anew, and approve it in the very form that was judged."""
        on.forget()
        good, _ = await judge_requests(on, self.hosts)
        for one in good:
            await on.patch(API, KIND, one["metadata"]["name"], approval(one), under="approval")


@dataclass(frozen=True)
class KubeletsAnswer:
    """The API reaches every kubelet: one that waits for its serving certificate lets nobody read a log."""

    nodes: tuple[str, ...]
    name: str = "the API reaches every kubelet"

    async def check(self, on: Kube) -> Drift | None:
        """Ask each for its health, through the API."""
        answers = await asyncio.gather(*(on.raw(f"/api/v1/nodes/{name}/proxy/healthz") for name in self.nodes))
        silent = [name for name, (code, _) in zip(self.nodes, answers, strict=True) if code != OK]
        return Drift(f"no answer from {few(silent)}", "an answer") if silent else None


def approval(request: Object) -> Object:
    """Return the change that approves a request, if nobody wrote it meanwhile."""
    condition = {
        "type": "Approved",
        "status": "True",
        "reason": REASON,
        "message": "its names and addresses are those of the host in the cluster file",
        "lastUpdateTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    version = request["metadata"].get("resourceVersion")
    return {"metadata": {"resourceVersion": version}, "status": {"conditions": [condition]}}


async def judge_requests(on: Kube, hosts: Mapping[str, Inventory]) -> tuple[list[Object], list[str]]:
    """Return the requests that wait and may be approved, and a sentence for each that is left, with why."""
    waiting = [one for one in await on.list_(API, KIND) if is_waiting(one)]
    nodes = await nodes_by_name(on) if waiting else {}
    now = datetime.now(UTC)
    judged = [(one, objections(one, hosts, nodes.keys(), now)) for one in waiting]
    left = [f"{_say(one)} is left: {'; '.join(why)}" for one, why in judged if why]
    return [one for one, why in judged if not why], left


def _say(request: Object) -> str:
    return f"{request['metadata']['name']} of {(request.get('spec') or {}).get('username', 'nobody')}"
