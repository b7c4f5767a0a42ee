"""What becomes of a node in each ending of its turn: emptied, given up, upgraded, proven, or kept closed."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.cluster.model import Cluster
from shipway.errors import PostconditionFailed
from shipway.facts.services import UnitState
from shipway.gpu.chosen import VENDOR
from shipway.kube.drain import CORDONED
from shipway.step import Drift, Impact, StepResult
from shipway.steps.kubernetes import etcd_members
from shipway.steps.upgrade import gpu_jobs, proof
from shipway.steps.upgrade.possible import EtcdFits
from shipway.steps.upgrade.proof import NoGpuErrors
from tasks.context import Run
from tasks.stage_result import StageResult
from tasks.stages import device_plugin
from tasks.upgrade import work
from tasks.waves import turn
from tests.places.facts import KnownFacts, said, unit
from tests.retire.objects import Object, Objects, meta, node, pod
from tests.upgrade.test_flow import NEW, OLD, a_run, behind, versions

SERVERS = ("https://lb.site:6443", "https://192.0.2.{}:6443")  # a load balancer, and each control plane's own
GPU = {"resources": {"limits": {VENDOR.resource: "1"}}}


class Step:
    """A step about the host that is done once it was applied."""

    impact = Impact.WORKLOADS
    name = "the host is of the version"

    def __init__(self, *, fails: bool = False) -> None:
        self.fails, self.applied = fails, 0

    async def check(self, on: object) -> Drift | None:
        """Tell."""
        del on
        return None if self.applied and not self.fails else Drift(OLD, NEW)

    async def apply(self, on: object) -> None:
        """Count."""
        del on
        self.applied += 1


class Api(Objects):
    """Objects that are read anew each time."""

    def forget(self) -> None:
        """Know nothing."""

    async def patch(self, api_version: str, kind: str, name: str, changes: Object, namespace: str = "") -> Object:
        """Write a note or take it away."""
        found = await super().patch(api_version, kind, name, changes, namespace)
        notes = found["metadata"]["annotations"]
        found["metadata"]["annotations"] = {key: value for key, value in notes.items() if value is not None}
        return found


class Scene:
    """A run on one worker, its node, and what its stage's steps do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Run, *pods: Object, fails: bool = False) -> None:
        self.run, self.node, self.step = run, node("w1"), Step(fails=fails)
        self.node["status"]["nodeInfo"] = {"kubeletVersion": f"v{NEW}"}
        self.node["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-11-29T05:00:10Z"
        self.api, self.host = Api(self.node, *pods), KnownFacts({UnitState("kubelet.service"): unit()})
        self.host.facts[NoGpuErrors(1).messages] = said("usb 1-1: new device")
        self.host.forget = lambda: None  # type: ignore[method-assign]
        self.proven: list[str] = []
        self.reached: list[str] = []
        self.mode = ""

        async def kube() -> Any:
            return self.api

        async def reach(_kube: Any, _cluster: Any, name: str, _hear: Any) -> None:
            self.reached.append(f"{name} {'closed' if self.closed else 'open'}")

        async def prove(_kube: Any, cluster: Cluster, name: str, _count: int, _hear: Any) -> None:
            self.proven.append(f"{name} {'closed' if self.closed else 'open'}")
            self.mode = cluster.gpu.mode

        monkeypatch.setattr(run, "kube", kube)
        monkeypatch.setattr(run, "session", lambda _: self.host)
        monkeypatch.setattr(work, "_kubeadm_steps", lambda *_: [])
        monkeypatch.setattr(work, "_kubelet_steps", lambda *_, **__: [self.step])
        monkeypatch.setattr(turn, "prove_host", prove)
        monkeypatch.setattr(turn, "prove_reach", reach)
        self.node["status"]["allocatable"] = {VENDOR.resource: "1"}

    @property
    def closed(self) -> bool:
        """Whether the node takes no pods."""
        return bool(self.node["spec"].get("unschedulable"))

    async def turn(self) -> list[StepResult]:
        """Return the results of the worker's stage."""
        return await work.upgrade_worker(self.run, "upgrade_worker", "w1")


def codes(results: list[StepResult]) -> list[str]:
    return [result.error.code for result in results if result.error]


async def test_a_worker_is_closed_upgraded_proven_while_closed_and_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run())
    results = await scene.turn()
    assert codes(results) == []
    assert (scene.step.applied, scene.proven, scene.closed) == (1, ["w1 closed"], False)
    assert CORDONED not in scene.node["metadata"]["annotations"]
    assert results[-1].outcome == "ok", "what was closed is open again: no change to tell of"
    assert {one.step for one in results if one.outcome == "changed"} == {
        "node w1 takes no new pods",
        "the host is of the version",
    }


