"""The fleet: hosts are split into groups, every host is accounted for, and groups travel through a real API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.states import Completed, Failed, Running

from flows import fleet as fleet_module
from flows.cli.fleet import COMMAND
from flows.fleet import chosen, fleet, look_at, split
from flows.fleet_group import fence, short, unfence
from flows.fleet_report import Group, join_reports
from shipway.cluster_file import load_cluster
from shipway.errors import Refused
from tests.places.prefect import Place

HOSTS = 12


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "te.yaml"
    names = [f"{{name: te{index}, address: 10.0.0.{index}}}" for index in range(1, HOSTS + 1)]
    path.write_text(f"name: te\nhosts: [{', '.join(names)}]\n", encoding="utf-8")
    return path


def report(hosts: tuple[str, ...], outcome: str = "planned", **more: Any) -> dict[str, Any]:
    rows = [
        {"name": n, "role": "worker", "outcome": "ok", "steps": {}, "round_trips": 1, "seconds": 1.0} for n in hosts
    ]
    return {
        "cluster": "te",
        "outcome": outcome,
        "hosts": rows,
        "errors": (),
        "warnings": ("old",),
        "stages": (),
        **more,
    }


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(1, 250, [1]), (250, 250, [250]), (251, 250, [126, 125]), (7, 3, [2, 3, 2])]
)
def test_groups_are_even_and_hold_every_host_once_in_order(count: int, size: int, sizes: list[int]) -> None:
    names = [f"te{index}" for index in range(count)]
    groups = split(names, size)
    assert [name for group in groups for name in group] == names
    assert sorted(map(len, groups)) == sorted(sizes)
    assert max(map(len, groups)) <= size


def test_a_host_that_the_cluster_file_has_not_is_refused(file: Path) -> None:
    cluster = load_cluster(file)
    assert len(chosen(cluster, ())) == HOSTS
    assert chosen(cluster, ("te2", "te2")) == ("te2",)
    with pytest.raises(Refused, match="te99"):
        chosen(cluster, ("te1", "te99"))


def test_a_report_survives_its_way_and_leaves_what_is_as_wanted_behind() -> None:
    rows = [{"step": "swap is off", "outcome": "ok"}, {"step": "``` kubelet runs", "outcome": "drifted"}]
    sent = short(report(("te1",), stages=[{"host": "te1", "rows": rows}, {"host": "te1", "rows": rows[:1]}]))
    back = unfence(fence(sent))
    assert back["stages"] == [{"host": "te1", "rows": rows[1:]}]
    assert back["hosts"] == sent["hosts"]
    with pytest.raises(ValueError, match="no report"):
        unfence(fence({"other": 1}))


def test_hosts_of_a_lost_group_are_unknown_with_an_error_each() -> None:
    well = Group(("te1", "te2"), "a", "Completed", 1.0, report(("te1", "te2")))
    lost = Group(("te3", "te4"), "b", "late", 1.0, why="not ended after 60 s")
    heard = join_reports("te", "plan", [well, lost], 2.0)
    assert heard.outcome == "partial"
    assert heard.counted == {"ok": 2, "unknown": 2}
    assert [error["host"] for error in heard.errors] == ["te3", "te4"]
    assert "flow run b: not ended after 60 s" in heard.errors[0]["cause"]
    assert heard.warnings == ("old",)
    assert join_reports("te", "plan", [lost], 1.0).outcome == "failed"


def test_a_host_missing_from_its_groups_report_is_unknown() -> None:
    heard = join_reports("te", "plan", [Group(("te1", "te2"), "a", "Completed", 1.0, report(("te1",)))], 1.0)
    assert heard.counted == {"ok": 1, "unknown": 1}
    assert heard.outcome == "partial"


def test_what_befell_the_cluster_is_one_error_however_many_groups_reported_it() -> None:
    error = {"host": "cluster", "step": "API", "cause": "silent", "code": "SHW-200", "fix": "", "retryable": True}
    groups = [Group((n,), n, "Failed", 1.0, report((n,), "partial", errors=[error])) for n in ("te1", "te2")]
    heard = join_reports("te", "look", groups, 1.0)
    assert heard.errors == (error,)
    assert heard.outcome == "partial"


async def test_a_group_that_does_not_end_is_cancelled_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[object] = []

    async def slow(*_: object, **__: object) -> object:
        return SimpleNamespace(id=uuid4(), state=Running())

    async def cancel(which: object) -> None:
        cancelled.append(which)

    monkeypatch.setattr(fleet_module, "arun_deployment", slow)
    monkeypatch.setattr(fleet_module, "_cancel", cancel)
    group = await look_at("fleet-group/group", ("te1",), {}, 60)
    assert (group.state, len(cancelled)) == ("late", 1)
    assert "not ended after 60 s (last seen Running)" in group.why


# Prefect's clients of subflows that run at once leave two sockets to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_groups_go_to_the_deployment_and_one_report_comes_back(
    prefect_place: Place, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the worker is left out: each group is a flow run of its own, and its report comes through the API."""
    assert prefect_place.api.url
    under_way, most, asked = 0, 0, []

    @flow(name="stands-in-for-a-worker", persist_result=False)
    async def group(hosts: tuple[str, ...]) -> Any:
        from prefect.artifacts import acreate_markdown_artifact  # noqa: PLC0415

        if "te12" in hosts:
            return Failed(message="no route to te12")
        await acreate_markdown_artifact(fence(report(hosts)), key="fleet-group-report")
        return Completed(message="fine")

    async def handed(name: str, *, parameters: dict[str, Any], **_: object) -> Any:
        nonlocal under_way, most
        asked.append((name, parameters["what"]))
        under_way += 1
        most = max(most, under_way)
        state = await group(tuple(parameters["hosts"]), return_state=True)
        under_way -= 1
        return SimpleNamespace(id=state.state_details.flow_run_id, state=state)

    monkeypatch.setattr(fleet_module, "arun_deployment", handed)
    out = tmp_path / "new" / "fleet.json"

    async def fly() -> Any:
        return await fleet(
            str(file), "plan", hosts_in_a_group=4, groups_at_once=2, report_file=str(out), return_state=True
        )

    state = asyncio.run(fly())
    assert state.is_failed()
    assert state.name == "Partial"
    assert asked == [("fleet-group/group", "plan")] * 3
    assert most == 2
    heard = json.loads(out.read_text(encoding="utf-8"))
    assert [host["name"] for host in heard["hosts"]] == [f"te{index}" for index in range(1, HOSTS + 1)]
    assert [row["outcome"] for row in heard["groups"]] == ["planned", "planned", "none"]
    assert {error["host"] for error in heard["errors"]} == {"te9", "te10", "te11", "te12"}
    assert "no route to te12" in heard["errors"][0]["cause"]


# Prefect's clients leave their sockets to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_command_tells_of_lost_groups_once_and_ends_with_3(
    prefect_place: Place,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_place.api.url)
    path = tmp_path / "report.json"
    size = ["--hosts-in-a-group", "6", "--groups-at-once", "2", "--minutes-a-group", "1"]
    words = [str(file), "--what", "plan", "--deployment", "no/such", "--report", str(path), *size]
    assert COMMAND.main(words) == 3
    said = capsys.readouterr().out
    assert "te1 ... te6: 6 hosts: none" in said
    assert "outcome: failed: 12 unknown" in said
    assert said.count("[SHW-209]") <= 2  # one line for each group, not for each host
    assert "Traceback" not in said
    assert len(json.loads(path.read_text(encoding="utf-8"))["hosts"]) == 12


@pytest.mark.parametrize("words", [["--hosts-in-a-group", "0"], ["--groups-at-once", "x"], ["--what", "repair"]])
def test_numbers_and_words_that_cannot_be_meant_are_bad_usage(
    words: list[str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMAND.main([str(file), *words])
    assert ended.value.code == 1
    assert words[0] in capsys.readouterr().err
