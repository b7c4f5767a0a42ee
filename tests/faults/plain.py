"""A bootstrap of the SIMULATED lab without Prefect and SSH: the same stages and order, a fraction of the time.

Each exchange with a host or the API passes one place, where a case may spoil exactly one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from flows import admission, bootstrap
from flows.lock import hold_lock
from lab.simulated import wire
from lab.simulated.commands.registry import Input
from lab.simulated.host import SimulatedHost
from lab.simulated.lab import SimulatedLab
from lab.simulated.shell import Cut, Terminal, serve
from shipway import converge, retry
from shipway.cluster_file import load_cluster
from shipway.errors import ConnectionLost
from shipway.host import ssh
from shipway.host.session import Host
from shipway.host.target import Target
from shipway.kube.client import Kube
from shipway.script import READER, frame, strip_noise
from tasks import context, run_stage
from tasks.context import Run, open_run
from tasks.judging import report_of
from tasks.report import Report
from tasks.stage_result import CLUSTER
from tasks.table import STAGES

Exchange = Callable[..., Awaitable[Any]]  # one with a host takes `change`: what to make of the script before it runs
DECIDING = ("/var/lib/etcd", "/etc/kubernetes/kubelet.conf", "/etc/kubernetes/admin.conf")
Key = tuple[str, str, int]  # host or "api", what is asked, how often it was asked before


@dataclass
class Line:
    """All exchanges of a run pass here: counted, and one of them spoiled."""

    spoil: Callable[[Key, Exchange], Awaitable[Any]] | None = None
    target: Key | None = None
    seen: list[Key] = field(default_factory=list)
    hit: bool = False
    deciding: dict[Key, int] = field(default_factory=dict)  # what tells of a cluster's state, and its commands
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def passes(self, where: str, what: str, exchange: Exchange, script: str = "") -> Any:
        """Let an exchange pass, or spoil it where it is the one."""
        key = (where, what, self._counts[where, what])
        if any(path in script for path in DECIDING):
            self.deciding[key] = len(wire.script(script).lines)
        self._counts[where, what] += 1
        self.seen.append(key)
        if self.spoil is not None and key == self.target and not self.hit:
            self.hit = True
            return await self.spoil(key, exchange)
        return await exchange()


def summary(script: str) -> str:
    """Return what a script does, in a form that two runs share: verbs and programs, without paths and boundaries."""
    words = [line.split() for line in script.splitlines() if line[:2] in ("r ", "d ", "l ")]
    names = [" ".join(word for word in line[:6] if not word.startswith(("-", "/", "'"))) for line in words]
    return "; ".join(dict.fromkeys(names))[:160]


class Direct:
    """A Shell that hands scripts to a simulated host in this process."""

    def __init__(self, lab: SimulatedLab, machine: SimulatedHost, user: str, line: Line) -> None:
        self._lab, self._machine, self._user, self._line = lab, machine, user, line
        self._tunnels: dict[tuple[str, int], asyncio.Server] = {}

    async def script(self, text: str, *, stdin: bytes | None = b"", seconds: float) -> tuple[str, str]:
        """Run a script; raises ConnectionLost where the host is cut off."""

        async def exchange(change: Callable[[str], str] = str) -> tuple[str, str]:
            token, feed = frame(change(text), stdin or b"")
            out, err, fed = bytearray(), bytearray(), [feed]

            async def read(_size: int = -1) -> bytes:
                return fed.pop() if fed else b""

            command = READER if self._user == "root" else f"sudo -n -- {READER}"
            ends = Terminal(Input(read), out.extend, err.extend, lambda: False)
            try:
                async with asyncio.timeout(seconds):
                    await serve(self._machine, self._user, command, ends)
            except Cut as cut:
                raise ConnectionLost("the connection broke while a command ran", host=self._machine.name) from cut
            said = (strip_noise(token, data.decode(errors="replace")) or "" for data in (out, err))
            return next(said), next(said)

        given: tuple[str, str] = await self._line.passes(self._machine.name, summary(text), exchange, text)
        return given

    async def forward(self, address: str, port: int) -> int:
        """Return a local port that leads to what the host reaches there, as the tunnel does."""
        if (address, port) not in self._tunnels:
            self._tunnels[address, port] = await asyncio.start_server(
                lambda reader, writer: self._carry((address, port), reader, writer), "127.0.0.1", 0
            )
        made: int = self._tunnels[address, port].sockets[0].getsockname()[1]
        return made

    async def _carry(self, asked: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a connection to where it leads now; nothing answers where the host reaches nothing."""
        way = self._lab.link.way(self._machine, *asked)
        try:
            if way is not None:
                far_reader, far_writer = await asyncio.open_connection(*way)
                await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except OSError:
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        """Close the tunnels."""
        for tunnel in self._tunnels.values():
            tunnel.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until their end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


