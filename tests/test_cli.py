"""The command line's refusals: exit status 1, one clear message, and nothing is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows import command_line
from flows.command_line import main
from tests.broken_files import broken_files, expected

FINE = "name: te\nprofile: seed\nhosts:\n- {name: te1, address: 192.0.2.1}\n- {name: te2, address: 192.0.2.2}\n"


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test where a refusal comes too late."""

    def started(*_: object, **__: object) -> None:
        pytest.fail("a process was started for input that is refused")

    monkeypatch.setattr(command_line, "LocalApi", started)
    monkeypatch.setattr(command_line, "Demo", started)
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
    assert main([str(path), "--report", str(report)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("error: ")
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
    assert main([str(fine), *words]) == 1
    assert message in capsys.readouterr().out


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml" in capsys.readouterr().out


def test_bad_usage_ends_with_1_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--no-such-thing"])
    assert ended.value.code == 1
    assert "usage: python -m flows.bootstrap" in capsys.readouterr().err
