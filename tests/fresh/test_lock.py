"""The lock is whole for every Python that is supported: by its markers, and by what the packages themselves ask for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
# The first release and the last known of each minor version, and those in between at which a package's needs change.
PYTHONS = ("3.11.0", "3.11.2", "3.11.3", "3.11.15", "3.12.0", "3.12.13", "3.13.0", "3.13.5", "3.14.0", "3.14.6")
# What the packages ask for that this Python does not install, and so has no metadata of.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "async-timeout": (),
    "pywin32": (),
    "whenever": ("tzdata>=2020.1; sys_platform == 'win32'",),
    "pendulum": ("python-dateutil>=2.6", "tzdata>=2020.1"),
    "tzdata": (),
}


def locked() -> dict[str, Requirement]:
    """Return the pins of the lock by name."""
    lines = [line.rstrip(" \\") for line in LOCK.splitlines() if re.match(r"[a-zA-Z0-9]", line)]
    return {canonicalize_name(pin.name): pin for pin in map(Requirement, lines)}


def environment(python: str) -> dict[str, str]:
    """Return the environment of markers on Linux with CPython of this version."""
    version = ".".join(python.split(".")[:2])
    here = {name: str(value) for name, value in default_environment().items()}
    return here | {"python_full_version": python, "python_version": version, "implementation_version": python}


def asked(name: str) -> list[Requirement]:
    """Return what a package asks for, by its own metadata."""
    try:
        texts = metadata.requires(name) or ()
    except metadata.PackageNotFoundError:
        texts = ELSEWHERE[name]
    return [Requirement(text) for text in texts]


def missing(pins: dict[str, Requirement], wanted: list[Requirement], python: str) -> Iterator[str]:
    """Yield what is needed on this Python, from these on, and is not pinned, or in another version."""
    here = environment(python)
    seen: set[tuple[str, str]] = set()
    waiting = [("requirements.in", "", requirement) for requirement in wanted]
    while waiting:
        by, extra, requirement = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({**here, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        pin = pins.get(name)
        if pin is None or (pin.marker and not pin.marker.evaluate(here)):
            yield f"{by} needs {requirement}"
            continue
        (pinned,) = pin.specifier
        if not requirement.specifier.contains(pinned.version, prereleases=True):
            yield f"{by} needs {requirement}, pinned is {pinned.version}"
        for each in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, each))
            waiting += [(name, each, found) for found in asked(name)]


@pytest.mark.parametrize("python", PYTHONS)
def test_nothing_is_missing_on_any_python_that_is_supported(python: str) -> None:
    wanted = [Requirement(line) for line in (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()[1:]]
    assert sorted(missing(locked(), wanted, python)) == []


@pytest.mark.parametrize(
    ("gone", "python"), [("async-timeout", "3.11.2"), ("whenever", "3.13.5"), ("tzdata", "3.12.0")]
)
def test_a_pin_that_only_some_pythons_need_is_missed_where_it_is_needed(gone: str, python: str) -> None:
    pins = locked()
    assert pins.pop(gone).marker is not None
    wanted = [Requirement("prefect"), Requirement("asyncssh"), Requirement("redis")]
    assert any(gone in fault for fault in missing(pins, wanted, python))


def test_every_pin_has_hashes_and_no_address() -> None:
    entries = re.findall(r"^[a-zA-Z0-9][^\n]*(?:\n    [^\n]*)*", LOCK, re.MULTILINE)
    assert len(entries) == len(locked()) > 100
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in LOCK


def test_the_lock_and_the_project_ask_for_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()[1:]
    assert [
        line for line in (*project["dependencies"], *project["optional-dependencies"]["dev"]) if line not in lines
    ] == []
