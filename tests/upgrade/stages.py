"""Stages that do nothing but be counted, for the order of a run in waves."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from prefect.states import Completed

from flows import waves
from shipway.errors import ErrorReport
from tasks.context import Run
from tasks.stage_result import StageResult


class Stages:
    """Those of a flow's module; those of `failing` ("upgrade_worker w2") fail. `then` hears of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, flow: ModuleType, run: Run, *failing: str) -> None:
        self.run, self.failing, self.ran = run, failing, list[str]()
        self.then: Callable[[str], None] = lambda _: None
        monkeypatch.setattr(flow, "on", self.on)
        monkeypatch.setattr(waves, "on", self.on)

    async def on(self, stage: str, host: str, *after: Any) -> Any:
        """Count it."""
        if None in after:
            return None
        named = f"{stage} {host}"
        self.ran.append(named)
        self.then(named)
        failed = named in self.failing
        errors = (ErrorReport(host, stage, "SHW-796", "a cause", "a fix", retryable=False),) if failed else ()
        self.run.results.append(StageResult(host, stage, "failed" if failed else "ok", errors=errors))
        return None if failed else Completed()

    def of(self, *stages: str) -> list[str]:
        """Return what ran of some stages."""
        return [one for one in self.ran if one.split()[0] in stages]
