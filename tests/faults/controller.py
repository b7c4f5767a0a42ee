"""A controller in a process of its own, over real SSH: told to, it kills itself where a stage begins or ends.

`python -m tests.faults.controller CLUSTER.yaml ["begin STAGE HOST" | "end STAGE HOST"]` prints how the run ended.
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

from tests.faults.plain import flown, plain_on, staged


def main(cluster_file: str, boundary: str = "") -> None:
    """Bootstrap once; die without a word at the boundary."""

    def reached(place: str) -> None:
        if place == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    async def on(stage: str, host: str, *after: Any) -> Any:
        reached(f"begin {stage} {host}")
        state = await plain_on(stage, host, *after)
        reached(f"end {stage} {host}")
        return state

    with pytest.MonkeyPatch.context() as patch:
        staged(patch, on)
        report = asyncio.run(flown(Path(cluster_file), on))
    errors = [[error.host, error.code, error.cause, error.retryable] for error in report.errors]
    print(json.dumps({"outcome": report.outcome, "errors": errors}))


if __name__ == "__main__":
    main(*sys.argv[1:])
