"""The order in which an endpoint is moved: nothing names it before every host has asked the API by it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from flows import move_endpoint as flow
from flows.cli.move_endpoint import COMMAND
from shipway.errors import Permanent, Refused
from shipway.ownership.evidence import Evidence
from shipway.stage import StageName
from shipway.step import Drift, Impact, StepResult
from shipway.steps.endpoint.kubeconfigs import KubeletAsks
from tasks.context import HIGHEST, Run
from tasks.endpoint import look, work
from tests.ownership.test_leading import NAME, A, B, cluster, plane

OLD = "10.9.0.1:6443"
WAYS = ["endpoint_way cp1", "endpoint_way cp2", "endpoint_way cp3", "endpoint_way w1"]
OLD_WAYS = [line.replace("_way", "_old_way") for line in WAYS]


class Scene:
    """A run whose stages are only kept; `failing` ones end badly."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *failing: str, planes: int = 3, bare: tuple[str, ...] = ()
    ) -> None:
        self.run = Run(cluster(planes), "move-endpoint")
        seen = {
            host.name: SimpleNamespace(
                joined=host.name not in bare,
                gpus=0,
                evidence=Evidence(host.name) if host.name in bare else plane(host.name, f"https://{OLD}"),
            )
            for host in self.run.cluster.hosts
        }
        self.run.seen.surveys = seen  # type: ignore[assignment]
        self.failing, self.asked, self.leased = failing, [], False
        self.asked: list[str]
        monkeypatch.setattr(flow, "on", self.on)
        monkeypatch.setattr("flows.waves.on", self.on)
        monkeypatch.setattr("flows.waves.lease", self.lease)
        monkeypatch.setattr(look, "contradicted", self.agree)

    async def on(self, stage: StageName, host: str, *before: Any) -> object | None:
        """Keep what was asked for; nothing is built on what failed."""
        if None in before:
            return None
        self.asked.append(f"{stage.value} {host}")
        return None if self.asked[-1] in self.failing else object()

    async def lease(self, _: Run) -> None:
        """Take the lock."""
        self.leased = True

    async def agree(self, _: Run) -> list[Any]:
        """The hosts are those of the file."""
        return []


async def test_certificates_come_first_then_every_way_and_only_then_is_the_name_told_to_anyone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    assert await flow.may_begin(scene.run)
    assert [line.split()[0] for line in scene.asked] == ["endpoint_look"] * 4 + ["endpoint_possible"]
    scene.asked.clear()
    await flow.move(scene.run)
    assert scene.asked == [
        *(f"endpoint_certificate cp{number}" for number in (1, 2, 3)),
        *WAYS,
        "endpoint_record cluster",
        *(f"endpoint_kubeconfigs {name}" for name in ("cp1", "cp2", "cp3", "w1")),
        "endpoint_kube_proxy cluster",
        "endpoint_proof cluster",
        *OLD_WAYS,
    ]


@pytest.mark.parametrize(
    ("failing", "last"),
    [
        ("endpoint_certificate cp2", "endpoint_certificate cp2"),
        ("endpoint_way w1", "endpoint_way w1"),
        ("endpoint_record cluster", "endpoint_record cluster"),
        ("endpoint_kubeconfigs cp2", "endpoint_kubeconfigs cp2"),
        ("endpoint_kubeconfigs w1", "endpoint_kubeconfigs w1"),
        ("endpoint_kube_proxy cluster", "endpoint_kube_proxy cluster"),
        ("endpoint_proof cluster", "endpoint_proof cluster"),
    ],
)
async def test_what_does_not_succeed_ends_it(monkeypatch: pytest.MonkeyPatch, failing: str, last: str) -> None:
    scene = Scene(monkeypatch, failing)
    await flow.move(scene.run)
    assert scene.asked[-1] == last


async def test_a_plan_goes_the_same_way_and_has_nothing_to_prove(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, planes=1)
    scene.run.mode = "plan"
    await flow.move(scene.run)
    assert scene.asked[-3:] == ["endpoint_kube_proxy cluster", "endpoint_old_way cp1", "endpoint_old_way w1"]