async def test_a_plan_closes_nothing_and_says_what_would_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run("plan"), pod("a", "w1", owner="Job", container=GPU))
    results = await scene.turn()
    assert (scene.step.applied, scene.closed, scene.proven) == (0, False, [])
    assert [(one.step, one.outcome) for one in results] == [
        ("node w1 takes no new pods", "drifted"),
        ("no GPU job that is waited for runs on node w1", "drifted"),
        ("node w1 is drained", "unknown"),
        ("the host is of the version", "drifted"),
    ]


async def test_a_host_whose_jobs_outlast_the_wait_is_opened_again_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run(wait_minutes=1), pod("a", "w1", owner="Job", container=GPU))

    async def sleep(_: float) -> None:
        assert scene.closed, "no further job comes to it"

    ticks = itertools.count(0, 40)
    monkeypatch.setattr(gpu_jobs, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(gpu_jobs, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    results = await scene.turn()
    assert codes(results) == ["SHW-795"]
    assert (scene.step.applied, scene.closed) == (0, False)


async def test_a_control_plane_is_not_begun_while_etcd_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run())
    monkeypatch.setattr(work, "_kubeadm_steps", lambda *_: [scene.step])
    monkeypatch.setattr(etcd_members, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(work, "EtcdFits", partial(EtcdFits, seconds=0.0))
    results = await work.upgrade_control_plane(scene.run, "upgrade_control_plane", "cp")
    assert (codes(results)[0], scene.step.applied) == ("SHW-782", 0)
    assert [one.outcome for one in results][:2] == ["ok", "failed"]


async def test_a_kubelet_that_comes_last_has_a_turn_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def part(name: str) -> Any:
        async def bring(*_: Any, **__: Any) -> list[StepResult]:
            asked.append(name)
            return []

        return bring

    for name in ("_empty", "_bring_api", "_bring_kubelet"):
        monkeypatch.setattr(work, name, part(name))
    last, at_once = ["_bring_api"], ["_empty", "_bring_api", "_bring_kubelet"]
    for server, first in zip(SERVERS, (last, at_once), strict=True):
        run = behind(server)
        run.waves.pods["cp2"] = 1  # of a user: its host is emptied before its kubelet
        for stage, wanted in (
            (work.upgrade_control_plane, first),
            (work.upgrade_kubelet, ["_empty", "_bring_kubelet"]),
        ):
            await stage(run, "upgrade", "cp2")
            assert asked == wanted
            asked.clear()
    apis = {server: [api.address for api in work._apis(behind(server), "cp2")] for server in SERVERS}
    assert list(apis.values()) == [["192.0.2.1", "192.0.2.2", "192.0.2.3"], ["192.0.2.2"]]


async def test_a_window_that_closes_during_the_wait_leaves_the_host_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run())
    monkeypatch.setattr(turn, "closed_until", lambda _: "the maintenance window is closed; it opens tomorrow")
    results = await scene.turn()
    assert codes(results) == ["SHW-798"]
    assert (scene.step.applied, scene.closed) == (0, False)


async def test_a_host_that_fails_in_the_middle_stays_closed_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run(), fails=True)
    results = await scene.turn()
    assert codes(results) == ["SHW-303", "SHW-796"]
    assert scene.closed
    assert "its node stays closed" in str(results[-1].error)


