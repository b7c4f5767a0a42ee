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
from tests.conformance.places import Place
from tests.conformance.play import play, save


async def record(state: Path, *, slow: bool) -> int:
    """Play and save; give the number of answers."""
    lab = Lab(state)

    async def swap(host: str, on: bool) -> None:  # noqa: FBT001 - the shape of a place
        await asyncio.to_thread(lab.swap, host, on=on)

    place = Place(state / "cluster.yaml", state, swap)
    started = time.monotonic()
    try:
        answers = await play(place, slow=slow, told=lambda line: print(f"{time.monotonic() - started:6.1f} s {line}"))
    finally:
        await place.close()
    save(answers)
    return len(answers)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("--quick", action="store_true", help="leave out the cases that wait for minutes")
    asked = parser.parse_args()
    print(f"{asyncio.run(record(asked.state, slow=not asked.quick))} answers recorded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
