"""What a node's labels tell of its GPUs is what the driver tells, and nobody else's label is taken over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shipway.cluster.parts import GpuClass
from shipway.converge import converge, wait_until
from shipway.gpu.classes import LABEL
from shipway.gpu.nvidia.labels import FEATURES, TIMESTAMP, find_other_owner, labels_of
from shipway.kube.client import Object
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.gpu.labels import OURS, GpuLabels
from shipway.steps.kubernetes.nodes import NodeRegistered
from shipway.survey.gpu_health import labelled
from tasks import gates
from tests.gpu.test_proof import declared
from tests.places.kube import Place, gpu_host, place

# Printed by a host with two H200, driver 580.159.04 (2026-11-28); UUIDs and serial numbers are replaced.
REPORT = (Path(__file__).parents[2] / "lab" / "h200-nvidia-smi-q.txt").read_text(encoding="utf-8")
TURNS = GpuClass(sharing="time-slicing", replicas=4)
PRODUCT = "nvidia.com/gpu.product"


def test_the_labels_are_those_of_feature_discovery() -> None:
    assert labels_of(f"{REPORT}\n\n9.0\n9.0\n", None) == {
        "nvidia.com/gpu.family": "hopper",
        "nvidia.com/gpu.compute.major": "9",
        "nvidia.com/gpu.compute.minor": "0",
        "nvidia.com/gpu.product": "NVIDIA-H200",
        "nvidia.com/gpu.count": "2",
        "nvidia.com/gpu.memory": "143771",
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.capable": "true",
        "nvidia.com/cuda.driver-version.major": "580",
        "nvidia.com/cuda.driver-version.minor": "159",
        "nvidia.com/cuda.driver-version.revision": "04",
        "nvidia.com/cuda.driver-version.full": "580.159.04",
        "nvidia.com/cuda.runtime-version.major": "13",
        "nvidia.com/cuda.runtime-version.minor": "0",
        "nvidia.com/cuda.runtime-version.full": "13.0",
    }


@pytest.mark.parametrize(
    ("told", "family"),
    [
        *(("7.0", "volta"), ("7.5", "turing"), ("8.6", "ampere"), ("8.9", "ada-lovelace")),
        *(("10.3", "blackwell"), ("12.0", "blackwell"), ("6.1", "pascal"), ("99.1", "")),
    ],
)
def test_a_family_is_told_by_its_compute_capability_and_none_of_one_that_is_not_known(told: str, family: str) -> None:
    labels = labels_of(f"{REPORT}\n{told}\n{told}\n", None)
    assert labels.get("nvidia.com/gpu.family", "") == family
    assert f"{labels['nvidia.com/gpu.compute.major']}.{labels['nvidia.com/gpu.compute.minor']}" == told
    older = Output(2, 'Field "compute_cap" is not a valid field to query.\n', "")
    for untold in (labelled(Output(0, REPORT, ""), older), f"{REPORT}\n9.0\n8.0\n"):  # GPUs of two kinds
        assert not {key for key in labels_of(untold, None) if "compute" in key or "family" in key}
    assert labelled(Output(9, "NVIDIA-SMI has failed", ""), Output(0, told, "")) == ""


def test_shares_are_told_and_only_those_that_go_by_the_name_of_gpus_are_another_product() -> None:
    shared = labels_of(REPORT, TURNS)
    assert (shared["nvidia.com/gpu.replicas"], shared["nvidia.com/gpu.sharing-strategy"]) == ("4", "time-slicing")
    assert shared[PRODUCT] == "NVIDIA-H200"
    assert labels_of(REPORT, TURNS.model_copy(update={"rename": False}))[PRODUCT] == "NVIDIA-H200-SHARED"
    whole = labels_of(REPORT, GpuClass(sharing="exclusive"))
    assert whole == labels_of(REPORT, None)


def test_of_divided_and_of_different_gpus_only_that_is_told_which_is_known() -> None:
    divided = labels_of(REPORT.replace(": Disabled", ": Enabled"), GpuClass(sharing="mig-mixed"))
    assert divided["nvidia.com/mig.strategy"] == "mixed"
    assert not [key for key in divided if key.startswith("nvidia.com/gpu.")]
    first, _, second = REPORT.partition("GPU 00000000:00:07.0")
    other = second.replace("NVIDIA H200", "NVIDIA A10").replace("143771 MiB", "23028 MiB")
    mixed = labels_of(f"{first}GPU 00000000:00:07.0{other}", None)
    assert mixed["nvidia.com/gpu.count"] == "2"
    assert not {PRODUCT, "nvidia.com/gpu.memory"} & set(mixed)
    old = labels_of(REPORT.replace("MIG Mode", "No Mode").replace("580.159.04", "470.57"), None)
    assert old["nvidia.com/mig.capable"] == "false"
    assert old["nvidia.com/cuda.driver-version.full"] == "470.57"
    assert labels_of("NVIDIA-SMI has failed", None) == {}
    odd = labels_of(REPORT.replace("NVIDIA H200", "RTX 6000 (Ada) / 48GB"), None)
    assert odd[PRODUCT] == "RTX-6000-Ada-48GB"


@pytest.mark.parametrize(
    ("meta", "owner"),
    [
        ({"labels": {TIMESTAMP: "1"}}, "GPU feature discovery"),
        ({"annotations": {FEATURES: "cpu-cpuid.AVX,nvidia.com/gpu.count"}}, "node feature discovery"),
        ({"annotations": {FEATURES: "cpu-cpuid.AVX"}}, ""),
        ({}, ""),
    ],
)
def test_who_else_sets_labels_is_known(meta: dict[str, Any], owner: str) -> None:
    assert find_other_owner({"metadata": meta}) == owner


async def node(made: Place) -> Object:
    made.kube.forget()
    found = await made.kube.get("v1", "Node", "te2")
    assert found
    return found


async def brought(made: Place, step: GpuLabels) -> str:
    made.kube.forget()
    (result,) = await converge([step], made.kube, Impact.FILES)
    return result.outcome


async def test_labels_come_with_gpus_follow_the_driver_and_go_with_them() -> None:
    step = GpuLabels("te2", REPORT, {"turns": TURNS})
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2)], cluster=declared()) as made:
        await wait_until(NodeRegistered("te2"), made.kube, seconds=20, every=0.05)
        assert [await brought(made, step) for _ in range(2)] == ["changed", "ok"]
        labels = (await node(made))["metadata"]["labels"]
        assert labels_of(REPORT, None).items() <= labels.items()
        await made.kube.patch("v1", "Node", "te2", {"metadata": {"labels": {PRODUCT: "wrong", LABEL: "turns"}}})
        assert await brought(made, step) == "changed"  # by the class that the node is of, not the one it is to be of
        labels = (await node(made))["metadata"]["labels"]
        assert (labels[PRODUCT], labels["nvidia.com/gpu.replicas"]) == ("NVIDIA-H200", "4")
        gone = GpuLabels("te2", None)
        assert [await brought(made, gone) for _ in range(2)] == ["changed", "ok"]
        left = (await node(made))["metadata"]
        assert not labels_of(REPORT, None).keys() & left["labels"].keys()
        assert OURS not in left["annotations"]


async def test_a_program_that_writes_into_the_report_takes_no_label_away() -> None:
    named = (Path(__file__).with_name("recorded") / "h200-nvidia-smi-q-named.txt").read_text(encoding="utf-8")
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2)], cluster=declared()) as made:
        await wait_until(NodeRegistered("te2"), made.kube, seconds=20, every=0.05)
        await brought(made, GpuLabels("te2", REPORT))
        before = (await node(made))["metadata"]["labels"]
        assert before[PRODUCT] == "NVIDIA-H200"
        assert await brought(made, GpuLabels("te2", f"{named}\n\n9.0\n")) == "ok"
        assert (await node(made))["metadata"]["labels"] == before


async def test_what_somebody_else_has_set_stays() -> None:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 2)], cluster=declared()) as made:
        await wait_until(NodeRegistered("te2"), made.kube, seconds=20, every=0.05)
        await made.kube.patch("v1", "Node", "te2", {"metadata": {"labels": {PRODUCT: "by-hand"}}})
        step = GpuLabels("te2", REPORT, others=("nvidia.com/gpu.memory",))
        assert [await brought(made, step) for _ in range(2)] == ["changed", "ok"]
        labels = (await node(made))["metadata"]["labels"]
        assert labels[PRODUCT] == "by-hand"
        assert "nvidia.com/gpu.memory" not in labels
        await brought(made, GpuLabels("te2", None))
        assert (await node(made))["metadata"]["labels"][PRODUCT] == "by-hand"
        await made.kube.patch("v1", "Node", "te2", {"metadata": {"labels": {TIMESTAMP: "1"}}})
        assert await brought(made, step) == "ok"


def test_a_driver_that_tells_nothing_changes_no_label() -> None:
    cluster = declared()

    def of(host: str, gpus: int, report: str) -> list[GpuLabels]:
        steps = gates.node_steps(cluster, cluster.host(host), gpus, report)
        return [step for step in steps if isinstance(step, GpuLabels)]

    assert of("te2", 2, "") == []
    assert [step.report for step in of("te2", 2, REPORT)] == [REPORT]
    assert [step.report for step in of("te1", 0, "")] == [None]
