"""The pages about drift are true: every option is documented, and the table is the recorded one."""

from __future__ import annotations

from pathlib import Path

from flows.cli.drift_repair import COMMAND
from tests.drift.page import PAGE, RECORDED, page
from tests.drift.rows import ROWS

ROOT = Path(__file__).parents[2]


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "drift-repair.md").read_text(encoding="utf-8")
    options = [
        option for action in COMMAND.parser()._actions for option in action.option_strings if option.startswith("--")
    ]
    assert [option for option in options if option != "--help" and f"`{option}" not in text] == []


def test_the_table_is_the_recorded_one_and_holds_every_row() -> None:
    recorded = RECORDED.read_text(encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(recorded)
    assert [row.what for row in ROWS if f'"{row.what}"' not in recorded] == []
