"""Steps about containerd: its effective configuration, and that its CRI answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import ClassVar

from shipway.edits.containerd import (
    BEFORE,
    CONFIG,
    UnreadableError,
    Wanted,
    differences,
    edit_config,
    imports_of,
    parse_config,
    root_of,
)
from shipway.edits.toml import NotEditableError
from shipway.errors import Blocked, Permanent
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.services import UnitState
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact
from shipway.steps.runtime.pause_image import DUMP, pause_image
from shipway.steps.runtime.toolkit_owner import find_operators_toolkit
from shipway.steps.system.services import CONTAINERD, ServiceLoaded
from shipway.survey.first_look import survey

DEFAULT = Says(("containerd", "config", "default"))
CTR = Says(("ctr", "--connect-timeout", "5s", "plugins", "ls"))
_NOT_FOUND = 127
PROGRAM = "containerd"


@dataclass(frozen=True)
class ContainerdConfigured:
    """containerd's effective configuration (the dump, not the file's text) says what is wanted."""

    traps: ClassVar[tuple[int, ...]] = (17, 18, 19, 20, 21, 24, 25, 26)
    impact: ClassVar[Impact] = Impact.SERVICE  # containerd reads its configuration at its start: a restart follows
    restarts: ClassVar[str] = CONTAINERD
    wanted: Wanted
    images: Says | None = None  # kubeadm's list: where it can be had, its pause image counts and not the planned one
    name: str = "containerd uses the systemd cgroup driver and our sandbox image"

    async def check(self, on: Host) -> Drift | None:
        """Compare the dump; what containerd cannot read is drift too. The GPUs' runtime counts only when asked for."""
        (dump, state), kept = await asyncio.gather(on.read(DUMP, FileState(CONFIG)), self._wanted(on))
        if dump.status in (126, _NOT_FOUND):
            raise Blocked("containerd is not installed yet", host=on.name)
        gpus = f", {kept.runtime.handler} runtime" if kept.runtime else ""
        want = f"systemd cgroup driver, sandbox image, registry folder{gpus}"
        if state is None:
            return Drift(f"no {CONFIG}", want)
        if not dump.ok:
            return Drift("containerd cannot read its configuration", want)
        try:
            wrong = differences(dump.stdout, kept)
        except UnreadableError as error:
            return Drift(str(error), want)
        if not kept.runtime and VENDOR.runtime:  # the default runtime is the next stage's affair, or an operator's
            wrong = [line for line in wrong if f"default_runtime_name = {VENDOR.runtime.handler}" not in line]
        return Drift("; ".join(wrong), f"{want}; a restart of containerd follows") if wrong else None

    async def _wanted(self, on: Host) -> Wanted:
        """Return what is wanted, with the pause image that kubeadm on this host asks for where it is there."""
        named = pause_image(await on.read(self.images)) if self.images else None
        wanted = replace(self.wanted, sandbox_image=named) if named else self.wanted
        if wanted.runtime is None or not await find_operators_toolkit(on):
            return wanted
        return replace(wanted, runtime=None)  # what an operator has set of it stays as it is

    async def _lacking(self, on: Host) -> str:
        """Return the program of the GPUs' runtime where it is wanted and not there, else ""."""
        runtime = (await self._wanted(on)).runtime
        return runtime.program if runtime and await on.read(FileState(runtime.program)) is None else ""

    async def apply(self, on: Host) -> None:
        """Set our settings in containerd's file, keep every other byte; the first file is kept beside it.

        Raises Permanent SHW-332 where the file cannot be edited without a change of something else, SHW-333 where
        another file has the last word.
        """
        (default, dump), (before, info, kept), lacking = await asyncio.gather(
            on.read(DEFAULT, DUMP),
            on.read(FileText(CONFIG), FileState(CONFIG), FileState(BEFORE)),
            self._lacking(on),
        )
        if lacking:
            # A default runtime that is not there fails every pod of the node (deckhouse#22142).
            raise Blocked(f"{lacking} is not installed yet", host=on.name)
        wanted = await self._wanted(on)
        if wanted.runtime and wanted.by_default and not (await survey(on)).driver_gpus:
            fix = f"Mend the driver (`{VENDOR.program}` on the host), or set `gpu.mode: runtime_class`, then run again."
            handler = wanted.runtime.handler
            message = (
                f"the driver shows no GPU: with {handler} as the default runtime every pod of this node would fail"
            )
            raise Blocked(message, host=on.name, fix=fix)
        try:
            parse_config(default.stdout)
        except UnreadableError as error:
            fix = "Check the containerd package: `containerd config default` should print its configuration."
            raise Permanent(f"`containerd config default`: {error}", host=on.name, code="SHW-308", fix=fix) from error
        try:
            text = edit_config(before or "", default.stdout, wanted)
        except (UnreadableError, NotEditableError) as error:
            fix = f"Correct {CONFIG} on the host (`containerd config migrate` brings it up to date), then run again."
            message = f"{CONFIG} is left as it is, for it cannot be edited safely: {error}"
            raise Permanent(message, host=on.name, code="SHW-332", fix=fix) from error
        if text == before and dump.ok:
            others = ", ".join(imports_of(dump.stdout)) or "another file than this"
            message = f"{CONFIG} says what is wanted, and containerd's effective configuration does not"
            fix = f"Look into {others}: it has the last word. Take what differs out of it, then run again."
            raise Permanent(message, host=on.name, code="SHW-333", fix=fix)
        if before is not None and kept is None:  # the first one is what a reset of the host can put back
            await on.do(Command(("cp", "-p", "--", CONFIG, BEFORE)))
        mode, owner = (info.mode, info.owner) if info else ("644", "root:root")
        await on.write(CONFIG, text.encode(), mode=mode, owner=owner)


# The database of images and containers: a containerd that runs has it under its root from its first start on.
METADATA = "io.containerd.metadata.v1.bolt"
_DATABASE = "meta.db"


@dataclass(frozen=True)
class ContainerdLoaded(ServiceLoaded):
    """containerd was started after its configuration last changed; a restart never takes it to another root."""

    async def apply(self, on: Host) -> None:
        """Restart it, once its configuration names the root that it runs with.

        Raises Permanent SHW-334 where a containerd runs that has nothing under the root it would have after a restart:
        it would know none of this node's images and containers any more.
        """
        dump, unit = await on.read(DUMP, UnitState("containerd.service"))
        if unit.active == "active" and dump.ok:
            try:
                root = root_of(dump.stdout)
            except UnreadableError as error:
                fix = f"Correct {CONFIG} on the host: `containerd config dump` must show it."
                raise Permanent(f"containerd is not restarted: {error}", code="SHW-334", fix=fix) from error
            if _DATABASE not in await on.read(Listing(f"{root}/{METADATA}")):
                message = f"containerd is not restarted: its configuration says root = {root}, and it runs with another"
                fix = f"Put the root that it runs with back into {CONFIG} (`ls -l /proc/$(pidof containerd)/fd`)."
                raise Permanent(message, code="SHW-334", fix=fix)
        await super().apply(on)


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
