"""A restore's checks and stages: nothing without a typed name, what will be lost is listed, and who must look anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.cli.restore import COMMAND
from flows.restore import restore
from shipway.converge import converge
from shipway.errors import ApiUnavailable, Refused
from shipway.facts.services import UnitInfo
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.place import Place
from shipway.step import Impact
from shipway.steps.backup.restored import BackupRestored, BackupThere, KubeletStarted
from tasks.backup.restores import DaemonSetsRun, WatchersStarted, _losses, _note_kubelets, restore_loses
from tasks.context import BackupRun
from tests.backup.machine import LocalShell, Machine

FILE = "name: te\nhosts: [{name: cp1, address: 192.0.2.1}]\n"
TAKEN = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine with one verified backup, which nobody changes."""
    machine = Machine(tmp_path_factory.mktemp("origin"))
    code, said = machine.run("take")
    assert code == 0, said
    return machine


def script(machine: Machine) -> str:
    return (machine.here / "script").read_text()


@pytest.mark.parametrize("confirm", ["", "yes", "TE", "te2"])
async def test_without_the_clusters_name_typed_nothing_begins(tmp_path: Path, confirm: str) -> None:
    path = tmp_path / "te.yaml"
    path.write_text(FILE)
    state = await restore.fn(str(path), "newest", confirm)
    assert state.name == "Refused"
    error = await state.aresult(raise_on_failure=False)
    assert isinstance(error, Refused)
    assert error.code == "SHW-733"
    assert "--confirm te" in error.fix


def test_the_command_line_has_what_the_flow_takes() -> None:
    words = ["te.yaml", "--from", "newest", "--confirm", "te", "--plan", "--quiet", "--gone", "cp2", "--gone", "cp3"]
    asked = COMMAND.parser().parse_args(words)
    assert (asked.source, asked.confirm, asked.plan, asked.gone) == ("newest", "te", True, ["cp2", "cp3"])
    assert COMMAND.mode(asked) == "plan"


async def test_only_a_verified_backup_of_the_host_is_taken(origin: Machine) -> None:
    on = Host("cp1", LocalShell(origin))
    assert await BackupThere(script(origin), origin.names()[0]).check(on) is None
    drift = await BackupThere(script(origin), "20200101T000000Z").check(on)
    assert drift is not None
    assert origin.names()[0] in drift.have


async def test_a_copy_on_this_machine_counts_as_there(origin: Machine) -> None:
    on = Host("cp1", LocalShell(origin))
    assert await BackupThere(script(origin), "20200101T000000Z", ("20200101T000000Z",)).check(on) is None


