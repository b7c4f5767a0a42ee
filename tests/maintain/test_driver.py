"""A wave that changes the GPUs' driver: whose turn it is, what is asked, and what becomes of a host in each ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows import maintain as flow
from flows.cli import maintain as cli
from shipway.cluster_file import parse_cluster
from shipway.errors import ConnectionLost, Refused
from shipway.facts.boot import ASK
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Command
from shipway.os.debian.family import Debian
from shipway.script import Output
from shipway.step import StepResult
from shipway.steps.gpu.healthy import FabricReady, GpusHealthy
from shipway.steps.maintain import pause, restart
from shipway.steps.runtime.containerd import CriAnswers
from shipway.steps.upgrade.possible import EtcdFits
from shipway.steps.upgrade.proof import NoGpuErrors
from shipway.survey.first_look import Survey
from tasks import gates
from tasks.context import Run
from tasks.drivers import RESTART
from tasks.maintain import look, work
from tasks.passes.maintain import SystemState
from tasks.stage_result import errors_of
from tasks.waves import forbids, turn
from tests.gpu.driver_machine import KERNEL, V1, V2, DriverMachine
from tests.maintain.hosts import Fine
from tests.maintain.test_work import Killed
from tests.os.machine import Installed, Words
from tests.retire.objects import node, pod
from tests.upgrade.stages import Stages
from tests.upgrade.test_work import GPU, Api, codes

FILE = """
name: te
profile: seed
kubernetes: {version: 1.32.0}
gpu: {driver: {source: cuda, version: '%s'}}
upgrade: {soak_seconds: 0, hosts_at_once: 2}
hosts:
- {name: cp, address: 192.0.2.1}
- {name: w1, address: 192.0.2.2, gpus: 2}
- {name: w2, address: 192.0.2.3, gpus: 2}
- {name: w3, address: 192.0.2.4, gpus: 2}
"""
TOGETHER = f"the driver is {V2}, all of it"


@dataclass(frozen=True)
class Known(Debian):
    """Debian, whose repository of NVIDIA's is known already."""

    def repository(self, title: str, cluster: Any) -> Any:
        """Return that it is so."""
        del cluster
        return Fine(f"apt knows the {title} repository and its key")


@dataclass
class Serving(DriverMachine):
    """A host in service; `away` is the boot it is in."""

    boots: int = 1
    stays: bool = False
    done: list[str] = field(default_factory=list)
    dies: str = ""

    def forget(self) -> None:
        """Know nothing."""

    def program(self, words: Words) -> Output:
        """Answer what boot it is in."""
        if words == ("sh", "-c", ASK):
            stat = " ".join(["1 (systemd) S", *["0"] * 18, "100"])
            return Output(0, f"boot-{self.boots}\n{self.running}\n100\n1000\n{5000 + self.boots}\n{stat}\n", "")
        return super().program(words)

    async def do(self, *commands: Command) -> list[Output]:
        """Restart where that is asked for."""
        for command in commands:
            if command.words[:2] in (("systemctl", "reboot"), ("apt-mark", "hold")):
                self.done.append(" ".join(command.words[:2]))
            if self.dies and self.dies in " ".join(command.words):
                raise Killed
            if command.words == ("systemctl", "reboot"):
                if not self.stays:
                    self.boots += 1
                    self.restart()
                raise ConnectionLost("the connection broke while a command ran", host=self.name)
        return await super().do(*commands)


def with_driver(version: str, **more: Any) -> Serving:
    """Return a host with this driver, installed and loaded."""
    host = Serving(strict=False, name="w1", **more)
    host.packages[f"linux-headers-{KERNEL}"] = Installed("1")
    host.packages |= {
        name: Installed(f"{version}-1", held=True) for name in (*host.offered,) if name != "nvidia-kernel-dkms"
    }
    host.units |= {"nvidia-persistenced": ["active", "enabled"], "kubelet": ["active", "enabled"]}
    host.mods = {KERNEL}
    host.restart()
    return host


def a_run(mode: Any = "maintain", version: str = V2) -> Run:
    """Return a run about the driver, whose looks are to be done."""
    run = Run(parse_cluster(FILE % version), mode)
    run.kind, run.maintenance.driver = "maintain", True
    for host in run.cluster.hosts:
        run.maintenance.kubelets[host.name], run.maintenance.cordons[host.name] = "1.32.0", ""
        run.maintenance.hosts[host.name] = SystemState()
    return run


