"""The report: judged by rules, written whole, read by people and programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.summary import say
from shipway.cluster_file import parse_cluster
from shipway.errors import LoginRefused, PostconditionFailed, Refused, Unreachable
from shipway.gpu.proof import Proof
from shipway.gpu.result import none_ready
from shipway.stage import StageName
from shipway.step import Drift, Impact, Outcome, StepResult
from shipway.survey.first_look import Survey
from tasks.artifacts import markdown
from tasks.context import Run
from tasks.drift.report import drift_report
from tasks.judging import report_of
from tasks.report import EXIT_CODES, Report, report_refusal
from tasks.stage_result import CLUSTER, Mode, StageResult, StepRow, errors_of, foreseen, report_redacted, worst

FILE = """
name: te
profile: seed
hosts:
- {name: te1, address: 192.0.2.1, gpus: 0}
- {name: te2, address: 192.0.2.2, gpus: 1}
- {name: te3, address: 192.0.2.3, gpus: 1}
"""
GATE = StageResult(CLUSTER, "control_plane_ready", "ok")
PROVEN = Proof("ok", 2, 2, 2, {"gpu-test-1": "GPU-a", "gpu-test-2": "GPU-b"})


def run_with(
    results: Sequence[StageResult],
    *,
    ready: Sequence[str],
    proof: Proof | None,
    mode: Mode = "bootstrap",
    admitted: int = 3,
) -> Run:
    """Return a run that ended with these results."""
    run = Run(parse_cluster(FILE), mode)
    run.results += results
    run.ready, run.proof = set(ready), proof
    run.admitted = {host.name for host in run.hosts[:admitted]}
    return run


def stage(host: str, outcome: Outcome, *errors: Exception) -> StageResult:
    """Return a stage's result."""
    heard = tuple(
        report_redacted(error.at(host=host, step="s"))
        for error in errors
        if isinstance(error, (Unreachable, LoginRefused, PostconditionFailed))
    )
    return StageResult(host, "prepare_system", outcome, (StepRow("s", outcome, "a", "b"),), 1, 2.0, heard)


ALL = ("te1", "te2", "te3")
FINE = [stage(name, "changed") for name in ALL]
DEAD = [stage("te1", "ok"), stage("te2", "ok"), stage("te3", "failed", Unreachable("gone"))]
BLIND = Proof("failed", 2, 0, 0, error=PostconditionFailed("no GPU"))
HELD = Proof("all held", 2, 2, notes=("2 GPUs are held by pods of others: none is free to be proven",))
HALF = Proof("failed", 2, 1, 1, {"gpu-test-1": "GPU-a"}, error=PostconditionFailed("one GPU"))


