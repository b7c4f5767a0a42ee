"""A real API server, scheduler and kubelet (1.34 and later) with our claims; NVIDIA's driver is not here.

Its slices are written by hand, in its account's name where that is what is tried; no pod gets a GPU by them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from shipway.cluster.model import Cluster
from shipway.cluster_file import load_cluster
from shipway.converge import converge, wait_until
from shipway.errors import Refused
from shipway.gpu.claims import see_devices
from shipway.gpu.classes import LABEL
from shipway.gpu.counts import GpusAllocatable, find_lacking
from shipway.gpu.evidence import count_taken
from shipway.gpu.holders import gpu_holders
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.pods import NAMESPACE, ExtraWaits, apply_pods, pod_with_gpu
from shipway.gpu.proof import clear, make_space
from shipway.host.ssh import Pool
from shipway.known_failures.catalogue import diagnose
from shipway.kube.client import Kube
from shipway.step import Drift, Impact, StepResult
from shipway.steps.gpu.classes import KINDS, OF_CLAIMS, ClassesGone, NodeClass
from tasks.stages import device_plugin
from tests.lab.conftest import Site

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
SINCE = 34
EXPECTED = {"w1": 2, "w2": 2}
ACCOUNT = "nvidia-dra-driver-gpu"
BOUND = f"""
apiVersion: v1
kind: Pod
metadata: {{name: bound, namespace: kube-system}}
spec:
  nodeName: w1
  serviceAccountName: {ACCOUNT}
  terminationGracePeriodSeconds: 1
  containers: [{{name: c, image: "busybox:1", command: [sleep, "86400"]}}]
"""
TRAIN = """
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: train, namespace: default}
spec: {spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.nvidia.com}}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: train, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  resourceClaims: [{name: gpu, resourceClaimTemplateName: train}]
  containers: [{name: c, image: "busybox:1", command: [sleep, "86400"], resources: {claims: [{name: gpu}]}}]
"""


def slice_of(node: str) -> dict[str, Any]:
    devices = [
        {
            "name": f"gpu-{at}",
            "attributes": {"type": {"string": "gpu"}, "uuid": {"string": f"GPU-{node}-{at}"}},
            "capacity": {"memory": {"value": "140Gi"}},
        }
        for at in range(2)
    ]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "gpu.nvidia.com", "nodeName": node, "pool": pool, "devices": devices}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-x"},
        "spec": spec,
    }


@asynccontextmanager
async def api_of(cluster: Cluster) -> AsyncIterator[Kube]:
    pool = Pool()
    try:
        kube = await Kube.connect(pool.host(cluster.target(cluster.host("cp1"))), cluster)
        yield kube
        await kube.close()
    finally:
        await pool.close()


@dataclass(frozen=True)
class Placed:
    """These pods have a node."""

    names: tuple[str, ...] = field(hash=False)
    namespace: str
    name: str = "the scheduler has given every pod a node"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for them."""
        pods = {one["metadata"]["name"]: one for one in await on.list_("v1", "Pod", self.namespace)}
        left = [name for name in self.names if not (pods.get(name) or {"spec": {}})["spec"].get("nodeName")]
        return Drift(f"{left} wait", "placed") if left else None


@dataclass(frozen=True)
class Lacking:
    """The nodes offer nothing: their plugin has gone, and no slice is there."""

    name: str = "nothing is offered"

    async def check(self, on: Kube) -> Drift | None:
        """Count."""
        lacking = await find_lacking(on, EXPECTED)
        return None if lacking == {"w1": "w1 has 0 of 2", "w2": "w2 has 0 of 2"} else Drift(str(lacking), "0")


@dataclass(frozen=True)
class Explained:
    """The kubelet has told why a pod's claim is not prepared, in words that the catalogue knows."""

    pod: str
    name: str = "the kubelet tells why the claim is not prepared"

    async def check(self, on: Kube) -> Drift | None:
        """Read its events."""
        pod = await on.get("v1", "Pod", self.pod, "default")
        said = await on.events_of(pod or {})
        known = [one for one in said if (entry := diagnose(one)) and entry.code == "SHW-658"]
        return None if known else Drift(f"{said}", "SHW-658")


async def step_by_step(kube: Kube, steps: Any) -> list[StepResult]:
    kube.forget()
    return await converge(steps, kube, Impact.WORKLOADS)


async def over(kube: Kube, cluster: Cluster) -> None:
    """Bring the driver's objects, then the nodes, and take the plugin away."""
    driver = device_plugin.steps(cluster)
    results = await step_by_step(kube, driver)
    assert [one.outcome for one in results] == ["ok", "changed", "ok", "ok"], results
    results = await step_by_step(kube, driver)
    assert {one.outcome for one in results} == {"ok"}, "what was applied is no drift on this API"
    results = await step_by_step(kube, [NodeClass(name, "dra") for name in EXPECTED])
    assert [one.outcome for one in results] == ["changed", "changed"], results
    await wait_until(Lacking(), kube, seconds=60, every=1)
    results = await step_by_step(kube, device_plugin.leftovers(cluster))
    assert [one.outcome for one in results] == ["ok", "changed"], results