class Scene:
    """A run on one host, and its node."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, host: Serving, *pods: Any, mode: Any = "maintain") -> None:
        self.run, self.host, self.node = a_run(mode), host, node("w1")
        self.node["status"]["nodeInfo"] = {"kubeletVersion": "v1.32.0"}
        self.node["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-11-29T05:00:10Z"
        self.node["status"]["allocatable"] = {VENDOR.resource: "2"}
        self.api = Api(self.node, *pods)
        self.proven: list[str] = []
        self.reached: list[str] = []
        self.answers = True

        async def kube() -> Any:
            return self.api

        async def reach(_kube: Any, _cluster: Any, name: str, _hear: Any) -> None:
            self.reached.append(f"{name} {'closed' if self.closed else 'open'}")

        async def prove(_kube: Any, _cluster: Any, name: str, _count: int, _hear: Any) -> None:
            self.proven.append(f"{name} {'closed' if self.closed else 'open'} {self.loaded}")

        async def fine(check: Any, on: Any) -> None:
            del check, on

        async def healthy(check: Any, on: Any) -> None:
            del check, on
            if not self.answers:
                raise Refused("the driver does not answer")

        async def sleep(_: float) -> None:
            """Take no time."""

        async def nothing(_: Any) -> None:
            """Keep the connection."""

        family = Known()
        monkeypatch.setattr(self.run, "kube", kube)
        monkeypatch.setattr(self.run, "session", lambda _: self.host)
        monkeypatch.setattr(self.run, "family", lambda _: family)
        monkeypatch.setattr(self.run, "connect_anew", nothing)
        monkeypatch.setattr(turn, "prove_host", prove)
        monkeypatch.setattr(turn, "prove_reach", reach)
        monkeypatch.setattr(work, "FREE_SECONDS", 0.2)
        for check in (CriAnswers, EtcdFits, pause.QuorumStays, gates.ApiAnswers, FabricReady, NoGpuErrors):
            monkeypatch.setattr(check, "check", fine)
        monkeypatch.setattr(GpusHealthy, "check", healthy)
        real = restart.asyncio
        monkeypatch.setattr(restart, "asyncio", SimpleNamespace(sleep=sleep, timeout=real.timeout, gather=real.gather))

    @property
    def closed(self) -> bool:
        """Whether the node takes no pods."""
        return bool(self.node["spec"].get("unschedulable"))

    @property
    def loaded(self) -> str:
        """Which driver is loaded."""
        return self.host.files.get("/sys/module/nvidia/version", b"none").decode().strip()

    async def learn(self) -> SystemState:
        """Keep what the host's driver is."""
        state = self.run.maintenance.hosts["w1"] = await look.read_system(self.run, "w1")
        self.run.maintenance.cordons["w1"] = look.closed_by(self.node)
        look.make_order(self.run)
        return state

    async def turn(self) -> list[StepResult]:
        """Return the results of the host's stage."""
        await self.learn()
        return await work.maintain_worker(self.run, "maintain", "w1")


def outcome_of(results: list[StepResult], step: str) -> str:
    return next(one.outcome for one in results if one.step == step)


async def test_a_worker_is_emptied_gets_the_driver_as_a_whole_is_restarted_proven_and_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, with_driver(V1))
    results = await scene.turn()
    assert codes(results) == []
    assert len(scene.host.installs) == 1
    assert {one.partition("=")[2] for one in scene.host.installs[0]} == {f"{V2}-1"}
    assert scene.host.boots == 2, "one restart"
    assert (scene.proven, scene.closed) == ([f"w1 closed {V2}"], False)
    assert all(one.held for name, one in scene.host.packages.items() if "nvidia" in name)
    assert errors_of("w1", results, scene.run.allow) == ()
    assert await scene.learn() == SystemState(running=KERNEL), "nothing is left to do"


async def test_a_host_whose_driver_is_the_declared_one_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, with_driver(V2))
    assert not (await scene.learn()).needs
    assert look.waves_in_order(scene.run) == []


