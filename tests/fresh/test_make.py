"""make refuses what it would drop in silence, and says at once what setting up does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import set_up

ROOT = Path(__file__).parents[2]
TARGETS = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def make(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Ask make what it would do."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | more
    return subprocess.run(
        ["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize(
    ("target", "typed"),
    [
        *((target, "cluster=x.yaml") for target in ("", *TARGETS)),
        *(("bootstrap", typed) for typed in ("Cluster=x.yaml", "args=--plan", "CLUSTERS=x.yaml", "KEEP=1")),
    ],
)
def test_a_variable_that_nobody_reads_is_refused_for_every_target(target: str, typed: str) -> None:
    asked = make(*filter(None, (target, typed)))
    assert asked.returncode != 0
    assert f"no variable is called {typed.partition('=')[0]} here" in asked.stderr
    assert asked.stdout == ""


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_that_help_names_is_taken(target: str) -> None:
    asked = make(target)
    assert asked.returncode == 0, asked.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bootstrap", "README.md"), "no target is called README.md"),
        (("bootstrap", "no-such.yaml"), "no target is called no-such.yaml"),
        (("bootstrap", "CLUSTER="), "CLUSTER is empty"),
        (("test", "CLUSTER=x.yaml"), "CLUSTER=x.yaml is for `make bootstrap` alone"),
        (("check", "ARGS=-x"), "ARGS is for"),
    ],
)
def test_what_would_be_dropped_in_silence_is_refused(words: tuple[str, ...], said: str) -> None:
    asked = make(*words)
    assert asked.returncode != 0
    assert said in asked.stderr
    assert asked.stdout == ""


def test_what_is_known_reaches_the_command() -> None:
    assert "-m flows.bootstrap x.yaml --plan" in make("bootstrap", "CLUSTER=x.yaml", "ARGS=--plan").stdout
    assert "-m flows.bootstrap x.yaml" in make("bootstrap", CLUSTER="x.yaml").stdout  # exported
    assert "other-python -c" in make("bootstrap", "PYTHON=other-python").stdout


def lock(folder: Path, *lines: str) -> Path:
    """Write a lock file."""
    path = folder / "requirements.lock"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.long
def test_setting_up_says_at_once_what_it_does_and_leaves_an_environment_that_is_ready(tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    with subprocess.Popen(
        [sys.executable, "-m", "tools.set_up", folder, lock(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"Setting up {folder} for Python {set_up.VERSION}")
        process.stdout.read()  # to its end
    assert process.returncode == 0
    assert (folder / f".ready-{set_up.VERSION}").exists()
    assert set_up.fits(folder / "bin" / "python")


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with a pip, which takes seconds."""
    folder = tmp_path_factory.mktemp("made") / "environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def folder(_made: Path, tmp_path: Path) -> Path:
    """Copy it, for one test."""
    return shutil.copytree(_made, tmp_path / "environment", symlinks=True)


@pytest.mark.xdist_group("environment")
@pytest.mark.long
def test_a_set_that_lacks_what_a_package_needs_is_not_ready(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = next(folder.glob("lib/python*/site-packages")) / "needy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: needy\nVersion: 1\nRequires-Dist: absent\n")
    (folder / ".ready").touch()
    monkeypatch.setattr(set_up, "install", lambda *_: "")
    assert set_up.main(folder, lock(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "needy 1 requires absent, which is not installed" in said
    assert "make clean" in said
    assert not (folder / f".ready-{set_up.VERSION}").exists()


def test_an_environment_of_another_python_or_without_pip_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    assert not set_up.fits(folder / "bin" / "python")
    assert not set_up.fits(tmp_path / "none" / "bin" / "python")


@pytest.mark.xdist_group("environment")
def test_a_lock_that_cannot_be_installed_shows_why(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = "wheel-that-is-not-there.whl"
    assert set_up.main(folder, lock(tmp_path, f"--no-index\n./{wheel} --hash=sha256:{'0' * 64}")) == 1
    said = capsys.readouterr().err
    assert wheel in said
    assert "failed: see above" in said
