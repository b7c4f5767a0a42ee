"""Collectives across SIMULATED hosts: pods find each other by rank 0's id, a slow rail is named, nothing is left."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.gpu_figures import RAIL, Scene
from shipway.errors import PostconditionFailed
from shipway.facts.fact import Fact
from shipway.facts.files import Listing
from shipway.gpu.across.pods import SIZE, VERBS, find_rails, pod_of_ranks
from shipway.gpu.figures.judge import Row
from shipway.gpu.offers import Offer
from shipway.kube.manifests import add_on
from shipway.step import Impact
from tasks.figures.across import FIGURE, UNIT, measure_across
from tests.gpu.test_figures_stage import Staged
from tests.gpu.test_proof import furnished
from tests.places.kube import cluster_of, gpu_host, place

pytestmark = pytest.mark.usefixtures("_quick")
NAMES = ["te1", "te2", "te3", "te4", "te5"]


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.figures.work.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.across.pods.LOOK_SECONDS", 0.05)


@asynccontextmanager
async def staged(folder: Path, number: int = 4, **scenes: Scene) -> AsyncIterator[Staged]:
    """Yield a run on so many hosts of two GPUs, each of which was measured and is well."""
    made_of = [
        gpu_host(1, 0),
        *(gpu_host(at, 2, figures=scenes.get(f"te{at}", Scene())) for at in range(2, 2 + number)),
    ]
    hosts = [{"name": one.name, "address": one.address, "gpus": len(one.gpus)} for one in made_of]
    cluster = cluster_of(NAMES, hosts=hosts, gpu={"mode": "runtime_class", "verify_seconds": 20, "compute": "off"})
    async with place(hosts=made_of, cluster=cluster) as made:
        await furnished(made)
        stage = Staged(made, folder)
        stage.run.ready = {one.name for one in made_of[1:]}
        stage.run.figures.rows += [well(one) for one in sorted(stage.run.ready)]

        async def none(*facts: Fact[Any]) -> Any:
            assert facts == (Listing(VERBS),)
            return ()

        for bare in stage.bare.values():
            bare.read = none  # type: ignore[attr-defined]
        yield stage


def well(host: str, **changes: Any) -> Row:
    """Return the row of a figure that was measured."""
    return Row(**{"host": host, "uuid": "G", "who": "a GPU", "figure": "copy", "word": "good", "got": 4.0, **changes})


async def across(stage: Staged) -> list[Row]:
    """Run the stage; return the rows it made, each with a result of its own."""
    before = len(stage.run.figures.rows)
    results = await measure_across(stage.run, "gpu_across", "cluster")
    assert stage.pods() == 0
    rows = stage.run.figures.rows[before:]
    ends = {"good": "ok", "bad": "failed", "not judged": "unknown"}
    ended = ["ok" if row.word == "not judged" and row.got else ends[row.word] for row in rows]  # it has no equals
    assert [one.outcome for one in results] == ended
    assert {one.error.code for one in results if one.outcome == "failed" and one.error} <= {"SHW-645"}
    return rows


async def test_hosts_that_are_well_are_one_good_row_by_all_pairs_and_a_ring(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        (row,) = await across(stage)
        assert (row.word, row.figure, row.got, row.unit) == ("good", FIGURE, RAIL, UNIT)
        assert row.who == "4 hosts, 4 pairs"
        assert "3 rounds over 4 hosts of 2 GPUs" in stage.run.figures.notes[-1]


async def test_a_slow_rail_is_named_with_its_host_what_it_reached_and_what_is_to_be_done(tmp_path: Path) -> None:
    async with staged(tmp_path, te4=Scene(rails={1: 0.5})) as stage:
        (row,) = await across(stage)
        assert (row.host, row.who, row.word, row.got) == ("te4", "rail 1 of te4", "bad", RAIL / 2)
        assert row.said == "across hosts 20 GB/s per GPU: rail 1 of te4 is slow: 32 GB/s per GPU is wanted"


async def test_hosts_that_are_all_equally_slow_over_tcp_beside_rdma_devices_are_no_good_ones(tmp_path: Path) -> None:
    scenes = {f"te{at}": Scene(joined_by="socket", rails={0: 0.1, 1: 0.1}) for at in (2, 3, 4, 5)}
    async with staged(tmp_path, **scenes) as stage:
        (row,) = await across(stage)
        assert row.word == "good", "without RDMA devices TCP is what there is"
        assert "network socket" in stage.run.figures.notes[-1]

        async def some(*_: Fact[Any]) -> Any:
            return ("rdma_cm", "uverbs0")

        for name in ("te2", "te3"):
            stage.bare[name].read = some  # type: ignore[method-assign]
        stage.run.figures.rows = [well(name) for name in scenes]
        rows = await across(stage)
        assert [(one.who, one.word) for one in rows] == [("te2", "bad"), ("te3", "bad")]
        assert "over TCP" in rows[0].why
        for scene in scenes.values():
            scene.joined_by = "ib"
        stage.run.figures.rows = [well(name) for name in scenes]
        (row,) = await across(stage)
        assert row.word == "good"


async def test_a_host_with_a_bad_figure_of_its_own_takes_no_part(tmp_path: Path) -> None:
    async with staged(tmp_path, te3=Scene(rails={0: 0.1, 1: 0.1})) as stage:
        stage.run.figures.rows.append(well("te3", word="bad", why="slow"))
        (row,) = await across(stage)
        assert (row.word, row.who) == ("good", "3 hosts, 3 pairs")


async def test_two_hosts_are_measured_and_not_judged_for_they_have_no_equals(tmp_path: Path) -> None:
    async with staged(tmp_path, number=2) as stage:
        (row,) = await across(stage)
        assert (row.word, row.got) == ("not judged", RAIL)
        assert "no equals" in row.why
        assert any("no equals" in line for line in stage.run.warned)


async def test_without_nccl_in_the_image_nothing_is_known_of_the_hosts(tmp_path: Path) -> None:
    async with staged(tmp_path, te2=Scene(missing={"nccl"})) as stage:
        (row,) = await across(stage)
        assert (row.word, row.who) == ("not judged", "4 hosts")
        assert "libnccl" in row.why


async def test_one_host_and_a_plan_measure_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path, number=2) as stage:
        stage.run.figures.rows = [well("te2")]
        assert await measure_across(stage.run, "gpu_across", "cluster") == []
        stage.run.allow = Impact.NOTHING
        (result,) = await measure_across(stage.run, "gpu_across", "cluster")
        assert result.outcome == "unknown"


async def test_a_pod_is_on_the_hosts_network_and_gets_its_rdma_devices_where_there_are_any(tmp_path: Path) -> None:
    async with staged(tmp_path, number=2) as stage:
        options = {"seconds": "0", "collective": str(SIZE), "only": "0", "ranks": "2", "rank": "0"}
        plain = pod_of_ranks(stage.made.cluster, "a", "te2", 2, options)["spec"]
        assert plain["hostNetwork"]
        assert "securityContext" not in plain["containers"][0]
        assert plain["containers"][0]["command"][-5:] == [f"{key}={value}" for key, value in options.items()]
        assert plain["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
        with_verbs = pod_of_ranks(stage.made.cluster, "a", "te2", 2, options, verbs=True)["spec"]
        assert with_verbs["containers"][0]["securityContext"] == {"privileged": True}
        assert {"name": "verbs", "hostPath": {"path": VERBS}} in with_verbs["volumes"]
        offered = pod_of_ranks(stage.made.cluster, "a", "te2", 2, options, verbs=True, offered=("rdma/rails",))["spec"]
        assert offered["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2", "rdma/rails": "1"}
        assert offered["containers"][0]["securityContext"] == {"capabilities": {"add": ["IPC_LOCK"]}}
        assert VERBS not in str(offered)
        claimed = pod_of_ranks(
            stage.made.cluster, "a", "te2", 2, options, resource="gpu.nvidia.com", offered=("rdma/rails",)
        )["spec"]["containers"][0]["resources"]
        assert claimed == {"claims": [{"name": "gpus"}], "limits": {"rdma/rails": "1"}}


def test_the_add_on_offers_rails_by_the_name_that_pods_ask_for() -> None:
    config, plugin = add_on("rdma-shared-device-plugin")
    (row,) = json.loads(config["data"]["config.json"])["configList"]
    status = {
        "allocatable": {"cpu": "8", "nvidia.com/gpu": "2", f"rdma/{row['resourceName']}": "110", "rdma/gone": "0"}
    }
    assert find_rails({"metadata": {"name": "te2"}, "status": status}) == ("rdma/rails",)
    assert find_rails({"metadata": {"name": "te2"}}) == ()
    (volume,) = [one for one in plugin["spec"]["template"]["spec"]["volumes"] if one["name"] == "config"]
    assert volume["configMap"]["name"] == config["metadata"]["name"]


async def test_no_pod_is_privileged_on_a_node_whose_rails_are_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}

    async def keep(_on: Any, pods: Any, **_: Any) -> None:
        made.update({pod["metadata"]["name"]: pod["spec"]["containers"][0] for pod in pods})

    async def look(hosts: Any, _counts: int, measure: Any) -> None:
        for name in hosts:
            await measure.__self__._make(name, name, {})
        raise PostconditionFailed("enough was seen")

    async def nodes(_on: Any) -> dict[str, Any]:
        return {"te2": {"status": {"allocatable": {"rdma/rails": "110"}}}, "te3": {}}

    async def verbs(*_: Any) -> Any:
        return ("uverbs0",)

    async with staged(tmp_path, number=2) as stage:
        for bare in stage.bare.values():
            bare.read = verbs  # type: ignore[attr-defined]
        monkeypatch.setattr("tasks.figures.across.nodes_by_name", nodes)
        monkeypatch.setattr("shipway.gpu.across.pods.apply_pods", keep)
        monkeypatch.setattr("tasks.figures.across.search", look)
        await across(stage)
    assert made["te2"]["resources"]["limits"]["rdma/rails"] == "1"
    assert {name: (one.get("securityContext") or {}).get("privileged", False) for name, one in made.items()} == {
        "te2": False,
        "te3": True,
    }


async def test_each_host_is_asked_in_the_way_that_its_node_offers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}

    async def offers(_on: Any, counts: Any) -> dict[str, Offer]:
        return {name: Offer(amounts={"gpu.nvidia.com" if name == "te2" else "nvidia.com/gpu": 2}) for name in counts}

    async def keep(_on: Any, pods: Any, **_: Any) -> None:
        made.update({pod["metadata"]["name"]: pod["spec"]["containers"][0]["resources"] for pod in pods})

    async def look(hosts: Any, _counts: int, measure: Any) -> None:
        for name in hosts:
            await measure.__self__._make(name, name, {})
        raise PostconditionFailed("enough was seen")

    async with staged(tmp_path, number=2) as stage:
        monkeypatch.setattr("tasks.figures.across.see_offers", offers)
        monkeypatch.setattr("shipway.gpu.across.pods.apply_pods", keep)
        monkeypatch.setattr("tasks.figures.across.search", look)
        await across(stage)
    assert made == {"te2": {"claims": [{"name": "gpus"}]}, "te3": {"limits": {"nvidia.com/gpu": "2"}}}
