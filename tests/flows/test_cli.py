"""The command line's refusals: exit status 1, one clear message, and nothing is started."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import pytest

from flows.cli import bootstrap, drift_repair, fleet
from flows.cli import verb as verb_of_all
from flows.cli.shipway import COMMANDS
from flows.cli.shipway import main as shipway
from flows.prefect_api.loading import uncollected
from tasks.table import VERBS
from tests.cluster.broken_files import broken_files, expected

ROOT = Path(__file__).parents[2]
MORE = {
    "remove": ["te2"],
    "replace": ["te2"],
    "reset": ["te2", "--confirm", "te2"],
    "rotate-ca": ["--confirm", "te"],
}  # what a verb takes besides the cluster file
OWN = ("bootstrap", "fleet")  # verbs whose run is in their own file: all others have one in common
FINE = "name: te\nprofile: seed\nhosts:\n- {name: te1, address: 192.0.2.1}\n- {name: te2, address: 192.0.2.2}\n"


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test where a refusal comes too late."""

    def started(*_: object, **__: object) -> None:
        pytest.fail("a process was started for input that is refused")

    for module in (bootstrap, fleet, verb_of_all):
        monkeypatch.setattr(module, "LocalApi", started)
    monkeypatch.setattr(bootstrap, "Demo", started)
    monkeypatch.setattr("asyncssh.connect", started)


