"""The stage that measures: pods hold all GPUs of their nodes, the host is measured beside them, and nothing is left."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest

from lab.gpu_figures import Scene, write_figures
from lab.simulated.kube.hosts import SimpleHost
from shipway.errors import Blocked
from shipway.gpu.beside import GUARD
from shipway.gpu.figures import burn, rdma
from shipway.gpu.figures.judge import Row, Word
from shipway.gpu.figures.mark import BAD, Bad, find_left, read_bad
from shipway.gpu.figures.model import has_ended
from shipway.gpu.figures.program import program_text
from shipway.gpu.health.model import GpuHealth
from shipway.gpu.health.quarantine import mark, read_quarantine
from shipway.gpu.measuring import IN_POD, ON_HOST, FiguresHeard, measure_host, pod_that_measures
from shipway.gpu.pods import NAMESPACE, pod_with_gpu
from shipway.gpu.result import Proof
from shipway.host.command import Command
from shipway.kube.manifests import render
from shipway.place import Place as Anywhere
from shipway.script import Output
from shipway.step import Impact, StepResult
from shipway.steps.gpu.sound import ReleasedByProof
from tasks.context import Run
from tasks.figures.kept import FOLDER, keep_history, read_history
from tasks.figures.work import SECONDS, measure
from tasks.passes.figures import Level
from tests.gpu.test_proof import declared, furnished, hold_a_gpu
from tests.gpu.test_quarantine import again
from tests.places.kube import Place, gpu_host, place

pytestmark = pytest.mark.usefixtures("_quick")


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.figures.work.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.measuring.LOOK_SECONDS", 0.05)


class Bare(Anywhere):
    """A host on which the program runs as its scene says; what it was given to run is kept."""

    def __init__(self, host: SimpleHost, still: Callable[[], int]) -> None:
        self.name, self.host, self.still = host.name, host, still
        self.ran: list[Command] = []
        self.held: list[int] = []

    async def read(self, *_: Any) -> Output:
        """Say what its network is."""
        return Output(0, self.host.figures.network, "")

    async def do(self, *commands: Command) -> list[Output]:
        """Say what its GPUs reach, or what uses them."""
        if commands[0].words[2] != GUARD:  # the word to go on
            return [Output(0, "", "")]
        words = commands[0].words[5:]
        self.ran += [replace(commands[0], words=words)]
        self.held.append(self.still())
        scene = self.host.figures
        if words[2] == burn.SCRIPT:
            return [Output(0, scene.burn, "")]
        said = (
            f"busy: {scene.busy}\n"
            if scene.busy
            else write_figures([u for u, _ in self.host.gpus], scene, where="host")
        )
        return [Output(0, said, "")]


class Staged:
    """A run on a SIMULATED cluster, with hosts that answer."""

    def __init__(self, made: Place, folder: Path) -> None:
        self.made = made
        self.run = Run(made.cluster.model_copy(update={"state_dir": str(folder)}), "bootstrap")
        self.run.ready = {"te2", "te3"}
        self.run._kube = made.kube
        self.bare = {name: Bare(host, self.pods) for name, host in made.hosts.items()}
        self.run.session = self.bare.__getitem__  # type: ignore[assignment, method-assign]

    def pods(self) -> int:
        """Return how many of the proof's pods there are now."""
        return len(self.made.simulated.store.objects("pods", NAMESPACE))

    async def measured(self) -> dict[str, StepResult]:
        """Run the stage; return its results by the host they are of."""
        found = await measure(self.run, "gpu_figures", "cluster")
        assert self.pods() == 0
        return {one.error.host if one.error else one.step.partition("(")[2][:-1]: one for one in found}

    def words(self, host: str) -> dict[str, set[str]]:
        """Return a host's figures by verdict."""
        rows = [row for row in self.run.figures.rows if row.host == host]
        return {word: {row.figure for row in rows if row.word == word} for word in ("good", "bad", "not judged")}