@pytest.mark.parametrize(
    ("outcome", "run"),
    [
        ("ok", run_with([GATE, *FINE], ready=ALL, proof=PROVEN)),
        ("partial", run_with([GATE, *DEAD], ready=ALL[:2], proof=Proof("ok", 1, 1, 1, {"gpu-test-1": "GPU-a"}))),
        ("partial", run_with([GATE, *FINE], ready=ALL, proof=HALF)),
        ("partial", run_with([GATE, *FINE, stage(CLUSTER, "failed", LoginRefused("x"))], ready=ALL, proof=PROVEN)),
        ("failed", run_with(FINE, ready=(), proof=None)),
        ("failed", run_with([GATE, *FINE], ready=ALL, proof=BLIND)),
        ("failed", run_with([GATE, *FINE], ready=ALL, proof=None)),
        ("refused", run_with(DEAD[2:], ready=(), proof=None, admitted=0)),
        ("failed", run_with(DEAD[2:], ready=(), proof=BLIND, admitted=0)),
        ("planned", run_with([stage(name, "drifted") for name in ALL], ready=ALL, proof=None, mode="plan")),
        ("partial", run_with(DEAD, ready=ALL, proof=None, mode="plan")),
        (
            "failed",
            run_with([stage("te1", "failed", Unreachable("x")), *DEAD[1:2]], ready=ALL, proof=None, mode="plan"),
        ),
        (
            "failed",
            run_with([stage(name, "failed", Unreachable("x")) for name in ALL], ready=(), proof=None, mode="plan"),
        ),
        ("refused", run_with(DEAD[2:], ready=(), proof=None, mode="plan", admitted=0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_is_judged_by_hosts_control_plane_and_gpus(outcome: str, run: Run) -> None:
    report = report_of(run)
    assert report.outcome == outcome
    assert report.exit_code == {"ok": 0, "planned": 0, "refused": 1, "drifted": 2, "partial": 2, "failed": 3}[outcome]


def test_a_host_that_never_came_as_far_as_being_ready_is_not_ok() -> None:
    report = report_of(run_with([GATE, *FINE], ready=ALL[:2], proof=PROVEN))
    assert [host.outcome for host in report.hosts] == ["changed", "changed", "unknown"]
    assert report.outcome == "partial"


def test_an_error_that_names_a_host_fails_it_whichever_stage_reported() -> None:
    error = report_redacted(PostconditionFailed("not Ready", host="te2", step="every node is Ready"))
    heard = StageResult(CLUSTER, "nodes_ready", "failed", errors=(error,))
    report = report_of(run_with([GATE, *FINE, heard], ready=ALL, proof=PROVEN))
    assert {host.name: host.outcome for host in report.hosts}["te2"] == "failed"


def test_what_breaks_a_run_off_fails_it_and_is_reported() -> None:
    report = report_of(run_with([GATE, *FINE], ready=ALL, proof=PROVEN), broken_off="the run was interrupted")
    assert (report.outcome, report.errors[-1].cause, report.errors[-1].retryable) == (
        "failed",
        "the run was interrupted",
        True,
    )


@pytest.mark.parametrize("errors", [(), (PostconditionFailed("not Ready", host="te2"),)])
def test_where_pods_hold_every_gpu_the_terminal_says_so_and_sends_nobody_to_mend(
    tmp_path: Path, errors: tuple[PostconditionFailed, ...]
) -> None:
    (tmp_path / "te").mkdir()
    (tmp_path / "te" / "kubeconfig").touch()
    unproven = StageResult(CLUSTER, "gpu_proof", "unknown", (StepRow("every GPU can be used", "unknown"),))
    run = run_with([GATE, *FINE, unproven, *(stage("te2", "failed", error) for error in errors)], ready=ALL, proof=HELD)
    run.cluster = run.cluster.model_copy(update={"state_dir": str(tmp_path)})
    console = Console(file=StringIO(), width=200)
    say(console, report_of(run), run)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "pods hold every one, so none was free to be proven" in said
    assert ("mend what is named above" in said) is bool(errors)
    assert ("nothing is to be mended" in said) is not bool(errors)


@pytest.mark.parametrize(
    ("busy", "outcome", "words"), [(1, "drifted", "withholds"), (0, "drifted", "this about"), (1, "ok", "this about")]
)
def test_a_plan_beside_pods_promises_only_what_a_run_would_do(busy: int, outcome: Outcome, words: str) -> None:
    """It said that the same command brings it about, and the run withheld it."""
    run = run_with([stage(name, outcome) for name in ALL], ready=ALL, proof=None, mode="plan")
    run.seen.busy = {"te2": "1 GPUs held by running pods"} if busy else {}
    report, console = report_of(run), Console(file=StringIO(), width=200)
    say(console, report, run)
    assert words in console.file.getvalue()  # type: ignore[attr-defined]
    assert not any("withheld" in warning for warning in report.warnings)


def test_a_fault_that_a_stage_has_named_is_not_named_by_the_proof_again() -> None:
    first = PostconditionFailed("NVML does not load", host="te2", step="s", code="SHW-614")
    again = PostconditionFailed("broken link: driver", host="te2", step="proof", code="SHW-614")
    other = PostconditionFailed("broken link: image", host="te3", step="proof", code="SHW-608")
    proof = StageResult(CLUSTER, "gpu_proof", "failed", errors=(report_redacted(again), report_redacted(other)))
    report = report_of(run_with([GATE, *FINE, stage("te2", "failed", first), proof], ready=ALL, proof=BLIND))
    assert [(error.code, error.step) for error in report.errors] == [("SHW-614", "s"), ("SHW-608", "proof")]


@pytest.mark.parametrize(("failed", "told"), [(("te2", "te3"), False), (("te2",), True), ((), True)])
def test_that_no_node_has_gpus_is_told_unless_each_of_their_hosts_has_said_why(
    failed: tuple[str, ...], *, told: bool
) -> None:
    """A host whose driver did not come had an error of its own, and another one sent a person to its node."""
    away = none_ready({"te2": 4, "te3": 4})
    proof = StageResult(CLUSTER, "gpu_proof", "failed", errors=(report_redacted(away),))
    own = [stage(name, "failed", PostconditionFailed("no driver", code="SHW-691")) for name in failed]
    run = run_with([GATE, *FINE[:1], *own, proof], ready=ALL[:1], proof=BLIND)
    run.cluster = parse_cluster(FILE.replace("gpus: 0", "gpus: 4"))
    report = report_of(run)
    assert [error.code for error in report.errors] == ["SHW-691"] * len(failed) + ["SHW-616"] * told
    assert report.outcome == "partial"


@pytest.mark.parametrize(("ended", "allocatable"), [("ok", 4), ("failed", 0)])
def test_a_run_that_ends_in_its_proof_still_says_how_many_gpus_are_offered(ended: Outcome, allocatable: int) -> None:
    errors = () if ended == "ok" else (PostconditionFailed("too few"),)
    run = run_with([GATE, *FINE, stage(CLUSTER, ended, *errors)], ready=ALL, proof=None)
    run.cluster = parse_cluster(FILE.replace("gpus: 0", "gpus: 4"))
    run.results[-1] = replace(run.results[-1], stage=StageName.GPUS_ALLOCATABLE)
    report = report_of(run, broken_off="the run was interrupted")
    assert report.gpus["allocatable"] == (report.gpus["expected"] if allocatable else 0)
    assert report.gpus["verified"] == 0


def test_gpus_of_a_control_plane_that_keeps_pods_away_are_not_expected_but_reported() -> None:
    run = Run(parse_cluster(FILE.replace("gpus: 0", "gpus: 4")), "bootstrap")
    run.seen.surveys["te1"] = Survey(
        "te1",
        joined=False,
        gpus=4,
        driver_gpus=4,
        driver_said="",
        toolkit=True,
        machine_id="",
        product_uuid="",
        skew=0.0,
    )
    report = report_of(run)
    assert report.gpus["expected"] == 2
    assert any("te1: its 4 GPUs are not used" in warning for warning in report.warnings)


def test_a_warning_with_what_a_host_or_the_cluster_says_steers_no_terminal_and_tells_no_secret() -> None:
    run = run_with([GATE], ready=(), proof=None)
    run.warned.append("w1: kept: a proxy: \x1b[2J\u202e token=abcdef.0123456789abcdef is connected")
    for report in (report_of(run), drift_report(run)):
        (line,) = [one for one in report.warnings if one.startswith("w1: kept")]
        assert not {"\x1b", "\u202e"} & set(line)
        assert "0123456789abcdef" not in line


def test_spared_hosts_are_reported() -> None:
    run = run_with([GATE, *FINE], ready=ALL, proof=PROVEN)
    run.seen.busy = {"te2": "2 GPUs held by running pods"}
    assert run.allowed("te2") is Impact.START
    assert run.allowed("te3") is Impact.WORKLOADS
    assert any("te2: nothing that runs is restarted" in warning for warning in report_of(run).warnings)


def test_a_restart_that_is_withheld_beside_gpu_pods_is_drift_left_over_with_its_command() -> None:
    row = StepRow("containerd runs its current configuration", "drifted", "started before", "started after")
    spared = StageResult("te2", "nvidia_runtime", "drifted", (row,))
    run = run_with([GATE, *FINE, spared], ready=ALL, proof=PROVEN)
    run.seen.busy = {"te2": "2 GPUs held by running pods"}
    report = report_of(run)
    assert (report.outcome, report.exit_code, report.errors) == ("drifted", 2, ())
    (line,) = [warning for warning in report.warnings if "withheld" in warning]
    assert "started before" in line
    assert "--repair workloads --host te2" in line


def test_a_kubelet_that_is_not_restarted_for_its_endpoint_is_told_with_the_verb_that_does_it() -> None:
    row = StepRow("the kubelet asks the API where its kubelet.conf leads", "drifted", "started before", "started since")
    run = run_with(
        [GATE, *FINE, StageResult("te2", "endpoint_kubeconfigs", "drifted", (row,))], ready=ALL, proof=PROVEN
    )
    run.seen.busy, run.file = {"te2": "2 GPUs held by running pods"}, "te.yaml"
    (line,) = [warning for warning in report_of(run).warnings if "withheld" in warning]
    assert "`python -m flows.move_endpoint te.yaml --beside-gpu-pods`" in line
    assert "drift_repair" not in line
    run.endpoint.beside_gpu_pods = True
    assert not [warning for warning in report_of(run).warnings if "nothing that runs is restarted" in warning]


def test_beside_pods_that_hold_every_gpu_a_withheld_restart_is_no_failure() -> None:
    """Seen on a real H200 whose only GPU was at work: exit status 3, and nothing named to mend."""
    row = StepRow("nvidia is containerd's default runtime", "drifted", "runc", "nvidia")
    spared = StageResult("te2", "nvidia_runtime", "drifted", (row,))
    unproven = StageResult(CLUSTER, "gpu_proof", "unknown", (StepRow("every GPU can be used", "unknown"),))
    run = run_with([GATE, *FINE, spared, unproven], ready=ALL, proof=HELD)
    run.seen.busy, run.file = {"te2": "2 GPUs held by running pods"}, "te.yaml"
    report = report_of(run)
    assert (report.outcome, report.exit_code, report.errors) == ("drifted", 2, ())
    assert any("flows.drift_repair te.yaml --repair workloads --host te2" in line for line in report.warnings)


def test_a_run_on_a_cluster_whose_gpus_are_all_at_work_has_not_failed_and_has_proven_nothing() -> None:
    unproven = StageResult(CLUSTER, "gpu_proof", "unknown", (StepRow("every GPU can be used", "unknown"),))
    report = report_of(run_with([GATE, *FINE, unproven], ready=ALL, proof=HELD))
    assert (report.outcome, report.exit_code, report.errors) == ("partial", 2, ())


def test_a_report_is_put_in_place_in_one_rename_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "report.json"
    report = report_refusal(Refused("a bad file"), "plan")
    report.write(path)
    assert json.loads(path.read_text(encoding="utf-8"))["errors"][0]["cause"] == "a bad file"
    monkeypatch.setattr(Report, "as_json", lambda _: "\ud800")
    with pytest.raises(UnicodeEncodeError):
        report.write(path)
    assert [one.name for one in path.parent.iterdir()] == ["report.json"]
    assert json.loads(path.read_text(encoding="utf-8"))["outcome"] == "refused"


def test_the_same_error_on_many_hosts_is_said_once() -> None:
    dead = [stage(name, "failed", Unreachable("gone")) for name in ALL[1:]]
    run, out = run_with(dead, ready=(), proof=None), StringIO()
    say(Console(file=out, width=160), report_of(run), run)
    assert "error: te2, te3: s: gone [SHW-201] Next: " in out.getvalue()


@pytest.mark.parametrize("mode", ["bootstrap", "plan"])
def test_the_end_of_a_run_says_hosts_errors_and_what_next(mode: Mode) -> None:
    run = run_with([GATE, *DEAD, stage("te1", "drifted")], ready=ALL[:2], proof=PROVEN, mode=mode)
    out = StringIO()
    say(Console(file=out, width=160), report_of(run), run, simulated=True)
    said = out.getvalue()
    assert "SIMULATED" in said
    assert "te3: s: gone [SHW-201] Next: Check that the host is up" in said
    assert ("would change: s (have a; want b) [te1]" in said) == (mode == "plan")
    assert "next: " in said or "then: " in said or "kubeconfig" in said


def test_foreign_text_stays_harmless_in_markdown() -> None:
    rows = (StepRow("s", "changed", "a|b\n<script>", "want"),)
    text = markdown(report_of(run_with([StageResult("te1", "x", "changed", rows)], ready=(), proof=None)))
    assert "- **s**: was a\\|b &lt;script>; want want. *changed* on te1 (x)" in text


def test_outcomes_have_an_order_and_exit_codes_are_those_promised() -> None:
    assert worst(["ok", "changed", "drifted"]) == "drifted"
    assert worst(["failed", "unknown"]) == "failed"
    assert worst([]) == "ok"
    assert EXIT_CODES == {"ok": 0, "planned": 0, "refused": 1, "drifted": 2, "partial": 2, "failed": 3}


STOPPED = StepResult("kubelet runs", "drifted", Impact.SERVICE, Drift("stopped", "runs"))
NO_CRI = StepResult("CRI answers", "drifted", Impact.NOTHING, Drift("no CRI plugin", "loaded"))


@pytest.mark.parametrize(
    ("results", "pending", "outcomes"),
    [
        ([NO_CRI], False, ["failed"]),
        ([NO_CRI], True, ["unknown"]),
        ([NO_CRI, STOPPED], False, ["failed", "drifted"]),
        ([STOPPED, NO_CRI], False, ["drifted", "unknown"]),
        ([StepResult("x", "unknown"), NO_CRI], False, ["unknown", "unknown"]),
        ([StepResult("x", "ok"), NO_CRI, NO_CRI], False, ["ok", "failed", "failed"]),
    ],
)
def test_a_plan_foresees_that_a_check_without_a_step_ends_the_run(
    results: list[StepResult],
    pending: bool,  # noqa: FBT001
    outcomes: list[str],
) -> None:
    seen = foreseen("te1", results, pending=pending)
    assert [result.outcome for result in seen] == outcomes
    # The run's own error of the same check is the plan's.
    heard = errors_of("te1", seen, Impact.NOTHING)
    assert {error.message for error in heard} <= {str(NO_CRI.drift)}
    assert len(heard) == outcomes.count("failed")


def test_a_check_nobody_can_mend_is_an_error_of_a_bootstrap_and_news_in_a_look() -> None:
    check = StepResult("CPU is enough", "drifted", Impact.NOTHING, Drift("1 CPU", "2 CPU"))
    spared = StepResult("kubelet runs", "drifted", Impact.SERVICE, Drift("stopped", "runs"))
    assert [error.step for error in errors_of("te1", [check, spared], Impact.FILES)] == ["CPU is enough"]
    assert errors_of("te1", [check, spared], Impact.NOTHING) == ()


def test_secrets_in_a_steps_texts_are_hidden() -> None:
    error = Unreachable("kubeadm join --token abcdef.0123456789abcdef failed")
    row = StepRow.of(StepResult("s", "failed", drift=Drift("token: abcdef.0123456789abcdef", "x"), error=error))
    assert "0123456789abcdef" not in f"{row}{report_redacted(error)}"


def test_a_name_that_is_no_host_is_refused() -> None:
    with pytest.raises(Refused, match="te9: no such host in the cluster file; it has te1, te2, te3"):
        Run(parse_cluster(FILE), "plan", ["te9"])


def test_a_run_without_connections_closes() -> None:
    asyncio.run(Run(parse_cluster(FILE), "plan").close())
