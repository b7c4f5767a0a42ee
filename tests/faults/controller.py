"""A controller in a process of its own, over real SSH: asked to, it kills itself or waits as a stage begins or ends.

`python -m tests.faults.controller CLUSTER.yaml [kill|pause "begin STAGE HOST"|"end STAGE HOST"]` prints how the run
ended; paused, it prints "paused", does nothing, and goes on at a line of input.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from shipway.errors import ShipwayError
from tasks.report import Report, report_refusal
from tests.faults.plain import flown, plain_on, staged


def main(cluster_file: str, act: str = "", boundary: str = "") -> None:
    """Bootstrap once; at the boundary die without a word, or wait."""

    def reached(place: str) -> None:
        if place == boundary and act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if place == boundary and act == "pause":
            print("paused", flush=True)
            sys.stdin.readline()  # nothing goes on meanwhile

    async def on(stage: str, host: str, *after: Any) -> Any:
        reached(f"begin {stage} {host}")
        state = await plain_on(stage, host, *after)
        reached(f"end {stage} {host}")
        return state

    with pytest.MonkeyPatch.context() as patch:
        staged(patch, on)
        report = asyncio.run(_reported(Path(cluster_file), on))
    errors = [[error.host, error.code, error.cause, error.retryable] for error in report.errors]
    print(json.dumps({"pid": os.getpid(), "outcome": report.outcome, "errors": errors}))


async def _reported(cluster_file: Path, on: Any) -> Report:
    """Return the report, of a refused run as the command line gives it."""
    try:
        return await flown(cluster_file, on)
    except ShipwayError as error:
        return report_refusal(error, "bootstrap")


if __name__ == "__main__":
    main(*sys.argv[1:])
