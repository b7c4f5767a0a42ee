"""A collective across hosts: a pod on each takes all its GPUs and the host's network, and one brings them together.

No MPI, no sshd and no exec: the pod of rank 0 says in its log by what the others find it, and they get that as they
are made (NCCL's unique id). Where a host has InfiniBand or RoCE devices, its pod gets them: from the plugin that offers
them, or where none does by being privileged.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shipway.cluster.model import Cluster
from shipway.converge import wait_until
from shipway.errors import DeadlineExceeded, PostconditionFailed
from shipway.gpu.across.search import Hosts, Rails
from shipway.gpu.chosen import VENDOR
from shipway.gpu.figures.model import has_ended, read_heard
from shipway.gpu.measuring import pod_that_measures
from shipway.gpu.pods import NAMESPACE, NoPods, apply_pods
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object
from shipway.kube.pod_states import events_about, find_trouble
from shipway.redact import keep_ends, redact
from shipway.step import Drift

SIZE = 256 << 20  # bytes: over 10 Gb/s it takes 20 s, and over 400 Gb/s it is large enough to tell a slow adapter
START_SECONDS = 300.0  # the image is there: pods of it have just measured these nodes
GONE_SECONDS = 60.0
WORK_SECONDS = 240.0  # the probe gives a collective 180 s
LOOK_SECONDS = 1.0
SHOWN = 300
VERBS = "/dev/infiniband"
RAILS = "rdma/"  # rdmaHcaResourcePrefix of k8s-rdma-shared-dev-plugin (pkg/resources/resources_manager.go)
# Rings alone, so that what a host sends is what the whole reaches; one algorithm for all, so that rates are equals.
SETTINGS = {"NCCL_ALGO": "Ring", "NCCL_NVLS_ENABLE": "0"}
_ID = re.compile(r'"kind": "id", "id": "([0-9a-f]{256})"')


def pod_of_ranks(
    cluster: Cluster,
    name: str,
    node: str,
    count: int,
    options: Mapping[str, str],
    *,
    resource: str = "",
    verbs: bool = False,
    offered: Sequence[str] = (),
    vendor: Vendor = VENDOR,
) -> Object:
    """Return a pod that takes all `count` GPUs of a node and joins a collective as these options of the probe say.

    It is on the host's network. It asks for one of each resource by which devices that speak RDMA are `offered`; with
    `verbs` it gets them where none is, which Kubernetes gives to privileged pods alone.
    """
    words = [f"{key}={value}" for key, value in options.items()]
    pod = pod_that_measures(cluster, name, node, count, options=words, resource=resource, vendor=vendor)
    spec = pod["spec"]
    spec["hostNetwork"], spec["dnsPolicy"] = True, "ClusterFirstWithHostNet"
    container = spec["containers"][0]
    container["env"] = [
        *(container.get("env") or []),
        *({"name": key, "value": value} for key, value in SETTINGS.items()),
    ]
    if offered:
        container["resources"].setdefault("limits", {}).update(dict.fromkeys(offered, "1"))
        container["securityContext"] = {"capabilities": {"add": ["IPC_LOCK"]}}  # an adapter works on locked memory
    elif verbs:
        container["securityContext"] = {"privileged": True}
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), {"name": "verbs", "mountPath": VERBS}]
        spec["volumes"] = [*(spec.get("volumes") or []), {"name": "verbs", "hostPath": {"path": VERBS}}]
    return pod


def find_rails(node: Object) -> tuple[str, ...]:
    """Return the resources by which a plugin offers a node's RDMA devices (`rdma/`, the shared device plugin's own)."""
    offered = (node.get("status") or {}).get("allocatable") or {}
    return tuple(sorted(key for key, amount in offered.items() if key.startswith(RAILS) and str(amount) != "0"))


@dataclass(frozen=True)
class _Spoke:
    """Pods have said what `done` looks for; one that cannot run ends the wait."""

    pods: Mapping[str, str] = field(hash=False)  # name: node
    done: Callable[[str], bool] = field(hash=False)
    name: str
    logs: dict[str, str] = field(default_factory=dict, hash=False)

    async def check(self, on: Kube) -> Drift | None:
        """Look at the pods; raises PostconditionFailed where one of them ended without it, or is gone."""
        pods, events = await asyncio.gather(on.list_("v1", "Pod", NAMESPACE), on.list_("v1", "Event", NAMESPACE))
        there = {pod["metadata"]["name"]: pod for pod in pods if pod["metadata"]["name"] in self.pods}
        phases = {name: str((pod.get("status") or {}).get("phase", "")) for name, pod in there.items()}
        left = [name for name in self.pods if not self.done(self.logs.get(name, ""))]
        running = [name for name in left if phases.get(name) == "Running"]
        self.logs.update(zip(running, await asyncio.gather(*(on.logs(NAMESPACE, one) for one in running)), strict=True))
        waiting = [name for name in left if not self.done(self.logs.get(name, ""))]
        for name in waiting:
            node, phase = self.pods[name], phases.get(name, "")
            trouble = redact(find_trouble(there[name], events_about(there[name], events))) if name in there else ""
            if name not in there or phase in ("Failed", "Succeeded"):
                raise PostconditionFailed(
                    f"the pod on {node} is {phase or 'gone'}: {keep_ends(trouble, SHOWN)}", host=node
                )
        if not waiting:
            return None
        first = waiting[0]
        return Drift(f"{len(waiting)} of {len(self.pods)} at work, one on {self.pods[first]}", "all have said it")


@dataclass
class Collectives:
    """Collectives over GPUs of these nodes, each of which has `counts` of them; `verbs` are nodes with RDMA devices.

    `asks` is by node the resource that a pod asks for; of others that of the declared mode. `rails` are by node
    those by which a plugin offers its RDMA devices.

    `why` has the reason for each that did not work, `networks` what each node used.
    """

    kube: Kube
    cluster: Cluster
    counts: Mapping[str, int]
    verbs: frozenset[str] = frozenset()
    on_wait: Callable[[str], None] = lambda _: None
    vendor: Vendor = VENDOR
    asks: Mapping[str, str] = field(default_factory=dict)
    rails: Mapping[str, Sequence[str]] = field(default_factory=dict)
    why: dict[Hosts, str] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)  # by node: what NCCL says that it used last
    made: int = 0

    async def measure(self, hosts: Hosts, rails: Rails) -> float | None:
        """Return GB/s of each rail of a collective over these rails of these hosts; None where it did not work.

        Raises PostconditionFailed where its pods cannot run, or lack NCCL: then nothing is known of the hosts.
        """
        self.made += 1
        pods = {f"gpu-across-{self.made}-{rank}": node for rank, node in enumerate(hosts)}
        shown = f"{hosts[0]} and {hosts[1]}" if len(hosts) == 2 else f"{len(hosts)} hosts"  # noqa: PLR2004 - a pair
        self.on_wait(f"waiting for a collective of {shown} over {len(rails)} GPUs of each")
        try:
            said = await self._run(pods, rails)
        except DeadlineExceeded as error:
            self.why[hosts] = f"it did not end: {error.message}"
            return None
        finally:
            await self._delete(pods)
        heard = {node: read_heard(node, "pod", redact(said[name])) for name, node in pods.items()}
        for node, one in heard.items():
            if one.ring is None or not one.ring.right:
                silent = "; ".join(f"{missing.why}" for missing in one.silent)
                self.why[hosts] = f"{node}: {silent or 'the sum was wrong'}"
                if any(missing.missing for missing in one.silent):  # a library, not the hosts
                    raise PostconditionFailed(self.why[hosts], host=node)
                return None
        self.networks |= {node: one.ring.network for node, one in heard.items() if one.ring}
        slowest = min(one.ring.bandwidth for one in heard.values() if one.ring)
        return slowest / len(rails)

    async def _run(self, pods: Mapping[str, str], rails: Rails) -> Mapping[str, str]:
        """Start rank 0's pod, give its id to the others, and return what all have said."""
        first, *others = pods
        options = {
            "seconds": "0",
            "collective": str(SIZE),
            "only": ",".join(map(str, rails)),
            "ranks": str(len(pods) * len(rails)),
        }
        await self._make(first, pods[first], options | {"rank": "0"})
        told = _Spoke({first: pods[first]}, lambda log: bool(_ID.search(log)) or has_ended(log), "rank 0 says its id")
        await self._wait(told, START_SECONDS)
        found = _ID.search(told.logs[first])
        if found:
            ranks = {name: {"rank": str(at * len(rails)), "id": found[1]} for at, name in enumerate(others, 1)}
            await asyncio.gather(*(self._make(name, pods[name], options | more) for name, more in ranks.items()))
        asked = pods if found else {first: pods[first]}
        ended = _Spoke(asked, has_ended, "every rank has ended")
        await self._wait(ended, START_SECONDS + WORK_SECONDS)
        return {name: ended.logs.get(name, "") for name in pods}

    async def _wait(self, for_: _Spoke, seconds: float) -> None:
        try:
            await wait_until(for_, self.kube, seconds=seconds, every=LOOK_SECONDS)
        except DeadlineExceeded as error:
            if idle := [node for name, node in for_.pods.items() if name not in for_.logs]:
                why = f"the pod on {idle[0]} did not start: {error.message}"
                raise PostconditionFailed(why, host=idle[0]) from error
            raise

    async def _make(self, name: str, node: str, options: Mapping[str, str]) -> None:
        pod = pod_of_ranks(
            self.cluster,
            name,
            node,
            self.counts[node],
            options,
            resource=self.asks.get(node, ""),
            verbs=node in self.verbs,
            offered=self.rails.get(node, ()),
            vendor=self.vendor,
        )
        await apply_pods(self.kube, [pod], vendor=self.vendor)

    async def _delete(self, pods: Mapping[str, str]) -> None:
        """Delete the pods and wait until they are gone: the next round needs their GPUs."""
        await asyncio.gather(*(self.kube.delete("v1", "Pod", name, NAMESPACE, grace=0) for name in pods))
        with contextlib.suppress(DeadlineExceeded):
            await wait_until(NoPods(list(pods)), self.kube, seconds=GONE_SECONDS, every=LOOK_SECONDS)
