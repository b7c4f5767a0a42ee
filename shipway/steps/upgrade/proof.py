"""The GPU proof of one host that takes no other pods yet: a pod for each of its GPUs really runs, each with its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from shipway.cluster.model import Cluster
from shipway.converge import wait_until
from shipway.errors import PostconditionFailed, Refused, ShipwayError
from shipway.gpu.chosen import VENDOR
from shipway.gpu.pods import NAMESPACE, AllRun, AllSpoke, NoPods, PodsGone, Said, TurnedAway, pod_with_gpu
from shipway.gpu.result import same_gpus
from shipway.kube.client import Kube, Object
from shipway.kube.manifests import render

SETTLE_SECONDS = 30.0  # a kubelet turns pods away until its device plugin has registered again
CLEAR_SECONDS = 120.0
STEP = "a pod for each of its GPUs runs, each with its own"


async def prove_host(
    kube: Kube, cluster: Cluster, node: str, count: int, on_wait: Callable[[str], None] = lambda _: None
) -> None:
    """Run a test pod for each GPU of a node, all at once, and take them away again.

    They are given to the node itself, not to the scheduler, which sends none to a closed one. Raises
    PostconditionFailed SHW-796 where one does not run, or two have the same GPU; what they are is then left to be seen.
    """
    names = [f"gpu-test-{node}-{number}" for number in range(1, count + 1)]
    heard: dict[str, Said] = {}
    compute = cluster.gpu.compute == "required"
    limit = cluster.gpu.verify_seconds
    await _clear(kube, names, on_wait)
    for obj in render("verify/namespace.yaml", namespace=NAMESPACE):
        await kube.apply(obj)
    await asyncio.gather(*(kube.apply(_pod(cluster, name, node)) for name in names))
    try:
        await _all_run(kube, cluster, node, names, on_wait)
        await wait_until(AllSpoke(names, compute, heard), kube, seconds=limit, every=1.0, on_wait=on_wait)
    except ShipwayError as error:
        raise _failed(node, error.message) from error
    faults = same_gpus(heard)
    faults += [
        f"{VENDOR.sample.name} failed in {name}" for name, said in heard.items() if compute and said.passed is False
    ]
    if faults:
        raise _failed(node, "; ".join(faults))
    await _clear(kube, names, on_wait)


def _failed(node: str, why: str) -> PostconditionFailed:
    fix = f"See `kubectl -n {NAMESPACE} get pods -o wide` and `shipway verify`; {node} stays closed until it is mended."
    return PostconditionFailed(f"not every GPU of {node} can be used: {why}", host=node, code="SHW-796", fix=fix)


def _pod(cluster: Cluster, name: str, node: str) -> Object:
    pod = pod_with_gpu(cluster, name)
    return {**pod, "spec": {**pod["spec"], "nodeName": node}}


async def _all_run(kube: Kube, cluster: Cluster, node: str, names: list[str], on_wait: Callable[[str], None]) -> None:
    """Wait until all run; one that the kubelet turned away is made anew while its plugin may be registering."""
    ends = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            return await wait_until(AllRun(names), kube, seconds=cluster.gpu.verify_seconds, every=1.0, on_wait=on_wait)
        except TurnedAway as refused:
            if time.monotonic() > ends:
                raise
            await _clear(kube, list(refused.pods), on_wait)
            await asyncio.sleep(2.0)
            await asyncio.gather(*(kube.apply(_pod(cluster, name, node)) for name in refused.pods))


async def _clear(kube: Kube, names: list[str], on_wait: Callable[[str], None]) -> None:
    """Delete test pods of these names, and wait until they are gone. Raises Refused where the namespace is not ours."""
    kube.forget()
    space = await kube.get("v1", "Namespace", NAMESPACE)
    if space is None:
        return
    if not _ours(space):
        fix = f"Rename or delete it: the GPU proof needs the namespace {NAMESPACE} for itself."
        raise Refused(f"namespace {NAMESPACE} was not made by Shipway", fix=fix)
    if space["metadata"].get("deletionTimestamp"):  # of a proof that has just ended
        await wait_until(PodsGone(), kube, seconds=CLEAR_SECONDS, every=1.0, on_wait=on_wait)
        return
    there = {one["metadata"]["name"] for one in await kube.list_("v1", "Pod", NAMESPACE)}
    await asyncio.gather(*(kube.delete("v1", "Pod", name, NAMESPACE, grace=1) for name in names if name in there))
    await wait_until(NoPods(names), kube, seconds=CLEAR_SECONDS, every=1.0, on_wait=on_wait)


async def take_namespace_away(kube: Kube) -> None:
    """Delete the namespace of the test pods where none of them is left; it is no reason to fail that it stays."""
    with contextlib.suppress(ShipwayError):
        kube.forget()
        space = await kube.get("v1", "Namespace", NAMESPACE)
        if space and _ours(space) and not await kube.list_("v1", "Pod", NAMESPACE):
            await kube.delete("v1", "Namespace", NAMESPACE)


def _ours(space: Object) -> bool:
    return (space["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "shipway"
