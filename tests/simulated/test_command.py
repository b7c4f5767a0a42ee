"""`python -m lab.simulated` as a person starts it: every option takes effect, and mistakes are reported in one line."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.simulated.__main__ import main
from lab.simulated.control import ask

pytestmark = pytest.mark.long  # most start a lab of their own

ROOT = Path(__file__).parents[2]


@contextmanager
def lab(folder: Path, *words: str) -> Iterator[dict[str, Any]]:
    """Run a lab with these options until the end of the block; return its cluster file."""
    command = [sys.executable, "-m", "lab.simulated", "--state", str(folder), "--with-parent", *words]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        line = process.stdout.readline().strip()
        assert line == f"SIMULATED lab ready: {folder / 'cluster.yaml'}"
        yield yaml.safe_load((folder / "cluster.yaml").read_text(encoding="utf-8"))
        process.stdin.close()  # its parent has gone
        assert process.stdout.read() == "SIMULATED lab ended\n"
        assert process.wait(20) == 0


def text_of(folder: Path, host: str, path: str) -> str:
    """Return a file of a host."""
    return str(ask(folder, do="file", host=host, path=path)["text"])


def test_a_lab_is_what_its_options_say_and_takes_its_key_with_it(tmp_path: Path) -> None:
    more = ("--fail", "te2,exit,match=date", "--drift", "*,sysctl,key=vm.swappiness,value=7")
    shape = ("--hosts", "3", "--gpus", "2", "--profile", "current", "--system", "debian-12", "--seed", "7")
    with lab(tmp_path, *shape, "--latency", "0", *more) as cluster:
        assert [host["name"] for host in cluster["hosts"]] == ["te1", "te2", "te3"]
        assert {host["gpus"] for host in cluster["hosts"]} == {2}
        assert cluster["profile"] == "current"
        assert "Debian" in text_of(tmp_path, "te1", "/etc/os-release")
        machine = text_of(tmp_path, "te1", "/etc/machine-id")
    assert not (tmp_path / "id_ed25519").exists()
    with lab(tmp_path, "--hosts", "1", "--seed", "7", "--keep"):
        assert text_of(tmp_path, "te1", "/etc/machine-id") == machine
    assert (tmp_path / "id_ed25519").exists()
    with lab(tmp_path, "--hosts", "1", "--seed", "8"):
        assert text_of(tmp_path, "te1", "/etc/machine-id") != machine


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fail", "te9,unreachable"], "te9"),
        (["--drift", "te1,nonsense"], "nonsense"),
        (["--profile", "nosuch"], "nosuch"),
    ],
)
def test_what_cannot_be_asked_for_ends_with_1_and_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--state", str(tmp_path), *words]) == 1
    heard = capsys.readouterr().err
    assert said in heard
    assert "Traceback" not in heard


def test_a_lab_is_asked_things_and_answers_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lab(tmp_path, "--hosts", "1"):
        assert main(["--state", str(tmp_path), "--tell", '{"do": "digest"}']) == 0
        assert set(json.loads(capsys.readouterr().out)["digests"]) == {"te1"}
        for wrong in ('{"do": "dance"}', "no json", '{"do": "cut", "host": "te9"}'):
            assert main(["--state", str(tmp_path), "--tell", wrong]) == 1
            assert capsys.readouterr().err.startswith("SIMULATED lab: ")
    assert main(["--state", str(tmp_path / "none"), "--tell", '{"do": "digest"}']) == 1
    assert capsys.readouterr().err.startswith("SIMULATED lab: ")


async def test_the_limits_of_sshd_are_those_that_were_asked_for(tmp_path: Path) -> None:
    with lab(tmp_path, "--hosts", "1", "--sshd", "MaxStartups=1,LoginGraceTime=60") as cluster:
        address, port = cluster["hosts"][0]["address"], cluster["ssh"]["port"]
        first, held = await asyncio.open_connection(address, port)
        assert (await first.readline()).startswith(b"SSH-2.0-")
        second, dropped = await asyncio.open_connection(address, port)
        assert await second.readline() == b"Exceeded MaxStartups\r\n"
        for writer in (held, dropped):
            writer.close()
            await writer.wait_closed()
