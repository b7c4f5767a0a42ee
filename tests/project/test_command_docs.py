"""Commands and options are documented where a person looks for them, and what is documented exists."""

from __future__ import annotations

import argparse
import importlib.util
import re
from pathlib import Path

import pytest

from flows.cli.shipway import COMMANDS as VERBS
from lab.simulated.__main__ import _parser as simulated_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE = {
    "drift-repair": "drift-repair.md",
    "remove": "remove.md",
    "replace": "replace.md",
    "reset": "reset.md",
    "backup": "backup.md",
    "restore": "backup.md",
    "certificates": "certificates.md",
    "harden": "harden.md",
    "move-endpoint": "control-planes.md",
    "rotate-ca": "rotate-ca.md",
    "upgrade": "upgrade.md",
    "maintain": "maintain.md",
}
COMMANDS = [
    *((verb.parser(), PAGE.get(name, "running.md"), f"python -m flows.{verb.module}") for name, verb in VERBS.items()),
    (simulated_parser(), "lab-simulated.md", "python -m lab.simulated"),
]
TESTED = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Return a parser's long options."""
    found = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    return found - {"--help"}


@pytest.mark.parametrize(("parser", "page", "name"), COMMANDS, ids=[name for _, _, name in COMMANDS])
def test_every_option_is_documented_and_tested(parser: argparse.ArgumentParser, page: str, name: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert name in text
    assert sorted(option for option in options(parser) if f"`{option}" not in text) == []
    assert sorted(option for option in options(parser) if f'"{option}' not in TESTED) == []


def test_the_usage_line_of_a_bootstrap_names_its_options_and_no_other() -> None:
    text = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    usage = next(line for line in text.splitlines() if line.startswith("python -m flows.bootstrap ["))
    assert set(re.findall(r"--[a-z-]+", usage)) == options(VERBS["bootstrap"].parser())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_command_or_page_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    modules = re.findall(r"python -m ((?:flows|tasks|shipway|lab|tests|deployments)[a-z_.]*)", text)
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)`", text) if name not in targets] == []
    links = [link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_target_of_the_makefile_is_documented() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert len(targets) > 5
    assert [name for name in targets if not re.search(rf"make {name}\b(?!-)", text)] == []


def test_the_exit_statuses_are_those_documented() -> None:
    text = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    assert "**0** as wanted (or planned), **1** refused and nothing changed, **2** some hosts failed" in text
    assert "0 as wanted, 1 refused and nothing changed, 2 some hosts failed, 3 failed" in str(
        VERBS["bootstrap"].parser().epilog
    )
