"""The stage that measures: pods hold all GPUs of their nodes, the host is measured beside them, and nothing is left."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lab.gpu_figures import Scene, write_figures
from lab.simulated.kube.hosts import SimpleHost
from shipway.gpu.figures.program import program_text
from shipway.gpu.measuring import IN_POD, ON_HOST, measure_host
from shipway.gpu.pods import NAMESPACE
from shipway.host.command import Command
from shipway.place import Place as Anywhere
from shipway.script import Output
from shipway.step import Impact, StepResult
from tasks.context import Run
from tasks.figures.kept import FOLDER, keep_history, read_history
from tasks.figures.work import measure
from tests.gpu.test_proof import declared, furnished, hold_a_gpu
from tests.places.kube import Place, gpu_host, place

pytestmark = pytest.mark.usefixtures("_quick")


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.figures.work.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)


class Bare(Anywhere):
    """A host on which the program runs as its scene says; what it was given to run is kept."""

    def __init__(self, host: SimpleHost, still: Callable[[], int]) -> None:
        self.name, self.host, self.still = host.name, host, still
        self.ran: list[Command] = []
        self.held: list[int] = []

    async def do(self, *commands: Command) -> list[Output]:
        """Say what its GPUs reach, or what uses them."""
        self.ran += commands
        self.held.append(self.still())
        scene = self.host.figures
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


async def test_a_plan_measures_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.run.allow = Impact.NOTHING
        (only,) = await measure(stage.run, "gpu_figures", "cluster")
        assert (only.outcome, stage.run.figures.rows) == ("unknown", [])


async def test_the_program_reaches_a_host_as_input_and_no_variable_of_a_kubelet_is_in_it() -> None:
    bare = Bare(gpu_host(2, 2), lambda: 0)
    await measure_host(bare)  # type: ignore[arg-type] - a double
    (command,) = bare.ran
    assert command.feed == program_text().encode()
    assert command.words[:3] == ("bash", "-c", ON_HOST)
    assert command.words[4:] == (str(len(command.feed)), "seconds=5", f"collective={1 << 30}")
    assert "$(" not in IN_POD


def test_a_history_that_is_no_gpus_or_cannot_be_kept_is_said(tmp_path: Path) -> None:
    assert "no UUID" in keep_history(tmp_path, "GPU-../../x", [])
    (tmp_path / FOLDER).write_text("a file where a folder is to be")
    assert "cannot be kept" in keep_history(tmp_path, uuid(2, 0), [])
    assert read_history(tmp_path) == {}
