"""What a run looks like while it lasts: lines where no terminal is, a row per host on one."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from flows.cli.terminal import Lively, Plain, say_elapsed, show
from shipway.cluster_file import parse_cluster
from shipway.errors import Unreachable
from shipway.step import Drift, Impact, StepResult
from tasks.context import Run
from tasks.stage_result import CLUSTER, StageResult, StepRow, report_redacted

MANY = "name: te\nprofile: seed\nkubernetes: {pod_network: 10.0.0.0/14}\nhosts:\n" + "".join(
    f"- {{name: h{number}, address: 192.0.2.{number}}}\n" for number in range(1, 61)
)
LOST = StageResult("h60", "preflight", "failed", errors=(report_redacted(Unreachable("gone", host="h60", step="SSH")),))


def console(height: int = 20, *, terminal: bool = False) -> tuple[Console, StringIO]:
    out = StringIO()
    return Console(file=out, width=120, height=height, force_terminal=terminal, color_system=None), out


def test_where_no_terminal_is_there_is_one_line_a_stage_and_what_a_wait_sees() -> None:
    on, out = console()
    view = Plain(on)
    view.begin_stage("te1", "prepare_system")
    changed = StepResult("swap is off", "changed", Impact.FILES, Drift("on", "none"))
    view.show_step("te1", "prepare_system", changed)
    view.end_stage(StageResult("te1", "prepare_system", "changed", (StepRow.of(changed),), 3, 1.5))
    view.show_wait(CLUSTER, "nodes_ready", "3 of 8 ready; gpu-05: token: abcdef.0123456789abcdef")
    view.end_stage(LOST)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "changed in 1.5 s: 1 changed" in lines[0]
    assert "3 of 8 ready; gpu-05: " in lines[1]
    assert "0123456789abcdef" not in lines[1]
    assert "failed in 0.0 s: SSH: gone [SHW-201]" in lines[2]


def test_where_no_terminal_is_many_hosts_are_counted_and_each_cause_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.cli.terminal.TICK_SECONDS", 0.0)
    on, out = console()
    with show(on, "plan", quiet=False) as view:
        view.begin_run(Run(parse_cluster(MANY), "plan"))
        for number in (1, 2, 1, 3):  # the first host is tried again, which is no further host
            error = report_redacted(Unreachable(f"root@192.0.2.{number}:22: gone", host=f"h{number}", step="SSH"))
            view.end_stage(StageResult(f"h{number}", "preflight", "failed", errors=(error,)))
        view.end_stage(StageResult("h1", "preflight", "ok"))
        view.show_wait("h4", "preflight", "a sentence of one host of many")
        view.show_wait(CLUSTER, "pod_network", "2 of 3 pods run")
    said = out.getvalue()
    assert said.count("gone") == 1
    assert "of 60 hosts: preflight 3 (3 failed)" in said
    assert said.splitlines()[-1].endswith("of 60 hosts: preflight 3 (2 failed)")
    assert "one host of many" not in said
    assert "2 of 3 pods run" in said


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50), (40, 10)])
def test_the_table_fits_the_terminal_and_shows_failures_beside_what_is_at_work(width: int, height: int) -> None:
    out = StringIO()
    on = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    view = Lively(on, "bootstrap of te.yaml")
    view.begin_run(Run(parse_cluster(MANY), "bootstrap"))
    view.end_stage(LOST)
    for number in range(1, 60):
        view.begin_stage(f"h{number}", "kubernetes_packages")
        view.show_wait(
            f"h{number}", "kubernetes_packages", "waiting for apt's lock: unattended-upgrades holds it; 570 s left"
        )
    view.begin_stage(CLUSTER, "pod_network")
    on.print(view)
    lines = out.getvalue().splitlines()
    assert len(lines) < height
    assert max(len(line) for line in lines) <= width
    assert any(line.startswith("h60 ") for line in lines)
    assert sum(line.startswith("cluster ") for line in lines) == 1
    assert any("0 s" in line for line in lines if line.startswith("h5"))
    assert "not shown: " in out.getvalue()


def test_a_line_stays_when_the_table_goes() -> None:
    on, out = console(terminal=True)
    with show(on, "bootstrap of te.yaml", quiet=False) as view:
        view.begin_run(Run(parse_cluster(MANY), "bootstrap"))
        view.end_stage(LOST)
    assert (
        out.getvalue()
        .splitlines()[-1]
        .endswith("last stage of each host: 59 not tried (h[1-59] (59 hosts)); 1 failed (h60)")
    )


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (59.9, "59 s"), (200, "3 m 20 s"), (3900, "1 h 05 m")])
def test_a_duration_is_reported_as_people_say_it(seconds: float, said: str) -> None:
    assert say_elapsed(seconds) == said


def test_quiet_says_nothing() -> None:
    on, out = console()
    with show(on, "plan", quiet=True) as view:
        view.begin_run(Run(parse_cluster(MANY), "plan"))
        view.end_stage(LOST)
    assert not out.getvalue()


def test_of_many_hosts_those_at_work_and_those_that_failed_are_shown_first() -> None:
    on, out = console()
    view = Lively(on, "SIMULATED bootstrap")
    view.begin_run(Run(parse_cluster(MANY), "plan"))
    view.begin_stage("h59", "join_worker")
    view.show_step("h59", "join_worker", StepResult("the node has joined", "ok"))
    view.end_stage(LOST)
    view.begin_stage(CLUSTER, "pod_network")
    view.begin_stage(CLUSTER, "dashboard")
    view.end_stage(StageResult(CLUSTER, "dashboard", "ok"))
    on.print(view)
    said = out.getvalue()
    assert "SIMULATED bootstrap" in said
    assert "the node has joined: ok" in said
    assert "SSH: gone [SHW-201]" in said
    assert re.search(r"^cluster +pod_network", said, re.MULTILINE)
    assert "dashboard" not in said
    assert "60 hosts: 1 at work, 1 failed; 0 s" in said
    assert "not shown: 58 waits" in said
    assert len(said.splitlines()) <= 20


@pytest.mark.parametrize(("terminal", "kind"), [(True, Lively), (False, Plain)])
def test_the_view_is_the_one_that_fits(*, terminal: bool, kind: type[Plain]) -> None:
    on, _ = console(terminal=terminal)
    with show(on, "title", quiet=False) as view:
        assert type(view) is kind
