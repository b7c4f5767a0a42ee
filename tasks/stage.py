"""What one stage does, and how long it may take; each verb's own are in its `table.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shipway.cluster.model import Cluster
from shipway.stage import StageName
from shipway.step import StepResult
from tasks.context import Run

Work = Callable[[Run, str, str], Awaitable[list[StepResult]]]
RETRIES = 2
# An attempt's limit is far above what it takes; what is slow within it has limits of its own, command by command.
HOST_SECONDS, CLUSTER_SECONDS = 1500.0, 1200.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: `work(run, stage, host)` gives the results of its steps, within `seconds` an attempt.

    `retries` is the outer retry layer (the inner one is shipway.retry); what waits by itself needs none. A `terse`
    one logs only what is not as wanted: of a thousand hosts nobody reads the rest.
    """

    name: StageName
    work: Work
    seconds: Callable[[Cluster], float]
    retries: int = RETRIES
    terse: bool = False


def always(seconds: float) -> Callable[[Cluster], float]:
    """Return a limit that is the same for every cluster."""
    return lambda _: seconds
