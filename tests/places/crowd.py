"""Many hosts behind one stock sshd, reached at once: shared by a quick test and the one with two hundred."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from shipway.facts.commands import Says
from shipway.host.ssh import Pool
from tests.places.real_sshd import real_sshd


async def reached(folder: Path, count: int) -> None:
    """Look at so many hosts at once: one connection to the jump host, none dropped, none left."""
    pool = Pool()
    for name in ("gate", "inner"):
        (folder / name).mkdir()
    async with real_sshd(folder / "gate") as gate, real_sshd(folder / "inner") as inner:
        known = folder / "known_hosts"
        known.write_text("\n".join((one.folder / "known_hosts").read_text() for one in (gate, inner)) + "\n")
        through = replace(gate.target, known_hosts=str(known))
        hosts = [
            replace(
                inner.target,
                name=f"te{number}",
                known_hosts=str(known),
                jump=replace(through, name=f"te{number} (jump host)"),
                connect_seconds=120,
            )
            for number in range(count)
        ]
        said = await asyncio.gather(*(pool.host(host).read(Says(("echo", host.name))) for host in hosts))
        assert [one.stdout.strip() for one in said] == [host.name for host in hosts]
        assert gate.said("Accepted publickey") == 1
        assert inner.said("Accepted publickey") == count
        assert gate.said("MaxStartups") + inner.said("MaxStartups") == 0  # "... past MaxStartups"
        await pool.close()
        async with asyncio.timeout(20):
            while not gate.said("Disconnected from user"):  # noqa: ASYNC110 - another program's log
                await asyncio.sleep(0.05)
