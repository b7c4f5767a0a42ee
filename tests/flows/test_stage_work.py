"""What the stages of the table do around their steps: fresh looks, waits, locks; on machines in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.errors import ApiUnavailable, Refused, ShipwayError, Unreachable
from shipway.kube.client import Kube
from shipway.ownership.evidence import Evidence
from shipway.script import Output
from shipway.stage import StageName
from shipway.step import Impact, Outcome, StepResult
from shipway.steps.hardening.record import HardeningDeclared
from shipway.survey.first_look import Survey
from tasks import kubeconfig
from tasks import table as stages
from tasks.context import Run
from tasks.kubeconfig import keep_kubeconfig
from tasks.stages import container_runtime, prepare_system
from tests.drift.test_parts import run_of
from tests.drift.test_permissions import Act, Machine

OK, FAILED = StepResult("it is so", "ok"), StepResult("it is so", "failed", error=Refused("never"))


@dataclass
class Watched(Machine):
    """A host that notes when it forgets, is looked at, and is read."""

    seen: list[str] = field(default_factory=list)
    away: ShipwayError | None = None
    admin_conf: str = "the administrator's"

    def forget(self) -> None:
        """Note it."""
        self.seen.append("forget")

    def seen_by(self, step: object) -> Watched:
        """Note it."""
        del step
        self.seen.append("look")
        return self

    async def read(self, *_: object) -> str:
        """Answer, or fail."""
        if self.away:
            raise self.away
        return ""


@pytest.fixture
def machine() -> Watched:
    return Watched()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, machine: Watched) -> Run:
    """Return a bootstrap whose every host is the machine, with what surrounds steps put aside."""
    made = Run(run_of().cluster, "bootstrap")
    monkeypatch.setattr(made, "session", lambda _: machine)
    monkeypatch.setattr(stages, "permit_undisturbed", lambda *_: _all_of_it)
    monkeypatch.setattr(stages, "KubeletDeclared", lambda _: Act(Impact.FILES, "the kubelet is as declared"))
    monkeypatch.setattr(stages, "kubelet_declared", lambda _: None)
    for name in ("control_plane", "join_worker", "gpu_isolation"):
        monkeypatch.setattr(stages, name, module(Act(Impact.FILES)))

    async def kube() -> Kube:
        return cast("Kube", machine)

    monkeypatch.setattr(made, "kube", kube)
    return made


async def _all_of_it(_: object) -> Impact:
    return Impact.WORKLOADS


def module(*acts: Act) -> Any:
    return SimpleNamespace(steps=lambda *_, **__: list(acts), holding=lambda _: ())


def noting(monkeypatch: pytest.MonkeyPatch, name: str, notes: list[str], answer: Any = None) -> None:
    """Let a function of the table only be noted."""

    async def noted(*_: Any, **__: Any) -> Any:
        notes.append(name)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(stages, name, noted)


@pytest.mark.parametrize("name", ["prepare_system", "control_plane", "join_worker", "gpu_isolation"])
async def test_an_attempt_begins_with_a_look_of_its_own_and_does_what_drifted(
    run: Run, machine: Watched, name: str
) -> None:
    work = cast("Any", stages.STAGES[name].work)
    if name == "prepare_system":
        results = await work.func(module(Act(Impact.FILES)), run, name, "te2")
    else:
        results = await work(run, name, "te2")
    assert machine.seen[:2] == ["forget", "look"]
    assert {result.outcome for result in results} == {"changed"}
    assert name not in ("control_plane", "join_worker") or "the kubelet is as declared" in machine.applied


@pytest.mark.parametrize("allow", Impact)
async def test_a_stage_on_a_joined_host_is_never_allowed_more_than_the_run_or_a_restart(
    run: Run, machine: Watched, monkeypatch: pytest.MonkeyPatch, allow: Impact
) -> None:
    allowed: list[Impact] = []

    async def brought(*given: Any) -> list[StepResult]:
        allowed.append(given[-1])
        return []

    monkeypatch.setattr(stages, "_bring", brought)
    run.allow = allow
    for joined in (True, False):
        run.seen.surveys = {"te2": replace(SURVEY, joined=joined)}
        await stages._on_host(module(), run, "prepare_system", "te2")
    assert allowed == [min(allow, Impact.SERVICE), allow]
    assert machine.applied == []


async def test_a_control_plane_that_was_changed_is_connected_to_anew(
    run: Run, machine: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []

    async def reconnect() -> None:
        connected.append("anew")

    monkeypatch.setattr(run, "reconnect", reconnect)
    await stages._control_plane(run, "control_plane", "te1")
    assert connected == ["anew"]
    assert machine.applied
    await stages._control_plane(run, "control_plane", "te1")
    assert connected == ["anew"], "nothing was changed"


async def test_a_host_that_does_not_answer_fails_the_first_check(machine: Watched) -> None:
    assert await stages.Reached().check(cast("Any", machine)) is None
    machine.away = Unreachable("no answer")
    with pytest.raises(Unreachable):
        await stages.Reached().check(cast("Any", machine))


SURVEY = Survey("te2", joined=True, gpus=1, driver_gpus=1, driver_said="", toolkit=True, machine_id="m",
                product_uuid="p", skew=0.0, left_out=("a GPU of a virtual machine",))  # fmt: skip


def first_look(
    monkeypatch: pytest.MonkeyPatch, *, looked: Any = None, seen: Any = SURVEY, heard: Any = ("old glibc",)
) -> list[str]:
    """Let a preflight find this; return who was asked."""
    notes: list[str] = []
    for name, answer in (
        ("recognise", "debian"),
        ("_bring", [OK] if looked is None else looked),
        ("survey", seen),
        ("read_notices", heard),
        ("claim_left", False),
    ):
        noting(monkeypatch, name, notes, answer)
    monkeypatch.setattr(stages, "preflight", SimpleNamespace(checks=lambda *_: []))
    return notes


@pytest.mark.parametrize(("host", "claim"), [("te1", True), ("te2", False)])
async def test_a_preflight_keeps_what_it_saw_and_asks_the_control_planes_host_alone_whether_a_run_holds_it(
    run: Run, machine: Watched, monkeypatch: pytest.MonkeyPatch, host: str, *, claim: bool
) -> None:
    asked = first_look(monkeypatch)
    assert await stages._look_over(run, "preflight", host) == [OK]
    assert machine.seen == ["forget"]
    assert run.seen.families[host] == "debian"  # type: ignore[comparison-overlap]
    assert run.seen.surveys[host].notices == ("a GPU of a virtual machine", "old glibc")
    assert ("claim_left" in asked) is claim


async def test_a_preflight_without_its_notices_is_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first_look(monkeypatch, heard=Unreachable("it went away"))
    assert await stages._look_over(run, "preflight", "te2") == [OK]
    assert run.seen.surveys["te2"].notices == SURVEY.left_out


async def test_a_preflight_that_could_not_look_has_failed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first_look(monkeypatch, looked=Unreachable("it went away"))
    with pytest.raises(Unreachable):
        await stages._look_over(run, "preflight", "te2")
    first_look(monkeypatch, seen=Unreachable("it went away"))
    with pytest.raises(Unreachable):
        await stages._look_over(run, "preflight", "te2")
    first_look(monkeypatch, looked=[OK, FAILED], seen=Unreachable("it went away"))
    assert await stages._look_over(run, "preflight", "te2") == [OK, FAILED], "the check says it better"
    assert run.seen.surveys == {}


async def test_the_device_plugin_waits_for_the_hosts_that_it_will_run_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []

    async def wait_for_hosts(_: Run) -> None:
        notes.append("wait_for")

    async def classes_left(_: Run) -> list[object]:
        return []

    plugin = SimpleNamespace(
        wait_for_hosts=wait_for_hosts, unready=lambda _: (), steps=lambda *_: [], classes_left=classes_left
    )
    monkeypatch.setattr(stages, "device_plugin", plugin)
    noting(monkeypatch, "by_api", notes, [OK])
    assert await stages._plugin(run, "device_plugin", "cluster") == [OK]
    assert notes == ["wait_for", "by_api"]


@pytest.mark.parametrize(
    ("allow", "labels", "registered", "asked", "results"),
    [
        (Impact.WORKLOADS, True, OK, ["wait_for", "by_api"], [OK]),
        (Impact.WORKLOADS, True, FAILED, ["wait_for"], [FAILED]),
        (Impact.WORKLOADS, False, FAILED, ["by_api"], [OK]),  # nothing to write on it
        (Impact.NOTHING, True, FAILED, ["by_api"], [OK]),
    ],
)
async def test_a_node_gets_its_settings_once_it_is_registered_and_a_plan_waits_for_none(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    allow: Impact,
    *,
    registered: StepResult,
    asked: list[str],
    results: list[StepResult],
    labels: bool,
) -> None:
    notes: list[str] = []
    run.allow = allow
    noting(monkeypatch, "wait_for", notes, registered)
    noting(monkeypatch, "by_api", notes, [OK])
    monkeypatch.setattr(stages.gates, "node_steps", lambda *_: [object()] if labels else [])

    async def told(*_: object) -> str:
        return ""

    monkeypatch.setattr(stages, "_told_of_gpus", told)
    assert await stages._node(run, "node_settings", "te2") == results
    assert notes == asked


@pytest.mark.parametrize(
    ("allow", "seen", "asked"),
    [
        (Impact.WORKLOADS, OK, ["wait_for"] * 5 + ["new_lease", "by_api"]),
        (Impact.WORKLOADS, FAILED, ["wait_for"] * 5),
        (Impact.NOTHING, FAILED, ["by_api"]),
    ],
)
async def test_behind_the_gate_is_a_cluster_that_works_and_is_held_by_this_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, allow: Impact, seen: StepResult, asked: list[str]
) -> None:
    notes: list[str] = []
    run.allow = allow
    noting(monkeypatch, "wait_for", notes, seen)
    for name, answer in (("new_lease", None), ("by_api", [OK])):
        noting(monkeypatch, name, notes, answer)
    monkeypatch.setattr(stages, "keep_kubeconfig", lambda *_: OK)
    results = await stages._gate(run, "control_plane_ready", "te1")
    assert notes == asked
    assert len(results) == max(1, len(asked)), "each of the checks, what is done by the API, and the kubeconfig"


async def test_nothing_is_done_through_the_api_where_another_run_holds_the_lease(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    noting(monkeypatch, "wait_for", notes, OK)
    noting(monkeypatch, "new_lease", notes, Refused("another run works on this cluster"))
    noting(monkeypatch, "by_api", notes, [OK])
    with pytest.raises(Refused):
        await stages._gate(run, "control_plane_ready", "te1")
    assert "by_api" not in notes


async def test_a_gate_whose_api_is_away_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def kube() -> Kube:
        raise ApiUnavailable("no answer")

    monkeypatch.setattr(run, "kube", kube)
    with pytest.raises(ApiUnavailable):
        await stages._gate(run, "control_plane_ready", "te1")


def test_the_kubeconfig_is_kept_as_the_cluster_has_it_and_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def save(path: Path, text: str) -> None:
        written.append(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)

    monkeypatch.setattr(kubeconfig, "save_kubeconfig", save)
    run = run_of(state_dir=str(tmp_path))
    path = run.folder / "kubeconfig"
    assert [keep_kubeconfig(run, "one", "kept").outcome for _ in range(2)] == ["changed", "ok"]
    path.chmod(0o644)
    assert keep_kubeconfig(run, "one", "kept").outcome == "changed"
    assert path.stat().st_mode & 0o077 == 0
    assert keep_kubeconfig(run, "two", "kept").outcome == "changed"
    assert written == ["one", "one", "two"]
    monkeypatch.setattr(kubeconfig, "save_kubeconfig", lambda *_: (_ for _ in ()).throw(OSError(28, "disk is full")))
    assert keep_kubeconfig(run, "one", "kept").outcome == "drifted"
    assert "disk is full" in run.warned[0]


def test_an_upgrade_of_all_base_packages_is_given_more_time() -> None:
    assert stages._host_seconds(prepare_system) == stages.UPGRADE_SECONDS
    assert stages._host_seconds(container_runtime) == stages.HOST_SECONDS


async def test_no_control_plane_is_initialised_where_a_second_cluster_might_be_made(
    run: Run, machine: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise Refused("cp2 did not answer", code="SHW-761")

    monkeypatch.setattr(stages, "refuse_second_cluster", refused)
    with pytest.raises(Refused, match="SHW-761"):
        await stages._control_plane(run, "control_plane", "te1")
    assert machine.applied == []


async def test_no_worker_joins_under_another_machines_name(
    run: Run, machine: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting(monkeypatch, "_refuse_name_taken", [], Refused("te2 is another machine", code="SHW-360"))
    with pytest.raises(Refused, match="SHW-360"):
        await stages._join(run, "join_worker", "te2")
    assert machine.applied == []


class Brought:
    """What stages bring to a host: the steps are kept, and one of them came out as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Run, outcome: Outcome = "ok") -> None:
        self.notes: list[str] = []
        self.steps: list[Any] = []

        async def brought(_run: Run, _stage: str, _host: str, steps: list[Any]) -> list[StepResult]:
            self.steps += steps
            return [StepResult("it is so", outcome)]

        noting(monkeypatch, "_refuse_name_taken", [])
        monkeypatch.setattr(stages, "_bring_node", brought)
        monkeypatch.setattr(stages, "join_control_plane", module())
        monkeypatch.setattr(stages, "peers_of", lambda *_: ())
        for name, answer in (("_vip_held", [OK]), ("wait_for", OK)):
            noting(monkeypatch, name, self.notes, answer)
        for name in ("NoRotation", "BackupBefore"):
            monkeypatch.setattr(stages, name, self.asking(name))
        run.seen.surveys = {"te2": WHOLE}

    def asking(self, name: str) -> Any:
        """Return a check that notes that it was asked."""

        async def check(_: object) -> None:
            self.notes.append(name)

        return lambda *_: SimpleNamespace(check=check)


