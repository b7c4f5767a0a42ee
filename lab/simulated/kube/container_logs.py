"""Runs of containers and their logs: a line is there once its time has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from .api_errors import ApiError, bad_request
from .objects import Obj, dig, name_of
from .pod_programs import Program


@dataclass(frozen=True)
class LogQuery:
    """What a log request asks for; `tail` in lines."""

    container: str = ""
    previous: bool = False
    tail: int | None = None


@dataclass
class Run:
    """One run of one container: when it began, and what it does."""

    program: Program
    factor: float  # wall seconds that stand for one simulated second
    clock: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def lines(self) -> list[str]:
        """Return what has been written until now."""
        passed = asyncio.get_running_loop().time() - self.clock
        return [text for offset, text in self.program.lines if offset * self.factor <= passed]

    def over(self) -> bool:
        """Say whether nothing more will be written."""
        ends = self.program.ends
        return ends is not None and asyncio.get_running_loop().time() - self.clock >= ends * self.factor


class ContainerLogs:
    """The runs of every container, the last two of each."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], list[Run]] = {}

    def started(self, pod: Obj, container: str, run: Run) -> None:
        """Note that a container runs (again)."""
        runs = self._runs.setdefault((pod["metadata"]["uid"], container), [])
        runs.append(run)
        del runs[:-2]

    def current(self, pod: Obj, container: str) -> Run | None:
        """Return a container's latest run."""
        runs = self._runs.get((pod["metadata"]["uid"], container))
        return runs[-1] if runs else None

    def forget(self, pod: Obj) -> None:
        """Drop the logs of a pod that has gone."""
        for container in pod["spec"]["containers"]:
            self._runs.pop((pod["metadata"]["uid"], container["name"]), None)

    def _run(self, pod: Obj, query: LogQuery) -> Run:
        names = [container["name"] for container in pod["spec"]["containers"]]
        if not query.container and len(names) > 1:
            raise bad_request(
                f"a container name must be specified for pod {name_of(pod)}, choose one of: [{' '.join(names)}]"
            )
        name = query.container or names[0]
        if name not in names:
            raise bad_request(f"container {name} is not valid for pod {name_of(pod)}")
        runs = self._runs.get((pod["metadata"]["uid"], name), [])
        if query.previous:
            if len(runs) < 2:
                raise bad_request(f'previous terminated container "{name}" in pod "{name_of(pod)}" not found')
            return runs[-2]
        if not runs:
            raise self._not_started(pod, name)
        return runs[-1]

    def _not_started(self, pod: Obj, container: str) -> ApiError:
        if not dig(pod, "spec", "nodeName"):
            return bad_request(f"pod {name_of(pod)} does not have a host assigned")
        states = dig(pod, "status", "containerStatuses", default=[])
        reasons = [dig(state, "state", "waiting", "reason") for state in states if state["name"] == container]
        reason = next((reason for reason in reasons if reason), "ContainerCreating")
        return bad_request(f'container "{container}" in pod "{name_of(pod)}" is waiting to start: {reason}')

    def read(self, pod: Obj, query: LogQuery) -> str:
        """Return a container's log as it stands. Raises ApiError (400) where there is none yet."""
        lines = self._run(pod, query).lines()
        if query.tail is not None:
            lines = lines[-query.tail :] if query.tail else []
        return "".join(f"{text}\n" for text in lines)

    def follower(self, pod: Obj, query: LogQuery) -> Callable[[], str | None]:
        """Return a function that gives what is new since its last call, None once the run is over and all is read."""
        run = self._run(pod, query)
        seen = max(0, len(run.lines()) - query.tail) if query.tail is not None else 0

        def more() -> str | None:
            nonlocal seen
            over = run.over()
            lines = run.lines()
            fresh, seen = lines[seen:], len(lines)
            if not fresh and over:
                return None
            return "".join(f"{text}\n" for text in fresh)

        return more
