"""One pass over many SIMULATED hosts: findings, task runs, round trips, memory. `python -m tests.drift.scale [N]`.

Exits with 1 unless an untouched cluster shows no drift, ten changed hosts are found and no other, a host costs one task
run and at most three round trips, and the pass and its own Prefect API together stay under a gigabyte.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from flows import admission, bootstrap
from lab.simulated.control import ask
from shipway.cluster_file import load_cluster
from tasks.context import Run, open_run
from tasks.judging import report_of
from tasks.report import Report
from tests.bench.scale import READY, measured_run
from tests.faults.plain import plain_on

ROOT = Path(__file__).parents[2]
GIGABYTE = 10**9
CHANGED = 10
TRIPS = 3
LIMIT = 3600.0
RUNS = 4


async def joined(file: Path) -> Report:
    """Bring all hosts up without Prefect, over SSH, without the proof of GPUs; return the report of the last run."""
    for _ in range(RUNS):  # on a busy machine some hosts take longer than they may: the next run completes them
        began, run = time.monotonic(), Run(load_cluster(file), "bootstrap")
        async with open_run(run):
            await bootstrap.bring_up(run)
            report = report_of(run)
        print(f"bootstrap: {dict(report.counted)}, {time.monotonic() - began:.0f} s", flush=True)
        if not report.counted.get("failed"):
            break
        print(f"  {report.errors[0].host}: {report.errors[0].cause}", flush=True)
    return report


def passed(file: Path, folder: Path, turn: str) -> dict[str, Any]:
    """Return the report of a pass that only looks, as a command of its own, with what it took."""
    words = ["-m", "flows.drift_repair", str(file), "--repair", "none"]
    heard, took = measured_run(words, folder, turn, folder / turn, LIMIT)
    return heard | {"took": took}


def faults(heard: dict[str, Any], hosts: int, changed: set[str]) -> list[str]:
    """Return what a pass did not keep."""
    found = {(one["host"], one["step"]) for one in heard["findings"]}
    wanted = {(name, "kubelet, kubeadm, kubectl are held") for name in changed}
    trips = max(host["round_trips"] for host in heard["hosts"])
    rules = {
        f"found {len(found)} things, not {len(wanted)}: {sorted(found ^ wanted)[:5]}": found == wanted,
        f"{heard['took']['task_runs']} task runs ({heard['took']['not_final']} not final)": heard["took"]["task_runs"]
        == hosts + 1,
        f"{trips} round trips on a host": trips <= TRIPS,
        f"{heard['took']['memory'] / 1e6:.0f} MB": heard["took"]["memory"] < GIGABYTE,
        f"{len(heard['hosts'])} hosts, {len(heard['errors'])} errors": len(heard["hosts"]) == hosts
        and not heard["errors"],
    }
    took = f"{heard['took']['wall']:.0f} s, {heard['took']['cpu']:.0f} s of CPU, {heard['took']['memory'] / 1e6:.0f} MB"
    print(f"{heard['outcome']}: {hosts} hosts, {len(found)} findings, {trips} round trips at most, {took}", flush=True)
    return [text for text, kept in rules.items() if not kept]


def main(hosts: int) -> int:
    """Measure; return the exit status."""
    with tempfile.TemporaryDirectory(prefix="shipway-drift-") as place, pytest.MonkeyPatch.context() as patch:
        folder = Path(place)
        words = [sys.executable, "-m", "lab.simulated", "--state", str(folder / "lab"), "--hosts", str(hosts)]
        words += ["--latency", "0", "--with-parent"]
        lab = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            if lab.stdout is None or not (line := lab.stdout.readline()).startswith(READY):
                raise RuntimeError("the SIMULATED lab did not start")
            file = Path(line.removeprefix(READY).strip())
            for module in (bootstrap, admission):
                patch.setattr(module, "on", plain_on)
            if asyncio.run(joined(file)).counted.get("failed"):
                raise RuntimeError("not all hosts came up")
            wrong = faults(passed(file, folder, "untouched"), hosts, set())
            changed = {f"te{number}" for number in range(2, hosts + 1, max(1, hosts // CHANGED))}
            for name in changed:
                ask(folder / "lab", do="drift", host=name, kind="unhold", package="kubelet")
            wrong += faults(passed(file, folder, "changed"), hosts, changed)
        finally:
            if lab.stdin:
                lab.stdin.close()
            lab.wait(60)
    for line in wrong:
        print(f"NOT KEPT: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
