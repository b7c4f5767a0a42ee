"""The order in which an endpoint is moved: nothing names it before every host has asked the API by it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from flows import move_endpoint as flow
from flows.cli.move_endpoint import COMMAND
from shipway.errors import ApiUnavailable, Permanent, Refused
from shipway.facts.files import FileText
from shipway.ownership.evidence import Evidence
from shipway.stage import StageName
from shipway.step import Drift, Impact, StepResult
from shipway.steps.endpoint.balancer import Shown, shown
from shipway.steps.endpoint.kubeconfigs import SERVERS, KubeletAsks
from tasks.context import HIGHEST, Run
from tasks.endpoint import look, work
from tasks.endpoint.users import find_users
from tests.ownership.test_leading import NAME, A, B, cluster, plane
from tests.places.facts import KnownFacts, said

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
        ("endpoint_old_way cp2", "endpoint_old_way cp2"),
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

    async def ready(_: Run, __: Any) -> bool:
        return True

    async def kube() -> Any:
        assert run.control.name == "cp2" or not seen or seen[0].host == "cp1"
        return Recorded(recorded)

    monkeypatch.setattr("tasks.leading._is_ready", ready)

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


async def test_a_cluster_whose_first_control_plane_of_the_file_has_not_joined_yet_is_asked_by_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare, whole = Evidence("cp1"), plane("cp2", f"https://{OLD}")
    run, codes = await faults_of(monkeypatch, f"controlPlaneEndpoint: {OLD}\n", whole, bare, more=NAMED)
    assert (run.control.name, run.endpoint.was, codes) == ("cp2", OLD, [])


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


# --- to a load balancer of the site's

BALANCED = "kubernetes: {api_endpoint: {kind: external, name: lb.example, port: 7443}}\n"
BLOCK = f"127.0.0.1 localhost\n# BEGIN shipway\n10.9.0.1 cp1\n127.0.0.1 {NAME}\n# END shipway\n"


def balanced(monkeypatch: pytest.MonkeyPatch, shows: dict[str, str], here: Shown, *, jump: bool = False) -> Run:
    """Return a run whose hosts meet a load balancer: by host the letters of the certificates that it shows there.

    Each control plane shows the letter of its number on its own address.
    """
    more = BALANCED + ("ssh: {jump: {address: 10.9.0.200}}\n" if jump else "")
    run = Run(cluster(3, more), "move-endpoint")
    evidence_of = {host.name: plane(host.name, f"https://{NAME}:6443") for host in run.cluster.control_planes}
    evidence_of["w1"] = Evidence("w1", certificate=True, authorities=A, node="w1")
    facts = {}
    for number, name in enumerate(("cp1", "cp2", "cp3", "w1"), 1):
        through = "".join(f"sha256 Fingerprint={letter}\n" for letter in shows[name])
        own = shown(f"10.9.0.{number}", 6443, 1, "lb.example")
        facts[name] = KnownFacts(
            {
                FileText("/etc/hosts"): BLOCK,
                SERVERS: said("", 2),
                shown("lb.example", 7443, 12, "lb.example"): said(through),
            }
        )
        facts[name].name = name
        if name != "w1":
            facts[name].facts[own] = said(f"sha256 Fingerprint={'abc'[number - 1]}\n")

    async def surveyed(on: Any) -> Any:
        return SimpleNamespace(joined=True, gpus=0, evidence=evidence_of[on.name])

    async def nothing(*_: Any) -> Any:
        return None

    async def met(*_: Any) -> Shown:
        return here

    class Answers(KnownFacts):
        """An API in which every node is Ready, and etcd is whole."""

        name = "cluster"

    async def kube() -> Any:
        return Answers({})

    async def fine(_: Any, __: Any) -> None:
        return None

    monkeypatch.setattr(look, "survey", surveyed)
    monkeypatch.setattr(look, "recognise", nothing)
    monkeypatch.setattr(look, "meet_here", met)
    monkeypatch.setattr(look, "find_busy", nothing)
    monkeypatch.setattr(look, "find_users", nothing)
    monkeypatch.setattr(run, "session", lambda name: facts[name])
    monkeypatch.setattr(run, "kube", kube)
    for check in ("gates.ApiAnswers", "gates.EtcdHealthy", "EveryNodeAnswers", "BackupBefore"):
        monkeypatch.setattr(f"tasks.endpoint.look.{check}.check", fine)
    return run


async def refusals(run: Run) -> list[tuple[str, str]]:
    """Return who is refused the move by which code, by the looks at all hosts and the cluster."""
    for host in run.cluster.hosts:
        await look.look(run, "endpoint_look", host.name)
    results = await look.may_move(run, "endpoint_possible", "cluster")
    return [(one.error.host, one.error.code) for one in results if one.error]


ALL = dict.fromkeys(("cp1", "cp2", "cp3", "w1"), "abcabcabcabc")


async def test_every_host_and_this_machine_see_whose_servers_stand_behind_a_load_balancer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = balanced(monkeypatch, ALL, Shown(("a", "b", "c")))
    assert await refusals(run) == []
    assert run.endpoint.named == {NAME}
    assert run.endpoint.shows == {"cp1": "a", "cp2": "b", "cp3": "c"}
    assert run.warned == []


async def test_where_control_planes_share_a_certificate_the_balancer_is_looked_at_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = balanced(monkeypatch, {**dict.fromkeys(ALL, "abab"), "w1": "abxa"}, Shown(("a", "b")))
    own = run.session("cp2").facts  # type: ignore[attr-defined]
    own[shown("10.9.0.2", 6443, 1, "lb.example")] = said("sha256 Fingerprint=a\n")
    run.session("cp3").facts[shown("10.9.0.3", 6443, 1, "lb.example")] = said("sha256 Fingerprint=b\n")  # type: ignore[attr-defined]
    assert await refusals(run) == [("w1", "SHW-846")]
    (line,) = run.warned
    assert line.startswith("cp1, cp2 show one certificate")


async def test_all_that_forbids_a_load_balancer_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = balanced(monkeypatch, {**ALL, "w1": "abxa", "cp2": "abab"}, Shown(status=3))
    assert await refusals(run) == [("w1", "SHW-846"), ("this machine", "SHW-844")]
    run = balanced(monkeypatch, dict.fromkeys(ALL, "abab"), Shown(("a", "b")))
    assert await refusals(run) == [("cluster", "SHW-847")]


async def test_behind_a_jump_host_this_machine_need_not_reach_it_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = balanced(monkeypatch, ALL, Shown(status=3), jump=True)
    assert await refusals(run) == []
    (line,) = run.warned
    assert line.startswith("lb.example:7443 does not answer this machine")


async def test_a_load_balancer_that_keeps_each_client_at_one_server_is_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = balanced(monkeypatch, {**ALL, **dict.fromkeys(("cp1", "cp2", "cp3"), "aaaa"), "w1": "bbbb"}, Shown(("a",)))
    assert await refusals(run) == []
    (line,) = run.warned
    assert "whether cp3 is behind it cannot be told" in line


@pytest.mark.parametrize(("was", "asked"), [("10.9.0.1:6443", True), ("", False)], ids=["begins", "ends"])
async def test_a_move_asks_for_a_young_backup_unless_it_only_ends_one(
    monkeypatch: pytest.MonkeyPatch,
    was: str,
    asked: bool,  # noqa: FBT001 - a table
) -> None:
    run = balanced(monkeypatch, ALL, Shown(("a", "b", "c")))
    run.endpoint.was = was or run.cluster.endpoint

    async def old(*_: Any) -> None:
        raise Refused("the newest is old", code="SHW-789")

    monkeypatch.setattr("tasks.endpoint.look.BackupBefore.check", old)
    assert ("SHW-789" in {code for _, code in await refusals(run)}) == asked


async def test_while_a_control_planes_own_certificate_is_not_known_none_is_called_foreign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = balanced(monkeypatch, ALL, Shown(("a", "b", "c")))
    run.session("cp3").facts.pop(shown("10.9.0.3", 6443, 1, "lb.example"))  # type: ignore[attr-defined]
    for name in ("cp1", "cp2", "w1"):
        await look.look(run, "endpoint_look", name)
    with pytest.raises(ApiUnavailable) as raised:
        await look.look(run, "endpoint_look", "cp3")
    assert raised.value.code == "SHW-768"
    assert {one.outcome for one in await look.may_move(run, "endpoint_possible", "cluster")} == {"ok"}
    assert {one.name for one in await look.balancer_checks(run)} == set()


class Holding:
    """An API that holds ConfigMaps by name, and pods by what their containers' environment says."""

    def __init__(self, maps: dict[str, str], pods: dict[str, str]) -> None:
        self.maps, self.pods = maps, pods

    async def list_(self, _: str, kind: str, *__: str) -> list[Any]:
        """Return them all."""
        if kind == "ConfigMap":
            return [
                {"metadata": {"namespace": name.split("/")[0], "name": name.split("/")[1]}, "data": {"x": text}}
                for name, text in self.maps.items()
            ]
        return [
            {"metadata": {"namespace": "site", "name": name}, "spec": {"containers": [{"env": [{"value": text}]}]}}
            for name, text in self.pods.items()
        ]


