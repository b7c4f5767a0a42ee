"""Nothing outside shipway/os knows a package manager: not in its words, and not in what it does on a host."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster.parts import Key
from shipway.cluster_file import parse_cluster
from shipway.converge import converge, look_at_all
from shipway.host.session import Host
from shipway.os.families import FAMILIES
from shipway.os.family import Family
from shipway.step import Check, Impact
from tasks.context import Run
from tasks.drift.parts import host_parts
from tasks.stages import control_plane, join_worker, preflight
from tasks.stages.listed import PREPARATION
from tests.os.debian_machine import DebianMachine
from tests.os.machine import Machine
from tests.os.rpm_family import Rpm
from tests.os.rpm_machine import RpmMachine
from tests.places.facts import DEBIAN

ROOT = Path(__file__).parents[2]
ROOMS = ("shipway", "tasks", "flows")
# Programs and files of Debian's package manager; and its name, which is also that of a section of the cluster file.
PROGRAMS = re.compile(r"apt-(?:get|cache|mark|config|helper|key)|\bdpkg|/etc/apt|\.deb\b|sources\.list|InRelease")
NAME = re.compile(r"\bapt\b|base_apt|Apt[A-Z]")
FAILURES = "entries of the catalogue: they match the programs' own words, and their fixes are typed on such a host"
SECTION = "`sources.apt` and `sources.base_apt` are keys of the cluster file, and what they hold is data of one family"
PROGRAMS_MAY = {
    "shipway/known_failures/gpu.py": FAILURES,
    "shipway/known_failures/hosts.py": FAILURES,
    "shipway/known_failures/kubeadm.py": FAILURES,
    "shipway/cluster/sources.py": "where a key's layout comes from: sources.list(5)",
}
NAME_MAY = {
    "shipway/known_failures/gpu.py": FAILURES,
    "shipway/known_failures/hosts.py": FAILURES,
    "shipway/known_failures/kubeadm.py": FAILURES,
    "shipway/cluster/sources.py": SECTION,
    "shipway/cluster/parts.py": SECTION,
    "shipway/cluster/types.py": SECTION,
    "shipway/cluster/profiles.py": SECTION,
    "shipway/rules/files.py": SECTION,
    "shipway/rules/versions.py": SECTION,
    "shipway/rules/warnings.py": SECTION,
    "shipway/rules/solver.py": SECTION,
    "shipway/redact.py": "a comment: which programs print a proxy's address as they got it",
}


def sources() -> Iterator[tuple[str, str]]:
    """Yield path and text of every source outside shipway/os."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            if not place.startswith("shipway/os/"):
                yield place, path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("words", "may"), [(PROGRAMS, PROGRAMS_MAY), (NAME, NAME_MAY)], ids=["programs", "name"])
def test_only_these_places_outside_the_seam_know_debians_package_manager(
    words: re.Pattern[str], may: dict[str, str]
) -> None:
    found = {place for place, text in sources() if words.search(text)}
    assert found - set(may) == set(), "ask the host's family (shipway/os/family.py)"
    assert set(may) - found == set(), "an exception that nothing needs any more"


def protected() -> set[str]:
    """Return the modules that an import contract lets only some others import."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {name for one in project["tool"]["importlinter"]["contracts"] for name in one.get("protected_modules", ())}


def test_no_family_and_no_vendor_of_gpus_is_without_its_import_contract() -> None:
    named = {".".join(type(family).__module__.split(".")[:3]) for family in FAMILIES}
    made = re.compile(r"^\w+(: Vendor)? = Vendor\(", re.MULTILINE)
    gpu = (ROOT / "shipway" / "gpu").glob("*.py")
    named |= {f"shipway.gpu.{path.stem}" for path in gpu if made.search(path.read_text(encoding="utf-8"))}
    assert len(named) > 1
    assert named - protected() == set(), "its line in pyproject.toml, beside those of its kind"


def cluster() -> Cluster:
    return parse_cluster(
        "name: te\nhosts: [{name: te1, address: 10.0.0.1}, {name: te2, address: 10.0.0.2, gpus: 1}]\n"
        "proxy: {http: 'http://proxy.example.com:3128'}\n"
    )


def rpm() -> Family:
    key = Key(url="https://packages.example.com/key.asc", fingerprint="A" * 40)
    return Rpm({title: (f"https://packages.example.com/{title}", key) for title in ("docker", "nvidia", "kubernetes")})


def all_steps(made: Cluster, family: Family) -> Iterator[Check[Host]]:
    """Yield every step and check of a host, by the stages that a bootstrap runs, and those of a drift pass."""
    host, control = made.hosts[1], cast("Host", object())
    yield from preflight.checks(made, host, family)
    for stage in PREPARATION:
        yield from stage.steps(made, host, family)
    yield from control_plane.steps(made, made.hosts[0], family)
    yield from join_worker.steps(made, host, family, control)
    run = Run(made, "drift")
    run.seen.families = {one.name: family for one in made.hosts}
    for part in host_parts(run, host):
        yield from part.steps


async def asked_of(on: Machine, family: Family) -> str:
    """Look by every step on a host, and return all that this asked of it; what a look raises is no matter here."""
    await look_at_all(list(all_steps(cluster(), family)), cast("Host", on))
    return "\n".join([*(" ".join(words) for words in on.ran), *on.read_paths])


async def test_on_a_host_of_another_family_no_step_of_any_stage_asks_debians_programs_or_files() -> None:
    host, debian = RpmMachine('ID="rocky"\nVERSION_ID="9"\n', strict=False), DebianMachine("ID=debian\n", strict=False)
    asked = await asked_of(host, rpm())
    assert [line for line in asked.splitlines() if PROGRAMS.search(line) or NAME.search(line)] == []
    assert "rpm -q" in asked, "the double was asked"
    assert PROGRAMS.search(await asked_of(debian, DEBIAN)), "the words are those that a Debian host is asked with"


@pytest.mark.parametrize("stage", PREPARATION, ids=lambda stage: stage.__name__.rpartition(".")[2])
def test_every_stage_names_the_same_facts_whatever_the_family_but_for_the_package_managers_own(stage: Any) -> None:
    made = cluster()
    ours, theirs = (
        [step.name.replace("apt", "PM").replace("dnf", "PM") for step in stage.steps(made, made.hosts[1], family)]
        for family in (DEBIAN, rpm())
    )
    assert len(ours) == len(theirs)
    assert {*ours} ^ {*theirs} <= {"dpkg is in order", "no transaction is unfinished"}


async def test_a_plan_on_a_host_of_another_family_changes_nothing() -> None:
    host = RpmMachine('ID="rocky"\nVERSION_ID="9"\n', strict=False)
    before = dict(host.files), dict(host.packages)
    for stage in PREPARATION:
        made = cluster()
        results = await converge(stage.steps(made, made.hosts[1], rpm()), cast("Host", host), Impact.NOTHING)
        assert {result.outcome for result in results} <= {"ok", "drifted", "unknown", "failed"}
    assert (dict(host.files), dict(host.packages)) == before