WHOLE = replace(SURVEY, evidence=Evidence("te2", admin=True, etcd=True))


@pytest.mark.parametrize("hardened", [True, False])
@pytest.mark.parametrize("name", ["_control_plane", "_join_control_plane"])
async def test_a_control_plane_keeps_in_mind_what_is_hardened_where_anything_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, *, hardened: bool
) -> None:
    run.cluster = run_of(hardening={"control_plane": hardened}).cluster
    brought = Brought(monkeypatch, run)
    await getattr(stages, name)(run, "control_plane", "te2")
    assert any(isinstance(step, HardeningDeclared) for step in brought.steps) is hardened


@pytest.mark.parametrize(
    ("allow", "outcome", "asked"),
    [
        (Impact.WORKLOADS, "ok", ["_vip_held", "wait_for"]),
        (Impact.WORKLOADS, "changed", ["_vip_held", "wait_for"]),
        (Impact.WORKLOADS, "failed", []),
        (Impact.NOTHING, "ok", []),
        (Impact.NOTHING, "drifted", []),
    ],
)
async def test_the_next_control_plane_waits_for_the_node_of_one_that_joined_and_a_plan_for_none(
    run: Run, machine: Watched, monkeypatch: pytest.MonkeyPatch, *, allow: Impact, outcome: Outcome, asked: list[str]
) -> None:
    brought, run.allow = Brought(monkeypatch, run, outcome), allow
    results = await stages._join_control_plane(run, "join_control_plane", "te2")
    assert (brought.notes, len(results)) == (asked, 1 + len(asked))
    assert machine.seen[:1] == ["forget"], "it begins with a look of its own"


