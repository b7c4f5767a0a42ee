"""GPUs are divided while no device plugin is there, and a node's class follows them, never the other way round."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.converge import wait_until
from shipway.errors import Blocked
from shipway.gpu.classes import LABEL, sharing_of
from shipway.gpu.counts import GpusAllocatable
from shipway.gpu.offers import read_offer
from shipway.rules.gpu_classes import CHANGING
from shipway.stage import StageName
from shipway.step import Impact
from shipway.steps.gpu.class_held import find_held
from shipway.steps.gpu.classes import NodeClass, PluginGone
from shipway.steps.gpu.mig import GpusDivided, GpusWhole
from tasks.drift.divided import without_plugin
from tasks.findings import DriftPass, Finding
from tasks.gates import node_steps
from tasks.stage_result import StageResult, StepRow
from tasks.stages import nvidia_runtime
from tests.gpu.test_classes import CLASSES, brought, declared, hold, hosts, started
from tests.places.kube import Place, place

LAYOUT = {"sharing": "mig-single", "mig": "all-3g.71gb"}
NOT_SO = "it is not so yet that the GPUs are divided as all-3g.71gb"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.steps.gpu.classes.LOOK_SECONDS", 0.05)
    monkeypatch.setitem(CLASSES, "parts", LAYOUT)


def into_parts() -> Any:
    """Return a cluster whose te2 is to be of a class that MIG divides."""
    return declared("parts", mode="cdi")


async def class_now(made: Place, node: str = "te2") -> str | None:
    found = await made.kube.get("v1", "Node", node, fresh=True)
    assert found
    label: str | None = found["metadata"]["labels"].get(LABEL)
    return label


def finding(step: GpusDivided, **more: Any) -> Finding:
    texts = ("otherwise (MIG is Disabled)", step.layout, Impact.WORKLOADS.name)
    return Finding("te2", StageName.NVIDIA_RUNTIME, step.name, *texts, id=step.id, **more)


def drifted(cluster: Any, *findings: Finding) -> Any:
    """Return as much of a drift pass as knows these findings of te2."""
    return SimpleNamespace(cluster=cluster, mode="drift", results=[], drift=DriftPass(findings={"te2": [*findings]}))


async def test_a_node_keeps_its_class_until_its_gpus_are_divided_and_says_so() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi")) as made:
        await started(made)
        after = into_parts()
        (step,) = [one for one in node_steps(after, after.host("te2"), 2, "", NOT_SO) if isinstance(one, NodeClass)]
        assert await step.hold(made.kube) == NOT_SO
        drift = await step.check(made.kube)
        assert drift
        assert drift.have == f"whole GPUs; it stays so for now: {NOT_SO}"
        held = await find_held(made.kube, after, {"te2": NOT_SO})
        assert {node: one.drift for node, one in held.items()} == {"te2": drift}
        with pytest.raises(Blocked, match=NOT_SO):
            await step.apply(made.kube)
        assert await class_now(made) is None


@pytest.mark.parametrize("divided", [True, False])
async def test_no_plugin_is_there_while_gpus_are_divided_and_the_class_follows(*, divided: bool) -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi")) as made:
        await started(made)
        after = into_parts()
        made.kube.forget()
        await brought(made, declared(None, "parts", mode="cdi"))  # the plugin of the class is declared, of another host
        run = drifted(after, finding(GpusDivided("all-3g.71gb")))
        async with without_plugin(run, made.kube, "te2"):
            assert await class_now(made) == CHANGING
            assert await PluginGone("te2").check(made.kube) is None
            if divided:
                run.drift.findings["te2"] = [finding(GpusDivided("all-3g.71gb"), action="repaired")]
        assert await class_now(made) == ("parts" if divided else None)
        found = await made.kube.get("v1", "Node", "te2", fresh=True)
        assert found
        assert "shipway.dev/gpu-class-before" not in (found["metadata"].get("annotations") or {})


async def test_a_class_whose_plugin_is_not_declared_yet_is_not_gone_over_to() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi")) as made:
        await started(made)
        run = drifted(into_parts(), finding(GpusDivided("all-3g.71gb")))
        async with without_plugin(run, made.kube, "te2"):
            run.drift.findings["te2"] = []
        assert await class_now(made) is None, "the part of the cluster brings it, and then the class"


async def test_gpus_that_pods_hold_are_not_divided_and_nothing_else_takes_a_plugin_away() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi")) as made:
        await started(made)
        await hold(made, "stays", "nvidia.com/gpu")  # a pod that no drain takes
        run = drifted(into_parts(), finding(GpusDivided("all-3g.71gb")))
        async with without_plugin(run, made.kube, "te2"):
            assert await class_now(made) is None
        ((key, why),) = run.drift.withheld.items()
        assert key == ("te2", "GpusDivided")
        assert why.startswith("its GPUs stay as they are: GPUs are held by te2: default/stays")
        other = drifted(
            into_parts(), finding(GpusDivided("x")).__class__("te2", "s", "swap is off", "on", "off", "FILES")
        )
        async with without_plugin(other, made.kube, "te2"):
            assert await class_now(made) is None


async def test_a_turn_that_was_killed_is_made_good_by_the_next_run() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi")) as made:
        await started(made)
        node = NodeClass("te2", "parts")
        assert await node.leave(made.kube) is None  # and no more of this run
        made.kube.forget()
        with pytest.raises(Blocked, match=NOT_SO):
            await NodeClass("te2", "parts", unready=NOT_SO).apply(made.kube)
        assert await class_now(made) is None, "its GPUs are whole: it has its plugin back"


def test_a_run_knows_by_its_own_rows_whether_gpus_are_divided() -> None:
    cluster = into_parts()
    spec = cluster.host("te2")

    def told(mode: str, rows: list[StepRow], *findings: Finding) -> str:
        results = [StageResult("te2", StageName.NVIDIA_RUNTIME, "ok", tuple(rows))]
        drift = DriftPass(findings={"te2": [*findings]})
        run = SimpleNamespace(cluster=cluster, mode=mode, results=results, drift=drift)
        return nvidia_runtime.undivided(cast("Any", run), spec)

    step = GpusDivided("all-3g.71gb")
    assert told("bootstrap", [StepRow(step.name, "drifted", id=step.id)]) == NOT_SO
    assert told("bootstrap", [StepRow(step.name, "changed", id=step.id)]) == ""
    assert told("bootstrap", []) == "", "nobody has looked"
    assert told("drift", [StepRow(step.name, "drifted", id=step.id)], finding(step, action="repaired")) == ""
    assert told("drift", [], finding(step)) == NOT_SO
    whole = GpusWhole()
    cluster = declared(mode="cdi")
    spec = cluster.host("te2")
    assert told("drift", [], finding(whole)) == f"it is not so yet that {whole.name}"


async def test_one_part_on_each_gpu_and_a_plugin_that_has_not_seen_parts_are_told_by_what_the_host_lists() -> None:
    log = 'Running with config:\n{"version": "v1", "flags": {"migStrategy": "single"}}'
    has = {"nvidia.com/gpu": "2"}
    node = {"metadata": {}, "status": {"allocatable": has, "capacity": has}}
    by_class = sharing_of(into_parts().gpu.classes["parts"])
    one_each = read_offer(node, 2, log, 2)
    assert (one_each.way, one_each.differs(by_class), one_each.wanted(2, 2)) == ("MIG", "", 2)
    older = read_offer(node, 2, log, 4)  # it started before they were divided
    assert (older.way, older.places, older.wanted(2, 4)) == ("MIG", 2, 4)
    assert "and not by MIG as declared" in read_offer(node, 2, log).differs(by_class), "no GPU is divided"
    async with place(hosts=hosts(), cluster=declared(mode="cdi")) as made:
        await started(made)
        label = {"metadata": {"labels": {"nvidia.com/mig.strategy": "single"}}}
        await made.kube.patch("v1", "Node", "te2", label)
        made.kube.forget()
        assert await GpusAllocatable({"te2": 2}, parts={"te2": 0}).check(made.kube) is None
        drift = await GpusAllocatable({"te2": 2}, parts={"te2": 4}, declared={"te2": by_class}).check(made.kube)
        assert drift


async def test_a_plugin_is_gone_before_the_turn_goes_on() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi")) as made:
        await started(made)
        node = NodeClass("te2", None)
        earlier = await node.leave(made.kube)
        await wait_until(PluginGone("te2"), made.kube, seconds=1, every=0.05)
        await node.come_back(made.kube, earlier, as_declared=True)
        assert await class_now(made) is None