async def test_a_host_is_proven_in_the_way_that_its_plugin_goes_while_the_declared_one_is_held_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = a_run()
    run.cluster = run.cluster.model_copy(update={"gpu": run.cluster.gpu.model_copy(update={"mode": "dra"})})
    scene = Scene(monkeypatch, run)
    (plugin,) = device_plugin.daemon_set(
        run.cluster.model_copy(update={"gpu": run.cluster.gpu.model_copy(update={"mode": "runtime_class"})})
    )
    scene.api.objects.append(plugin)
    await scene.turn()
    assert (scene.proven, scene.mode) == (["w1 closed"], "runtime_class")


async def test_a_host_whose_gpus_cannot_be_used_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run())

    async def broken(*_: Any) -> None:
        raise PostconditionFailed("not every GPU of w1 can be used", host="w1", code="SHW-796")

    monkeypatch.setattr(turn, "prove_host", broken)
    results = await scene.turn()
    assert codes(results) == ["SHW-796", "SHW-796"]
    assert scene.closed


async def test_a_host_whose_kernel_tells_of_errors_stays_closed_and_one_that_cannot_tell_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, a_run())
    line = f"NVRM: {VENDOR.kernel_word.title()} (PCI:0000:3b:00): 79, GPU has fallen off the bus."
    scene.host.facts[NoGpuErrors(1).messages] = said(f"proxied\n{line}\n")
    results = await scene.turn()
    assert (codes(results), scene.closed) == (["SHW-796", "SHW-796"], True)
    assert "fallen off" in next(one.error.message for one in results if one.error)
    dumb = Scene(monkeypatch, a_run())
    dumb.host.facts[NoGpuErrors(1).messages] = said("", 1)
    results = await dumb.turn()
    assert ([one.outcome for one in results if one.error], dumb.closed) == (["unknown"], False)


RENEWED = ["Pod/plugin-x"]


@pytest.mark.parametrize(("started", "gone"), [("2026-11-29T04:00:00Z", RENEWED), ("2026-11-29T06:00:00Z", [])])
async def test_a_plugin_older_than_the_new_kubelet_is_started_anew(
    monkeypatch: pytest.MonkeyPatch, started: str, gone: list[str]
) -> None:
    """A reload of systemd took its GPU from it (seen on an H200): it never registered with the upgraded kubelet."""
    labels = dict(VENDOR.plugin.labels)
    plugin = pod("plugin-x", "w1", owner="DaemonSet", namespace=VENDOR.plugin.namespace, labels=labels)
    plugin["status"]["containerStatuses"] = [{"state": {"running": {"startedAt": started}}}]
    other = pod("plugin-y", "w2", owner="DaemonSet", namespace=VENDOR.plugin.namespace, labels=labels)
    other["status"]["containerStatuses"] = [{"state": {"running": {"startedAt": "2026-11-29T04:00:00Z"}}}]
    owner = {"kind": "DaemonSet", "metadata": meta("plugin-x-owner", VENDOR.plugin.namespace)}
    scene = Scene(monkeypatch, a_run(), plugin, other, owner)
    since = int(datetime(2026, 11, 29, 5, 0, 0, tzinfo=UTC).timestamp())
    scene.host.facts[UnitState("kubelet.service")] = replace(unit(), active_since=since)
    scene.host.facts[NoGpuErrors(since).messages] = said("usb 1-1: new device")
    assert codes(await scene.turn()) == []
    assert scene.api.deleted == gone


async def test_a_host_that_was_begun_is_not_opened_when_its_jobs_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(gpu_jobs="never")
    run.upgrade.hosts["w1"] = versions(NEW)
    scene = Scene(monkeypatch, run, pod("a", "w1", owner="Job", container=GPU))
    assert codes(await scene.turn()) == ["SHW-795"]
    assert scene.closed, "it is half upgraded, and not proven"


async def test_a_node_that_somebody_else_closed_is_never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run())
    scene.node["spec"]["unschedulable"] = True
    results = await scene.turn()
    assert codes(results) == []
    assert scene.closed


