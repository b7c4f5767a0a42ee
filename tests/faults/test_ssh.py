"""Real sshd in the ways of real sites: 200 hosts behind one, sessions refused in the middle of work, a noisy shell."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shipway.facts.files import FileText
from shipway.host.session import Command
from shipway.host.ssh import Pool
from tests.places.crowd import reached
from tests.places.real_sshd import needs_sshd, real_sshd

pytestmark = [pytest.mark.faults, needs_sshd]
NOISE = 'echo "Welcome to node7 - authorised use only"; echo "mesg: ttyname failed" >&2; eval "$SSH_ORIGINAL_COMMAND"'


async def test_two_hundred_hosts_behind_one_stock_sshd_share_one_connection_to_it(tmp_path: Path) -> None:
    await reached(tmp_path, 200)


@pytest.mark.parametrize("allowed", [1, 2, 5, 10])
async def test_whatever_number_of_sessions_an_sshd_allows_all_work_is_done_once(tmp_path: Path, allowed: int) -> None:
    """Sixty changes and looks at once, one of them long: refused channels wait, no change is made twice or lost."""
    pool = Pool()
    async with real_sshd(tmp_path, f"MaxSessions {allowed}", f"ForceCommand {NOISE}") as sshd:
        host = pool.host(sshd.target)
        done = tmp_path / "done"
        long = asyncio.ensure_future(host.do(Command(("sh", "-c", f"sleep 3; echo long >> {done}"))))
        await asyncio.sleep(0.5)
        changes = [host.do(Command(("sh", "-c", f"echo {number} >> {done}"))) for number in range(60)]
        await asyncio.gather(long, *changes)
        lines = (await host.read(FileText(str(done)))) or ""
        assert sorted(lines.split()) == sorted(["long", *map(str, range(60))])
        assert sshd.said("Accepted publickey") == 1
        await pool.close()


async def test_files_written_through_a_noisy_shell_hold_nothing_of_it(tmp_path: Path) -> None:
    pool = Pool()
    async with real_sshd(tmp_path, f"ForceCommand {NOISE}") as sshd:
        host = pool.host(sshd.target)
        for number in range(20):
            path = tmp_path / f"hosts{number}"
            content = "".join(f"10.0.0.{line} te{line}\n" for line in range(number))
            await host.write(str(path), content.encode())
            assert await host.read(FileText(str(path))) == content
        await pool.close()
