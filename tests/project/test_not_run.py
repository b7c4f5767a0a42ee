"""CI runs by name what a fresh system skipped: what is written down there has to be what pytest finds again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GROUPED = """
import os
import pytest

pytestmark = pytest.mark.xdist_group("one")

@pytest.mark.parametrize("value", ["plain", "a@b", "[c]"])
def test_it(value):
    if "HERE" not in os.environ:
        pytest.skip("not here")
"""


def _pytest(place: Path, *args: str, **environment: str) -> str:
    """Run pytest with this project's conftest and two workers in another folder, and return what it printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-n", "2", "--dist", "loadgroup", *args]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CI"))}
    ran = subprocess.run(
        command,
        cwd=place,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout + ran.stderr


@pytest.mark.long
def test_tests_of_a_group_that_were_skipped_are_found_by_the_names_that_were_written_down(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = xdist_group\n", encoding="utf-8")
    (tmp_path / "test_grouped.py").write_text(GROUPED, encoding="utf-8")
    names = tmp_path / "not-run"
    assert "3 skipped" in _pytest(tmp_path, SHIPWAY_NOT_RUN=str(names))
    written = names.read_text(encoding="utf-8").splitlines()
    assert sorted(written) == [f"test_grouped.py::test_it[{value}]" for value in ("[c]", "a@b", "plain")]
    assert "3 passed" in _pytest(tmp_path, *written, HERE="1")