async def test_no_step_is_applied_once_the_cluster_is_lost_to_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run())
    scene.run.locks.lost = PostconditionFailed("another run holds it", code="SHW-102")
    with pytest.raises(Exception, match="no longer holds the cluster"):
        await scene.turn()
    assert (scene.closed, scene.step.applied) == (False, 0)


async def test_the_stage_of_a_host_may_take_as_long_as_its_jobs() -> None:
    from tasks.table import STAGES  # noqa: PLC0415 - the table imports every stage

    run = a_run(wait_minutes=600)
    stage = STAGES["upgrade_worker"]  # type: ignore[index]
    assert stage.seconds(run.cluster) > 600 * 60 + turn.DRAIN_SECONDS
    assert isinstance(StageResult("w1", stage.name, "ok"), StageResult)


class Pods(Api):
    """An API whose pods run as soon as they are made, each with a GPU of its own; or not."""

    def __init__(self, *, same: bool = False, reached: str = "DNS answers, API answers") -> None:
        super().__init__()
        self.same, self.reached, self.made = same, reached, list[str]()

    async def apply(self, obj: Object) -> Object:
        """Make it, and let it run."""
        made = {**obj, "metadata": {"uid": "u", **obj["metadata"]}, "status": {"phase": "Running"}}
        self.objects.append(made)
        if obj["kind"] == "Pod":
            self.made.append(f"{obj['metadata']['name']} on {obj['spec']['nodeName']}")
        return made

    async def delete(self, api_version: str, kind: str, name: str, namespace: str = "", **_: Any) -> bool:
        """Take it away."""
        return await super().delete(api_version, kind, name, namespace)

    async def logs(self, namespace: str, name: str) -> str:
        """Say which GPU it has."""
        del namespace
        number = 1 if self.same else name.rpartition("-")[2]
        return f"{self.reached}\ndevices=GPU-{number}\nnodes of w1: \nGPU 0: x (UUID: GPU-{number})\ngpus-listed\n"


async def test_a_host_is_proven_by_a_pod_for_each_of_its_gpus() -> None:
    run, api = a_run(), Pods()
    cluster = run.cluster.model_copy(update={"gpu": run.cluster.gpu.model_copy(update={"compute": "off"})})
    await proof.prove_host(api, cluster, "w1", 2)  # type: ignore[arg-type]
    assert api.made == ["gpu-test-w1-1 on w1", "gpu-test-w1-2 on w1"]
    assert [one for one in api.objects if one["kind"] == "Pod"] == []
    await proof.take_namespace_away(api)  # type: ignore[arg-type]
    assert [one for one in api.objects if one["kind"] == "Namespace"] == []
    twice = Pods(same=True)
    with pytest.raises(PostconditionFailed) as raised:
        await proof.prove_host(twice, cluster, "w1", 2)  # type: ignore[arg-type]
    assert raised.value.code == "SHW-796"
    assert len([one for one in twice.objects if one["kind"] == "Pod"]) == 2, "left to be seen"


class Reaching(Pods):
    """An API whose pods are in a state, and say what they say."""

    def __init__(
        self, *, reached: str = "", state: Object | None = None, phase: str = "Running", event: str = ""
    ) -> None:
        super().__init__(reached=reached)
        self.state, self.phase, self.event = state or {}, phase, event

    async def apply(self, obj: Object) -> Object:
        """Make it, and let it be in that state."""
        made = await super().apply(obj)
        made["status"] = {"phase": self.phase, "containerStatuses": [{"state": self.state}]}
        return made

    async def logs(self, namespace: str, name: str) -> str:
        """Say what is reached."""
        del namespace, name
        return self.reached

    async def events_of(self, made: Object) -> list[str]:
        """Say what became of the image."""
        del made
        return [self.event] if self.event else []


def waiting(reason: str) -> Object:
    return {"waiting": {"reason": reason, "message": "no such host"}}


async def reached(api: Reaching, heard: list[str] | None = None) -> list[str]:
    """Return what is left of the proof of a host without GPUs."""
    cluster = a_run().cluster
    quick = cluster.model_copy(update={"gpu": cluster.gpu.model_copy(update={"verify_seconds": 0.1})})
    await proof.prove_reach(api, quick, "w1", (heard or []).append)  # type: ignore[arg-type]
    return [one["metadata"]["name"] for one in api.objects if one["kind"] == "Pod"]


