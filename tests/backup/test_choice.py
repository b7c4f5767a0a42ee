"""Which host gets the data of which backup: one that has it, with a control plane before a bare one, and never two."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shipway.backup.choice import Kind, Plane, choose_restore, read_source
from shipway.backup.script import ROOT
from shipway.backup.state import Backup, BackupState
from shipway.errors import Refused
from shipway.ownership.evidence import Evidence
from tasks.backup.restores import kind_of
from tests.ownership.test_leading import plane as whole

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
EMPTY = BackupState(
    *(False, "", 0, 0, 0), busy=False, ctr=True, restoring="", restored="", now=NOW, backups=()
)  # of a host on which nothing is
OLD, NEW = "20261128T010000Z", "20261129T010000Z"


def plane(name: str, kind: Kind = "runs", *backups: str, **more: Any) -> Plane:
    found = tuple(
        Backup(one, verified=True, revision=1, keys=1, etcd="3.5", size=1, digest="d")
        for one in sorted(backups, reverse=True)
    )
    return Plane(name, kind, replace(EMPTY, backups=found, **more))


def chosen(*planes: Plane, asked: str = "newest", kept: tuple[str, ...] = ()) -> tuple[str, str, bool, str]:
    one = choose_restore(asked, planes, kept, "new")
    return one.lead, one.backup, one.brought, one.id


def test_the_newest_verified_backup_of_all_is_taken_where_it_lies() -> None:
    assert chosen(plane("cp1", "runs", OLD), plane("cp2", "runs", OLD, NEW)) == ("cp2", NEW, False, "new")
    assert chosen(plane("cp1", "runs", OLD), plane("cp2", "runs", OLD, NEW), asked=OLD) == ("cp1", OLD, False, "new")


def test_a_copy_on_this_machine_is_brought_to_a_host_with_a_control_plane_before_a_bare_one() -> None:
    assert chosen(plane("cp1", "bare"), plane("cp2"), kept=(NEW,)) == ("cp2", NEW, True, "new")
    assert chosen(plane("cp1", "bare"), plane("cp2", "bare"), kept=(NEW, OLD)) == ("cp1", NEW, True, "new")
    assert chosen(plane("cp1", "bare"), plane("cp2", "bare", NEW), kept=(NEW,)) == ("cp2", NEW, False, "new")


def test_what_lies_on_a_host_that_shows_part_of_a_control_plane_is_not_taken() -> None:
    assert chosen(plane("cp1", "part", NEW), plane("cp2", "runs", OLD))[:2] == ("cp2", OLD)


def test_without_any_backup_a_host_is_named_all_the_same_for_the_refusal() -> None:
    assert chosen(plane("cp1", "bare"), plane("cp2")) == ("cp2", "newest", False, "new")


def test_a_restore_that_was_broken_off_goes_on_with_its_host_its_backup_and_its_id() -> None:
    held = {"restoring": f"{ROOT}/{OLD}", "id": "begun", "lead": "cp2"}
    planes = (plane("cp1", "runs", OLD, NEW, **held), plane("cp2", "runs", OLD), plane("cp3", "runs", **held))
    choice = choose_restore("newest", planes, (), "new")
    assert (choice.lead, choice.backup, choice.id, choice.begun) == ("cp2", OLD, "begun", True)
    assert choice.others("runs") == ["cp1", "cp3"]


def test_one_that_the_host_was_given_by_hand_goes_on_there() -> None:
    planes = (plane("cp1", "runs", OLD), plane("cp2", "runs", OLD, restoring=f"{ROOT}/{OLD}"))
    assert choose_restore("newest", planes, (), "new").lead == "cp2"


@pytest.mark.parametrize(("minutes", "name", "begun"), [(29, NEW, True), (31, NEW, False), (5, OLD, False)])
def test_one_that_ended_a_moment_ago_is_not_begun_again(minutes: int, name: str, begun: bool) -> None:  # noqa: FBT001
    when = f"{NOW - timedelta(minutes=minutes):%Y%m%dT%H%M%SZ}"
    planes = (plane("cp1", "runs", NEW), plane("cp2", "runs", NEW, restored=f"{name} {when} done"))
    choice = choose_restore("newest", planes, (), "new")
    assert (choice.begun, choice.lead, choice.id) == ((True, "cp2", "done") if begun else (False, "cp1", "new"))


def test_one_that_was_not_initialised_yet_goes_on_however_long_ago_that_was() -> None:
    one = plane("cp2", "bare", NEW, restored=f"{NEW} 20260101T000000Z done")
    assert choose_restore("newest", [plane("cp1", "bare"), one], (), "new").begun is False
    choice = choose_restore("newest", [plane("cp1", "bare"), replace(one, unfinished=True)], (), "new")
    assert (choice.begun, choice.lead, choice.id, choice.bare) == (True, "cp2", "done", True)


def test_what_has_joined_the_restored_one_since_is_neither_stopped_nor_joined_again() -> None:
    when = f"{NOW - timedelta(minutes=5):%Y%m%dT%H%M%SZ}"
    lead, joined = plane("cp1", "runs", NEW, restored=f"{NEW} {when} done"), plane("cp2")
    aside = plane("cp3", "runs", aside="done")
    choice = choose_restore("newest", (lead, joined, aside), (), "new")
    assert (choice.others("joined"), choice.others("runs"), choice.done) == (["cp2"], ["cp3"], True)
    held = {"restoring": f"{ROOT}/{NEW}", "id": "begun", "lead": "cp1"}
    choice = choose_restore("newest", (plane("cp1", "runs", NEW, **held), joined), (), "new")
    assert (choice.others("runs"), choice.done) == (["cp2"], False), "the lead has no data yet: all are stopped before"


def test_hosts_in_the_middle_of_different_restores_are_refused() -> None:
    planes = [plane(f"cp{id_}", "runs", restoring=f"{ROOT}/{NEW}", id=id_, lead="cp1") for id_ in ("1", "2")]
    with pytest.raises(Refused) as caught:
        choose_restore("newest", planes, (), "new")
    assert caught.value.code == "SHW-734"


@pytest.mark.parametrize(
    ("seen", "state", "kind"),
    [
        (Evidence("cp1"), EMPTY, "bare"),
        (Evidence("cp1", pki=True), EMPTY, "bare"),
        (whole("cp1"), replace(EMPTY, manifest=True), "runs"),
        (whole("cp1"), replace(EMPTY, held=True, restoring="x"), "runs"),
        (whole("cp1"), EMPTY, "part"),
        (Evidence("cp1", certificate=True), EMPTY, "part"),
        (replace(whole("cp1"), started_by="te"), replace(EMPTY, manifest=True), "bare"),
        (Evidence("cp1", etcd=True), replace(EMPTY, restoring="x"), "bare"),
        (whole("cp1", joining=True), EMPTY, "joins"),
        (whole("cp1", joining=True), replace(EMPTY, manifest=True), "runs"),
    ],
)
def test_what_a_host_is_to_a_restore(seen: Evidence, state: BackupState, kind: Kind) -> None:
    assert kind_of(state, seen) == kind


def test_the_id_and_the_time_of_the_last_restore_are_told_apart_from_an_older_note() -> None:
    one = replace(EMPTY, restored=f"{NEW} 20261129T020304Z an-id")
    assert (one.restored_by, one.restored_at) == ("an-id", datetime(2026, 11, 29, 2, 3, 4, tzinfo=UTC))
    older = replace(EMPTY, restored=f"{NEW} 20261129T020304Z")
    assert (older.restored_by, older.restored_at is None) == ("", False)
    assert (EMPTY.restored_by, EMPTY.restored_at) == ("", None)


@pytest.mark.parametrize(
    ("asked", "source"),
    [
        ("newest", ("newest", False)),
        ("s3:newest", ("newest", True)),
        ("s3:20261129T010203Z", ("20261129T010203Z", True)),
        ("/srv/backups/te/20261129T010203Z", ("20261129T010203Z", False)),
        ("s3:../20261129T010203Z", ("20261129T010203Z", True)),
    ],
)
def test_a_backup_of_the_object_store_is_named_as_one(asked: str, source: tuple[str, bool]) -> None:
    assert read_source(asked) == source
