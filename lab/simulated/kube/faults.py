"""Faults that a test injects into the API: an error status, a dropped connection, a delay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """What happens instead of (or, for `delay` alone, before) the answer to one request.

    `status` answers with that HTTP status (409, 429, 500, 503 carry the real API's reasons), `drop` closes the
    connection without an answer, and `delay` waits that many wall seconds first.
    """

    status: int = 0
    drop: bool = False
    delay: float = 0.0
    retry_after: int = 1  # seconds, for 429 and 503


FaultHook = Callable[[str, str], Fault | None]


def no_faults(method: str, path: str) -> Fault | None:  # noqa: ARG001 - the shape of the hook
    """Inject nothing."""
    return None
