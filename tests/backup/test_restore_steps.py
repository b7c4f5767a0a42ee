"""A restore's checks and stages: nothing without a typed name, what will be lost is listed, and who must look anew."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.cli.restore import COMMAND
from flows.restore import restore
from shipway.cluster_file import parse_cluster
from shipway.converge import converge
from shipway.errors import ApiUnavailable, Refused
from shipway.facts.services import UnitInfo
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.ownership.evidence import Evidence
from shipway.place import Place
from shipway.step import Impact
from shipway.steps.backup.restored import BackupRestored, BackupThere, KubeletStarted
from shipway.steps.kubernetes.local_pods import DEVICES, STARTED_PODS, held_devices
from tasks.backup.restores import UNTOLD, _losses, _note_kubelets, restore_loses
from tasks.backup.watchers import DaemonSetsRun, WatchersStarted
from tasks.context import BackupRun, Run
from tests.backup.machine import LocalShell, Machine
from tests.places.facts import KnownFacts, said

FILE = "name: te\nprofile: seed\nhosts: [{name: cp1, address: 192.0.2.1}]\n"
UID = "0a1b2c3d-0000-4000-8000-000000000000"
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

    async def kinds(self) -> list[tuple[str, str]]:
        """Return the kinds of what is there."""
        return [("v1", kind) for kind in sorted({one["kind"] for one in self.objects})]

    async def list_(self, _: str, kind: str) -> list[dict[str, Any]]:
        """Return those of a kind."""
        if kind.startswith("Broken"):
            raise ApiUnavailable("no conversion")
        return [one for one in self.objects if one["kind"] == kind]

    async def delete(self, _: str, kind: str, name: str, namespace: str) -> bool:
        """Take one away; its owner makes a new one."""
        assert namespace == "kube-system"
        (old,) = [one for one in self.objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
        self.objects.remove(old)
        return True

    def forget(self) -> None:
        """Know nothing."""


async def test_what_is_newer_than_the_backup_is_named_of_every_kind_and_pods_are_said_to_be_ended() -> None:
    holder = named("Pod", "train-1", "2026-11-28T13:00:00Z")
    holder["spec"] = {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "4"}}}]}
    kube = Cluster(
        named("Pod", "old", "2026-11-28T11:00:00Z"),
        named("Pod", "job-1", "2026-11-28T13:00:00Z"),
        holder,
        named("ConfigMap", "new", "2026-11-28T12:00:01Z"),
        named("RayCluster", "ray", "2026-11-28T14:00:00Z"),
        named("Event", "something-happened", "2026-11-28T14:00:00Z"),
        {"kind": "ComponentStatus", "metadata": {"name": "etcd-0", "creationTimestamp": None}},
    )
    assert await _losses(cast("Kube", kube), TAKEN) == [
        (
            "2 Pod newer than the backup will be ended by their kubelets: "
            "kube-system/train-1 (nvidia.com/gpu: 4), kube-system/job-1"
        ),
        "1 ConfigMap newer than the backup will be gone: kube-system/new",
        "1 RayCluster newer than the backup will be gone: kube-system/ray",
    ]


@pytest.mark.parametrize(("broken", "told"), [(1, 1), (9, 6)])
async def test_a_kind_that_cannot_be_listed_is_said_and_the_others_are_told(broken: int, told: int) -> None:
    webhooks = [named(f"Broken{number}", "x", "2026-11-28T14:00:00Z") for number in range(broken)]
    lines = await _losses(cast("Kube", Cluster(named("Pod", "new", "2026-11-28T13:00:00Z"), *webhooks)), TAKEN)
    assert lines[0].startswith("1 Pod newer")
    assert lines[1] == "what is newer cannot be told of Broken0 (no conversion)"
    assert len(lines) == 1 + told
    assert ("not asked for any more" in lines[-1]) == (broken > UNTOLD)


async def test_an_api_that_does_not_answer_keeps_from_no_restore_and_each_host_tells_what_will_be_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def kube() -> Kube:
        raise ApiUnavailable("connection refused")

    run = Run(
        parse_cluster(FILE.replace("}]", "}, {name: w1, address: 192.0.2.2}, {name: w2, address: 192.0.2.3}]")), "plan"
    )
    run.backup.source = "20261128T120000Z"
    seen = {"w1": ("train/llm-0", "train/llm-1"), "w2": ("default/web",), "cp1": ()}
    run.seen.surveys = {
        name: SimpleNamespace(evidence=Evidence(name, running=bool(pods), pods=pods))  # type: ignore[misc]
        for name, pods in seen.items()
    }
    began = "\n".join(
        f"{int((TAKEN + timedelta(minutes=after)).timestamp())} {name}_{UID[:-1]}{number}"
        for number, (after, name) in enumerate(
            [(-5, "train_llm-0"), (5, "default_web"), (5, "train_llm-1"), (9, "train_llm-2")]
        )
    )
    notes = {
        "Data": {
            "PodDeviceEntries": [
                {
                    "PodUID": f"{UID[:-1]}3",
                    "ContainerName": "a",
                    "ResourceName": "nvidia.com/gpu",
                    "DeviceIDs": {"0": ["x", "y"]},
                }
            ]
        }
    }
    w1 = KnownFacts({STARTED_PODS: said(began), DEVICES: json.dumps(notes)})
    monkeypatch.setattr(run, "kube", kube)
    monkeypatch.setattr(run, "session", {"w1": w1, "w2": KnownFacts({})}.__getitem__)
    (result,) = await restore_loses(run, "restore_loses", "cluster")
    assert result.outcome == "ok"
    assert "cannot be told: the API does not answer" in run.warned[0]
    assert run.warned[1] == (
        "w1: 3 pods began after the backup and will be ended: train/llm-2 (nvidia.com/gpu: 2), default/web, train/llm-1"
    )
    assert run.warned[2].startswith("w2: which of its pods will be ended cannot be told")
    assert run.warned[2].endswith("there are: default/web")
    assert len(run.warned) == 3, "a bare host has no pods"


@pytest.mark.parametrize("cgroup", ["kubepods/pod{0}/x", "kubepods-burstable.slice/kubepods-pod{1}.slice/x", ""])
def test_the_pods_of_a_host_are_those_whose_processes_run_and_no_static_ones(tmp_path: Path, cgroup: str) -> None:
    dead = UID[:-1] + "9"
    for name in (f"train_llm-0_{UID}", f"done_job-1_{dead}", "kube-system_etcd-cp1_0123456789abcdef0123456789abcdef"):
        (tmp_path / "pods" / name).mkdir(parents=True)
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "cgroup").write_text(f"0::/{cgroup.format(UID, UID.replace('-', '_'))}\n")
    text = STARTED_PODS.command[-1].replace("/var/log/pods", f"{tmp_path}/pods").replace("/proc", f"{tmp_path}/proc")
    ran = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    lines = sorted(line.split(" ")[1] for line in ran.stdout.splitlines())
    assert lines == ([f"train_llm-0_{UID}"] if cgroup else [f"done_job-1_{dead}", f"train_llm-0_{UID}"])
    assert all(time.time() - 600 < int(line.split(" ")[0]) <= time.time() for line in ran.stdout.splitlines())


@pytest.mark.parametrize(
    ("ids", "held"),
    [(["a", "b"], "nvidia.com/gpu: 2"), ({"0": ["a"], "1": ["b", "c"]}, "nvidia.com/gpu: 3"), (7, None), (None, None)],
)
def test_the_kubelets_notes_tell_who_holds_devices(ids: Any, held: str | None) -> None:
    entry = {"PodUID": "u", "ContainerName": "a", "ResourceName": "nvidia.com/gpu", "DeviceIDs": ids}
    assert held_devices(json.dumps({"Data": {"PodDeviceEntries": [entry]}})).get("u") == held
    assert held_devices("") == held_devices("[]") == {}


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
