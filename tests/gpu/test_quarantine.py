"""A node with an unfit GPU is kept from new pods by our mark alone, never too many at once, and opened by a proof."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.gpu_figures import Scene
from lab.simulated.kube.hosts import SimpleHost
from shipway.cluster.parts import Figures
from shipway.converge import converge
from shipway.errors import Blocked, DeadlineExceeded
from shipway.gpu.figures.history import Record as Reached
from shipway.gpu.figures.judge import Row, judge
from shipway.gpu.figures.measured import MEASURED, find_measured, keep_measured, read_measured
from shipway.gpu.figures.model import Heard, Measured, Silent
from shipway.gpu.health.model import Answer, Fault, GpuHealth
from shipway.gpu.health.quarantine import (
    NOTE,
    TAINT,
    find_again,
    list_strange,
    mark,
    most_quarantined,
    read_quarantine,
    unmark,
)
from shipway.gpu.pods import NAMESPACE
from shipway.gpu.proof import prove
from shipway.gpu.proven import PROVEN, read_record
from shipway.step import Impact
from shipway.steps.gpu.sound import GpusSound, ReleasedByProof, UnfitKeptFromPods, find_new, since_proof
from shipway.steps.kubernetes.health_cluster import NodeTaints
from tasks.drift.gpu_evidence import keep_evidence
from tasks.figures.kept import keep_history, read_history
from tests.gpu.test_proof import EXPECTED, declared, furnished, hold_a_gpu
from tests.places.kube import Place, gpu_host, place

pytestmark = pytest.mark.usefixtures("_quick")
UUIDS = [uuid for uuid, _ in gpu_host(2, 2).gpus]
OTHER = {"key": "site.example/maintenance", "value": "x", "effect": "NoSchedule"}


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.SETTLE_SECONDS", 1.0)
    monkeypatch.setattr("shipway.gpu.proof.DECIDE_SECONDS", 2.0)
    monkeypatch.setattr("shipway.gpu.measuring.LOOK_SECONDS", 0.05)


def hosts() -> list[SimpleHost]:
    return [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]


def seen(*faults: Fault) -> tuple[GpuHealth, ...]:
    """Return the two GPUs of te2, the second with these faults."""
    return tuple(GpuHealth(uuid, "1", f"0000:0{at}:00.0", "A", faults if at else ()) for at, uuid in enumerate(UUIDS))


def again(*gpus: GpuHealth) -> Callable[[], Awaitable[tuple[GpuHealth, ...]]]:
    """Return a look at te2's host after the load, which shows these GPUs: its two, and well, where none is given."""

    async def look() -> tuple[GpuHealth, ...]:
        return gpus or seen()

    return look


ROWS = Fault("Remapped Rows", "Pending", "reset")
XID = Fault("Xid 95", "Uncontained", "reset", 1000.0)
KEEPS: Callable[[], str] = lambda: "te2-evidence.txt"  # noqa: E731


async def node(made: Place, name: str = "te2") -> Any:
    return await made.kube.get("v1", "Node", name, fresh=True)


async def test_a_node_with_an_unfit_gpu_is_tainted_with_a_note_and_other_taints_stay() -> None:
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        await made.kube.patch("v1", "Node", "te2", {"spec": {"taints": [OTHER]}})
        made.kube.forget()
        (told,) = await converge([GpusSound("te2", seen(ROWS))], made.kube, Impact.SERVICE)
        assert told.outcome == "drifted"
        assert told.drift
        assert f"{UUIDS[1]} in 0000:01:00.0, serial 1: Remapped Rows: Pending" in told.drift.have
        assert "reset the GPU" in told.drift.want
        step = UnfitKeptFromPods("te2", seen(ROWS), KEEPS)
        (done,) = await converge([step], made.kube, Impact.FILES)
        assert done.outcome == "changed"
        marked = await node(made)
        assert marked["spec"]["taints"] == [OTHER, {"key": TAINT, "value": "reset", "effect": "NoSchedule"}]
        kept = read_quarantine(marked)
        assert kept
        assert (kept.gpus, kept.evidence) == ((UUIDS[1],), "te2-evidence.txt")
        assert "Remapped Rows: Pending" in kept.why
        (again,) = await converge([step], made.kube, Impact.FILES)
        assert again.outcome == "ok"
        drift = await NodeTaints("te2", control_plane=False).check(made.kube)
        assert drift
        assert TAINT not in drift.have, "our own mark is no foreign taint"


