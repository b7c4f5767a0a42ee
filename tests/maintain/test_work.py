"""What becomes of a host in each ending of its turn: untouched, restarted, proven, opened, or kept closed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.cluster_file import parse_cluster
from shipway.errors import Refused
from shipway.facts.packages import Pending
from shipway.facts.services import UnitState
from shipway.gpu.chosen import VENDOR
from shipway.kube.drain import CORDONED
from shipway.step import Drift, StepResult
from shipway.steps.kubernetes import retire
from shipway.steps.maintain import pause, restart
from shipway.steps.runtime.containerd import CriAnswers
from shipway.steps.upgrade.possible import EtcdFits
from shipway.steps.upgrade.proof import NoGpuErrors
from tasks import gates
from tasks.context import Run
from tasks.maintain import look, work
from tasks.passes.maintain import SystemState
from tasks.waves import turn
from tests.maintain.hosts import Family, Restarting, Update
from tests.places.facts import said, unit
from tests.retire.objects import Object, node, pod
from tests.upgrade.test_work import GPU, Api, codes

FILE = """
name: te
profile: seed
kubernetes: {version: 1.32.0}
upgrade: {soak_seconds: 0, hosts_at_once: 2}
hosts:
- {name: cp, address: 192.0.2.1}
- {name: w1, address: 192.0.2.2, gpus: 1}
- {name: w2, address: 192.0.2.3, gpus: 1}
- {name: w3, address: 192.0.2.4}
"""
LIBC = Pending("libc6", "2.36-9", "2.36-10", "libc")
RESTART = "the host runs what is installed"


def a_run(mode: Any = "maintain", **maintain: Any) -> Run:
    """Return a run whose looks are done: every host has a package to update."""
    cluster = parse_cluster(FILE)
    settings = cluster.maintain.model_copy(update=maintain)
    run = Run(cluster.model_copy(update={"maintain": settings}), mode)
    run.kind = "maintain"
    for host in run.cluster.hosts:
        run.maintenance.hosts[host.name] = SystemState((LIBC,), running="6.1.0-18-amd64")
        run.maintenance.kubelets[host.name], run.maintenance.cordons[host.name] = "1.32.0", ""
    look.make_order(run)
    return run


class Scene:
    """A run on one host, its node, and its family."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Run, *pods: Object, name: str = "w1") -> None:
        self.run, self.name, self.node, self.family = run, name, node(name), Family()
        self.family.waiting = [LIBC]
        self.node["status"]["nodeInfo"] = {"kubeletVersion": "v1.32.0"}
        self.node["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-11-29T05:00:10Z"
        self.node["status"]["allocatable"] = {VENDOR.resource: "1"}
        self.api = Api(self.node, *pods)
        self.host = Restarting(self.family, {UnitState("kubelet.service"): unit()})
        self.host.facts[NoGpuErrors(1).messages] = said("usb 1-1: new device")
        self.proven: list[str] = []
        self.reached: list[str] = []
        self.seen: list[str] = []

        async def kube() -> Any:
            return self.api

        async def reach(_kube: Any, _cluster: Any, name: str, _hear: Any) -> None:
            self.reached.append(f"{name} {'closed' if self.closed else 'open'}")

        async def prove(_kube: Any, _cluster: Any, name: str, _count: int, _hear: Any) -> None:
            self.proven.append(f"{name} {'closed' if self.closed else 'open'}")

        async def fine(check: Any, on: Any) -> None:
            self.seen.append(f"{check.name} ({'closed' if self.closed else 'open'})")
            del on

        async def sleep(_: float) -> None:
            """Take no time."""

        monkeypatch.setattr(run, "kube", kube)
        monkeypatch.setattr(run, "session", lambda _: self.host)
        monkeypatch.setattr(run, "family", lambda _: self.family)
        monkeypatch.setattr(turn, "prove_host", prove)
        monkeypatch.setattr(turn, "prove_reach", reach)
        for check in (CriAnswers, EtcdFits, pause.QuorumStays, gates.ApiAnswers, gates.EtcdHealthy):
            monkeypatch.setattr(check, "check", fine)
        real = restart.asyncio
        monkeypatch.setattr(restart, "asyncio", SimpleNamespace(sleep=sleep, timeout=real.timeout, gather=real.gather))

    @property
    def closed(self) -> bool:
        """Whether the node takes no pods."""
        return bool(self.node["spec"].get("unschedulable"))

    async def turn(self) -> list[StepResult]:
        """Return the results of the host's stage."""
        stage = work.maintain_control_plane if look.is_control(self.run, self.name) else work.maintain_worker
        return await stage(self.run, "maintain", self.name)


class Killed(BaseException):
    """The controller died."""


def outcome_of(results: list[StepResult], step: str) -> str:
    return next(one.outcome for one in results if one.step == step)


async def test_a_worker_is_emptied_updated_restarted_where_that_is_asked_for_proven_and_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, a_run())
    scene.family.then = ["changed since the boot: libc6"]
    results = await scene.turn()
    assert codes(results) == []
    assert scene.host.done == ["update", "systemctl reboot"]
    assert (scene.proven, scene.closed) == (["w1 closed"], False)
    assert CORDONED not in scene.node["metadata"]["annotations"]
    assert outcome_of(results, RESTART) == "changed"
    assert results[-1].outcome == "ok"
    assert scene.seen == [f"{CriAnswers().name} (closed)"]