async def test_hosts_that_have_not_joined_are_left_to_a_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, bare=("cp2", "cp3"))
    await flow.move(scene.run)
    assert not [line for line in scene.asked if "cp2" in line or "cp3" in line]
    assert not look.running(scene.run).proxies_api
    (line,) = {step.api_address for step in work.way_steps(scene.run, "w1")}  # type: ignore[attr-defined]
    assert line == "10.9.0.1"  # no proxy for one control plane
    (named,) = work.way_steps(scene.run, "w1")
    assert set(named.entries) == {"cp1", "cp2", "cp3", "w1"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("failing", ["endpoint_look w1", "endpoint_possible cluster"])
async def test_all_is_looked_at_before_the_lock_is_taken(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    scene = Scene(monkeypatch, failing)
    assert not await flow.may_begin(scene.run)
    assert (len(scene.asked), scene.leased, scene.run.admitted) == (5, False, set())


async def test_without_the_lock_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)

    async def taken(_: Run) -> Refused:
        return Refused("another run has it", code="SHW-102")

    monkeypatch.setattr("flows.waves.lease", taken)
    assert not await flow.may_begin(scene.run)
    assert [error.code for result in scene.run.results for error in result.errors] == ["SHW-102"]


class Recorded:
    """An API that has kubeadm's record."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def get(self, *_: str) -> Any:
        """Return the record."""
        return {"data": {"ClusterConfiguration": self.text}}


async def faults_of(
    monkeypatch: pytest.MonkeyPatch, recorded: str, *seen: Evidence, more: str = ""
) -> tuple[Run, list[str]]:
    """Return the run, and the codes of what keeps the hosts from being the file's."""
    run = Run(cluster(3, more), "move-endpoint")
    run.seen.elsewhere = seen
    run.lead = "cp1"

    async def kube() -> Any:
        return Recorded(recorded)

    monkeypatch.setattr(run, "kube", kube)
    faults = await look.contradicted(run)
    assert run.cluster.api_name  # the run is about the name, whatever was compared
    return run, [fault.code for fault in faults]


NAMED = "kubernetes: {api_endpoint: {name: api.example}}\n"


@pytest.mark.parametrize("more", ["", NAMED])
async def test_another_endpoint_is_what_the_run_is_for_and_no_contradiction(
    monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    old = plane("cp1", f"https://{OLD}")
    run, codes = await faults_of(monkeypatch, f"controlPlaneEndpoint: {OLD}\n", old, more=more)
    assert (run.endpoint.was, codes) == (OLD, [])
    run, codes = await faults_of(monkeypatch, "kind: ClusterConfiguration\n", old, more=more)
    assert (run.endpoint.was, codes) == (OLD, [])  # kubeadm's own way without an endpoint
    name = "api.example" if more else NAME
    run, codes = await faults_of(monkeypatch, f"controlPlaneEndpoint: {name}:6443\n", old, more=more)
    assert (run.endpoint.was, codes) == (f"{name}:6443", [])  # a run that was killed half-way


async def test_hosts_of_another_cluster_stay_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, codes = await faults_of(
        monkeypatch,
        f"controlPlaneEndpoint: {OLD}\n",
        plane("cp1", f"https://{OLD}", authorities=A),
        plane("cp2", f"https://{OLD}", authorities=B),
    )
    assert codes == ["SHW-309"]


@pytest.mark.parametrize(("busy", "asked", "error"), [("w1", False, ""), ("w1", True, "w1"), ("", False, "w1")])
async def test_the_proof_names_each_place_but_for_a_kubelet_that_was_not_to_be_restarted(
    monkeypatch: pytest.MonkeyPatch,
    busy: str,
    asked: bool,  # noqa: FBT001 - as the option
    error: str,
) -> None:
    scene = Scene(monkeypatch)
    run = scene.run
    run.endpoint.beside_gpu_pods, run.endpoint.was = asked, OLD
    run.seen.busy = dict.fromkeys(busy.split(), "1 GPU held")
    old = StepResult(KubeletAsks.name, "drifted", Impact.SERVICE, Drift("started before", "started since"))

    class Nothing:
        """Holds what is asked of nobody."""

        name = ""

        def forget(self) -> None:
            """Know nothing."""

        async def list_(self, *_: str) -> list[Any]:
            """Return one of a site's own, and one of another address."""
            maps = {"site": f"server={OLD}", "other": "10.9.0.11", "kubeadm-config": OLD}
            return [
                {"metadata": {"name": name, "namespace": "kube-system"}, "data": {"x": text}}
                for name, text in maps.items()
            ]

    async def kube() -> Any:
        return Nothing()

    async def by_name(_: Run) -> Any:
        return SimpleNamespace(name="by its name")

    async def looked(_: Any, on: Any) -> list[StepResult]:
        return [StepResult("fine", "ok"), *([old] if on.name == "w1" else [])]

    def session(name: str) -> Any:
        one = Nothing()
        one.name = name
        return one

    monkeypatch.setattr(run, "kube", kube)
    monkeypatch.setattr(run, "session", session)
    monkeypatch.setattr(work, "_by_name", by_name)
    monkeypatch.setattr(work, "look_at_all", looked)
    if error:
        with pytest.raises(Permanent, match=rf"not moved: {error}: {KubeletAsks.name}") as raised:
            await work.prove(run, "endpoint_proof", "cluster")
        assert raised.value.code == "SHW-779"
    else:
        results = await work.prove(run, "endpoint_proof", "cluster")
        assert [one.outcome for one in results] == ["ok", "drifted"]
    (line,) = run.warned
    assert re.search(r"name 10\.9\.0\.1, .*: kube-system/site$", line)


def test_the_command_takes_its_options() -> None:
    asked = COMMAND.parser().parse_args(["f.yaml", "--plan", "--beside-gpu-pods", "--report", "r.json", "--quiet"])
    assert (asked.plan, asked.beside_gpu_pods, COMMAND.mode(asked)) == (True, True, "plan")
    assert COMMAND.mode(COMMAND.parser().parse_args(["f.yaml"])) == "move-endpoint"
    assert COMMAND.verb == "move-endpoint"
    assert HIGHEST["move-endpoint"] is Impact.SERVICE  # no step of it may disturb workloads


async def allowed_by(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, host: str, *found: StepResult
) -> tuple[list[StepResult], list[Impact], list[str]]:
    """Return what pointing a host's kubeconfigs gave, what it was allowed before and at the act, and its waits."""
    allowed: list[Impact] = []
    waited: list[str] = []

    async def converged(_: Any, __: Any, allow: Impact, ___: Any, permit: Any) -> list[StepResult]:
        allowed.extend((allow, await permit(KubeletAsks())))
        return list(found)

    async def wait(_: Run, __: str, check: Any, ___: Any, **____: Any) -> StepResult:
        waited.append(f"{check.name} {getattr(check, 'kubelet_since', '')}".strip())
        return StepResult(check.name, "ok")

    async def nothing(*_: Any, **__: Any) -> Any:
        return StepResult("kept", "ok")

    async def reads(_: Any) -> Any:
        return SimpleNamespace(active_since=77)

    monkeypatch.setattr(work, "converge", converged)
    monkeypatch.setattr(work, "wait_for", wait)
    for name in ("find_busy", "keep_renewed"):
        monkeypatch.setattr(work, name, nothing)
    monkeypatch.setattr("tasks.workloads.find_busy", nothing)
    monkeypatch.setattr(scene.run, "kube", nothing)
    monkeypatch.setattr(scene.run, "reconnect", nothing)
    monkeypatch.setattr(scene.run, "session", lambda _: SimpleNamespace(name=host, forget=lambda: None, read=reads))
    return await work.point_kubeconfigs(scene.run, "endpoint_kubeconfigs", host), allowed, waited


RESTARTED = StepResult(KubeletAsks.name, "changed", Impact.SERVICE, restarts="kubelet")
POINTED = StepResult("/etc/kubernetes/kubelet.conf leads to x", "drifted", Impact.FILES, Drift("a", "b"))
SAME = StepResult(KubeletAsks.name, "ok", Impact.SERVICE)


async def test_a_kubelet_is_not_restarted_beside_pods_that_hold_gpus_unless_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    scene.run.seen.busy = {"w1": "1 GPU held"}
    _, allowed, waited = await allowed_by(monkeypatch, scene, "w1", SAME)
    assert (allowed, waited) == ([Impact.START, Impact.START], [])
    scene.run.endpoint.beside_gpu_pods = True
    _, allowed, waited = await allowed_by(monkeypatch, scene, "w1", RESTARTED)
    assert (allowed, waited) == ([Impact.SERVICE, Impact.SERVICE], ["the node is Ready 77"])
    scene.run.endpoint.beside_gpu_pods = False
    scene.run.seen.busy = {}
    assert (await allowed_by(monkeypatch, scene, "w1", SAME))[1] == [Impact.SERVICE, Impact.SERVICE]


async def test_a_control_plane_answers_before_the_next_one_is_touched_and_what_failed_ends_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    results, _, waited = await allowed_by(monkeypatch, scene, "cp1", RESTARTED)
    assert waited == ["the Kubernetes API answers and is ready", "the node is Ready 77"]
    assert "kept" in [one.step for one in results]  # the kubeconfig on this machine, of the one that is asked
    results, _, waited = await allowed_by(monkeypatch, scene, "cp2", RESTARTED)
    assert "kept" not in [one.step for one in results]
    broken = StepResult("x", "failed", error=Permanent("broken"))
    assert (await allowed_by(monkeypatch, scene, "cp2", RESTARTED, broken))[2] == []


async def test_a_plan_foresees_the_restart_that_a_changed_file_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.run.mode, scene.run.allow = "plan", Impact.NOTHING
    results, _, waited = await allowed_by(monkeypatch, scene, "w1", POINTED, SAME)
    assert ([one.outcome for one in results], waited) == (["drifted", "drifted"], [])
    results, _, _ = await allowed_by(monkeypatch, scene, "w1", SAME)
    assert [one.outcome for one in results] == ["ok"]
