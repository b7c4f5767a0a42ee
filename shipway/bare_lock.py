"""The lock of a cluster that does not exist yet: a transient unit on the host that becomes its control plane.

Its name lets only one be, its description says whose it is, and it ends by itself where nobody ends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shipway.cluster_lease import dead
from shipway.command import Command
from shipway.errors import CommandFailed, Refused, ShipwayError
from shipway.facts.commands import Says
from shipway.facts.services import UnitState
from shipway.host import AT_WORK, Host

UNIT = "shipway-run.service"
SECONDS = 4 * 3600  # above what a bootstrap of bare hosts takes: its slowest stage alone may take 40 minutes
CLAIM = UnitState(UNIT)
DESCRIPTION = Says(("systemctl", "show", "-p", "Description", UNIT))


@asynccontextmanager
async def claimed(on: Host, who: str) -> AsyncIterator[None]:
    """Hold the host for a run until its end.

    Raises Refused SHW-102 naming the run that holds it, and what keeps from asking. A run that was killed on this
    machine is followed at once, one of another machine after four hours.
    """
    await _claim(on, who)
    try:
        yield
    finally:
        with contextlib.suppress(ShipwayError):  # it ends by itself, and who comes from this machine follows at once
            await on.do(Command(("systemctl", "stop", UNIT)))


async def claim_left(on: Host) -> bool:
    """Say whether a run holds the host, or one that was killed did; the first look at a host asks it as well."""
    try:
        return (await on.read(CLAIM)).active in AT_WORK
    except ShipwayError:
        return False


async def _claim(on: Host, who: str) -> None:
    limit = ("-p", f"RuntimeMaxSec={SECONDS}")
    start = ("systemd-run", "--quiet", "--collect", f"--unit={UNIT}", f"--description={who}", *limit)
    claim = Command((*start, "sleep", "infinity"))
    try:
        await on.do(claim)
    except CommandFailed as error:
        if "already" not in error.output:
            raise
    else:
        return
    other = (await on.read(DESCRIPTION)).stdout.strip().removeprefix("Description=")
    if other not in (who, UNIT) and not dead(other):
        message = f"another run works on this cluster's hosts: {other}"
        fix = f"Wait for its end; if it is no more, `sudo systemctl stop {UNIT}` on {on.name}, then run again."
        raise Refused(message, code="SHW-102", fix=fix)
    await on.do(Command(("systemctl", "stop", UNIT)))
    await on.do(claim)
