"""A host that runs what is installed on it: why it is restarted, what forbids that, and the restart."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from shipway.errors import Blocked, DeadlineExceeded, Refused, ShipwayError
from shipway.facts.boot import Boot, BootIs, order_kernels
from shipway.facts.commands import Says
from shipway.facts.services import UnitState
from shipway.gpu.chosen import VENDOR
from shipway.host.session import AT_WORK, Command, Host
from shipway.kube.nodes import few
from shipway.os.family import Family
from shipway.redact import tail
from shipway.step import Drift, Impact
from shipway.survey.notices import MODULES, kernels_with

Mode = Literal["when_required", "never", "always"]
DAY = 86400.0  # a host that `always` restarts is left alone for so long after its boot: a run may be repeated
EVERY_SECONDS, LOOK_SECONDS = 3.0, 30.0
# When each kernel's image came into its place (its date is that of its build).
IMAGES = Says(("sh", "-c", "stat -c '%Z %n' /boot/vmlinuz-*"))
DKMS = Says(("dkms", "status"))
SHIMS = Says(("ps", "-eo", "etimes=,comm="))
_SHIM = re.compile(r"(\d{1,12}) containerd-shim", re.MULTILINE)  # what the kernel keeps of a longer name
INHIBITORS = Says(
    (
        *("busctl", "--json=short", "call", "org.freedesktop.login1", "/org/freedesktop/login1"),
        *("org.freedesktop.login1.Manager", "ListInhibitors"),
    )
)
LOGIND = UnitState("systemd-logind.service")
_IMAGE = re.compile(r"(\d{1,12}) /boot/vmlinuz-(\S+)")


def find_kernels(said: str) -> dict[str, int]:
    """Return the installed kernels, each with when it was installed; none of those that only rescue."""
    found = {match[2]: int(match[1]) for line in said.splitlines() if (match := _IMAGE.fullmatch(line))}
    return {name: at for name, at in found.items() if "rescue" not in name}


async def read_boot(on: Host) -> Boot:
    """Return the boot that a host is in. Raises Blocked where it does not tell, and the errors of reaching it."""
    boot = await on.read(BootIs())
    if boot is None:
        raise Blocked("the host does not tell which boot it is in", host=on.name)
    return boot


async def why_restart(on: Host, family: Family, mode: Mode, runtime: str) -> list[str]:
    """Return why a host is restarted; `runtime` is containerd's package. Raises Blocked where nobody can tell."""
    if mode == "never":
        return []
    boot, (images, shims) = await asyncio.gather(read_boot(on), on.read(IMAGES, SHIMS))
    found = await family.restart_reasons(on, boot.since)
    kernels = find_kernels(images.stdout)
    newest = max(kernels, key=order_kernels, default=boot.kernel)
    if order_kernels(newest) > order_kernels(boot.kernel) and kernels[newest] > boot.since:
        found.append(f"kernel {newest} is installed, and {boot.kernel} runs")
    oldest = max(map(int, _SHIM.findall(shims.stdout)), default=0)
    if await family.changed_since(on, (runtime,), boot.now - oldest):
        found.append(f"containers run since before {runtime} was changed")
    if mode == "always" and not found and boot.now - boot.since > DAY:
        found.append(f"it is asked for always, and the boot is {(boot.now - boot.since) / DAY:.0f} days old")
    return found


@dataclass(frozen=True)
class NobodyAtWork:
    """No package manager is at work."""

    family: Family = field(repr=False)
    name: str = "no package manager is at work"

    async def check(self, on: Host) -> Drift | None:
        """Ask who holds its locks. Raises Refused SHW-822 with the program."""
        if who := await self.family.at_work(on):
            fix = "Wait for its end, then run again; a restart in the middle would leave packages half installed."
            raise Refused(f"a package manager is at work: {who}", host=on.name, code="SHW-822", fix=fix)
        return None


@dataclass(frozen=True)
class NothingInhibits:
    """Nobody keeps the system from being shut down."""

    name: str = "nobody inhibits a restart"

    async def check(self, on: Host) -> Drift | None:
        """Ask logind; a delay, as kubelets ask for, is none.

        Raises Refused SHW-821 with who it is and why, or where a logind at work does not tell.
        """
        said, logind = await on.read(INHIBITORS, LOGIND)
        found = find_inhibitors(said.stdout) if said.ok else None
        if found is None and logind.active in AT_WORK:  # without one nobody can inhibit anything
            told = tail(said.stderr or said.stdout, 3) or "no answer"
            message = f"logind does not tell who inhibits a restart: {told}"
            look = f"See `systemctl status {LOGIND.unit}` and `systemd-inhibit --list` on it, then run again."
            raise Refused(message, host=on.name, code="SHW-821", fix=look)
        if found:
            fix = "See `systemd-inhibit --list` on it; wait for its end, or end it, then run again."
            raise Refused(f"a restart is inhibited by {few(found)}", host=on.name, code="SHW-821", fix=fix)
        return None


