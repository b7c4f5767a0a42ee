"""Three files with one prefix, or with one ending, are a package: the rule of CONTRIBUTING's section on style."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("shipway", "tasks", "lab", "tools")  # deployments name the modules of flows/


def find_crowds(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of three and more of these modules that share their first or their last word."""
    groups: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        words = name.split("_")
        groups[words[0], 0].append(name)
        if len(words) > 1:
            groups[words[-1], -1].append(name)
    return [group for group in groups.values() if len(group) > 2]


def test_no_folder_holds_three_files_of_one_name() -> None:
    folders = chain.from_iterable(ROOT.joinpath(room).rglob("*/") for room in ROOMS)
    crowds = {
        str(folder.relative_to(ROOT)): found
        for folder in (*(ROOT / room for room in ROOMS), *folders)
        if (found := find_crowds(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")))
    }
    assert crowds == {}


def test_a_crowd_is_seen_by_its_first_and_by_its_last_word() -> None:
    assert find_crowds(["join", "join_tokens", "join_control_plane", "joined"]) == [
        ["join", "join_control_plane", "join_tokens"]
    ]
    assert find_crowds(["wave_pass", "endpoint_pass", "figures_pass", "pass"]) == [
        ["endpoint_pass", "figures_pass", "wave_pass"]
    ]
    assert find_crowds(["window", "window_rules", "hosts"]) == []