async def test_what_is_the_applications_or_a_persons_to_look_at_keeps_no_pod_away() -> None:
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        for answer, is_told in (("application", False), ("look closer", True)):
            gpus = seen(Fault("Xid 31", "MMU Fault", answer))  # type: ignore[arg-type]
            assert await UnfitKeptFromPods("te2", gpus, KEEPS).check(made.kube) is None
            assert bool(await GpusSound("te2", gpus).check(made.kube)) is is_told


async def test_no_more_than_a_quarter_of_the_gpu_nodes_is_kept_away_at_once() -> None:
    assert [most_quarantined(nodes) for nodes in (1, 2, 4, 7, 8, 100)] == [1, 1, 1, 1, 2, 25]
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        for name in ("te2", "te3"):
            labels = {"metadata": {"labels": {"nvidia.com/gpu.present": "true"}}}
            await made.kube.patch("v1", "Node", name, labels)
        await UnfitKeptFromPods("te3", seen(ROWS), KEEPS).apply(made.kube)
        asked: list[str] = []
        step = UnfitKeptFromPods("te2", seen(ROWS), lambda: asked.append("te2") or "x")
        with pytest.raises(Blocked, match="te3 of 2 GPU nodes are kept from pods already") as refused:
            await step.apply(made.kube)
        assert refused.value.code == "SHW-620"
        assert asked == []
        assert "taints" not in (await node(made))["spec"]


async def test_a_node_is_opened_by_a_proof_of_its_gpus_alone_and_only_our_mark_goes() -> None:
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        await UnfitKeptFromPods("te2", seen(ROWS), KEEPS).apply(made.kube)
        made.kube.forget()
        released = ReleasedByProof("te2", seen(), made.cluster, 2, again())
        blind = (seen()[0], replace(seen()[1], unjudged=("the kernel's log: not told",)))
        for gpus, count, why in (
            (seen(ROWS), 2, "Remapped Rows: Pending"),
            ((), 2, "nothing is known of its GPUs"),
            (blind, 2, "the kernel's log: not told"),
            (seen(), 0, f"by hand: `kubectl taint node te2 {TAINT}:NoSchedule-"),
        ):
            kept = ReleasedByProof("te2", gpus, made.cluster, count, again())
            (stays,) = await converge([kept], made.kube, Impact.START)
            assert stays.outcome == "drifted", stays.error
            assert stays.drift
            assert stays.drift.have.startswith("kept from pods since ")
            assert why in stays.drift.have
        assert await released.check(made.kube)
        (done,) = await converge([released], made.kube, Impact.START)
        assert done.outcome == "changed", done.error
        opened = await node(made)
        assert not opened["spec"].get("taints")
        assert NOTE not in opened["metadata"]["annotations"]
        assert await released.check(made.kube) is None


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        (Scene(wrong={UUIDS[1]}), "checksum: the bits of its product are wrong"),
        (Scene(hung={UUIDS[1]}), "GPU 1: answer"),
        (Scene(slow={UUIDS[1]: 0.5}), "is the median of 2 equals"),
        (Scene(failing={UUIDS[1]}), "under load it counted 2 uncorrectable errors of its memories"),
    ],
)
async def test_a_gpu_that_fails_under_load_keeps_its_node_away_though_the_quick_proof_passes(
    scene: Scene, said: str
) -> None:
    kept = [gpu_host(1, 0), gpu_host(2, 2, figures=scene), gpu_host(3, 2)]
    async with place(hosts=kept, cluster=declared()) as made:
        await furnished(made)
        await UnfitKeptFromPods("te2", seen(ROWS), KEEPS).apply(made.kube)
        made.kube.forget()
        with pytest.raises(Blocked) as refused:
            await ReleasedByProof("te2", seen(), made.cluster, 2, again()).apply(made.kube)
        assert refused.value.code == "SHW-638"
        assert said in refused.value.message
        marked = await node(made)
        assert read_quarantine(marked)
        assert read_record(marked), "each of its GPUs was held by a pod, which is not enough"
        assert made.simulated.store.objects("pods", NAMESPACE) == []