async def test_a_plan_changes_nothing_and_says_that_the_restart_is_known_later(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, with_driver(V1), pod("a", "w1", owner="Job", container=GPU), mode="plan")
    before = dict(scene.host.files), dict(scene.host.packages)
    results = await scene.turn()
    assert (dict(scene.host.files), dict(scene.host.packages), scene.closed, scene.proven) == (*before, False, [])
    assert outcome_of(results, TOGETHER) == "drifted"
    assert outcome_of(results, RESTART) == "unknown"
    (row,) = scene.run.maintenance.order
    assert (row.host, row.want) == ("w1", f"driver {V2}, and a restart")
    assert f"{V1} is installed" in row.have


@pytest.mark.parametrize("dies", ["apt-mark hold", "systemctl reboot"])
async def test_a_run_that_was_killed_goes_on_from_what_the_host_is(monkeypatch: pytest.MonkeyPatch, dies: str) -> None:
    scene = Scene(monkeypatch, with_driver(V1))
    for one in scene.host.packages.values():
        one.held = False
    scene.host.dies = dies
    with pytest.raises(Killed):
        await scene.turn()
    assert (scene.closed, scene.loaded, scene.host.boots) == (True, V1, 1)
    again = Scene(monkeypatch, scene.host)
    again.node, again.api, again.host.dies = scene.node, scene.api, ""
    assert (await again.learn()).needs
    assert look.is_resumed(again.run, "w1")
    assert look.waves_in_order(again.run)[0] == ("w1",)
    results = await again.turn()
    assert codes(results) == []
    assert (again.loaded, again.host.boots, again.closed, len(again.host.installs)) == (V2, 2, False, 1)


async def test_a_host_that_was_restarted_before_the_kill_is_only_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, with_driver(V2))
    scene.node["spec"]["unschedulable"] = True
    scene.node["metadata"]["annotations"] = {
        "shipway.dev/cordoned-by": '{"by": "shipway", "why": "maintenance by Shipway", "since": "x"}'
    }
    results = await scene.turn()
    assert codes(results) == []
    assert (scene.host.installs, scene.host.boots, scene.proven, scene.closed) == ([], 1, [f"w1 closed {V2}"], False)


async def test_a_driver_that_does_not_answer_after_its_restart_keeps_the_node_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, with_driver(V1))
    scene.answers = False
    results = await scene.turn()
    assert codes(results)[-1] == "SHW-796"
    assert (scene.closed, scene.proven) == (True, [])


async def test_a_restart_that_is_refused_at_the_last_moment_leaves_the_node_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, with_driver(V1))
    scene.host.worker = "dpkg (7)"
    results = [one for one in await scene.turn() if one.outcome == "failed"]
    assert codes(results) == ["SHW-822", "SHW-796"], "its libraries are of another version than its module"
    assert (scene.closed, scene.proven, scene.host.boots) == (True, [], 1)


async def test_a_node_that_somebody_opened_while_its_driver_was_installed_is_closed_again_and_not_restarted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, with_driver(V1))

    async def opened(*_: object) -> None:
        scene.node["spec"]["unschedulable"] = None

    monkeypatch.setattr(restart.NothingInhibits, "check", opened)
    results = [one for one in await scene.turn() if one.outcome == "failed"]
    assert codes(results) == ["SHW-714", "SHW-796"]
    assert (scene.closed, scene.proven, scene.host.boots) == (True, [], 1)


async def test_a_program_that_holds_a_gpu_after_the_drain_ends_it_and_the_host_works_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, with_driver(V1))
    scene.host.holders = "7 python 0::/user.slice/session-1.scope\n"
    results = await scene.turn()
    assert [one.outcome for one in results][-1] == "failed"
    assert "held by python (7)" in str(results[-1].error)
    assert (scene.host.installs, scene.closed, scene.loaded) == ([], False, V1)


async def test_the_driver_s_own_watchers_are_no_such_program(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, with_driver(V1))
    scene.host.holders = "7 nvidia-persiste 0::/x\n8 nvidia-device-p 0::/kubepods.slice/x\n"
    assert codes(await scene.turn()) == []


async def test_a_refusal_forbids_the_run_before_any_host_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, with_driver(V1, boot="SecureBoot enabled"))
    scene.host.files["/usr/bin/nvidia-uninstall"] = b""

    async def surveyed(*_: Any) -> Survey:
        return survey_of(driver_gpus=2)

    async def recognised(*_: Any) -> Known:
        return Known()

    async def fine(*_: Any, **__: Any) -> None:
        """Be so."""

    monkeypatch.setattr(look, "survey", surveyed)
    monkeypatch.setattr(look, "recognise", recognised)
    for check in (look.NothingExpired, look.RoomThere):
        monkeypatch.setattr(check, "check", fine)
    monkeypatch.setattr(scene.host, "settled", fine, raising=False)
    results = await look.look_at_system(scene.run, "maintain_look", "w1")
    assert sorted(code for code in codes(results)) == ["SHW-680", "SHW-683"]
    assert scene.run.maintenance.mended == set()


