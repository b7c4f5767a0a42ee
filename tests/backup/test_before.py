"""Before etcd's members change: a young backup is asked for where the file declares backups, else that is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shipway.backup.script import script_of
from shipway.backup.state import Backup, BackupsThere
from shipway.errors import Refused
from shipway.ownership.evidence import Evidence
from tasks.backup.before import BackupBefore
from tasks.context import Run
from tests.backup.test_choice import EMPTY
from tests.ownership.test_leading import cluster, plane
from tests.places.facts import KnownFacts
from tests.retire.objects import Objects, meta

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
DECLARED = "backup: {every_hours: 6}\n"


def backup(minutes: int, *, verified: bool = True) -> Backup:
    return Backup(f"{NOW - timedelta(minutes=minutes):%Y%m%dT%H%M%SZ}", verified, 1, 1, "3.6.13", 1, "0" * 64)


def made(monkeypatch: pytest.MonkeyPatch, has: Mapping[str, Backup], more: str = DECLARED, days: float = 9.0) -> Run:
    """Return a run on a cluster of so many days whose control planes have these backups."""
    run = Run(cluster(more=more), "remove")
    run.file, run.lead = "te.yaml", "cp1"
    run.seen.elsewhere = tuple(plane(name) for name in ("cp1", "cp2", "cp3"))
    created = f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"
    space = {"kind": "Namespace", "metadata": meta("kube-system", creationTimestamp=created)}

    async def kube() -> Any:
        return Objects(space)

    def session(name: str) -> Any:
        state = replace(EMPTY, now=NOW, backups=(has[name],) if name in has else ())
        return KnownFacts({BackupsThere(script_of(run.cluster)): state})

    monkeypatch.setattr(run, "kube", kube)
    monkeypatch.setattr(run, "session", session)
    return run


@pytest.mark.parametrize(
    ("has", "besides", "young"),
    [
        ({"cp2": backup(59)}, (), True),
        ({"cp2": backup(61)}, (), False),
        ({"cp2": backup(5, verified=False)}, (), False),
        ({"cp2": backup(5)}, ("cp2",), False),
        ({}, (), False),
    ],
    ids=["young", "old", "not verified", "on a disk that is gone", "none"],
)
async def test_a_verified_backup_of_the_last_hour_is_on_a_control_plane_before_members_change(
    monkeypatch: pytest.MonkeyPatch,
    has: Mapping[str, Backup],
    besides: tuple[str, ...],
    young: bool,  # noqa: FBT001 - a table
) -> None:
    run = made(monkeypatch, has)
    check = BackupBefore(run, "cp2 leaves etcd", besides=besides)
    if young:
        assert await check.check(None) is None
        assert run.warned == []
        return
    with pytest.raises(Refused) as caught:
        await check.check(None)
    assert caught.value.code == "SHW-789"
    assert "cp1: there is no verified backup" in caught.value.message
    assert "`shipway backup te.yaml` first" in caught.value.fix


async def test_a_file_that_declares_no_backups_is_told_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(monkeypatch, {}, more="")
    for _ in range(2):
        assert await BackupBefore(run, "cp2 leaves etcd").check(None) is None
    assert run.warned == [
        "cp2 leaves etcd, and the file declares no backups: `shipway backup te.yaml` takes one",
    ]


async def test_a_cluster_that_is_younger_than_such_a_backup_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(monkeypatch, {}, days=0.03)
    assert await BackupBefore(run, "cp2 becomes a member of etcd").check(None) is None
    fresh = made(monkeypatch, {}, more="")
    fresh.seen.elsewhere = (Evidence("cp1"),)
    assert await BackupBefore(fresh, "cp2 becomes a member of etcd").check(None) is None
    assert fresh.warned == run.warned == []
    with pytest.raises(Refused):
        await BackupBefore(made(monkeypatch, {}, days=0.05), "cp2 becomes a member of etcd").check(None)
