"""Known vulnerabilities of what requirements.lock pins, by pip-audit: reported, and a failure where a fix is out.

Its data are asked of PyPI and, where that has none, of OSV. A look that could not be had for even one package is said
to be NOT RUN and fails nothing: a network that is down is no vulnerability. `.ci/audit-ignored` names what is let
pass, one a line: its ID, a blank, and the reason.
"""

# ruff: noqa: INP001, T201 - a script of its own, which says what it did
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
IGNORED = ROOT / ".ci" / "audit-ignored"
TOOL = "pip-audit==2.10.1"
SERVICES = (("PyPI", ("-s", "pypi")), ("OSV", ("-s", "osv")))
SECONDS = 300
NOT_RUN = "audit of dependencies: NOT RUN"


def ignored(text: str) -> dict[str, str]:
    """Return the reasons by ID; raises ValueError for an ID without one."""
    found = {}
    for line in text.splitlines():
        name, _, reason = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        if not reason.strip():
            raise ValueError(f"{IGNORED.name}: {name} has no reason")
        found[name] = reason.strip()
    return found


def judged(answer: Any, known: dict[str, str]) -> tuple[bool, int, list[str]]:
    """Return whether CI may go on, how many packages were really looked at, and what there is to say.

    pip-audit answers "no known vulnerabilities" for packages it could not ask about as well: those do not count.
    """
    good, looked, lines = True, 0, []
    for package in answer["dependencies"]:
        name = f"{package['name']} {package.get('version', '')}".strip()
        if "skip_reason" in package:
            lines.append(f"not looked at: {name}")
            continue
        looked += 1
        for fault in package["vulns"]:
            ids = (fault["id"], *fault.get("aliases", ()))
            reason = next((known[one] for one in ids if one in known), "")
            fixed = ", ".join(fault.get("fix_versions", ()))
            verdict = f"let pass: {reason}" if reason else f"FIXED in {fixed}" if fixed else "no fix yet"
            good = good and bool(reason or not fixed)
            lines.append(f"{name}: {fault['id']} {verdict}")
    return good, looked, lines


def asked(tool: Path, words: tuple[str, ...]) -> tuple[Any, str]:
    """Return pip-audit's answer, or None and why there is none."""
    command = [tool, "--disable-pip", "--require-hashes", "-r", LOCK, "--progress-spinner", "off", "-f", "json", *words]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        return json.loads(ran.stdout), ""
    except subprocess.TimeoutExpired:
        return None, f"no answer within {SECONDS} s"
    except ValueError:
        return None, (ran.stderr.strip().splitlines() or ["no answer"])[-1].partition("(")[0]


def installed(folder: Path) -> Path | None:
    """Return pip-audit in an environment of its own, or None where it cannot be had."""
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", TOOL]
    ran = subprocess.run(pip, capture_output=True, check=False)
    return folder / "bin" / "pip-audit" if ran.returncode == 0 else None


def main() -> int:
    """Audit; 1 for a vulnerability with a fix that nobody let pass."""
    known = ignored(IGNORED.read_text(encoding="utf-8"))
    whys = []
    with tempfile.TemporaryDirectory() as folder:
        own = os.environ.get("PIP_AUDIT")
        tool = Path(own) if own else installed(Path(folder))
        if tool is None:
            print(f"{NOT_RUN}: {TOOL} cannot be had")
            return 0
        for service, words in SERVICES:
            answer, why = asked(tool, (*words, *os.environ.get("PIP_AUDIT_ARGS", "").split()))
            good, looked, lines = judged(answer, known) if answer else (True, 0, [])
            if looked:
                print(f"audit of dependencies: {looked} packages looked at, by the data of {service}")
                print("\n".join(f"  {line}" for line in lines) or "  no known vulnerability")
                return 0 if good else 1
            whys.append(f"{service}: {why or 'it has no data on any of the packages'}")
    print(f"{NOT_RUN}: its data cannot be had\n  " + "\n  ".join(whys))
    return 0


if __name__ == "__main__":
    sys.exit(main())