@pytest.mark.parametrize(
    ("seen", "asked"),
    [
        (None, True),
        (replace(SURVEY, evidence=None), True),
        (replace(SURVEY, evidence=Evidence("te2", admin=True)), True),
        (WHOLE, False),
    ],
)
async def test_only_of_one_that_is_whole_neither_a_rotation_nor_a_backup_is_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, seen: Survey | None, *, asked: bool
) -> None:
    brought = Brought(monkeypatch, run)
    run.seen.surveys = {} if seen is None else {"te2": seen}
    await stages._join_control_plane(run, "join_control_plane", "te2")
    assert brought.notes[:-2] == (["NoRotation", "BackupBefore"] if asked else [])


@pytest.mark.parametrize(
    ("allow", "joined", "asked"),
    [
        (Impact.WORKLOADS, True, True),
        (Impact.NOTHING, True, False),
        (Impact.WORKLOADS, False, False),
        (Impact.WORKLOADS, None, False),
    ],
)
async def test_of_a_host_that_has_joined_what_its_labels_tell_of_its_gpus_is_read_beside_its_steps(
    run: Run, monkeypatch: pytest.MonkeyPatch, allow: Impact, *, joined: bool | None, asked: bool
) -> None:
    notes: list[str] = []
    noting(monkeypatch, "_told_of_gpus", notes, "")
    run.allow, run.seen.surveys = allow, {} if joined is None else {"te2": replace(SURVEY, joined=joined)}
    assert len(await stages._bring_node(run, "join_worker", "te2", [Act(Impact.FILES)])) == 1
    assert bool(notes) is asked


