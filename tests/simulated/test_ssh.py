"""The simulated hosts' sshd refuses what OpenSSH's refuses: the same story is played on a real one, if there is one."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from lab.simulated.drifts import drift
from lab.simulated.lab import SimulatedLab
from lab.simulated.login_shell import NOISE
from lab.simulated.options import Options
from lab.simulated.ssh.limits import SshLimits

SSHD = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin:/usr/bin")
LIMITS = SshLimits(max_sessions=3, max_startups=(4, 100, 4), login_seconds=2.0)
Connect = Callable[[], Coroutine[Any, Any, asyncssh.SSHClientConnection]]


class End:
    """An sshd: where it is, and how to log in."""

    def __init__(self, address: str, port: int, user: str, folder: Path) -> None:
        self.address, self.port, self._user, self._folder = address, port, user, folder

    async def connect(self) -> asyncssh.SSHClientConnection:
        """Return a connection that has logged in."""
        return await asyncssh.connect(
            self.address,
            self.port,
            username=self._user,
            client_keys=[str(self._folder / "id_ed25519")],
            known_hosts=None,
            config=None,
        )

    async def greeting(self) -> tuple[bytes, asyncio.StreamWriter]:
        """Return the first line that a new connection gets, and the connection, on which nobody logs in."""
        reader, writer = await asyncio.open_connection(self.address, self.port)
        return await asyncio.wait_for(reader.readline(), 10), writer


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _configured(folder: Path, port: int) -> None:
    for name in ("id_ed25519", "host"):
        subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name), check=True)
    settings = f"""
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/id_ed25519.pub
StrictModes no
UsePAM no
PermitRootLogin yes
MaxSessions {LIMITS.max_sessions}
MaxStartups {LIMITS.max_startups[0]}
LoginGraceTime {LIMITS.login_seconds:.0f}
"""
    (folder / "config").write_text(settings)
    Path("/run/sshd").mkdir(exist_ok=True)


async def _openssh(folder: Path) -> AsyncIterator[End]:
    port = _free_port()
    _configured(folder, port)
    process = await asyncio.create_subprocess_exec(
        str(SSHD), "-D", "-e", "-f", str(folder / "config"), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)  # the trial's connection counts until sshd has seen its end
        yield End("127.0.0.1", port, "root", folder)
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture(params=["simulated", "openssh"])
async def end(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[End]:
    if request.param == "openssh":
        if SSHD is None or os.geteuid() != 0:
            pytest.skip("no sshd on this machine, or not root")
        async for one in _openssh(tmp_path):
            yield one
        return
    async with SimulatedLab(tmp_path, Options(hosts=1, scale=1.0, sshd=LIMITS)) as lab:
        yield End(lab.hosts["te1"].address, lab.ssh.port, "ops", tmp_path)


async def test_a_session_above_max_sessions_is_refused_and_the_connection_and_its_sessions_live(end: End) -> None:
    connection = await end.connect()
    running = [await connection.create_process("sleep 30") for _ in range(3)]
    with pytest.raises(asyncssh.ChannelOpenError) as refused:
        await connection.create_process("echo never")
    assert (refused.value.code, refused.value.reason) == (asyncssh.OPEN_CONNECT_FAILED, "open failed")
    assert not any(process.is_closing() for process in running), "the others go on"
    through = [await connection.open_connection(end.address, end.port) for _ in range(3)]
    assert all([(await reader.readline()).startswith(b"SSH-2.0-") for reader, _ in through]), "no sessions, not counted"
    for _, writer in through:
        writer.close()
    connection.abort()
    await connection.wait_closed()
    again = await end.connect()
    done = [await again.run("echo fine") for _ in range(5)]
    assert [run.stdout for run in done] == ["fine\n"] * 5, "a session that has ended counts no longer"
    again.abort()
    await again.wait_closed()


async def _said(connection: asyncssh.SSHClientConnection) -> object:
    try:
        return (await connection.run("echo fine")).stdout
    except asyncssh.ChannelOpenError as error:
        return error.reason


async def test_a_session_whose_client_has_gone_counts_until_its_command_ends(end: End) -> None:
    connection = await end.connect()
    for _ in range(3):
        process = await connection.create_process("sleep 2", stdin=asyncssh.DEVNULL)
        process.close()
    await asyncio.sleep(0.3)
    with pytest.raises(asyncssh.ChannelOpenError):
        await connection.run("echo never")
    async with asyncio.timeout(20):  # an sshd on a busy machine notices a child's end late
        while (answer := await _said(connection)) == "open failed":  # noqa: ASYNC110 - the other side is sshd
            await asyncio.sleep(0.1)
    assert answer == "fine\n"
    connection.abort()
    await connection.wait_closed()


async def test_a_connection_above_max_startups_is_reported_so_and_counts_no_longer_once_it_logged_in(end: End) -> None:
    inside = [await end.connect() for _ in range(5)]
    waiting = [await end.greeting() for _ in range(4)]
    assert all(line.startswith(b"SSH-2.0-") for line, _ in waiting)
    line, writer = await end.greeting()
    assert line == b"Exceeded MaxStartups\r\n"
    writer.close()
    for _, other in waiting:
        other.close()
    for connection in inside:
        connection.abort()
        await connection.wait_closed()


async def test_a_connection_without_a_login_is_ended_after_the_grace_time(end: End) -> None:
    reader, writer = await asyncio.open_connection(end.address, end.port)
    writer.write(b"SSH-2.0-nobody\r\n")
    assert await asyncio.wait_for(reader.read(), 10)
    writer.close()
    line, writer = await end.greeting()
    assert line.startswith(b"SSH-2.0-")
    writer.close()


def test_connections_are_dropped_by_chance_between_start_and_full() -> None:
    dice, limits = random.Random(1), SshLimits()  # noqa: S311
    assert not any(limits.drops(9, dice) for _ in range(1000))
    assert all(limits.drops(100, dice) for _ in range(1000))
    shares = {startups: sum(limits.drops(startups, dice) for _ in range(4000)) / 4000 for startups in (10, 55, 99)}
    assert 0.27 < shares[10] < 0.33
    assert 0.62 < shares[55] < 0.68
    assert shares[99] > 0.96


def test_limits_are_written_as_in_sshd_config() -> None:
    assert SshLimits.parse("MaxSessions=2,MaxStartups=5:50:9,LoginGraceTime=3") == SshLimits(2, (5, 50, 9), 3.0)
    assert SshLimits.parse("MaxStartups=7").max_startups == (7, 100, 7)
    for wrong in ("Sessions=2", "MaxStartups=9:30:5", "MaxSessions=many"):
        with pytest.raises(ValueError, match=r"MaxStartups|MaxSessions|many"):
            SshLimits.parse(wrong)


async def test_a_noisy_login_shell_prints_before_the_commands_output_on_both_streams(tmp_path: Path) -> None:
    async with SimulatedLab(tmp_path, Options(hosts=2, scale=0.0)) as lab:
        quiet = await End(lab.hosts["te1"].address, lab.ssh.port, "ops", tmp_path).connect()
        noisy = await End(lab.hosts["te2"].address, lab.ssh.port, "ops", tmp_path).connect()
        said = await noisy.run("sudo -n -- cat /etc/machine-id")
        assert (
            said.stdout
            == f"Welcome to {lab.hosts['te2'].kernel.hostname} - authorised use only\n{lab.hosts['te2'].machine_id}\n"
        )
        assert said.stderr == "mesg: ttyname failed: Inappropriate ioctl for device\n"
        assert (await quiet.run("cat /etc/machine-id")).stdout == f"{lab.hosts['te1'].machine_id}\n"
        drift(lab.hosts["te1"], "noisy", {})
        assert "authorised" in str((await quiet.run("true")).stdout)
        for connection in (quiet, noisy):
            connection.abort()
            await connection.wait_closed()


def test_bash_under_sshd_prints_what_the_simulated_login_shell_prints(tmp_path: Path) -> None:
    """The lines that make a host noisy, run by the bash of this machine as sshd starts it: with its own variables."""
    (tmp_path / ".bashrc").write_text(NOISE)
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SSH_CLIENT": "127.0.0.1 1 22", "SSH2_CLIENT": "1"}
    said = subprocess.run(
        ("/bin/bash", "-c", "echo the answer"), env=environment, capture_output=True, text=True, check=True
    )
    if said.stdout == "the answer\n":
        pytest.skip("this machine's bash reads no ~/.bashrc under sshd: not Debian's or Ubuntu's")
    assert said.stdout == f"Welcome to {socket.gethostname()} - authorised use only\nthe answer\n"
    assert said.stderr == "mesg: ttyname failed: Inappropriate ioctl for device\n"
