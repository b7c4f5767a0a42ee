"""Failures of the simulated API that a test or a person asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab.simulated.kube.faults import Fault


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