async def test_a_worker_that_nothing_asks_to_be_restarted_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run())
    results = await scene.turn()
    assert (codes(results), scene.host.done, scene.closed) == ([], ["update"], False)


async def test_never_restarts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run(reboot="never"))
    scene.family.then = ["changed since the boot: libc6"]
    assert codes(await scene.turn()) == []
    assert scene.host.done == ["update"]


async def test_without_packages_only_the_restart_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run(packages="none"))
    scene.family.reasons = ["the system asks for it"]
    assert codes(await scene.turn()) == []
    assert scene.host.done == ["systemctl reboot"]
    assert await work.fetch(scene.run, "maintain_fetch", "w1") == []


async def test_a_plan_changes_nothing_and_says_that_a_restart_is_known_later(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run("plan"), pod("a", "w1"))
    results = await scene.turn()
    assert (scene.host.done, scene.closed, scene.proven) == ([], False, [])
    assert outcome_of(results, "every package of the system is the newest offered") == "drifted"
    assert outcome_of(results, RESTART) == "unknown"
    scene.family.reasons = ["the system asks for it"]
    assert outcome_of(await scene.turn(), RESTART) == "drifted"


async def test_a_restart_that_is_refused_at_the_last_moment_leaves_a_host_that_works_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, a_run())
    scene.family.then, scene.family.worker = ["changed since the boot: libc6"], "dpkg (7)"
    results = await scene.turn()
    assert codes(results) == ["SHW-822"]
    assert (scene.host.done, scene.proven, scene.closed) == (["update"], ["w1 closed"], False)


