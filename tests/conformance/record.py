"""Record real answers: `python -m tests.conformance.record STATE` plays the scenes on the container lab of that folder.

The lab's hosts must be bare (`python -m lab.containers fresh all --state STATE`).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from lab.containers.lab import Lab
from tests.conformance.befall import on_containers
from tests.conformance.places import Place
from tests.conformance.play import play, save
from tests.conformance.releases import RELEASES, Release
from tests.conformance.scenario import SCENES


async def record(state: Path, release: Release, *, slow: bool, until: str) -> int:
    """Play and save; return the number of answers."""
    place = Place(state / "cluster.yaml", state, on_containers(Lab(state)), release.values())
    started = time.monotonic()
    try:
        answers = await play(
            place,
            release,
            slow=slow,
            until=until,
            on_wait=lambda line: print(f"{time.monotonic() - started:6.1f} s {line}"),
        )
    finally:
        await place.close()
    save(answers, release)
    return len(answers)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("--quick", action="store_true", help="leave out the cases that wait for minutes")
    parser.add_argument("--until", choices=SCENES, default="", help="end with this scene; later ones stay as they are")
    parser.add_argument("--release", choices=RELEASES, default="1.20.2", help="the release in the lab's bundle")
    asked = parser.parse_args()
    release = RELEASES[asked.release]
    print(f"{asyncio.run(record(asked.state, release, slow=not asked.quick, until=asked.until))} answers recorded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
