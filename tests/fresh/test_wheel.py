"""The wheel holds what a run needs, and its console script runs away from the project's folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places.prefect import fill

ROOT = Path(__file__).parents[2]
ROOMS = ("shipway", "tasks", "flows", "manifests")

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.long]


def run(*words: str | Path, cwd: Path, code: int = 0) -> str:
    """Run a command that knows nothing of the project's folder; returns what it said."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTHON"))}
    environment = own | {"PREFECT_HOME": str(cwd / "prefect")}
    ran = subprocess.run(
        words, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ran.returncode == code, ran.stdout
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, from a copy: a build leaves folders behind that would go into the next one."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "project"
    for name in ROOMS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder,
        copy,
        cwd=folder,
    )
    (made,) = folder.glob("shipway-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it into an empty environment, beside the packages that these tests run with; gives its bin folder."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "environment", cwd=folder)
    python = folder / "environment" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.glob("environment/lib/python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python.parent


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Path]:
    """Run a SIMULATED lab of two hosts; gives its cluster file."""
    words = ["-m", "lab.simulated", "--state", tmp_path / "lab", "--hosts", "2", "--latency", "0.01", "--with-parent"]
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        line = next(line for line in process.stdout if line.startswith("SIMULATED lab ready: "))
        yield Path(line.rpartition(": ")[2].strip())
        process.stdin.close()


def test_the_wheel_holds_every_file_of_its_rooms_and_nothing_else(wheel: Path) -> None:
    files = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == files


def test_an_installed_shipway_has_its_manifests_and_profiles(installed: Path, tmp_path: Path) -> None:
    code = (
        "from shipway.cluster import profiles\nfrom shipway.kube import manifests\n"
        "print(len(manifests.render('verify/namespace.yaml', namespace='x')))\n"
        "print([path.stem for path in profiles.FOLDER.iterdir()])\n"
        "print(manifests.__file__)"
    )
    rendered, names, place = run(installed / "python", "-c", code, cwd=tmp_path).splitlines()
    assert int(rendered) > 0
    assert "'current'" in names
    assert Path(place).is_relative_to(installed.parent)


def test_the_console_script_says_what_verbs_there_are(installed: Path, tmp_path: Path) -> None:
    said = run(installed / "shipway", "--help", cwd=tmp_path)
    assert all(f"  {verb} " in said for verb in ("bootstrap", "drift-repair", "verify", "fleet"))
    assert "usage: shipway verify " in run(installed / "shipway", "verify", "--help", cwd=tmp_path)


def test_the_console_script_plans_a_cluster_away_from_the_projects_folder(
    installed: Path, lab: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    fill(tmp_path / "prefect")
    said = run(installed / "shipway", "bootstrap", lab, "--plan", "--report", report, cwd=tmp_path)
    assert json.loads(report.read_text(encoding="utf-8"))["outcome"] == "planned", said


def test_an_installed_shipway_without_a_cluster_file_says_that_it_brings_no_lab(
    installed: Path, tmp_path: Path
) -> None:
    said = run(installed / "shipway", "bootstrap", cwd=tmp_path, code=1)
    assert "no SIMULATED lab belongs to an installed Shipway [SHW-105]" in said
    assert "Traceback" not in said