def find_inhibitors(said: str) -> list[str] | None:
    """Return who keeps the system from being shut down, and why, by logind's answer (what, who, why, mode, ...).

    None where it is no such answer.
    """
    try:
        rows = json.loads(said)["data"][0]
        found = [(str(what), str(who), str(why), str(mode)) for what, who, why, mode, *_ in rows]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return [f"{who} ({why})" for what, who, why, mode in found if mode == "block" and "shutdown" in what.split(":")]


@dataclass(frozen=True)
class KernelHasModule:
    """The kernel that starts next has the module of the GPUs."""

    name: str = f"the kernel that starts next has {VENDOR.name}'s module"

    async def check(self, on: Host) -> Drift | None:
        """Look for it among the files of the newest installed kernel. Raises Refused SHW-820."""
        images, modules, dkms = await on.read(IMAGES, MODULES, DKMS)
        kernels = find_kernels(images.stdout)
        newest = max(kernels, key=order_kernels, default="")
        if not newest or newest in kernels_with(modules.stdout):
            return None
        told = f"; dkms says: {tail(dkms.stdout, 3)}" if dkms.ok and dkms.stdout.strip() else ""
        message = f"kernel {newest} starts next and has no {VENDOR.name} module: its GPUs would be gone{told}"
        fix = (
            f"On {on.name}: install linux-headers-{newest}, `dkms autoinstall -k {newest}`, look with `dkms status`; "
            "or remove that kernel. Then run again."
        )
        raise Refused(message, host=on.name, code="SHW-820", fix=fix)


def checks_of_restart(family: Family, *, gpus: bool) -> list[NobodyAtWork | NothingInhibits | KernelHasModule]:
    """Return what is asked before a restart: in the plan, and again right before it."""
    return [NobodyAtWork(family), NothingInhibits(), *([KernelHasModule()] if gpus else [])]


async def _nothing() -> None:
    """Let it be done, and keep the connection."""


async def _none_more(_: Host) -> list[str]:
    """Know of no other reason."""
    return []


@dataclass(frozen=True)
class RunsInstalled:
    """A host runs what is installed on it, and was restarted where something asks for that; `more` says what else does.

    `permit` is asked right before, and raises what keeps from it. `anew` drops the connection: whether the host is back
    is asked by a new one each time.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    family: Family = field(repr=False)
    mode: Mode
    runtime: str
    gpus: bool
    minutes: int
    more: Callable[[Host], Awaitable[list[str]]] = field(default=_none_more, compare=False, repr=False)
    permit: Callable[[], Awaitable[None]] = field(default=_nothing, compare=False, repr=False)
    anew: Callable[[], Awaitable[None]] = field(default=_nothing, compare=False, repr=False)
    on_wait: Callable[[str], None] = field(default=lambda _: None, compare=False, repr=False)
    name: str = "the host runs what is installed"

    async def check(self, on: Host) -> Drift | None:
        """Look for what asks for a restart."""
        found, more = await asyncio.gather(why_restart(on, self.family, self.mode, self.runtime), self.more(on))
        found += more
        return Drift(few(found), "restarted since") if found else None

    async def apply(self, on: Host) -> None:
        """Restart it, and wait until another boot answers.

        Raises Refused SHW-820 to SHW-822 where something forbids it now: then it was not restarted. Raises
        DeadlineExceeded SHW-824 where it is not back in time.
        """
        on.forget()
        for one in checks_of_restart(self.family, gpus=self.gpus):
            await one.check(on)
        await self.permit()
        before = await read_boot(on)
        self.on_wait(f"restarting {on.name}, which has {self.minutes} minutes to come back")
        try:
            await on.do(Command(("systemctl", "reboot"), seconds=60))
        except ShipwayError as error:
            if not error.may_retry:
                raise
        await self._wait(on, before)

    async def _wait(self, on: Host, before: Boot) -> None:
        """Wait for another boot than that of before."""
        ends, seen, said = time.monotonic() + self.minutes * 60.0, "it has not gone down", ""
        while time.monotonic() < ends:
            await asyncio.sleep(EVERY_SECONDS)
            await self.anew()
            on.forget()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    now = await read_boot(on)
            except (ShipwayError, TimeoutError) as error:
                seen = error.message if isinstance(error, ShipwayError) else "it does not answer"
            else:
                if now.id != before.id:
                    return
                seen = "it still runs as before"
            if seen != said:
                self.on_wait(f"waiting until {on.name} is back: {seen}")
                said = seen
        fix = "See its console or management controller, or raise maintain.reboot_minutes; its node stays closed."
        message = f"it is not back {self.minutes} minutes after its restart; last seen: {seen}"
        raise DeadlineExceeded(message, host=on.name, code="SHW-824", fix=fix, retry=False)
