"""Passes of drift repair on the container lab, in this process."""

from __future__ import annotations

import asyncio

from flows.drift_repair import Allow, drift_repair
from tasks.drift.report import DriftReport
from tests.lab.conftest import Site


def passed(site: Site, repair: Allow) -> DriftReport:
    """Return the report of a pass."""

    async def fly() -> DriftReport:
        state = await drift_repair(str(site.folder / "cluster.yaml"), repair, return_state=True)
        report = await state.aresult(raise_on_failure=False)
        assert isinstance(report, DriftReport), report
        return report

    return asyncio.run(fly())
