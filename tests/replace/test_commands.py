"""What is typed reaches the flow as it was meant."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flows.cli import replace as command
from flows.cli.shipway import main
from tests.retire.test_commands import FINE


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["te2"], ("te2", "replace", False, False, False, "", None)),
        (["te2", "--plan", "--remake"], ("te2", "plan", False, False, True, "", None)),
        (
            ["te2", "--dead", "--evict-gpu-pods", "--address", "192.0.2.9:2222"],
            ("te2", "replace", True, True, False, "192.0.2.9:2222", None),
        ),
    ],
)
def test_the_options_are_the_flows_parameters(
    words: list[str], given: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import replace  # noqa: PLC0415 - the module, whose flow is called as it is

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

    monkeypatch.setattr(replace, "replace", flow)
    monkeypatch.setattr(command, "fly_verb", fly)
    assert main(["replace", str(file), *words]) == 7
    assert heard == [(str(file), given, True)]
