"""Clocks that were wrong and disks that are full decide nothing: what is loaded, who fights, how a pass ends."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows import drift_passes
from flows.lock import hold_lock, writable
from shipway.errors import Refused
from shipway.facts.files import FileInfo, FileState
from shipway.facts.services import UnitInfo, UnitState
from shipway.step import Impact
from shipway.steps.system.loaded import FOLDER, _read_record, judge_loaded, restart
from tasks.drift.artifacts import trend_markdown
from tasks.drift.history import History
from tests.drift.test_parts import run_of
from tests.places.facts import KnownFacts

PATH, NOW = "/etc/containerd/config.toml", 1_000_000.0
AHEAD = int(NOW) + 8 * 3600


def unit(since: float, invocation: str = "b") -> UnitInfo:
    return UnitInfo("loaded", "active", "running", "enabled", int(since), needs_reload=False, invocation=invocation)


def file(changed: float, digest: str = "new") -> FileInfo:
    return FileInfo(digest, "644", "root:root", int(changed))


def judged(info: UnitInfo, seen: FileInfo, kept: tuple[str, dict[str, str]] = ("", {})) -> bool:
    return judge_loaded(info, [seen], [PATH], kept, NOW, same_second=False)


@pytest.mark.parametrize(
    ("since", "changed", "kept", "runs"),
    [
        # nobody kept anything: the dates are all there is
        (NOW - 10, NOW - 20, ("", {}), True),
        (NOW - 20, NOW - 10, ("", {}), False),
        (NOW - 10, AHEAD, ("", {}), False),
        # this very start loaded these contents, whatever the dates say
        (NOW - 10, AHEAD, ("b", {PATH: "new"}), True),
        (NOW - 20, NOW - 10, ("b", {PATH: "new"}), True),
        # edited since
        (NOW - 20, NOW - 10, ("b", {PATH: "old"}), False),
        (NOW - 20, AHEAD, ("b", {PATH: "old"}), False),
        # edited since, by a clock that went back (or put there by `cp -p`): dated before the start
        (NOW - 20, NOW - 3600, ("b", {PATH: "old"}), False),
        # a record that does not know this file: the dates are all there is
        (NOW - 20, NOW - 3600, ("b", {"/etc/other": "old"}), True),
        (NOW - 20, NOW - 10, ("b", {"/etc/other": "old"}), False),
        # started anew since (a restart of the host), with the contents that were loaded before
        (NOW - 10, AHEAD, ("a", {PATH: "new"}), True),
        (NOW - 10, NOW - 20, ("a", {PATH: "new"}), True),
        # started with something else in between, and put back without a restart
        (NOW - 20, NOW - 10, ("a", {PATH: "new"}), False),
    ],
)
def test_what_a_service_runs_is_judged_by_what_it_loaded(
    since: float,
    changed: float,
    kept: tuple[str, dict[str, str]],
    runs: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    assert judged(unit(since), file(changed), kept) is runs


async def test_a_restart_keeps_what_was_loaded_so_that_a_file_of_the_future_costs_one_restart() -> None:
    heard = KnownFacts({FileState(PATH): file(AHEAD), UnitState("containerd.service"): unit(NOW - 10)})
    assert not judged(unit(NOW - 10), file(AHEAD))
    await restart(heard, "containerd", [PATH])  # type: ignore[arg-type]
    assert heard.done == ["sleep 1", "systemctl restart containerd"]
    kept = _read_record(heard.written[f"{FOLDER}/containerd"])
    assert kept == ("b", {PATH: "new"})
    assert judge_loaded(unit(NOW - 10), [file(AHEAD)], [PATH], kept, NOW, same_second=False)
    assert judge_loaded(unit(NOW, "c"), [file(AHEAD)], [PATH], kept, NOW, same_second=False), (
        "after a restart of the host"
    )


async def test_what_a_reload_loaded_is_kept_once_it_has_ended() -> None:
    """The command ends before a unit of Type=notify is ready: nothing was kept, and the next run reloaded it again."""

    class Busy(KnownFacts):
        looks = 0

        def forget(self) -> None:
            """Be ready at the third look."""
            super().forget()
            self.looks += 1
            if self.looks == 3:
                self.facts[UnitState("proxy.service")] = unit(NOW - 10)

    reloading = replace(unit(NOW - 10), active="reloading")
    on = Busy({FileState(PATH): file(NOW - 5), UnitState("proxy.service"): reloading})
    await restart(on, "proxy", [PATH], verb="reload")  # type: ignore[arg-type]
    assert on.done == ["sleep 1", "systemctl reload proxy"]
    assert _read_record(on.written[f"{FOLDER}/proxy"]) == ("b", {PATH: "new"})


@pytest.mark.parametrize("text", [None, "", "[", "[]", "{}", "[" * 100_000, '{"invocation": "a", "files": []}'])
def test_a_record_that_cannot_be_read_is_none(text: str | None) -> None:
    assert _read_record(text) == ("", {})


# --- the history of repairs


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"passes": [1], "repairs": []}',
        '{"passes": [{"when": "x", "repaired": "many"}], "repairs": []}',
        '{"passes": [{}], "repairs": []}',
        '{"passes": {"a": 1}, "repairs": 5}',
        '{"a":' * 50_000,
        '{"passes": [], "repairs": [["a", "b", 7]]}',
    ],
)
def test_a_history_of_any_kind_begins_anew_or_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "h.json").write_text(text, encoding="utf-8")
    history = History(tmp_path / "h.json")
    assert history.fights(datetime.now(UTC)) == {}
    history.keep({"repaired": 1}, [("te1", "swap is off")], datetime.now(UTC))
    assert trend_markdown(History(tmp_path / "h.json").trend(10))


@pytest.mark.parametrize("when", ["2030-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00", "2030-01-01T00:00:00"])
def test_repairs_of_the_future_are_no_fight_and_go(tmp_path: Path, when: str) -> None:
    now, key = datetime(2026, 11, 28, tzinfo=UTC), ["te2", "kubelet runs"]
    path = tmp_path / "h.json"
    path.write_text(json.dumps({"passes": [], "repairs": [[*key, when]] * 3}), encoding="utf-8")
    assert History(path).fights(now) == {}
    History(path).keep({"repaired": 1}, [("te2", "swap is off")], now)
    assert [one[1] for one in json.loads(path.read_text("utf-8"))["repairs"]] == ["swap is off"]


def test_a_clock_that_was_set_back_a_little_hides_no_fight(tmp_path: Path) -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    for _ in range(3):
        History(tmp_path / "h.json").keep({}, [("te1", "x")], now + timedelta(minutes=2))
    assert History(tmp_path / "h.json").fights(now) == {("te1", "x"): 3}


# --- the folder of this machine


def test_a_history_that_cannot_be_written_is_a_warning_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(state_dir=str(tmp_path))
    run.allow = Impact.SERVICE
    (run.folder / "history.new").mkdir(parents=True)  # as in a disk without room, the draft cannot be written
    drift_passes.keep_history(run, "te.yaml")
    assert run.warned
    assert "the history of repairs was not written" in run.warned[0]
    monkeypatch.undo()


def test_a_bootstrap_is_refused_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file", encoding="utf-8")
    with pytest.raises(Refused, match="state_dir cannot be written") as refused:
        writable(tmp_path / "state" / "te")
    assert refused.value.code == "SHW-341"
    writable(tmp_path / "fine" / "te")
    assert list((tmp_path / "fine" / "te").iterdir()) == []


def test_a_lock_that_cannot_be_signed_is_still_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", full)
    with hold_lock(tmp_path / "lock", "te", warned=warned.append):
        assert len(warned) == 1
        with pytest.raises(Refused):
            hold_lock(tmp_path / "lock", "te").__enter__()


def test_where_no_lock_can_be_made_the_clusters_lease_is_the_lock(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file", encoding="utf-8")
    warned: list[str] = []
    with hold_lock(tmp_path / "state" / "te" / "lock", "te", warned=warned.append):
        assert "no lock on this machine" in warned[0]
