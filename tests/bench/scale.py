"""Scale on the SIMULATED lab: bootstraps of many hosts, task runs recorded and final; CPU without the lab's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.peers import HERE, environ

LATENCY = 0.1  # of the lab: with 0 its test pods end before the proof has seen them run together
READY = "SIMULATED lab ready: "
TURNS = {  # what is run, one after the other, on the same lab: bare hosts, nothing to change, one look at everything
    "first": ("flows.bootstrap",),
    "second": ("flows.bootstrap",),
    "scan": ("flows.drift_repair", "--repair", "none"),
}


def bootstrapped(count: int, folder: Path, limit: float, *, profile: bool = False) -> dict[str, Any]:
    """Measure one bootstrap of `count` simulated hosts, a second run with nothing to change, and a scan of drift.

    The lab is a process of its own and nothing in it waits, so what is left is the work of the controller. CPU and
    memory hold the run's own Prefect API process.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("lab", "prefect"):
        (folder / name).mkdir(parents=True)
    words = [sys.executable, "-m", "lab.simulated", "--state", str(folder / "lab"), "--hosts", str(count)]
    words += ["--latency", str(LATENCY), "--with-parent"]
    root, pipe = HERE.parent.parent, subprocess.PIPE
    with (folder / "lab.log").open("wb") as log:
        lab = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environ({}), cwd=root)
    result: dict[str, Any] = {"hosts": count}
    try:
        _ready(lab)
        for turn in TURNS:
            before = _cpu(lab.pid)
            result[turn] = _once(folder, turn, limit, profile=profile)
            result[turn]["lab_cpu"] = _cpu(lab.pid) - before
            if result[turn]["status"]:
                result["fault"] = f"the {turn} run ended {result[turn]['outcome']}: {result[turn]['why']}"
    except (RuntimeError, OSError) as error:
        result["fault"] = str(error)[-600:]
    finally:
        if lab.stdin:
            lab.stdin.close()
        lab.wait(30)
    return result


def _ready(lab: subprocess.Popen[str]) -> None:
    if lab.stdout is None or not lab.stdout.readline().startswith(READY):
        raise RuntimeError("the SIMULATED lab did not start")


def _cpu(pid: int) -> float:
    """Return the CPU seconds a living process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _once(folder: Path, turn: str, limit: float, *, profile: bool) -> dict[str, Any]:
    """Run a turn's command once under the measuring process."""
    run = ["-m", "cProfile", "-o", str(folder / f"{turn}.prof")] if profile else []
    module, *options = TURNS[turn]
    words = [*run, "-m", module, str(folder / "lab/cluster.yaml"), *options]
    heard, measured = measured_run(words, folder, turn, folder / "prefect", limit)
    said = (folder / f"{turn}.log").read_text(encoding="utf-8", errors="replace")
    gaps = [line for line in said.splitlines() if "history of this run has gaps" in line]
    return measured | {"outcome": heard.get("outcome"), "why": str(heard.get("errors", [])[:1])[:400], "gaps": gaps}


def measured_run(
    words: list[str], folder: Path, turn: str, home: Path, limit: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a flow's command with Prefect's home in `home`; return its report, and what it took with its task runs.

    Raises RuntimeError with the end of what it said where there is no report.
    """
    out, report = folder / f"{turn}.measured.json", folder / f"{turn}.report.json"
    measure = [sys.executable, "-m", "tests.bench.measure", str(out), str(limit), sys.executable, *words]
    own = {name: value for name, value in environ({}).items() if not name.startswith("PREFECT_")}
    place = own | {"PREFECT_HOME": str(home), "NO_COLOR": "1"}
    with (folder / f"{turn}.log").open("wb") as log:
        asked = [*measure, "--quiet", "--report", str(report)]
        subprocess.run(asked, env=place, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    if not out.exists() or not report.exists():
        said = (folder / f"{turn}.log").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"no measure of the {turn} run: {said[-500:]}")
    heard: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return heard, json.loads(out.read_text(encoding="utf-8")) | recorded(home)


def recorded(home: Path) -> dict[str, int]:
    """Return how many task runs Prefect's database holds, and how many of them in no final state."""
    import sqlite3  # noqa: PLC0415 - only here

    link = sqlite3.connect(f"file:{home / 'prefect.db'}?mode=ro", uri=True)
    try:
        rows = link.execute("select state_type, count(*) from task_run group by state_type").fetchall()
    finally:
        link.close()
    final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    return {
        "task_runs": sum(count for _, count in rows),
        "not_final": sum(count for kind, count in rows if kind not in final),
    }
