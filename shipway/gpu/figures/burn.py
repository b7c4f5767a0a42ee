"""The burn: NVIDIA's own diagnosis (`dcgmi diag -r 3 -j`, or `-r 4`), judged for each GPU by all that it says.

An exit status alone, or one section of its answer, has called failing nodes healthy (IBM/autopilot#68), and a memory
test passed with an allocation that failed (DCGM#284): so each test's result of each GPU is read, with its warnings, in
both of its forms: `gpu_ids` (DCGM 3) and `entity_id` (DCGM 4). From its documents and source; not run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from shipway.gpu.figures.judge import Row, Word

BURN = "burn"
NOT_THERE = "dcgmi is not installed"
ENDED = "burn-ended"
# Only where the program is, and no process uses a GPU ($0 lists those); its own time limit is the command's. $1 is the
# level: 3, or 4, which has the memory's own test and pulses of power as well.
SCRIPT = (
    f'command -v dcgmi >/dev/null || {{ echo "{NOT_THERE}"; exit 0; }}; for look in 1 2 3 4 5; do '
    'busy=$(sh -c "$0" 2>&1) || { echo "it is not known who uses its GPUs: $busy"; exit 0; }; '
    '[ -n "$busy" ] || break; sleep 2; done; [ -z "$busy" ] || { echo "busy: $busy"; exit 0; }; '
    f'dcgmi diag -r "$1" -j; echo "{ENDED} $?"'
)
_WORDS: dict[str, Word] = {"pass": "good", "fail": "bad"}


def judge_burn(host: str, said: str) -> list[Row]:
    """Return a row for each GPU that a diagnosis names; one that says why there is no diagnosis."""
    text, ended, _ = said.partition(ENDED)
    if not ended:
        return [_row(host, "its GPUs", "not judged", " ".join(said.split())[:300] or "it said nothing")]
    found: dict[str, list[tuple[str, Word, str]]] = {}
    for test, result in _results(text):
        word = _WORDS.get(str(result.get("status", "")).lower(), "not judged")
        told = "; ".join(_texts(result.get("warnings")))
        if word == "good" and "allocat" in told.lower():
            word = "bad"
        for gpu in _gpus(result):
            found.setdefault(gpu, []).append((test, word, told))
    if not found:
        return [_row(host, "its GPUs", "not judged", f"its answer names no GPU: {' '.join(text.split())[-200:]}")]
    return [_judge_one(host, gpu, tests) for gpu, tests in sorted(found.items())]


def _judge_one(host: str, gpu: str, tests: list[tuple[str, Word, str]]) -> Row:
    bad = [f"{test}: {told or 'failed'}" for test, word, told in tests if word == "bad"]
    good = sum(word == "good" for _, word, _ in tests)
    why = "; ".join(bad) or ("" if good else "every test was skipped")
    return _row(host, f"GPU {gpu}", "bad" if bad else "good" if good else "not judged", why)


def _row(host: str, who: str, word: Word, why: str) -> Row:
    return Row(host, "", who, BURN, word, why)


def _results(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each test's name and one of its results."""
    try:
        data = json.loads(text[text.index("{") : text.rindex("}") + 1])
        diagnoses = [value for key, value in data.items() if "Diagnostic" in key]
        for category in diagnoses[0]["test_categories"]:
            for test in category["tests"]:
                yield from ((str(test["name"]), one) for one in test["results"] if isinstance(one, dict))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return


def _gpus(result: Mapping[str, Any]) -> list[str]:
    if "entity_id" in result:
        return [str(result["entity_id"])] if result.get("entity_group", "GPU") == "GPU" else []
    return [part.strip() for part in str(result.get("gpu_ids", "")).split(",") if part.strip()]


def _texts(warnings: object) -> list[str]:
    """Return warnings as texts: one, a list of them, or of objects that hold one."""
    several = warnings if isinstance(warnings, list) else [warnings] if warnings else []
    found = [one.get("warning", "") if isinstance(one, dict) else one for one in several]
    return [" ".join(str(one).split())[:200] for one in found if one]
