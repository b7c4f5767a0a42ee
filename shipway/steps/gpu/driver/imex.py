"""IMEX on a host whose GPUs NVLink joins to other hosts': left to pods, or run by the host for its whole fabric."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from shipway.edits.files import FileEdited, FileIs
from shipway.edits.imex import with_settings
from shipway.errors import Blocked, Refused
from shipway.facts.commands import Says
from shipway.facts.files import FileState
from shipway.facts.services import UnitInfo, UnitState
from shipway.gpu.chosen import VENDOR
from shipway.gpu.driver.generations import SPACES, joins_hosts, read_devices
from shipway.gpu.driver.imex import (
    ASK,
    CHANNELS,
    CONFIG,
    KINDS,
    NODES,
    NODES_OF_CHANNELS,
    READY,
    SERVICE,
    SETTINGS,
    Fellow,
    Fellows,
    nodes_text,
    read_fabric,
)
from shipway.host.session import Command, Host
from shipway.kube.nodes import few
from shipway.redact import tail
from shipway.step import Drift, Impact
from shipway.steps.gpu.driver.module import LOADED
from shipway.steps.gpu.driver.services import ENABLED, START_SECONDS
from shipway.steps.system.loaded import is_loaded, restart

Way = Literal["workloads", "host"]
UNIT = UnitState(f"{SERVICE}.service")
FILES = (CONFIG, NODES)
REPORT = VENDOR.fabric.states if VENDOR.fabric else Says(("false",))


async def is_joined(on: Host) -> bool:
    """Say whether NVLink joins a host's GPUs to those of other hosts, by their device ids."""
    return joins_hosts(read_devices((await on.read(SPACES)).stdout))


async def read_fellow(on: Host, name: str, address: str) -> Fellow | None:
    """Return what a host tells of its fabric; None where NVLink joins its GPUs to no other host's."""
    spaces, report = await on.read(SPACES, REPORT)
    if not joins_hosts(read_devices(spaces.stdout)):
        return None
    return Fellow(name, address, *read_fabric(report))


async def _unit(on: Host) -> UnitInfo:
    """Return what systemd says of the service. Raises Blocked where it is not there."""
    info = await on.read(UNIT)
    if info.load == "not-found":
        raise Blocked(f"{SERVICE} is not installed yet", host=on.name)
    return info


def refuse_running(on: Host, info: UnitInfo, way: Way | None) -> None:
    """Raise Refused SHW-695 where the service runs, and the file does not say whose IMEX is: somebody set it up."""
    if way is None and info.active in ("active", "activating", "reloading"):
        fix = (
            "Write `gpu.driver.imex: host` to have Shipway keep it, for all hosts of its fabric, or `imex: workloads` "
            "to have it stopped and masked, where pods of ComputeDomains run it (docs/stages/gpu-driver.md)."
        )
        message = f"{SERVICE} runs, and the cluster file does not say who runs it: it was left as it is"
        raise Refused(message, host=on.name, code="SHW-695", fix=fix)


@dataclass(frozen=True)
class ImexLeftToPods:
    """The host runs no IMEX of its own, for pods of ComputeDomains run it: two on one host disturb each other.

    It is masked before its package comes, which would start it.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    way: Way | None
    name: str = "IMEX is left to pods: the host's own service is stopped and masked"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd, where NVLink joins hosts. Raises Refused SHW-695 where it runs and nobody declared that."""
        joined, info = await asyncio.gather(is_joined(on), on.read(UNIT))
        if not joined:
            return None
        refuse_running(on, info, self.way)
        masked = "masked" in (info.load, info.enabled)
        if masked and info.active in ("inactive", "failed"):
            return None
        return Drift(f"{info.active}, {info.enabled or info.load}", "inactive, masked")

    async def apply(self, on: Host) -> None:
        """Stop, disable and mask it; one that is not there yet is masked alone. Raises as the check."""
        info = await on.read(UNIT)
        refuse_running(on, info, self.way)
        there = info.load not in ("not-found", "masked")
        stop = [Command(("systemctl", "stop", SERVICE), seconds=START_SECONDS)] if info.active != "inactive" else []
        off = [Command(("systemctl", "disable", "--quiet", SERVICE))] if there else []
        await on.do(*stop, *off, Command(("systemctl", "mask", "--quiet", f"{SERVICE}.service")))