def write_as_the_driver(site: Site) -> None:
    """Write slices with a token of the driver's account that is bound to a pod on w1: w1's alone are taken."""
    site.on("cp1", f"cat > /tmp/bound.yaml <<'END'\n{BOUND}\nEND\n")
    site.kubectl("apply -f /tmp/bound.yaml")
    for node in EXPECTED:
        site.on("cp1", f"cat > /tmp/{node}.yaml <<'END'\n{yaml.safe_dump(slice_of(node))}\nEND\n")
    made = f"create token {ACCOUNT} -n kube-system --bound-object-kind Pod --bound-object-name bound"
    token = site.kubectl(made).strip()
    server = site.kubectl("config view --minify -o jsonpath={.clusters[0].cluster.server}").strip()
    way = f"kubectl --kubeconfig /dev/null --server {server} --certificate-authority /etc/kubernetes/pki/ca.crt"
    try:
        said = site.on("cp1", f"{way} --token {token} create -f /tmp/w2.yaml 2>&1 || true")
        assert "the driver of a node writes the slices of that node alone" in said, said
        said = site.on("cp1", f"{way} --token {token} create -f /tmp/w1.yaml 2>&1 || true")
        assert "created" in said, said
    finally:
        site.kubectl("-n kube-system delete pod bound --grace-period=0 --force")
    site.kubectl("apply -f /tmp/w2.yaml")


async def claimed(kube: Kube, cluster: Cluster) -> None:
    """Have somebody hold a GPU by a claim, and our test pods the rest: one more stays Pending."""
    kube.forget()
    assert await find_lacking(kube, EXPECTED) == {}
    assert {name: len(some) for name, some in (await see_devices(kube)).items()} == EXPECTED
    for obj in yaml.safe_load_all(TRAIN):
        await kube.apply(obj)
    await wait_until(Placed(("train",), "default"), kube, seconds=60, every=1)
    kube.forget()
    place = (await kube.get("v1", "Pod", "train", "default") or {})["spec"]["nodeName"]
    (holder,) = await gpu_holders(kube, place)
    assert holder.startswith("default/train (claim gpu: gpu-"), holder
    assert (await count_taken(kube, EXPECTED))[place] == 1
    await clear(kube, print)
    await make_space(kube)
    names = ("gpu-test-1", "gpu-test-2", "gpu-test-3")
    await apply_pods(kube, [pod_with_gpu(cluster, name) for name in names])
    await wait_until(Placed(names, NAMESPACE), kube, seconds=60, every=1)
    await apply_pods(kube, [pod_with_gpu(cluster, "gpu-test-extra")])
    await wait_until(ExtraWaits(NVIDIA, "gpu-test-extra", "gpu.nvidia.com"), kube, seconds=60, every=1)
    kube.forget()
    extra = await kube.get("v1", "Pod", "gpu-test-extra", NAMESPACE)
    print([one.get("message") for one in (extra or {})["status"]["conditions"]])
    assert (await count_taken(kube, EXPECTED))[place] == 1, "the proof's own are nobody's"
    await wait_until(Explained("train"), kube, seconds=90, every=2)
    print(await kube.events_of(await kube.get("v1", "Pod", "train", "default") or {}))


async def back(site: Site, kube: Kube, cluster: Cluster) -> None:
    """Go back to the plugin: held while the claim is, and nothing of the driver is left afterwards."""
    kube.forget()
    place = (await kube.get("v1", "Pod", "train", "default") or {})["spec"]["nodeName"]
    await step_by_step(kube, device_plugin.steps(cluster))
    (held,) = await step_by_step(kube, [NodeClass(place, None)])
    assert held.outcome == "drifted", held
    assert "default/train (claim gpu: gpu-" in str(held.drift)
    for space, name in (("default", "train"), *((NAMESPACE, f"gpu-test-{one}") for one in (1, 2, 3, "extra"))):
        site.kubectl(f"-n {space} delete pod {name} --grace-period=0 --force --wait=false")
    site.kubectl("-n default delete resourceclaimtemplate train")
    await clear(kube, print)
    await wait_until(NoClaims(), kube, seconds=60, every=1)
    results = await step_by_step(kube, [*(NodeClass(name, None) for name in EXPECTED), ClassesGone(())])
    assert [one.outcome for one in results] == ["changed", "changed", "changed"], results
    kube.forget()
    assert await see_devices(kube) == {}
    for api, kind in (*OF_CLAIMS, *KINDS):
        assert await kube.list_(api, kind, labels=f"{LABEL}=dra") == [], kind
    await wait_until(GpusAllocatable(EXPECTED), kube, seconds=120, every=2)


class NoClaims:
    """No claim is left of pods that are gone: the cluster's own controllers take them away."""

    name = "no claim is left"

    async def check(self, on: Kube) -> Drift | None:
        """Count them."""
        left = await on.list_("resource.k8s.io/v1", "ResourceClaim")
        return Drift(f"{len(left)}", "none") if left else None


def test_a_real_api_scheduler_and_kubelet_take_what_is_ours_and_speak_the_words_that_we_know(drifting: Site) -> None:
    before = load_cluster(drifting.cluster_file())
    if before.kubernetes.minor < (1, SINCE):
        with pytest.raises(Refused, match="too old for GPUs by claims"):
            load_cluster(drifting.cluster_file(gpu={"mode": "dra", "compute": "off"}))
        drifting.cluster_file()
        return
    claims = before.model_copy(update={"gpu": before.gpu.model_copy(update={"mode": "dra"})})

    async def go() -> None:
        async with api_of(before) as kube:
            await over(kube, claims)
            await asyncio.to_thread(write_as_the_driver, drifting)
            await claimed(kube, claims)
            await back(drifting, kube, before)

    asyncio.run(go())
    ran = drifting.run()
    assert ran.code == 0, ran.output
    assert (ran.report["gpus"]["outcome"], ran.report["gpus"]["verified"]) == ("ok", 4)
