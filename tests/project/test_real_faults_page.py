"""The page of real faults is the recorded one, and says of every fault how it ended and what came next."""

from __future__ import annotations

import json

from tests.project.real_faults_page import PAGE, RECORDED, merged, page

CAUSE = "x\ny <z> " + "long " * 99
ERROR = {
    "host": "w2",
    "step": "a | b",
    "code": "SHW-401",
    "cause": CAUSE,
    "fix": "Wait.",
    "tries": 3,
}
FIRST = {"outcome": "partial", "exit": 2, "seconds": 61, "errors": [ERROR], "lines": ["w2  join_worker  changed"]}


def test_the_page_is_the_recorded_one_and_every_row_is_whole() -> None:
    recorded = RECORDED.read_text(encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(recorded)
    for row in merged(recorded):
        assert row.get("then", row["first"])["exit"] == 0, row["fault"]


def test_a_row_has_message_code_and_next_step_in_one_line() -> None:
    parts = ({"fault": "f", "first": FIRST, "next": "n"}, {"fault": "f", "then": {**FIRST, "outcome": "ok", "exit": 0}})
    rows = [line for line in page("\n".join(map(json.dumps, parts))).splitlines() if line.startswith("| f ")]
    assert len(rows) == 1
    assert "`outcome: partial`, exit 2, 61 s" in rows[0]
    assert "w2: a \\| b: x y &lt;z> long" in rows[0]
    assert "… **[SHW-401]** Next: Wait.; tried 3 times<br>*w2 join_worker changed*" in rows[0]
    assert rows[0].endswith("| n; plain run: `outcome: ok`, exit 0, 61 s |")
