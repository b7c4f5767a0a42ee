"""GPUs of a SIMULATED cluster are divided, divided otherwise and made whole again by bootstraps and passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import yaml

from flows import drift_passes
from flows.drift_repair import _repair
from lab.simulated.lab import SimulatedLab
from lab.simulated.options import Options
from shipway.cluster_file import load_cluster
from shipway.kube.client import Kube
from shipway.step import Impact
from tasks.context import Run, open_run
from tasks.drift.report import findings_of
from tasks.findings import Finding
from tasks.report import Report
from tests.faults.plain import Line, Pool, brought_up, installed, plain_on

pytestmark = pytest.mark.long  # five bootstraps and six passes: 15 s of CPU
CLASSES = {
    "thirds": {"sharing": "mig-single", "mig": "all-3g.71gb"},  # two parts of each GPU
    "profiles": {"sharing": "mig-mixed", "mig": "all-2g.35gb"},  # three
}
GPU = {"mode": "cdi", "compute": "off", "classes": CLASSES}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "job", "namespace": "default"}}


class Lab:
    """A lab of one control plane and two hosts with two GPUs each, and the runs on it."""

    def __init__(self, lab: SimulatedLab) -> None:
        self.lab = lab
        self.data = yaml.safe_load(lab.cluster_file.read_text())

    def declare(self, **of: str) -> None:
        """Write the cluster file with these classes of hosts."""
        rows = [{**one, **({"gpu_class": of[one["name"]]} if one["name"] in of else {})} for one in self.data["hosts"]]
        self.lab.cluster_file.write_text(yaml.safe_dump({**self.data, "hosts": rows, "gpu": GPU}))

    async def bootstrap(self, **of: str) -> Report:
        """Declare, and bootstrap."""
        self.declare(**of)
        return await brought_up(self.lab, Line())

    async def passed(self, allow: Impact) -> dict[tuple[str, str], Finding]:
        """Return what a pass of drift repair told, by host and step."""
        Pool.lab, Pool.line = self.lab, Line()
        run = Run(load_cluster(self.lab.cluster_file), "drift")
        async with open_run(run):
            await drift_passes.look(run)
            if allow:
                await _repair(run, allow, "te.yaml", ask=False)
            else:
                drift_passes.explain(run, "te.yaml")
            return {(one.host, one.id): one for one in findings_of(run)}

    async def offered(self, node: str) -> dict[str, str]:
        """Return what of NVIDIA's a node offers."""
        assert self.lab.link.cluster is not None
        has = self.lab.link.cluster.world.store.get("nodes", "", node)["status"]["allocatable"]
        return {name: amount for name, amount in has.items() if name.startswith("nvidia.com/") and amount != "0"}

    def label(self, node: str) -> str | None:
        """Return the class that a node is labelled with."""
        assert self.lab.link.cluster is not None
        found: str | None = self.lab.link.cluster.world.store.get("nodes", "", node)["metadata"]["labels"].get(
            "shipway.dev/gpu-class"
        )
        return found

    async def api(self, act: Any) -> None:
        """Do something through the API, as somebody else would."""
        Pool.lab, Pool.line = self.lab, Line()
        run = Run(load_cluster(self.lab.cluster_file), "drift")
        async with open_run(run):
            await act(await run.kube())

    async def hold(self, node: str) -> None:
        """Start a pod without a controller that holds a GPU or part of a node, and wait until it runs."""
        container = {"name": "c", "image": "registry.example/x:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}

        async def runs(kube: Kube) -> bool:
            pod = await kube.get("v1", "Pod", "job", "default", fresh=True)
            return bool(pod and (pod.get("status") or {}).get("phase") == "Running")

        async def start(kube: Kube) -> None:
            await kube.apply({**POD, "spec": {"nodeName": node, "containers": [container]}})
            async with asyncio.timeout(20):
                while not await runs(kube):  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.05)

        await self.api(start)

    async def release(self) -> None:
        """End that pod."""
        await self.api(lambda kube: kube.delete("v1", "Pod", "job", "default", grace=0))


@pytest_asyncio.fixture
async def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> AsyncIterator[Lab]:
    """Yield bare hosts."""
    installed(monkeypatch)
    monkeypatch.setattr(drift_passes, "on", plain_on)
    options = Options(hosts=3, gpus=2, control_plane_gpus=0, profile="current", scale=0.01)
    async with SimulatedLab(tmp_path, options) as made:
        yield Lab(made)


async def test_gpus_are_divided_on_bare_hosts_and_in_service_around_a_pod_and_made_whole(lab: Lab) -> None:
    ran = await lab.bootstrap(te2="thirds")
    assert (ran.outcome, [str(one) for one in ran.errors]) == ("ok", [])
    assert (ran.gpus["expected"], ran.gpus["verified"]) == (6, 6)
    assert await lab.offered("te2") == {"nvidia.com/gpu": "4"}
    assert await lab.passed(Impact.NOTHING) == {}
    again = await lab.bootstrap(te2="thirds")
    assert [row.step for stage in again.stages for row in stage.rows if row.outcome == "changed"] == []

    await lab.hold("te2")
    held = await lab.bootstrap(te2="profiles", te3="thirds")
    rows = {(stage.host, row.id): row for stage in held.stages for row in stage.rows}
    why = "it is not so yet that the GPUs are divided as all-2g.35gb; GPUs are held by te2: default/job"
    assert why in rows["te2", "NodeClass te2"].have
    assert "divided as all-3g.71gb" in rows["te3", "NodeClass te3"].have
    assert (held.gpus["expected"], held.gpus["verified"]) == (6, 5)
    told = await lab.passed(Impact.SERVICE)
    assert {told[host, "GpusDivided"].action for host in ("te2", "te3")} == {"reported"}
    assert "--repair workloads" in told["te3", "GpusDivided"].command
    told = await lab.passed(Impact.WORKLOADS)
    assert told["te3", "GpusDivided"].action == "repaired", told
    assert told["te2", "GpusDivided"].action != "repaired", "nobody would make its pod anew"
    assert (lab.label("te2"), lab.label("te3")) == ("thirds", "thirds")
    assert await lab.offered("te3") == {"nvidia.com/gpu": "4"}
    await lab.release()
    told = await lab.passed(Impact.WORKLOADS)
    assert told["te2", "GpusDivided"].action == "repaired", told
    assert await lab.offered("te2") == {"nvidia.com/mig-2g.35gb": "6"}
    over = await lab.bootstrap(te2="profiles", te3="thirds")
    assert (over.outcome, over.errors) == ("ok", ())
    assert (over.gpus["expected"], over.gpus["verified"]) == (10, 10)

    lab.declare()
    told = await lab.passed(Impact.WORKLOADS)
    assert {told[host, "GpusWhole"].action for host in ("te2", "te3")} == {"repaired"}, told
    back = await lab.bootstrap()
    assert (back.outcome, back.errors) == ("ok", ())
    assert (back.gpus["expected"], back.gpus["verified"]) == (4, 4)
    assert await lab.passed(Impact.NOTHING) == {}