@asynccontextmanager
async def staged(folder: Path, **scenes: Scene) -> AsyncIterator[Staged]:
    hosts = [gpu_host(1, 0), *(gpu_host(number, 2, figures=scenes.get(f"te{number}", Scene())) for number in (2, 3))]
    async with place(hosts=hosts, cluster=declared(compute="off")) as made:
        await furnished(made)
        yield Staged(made, folder)


def uuid(host: int, gpu: int) -> str:
    return gpu_host(host, 2).gpus[gpu][0]


async def test_equals_are_good_their_history_is_kept_and_nothing_is_left(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        found = await stage.measured()
        assert {name: one.outcome for name, one in found.items()} == {"te2": "ok", "te3": "ok"}
        assert stage.words("te2")["bad"] == stage.words("te2")["not judged"] == set()
        assert all(bare.held == [2] for name, bare in stage.bare.items() if name != "te1")  # the pods held the GPUs
        kept = read_history(stage.run.folder)
        assert set(kept) == {uuid(host, gpu) for host in (2, 3) for gpu in (0, 1)}
        (record,) = kept[uuid(2, 0)]
        assert (record.host, record.rates["matmul"]) == ("te2", 399.89)
        for path in (stage.run.folder / FOLDER).iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        json.dumps(stage.run.figures.as_dict())


@pytest.mark.parametrize(
    ("scene", "figure", "code", "why"),
    [
        (Scene(slow={uuid(2, 1): 0.7}), "matmul", "SHW-630", "is the median of 4 equals"),
        (Scene(wrong={uuid(2, 1)}), "checksum", "SHW-631", "silent corruption"),
        (Scene(hung={uuid(2, 1)}), "answer", "SHW-633", "the driver hangs"),
        (Scene(via=("SHM/direct/direct",)), "all-reduce", "SHW-635", "do not reach each other"),
        (Scene(in_pod=0.5), "pod against host", "SHW-634", "the container holds it back"),
    ],
)
async def test_a_fault_is_named_by_gpu_and_figure_and_the_other_host_stays_good(
    scene: Scene, figure: str, code: str, why: str, tmp_path: Path
) -> None:
    async with staged(tmp_path, te2=scene) as stage:
        found = await measure(stage.run, "gpu_figures", "cluster")
        failed = [one for one in found if one.error and one.error.code == code]
        assert failed
        error = failed[0].error
        assert error
        assert error.host == "te2"
        assert why in error.message
        assert "GPU" in error.message
        assert figure in stage.words("te2")["bad"]
        assert stage.words("te3")["bad"] == set()
        if figure == "checksum":  # what it reached is no measure of anything
            assert uuid(2, 1) not in read_history(stage.run.folder)


async def test_a_node_with_a_bad_figure_is_not_released_until_it_was_measured_well(tmp_path: Path) -> None:
    scene = Scene(wrong={uuid(2, 1)})
    async with staged(tmp_path, te2=scene) as stage:
        kube, gpus = stage.made.kube, [GpuHealth(uuid(2, at), "1", "", "A") for at in (0, 1)]
        await stage.measured()
        node = await kube.get("v1", "Node", "te2", fresh=True)
        assert node
        assert list(read_bad(node)) == [uuid(2, 1)]
        await kube.patch("v1", "Node", "te2", mark(node, gpus, "rows", "te2.txt"))
        release = ReleasedByProof("te2", gpus, stage.made.cluster, 2, again(*gpus))
        kube.forget()
        assert await release.check(kube)
        with pytest.raises(Blocked, match="silent corruption") as kept:
            await release.apply(kube)
        assert kept.value.code == "SHW-638"
        scene.wrong.clear()
        stage.run.figures.rows.clear()
        assert (await stage.measured())["te2"].outcome == "ok"
        kube.forget()
        await release.apply(kube)
        node = await kube.get("v1", "Node", "te2", fresh=True)
        assert node
        assert (read_bad(node), read_quarantine(node)) == ({}, None)


async def written(stage: Staged) -> dict[str, str]:
    """Measure anew; return what is written on the node of the second host."""
    stage.run.figures.rows.clear()
    await measure(stage.run, "gpu_figures", "cluster")
    stage.made.kube.forget()
    node = await stage.made.kube.get("v1", "Node", "te2", fresh=True)
    assert node
    return read_bad(node)


async def test_what_was_bad_stays_written_until_that_figure_of_that_gpu_was_good(tmp_path: Path) -> None:
    scene, bad = Scene(wrong={uuid(2, 1)}), uuid(2, 1)
    async with staged(tmp_path, te2=scene) as stage:
        assert list(await written(stage)) == [bad]
        scene.wrong, scene.hung = set(), {bad}
        assert set(await written(stage)) == {bad, "GPU 1"}, "a GPU that hangs computes no better than before"
        scene.hung = set()
        assert await written(stage) == {}


async def test_a_diagnosis_is_taken_back_by_another_one_alone(tmp_path: Path) -> None:
    scene = Scene(burn=diagnosis(g0=("Pass", ""), g1=("Fail", "a row of its memory is bad")))
    async with staged(tmp_path, te2=scene) as stage:
        stage.run.figures.level = "burn"
        assert await written(stage) == {"GPU 1": "burn: memory: a row of its memory is bad"}
        stage.run.figures.level = "full"
        assert list(await written(stage)) == ["GPU 1"]
        stage.run.figures.level, scene.burn = "burn", diagnosis(g0=("Pass", ""), g1=("Pass", ""))
        assert await written(stage) == {}


def row(word: Word, figure: str = "matmul", uuid_: str = "GPU-1", who: str = "a GPU") -> Row:
    """Return the row of a figure."""
    return Row("te2", uuid_, who, figure, word, "")


SLOW: Bad = {"GPU-1": {"matmul": "slow"}}
HANGS: Bad = {"GPU 1": {"answer": "it hangs"}}
EARLIER: Bad = {"GPU-1": {"": "an earlier version wrote it"}}
SILENT = row("not judged", "answer", "", "its GPUs")


@pytest.mark.parametrize(
    ("before", "rows", "stays"),
    [
        (SLOW, [row("good")], False),
        (SLOW, [row("not judged")], True),
        (SLOW, [row("good", "copy")], True),
        (SLOW, [], True),
        (SLOW, [row("good", uuid_="GPU-2"), row("good", uuid_="GPU-3")], False),  # it was taken out
        (SLOW, [row("good", uuid_="GPU-2")], True),  # of two GPUs one told nothing
        (SLOW, [row("good", uuid_="GPU-2"), row("good", uuid_="GPU-3"), SILENT], True),
        (HANGS, [row("good"), row("good", uuid_="GPU-2")], False),
        (HANGS, [row("good"), row("bad", "answer", "", "GPU 1")], True),
        (HANGS, [row("good")], True),
        (HANGS, [SILENT], True),
        ({"its GPUs together": {"all-reduce": "wrong"}}, [row("good")], True),
        ({"its GPUs together": {"all-reduce": "wrong"}}, [row("good", "all-reduce", "", "its GPUs together")], False),
        (EARLIER, [row("good")], False),
        (EARLIER, [row("not judged")], True),
        (EARLIER, [row("good"), row("bad", "copy")], True),
    ],
)
def test_what_is_not_judged_takes_nothing_back(before: Bad, rows: list[Row], *, stays: bool) -> None:
    assert find_left(before, rows, count=2) == (before if stays else {})


@pytest.mark.parametrize("note", ['{"GPU-1": "slow"}', '{"GPU-1": {"matmul": "slow"}}'])
def test_what_is_written_is_read_in_both_of_its_forms(note: str) -> None:
    assert read_bad({"metadata": {"annotations": {BAD: note}}}) == {"GPU-1": "slow"}


@pytest.mark.parametrize(
    ("scene", "why"),
    [(Scene(missing={"python3"}), "python3: not found"), (Scene(silent=True), "it was not done in time")],
)
async def test_a_host_whose_pod_says_nothing_is_not_judged(
    scene: Scene, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.figures.work.IMAGE_SECONDS", 0)
    monkeypatch.setattr("tasks.figures.work.PROBE_SECONDS", 4)
    async with staged(tmp_path, te2=scene) as stage:
        found = await stage.measured()
        assert found["te2"].outcome == "unknown"
        assert why in str(found["te2"].error)
        assert found["te3"].outcome == "ok"
        assert any(line.startswith("figures: te2: answer") for line in stage.run.warned)


async def test_a_pod_that_does_not_start_holds_the_gpus_of_others_for_minutes_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Pods:
        """Two pods, of which one has spoken and one does not start."""

        async def list_(self, _: str, kind: str, *__: str) -> list[Any]:
            phases = {"one": "Running", "other": "Pending"} if kind == "Pod" else {}
            return [{"metadata": {"name": name}, "status": {"phase": phase}} for name, phase in phases.items()]

        async def logs(self, *_: str) -> str:
            return write_figures([uuid(2, 0)], Scene(), where="pod")

    said, pods = FiguresHeard({"one": "te2", "other": "te3"}), cast("Any", Pods())
    assert await said.check(pods), "that it has just begun to wait is no end"
    assert await said.check(pods)
    monkeypatch.setattr("shipway.gpu.measuring.LATE_SECONDS", 0.0)
    assert await said.check(pods) is None
    assert list(said.heard) == ["te2"]
    assert "did not start within" in said.lost["te3"]


async def test_where_nccl_is_missing_the_rest_is_judged(tmp_path: Path) -> None:
    async with staged(tmp_path, te2=Scene(missing={"nccl"})) as stage:
        assert {one.outcome for one in (await stage.measured()).values()} == {"ok"}
        assert stage.words("te2")["not judged"] == {"all-reduce"}


async def test_a_node_with_a_gpu_at_work_is_left_alone_and_not_judged(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await hold_a_gpu(stage.made, "training")
        pod = await stage.made.kube.get("v1", "Pod", "training", "default", fresh=True)
        assert pod
        busy = pod["spec"]["nodeName"]
        found = await stage.measured()
        assert found[busy].outcome == "unknown"
        assert "busy: pods hold 1 of its 2 GPUs" in str(found[busy].error)
        assert stage.bare[busy].ran == []  # the host is not measured beside it either
        (other,) = {"te2", "te3"} - {busy}
        assert found[other].outcome == "ok"


async def test_a_process_on_the_host_keeps_it_from_being_measured(tmp_path: Path) -> None:
    async with staged(tmp_path, te2=Scene(busy="4711, trainer")) as stage:
        assert (await stage.measured())["te2"].outcome == "ok"
        (row,) = {row.why for row in stage.run.figures.rows if (row.host, row.figure) == ("te2", "pod against host")}
        assert row == "busy: 4711, trainer"


async def test_a_gpu_that_grows_slower_is_compared_with_itself(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.measured()
        factors = {uuid(host, gpu): 0.9 for host in (2, 3) for gpu in (0, 1)}
        for host in stage.made.hosts.values():
            host.figures.slow = dict(factors)
        stage.run.figures.rows.clear()
        found = await measure(stage.run, "gpu_figures", "cluster")
        assert {one.outcome for one in found} == {"failed"}
        assert all("it reached" in str(one.error) for one in found)


def diagnosis(**by_gpu: tuple[str, str]) -> str:
    """Return dcgmi's answer in the form of DCGM 4: a status and a warning by GPU."""
    results = [
        {
            "entity_group": "GPU",
            "entity_id": int(gpu[1:]),
            "status": status,
            "warnings": [{"warning": told}] * bool(told),
        }
        for gpu, (status, told) in by_gpu.items()
    ]
    tests = [{"name": "software", "results": []}, {"name": "memory", "results": results}]
    said = {"DCGM Diagnostic": {"test_categories": [{"category": "Hardware", "tests": tests}]}}
    return f"{json.dumps(said)}\n{burn.ENDED} 0\n"


@pytest.mark.parametrize(("asked", "level", "hours"), [("burn", "3", 0.75), ("burn-long", "4", 4)])
async def test_the_long_burn_is_the_diagnosis_of_level_4_and_is_given_hours_while_pods_hold_the_gpus(
    tmp_path: Path, asked: Level, level: str, hours: float
) -> None:
    async with staged(tmp_path, te2=Scene(burn=diagnosis(g0=("Pass", "")))) as stage:
        stage.run.figures.level = asked
        await measure(stage.run, "gpu_figures", "cluster")
        burned = stage.bare["te2"].ran[-1]
        assert burned.words[2:] == (burn.SCRIPT, burned.words[3], level)
        assert burned.seconds == hours * 3600
        assert stage.bare["te2"].held[-1] > 0
        pod = pod_that_measures(stage.made.cluster, "a", "te2", 2, burns=int(level))
        assert pod["spec"]["activeDeadlineSeconds"] > burned.seconds
        assert burned.seconds < SECONDS


async def test_a_burn_is_read_by_gpu_and_one_that_cannot_run_leaves_the_figures_judged(tmp_path: Path) -> None:
    said = diagnosis(g0=("Pass", ""), g1=("Fail", "a row of its memory is bad"))
    async with staged(tmp_path, te2=Scene(burn=said)) as stage:
        stage.run.figures.level = "burn"
        found = await measure(stage.run, "gpu_figures", "cluster")
        (bad,) = [one.error for one in found if one.error]
        assert (bad.host, bad.code) == ("te2", "SHW-637")
        assert bad.message == "GPU 1: burn: memory: a row of its memory is bad"
        rows = {(row.host, row.who): row for row in stage.run.figures.rows if row.figure == "burn"}
        assert rows["te2", "GPU 0"].word == "good"
        assert (rows["te3", "its GPUs"].word, rows["te3", "its GPUs"].why) == ("not judged", "dcgmi is not installed")
        assert [one.outcome for one in found if not one.error] == ["ok"]
        assert [len(bare.ran) for bare in stage.bare.values()] == [0, 2, 2]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("busy: 4711, trainer\n", ["not judged"]),
        ("", ["not judged"]),
        (f"no json\n{burn.ENDED} 1\n", ["not judged"]),
        (diagnosis(g0=("Skip", ""), g1=("Pass", "")), ["not judged", "good"]),
        (diagnosis(g0=("Pass", "Unable to allocate device memory")), ["bad"]),  # DCGM#284
        (
            (
                '{"DCGM GPU Diagnostic": {"test_categories": [{"tests": [{"name": "PCIe", "results": '
                f'[{{"gpu_ids": "0,1", "status": "Fail", "warnings": "slow"}}]}}]}}]}}}}\n{burn.ENDED} 226\n'
            ),
            ["bad", "bad"],
        ),
    ],
)
def test_a_diagnosis_is_judged_by_each_result_of_it(said: str, words: list[str]) -> None:
    assert [row.word for row in burn.judge_burn("te2", said)] == words


READY = """adapter mlx5_0 0 InfiniBand
adapter mlx5_1 1 Ethernet
gpu 0000:0a:00.0 0
gpu 0000:8a:00.0 1
kernel 6.8.0-31-generic
open
dmabuf
guest none
Max locked memory         unlimited            unlimited            bytes
acs 0
"""


@pytest.mark.parametrize(
    ("old", "new", "name", "word"),
    [
        ("open", "closed", "GPU memory", "bad"),
        ("open\ndmabuf", "peermem\ninterface", "GPU memory", "good"),
        ("open\ndmabuf", "peermem", "GPU memory", "bad"),
        ("kernel 6.8.0", "kernel 5.4.0", "GPU memory", "bad"),
        ("unlimited   ", "8388608     ", "memlock", "bad"),
        ("Max locked memory", "Max other memory", "memlock", "not judged"),
        ("acs 0", "acs 12", "ACS", "bad"),
        ("acs 0", "", "ACS", "not judged"),
        ("guest none", "guest kvm", "ACS", "not judged"),
        ("mlx5_1 1", "mlx5_1 0", "NUMA", "bad"),
        ("mlx5_1 1", "mlx5_1 -1", "NUMA", "not judged"),
    ],
)
def test_what_rdma_needs_is_judged_row_by_row(old: str, new: str, name: str, word: str) -> None:
    assert {row.word for row in rdma.judge_rdma("te2", READY)} == {"good"}
    found = {row.figure: row.word for row in rdma.judge_rdma("te2", READY.replace(old, new, 1))}
    assert found.pop(f"RDMA: {name}") == word
    assert set(found.values()) == {"good"}


async def test_what_rdma_needs_is_told_and_fails_no_gpu(tmp_path: Path) -> None:
    (none,) = rdma.judge_rdma("te2", "kernel 6.8.0\nguest none\n")
    assert (none.word, none.why) == ("not judged", "there is no InfiniBand or RoCE device")
    async with staged(tmp_path, te2=Scene(network=READY.replace("acs 0", "acs 3"))) as stage:
        assert {one.outcome for one in (await stage.measured()).values()} == {"ok"}
        assert "te2: RDMA: ACS: 3 bridges check sources (ACSCtl SrcValid+)" in stage.run.warned


async def test_the_pods_of_a_failed_proof_stay_as_evidence(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        for setting in render("verify/namespace.yaml", namespace=NAMESPACE):
            await stage.made.kube.apply(setting)
        await stage.made.kube.apply(pod_with_gpu(stage.made.cluster, "gpu-test-1"))
        stage.run.proof = Proof("failed", 4)
        (only,) = await measure(stage.run, "gpu_figures", "cluster")
        assert (only.outcome, stage.run.figures.rows, stage.pods()) == ("unknown", [], 1)


async def test_a_plan_measures_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.run.allow = Impact.NOTHING
        (only,) = await measure(stage.run, "gpu_figures", "cluster")
        assert (only.outcome, stage.run.figures.rows) == ("unknown", [])


async def test_the_program_reaches_a_host_as_input_and_no_variable_of_a_kubelet_is_in_it() -> None:
    bare = Bare(gpu_host(2, 2), lambda: 0)
    await measure_host(bare, AsyncMock(return_value=True))  # type: ignore[arg-type] - a double
    (command,) = bare.ran
    assert command.feed == program_text().encode()
    assert command.words[:3] == ("bash", "-c", ON_HOST)
    assert command.words[4:] == (str(len(command.feed)), "seconds=5", f"collective={1 << 30}")
    assert "$(" not in IN_POD


def test_an_image_without_python_says_so_in_a_line_and_ends_the_wait() -> None:
    """A pod of such an image was waited for ten minutes (container lab): its shell's word was the whole program."""
    pod = pod_that_measures(declared(), "gpu-figures-1", "te1", 2)
    words = [word.replace("sleep 86400", "true") for word in pod["spec"]["containers"][0]["command"]]
    shell = shutil.which(words[0])
    assert shell
    ran = subprocess.run([shell, *words[1:]], env={"PATH": "/nowhere"}, capture_output=True, text=True, check=True)
    assert has_ended(ran.stdout)
    assert "not found" in ran.stderr
    assert len(ran.stderr) < 200


def test_a_history_that_is_no_gpus_or_cannot_be_kept_is_said(tmp_path: Path) -> None:
    assert "no UUID" in keep_history(tmp_path, "GPU-../../x", [])
    (tmp_path / FOLDER).write_text("a file where a folder is to be")
    assert "cannot be kept" in keep_history(tmp_path, uuid(2, 0), [])
    assert read_history(tmp_path) == {}