async def test_a_host_without_gpus_is_proven_by_a_pod_that_dns_and_the_api_answer() -> None:
    api = Reaching(reached="DNS answers, API answers")
    assert await reached(api) == []
    assert api.made == ["reach-test-w1 on w1"]
    for wrong in (
        Reaching(reached="DNS silent, API answers"),
        Reaching(reached="DNS answers, API silent"),
        Reaching(state=waiting("ContainerCreating"), phase="Pending"),
        Reaching(phase="Failed"),
    ):
        with pytest.raises(PostconditionFailed) as raised:
            await reached(wrong)
        assert raised.value.code == "SHW-796"
        assert [one for one in wrong.objects if one["kind"] == "Pod"], "left to be seen"


@pytest.mark.parametrize(
    ("api", "why"),
    [
        (Reaching(state=waiting("ImagePullBackOff"), phase="Pending"), "cannot be had (ImagePullBackOff)"),
        (Reaching(state=waiting("ContainerCreating"), phase="Pending", event="Pulling: image"), "still being pulled"),
    ],
)
async def test_a_host_that_cannot_have_the_image_of_the_test_pods_is_told_of(api: Reaching, why: str) -> None:
    heard = ["first"]
    assert await reached(api, heard) == []
    assert why in heard[-1]


async def test_the_pod_network_is_asked_from_a_pod_once_kubeadm_has_brought_coredns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene, brought = Scene(monkeypatch, a_run()), ["ok"]

    async def none(*_: Any) -> list[StepResult]:
        return []

    async def bring(*_: Any) -> list[StepResult]:
        return [StepResult("kube-proxy runs the version", cast("Any", brought[0]))]

    monkeypatch.setattr(work, "bring", bring)
    monkeypatch.setattr(work, "by_api", none)
    await work.upgrade_addons(scene.run, "upgrade_addons", "cluster")
    assert scene.reached == [], "nothing was changed"
    brought[0] = "changed"
    results = await work.upgrade_addons(scene.run, "upgrade_addons", "cluster")
    assert (scene.reached, results[-1].step) == (["cp open"], proof.REACHES)


async def test_a_host_from_which_dns_or_the_api_is_not_reached_is_not_proven() -> None:
    run, heard = a_run(), list[str]()
    cluster = run.cluster.model_copy(update={"gpu": run.cluster.gpu.model_copy(update={"compute": "off"})})
    with pytest.raises(PostconditionFailed, match="DNS does not answer pods there"):
        await proof.prove_host(Pods(reached="DNS silent, API answers"), cluster, "w1", 2)  # type: ignore[arg-type]
    with pytest.raises(PostconditionFailed, match="the API does not answer pods there"):
        await proof.prove_host(Pods(reached="DNS untold, API silent"), cluster, "w1", 2)  # type: ignore[arg-type]
    await proof.prove_host(Pods(reached="DNS untold, API answers"), cluster, "w1", 2, heard.append)  # type: ignore[arg-type]
    assert [line for line in heard if "no program that asks DNS" in line]


@pytest.mark.parametrize(
    ("programs", "said_of_it"),
    [
        ({"getent": "exit 0", "bash": "exit 0"}, "DNS answers, API answers"),
        ({"nslookup": "exit 1", "nc": 'test "$*" = "-w 5 10.96.0.1 443"'}, "DNS silent, API answers"),
        ({"getent": "exit 0", "bash": "exit 1"}, "DNS answers, API silent"),
        ({}, "DNS untold, API untold"),
    ],
)
def test_a_pod_asks_by_what_its_image_has(programs: dict[str, str], said_of_it: str, tmp_path: Path) -> None:
    for name, script in {"sleep": "exit 0", **programs}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": str(tmp_path), "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    script = proof.REACH.format(name="kubernetes.default.svc.cluster.local")
    ran = subprocess.run(("/bin/sh", "-c", script), env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{said_of_it}\n"