@dataclass(frozen=True)
class ImexConfigured:
    """The host's IMEX has the hosts of its fabric as its nodes, and answers on a socket of the host alone.

    `name_of_host` is this host's among the `fellows`. Nothing is written while one of them does not tell which fabric
    it has joined: IMEX fails where two nodes have two lists.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    host: str
    fellows: Fellows = field(compare=False, repr=False)
    name: str = "IMEX knows the hosts of its fabric"

    async def _files(self, on: Host) -> tuple[FileIs, FileEdited]:
        """Return what its files are to be. Raises Blocked where that cannot be told."""
        fellows = await self.fellows()
        if untold := [f"{one.name} ({one.why})" for one in fellows if one.fabric is None]:
            raise Blocked(f"which hosts share a fabric is not known: {few(untold)}", host=on.name)
        own = next((one for one in fellows if one.name == self.host), None)
        if own is None:
            raise Blocked("this host does not tell of its GPUs", host=on.name)
        same = [one.address for one in fellows if own.fabric and one.fabric == own.fabric] or [own.address]
        wanted = ", ".join(f"{key}={value}" for key, value in SETTINGS.items())
        return FileIs(self.name, NODES, nodes_text(same)), FileEdited(self.name, CONFIG, with_settings, wanted)

    async def check(self, on: Host) -> Drift | None:
        """Compare both files, where NVLink joins hosts. Raises Blocked where it is not installed, or as above."""
        if not await is_joined(on):
            return None
        await _unit(on)
        for one in await self._files(on):
            if drift := await one.check(on):
                return Drift(f"{one.path}: {drift.have}", drift.want)
        return None

    async def apply(self, on: Host) -> None:
        """Write the list, and our settings; every other line of the configuration stays."""
        for one in await self._files(on):
            if await one.check(on):
                await one.apply(on)


@dataclass(frozen=True)
class ImexRuns:
    """The host's IMEX runs, by its files as they are, and starts with the host."""

    impact: ClassVar[Impact] = Impact.WORKLOADS  # what other hosts have of its GPUs' memory ends with it
    restarts: ClassVar[str] = SERVICE
    name: str = f"{SERVICE} runs its current configuration, and starts with the host"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd, and compare files with what it loaded. Raises Blocked where it, or a module, is not there."""
        if not await is_joined(on):
            return None
        info, (module, nodes) = await asyncio.gather(_unit(on), on.read(LOADED, FileState(NODES)))
        if module is None or nodes is None:
            what = f"{NODES} is not there" if module else "the driver's module is not loaded"
            raise Blocked(f"{what} yet", host=on.name)
        wrong = [] if info.active == "active" else [info.active]
        wrong += [] if info.enabled in ENABLED else [info.enabled or info.load]
        if not wrong and not await is_loaded(on, SERVICE, FILES, same_second=False):
            wrong = ["started before its configuration changed"]
        return Drift(", ".join(wrong), "active, enabled, started after its files changed") if wrong else None

    async def apply(self, on: Host) -> None:
        """Enable it, and start it anew."""
        await on.do(
            Command(("systemctl", "unmask", "--quiet", SERVICE)),
            Command(("systemctl", "enable", "--quiet", SERVICE)),
        )
        await restart(on, SERVICE, FILES)


@dataclass(frozen=True)
class ImexReady:
    """The host's IMEX says that it is ready."""

    name: str = f"{SERVICE} says that it is {READY}"

    async def check(self, on: Host) -> Drift | None:
        """Ask it. Raises Blocked where it is not there; any other answer, or none, is no readiness."""
        joined, said = await asyncio.gather(is_joined(on), on.read(ASK))
        if not joined:
            return None
        if said.status in (126, 127):
            raise Blocked(f"{SERVICE} is not installed yet", host=on.name)
        word = said.stdout.strip()
        if said.ok and word == READY:
            return None
        return Drift(tail(f"{word} {said.stderr}".strip(), 2) or "it does not tell", READY)


@dataclass(frozen=True)
class ImexChannels:
    """The driver has IMEX channels, and the device nodes of channels that are there are its own.

    Nodes are made by whoever gives channels to pods, so that none need be there.
    """

    name: str = "the driver has IMEX channels"

    async def check(self, on: Host) -> Drift | None:
        """Compare the kernel's list of devices with the nodes. Raises Blocked while no module is loaded."""
        joined, (kinds, module, nodes) = await asyncio.gather(is_joined(on), on.read(KINDS, LOADED, NODES_OF_CHANNELS))
        if not joined:
            return None
        if module is None:
            raise Blocked("the driver's module is not loaded yet", host=on.name)
        majors = [words[0] for line in (kinds or "").splitlines() if (words := line.split())[1:] == [CHANNELS]]
        if not majors:
            return Drift(f"no {CHANNELS} in {KINDS.path}", "registered by the driver")
        rows = [line.split("|", 2) for line in nodes.stdout.splitlines() if line.count("|") > 1]
        own = f"{int(majors[0]):x}" if majors[0].isdecimal() else ""
        odd = [path for kind, major, path in rows if kind != "character special file" or major != own]
        return Drift(f"{few(odd)} is none of the driver's", f"character devices of major {majors[0]}") if odd else None