@pytest.mark.parametrize(("compute", "opens"), [("required", True), ("off", False)])
async def test_where_nothing_measures_its_gpus_the_sample_must_have_run_on_each(compute: str, opens: bool) -> None:  # noqa: FBT001
    kept = [gpu_host(1, 0), gpu_host(2, 2, figures=Scene(missing={"python3"})), gpu_host(3, 2)]
    async with place(hosts=kept, cluster=declared(compute=compute)) as made:
        await furnished(made)
        await UnfitKeptFromPods("te2", seen(ROWS), KEEPS).apply(made.kube)
        made.kube.forget()
        (done,) = await converge([ReleasedByProof("te2", seen(), made.cluster, 2, again())], made.kube, Impact.START)
        assert (read_quarantine(await node(made)) is None) is opens
        if not opens:
            assert done.error
            assert done.error.code == "SHW-622"
            assert "gpu.compute is off, and they are not measured (" in done.error.message


@pytest.mark.parametrize("fault", ["not found", "503 Service Unavailable"])
async def test_an_image_that_cannot_be_had_measures_nothing_and_a_gpu_that_hangs_opens_nothing(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipway.steps.gpu.sound.MEASURE_SECONDS", 3.0)
    scene = Scene(silent=True)

    def broken(_: str, image: str) -> str | None:
        return f'failed to pull and unpack image "x": {fault}' if "pytorch" in image and not scene.silent else None

    kept = [gpu_host(1, 0), gpu_host(2, 2, figures=scene), gpu_host(3, 2)]
    async with place(hosts=kept, cluster=declared(), image_fault=broken) as made:
        await furnished(made)
        await UnfitKeptFromPods("te2", seen(ROWS), KEEPS).apply(made.kube)
        made.kube.forget()
        release = ReleasedByProof("te2", seen(), made.cluster, 2, again())
        with pytest.raises(DeadlineExceeded):
            await release.apply(made.kube)
        assert read_quarantine(await node(made))
        scene.silent = False
        other = made.cluster.model_copy(
            update={"gpu": made.cluster.gpu.model_copy(update={"figures": Figures(image="registry.example/pytorch:2")})}
        )
        await ReleasedByProof("te2", seen(), other, 2, again()).apply(made.kube)
        assert read_quarantine(await node(made)) is None, "by the sample, which ran on each"


async def test_the_very_gpu_is_proven_or_the_one_in_its_slot_and_never_only_the_others() -> None:
    gone = GpuHealth("GPU-00000000-0000-0000-0000-00000000dead", "1", "0000:09:00.0", "A", (ROWS,))
    async with place(hosts=hosts(), cluster=declared()) as made:
        await furnished(made)
        await UnfitKeptFromPods("te2", (*seen()[:1], gone), KEEPS).apply(made.kube)
        made.kube.forget()
        with pytest.raises(Blocked, match=r"000dead in 0000:09:00\.0, which is not there any more") as refused:
            await ReleasedByProof("te2", seen(), made.cluster, 2, again()).apply(made.kube)
        assert refused.value.code == "SHW-639"
        new = replace(seen()[1], slot=gone.slot)
        await ReleasedByProof("te2", (seen()[0], new), made.cluster, 2, again()).apply(made.kube)
        assert read_quarantine(await node(made)) is None


def test_what_a_node_was_marked_for_is_found_again_by_uuid_then_by_slot() -> None:
    first, second = seen()
    lost, switch = GpuHealth("", "", "0000:41:00.0", ""), GpuHealth("", "", "0000:86:00.0", "NVSwitch")
    change = mark({"metadata": {"name": "n", "resourceVersion": "1"}}, [second, lost, switch], "why", "x")
    kept = read_quarantine({"metadata": change["metadata"], "spec": change["spec"]})
    assert kept
    assert kept.slots == (second.slot, lost.slot, "")
    assert find_again(kept, [first, second]) == ({second.uuid}, [lost.slot])
    assert find_again(kept, [first, replace(second, slot=lost.slot)]) == ({second.uuid}, [])
    older = replace(kept, slots=())
    assert find_again(older, [first]) == (set(), [second.uuid])


async def test_a_node_whose_gpus_pods_hold_stays_kept_away() -> None:
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        await hold_a_gpu(made, "training")
        pod = await made.kube.get("v1", "Pod", "training", "default", fresh=True)
        assert pod
        held = pod["spec"]["nodeName"]
        await UnfitKeptFromPods(held, seen(ROWS), KEEPS).apply(made.kube)
        made.kube.forget()
        with pytest.raises(Blocked, match="pods hold 1 of its 2 GPUs") as refused:
            await ReleasedByProof(held, seen(), made.cluster, 2, again()).apply(made.kube)
        assert refused.value.code == "SHW-621"
        assert read_quarantine(await node(made, held))


async def test_a_taint_of_our_name_that_somebody_else_set_is_not_taken_away() -> None:
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        theirs = {"key": TAINT, "value": "", "effect": "NoSchedule"}
        await made.kube.patch("v1", "Node", "te2", {"spec": {"taints": [theirs]}})
        made.kube.forget()
        assert await UnfitKeptFromPods("te2", seen(ROWS), KEEPS).check(made.kube) is None
        assert await ReleasedByProof("te2", seen(), made.cluster, 2, again()).check(made.kube) is None
        drift = await NodeTaints("te2", control_plane=False).check(made.kube)
        assert drift
        assert f"{TAINT}:NoSchedule" in drift.have


async def test_a_taint_that_somebody_set_beside_ours_stays_and_is_told_of() -> None:
    """With our own mark every taint of its key went, whoever had set it."""
    theirs = {"key": TAINT, "value": "mine", "effect": "PreferNoSchedule"}
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        await made.kube.patch("v1", "Node", "te2", {"spec": {"taints": [theirs]}})
        made.kube.forget()
        assert (await node(made))["spec"]["taints"] == [theirs]
        await UnfitKeptFromPods("te2", seen(ROWS), KEEPS).apply(made.kube)
        marked = await node(made)
        assert len(marked["spec"]["taints"]) == 2
        assert list_strange(marked) == [f"{TAINT}:PreferNoSchedule"]
        await made.kube.patch("v1", "Node", "te2", unmark(marked))
        assert (await node(made))["spec"]["taints"] == [theirs]


async def test_a_proof_says_which_nodes_no_workload_gets_to() -> None:
    """All GPUs verified, and ok, was said of a cluster with a node that is closed to every workload."""
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        await UnfitKeptFromPods("te2", seen(ROWS), KEEPS).apply(made.kube)
        made.kube.forget()
        proof = await prove(made.kube, made.cluster, EXPECTED, {})
        assert (proof.outcome, proof.verified) == ("ok", 4)
        (note,) = [note for note in proof.notes if "kept from pods since" in note]
        assert note.startswith("te2 is kept")
        assert "Remapped Rows: Pending" in note


def noted(*, proven: str = "", measured: float | None = None, devices: list[str] = UUIDS) -> dict[str, Any]:
    """Return a node whose GPUs were proven, or did well at work, at these times."""
    record = json.dumps({"container": "c", "sick": "", "devices": devices, "at": proven})
    load = json.dumps(dict.fromkeys(devices, measured)) if measured else "{}"
    return {"metadata": {"annotations": {PROVEN: record, MEASURED: load}}}


def test_only_a_gpu_that_did_well_at_work_outweighs_what_asks_for_a_reset() -> None:
    """A quick proof that computed nothing took an uncontained error of memory away before any quarantine."""
    at = 1795953600.0
    iso = "2026-11-29T12:00:00Z"  # that time
    early, late, closer = (Fault(f"Xid {n}", "", answer, at + off) for n, answer, off in LOGGED)
    sick = seen(early, late, closer, ROWS)
    assert since_proof(sick, noted(proven=iso))[1].faults == (early, late, ROWS)
    assert since_proof(sick, noted(measured=at))[1].faults == (late, ROWS)
    other = noted(proven=iso, measured=at, devices=UUIDS[:1])
    assert since_proof(sick, other)[1].faults == sick[1].faults, "it was not among those that were"
    assert since_proof(sick, None)[1].faults == sick[1].faults
    assert since_proof(sick, noted(proven="yesterday"))[1].faults == sick[1].faults
    odd = {"metadata": {"annotations": {MEASURED: '{"x": "y"}', PROVEN: "[]"}}}
    assert since_proof(sick, odd)[1].faults == sick[1].faults


LOGGED: tuple[tuple[int, Answer, float], ...] = ((95, "reset", -1.0), (79, "restart", 1.0), (74, "look closer", -1.0))


def test_a_time_that_is_to_come_outweighs_nothing_and_clocks_are_compared() -> None:
    """An annotation of 2030 hid every fault for good, and a clock that was ahead those of the minutes between."""
    now = time.time()
    for answer in ("reset", "look closer"):
        (ill,) = seen(Fault("Xid", "", answer, now - 100))[1:]  # type: ignore[arg-type]
        for node in (noted(proven="2030-01-01T00:00:00Z"), noted(measured=now + 3600)):
            assert since_proof([ill], node)[0].faults
    ahead = replace(seen(Fault("Xid", "", "look closer", now + 3500))[1], ahead=3600.0)  # 100 s ago, by our clock
    iso = datetime.fromtimestamp(now - 50, UTC).isoformat()
    assert since_proof([ahead], noted(proven=iso))[0].faults == ()
    assert since_proof([ahead], noted(measured=now + 3550))[0].faults == (), "that is by the host's own clock"


async def test_a_quick_proof_ends_only_what_a_person_was_to_look_at_and_figures_end_the_rest() -> None:
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        closer = Fault("Xid 74", "", "look closer", 1000.0)
        assert await GpusSound("te2", seen(closer)).check(made.kube)
        proof = await prove(made.kube, made.cluster, EXPECTED, {})
        assert proof.outcome == "ok"
        made.kube.forget()
        assert await GpusSound("te2", seen(closer)).check(made.kube) is None
        assert await UnfitKeptFromPods("te2", seen(XID), KEEPS).check(made.kube), "whatever a quick proof said"
        await keep_measured(made.kube, {"te2": dict.fromkeys(UUIDS, time.time())})
        made.kube.forget()
        assert await UnfitKeptFromPods("te2", seen(XID), KEEPS).check(made.kube) is None


@pytest.mark.parametrize(
    ("fault", "keeps"),
    [
        (Fault("Xid 95", "Uncontained", "reset", 4e9), "Xid 95: Uncontained"),
        (Fault("Remapped Rows", "Pending", "reset"), "Remapped Rows: Pending"),
        (Fault("NVLink", "17 of 18", "look closer"), "NVLink: 17 of 18"),
        (Fault("Xid 31", "", "application", 4e9), ""),
    ],
)
async def test_what_a_gpu_tells_of_after_the_load_keeps_its_node_away(fault: Fault, keeps: str) -> None:
    """It was judged by what the host had said before the load, and its pods found out."""
    async with place(hosts=hosts(), cluster=declared()) as made:
        await furnished(made)
        await UnfitKeptFromPods("te2", seen(ROWS), KEEPS).apply(made.kube)
        made.kube.forget()
        (done,) = await converge(
            [ReleasedByProof("te2", seen(), made.cluster, 2, again(*seen(fault)))], made.kube, Impact.START
        )
        assert bool(read_quarantine(await node(made))) is bool(keeps)
        if keeps:
            assert done.error
            assert done.error.code == "SHW-641"
            assert keeps in done.error.message
        assert set(read_measured(await node(made))) == set(UUIDS), "each did well at work, and later faults count"


def test_what_was_so_before_the_load_and_asks_for_no_reset_is_nothing_new_and_a_log_that_was_not_read_is() -> None:
    closer = Fault("NVLink", "17 of 18", "look closer")
    assert find_new(seen(closer), seen(closer), 0.0) == {}
    assert find_new(seen(ROWS), seen(ROWS), 0.0), "that asks for a reset, whenever it began"
    old = Fault("Xid 95", "", "reset", 5.0)
    assert find_new(seen(old), seen(), 10.0) == {}
    blind = replace(seen()[0], unjudged=("the kernel's log: not told", "PCIe width: 8 of 16 on an idle GPU"))
    assert find_new([blind], seen(), 0.0) == {blind.title: "the kernel's log: not told"}


def test_only_gpus_that_did_well_in_a_pod_count_as_measured_and_none_of_a_node_that_is_wrong_together() -> None:
    def heard(where: str = "pod") -> Heard:
        return Heard("te2", where, (Measured("GPU-1", began=5.0), Measured("GPU-2", began=6.0), Measured("GPU-3")))  # type: ignore[arg-type]

    rows = [Row("te2", one, "", "checksum", "good") for one in ("GPU-1", "GPU-2", "GPU-3")]
    bad = Row("te2", "GPU-2", "", "memory errors", "bad")
    assert find_measured([heard()], rows) == {"te2": {"GPU-1": 5.0, "GPU-2": 6.0}}
    assert find_measured([heard()], [*rows, bad]) == {"te2": {"GPU-1": 5.0}}
    assert find_measured([heard()], [*rows, Row("te2", "", "", "all-reduce", "bad")]) == {"te2": {}}
    assert find_measured([heard()], [Row("te2", "GPU-1", "", "clocks", "good")]) == {"te2": {}}
    assert find_measured([heard("host")], rows) == {}


def test_a_node_that_was_not_measured_keeps_what_its_gpus_did_before_and_one_that_hung_does_not() -> None:
    busy, hung = (Heard("te2", "pod", silent=(Silent("probe", "why", missing=one),)) for one in (True, False))
    assert find_measured([busy], judge([busy], {}, {})) == {}
    assert find_measured([hung], judge([hung], {}, {})) == {"te2": {}}


def test_the_evidence_is_a_private_file_whose_name_tells_host_time_and_content(tmp_path: Path) -> None:
    name = keep_evidence(tmp_path, "te2", "Xid 79")
    path = tmp_path / "gpu-evidence" / name
    assert path.read_text(encoding="utf-8") == "Xid 79"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert name.startswith("te2-")
    uuid = f"GPU-{'1' * 36}"
    for at, rate in enumerate((4.0, 3.9, 3.1)):
        record = Reached(f"2026-11-2{at}", "te2", "0:1", "", "580", "6.8", 700, {"copy": rate})
        assert keep_history(tmp_path, uuid, [*read_history(tmp_path).get(uuid, ()), record]) == ""
    measured = (path.parent / keep_evidence(tmp_path, "te2", "Xid 79\n", [uuid, "GPU-2"])).read_text(encoding="utf-8")
    told = measured.partition(f"first and last ===\n{uuid}:\n")[2]
    assert [(one["at"], one["rates"]) for one in json.loads(told)] == [
        ("2026-11-20", {"copy": 4.0}),
        ("2026-11-22", {"copy": 3.1}),
    ]
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(Blocked, match="the evidence cannot be kept"):
        keep_evidence(tmp_path / "file", "te2", "Xid 79")