def when_updated(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen while packages are installed, between the drain and the restart."""
    real = Update.apply

    async def apply(step: Update, on: Any) -> None:
        await real(step, on)
        happens()

    monkeypatch.setattr(Update, "apply", apply)


TOLERANT = [{"operator": "Exists"}]


@pytest.mark.parametrize(
    ("name", "came", "opened", "code"),
    [
        ("w1", [pod("web", "w1")], True, "SHW-714"),
        ("w1", [pod("train", "w1", owner="Job", container=GPU)], True, "SHW-714"),
        ("w1", [], True, "SHW-714"),
        ("w1", [pod("web", "w1")], False, "SHW-714"),
        ("w1", [pod("train", "w1", owner="Job", container=GPU, tolerations=TOLERANT)], False, "SHW-795"),
        ("cp", [pod("web", "cp")], True, "SHW-714"),
        ("cp", [], True, "SHW-714"),
    ],
)
async def test_a_host_whose_node_is_in_use_again_since_its_drain_is_not_restarted(
    monkeypatch: pytest.MonkeyPatch, name: str, came: list[Object], code: str, *, opened: bool
) -> None:
    scene = Scene(monkeypatch, a_run(), name=name)
    scene.family.then = ["changed since the boot: libc6"]

    def opens() -> None:
        scene.api.objects += came
        if opened:
            scene.node["spec"]["unschedulable"] = None

    when_updated(monkeypatch, opens)
    results = await scene.turn()
    assert codes(results) == [code]
    assert (scene.host.done, scene.closed) == (["update"], False)
    assert scene.proven == [], "a proof would ask for GPUs that these pods hold"
    assert scene.reached == [f"{name} {'open' if opened else 'closed'}"]


@pytest.mark.parametrize(
    ("name", "came"),
    [
        ("w1", pod("log", "w1", owner="DaemonSet")),
        ("w1", pod("late", "w1", tolerations=TOLERANT)),
        ("cp", pod("coredns", "cp", namespace="kube-system")),
    ],
)
async def test_what_a_drain_leaves_keeps_from_no_restart(
    monkeypatch: pytest.MonkeyPatch, name: str, came: Object
) -> None:
    scene = Scene(monkeypatch, a_run(), name=name)
    scene.family.then = ["changed since the boot: libc6"]
    when_updated(monkeypatch, lambda: scene.api.objects.append(came))
    assert codes(await scene.turn()) == []
    assert scene.host.done == ["update", "systemctl reboot"]


@pytest.mark.parametrize(("space", "emptied"), [("default", True), ("kube-system", False)])
async def test_a_control_plane_is_drained_where_pods_have_come_since_the_first_look(
    monkeypatch: pytest.MonkeyPatch, space: str, *, emptied: bool
) -> None:
    scene = Scene(monkeypatch, a_run(), pod("late", "cp", namespace=space), name="cp")
    assert scene.run.waves.pods == {}, "none was there"
    drained: list[str] = []

    async def drain(_: Any, name: str, **__: Any) -> list[str]:
        drained.append(f"{name} {'closed' if scene.closed else 'open'}")
        scene.api.objects.pop()
        return []

    monkeypatch.setattr(retire, "drain", drain)
    assert codes(await scene.turn()) == []
    assert scene.reached == ["cp closed"], "DNS and the API answer a pod there, as on any host"
    assert drained == (["cp closed"] if emptied else [])


async def test_a_host_that_does_not_come_back_stays_closed_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run())
    scene.family.reasons, scene.host.stays = ["the system asks for it"], True
    ticks = iter(range(0, 100_000, 100))
    monkeypatch.setattr(restart, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    results = await scene.turn()
    assert codes(results)[0] == "SHW-824"
    assert codes(results)[-1] == "SHW-796"
    assert "its maintenance, so its node stays closed" in str(results[-1].error)
    assert scene.closed


async def test_a_host_that_was_restarted_before_a_kill_is_not_restarted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run())
    scene.family.then, scene.host.away = ["changed since the boot: libc6"], 1

    async def killed() -> None:
        raise Killed

    monkeypatch.setattr(scene.run, "connect_anew", lambda _: killed())
    with pytest.raises(Killed):
        await scene.turn()
    assert (scene.closed, scene.host.done) == (True, ["update", "systemctl reboot"])
    scene.host.down = 0
    again = Scene(monkeypatch, a_run())
    again.host, again.node, again.api, again.family = scene.host, scene.node, scene.api, scene.family
    again.run.maintenance.cordons["w1"] = look.closed_by(again.node)
    again.run.maintenance.hosts["w1"] = await look.read_system(again.run, "w1")
    assert look.is_resumed(again.run, "w1")
    assert look.waves_in_order(again.run)[0] == ("w1",)
    results = await again.turn()
    assert (codes(results), again.closed, again.host.done) == ([], False, ["update", "systemctl reboot"])
    assert again.proven == ["w1 closed"]


async def test_a_host_whose_jobs_are_never_touched_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run()
    settings = run.cluster.upgrade.model_copy(update={"gpu_jobs": "never"})
    run.cluster = run.cluster.model_copy(update={"upgrade": settings})
    scene = Scene(monkeypatch, run, pod("a", "w1", owner="Job", container=GPU))
    assert codes(await scene.turn()) == ["SHW-795"]
    assert (scene.host.done, scene.closed) == ([], False)


async def test_a_control_plane_is_closed_and_etcd_is_asked_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run(), name="cp")
    scene.family.reasons = ["the system asks for it"]
    results = await scene.turn()
    assert codes(results) == []
    assert scene.host.done == ["update", "systemctl reboot"]
    etcd, quorum = EtcdFits("1", "1").name, pause.QuorumStays().name
    assert scene.seen[:2] == [f"{etcd} (open)", f"{quorum} (open)"]
    assert scene.seen[2] == f"{quorum} (closed)", "and right before its restart"
    assert f"{etcd} (closed)" in scene.seen[3:]
    assert scene.seen.index(f"{gates.ApiAnswers().name} (closed)") > 2
    assert not scene.closed


async def test_a_control_plane_without_quorum_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run(), name="cp")

    async def none(*_: Any) -> None:
        raise Refused("no control plane may be restarted now", code="SHW-823")

    monkeypatch.setattr(pause.QuorumStays, "check", none)
    assert codes(await scene.turn()) == ["SHW-823"]
    assert (scene.host.done, scene.closed) == ([], False)


async def test_an_api_that_does_not_come_back_ends_it_with_the_control_plane_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, a_run(), name="cp")

    async def away(*_: Any) -> None:
        raise Refused("the API is away", code="SHW-601")

    monkeypatch.setattr(gates.ApiAnswers, "check", away)
    assert codes(await scene.turn()) == ["SHW-601", "SHW-796"]
    assert scene.closed


async def test_the_run_waits_until_its_lease_is_renewed_again() -> None:
    run = a_run()
    held = work.StillHeld(run)
    assert await held.check(cast("Any", None)) is None
    run.locks.lost = Refused("not renewed for 40 s")
    assert await held.check(cast("Any", None)) is not None


async def test_containerd_is_brought_to_its_pinned_version_with_its_configuration() -> None:
    run = a_run()
    plain = [step.name for step in work.system_steps(run, "s", "w1", SystemState())]
    run.seen.families = {}
    state = SystemState(runtime=("1.6.20", "1.7.27"))
    names = [step.name for step in work.system_steps(run, "s", "w1", state)]
    assert "containerd has the nvidia runtime" in names
    assert "containerd has the nvidia runtime" not in [step.name for step in work.system_steps(run, "s", "w3", state)]
    assert names[-1] == plain[-1] == RESTART
    assert len(plain) == 3


async def test_a_system_is_read_with_what_its_kernel_may_do(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a_run())
    scene.family.reasons = ["the system asks for it"]
    state = await look.read_system(scene.run, "w1")
    assert state == SystemState((LIBC,), ("the system asks for it",), "6.1.0-18-amd64", kernel=False)
    assert (await look.read_system(scene.run, "w3")).kernel, "no GPUs, no module"
    scene.host.facts[restart.DKMS] = said(f"{VENDOR.module}/550.1, 6.1.0-18-amd64, x86_64: installed\n")
    assert (await look.read_system(scene.run, "w1")).kernel
    scene.family.runtime = Drift("containerd.io 1.6.20-1", "containerd.io 1.7.27")
    version = scene.run.cluster.runtime.version
    assert (await look.read_system(scene.run, "w3")).runtime == ("containerd.io 1.6.20-1", version)
    never = a_run(reboot="never")
    assert await look._runtime(never, cast("Any", scene.host), cast("Any", scene.family)) is None, "no restart after it"
