"""The page of real faults: what was done, what the run said, what happened next; made from recorded runs.

SHIPWAY_REAL_FAULTS=runs.jsonl python -m pytest -m lab tests/lab/test_faults_control_plane.py   (and ..._workers.py)
python -m tests.project.real_faults_page runs.jsonl
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "real-faults.md"
RECORDED = Path(__file__).parent / "real_faults_results.jsonl"
LONGEST = 420  # characters of a message in the table; the run itself shows all of it
HEAD = """# Real faults, and what a run makes of them

Made by `python -m tests.project.real_faults_page` from what `tests/lab/test_faults_*.py` recorded. Each row is a
fault on a real kubeadm cluster (Kubernetes 1.20.2, containerd 1.6, hosts in containers): something is really broken
while a bootstrap runs, and what the run said is quoted, with its exit status and code ([errors.md](errors.md)). A
"plain run" is the same command again, without options, with nothing else done than what the row says. Messages longer
than {longest} characters are cut with "…".

| fault | what the user sees | what happens next |
|---|---|---|
"""
TAIL = """
Where a row says "by itself", nobody did anything: the run waited or tried again. Elsewhere a person ended the fault
(gave the port free, brought the mirror back), and the plain run did the rest; no host was cleaned by hand in any row.

Swap and the wrong tokens are simulated: swap shows in /proc/swaps and is turned off by a stand-in for swapoff, and
`kubeadm token create` is led through a script that hands out a token which was never made, or which has expired.
"""


def keep(fault: str, **said: Any) -> None:
    """Record how a fault's run (`first`) or the plain run after it (`then`) ended, in the file SHIPWAY_REAL_FAULTS.

    A line holds a part of a row; the last one of each part counts. Without that variable nothing is recorded.
    """
    place = os.environ.get("SHIPWAY_REAL_FAULTS")
    if place:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"fault": fault, **said}, ensure_ascii=False) + "\n")


def merged(recorded: str) -> list[dict[str, Any]]:
    """Return one row a fault, its parts put together, in the order in which the faults first came."""
    rows: dict[str, dict[str, Any]] = {}
    for line in recorded.splitlines():
        part = json.loads(line)
        rows.setdefault(part["fault"], {}).update(part)
    return list(rows.values())


def _cell(text: str) -> str:
    """Return a text for a table's cell: one line, no bars, cut where it is long."""
    plain = " ".join(text.split())
    short = plain if len(plain) <= LONGEST else plain[:LONGEST] + "…"
    closed = short + "`" * (short.count("`") % 2)
    return closed.replace("|", "\\|").replace("<", "&lt;")


def _seen(row: dict[str, Any]) -> str:
    """Return what the user sees of the run with the fault."""
    first = row["first"]
    parts = [f"`outcome: {first['outcome']}`, exit {first['exit']}, {first['seconds']:.0f} s"]
    for error in first["errors"]:
        where = f"{error['host']}: {error['step']}"
        tries = f"; tried {error['tries']} times" if error["tries"] > 1 else ""
        parts.append(
            f"{_cell(where)}: {_cell(error['cause'])} **[{error['code']}]** Next: {_cell(error['fix'])}{tries}"
        )
    parts += [f"*{_cell(line)}*" for line in first["lines"]]
    return "<br>".join(parts)


def _next(row: dict[str, Any]) -> str:
    """Return what happened next."""
    then = row.get("then")
    if then is None:
        return str(row["next"])
    ended = f"plain run: `outcome: {then['outcome']}`, exit {then['exit']}, {then['seconds']:.0f} s"
    return f"{row['next']}; {ended}"


def page(recorded: str) -> str:
    """Return the page of what was recorded."""
    lines = [f"| {row['fault']} | {_seen(row)} | {_next(row)} |" for row in merged(recorded)]
    return HEAD.replace("{longest}", str(LONGEST)) + "\n".join(lines) + "\n" + TAIL


if __name__ == "__main__":
    RECORDED.write_text(Path(sys.argv[1]).read_text(encoding="utf-8"), encoding="utf-8")
    PAGE.write_text(page(RECORDED.read_text(encoding="utf-8")), encoding="utf-8")
