"""The lock of a cluster whose API cannot be asked, or that does not exist yet: a unit on its control plane's host.

It is a transient unit: its name lets only one be, its description says whose it is, and it ends by itself where nobody
ends it, or with a restart of the host.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shipway.errors import CommandFailed, Refused, ShipwayError
from shipway.facts.commands import Says
from shipway.facts.services import UnitState
from shipway.host.command import Command
from shipway.host.session import AT_WORK, Host
from shipway.locks.lease import dead
from shipway.retry import patiently

UNIT = "shipway-run.service"
SECONDS = 4 * 3600  # above what a bootstrap of bare hosts takes: its slowest stage alone may take 40 minutes
TRIES = 3
CLAIM = UnitState(UNIT)
DESCRIPTION = Says(("systemctl", "show", "-p", "Description", UNIT))


@asynccontextmanager
async def claim(on: Host, who: str) -> AsyncIterator[None]:
    """Hold the host for a run until its end.

    Raises Refused SHW-102 naming the run that holds it, and what keeps from asking. A run that was killed on this
    machine is followed at once, one of another machine after four hours.
    """
    try:
        await patiently(lambda: _claim(on, who))
        yield
    finally:  # also where the answer to the claim was lost
        with contextlib.suppress(ShipwayError):  # it ends by itself, and who comes from this machine follows at once
            await _free(on, who)


async def claim_anew(on: Host, who: str) -> None:
    """Hold a host again that was restarted while this run held it. Raises as `claim` does."""
    await patiently(lambda: _claim(on, who))


async def claim_left(on: Host) -> bool:
    """Say whether a run holds the host, or one that was killed did; the first look at a host asks it as well."""
    try:
        return (await on.read(CLAIM)).active in AT_WORK
    except ShipwayError:
        return False


async def _claim(on: Host, who: str) -> None:
    limit = ("-p", f"RuntimeMaxSec={SECONDS}")
    start = ("systemd-run", "--quiet", "--collect", f"--unit={UNIT}", f"--description={who}", *limit)
    for _ in range(TRIES):
        try:
            await on.do(Command((*start, "sleep", "infinity")))
        except CommandFailed as error:
            if "already" not in error.output:
                raise
        else:
            return
        other = await _owner(on)
        if other == who:
            return  # the answer to the try before was lost
        if other and not dead(other):
            message = f"another run works on this cluster's hosts: {other}"
            fix = f"Wait for its end; if it is no more, `sudo systemctl stop {UNIT}` on {on.name}, then run again."
            raise Refused(message, code="SHW-102", fix=fix)
        if other:
            await on.do(Command(("systemctl", "stop", UNIT)))
    raise Refused("several runs begin on this cluster's hosts at once", code="SHW-102", fix="Run again in a minute.")


async def _owner(on: Host) -> str:
    """Return who holds the host; empty where nobody does."""
    said = (await on.read(DESCRIPTION)).stdout.strip().removeprefix("Description=")
    return "" if said == UNIT else said  # systemd describes a unit that there is not by its name


async def _free(on: Host, who: str) -> None:
    """End the claim where it is ours: after its limit somebody may have followed."""
    on.forget()
    if await _owner(on) == who:
        await on.do(Command(("systemctl", "stop", UNIT)))
