"""The proof of a restore: the revision is above the backup's, a watch sees a change, and who stays blind is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.converge import converge
from shipway.errors import ApiRefused
from shipway.kube.client import Kube
from shipway.place import Place
from shipway.step import Impact, StepResult
from tasks.backup import watchers
from tasks.backup.watchers import BUMP, RevisionHigher, WatchSees, blind_watchers, start_watchers
from tasks.context import BackupRun

SINCE = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


class Api(Place):
    """An API with a revision, our canary, and pods; `blind` are watches that are told of nothing."""

    name = "cluster"

    def __init__(self, revision: int = 7, *pods: dict[str, Any], blind: bool = False) -> None:
        self.revision, self.pods, self.blind = revision, pods, blind
        self.canary: dict[str, Any] | None = None
        self.asked: list[str] = []

    async def send(self, _: str, path: str, **__: Any) -> tuple[int, str]:
        """Answer a list, or tell a watch that ends what was changed since."""
        self.asked.append(path)
        if "watch=true" not in path:
            listed = {"metadata": {"resourceVersion": str(self.revision)}}
            return (200, json.dumps(listed)) if self.revision else (403, "no")
        await watchers.asyncio.sleep(0.05)
        return 200, "" if self.blind else json.dumps({"type": "MODIFIED", "object": self.canary})

    async def get(self, _: str, kind: str, *__: str, **___: Any) -> dict[str, Any] | None:
        """Return the canary."""
        return self.canary if kind == "ConfigMap" else None

    async def apply(self, obj: dict[str, Any]) -> None:
        """Write it."""
        self.canary = obj

    async def list_(self, _: str, kind: str, **__: str) -> list[dict[str, Any]]:
        """Return the pods."""
        return list(self.pods) if kind == "Pod" else []

    def forget(self) -> None:
        """Know nothing."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "WATCH_BEGINS", 0.0)


async def test_a_watch_is_told_of_a_change_that_is_made_beside_it_once_for_each_restore() -> None:
    api = Api()
    for restore, outcome in (("one", "changed"), ("one", "ok"), ("two", "changed")):
        (result,) = await converge([WatchSees(restore)], cast("Kube", api), Impact.WORKLOADS)
        assert (result.outcome, result.error) == (outcome, None)
    assert [path for path in api.asked if "resourceVersion=7" in path and "timeoutSeconds=5" in path] != []


async def test_a_watch_that_sees_nothing_is_a_restore_that_did_not_succeed() -> None:
    (result,) = await converge([WatchSees("one")], cast("Kube", Api(blind=True)), Impact.WORKLOADS)
    assert result.outcome == "failed"
    assert result.error is not None
    assert "ended after 5 s without the change" in result.error.message


async def test_the_revision_is_above_the_backups_by_what_the_api_says_now() -> None:
    assert await RevisionHigher(6).check(cast("Kube", Api(7))) is None
    drift = await RevisionHigher(7).check(cast("Kube", Api(7)))
    assert drift is not None
    assert (drift.have, drift.want) == ("revision 7", "above 7")
    with pytest.raises(ApiRefused):
        await RevisionHigher(7).check(cast("Kube", Api(0)))


def pod(name: str, account: str, made: str = "2026-11-29T11:00:00Z", space: str = "gpu-operator") -> dict[str, Any]:
    token = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "creationTimestamp": made},
        "spec": {"serviceAccountName": account, "volumes": [token] if account else []},
    }


PODS = (
    pod("gpu-operator-1", "gpu-operator"),
    pod("new-1", "gpu-operator", "2026-11-29T12:30:00Z"),
    pod("train-1", "default", space="train"),
    pod("calico-1", "calico-node", space="calico-system"),
    pod("kueue-1", "kueue-controller-manager", space="kueue-system"),
)


async def test_who_asks_the_api_by_a_right_of_its_own_since_before_the_restore_is_named() -> None:
    assert await blind_watchers(cast("Kube", Api(7, *PODS)), SINCE) == [
        "gpu-operator/gpu-operator-1",
        "kueue-system/kueue-1",
    ]


@pytest.mark.parametrize(("revision", "told"), [(9, True), (BUMP + 9, False)])
async def test_owners_are_told_to_restart_what_stays_blind_only_where_the_revision_was_not_raised(
    monkeypatch: pytest.MonkeyPatch,
    revision: int,
    told: bool,  # noqa: FBT001 - a table
) -> None:
    api, steps = Api(revision, *PODS), list[Any]()

    async def kube() -> Any:
        return api

    async def by_api(_: Any, __: str, some: list[Any]) -> list[StepResult]:
        steps.extend(some)
        return []

    async def waited(*_: Any, **__: Any) -> StepResult:
        return StepResult("all run", "ok")

    class Lead(Place):
        name = "cp1"

        def forget(self) -> None:
            """Know nothing."""

        async def read(self, _: object) -> Any:
            """Say when the restore was."""
            backup = SimpleNamespace(name="20261129T013000Z", revision=5)
            return SimpleNamespace(restored_at=SINCE, now=SINCE, backups=(backup,))

    monkeypatch.setattr(watchers, "by_api", by_api)
    monkeypatch.setattr(watchers, "wait_for", waited)
    monkeypatch.setattr(watchers, "script_of", lambda _: "")
    state = BackupRun(source="20261129T013000Z", id="one")
    run: Any = SimpleNamespace(
        session=lambda _: Lead(), control=Lead(), cluster=None, kube=kube, backup=state, warned=[]
    )
    await start_watchers(run, "start_watchers", "cluster")
    assert steps[1:] == [RevisionHigher(5), WatchSees("one")]
    assert [("gpu-operator/gpu-operator-1, kueue-system/kueue-1" in line) for line in run.warned] == [True] * told