async def test_a_restore_counts_only_where_it_is_the_one_that_was_asked_for_and_at_its_end(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.root.mkdir()
    on = Host("cp1", LocalShell(machine))
    (machine.root / ".restored").write_text("20260101T000000Z 20260102T000000Z one\n")
    assert await BackupRestored(script(machine), "20260101T000000Z", "one").check(on) is None
    assert await BackupRestored(script(machine), "20260101T000000Z", "two").check(on) is not None
    (machine.here / "hold").mkdir()
    (machine.here / "hold" / "from").write_text("/var/lib/shipway/backups/20260101T000000Z\n")
    on.forget()
    assert await BackupRestored(script(machine), "20260101T000000Z", "one").check(on) is not None


class Kubelet(Place):
    """A host whose kubelet is restarted."""

    name = "cp1"

    def __init__(self) -> None:
        self.invocation = "first"

    async def read(self, _: object) -> UnitInfo:
        """Return the unit."""
        return UnitInfo("loaded", "active", "running", "enabled", 0, needs_reload=False, invocation=self.invocation)

    async def do(self, *_: object) -> None:
        """Restart it."""
        self.invocation = "second"


@pytest.mark.parametrize(("since", "outcome"), [("first", "changed"), ("", "failed"), ("before", "ok")])
async def test_a_kubelet_that_was_started_since_is_left_alone(since: str, outcome: str) -> None:
    (result,) = await converge([KubeletStarted(since)], cast("Host", Kubelet()), Impact.SERVICE)
    assert result.outcome == outcome


@pytest.mark.parametrize(("hour", "noted"), [(1, "after it"), (3, "first"), (None, "first")])
async def test_a_kubelet_that_was_started_since_a_restore_that_is_gone_on_with_is_noted_so(
    hour: int | None, noted: str
) -> None:
    started = int(datetime(2026, 11, 29, 2, tzinfo=UTC).timestamp())

    class Started(Kubelet):
        async def read(self, _: object) -> UnitInfo:
            return replace(await super().read(_), active_since=started)

    hosts = [SimpleNamespace(name="w1")]
    run = SimpleNamespace(session=lambda _: Started(), backup=BackupRun(), cluster=SimpleNamespace(hosts=hosts))
    await _note_kubelets(cast("Any", run), None if hour is None else datetime(2026, 11, 29, hour, tzinfo=UTC))
    assert run.backup.kubelets == {"w1": noted}


def named(kind: str, name: str, made: str, **more: object) -> dict[str, Any]:
    meta = {"name": name, "namespace": "kube-system", "creationTimestamp": made, **more}
    return {"kind": kind, "metadata": meta}


class Cluster(Place):
    """An API with a few objects."""

    name = "cluster"

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = list(objects)

    async def list_(self, _: str, kind: str) -> list[dict[str, Any]]:
        """Return those of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    async def delete(self, _: str, kind: str, name: str, namespace: str) -> bool:
        """Take one away; its owner makes a new one."""
        assert namespace == "kube-system"
        (old,) = [one for one in self.objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
        self.objects.remove(old)
        return True

    def forget(self) -> None:
        """Know nothing."""


async def test_what_is_newer_than_the_backup_is_named_and_pods_are_said_to_be_ended() -> None:
    kube = Cluster(
        named("Pod", "old", "2026-11-28T11:00:00Z"),
        named("Pod", "job-1", "2026-11-28T13:00:00Z"),
        named("ConfigMap", "new", "2026-11-28T12:00:01Z"),
    )
    lines = await _losses(cast("Kube", kube), TAKEN)
    assert lines == [
        "1 Pod newer than the backup will be ended by their kubelets: kube-system/job-1",
        "1 ConfigMap newer than the backup will be gone: kube-system/new",
    ]


async def test_an_api_that_does_not_answer_keeps_from_no_restore_and_is_said() -> None:
    async def kube() -> Kube:
        raise ApiUnavailable("connection refused")

    run = SimpleNamespace(kube=kube, backup=BackupRun(source="20261128T120000Z"), warned=[])
    (result,) = await restore_loses(cast("Any", run), "restore_loses", "cluster")
    assert result.outcome == "ok"
    assert "cannot be told" in run.warned[0]


async def test_pods_of_the_clusters_own_that_are_older_than_the_restore_are_made_anew() -> None:
    owned = {"ownerReferences": [{"kind": "DaemonSet"}]}
    static = {"ownerReferences": [{"kind": "Node"}]}
    kube = Cluster(
        named("Pod", "kube-proxy-1", "2026-11-28T11:00:00Z", **owned),
        named("Pod", "kube-proxy-2", "2026-11-28T13:00:00Z", **owned),
        named("Pod", "etcd-cp1", "2026-11-28T11:00:00Z", **static),
        {
            "kind": "Pod",
            "metadata": {"name": "train", "namespace": "default", "creationTimestamp": "2026-11-28T11:00:00Z"},
        },
    )
    (result,) = await converge([WatchersStarted(TAKEN)], cast("Kube", kube), Impact.WORKLOADS)
    assert result.outcome == "changed"
    assert [one["metadata"]["name"] for one in kube.objects] == ["kube-proxy-2", "etcd-cp1", "train"]


async def test_a_daemon_set_counts_by_its_ready_pods_and_not_by_a_status_of_before() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    sets = {**named("DaemonSet", "kube-proxy", "2026-11-28T11:00:00Z", uid="1"), "status": {}}
    sets["status"] = {"desiredNumberScheduled": 1, "numberReady": 1}
    pod = {**named("Pod", "kube-proxy-1", "2026-11-28T13:00:00Z", ownerReferences=[{"uid": "1"}]), "status": {}}
    drift = await DaemonSetsRun().check(cast("Kube", Cluster(sets, pod)))
    assert drift is not None
    assert drift.have == "kube-system/kube-proxy: 0 of 1"
    assert await DaemonSetsRun().check(cast("Kube", Cluster(sets, {**pod, "status": ready}))) is None
