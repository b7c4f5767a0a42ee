"""The audit of dependencies fails for a vulnerability with a fix, never for a network, and says which it was."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package(name: str, *faults: tuple[str, list[str]], skipped: bool = False) -> dict[str, Any]:
    if skipped:
        return {"name": name, "skip_reason": "Dependency not found"}
    vulns = [{"id": one, "fix_versions": fixes, "aliases": [f"CVE-{one}"]} for one, fixes in faults]
    return {"name": name, "version": "1.0", "vulns": vulns}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([package("a"), package("b")], 0, "2 packages looked at"),
        ([package("a", ("P1", ["2.0"]))], 1, "a 1.0: P1 FIXED in 2.0"),
        ([package("a", ("P1", []))], 0, "a 1.0: P1 no fix yet"),
        ([package("a", ("P9", ["2.0"]))], 0, "a 1.0: P9 let pass: is not reached here"),
        ([package("a"), package("b", skipped=True)], 0, "not looked at: b"),
        ([package("a", skipped=True)], 0, "NOT RUN: its data cannot be had"),
        (None, 0, "NOT RUN: its data cannot be had"),
    ],
)
def test_an_audits_end(  # noqa: PLR0917 - a table and its fixtures
    audit: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: list[dict[str, Any]] | None,
    status: int,
    said: str,
) -> None:
    answer = "echo 'ConnectionError: no way' >&2; exit 1"
    if packages is not None:
        (tmp_path / "answer.json").write_text(json.dumps({"dependencies": packages, "fixes": []}))
        answer = f"cat {tmp_path}/answer.json"
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)
    (tmp_path / "ignored").write_text("# why\nCVE-P9 is not reached here\n")
    monkeypatch.setenv("PIP_AUDIT", str(tool))
    monkeypatch.setattr(audit, "IGNORED", tmp_path / "ignored")
    assert audit.main() == status
    assert said in capsys.readouterr().out


def test_what_is_let_pass_has_a_reason(audit: ModuleType) -> None:
    audit.ignored(audit.IGNORED.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="no reason"):
        audit.ignored("CVE-1\n")


def test_ci_audits() -> None:
    assert ".ci/audit.py" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
