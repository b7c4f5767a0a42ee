"""The process list while a whole bootstrap runs: no secret on a command line or in an environment of the controller."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.security.secret_forms import SECRET_FORMS

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
SECONDS = 300.0
PAUSE = 0.005


def seen_of(mark: str, known: set[str]) -> set[tuple[str, str, str]]:
    """Return (process id, command line, environment) of every process that carries the mark."""
    found = set()
    for pid in os.listdir("/proc"):  # noqa: PTH208 - quick
        if not pid.isdigit():
            continue
        try:
            environment = Path("/proc", pid, "environ").read_bytes().decode(errors="replace")
            if mark in environment:
                known.add(pid)
            if pid in known:
                words = Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                found.add((pid, words, environment))
        except OSError:
            continue
    return found


def test_no_process_of_a_run_shows_a_secret(tmp_path: Path) -> None:
    mark, known = f"mark-{uuid.uuid4()}", set[str]()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**plain, "PREFECT_HOME": str(tmp_path), "SHIPWAY_MARK": mark}
    report, seen, looks = tmp_path / "report.json", set[tuple[str, str, str]](), 0
    with subprocess.Popen(
        [sys.executable, "-m", "flows.bootstrap", "--report", str(report)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        ends = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < ends:
            seen |= seen_of(mark, known)
            looks += 1
            time.sleep(PAUSE)
        process.kill()
        said = process.communicate()[0]
    assert process.returncode == 0, said
    lines = {words.strip() for _, words, _ in seen}
    print(f"{looks} looks at the process list, {len(known)} processes: {sorted(lines)}")
    assert any("flows.bootstrap" in words for words in lines)
    assert any("lab.simulated" in words for words in lines)
    assert looks > 500
    assert not [words for words in lines if SECRET_FORMS.search(words)]
    assert not [pid for pid, _, environment in seen if SECRET_FORMS.search(environment.replace(mark, ""))]
    assert not SECRET_FORMS.search(said)