class Pool:
    """Sessions on the simulated hosts, in place of SSH's."""

    lab: SimulatedLab
    line: Line

    def __init__(self, secret: object = None) -> None:
        del secret
        self._hosts: dict[str, Host] = {}
        self._shells: list[Direct] = []

    def host(self, target: Target) -> Host:
        """Return the session of a host."""
        if target.name not in self._hosts:
            shell = Direct(self.lab, self.lab.hosts[target.name], target.user, self.line)
            self._shells.append(shell)
            self._hosts[target.name] = Host(target.name, shell)
        return self._hosts[target.name]

    async def hang_up(self, target: Target) -> None:
        """Keep nothing of a host."""
        self._hosts.pop(target.name, None)

    async def close(self) -> None:
        """Close the tunnels."""
        for shell in self._shells:
            await shell.close()


class Stands:
    """What a stage gives to those that build on it."""


async def plain_on(stage: str, host: str, *after: Any) -> Any:
    """Run a stage as `tasks.run_stage.on` does, without Prefect: the same retries for what may pass, no waits."""
    run = context.current()
    if any(state is None for state in after):
        run.skip(host, stage)
        return None
    for attempt in range(1 + STAGES[stage].retries):
        result, _ = await run_stage._do(run, stage, host)
        if result.stands or not result.may_pass or attempt == STAGES[stage].retries:
            break
    run.results.append(result)
    return Stands() if result.stands else None


async def flown(cluster_file: Path, on: Callable[..., Awaitable[Any]] = plain_on) -> Report:
    """Bootstrap a cluster once, its proof included; return the report."""
    run = Run(load_cluster(cluster_file), "bootstrap")
    with hold_lock(run.folder / "lock", run.cluster.name):
        return await _flown(run, on)


async def _flown(run: Run, on: Callable[..., Awaitable[Any]]) -> Report:
    async with open_run(run):
        await bootstrap.bring_up(run)
        if run.ready:
            for stage in ("nodes_ready", "gpus_allocatable"):
                await on(stage, CLUSTER)
            for host in run.hosts:  # as flows/verify_gpus.py does after a bootstrap
                if host.name in run.ready and run.gpus_of(host):
                    await on("gpu_isolation", host.name)
            await on("gpu_proof", CLUSTER)
        return report_of(run)


async def brought_up(lab: SimulatedLab, line: Line) -> Report:
    """Bootstrap the lab once in this process; return the report."""
    Pool.lab, Pool.line = lab, line
    return await flown(lab.cluster_file)


async def over_ssh(lab: SimulatedLab) -> Report:
    """Bootstrap with the hosts reached over real SSH."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "Pool", ssh.Pool)
        Pool.line = Line()
        return await flown(lab.cluster_file)


def send_through(line_of: Callable[[], Line]) -> Callable[..., Awaitable[tuple[int, str]]]:
    """Return Kube.send with every request passing the line; watches and reads alike."""
    plain = Kube.send

    async def send(kube: Kube, method: str, path: str, **more: Any) -> tuple[int, str]:
        async def exchange() -> tuple[int, str]:
            return await plain(kube, method, path, **more)

        where = path.partition("?")[0]
        answer: tuple[int, str] = await line_of().passes("api", f"{method} {_stable(where)}", exchange)
        return answer

    return send


def _stable(path: str) -> str:
    """Return an API path without the parts that differ from run to run: generated names."""
    parts = path.split("/")
    return "/".join("*" if any(c.isdigit() for c in part) and len(part) > 12 else part for part in parts)


def installed(patch: pytest.MonkeyPatch) -> None:
    """Put the plain ways in place: stages without Prefect, hosts without SSH, no waits."""
    staged(patch, plain_on)
    patch.setattr(context, "Pool", Pool)
    patch.setattr(Kube, "send", send_through(lambda: Pool.line))


def staged(patch: pytest.MonkeyPatch, on: Callable[..., Awaitable[Any]]) -> None:
    """Let the flow run its stages by `on`, and wait a twentieth between looks and not at all between tries."""
    for module in (bootstrap, admission):
        patch.setattr(module, "on", on)
    patch.setattr(retry, "wait_random_exponential", lambda **_: wait_none())
    hurried = types.SimpleNamespace(**vars(asyncio))
    hurried.sleep = _hurried
    patch.setattr(converge, "asyncio", hurried)


_sleep = asyncio.sleep


async def _hurried(seconds: float) -> None:
    """Wait a twentieth: the lab's own seconds are shorter still."""
    await _sleep(seconds / 20)
