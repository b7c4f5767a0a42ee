"""The steps of a backup on a host whose script is real: refusals together, one backup a run, and the copy kept here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from flows.cli.backup import COMMAND
from lab.simulated.options import Options
from shipway.backup.kept import LocalFolder, read_manifest
from shipway.backup.script import script_of
from shipway.backup.state import BackupsThere
from shipway.cluster.parts import Backup
from shipway.cluster_file import parse_cluster
from shipway.converge import converge
from shipway.edits.files import FileIs
from shipway.errors import Permanent, ShipwayError
from shipway.host.session import Host
from shipway.known_failures.catalogue import failure
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.backup import kept
from shipway.steps.backup.kept import KeptLocally, NotTooMany
from shipway.steps.backup.on_host import TimerGone, TimerRuns, schedule
from shipway.steps.backup.possible import EtcdIsKubeadms, NoOtherBackup, RoomForBackup, ToolsCanBeHad
from shipway.steps.backup.taken import BackupFresh, BackupTaken
from tasks.stage_result import errors_of, foreseen
from tests.backup.machine import LocalShell, Machine
from tests.places.simulated import outcomes, simulated_place

FILE = "name: te\nhosts: [{name: cp1, address: 192.0.2.1}]\n"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine with one verified backup, which nobody changes."""
    machine = Machine(tmp_path_factory.mktemp("origin"))
    code, said = machine.run("take")
    assert code == 0, said
    return machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def host(machine: Machine) -> Host:
    return Host("cp1", LocalShell(machine))


def script(machine: Machine) -> str:
    return (machine.here / "script").read_text()


async def test_a_plan_names_every_refusal_at_once(machine: Machine) -> None:
    text = script(machine)
    (machine.here / "kubernetes" / "manifests" / "etcd.yaml").unlink()
    text = text.replace("command -v ctr", "false")  # whatever this machine has
    for program, does in (("df", "printf 'Avail\\n1048576\\n'"), ("flock", "exit 1")):
        (machine.here / "bin" / program).write_text(f"#!/bin/sh\n{does}\n")
        (machine.here / "bin" / program).chmod(0o755)
    machine.root.mkdir()
    (machine.root / ".lock").touch()
    checks = [EtcdIsKubeadms(text), ToolsCanBeHad(text), RoomForBackup(text), NoOtherBackup(text)]
    results = await converge(checks, host(machine), Impact.NOTHING)
    known = errors_of("cp1", foreseen("cp1", results, pending=False), Impact.NOTHING)
    assert [error.code for error in known] == ["SHW-720", "SHW-721", "SHW-722", "SHW-723"]


async def test_what_the_script_sees_is_read_back(origin: Machine) -> None:
    state = await host(origin).read(BackupsThere(script(origin)))
    (backup,) = state.backups
    assert (backup.verified, backup.revision, backup.keys, backup.etcd) == (True, 100, 24, "3.5.16")
    assert state.newest == backup
    assert state.needed == 2 * state.database + state.room
    assert abs(backup.hours_before(state.now)) < 1


@pytest.mark.parametrize("line", ["", "x", "20260101T000000Z verified 1 2 3", "20269999T000000Z verified 1 2 3.5 4 ab"])
def test_a_line_that_is_no_backup_is_passed_over(line: str) -> None:
    seen = BackupsThere("").parse(Output(0, f"backup={line}\nnow=x\nfree=many\n", ""))
    assert (seen.backups, seen.free, seen.manifest) == ((), 0, False)