def survey_of(**changes: Any) -> Survey:
    """Return a survey of a host that has joined."""
    told = {"driver_gpus": 0, **changes}
    return Survey(
        "w1", joined=True, gpus=2, driver_said="", toolkit=True, machine_id="", product_uuid="", skew=0, **told
    )


async def test_of_each_kind_of_gpus_and_kernel_one_worker_is_the_canary_and_its_failure_stops_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = a_run()
    for name in ("w1", "w2", "w3"):
        run.maintenance.hosts[name] = SystemState(running=KERNEL, driver=(V1, V2))
    run.maintenance.hosts["cp"] = SystemState()
    run.maintenance.kinds = {"w1": "2330 6.1", "w2": "2330 6.1", "w3": "2901 6.1"}
    look.make_order(run)
    assert [(row.host, row.wave) for row in run.maintenance.order] == [
        *(("w1", "first alone"), ("w3", "alone 2"), ("w2", "wave 1"))
    ]
    assert any("2 workers, one of each kind of GPUs and kernel, go alone" in note for note in run.maintenance.notes)
    one = Stages(monkeypatch, flow, run, "maintain_worker w3")
    await flow.go(run)
    assert one.ran == ["maintain_worker w1", "maintain_worker w3"], "nothing is fetched, and no backup is needed"
    assert run.maintenance.stopped is not None
    assert run.maintenance.stopped.code == "SHW-797"


async def test_a_control_plane_with_gpus_wants_a_backup_first(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run()
    run.maintenance.hosts["cp"] = SystemState(running=KERNEL, driver=(V1, V2))
    look.make_order(run)
    settings = run.cluster.maintain.model_copy(update={"reboot": "never"})
    run.cluster = run.cluster.model_copy(update={"maintain": settings})
    one = Stages(monkeypatch, flow, run)
    await flow.go(run)
    assert "take_backup cp" in one.ran


async def test_gpus_that_are_gone_for_the_driver_that_is_to_be_mended_forbid_nothing() -> None:
    run = a_run()
    run.maintenance.hosts["w1"] = SystemState(running=KERNEL, driver=(V1, V2))
    look.make_order(run)

    def wanted() -> list[str]:
        checks = forbids.shared_checks(run, lambda *_: False)
        (there,) = (one for one in checks if isinstance(one, forbids.GpusThere))
        return list(cast("Any", there).expected)

    assert wanted() == ["w1"]
    run.maintenance.mended.add("w1")
    assert wanted() == []


def test_the_command_s_option_reaches_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    async def maintained(*words: object, **_: object) -> None:
        asked.append(words)

    def fly(_asked: Any, _console: Any, _what: str, load: Callable[[], Any], _tell: Any) -> int:
        asyncio.run(load()("te.yaml", None))
        return 0

    monkeypatch.setattr(cli, "fly_verb", fly)
    monkeypatch.setattr(flow, "maintain", maintained)
    for words in (["--driver", "--plan"], []):
        cli.run_maintain(cli.build_parser("maintain").parse_args(["te.yaml", *words]), cast("Any", None))
    assert asked == [("te.yaml", "plan", True, None, True), ("te.yaml", "maintain", True, None, False)]


def test_without_a_declared_driver_such_a_run_is_refused() -> None:
    look.refuse_undeclared(a_run())
    undeclared = Run(parse_cluster("name: te\nprofile: seed\nhosts: [192.0.2.1]\n"), "maintain")
    with pytest.raises(Refused, match="SHW-694"):
        look.refuse_undeclared(undeclared)


async def test_the_first_driver_of_a_host_needs_no_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Serving(strict=False, name="w1")
    host.packages[f"linux-headers-{KERNEL}"] = Installed("1")
    host.units["kubelet"] = ["active", "enabled"]
    scene = Scene(monkeypatch, host)
    assert codes(await scene.turn()) == []
    assert (scene.host.boots, scene.loaded, scene.closed) == (1, V2, False)
