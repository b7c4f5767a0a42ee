"""Faults that a test or a person injects into the API: an error status, a dropped connection, a delay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


@dataclass
class _Waiting:
    fault: Fault
    method: str
    path: str
    times: int


class ApiFaults:
    """The hook that the API asks before every request; a fault goes after it happened `times` times."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    def add(self, kind: str, values: Mapping[str, str]) -> None:
        """Let a fault wait: `status` (status=503), `drop` or `delay` (seconds=2); method=, path= and times= choose.

        Raises ValueError for another kind.
        """
        if kind == "status":
            fault = Fault(status=int(values.get("status", "503")))
        elif kind == "drop":
            fault = Fault(drop=True)
        elif kind == "delay":
            fault = Fault(delay=float(values.get("seconds", "1")))
        else:
            raise ValueError(f"{kind!r} is no failure of the API; known: status, drop, delay")
        times = int(values.get("times", "1"))
        self._waiting.append(_Waiting(fault, values.get("method", ""), values.get("path", "/api"), times))

    def __call__(self, method: str, path: str) -> Fault | None:
        """Return the fault of a request, if one waits for it."""
        for waiting in self._waiting:
            if path.startswith(waiting.path) and waiting.method in ("", method):
                waiting.times -= 1
                if waiting.times <= 0:
                    self._waiting.remove(waiting)
                return waiting.fault
        return None
