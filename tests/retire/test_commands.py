"""What is typed reaches the flow as it was meant."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flows.cli import remove as remove_command
from flows.cli import replace as replace_command
from flows.cli import reset as reset_command
from flows.cli.shipway import main

FINE = "name: te\nprofile: seed\nhosts:\n- {name: te1, address: 192.0.2.1}\n- {name: te2, address: 192.0.2.2}\n"


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["remove", "te2"], ("te2", "remove", False, False, "", None, False)),
        (["remove", "te2", "--to-replace"], ("te2", "remove", False, False, "", None, True)),
        (
            ["remove", "te2", "--plan", "--dead", "--evict-gpu-pods", "--address", "192.0.2.9:2222"],
            ("te2", "plan", True, True, "192.0.2.9:2222", None, False),
        ),
        (["replace", "te2"], ("te2", "replace", False, False, False, "", None)),
        (["replace", "te2", "--plan", "--remake"], ("te2", "plan", False, False, True, "", None)),
        (
            ["replace", "te2", "--dead", "--evict-gpu-pods", "--address", "192.0.2.9:2222"],
            ("te2", "replace", True, True, False, "192.0.2.9:2222", None),
        ),
        (["reset", "te2", "--confirm", "te2"], ("te2", "te2", "reset", False, "", None, False, [])),
        (
            ["reset", "te2", "--plan", "--cluster-gone", "--address", "192.0.2.9"],
            ("te2", "", "plan", True, "192.0.2.9", None, False, []),
        ),
        (["reset", "--cluster", "--confirm", "te"], ("", "te", "reset", False, "", None, True, [])),
        (["reset", "--cluster", "--plan", "--without", "te2"], ("", "", "plan", False, "", None, True, ["te2"])),
    ],
)
def test_the_options_are_the_flows_parameters(
    words: list[str], given: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import remove, replace, reset  # noqa: PLC0415 - the modules, whose flows are called as they are

    file = tmp_path / "cluster.yaml"
    file.write_text(FINE, encoding="utf-8")
    heard: list[Any] = []

    async def flow(path: str, *more: Any, return_state: bool) -> str:
        heard.append((path, more, return_state))
        return "state"

    def fly(asked: Any, _console: Any, title: str, load: Any) -> int:
        assert asked.name in title
        assert asyncio.run(load()(str(file), None)) == "state"
        return 7

    monkeypatch.setattr(remove, "remove", flow)
    monkeypatch.setattr(replace, "replace", flow)
    monkeypatch.setattr(reset, "reset", flow)
    monkeypatch.setattr(remove_command, "fly_verb", fly)
    monkeypatch.setattr(replace_command, "fly_verb", fly)
    monkeypatch.setattr(reset_command, "fly_verb", fly)
    verb, *more = words
    assert main([verb, str(file), *more]) == 7
    assert heard == [(str(file), given, True)]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["te2"], "SHW-700"),
        (["te2", "--confirm", "te"], "SHW-700"),
        (["--cluster"], "SHW-700"),
        (["--cluster", "--confirm", "te2"], "SHW-700"),
        (["te2", "--cluster", "--confirm", "te2"], "SHW-701"),
        (["--confirm", ""], "SHW-701"),
        (["--cluster", "--confirm", "te", "--without", "te9"], "SHW-100"),
    ],
)
def test_a_reset_that_was_not_meant_ends_at_once(
    words: list[str], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(FINE, encoding="utf-8")
    monkeypatch.setattr(reset_command, "fly_verb", lambda *_: pytest.fail("it went on"))
    assert main(["reset", str(file), *words]) == 1
    assert code in capsys.readouterr().out
