"""Before a control plane leaves: the kubelets of all others reach the API without it."""

from __future__ import annotations

import asyncio

from shipway.cluster.model import node_ip
from shipway.errors import Refused, ShipwayError
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import few, nodes_by_name
from shipway.kube.status import why_not_ready
from shipway.step import Drift
from shipway.steps.endpoint.keeps_way import Ways, find_lost
from shipway.steps.kubernetes.may_go import is_control_plane
from tasks.context import Run

AT_ONCE = 50


def _serves(node: Object) -> bool:
    return is_control_plane(node) and not why_not_ready(node)


class OthersKeepWay:
    """No other kubelet asks the API by the control plane that leaves alone.

    Where pods hold GPUs a kubelet is not restarted when the endpoint is moved, and asks by the one before.
    """

    name = "every other kubelet reaches the API without the control plane"

    def __init__(self, run: Run, host: str) -> None:
        self._run, self._host = run, host

    async def check(self, on: Kube) -> Drift | None:
        """Ask every other host of the file that is a node. Raises Refused SHW-717, with each that would be lost.

        One that does not answer is left out only where its node is not Ready: it has no way now.
        """
        cluster, nodes, gate = self._run.cluster, await nodes_by_name(on), asyncio.Semaphore(AT_ONCE)
        others = [one.name for one in cluster.hosts if one.name != self._host and one.name in nodes]
        left = [one for one in cluster.control_planes if one.name != self._host]
        stay = {node_ip(one) for one in left if one.name in nodes and _serves(nodes[one.name])}
        ways = Ways(
            gone=frozenset({node_ip(cluster.host(self._host)), *map(node_ip, left)} - stay),
            stay=frozenset(stay),
            endpoint=cluster.endpoint.rpartition(":")[0].strip("[]"),
            ports=(cluster.kubernetes.api_port, int(cluster.endpoint.rpartition(":")[2])),
            follows=bool(cluster.api_name),
            proxied=bool(cluster.api_name) and len(left) > 1,
            hosts=frozenset(one.name for one in cluster.hosts),
        )

        async def ask(name: str) -> str:
            session = self._run.session(name)
            session.forget()
            try:
                async with gate:
                    return await find_lost(session, ways)
            except ShipwayError as error:
                return "" if why_not_ready(nodes[name]) else f"it could not be asked: {error.message}"

        lost = dict(zip(others, await asyncio.gather(*map(ask, others)), strict=True))
        if said := [f"{name}: {why}" for name, why in lost.items() if why]:
            message = f"kubelets would lose their way to the API with it: {few(said)}"
            fix = (
                f"`shipway move-endpoint {self._run.file or 'FILE'}` restarts such a kubelet, once no pod holds a GPU "
                "there or with --beside-gpu-pods. Bring up a host that could not be asked; then run again."
            )
            raise Refused(message, host=self._host, code="SHW-717", fix=fix)
        return None
