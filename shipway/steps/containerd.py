"""Steps about containerd: its effective configuration, and that its CRI answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import ClassVar

from shipway.containerd_config import CONFIG, NVIDIA_RUNTIME, UnreadableError, Wanted, differences, rendered
from shipway.errors import Blocked, Permanent
from shipway.facts.commands import Says
from shipway.facts.files import FileState, Listing
from shipway.host import Command, Host
from shipway.step import Drift, Impact
from shipway.steps.pause_image import DUMP, pause_image
from shipway.survey import survey

DEFAULT = Says(("containerd", "config", "default"))
CTR = Says(("ctr", "--connect-timeout", "5s", "plugins", "ls"))
_NOT_FOUND = 127
PROGRAM = "containerd"


@dataclass(frozen=True)
class ContainerdConfigured:
    """containerd's effective configuration (the dump, not the file's text) says what is wanted."""

    traps: ClassVar[tuple[int, ...]] = (17, 18, 19, 20, 21, 24, 25, 26)
    impact: ClassVar[Impact] = Impact.FILES
    wanted: Wanted
    images: Says | None = None  # kubeadm's list: where it can be had, its pause image counts and not the planned one
    name: str = "containerd uses the systemd cgroup driver and our sandbox image"

    async def check(self, on: Host) -> Drift | None:
        """Compare the dump; what containerd cannot read is drift too. The nvidia part counts only when asked for."""
        (dump, state), kept = await asyncio.gather(on.read(DUMP, FileState(CONFIG)), self._wanted(on))
        if dump.status in (126, _NOT_FOUND):
            raise Blocked("containerd is not installed yet", host=on.name)
        want = "systemd cgroup driver, sandbox image, registry folder" + (", nvidia runtime" * kept.nvidia)
        if state is None:
            return Drift(f"no {CONFIG}", want)
        if not dump.ok:
            return Drift("containerd cannot read its configuration", want)
        try:
            wrong = differences(dump.stdout, kept)
        except UnreadableError as error:
            return Drift(str(error), want)
        if not self.wanted.nvidia:  # the default runtime is the next stage's affair where the toolkit is there
            wrong = [line for line in wrong if "default_runtime_name = nvidia" not in line]
        return Drift("; ".join(wrong), want) if wrong else None

    async def _wanted(self, on: Host) -> Wanted:
        """Return what is wanted, with the pause image that kubeadm on this host asks for where it is there."""
        named = pause_image(await on.read(self.images)) if self.images else None
        return replace(self.wanted, sandbox_image=named) if named else self.wanted

    async def apply(self, on: Host, drift: Drift) -> None:  # noqa: ARG002 - the whole file has one owner
        """Write containerd's own default with our settings; the file before is kept beside it."""
        default, runtime, before = await on.read(DEFAULT, FileState(NVIDIA_RUNTIME), FileState(CONFIG))
        if self.wanted.nvidia and runtime is None:
            # A default runtime that is not there fails every pod of the node (deckhouse#22142).
            raise Blocked(f"{NVIDIA_RUNTIME} is not installed yet", host=on.name)
        if self.wanted.default_nvidia and not (await survey(on)).driver_cards:
            fix = "Mend the driver (`nvidia-smi` on the host), or set `gpu.mode: runtime_class`, then run again."
            message = "the driver shows no card: with nvidia as the default runtime every pod of this node would fail"
            raise Blocked(message, host=on.name, fix=fix)
        try:
            text = rendered(default.stdout, await self._wanted(on))
        except UnreadableError as error:
            fix = "Check the containerd package: `containerd config default` should print its configuration."
            raise Permanent(f"`containerd config default`: {error}", host=on.name, code="SHW-308", fix=fix) from error
        if before:
            await on.do(Command(("cp", "-p", "--", CONFIG, f"{CONFIG}.before-shipway")))
        await on.write(CONFIG, text.encode())


@dataclass(frozen=True)
class OneContainerd:
    """There is one containerd: with two, one is configured and the other runs (nvidia-container-toolkit#982)."""

    traps: ClassVar[tuple[int, ...]] = (22,)
    name: str = "there is one containerd, the package's"

    async def check(self, on: Host) -> Drift | None:
        """Look where programs are put by hand; these folders come first in every path."""
        local, system = await on.read(Listing("/usr/local/bin"), Listing("/usr/local/sbin"))
        places = {"bin": local, "sbin": system}
        found = [f"/usr/local/{place}/containerd" for place, names in places.items() if PROGRAM in names]
        fix = "only the package's (remove the other one, and its unit in /etc/systemd/system or /usr/local/lib/systemd)"
        return Drift(f"{', '.join(found)} beside it", fix) if found else None


@dataclass(frozen=True)
class CriAnswers:
    """containerd's CRI plugin is loaded."""

    traps: ClassVar[tuple[int, ...]] = (17,)
    name: str = "containerd's CRI answers"

    async def check(self, on: Host) -> Drift | None:
        """List the plugins: a CRI plugin must be there with status ok, none with error."""
        plugins = await on.read(CTR)
        if plugins.status == _NOT_FOUND:
            raise Blocked("containerd is not installed yet", host=on.name)
        rows = [line.split() for line in plugins.stdout.splitlines()]
        cri = [row for row in rows if (len(row) > 1 and row[1] == "cri") or row[:1] == ["io.containerd.cri.v1"]]
        bad = [" ".join(row[:2]) for row in cri if row[-1] != "ok"]
        if cri and not bad:
            return None
        return Drift(f"plugins in error: {', '.join(bad)}" if bad else "no CRI plugin", "CRI plugin loaded")
