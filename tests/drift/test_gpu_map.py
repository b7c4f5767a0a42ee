"""The map of GPUs: a sign for each, what it last reached, the bad ones first; for phones, terminals and programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.drift_summary import say
from shipway.gpu.figures.history import Record
from shipway.gpu.health.model import Fault, GpuHealth
from shipway.gpu.health.ports import Port, PortHealth
from shipway.survey.first_look import Survey
from shipway.survey.gpu_health import HealthLook
from tasks.context import Run
from tasks.drift.gpu_map import MANY, MappedGpu, as_rows, figures_table, gpu_map, list_gpus, tell_map
from tasks.drift.report import drift_report
from tasks.figures.kept import keep_history
from tests.places.kube import cluster_of

UUIDS = [f"GPU-00000000-0000-4000-8000-{number:012d}" for number in range(4)]
SICK = Fault("Remapped Rows", "Pending", "reset")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a pass that saw two hosts with two GPUs each; those of the first were measured, one of them badly."""
    hosts = [{"name": f"te{at}", "address": f"10.9.0.{at}", "gpus": 2} for at in (1, 2)]
    made = Run(cluster_of((), hosts=hosts, state_dir=str(tmp_path)), "drift")
    for at, name in enumerate(("te1", "te2")):
        first, second = UUIDS[2 * at : 2 * at + 2]
        gpus = (GpuHealth(second, "", "0000:11:00.0", "A"), GpuHealth(first, "", "0000:10:00.0", "A", (SICK,) * at))
        made.drift.health[name] = HealthLook(gpus)
        made.seen.surveys[name] = Survey(name, True, 2, 2, "", True, name, name, 0.0)  # noqa: FBT003
        made.drift.allocatable[name] = 2
    made.drift.bad_figures = {"te1": {UUIDS[1]: "matmul: 310, and 390 wanted"}}
    for uuid, rates in ((UUIDS[0], {"matmul": 401.4, "copy": 4297.0}), (UUIDS[1], {"copy": 4290.0})):
        record = Record("2026-11-30T01:02:03+00:00", "te1", "", "", "580", "6.1", 700, rates)
        assert keep_history(made.folder, uuid, [record]) == ""
    return made


def test_the_map_has_a_row_a_host_with_what_fits_on_a_phone_first(run: Run) -> None:
    rows = gpu_map(run, list_gpus(run))
    assert [list(row)[:4] for row in rows] == [["host", "map", "TFLOP/s", "state"]] * 2
    assert [(row["map"], row["TFLOP/s"], row["state"]) for row in rows] == [
        ("■■", "1 bad, 401", "ok"),
        ("▲■", "", "reset 0000:10:00.0"),
    ]
    run.drift.allocatable["te2"] = 1
    assert gpu_map(run, list_gpus(run))[1]["state"] == "1 missing; reset 0000:10:00.0"
    run.drift.ports = {"te2": [PortHealth(Port("mlx5_0/1"), ("down",))]}
    assert [row["ports"] for row in gpu_map(run, list_gpus(run))] == ["", "▲"]


def test_where_the_api_did_not_answer_no_gpu_is_called_missing(run: Run) -> None:
    run.drift.allocatable = {}
    rows = gpu_map(run, list_gpus(run))
    assert [row["state"] for row in rows] == [
        "what pods get is not known",
        "what pods get is not known; reset 0000:10:00.0",
    ]
    assert {row["nvidia.com/gpu"] for row in rows} == {"?"}
    run.drift.health = {}
    assert [row["map"] for row in gpu_map(run, [])] == ["??", "??"]


def test_what_stands_on_a_node_is_redacted(run: Run) -> None:
    run.drift.bad_figures = {"te1": {UUIDS[1]: "\x1b[2J token=abcdef.0123456789abcdef"}}
    (bad,) = [gpu.bad for gpu in list_gpus(run) if gpu.bad]
    assert "\x1b" not in bad
    assert "0123456789abcdef" not in bad


def test_each_gpu_that_was_measured_has_a_row_the_bad_first(run: Run) -> None:
    bad, good = figures_table(list_gpus(run))
    assert list(good)[:4] == ["GPU", "TFLOP/s", "GB/s", "measured"]
    assert (bad["GPU"], bad["TFLOP/s"], bad["bad"]) == ("te1 1 ■", "bad", "matmul: 310, and 390 wanted")
    assert (good["GPU"], good["TFLOP/s"], good["GB/s"]) == ("te1 0 ■", "401", "4297")
    assert good["measured"] == "2026-11-30"
    assert (good["to gpu"], good["UUID"]) == ("", UUIDS[0])


def test_a_cluster_that_was_never_measured_has_no_column_of_figures(run: Run) -> None:
    run.drift.bad_figures = {}
    for uuid in UUIDS[:2]:
        (run.folder / "gpu-figures" / f"{uuid}.json").unlink()
    assert "TFLOP/s" not in gpu_map(run, list_gpus(run))[0]
    assert figures_table(list_gpus(run)) == []


def test_the_terminal_is_told_from_the_report(run: Run) -> None:
    report = drift_report(run)
    console = Console(width=80)
    with console.capture() as told:
        say(console, report)
    assert "GPUs: te1 ■■ 401 bad TFLOP/s (2026-11-30)\nGPUs: te2 ▲■\n" in told.get()


def test_of_many_hosts_those_alone_are_told_that_are_not_well() -> None:
    well = [MappedGpu(f"te{at}", "0000:10:00.0", f"GPU-{at}", "■") for at in range(MANY)]
    assert len(tell_map(as_rows(well))) == MANY
    slow = MappedGpu("te98", "0000:10:00.0", "GPU-98", "■", bad="matmul")
    unsure = MappedGpu("te99", "0000:10:00.0", "GPU-99", "?", unjudged="its fabric is told in unknown words")
    again = replace(unsure, uuid="GPU-100")
    told = ["te98 ■ bad TFLOP/s", "te99 ?? (not judged: its fabric is told in unknown words)"]
    assert tell_map(as_rows([*well, slow, unsure, again])) == told
