"""Run the mutants of all safety rules, or of some, in a copy of the tree, and write docs/mutants.md.

make mutants                          all of them (an hour on one core)
make mutants ARGS=--only=drain        those of the modules whose file's name holds that text
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.mutants.page import PAGE, RECORDED, ROOT, Result, page, recorded
from tests.mutants.table import HARMLESS, TESTS, shown_to

LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".lab", "build", ".*_cache", ".hypothesis", "*.egg-info"
)


def main(words: list[str]) -> int:
    """Run, record, write the page. Returns 1 where a mutant survived that nobody said to be harmless."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="NAME", help="modules whose file holds this text")
    parser.add_argument(
        "--matching", default="", metavar="TEXT", help="mutants whose name holds this text; not recorded"
    )
    chosen = parser.parse_args(words)
    files = [file for file in TESTS if chosen.only in file]
    if not files:
        parser.error(f"no module's file holds {chosen.only}; there are {', '.join(TESTS)}")
    left: list[str] = []
    with tempfile.TemporaryDirectory(prefix="shipway-mutants-") as folder:
        for file in files:
            copied = Path(folder, "tree")
            copy(copied)
            result = run(file, copied, chosen.matching)
            left += [f"{file}: {one}" for one in result.survivors if one not in HARMLESS.get(file, {})]
            if not chosen.matching:
                record(result)
            shutil.rmtree(copied)
    print(
        "\n".join(["SURVIVED, and nobody says why that is harmless:", *left])
        if left
        else "no safety rule can go unseen"
    )
    return 1 if left else 0


def copy(to: Path) -> None:
    """Copy the tree; the virtual environment is only linked."""
    shutil.copytree(ROOT, to, ignore=LEFT_OUT, symlinks=True)
    (to / ".venv").symlink_to((ROOT / ".venv").resolve())


def run(file: str, tree: Path, matching: str) -> Result:
    """Run the mutants of one module in a copy of the tree. Raises CalledProcessError where its tests fail without."""
    started = time.monotonic()
    into = tree.with_name("results.json")
    tests = shown_to(file)
    options = [
        "-s",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:terminal",
        "-p",
        "tests.mutants.plugin",
        "-m",
        "not lab and not faults and not ui",
    ]
    mutated = [f"--mutate={file}.py", f"--mutate-into={into}", f"--mutate-matching={matching}"]
    print(f"{file}, shown to {', '.join(tests)}", flush=True)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    basetemp = f"--basetemp={tree.with_name('pytest')}"
    words = [sys.executable, "-m", "pytest", *options, basetemp, "--hypothesis-seed=0", *mutated, *tests]
    subprocess.run(words, cwd=tree, env=environment, check=True)
    said = json.loads(into.read_text(encoding="utf-8"))
    found = said["mutants"]
    survivors = tuple(one["id"] for one in found if not one["by"])
    late = sum(one["by"] == "no answer in time" for one in found)
    day = datetime.now(UTC).date().isoformat()
    return Result(file, len(found), late, survivors, round(time.monotonic() - started), day, tuple(said["left_out"]))


def record(result: Result) -> None:
    """Keep a module's newest result, and write the page of all."""
    results = {one.file: one for one in recorded()} | {result.file: result}
    kept = [results[file] for file in TESTS if file in results]
    RECORDED.write_text("".join(f"{one.line()}\n" for one in kept), encoding="utf-8")
    PAGE.write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