async def test_a_run_takes_one_backup_and_a_second_attempt_takes_the_first_ones(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def succeed(_: Host, name: str, words: Sequence[str], *, seconds: int) -> Output:
        assert (name, words[-1]) == ("backup", "take")
        assert seconds > 1800
        status, said = machine.run("take")
        if status:
            raise failure("take", Output(status, said, ""))
        return Output(status, said, "")

    monkeypatch.setattr(Host, "succeed", succeed)
    step, on = BackupTaken(script(machine)), host(machine)
    machine.lie("loses")
    (failed,) = await converge([step], on, Impact.SERVICE)
    assert failed.error is not None
    assert failed.error.code == "SHW-728"
    machine.lie("loses", on=False)
    on.forget()
    assert [one.outcome for one in await converge([step], on, Impact.SERVICE)] == ["changed"]
    on.forget()
    assert [one.outcome for one in await converge([step], on, Impact.SERVICE)] == ["ok"]
    later = BackupTaken(script(machine), frozenset(machine.names()))
    assert [one.outcome for one in await converge([later], on, Impact.NOTHING)] == ["drifted"]
    young = BackupTaken(script(machine), frozenset(machine.names()), hours=1)
    assert [one.outcome for one in await converge([young], on, Impact.SERVICE)] == ["ok"]


async def test_an_old_backup_is_drift_and_says_how_old(machine: Machine) -> None:
    step = BackupFresh(script(machine), 24)
    drift = await step.check(host(machine))
    assert drift is not None
    assert drift.have == "no verified backup (none)"
    assert machine.run("take")[0] == 0
    (name,) = machine.names()
    assert await step.check(host(machine)) is None
    old = f"{datetime.now(UTC) - timedelta(hours=31):%Y%m%dT%H%M%SZ}"
    (machine.root / name).rename(machine.root / old)
    drift = await step.check(host(machine))
    assert drift is not None
    assert drift.have == "the newest verified backup is 31 hours old"
    assert "shipway backup" in drift.want


async def test_the_newest_backup_is_kept_here_whole_and_private(
    origin: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "PART", 100)  # the snapshot needs some
    folder = LocalFolder(tmp_path / "kept", "te")
    step = KeptLocally(script(origin), folder, str(origin.root))
    assert [one.outcome for one in await converge([step], host(origin), Impact.FILES)] == ["changed"]
    (name,) = origin.names()
    files = origin.manifest(name)["files"]
    assert isinstance(files, dict)
    for path in [*files, "manifest.json", "verified"]:
        assert (folder.own / name / path).read_bytes() == (origin.root / name / path).read_bytes()
    for path in folder.own.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert [one.outcome for one in await converge([step], host(origin), Impact.FILES)] == ["ok"]


async def test_a_file_that_is_not_the_one_that_was_taken_is_not_kept(origin: Machine, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "other")
    (name,) = origin.names()
    machine.root.mkdir()
    target = machine.root / name
    origin.copied(name, "20200101T000000Z")
    (origin.root / "20200101T000000Z").rename(target)
    (target / "snapshot.db").write_bytes((target / "snapshot.db").read_bytes().replace(b"p1 x", b"p1 y"))
    folder = LocalFolder(tmp_path / "kept", "te")
    (result,) = await converge([KeptLocally(script(machine), folder, str(machine.root))], host(machine), Impact.FILES)
    assert result.error is not None
    assert (result.error.code, result.outcome) == ("SHW-731", "failed")
    assert folder.names() == []


async def test_a_folder_that_cannot_be_written_is_named(origin: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder\n")
    step = KeptLocally(script(origin), LocalFolder(tmp_path / "file", "te"), str(origin.root))
    with pytest.raises(Permanent) as caught:
        await step.apply(host(origin))
    assert caught.value.code == "SHW-732"
    assert str(tmp_path / "file") in caught.value.message


@pytest.mark.parametrize(
    "path", ["../up", "/etc/passwd", "a/../b", "a/..", ".", "..", "a/.", "a//b", "a b", "a\nb", "a\n", ""]
)
def test_a_host_names_no_path_outside_the_backup(path: str) -> None:
    files = {path: hashlib.sha256(b"").hexdigest()}
    text = json.dumps({"made_by": "shipway-backup", "cluster": "te", "files": files})
    with pytest.raises(Permanent):
        read_manifest(text, "te")


def test_a_file_with_a_dot_before_its_name_is_part_of_a_backup() -> None:
    """Packages of Kubernetes 1.32 and later leave /etc/kubernetes/manifests/.kubelet-keep."""
    files = {"files/etc/kubernetes/manifests/.kubelet-keep": hashlib.sha256(b"").hexdigest()}
    text = json.dumps({"made_by": "shipway-backup", "cluster": "te", "files": files})
    assert read_manifest(text, "te")["files"] == files


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"made_by": "x", "cluster": "te", "files": {}}'])
def test_what_is_no_manifest_of_this_cluster_is_refused(text: str) -> None:
    with pytest.raises(ShipwayError):
        read_manifest(text, "te")


async def test_kept_copies_go_by_count_and_age_but_never_the_newest_or_a_strangers(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path, "te")
    now = datetime.now(UTC)

    def place(days: int, cluster: str = "te") -> str:
        name = f"{now - timedelta(days=days):%Y%m%dT%H%M%SZ}"
        (folder.own / name).mkdir(parents=True)
        said: dict[str, Any] = {"made_by": "shipway-backup", "cluster": cluster, "files": {}}
        (folder.own / name / "manifest.json").write_text(json.dumps(said))
        return name

    strangers = place(400, "other")
    newest, second, _, _ = place(50), place(51), place(52), place(53)
    on = Host("cp1", LocalShell(Machine(tmp_path / "machine")))
    await converge([NotTooMany(folder, 2, 100)], on, Impact.FILES)
    assert folder.names() == [newest, second]
    assert (folder.own / strangers).is_dir()
    await converge([NotTooMany(folder, 2, 30)], on, Impact.FILES)
    assert folder.names() == [newest], "older than the days, and the last one there is"


async def test_a_backup_of_this_very_second_is_not_young_enough_where_no_age_is_asked_for() -> None:
    """It passed for the one that was to be taken, where a second run began within the second of the first's name."""
    one = SimpleNamespace(name="20261129T000000Z", hours_before=lambda _: 0.0)

    class There:
        async def read(self, _: object) -> object:
            return SimpleNamespace(newest=one, now=None)

    for hours, drifts in ((0, True), (1, False)):
        step = BackupTaken("", frozenset({one.name}), hours=hours)
        assert (await step.check(There()) is not None) is drifts  # type: ignore[arg-type]


def test_what_a_fetch_left_that_was_broken_off_goes_with_the_next(tmp_path: Path) -> None:
    own = LocalFolder(tmp_path, "te")
    (own.begin("20261128T000000Z") / "snapshot.db").touch()
    (own.own / ".part-20261127T000000Z.old").mkdir()
    own.begin("20261129T000000Z")
    assert sorted(one.name for one in own.own.iterdir()) == [".part-20261127T000000Z.old", ".part-20261129T000000Z"]


@pytest.mark.parametrize(("hours", "when"), [(1, "0/1"), (6, "0/6"), (23, "0/23"), (24, "0")])
def test_the_timer_is_one_that_systemd_takes(hours: int, when: str) -> None:
    """It refuses a step as long as the day: a daily backup never ran."""
    steps = schedule(parse_cluster(f"{FILE}backup: {{every_hours: {hours}}}\n"))
    (timer,) = [step.content for step in steps if isinstance(step, FileIs) and step.path.endswith(".timer")]
    assert f"OnCalendar=*-*-* {when}:20:00\n" in timer


def test_a_timer_is_there_only_where_it_is_declared() -> None:
    assert schedule(parse_cluster(FILE)) == []
    declared = parse_cluster(f"{FILE}backup: {{every_hours: 6, keep: 4}}\n")
    steps = schedule(declared)
    contents = {step.path: step.content for step in steps if isinstance(step, FileIs)}
    assert "OnCalendar=*-*-* 0/6:20:00" in contents["/etc/systemd/system/shipway-scheduled-backup.timer"]
    assert "KEEP=4\n" in script_of(declared)
    assert isinstance(steps[-1], TimerRuns)
    assert steps[-1].impact is Impact.SERVICE, "systemd reads its units anew"


SYSTEMCTL = """#!/bin/sh
echo "$*" >> {here}/asked
case "$*" in
  'show '*) cat {here}/units-state ;;
  *enable*) sed -i 's/not-found/loaded/; s/=inactive/=active/' {here}/units-state
    sed -i 's/UnitFileState=$/UnitFileState=enabled/' {here}/units-state ;;
  *disable*) sed -i 's/=loaded/=not-found/' {here}/units-state ;;
esac
"""
STATE = "Id=shipway-scheduled-backup.timer\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n"


async def test_the_timer_is_started_once_and_removed_where_it_is_declared_no_more(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.here / "bin" / "systemctl").write_text(SYSTEMCTL.format(here=machine.here))
    (machine.here / "units-state").write_text(f"{STATE}\n{STATE}")
    monkeypatch.setattr("shipway.steps.backup.on_host.FOLDER", str(machine.here / "units"))
    assert [one.outcome for one in await converge([TimerRuns()], host(machine), Impact.NOTHING)] == ["drifted"]
    assert [one.outcome for one in await converge([TimerRuns()], host(machine), Impact.SERVICE)] == ["changed"]
    assert [one.outcome for one in await converge([TimerRuns()], host(machine), Impact.SERVICE)] == ["ok"]
    assert (machine.here / "asked").read_text().count("daemon-reload") == 1
    assert [one.outcome for one in await converge([TimerGone()], host(machine), Impact.SERVICE)] == ["changed"]
    assert [one.outcome for one in await converge([TimerGone()], host(machine), Impact.SERVICE)] == ["ok"]


@pytest.mark.parametrize("value", [{"every_hours": 0}, {"every_hours": 25}, {"keep": 0}, {"keep_days": 0}, {"kep": 3}])
def test_what_cannot_be_meant_is_refused(value: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Backup(**value)  # type: ignore[arg-type]


def test_the_age_that_is_drift_follows_from_the_timer_or_is_declared() -> None:
    assert Backup().oldest_hours is None
    assert Backup(every_hours=6).oldest_hours == 12
    assert Backup(every_hours=6, max_age_hours=8).oldest_hours == 8


def test_the_command_line_has_what_the_flow_takes() -> None:
    asked = COMMAND.parser().parse_args(["te.yaml", "--plan", "--if-older", "12", "--quiet"])
    assert (asked.plan, asked.if_older, asked.quiet) == (True, 12, True)
    assert COMMAND.mode(asked) == "plan"


async def test_a_simulated_host_takes_the_timer_once(tmp_path: Path) -> None:
    async with simulated_place(tmp_path, Options(scale=0.01)) as place:
        cluster = place.cluster.model_copy(update={"backup": Backup(every_hours=6)})
        assert outcomes(await place.run(schedule(cluster), "te1")) == {"changed"}
        assert outcomes(await place.run(schedule(cluster), "te1")) == {"ok"}


@pytest.mark.parametrize("said", ["\x80", "not base64!", "é"])
def test_a_part_of_a_file_that_no_program_encoded_is_an_error_that_quotes_nothing_of_it(said: str) -> None:
    with pytest.raises(ShipwayError) as caught:
        kept.FilePart("/backup", 0).parse(Output(0, said, ""))
    assert said not in str(caught.value)