async def test_what_a_driver_tells_of_its_gpus_is_asked_of_hosts_that_have_some_and_no_answer_stops_nothing(
    run: Run, machine: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    (with_gpu,) = (host for host in run.cluster.hosts if host.name == "te2")
    said = [Output(0, "a report\n", ""), Output(0, "9.0\n", "")]
    monkeypatch.setattr(machine, "read", lambda *_: asyncio.sleep(0, said))
    assert await stages._told_of_gpus(run, with_gpu) == "a report\n\n9.0\n"
    assert await stages._told_of_gpus(run, with_gpu.model_copy(update={"gpus": 0})) == ""
    with monkeypatch.context() as patched:
        patched.setattr(stages, "VENDOR", SimpleNamespace(health=None))
        assert await stages._told_of_gpus(run, with_gpu) == "", "this vendor's driver tells nothing"
    monkeypatch.undo()
    machine.away = Unreachable("it went away")
    monkeypatch.setattr(run, "session", lambda _: machine)
    assert await stages._told_of_gpus(run, with_gpu) == ""


@pytest.mark.parametrize(
    ("step", "there", "code", "parts"),
    [
        ("GpusDivided", False, 0, 2),
        ("GpusWhole", False, 0, 2),
        ("GpusDivided", False, 1, 0),  # the driver does not say
        ("GpusDivided", True, 0, 7),  # nothing was changed
        ("another", False, 0, 7),
    ],
)
async def test_after_gpus_were_divided_their_parts_are_counted_anew(
    run: Run, machine: Watched, monkeypatch: pytest.MonkeyPatch, *, step: str, code: int, parts: int, there: bool
) -> None:
    listed = Output(code, "  MIG 3g.71gb Device 0: (UUID: MIG-aa)\n  MIG 3g.71gb Device 1: (UUID: MIG-bb)\n", "")
    monkeypatch.setattr(machine, "read", lambda *_: asyncio.sleep(0, listed))
    machine.applied += [step] if there else []
    run.seen.surveys = {"te2": replace(SURVEY, joined=False, driver_parts=7)}
    await stages._on_host(module(Act(Impact.FILES, step)), run, "nvidia_runtime", "te2")
    assert run.seen.surveys["te2"].driver_parts == parts


async def test_of_a_host_that_no_preflight_saw_no_parts_are_counted(run: Run) -> None:
    (result,) = await stages._on_host(module(Act(Impact.FILES, "GpusDivided")), run, "nvidia_runtime", "te2")
    assert (result.outcome, run.seen.surveys) == ("changed", {})


async def test_nodes_whose_class_had_to_wait_for_the_plugin_get_it_after_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Any] = [object()]
    plugin = SimpleNamespace(
        wait_for_hosts=lambda _: asyncio.sleep(0),
        unready=lambda _: (),
        steps=lambda *_: [],
        classes_left=lambda _: asyncio.sleep(0, left),
    )
    given: list[Any] = []

    async def by_api(_run: Run, _stage: str, steps: list[Any]) -> list[StepResult]:
        given.append(steps)
        return [OK]

    monkeypatch.setattr(stages, "device_plugin", plugin)
    monkeypatch.setattr(stages, "by_api", by_api)
    assert await stages._plugin(run, "device_plugin", "cluster") == [OK, OK]
    assert given == [[], left]


def test_every_verb_with_stages_of_its_own_is_in_the_table() -> None:
    assert set(stages.VERBS) == {path.parent.name for path in Path(stages.__file__).parent.glob("*/table.py")}


def test_the_stages_of_all_verbs_are_read_with_the_first_that_is_asked_for() -> None:
    """A command does not read what other verbs need."""
    assert stages.Stages()[StageName.DRAIN_NODE].name == StageName.DRAIN_NODE
    with pytest.raises(KeyError):
        stages.Stages()[cast("StageName", "no stage")]
