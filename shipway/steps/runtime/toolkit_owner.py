"""Whose toolkit serves a host's containers with GPUs: the packages', or one that an operator of the vendor's brings."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import Refused, ShipwayError
from shipway.facts.files import FileState
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Host
from shipway.step import Check, Drift, Impact, Step, id_of, restart_of
from shipway.steps.runtime.pause_image import DUMP


async def find_operators_toolkit(on: Host) -> str:
    """Return the operator's runtime that containerd on a host names, where that is there; "" where it is not."""
    theirs = VENDOR.operator.runtime if VENDOR.operator else ""
    if not theirs:
        return ""
    dump, there = await on.read(DUMP, FileState(theirs))
    return theirs if there is not None and theirs in dump.stdout else ""


@dataclass(frozen=True)
class OneToolkit:
    """One toolkit serves the host's containers: with two, which of them hands out GPUs is settled by who wrote last."""

    traps: ClassVar[tuple[int, ...]] = (25,)
    name: str = "one toolkit hands out the GPUs"

    async def check(self, on: Host) -> Drift | None:
        """Look for the operator's and for the packages' own. Raises Refused SHW-642 where both are there."""
        ours = VENDOR.runtime.program if VENDOR.runtime else ""
        theirs, there = await asyncio.gather(find_operators_toolkit(on), on.read(FileState(ours)))
        if not theirs or there is None or VENDOR.operator is None:
            return None
        operator, packages = VENDOR.operator.name, " ".join(VENDOR.toolkit_packages)
        raise Refused(
            f"two toolkits for the same GPUs: containerd names the {operator}'s {theirs}, and {ours} of the packages "
            "is there as well",
            host=on.name,
            code="SHW-642",
            fix=f"Keep one: remove the packages from the host ({packages}), and all is left to the {operator}; or set "
            f"`toolkit.enabled=false` in its values, and take its runtime out of containerd's configuration.",
        )


@dataclass(frozen=True)
class UnlessOperators:
    """A step about the packages' toolkit, which is as wanted on a host where an operator's serves the containers."""

    step: Step[Host]

    @property
    def name(self) -> str:
        """The step's own."""
        return self.step.name

    @property
    def id(self) -> str:
        """The step's own."""
        return id_of(self.step)

    @property
    def impact(self) -> Impact:
        """The step's own."""
        return self.step.impact

    @property
    def restarts(self) -> str:
        """The step's own."""
        return restart_of(self.step)

    async def check(self, on: Host) -> Drift | None:
        """Look at both in one exchange; what the step says counts where no operator's toolkit is there."""
        theirs, seen = await asyncio.gather(find_operators_toolkit(on), _look(self.step, on))
        if theirs or seen is None:
            return None
        if isinstance(seen, ShipwayError):
            raise seen
        return seen

    async def apply(self, on: Host) -> None:
        """Apply the step; an operator that came since the look is left alone."""
        if not await find_operators_toolkit(on):
            await self.step.apply(on)


async def _look(step: Check[Host], on: Host) -> Drift | ShipwayError | None:
    try:
        return await step.check(on)
    except ShipwayError as error:
        return error