async def test_a_name_of_ours_that_somebody_in_the_cluster_has_is_kept_and_its_owner_told() -> None:
    run = Run(cluster(3, BALANCED), "move-endpoint")
    run.endpoint.was, run.endpoint.named = f"{NAME}:6443", {NAME, "api.older.example"}
    maps = {
        "kube-system/kubeadm-config": NAME,
        "kube-public/cluster-info": NAME,
        "site/agent": f"server: https://{NAME}:6443",
        "site/other": f"x.{NAME} {NAME}.example {NAME}x",
    }
    await find_users(run, Holding(maps, {"cilium": NAME, "web": "lb.example"}))  # type: ignore[arg-type]
    assert run.endpoint.used == {NAME: "site/agent; pod site/cilium"}
    (line,) = run.warned
    assert line == f"these ConfigMaps name {NAME}, api.older.example, and are their owners' to move: site/agent"


async def test_what_cannot_be_asked_for_keeps_the_name() -> None:
    class Silent:
        async def list_(self, *_: str) -> list[Any]:
            raise ApiUnavailable("no answer")

    run = Run(cluster(3, BALANCED), "move-endpoint")
    run.endpoint.was, run.endpoint.named = f"{NAME}:6443", {NAME}
    await find_users(run, Silent())  # type: ignore[arg-type]
    assert list(run.endpoint.used) == [NAME]
    run.endpoint.was, run.endpoint.named = "lb.example:7443", set()
    await find_users(run, Silent())  # type: ignore[arg-type]
    assert (run.endpoint.used, len(run.warned)) == ({}, 1)  # the endpoint is that one already: nothing is to go