@pytest.fixture
def fine(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(FINE, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", broken_files(), ids=lambda path: path.stem)
def test_a_broken_cluster_file_ends_with_1_and_one_clear_message(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    assert bootstrap.COMMAND.main([str(path), "--report", str(report)]) == 1
    said = capsys.readouterr().out
    assert "\nerror: " in said
    assert "Traceback" not in said
    for text in expected(path):
        assert text in said
    written = json.loads(report.read_text(encoding="utf-8"))
    assert (written["outcome"], written["hosts"], len(written["errors"])) == ("refused", [], 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "te9"], "no host te9 in "),
        (["--reset", "te9"], "no host te9 in "),
        (["--keep"], "--keep is for the SIMULATED lab"),
        (["--report", "no/such/folder/report.json"], "name a file in a folder that is there"),
        (["--report", "."], "name a file in a folder that is there"),
    ],
)
def test_input_that_cannot_be_meant_is_refused(
    words: list[str], message: str, fine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fine.parent)
    assert bootstrap.COMMAND.main([str(fine), *words]) == 1
    assert message in capsys.readouterr().out


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.COMMAND.main([str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml" in capsys.readouterr().out


def test_bad_usage_ends_with_1_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bootstrap.COMMAND.main(["--no-such-thing"])
    assert ended.value.code == 1
    assert "usage: python -m flows.bootstrap" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_every_verb_is_a_command_that_helps_and_refuses(
    verb: str, fine: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        shipway([verb, "--help"])
    assert ended.value.code == 0
    assert f"usage: shipway {verb} " in capsys.readouterr().out
    report = tmp_path / "report.json"
    more = MORE.get(verb, [])
    assert shipway([verb, str(tmp_path / "none.yaml"), *more, "--report", str(report)]) == 1
    assert "none.yaml" in capsys.readouterr().out
    assert json.loads(report.read_text(encoding="utf-8"))["outcome"] == "refused"
    assert shipway([verb, str(fine), *more, "--report", str(tmp_path / "none" / "report.json")]) == 1
    assert "name a file in a folder that is there [SHW-136]" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["no-such-verb"]])
def test_a_verb_that_is_not_there_is_refused_with_those_that_are(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert shipway(words) == 1
    said = capsys.readouterr().err
    assert [verb for verb in COMMANDS if f"  {verb} " not in said] == []
    assert all(word in said for word in words)


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_a_fault_of_the_program_is_one_line_with_its_traceback_in_a_file_and_never_exit_status_1(
    verb: str, fine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("token: abcdef.0123456789abcdef")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(f"flows.cli.{verb if verb in OWN else 'verb'}.LocalApi", broken)
    monkeypatch.setattr(fleet, "given_url", lambda: "http://127.0.0.1:9/api")
    report = tmp_path / "report.json"
    assert shipway([verb, str(fine), *MORE.get(verb, []), "--report", str(report)]) == 3
    captured = capsys.readouterr()
    (line,) = [line for line in captured.out.splitlines() if line.startswith("error: ")]
    assert "KeyError" in line
    assert "[SHW-130]" in line
    (traceback,) = tmp_path.glob("shipway-fault-*.txt")
    assert str(traceback) in line
    assert "in broken" in traceback.read_text(encoding="utf-8")
    assert traceback.stat().st_mode & 0o077 == 0
    assert "abcdef.0123456789abcdef" not in line + traceback.read_text(encoding="utf-8")
    assert "Traceback" not in captured.out + captured.err
    assert json.loads(report.read_text(encoding="utf-8"))["outcome"] == "failed"


@pytest.mark.parametrize("module", [command.module for command in COMMANDS.values()])
def test_something_is_said_before_anything_large_is_imported(module: str, fine: Path) -> None:
    """A command says its first line with none of what takes seconds to import."""
    code = (
        "import builtins, sys, runpy\n"
        f"sys.argv = {['x', str(fine), *MORE.get(module, [])]!r}\n"
        "def said(*words, **_):\n"
        "    print_(*words, flush=True)\n"
        "    print_(sorted({'rich', 'pydantic', 'prefect', 'asyncssh', 'yaml'} & set(sys.modules)), flush=True)\n"
        "    raise SystemExit(0)\n"
        "print_, builtins.print = print, said\n"
        f"runpy.run_module('flows.{module}', run_name='__main__')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    first, imported = ran.stdout.splitlines()
    assert first.startswith("shipway ")
    assert str(fine) in first
    assert imported == "[]"


def test_a_bootstrap_imports_no_other_verbs_stages() -> None:
    code = "import flows.bootstrap, sys; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    tables = {f"tasks.{verb}.table" for verb in VERBS}
    assert not tables & set(ran.stdout.split())
    assert {table for table in tables if find_spec(table)} == tables


def test_garbage_is_looked_for_again_after_an_import_whatever_came_of_it() -> None:
    enabled = []
    with pytest.raises(ModuleNotFoundError), uncollected():
        import_module(f"no.module.{enabled.append(gc.isenabled())}")
    assert enabled == [False]
    assert gc.isenabled()


def test_fleet_without_a_server_is_refused_at_once(
    fine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "given_url", lambda: "")
    assert shipway(["fleet", str(fine)]) == 1
    assert "PREFECT_API_URL" in capsys.readouterr().out


def test_the_options_of_drift_repair_reach_the_flow(fine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    class Api(nullcontext[None]):
        """An API that is there, as far as the command sees."""

        waited_for = "nothing"
        own = False

        def __enter__(self) -> Self:
            return self

        def wait(self) -> None:
            pass

    class Ended:
        """A state without a report."""

        async def aresult(self, **_: object) -> None:
            pass

    async def flow(*words: object, **_: object) -> Ended:
        asked.append(words)
        return Ended()

    monkeypatch.setattr(verb_of_all, "LocalApi", Api)
    monkeypatch.setattr("flows.drift_repair.drift_repair", flow)
    assert drift_repair.COMMAND.main([str(fine), "--repair", "files", "--host", "te1", "--ask", "--quiet"]) == 3
    assert asked == [(str(fine), "files", ("te1",), True, None)]


@pytest.mark.parametrize("typed", [[], ["--confirm", "te1"], ["--confirm", "TE2"]])
def test_a_reset_without_its_hosts_name_typed_is_refused_at_once(
    typed: list[str], fine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shipway(["reset", str(fine), "te2", *typed]) == 1
    said = capsys.readouterr().out
    assert "[SHW-700]" in said
    assert "--confirm te2" in said
