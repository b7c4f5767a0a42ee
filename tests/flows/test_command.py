"""The command line as a user runs it: a process, on a SIMULATED lab."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.lock import hold_lock
from tests.flows.story import Story
from tests.places.prefect import rows


def command(home: Path, *words: str) -> subprocess.Popen[str]:
    """Start the command line as a user does, with the database of these tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.bootstrap", *words],
        env={**environment, "PREFECT_HOME": str(home)},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def recorded(home: Path, said: str) -> list[str]:
    """Return the states of the task runs of the flow run that the command line said was the one."""
    flow_run = said.rsplit("/runs/flow-run/", 1)[1].split(maxsplit=1)[0]
    return [kind for (kind,) in rows(home, "select state_type from task_run where flow_run_id = ?", flow_run)]


@pytest.mark.long
def test_the_bare_command_brings_up_a_simulated_cluster_and_keeps_its_history(tmp_path: Path) -> None:
    report, home = tmp_path / "command.json", tmp_path / "prefect"
    with command(home, "--report", str(report)) as process:
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert json.loads(report.read_text(encoding="utf-8"))["outcome"] == "ok"
    assert "SIMULATED outcome: ok" in said
    assert "the SIMULATED lab is gone" in said
    assert "gaps" not in said
    assert "Traceback" not in said
    states = recorded(home, said)
    assert set(states) == {"COMPLETED"}
    assert len(states) >= 4 * 6


@pytest.mark.xdist_group("prefect")
@pytest.mark.parametrize("at", ["preflight", "gpu_proof "])
def test_a_run_asked_to_end_says_so_reports_and_frees_the_cluster(story: Story, at: str) -> None:
    """In its subflow too: Prefect puts its own handler of SIGTERM in place at the start of each."""
    report = story.reports / "ended.json"
    said = ""
    with command(story.home, str(story.folder / "cluster.yaml"), "--report", str(report)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if at in line:
                process.send_signal(signal.SIGTERM)
                break
        said += process.stdout.read()
    assert process.returncode == 3, said
    written = json.loads(report.read_text(encoding="utf-8"))
    assert (written["outcome"], written["errors"][-1]["cause"]) == ("failed", "the run was interrupted")
    assert "Traceback" not in said
    assert set(recorded(story.home, said)) <= {"COMPLETED", "CRASHED"}
    with hold_lock(story.folder / "state" / "simulated" / "lock", "simulated"):
        pass