async def test_the_old_way_goes_from_workers_with_its_proxy_and_from_control_planes_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    scene.run.cluster = cluster(3, BALANCED)
    kinds = {name: [type(step).__name__ for step in work.old_way_steps(scene.run, name)] for name in ("cp1", "w1")}
    assert kinds == {"cp1": ["OldNamesGone"], "w1": ["OldNamesGone", "ProxyGone"]}
    scene.run.cluster = cluster(3)  # the way back: its proxy is the way
    assert [type(step).__name__ for step in work.old_way_steps(scene.run, "w1")] == ["OldNamesGone"]


@pytest.mark.parametrize("busy", [False, True])
async def test_what_is_kept_of_the_old_way_is_told_and_what_goes_is_followed_by_a_question(
    monkeypatch: pytest.MonkeyPatch,
    busy: bool,  # noqa: FBT001
) -> None:
    scene = Scene(monkeypatch)
    scene.run.cluster = cluster(3, BALANCED)
    scene.run.seen.busy = {"w1": "1 GPU held"} if busy else {}
    kept = StepResult("a proxy", "drifted", Impact.SERVICE, Drift("agent is connected", "gone"))
    gone = StepResult("a name", "changed", Impact.FILES)
    waited: list[str] = []

    async def converged(*_: Any) -> list[StepResult]:
        return [gone, kept]

    async def wait(_: Run, __: str, check: Any, ___: Any, **____: Any) -> StepResult:
        waited.append(check)
        return StepResult("asked", "ok")

    async def nothing(*_: Any) -> Any:
        return "by its name"

    for name, stand_in in (("converge", converged), ("wait_for", wait), ("find_busy", nothing), ("_by_name", nothing)):
        monkeypatch.setattr(work, name, stand_in)
    monkeypatch.setattr(scene.run, "session", lambda _: KnownFacts({}))
    results = await work.leave_old_way(scene.run, "endpoint_old_way", "w1")
    assert [one.outcome for one in results] == ["changed", "drifted", "ok"]
    assert waited == ["by its name"]
    told = ["w1: kept: a proxy: agent is connected; run the same command again when nothing asks by it"]
    assert scene.run.warned == ([] if busy else told)  # beside pods every report tells what was withheld
