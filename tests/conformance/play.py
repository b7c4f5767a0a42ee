"""Play the scenes on a lab, and read and write what was recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.conformance.case import Answer, Case
from tests.conformance.normalise import settled
from tests.conformance.places import Place
from tests.conformance.releases import Release
from tests.conformance.scenario import SCENES

RECORDED = Path(__file__).parent / "recorded"


async def play(
    place: Place, release: Release, *, slow: bool, until: str = "", heard: Callable[[str], None] = lambda _: None
) -> dict[str, Answer]:
    """Play every scene in order, or those up to one of them; return the answers by the case's name."""
    answers: dict[str, Answer] = {}
    for scene, parts in SCENES.items():
        for part in parts:
            heard(f"{scene}: {part.name}")
            if not isinstance(part, Case):
                await part.do(place)
            elif release.plays(part) and (slow or not part.slow):
                answers[part.name] = await place.answer(part)
        if scene in (until, release.until):
            break
    return answers


def save(answers: dict[str, Answer], release: Release) -> None:
    """Write the answers, one file a scene; answers of cases that were not played stay as they were."""
    old = load(release)
    for scene, parts in SCENES.items():
        cases = [part for part in parts if isinstance(part, Case)]
        kept = {one.name: answers.get(one.name) or old.get(one.name) for one in cases}
        data = {name: asdict(answer) for name, answer in kept.items() if answer is not None}
        if data:
            path = RECORDED / release.version / f"{scene}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(release: Release) -> dict[str, Answer]:
    """Return everything recorded of a release, by the case's name."""
    found: dict[str, Answer] = {}
    for path in sorted((RECORDED / release.version).glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        found |= {name: settled(Answer(**answer)) for name, answer in data.items()}
    return found
