"""The page of everything that was broken and what a pass made of it: docs/drift-table.md, from recorded results.

SHIPWAY_DRIFT_RESULTS=results.jsonl python -m pytest -m lab tests/lab/test_cluster_drift.py   (and test_drift.py)
python -m tests.drift.page results.jsonl
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tasks.findings import Finding

PAGE = Path(__file__).parents[2] / "docs" / "drift-table.md"
RECORDED = Path(__file__).parent / "results.jsonl"
HEAD = """# What was broken, found and repaired

Made by `python -m tests.drift.page` from what the tests recorded; each row is a test of its own: it breaks exactly
this, runs one pass with `--repair service`, and looks at what became of it. `containers` is a real kubeadm cluster
(Kubernetes 1.20.2, containerd 1.6, hosts in containers); `simulated` stands where the container lab's hosts share the
kernel, the clock or the disk.

| what is broken | lab | the step that finds it | impact | what becomes of it |
|---|---|---|---|---|
"""


def keep(what: str, finding: Finding, lab: str) -> None:
    """Record a row, where a file to record in is named by SHIPWAY_DRIFT_RESULTS."""
    place = os.environ.get("SHIPWAY_DRIFT_RESULTS")
    if place:
        row = {"what": what, "lab": lab, "step": finding.step, "impact": finding.impact, "end": finding.action}
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def page(recorded: str) -> str:
    """Return the page of recorded rows, one a line."""
    rows = [json.loads(line) for line in recorded.splitlines() if line]
    last = {row["what"]: row for row in rows}
    lines = [f"| {r['what']} | {r['lab']} | {r['step']} | {r['impact'].lower()} | {r['end']} |" for r in last.values()]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    RECORDED.write_text(Path(sys.argv[1]).read_text(encoding="utf-8"), encoding="utf-8")
    PAGE.write_text(page(RECORDED.read_text(encoding="utf-8")), encoding="utf-8")
