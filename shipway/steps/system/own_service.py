"""A program of the distribution's that runs in a unit of ours with a file of ours, beside whatever a site does with it.

To let systemd read its files anew takes the device rights from running GPU containers (nvidia-container-toolkit#48): so
a unit is enabled by its link alone, and only one step lets systemd read, which is withheld beside GPU pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.edits.files import FileIs
from shipway.facts.commands import Says
from shipway.facts.files import FileState
from shipway.facts.services import UnitState
from shipway.host.session import Command, Host
from shipway.os.family import Family
from shipway.step import Check, Drift, Impact
from shipway.steps.system.loaded import is_loaded, restart


@dataclass(frozen=True)
class OwnService:
    """Which package it is of, its unit (without `.service`), the files' folder, and how sentences name it."""

    package: str
    service: str
    folder: str
    config: str
    text: str = field(repr=False)
    what: str

    @property
    def unit(self) -> str:
        """The unit's whole name."""
        return f"{self.service}.service"

    @property
    def path(self) -> str:
        """Where the unit lies."""
        return f"/etc/systemd/system/{self.unit}"


def enabled(own: OwnService) -> Says:
    """Return the fact of whether it starts with the host; UnitFileState may be older."""
    return Says(("systemctl", "is-enabled", own.unit))


@dataclass(frozen=True)
class OwnUnitRead:
    """systemd knows the unit by its file as it is; a new one it mostly finds by itself when it is asked for it.

    One that runs goes on.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    own: OwnService

    @property
    def id(self) -> str:
        """What the step is about."""
        return f"OwnUnitRead {self.own.unit}"

    @property
    def name(self) -> str:
        """The fact."""
        return f"systemd has read the unit of {self.own.what}"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd."""
        info = await on.read(UnitState(self.own.unit))
        if info.load == "not-found":
            return Drift("it knows no such unit", "read")
        return Drift("the file changed since", "read") if info.needs_reload else None

    async def apply(self, on: Host) -> None:
        """Let systemd read all of them."""
        await on.do(Command(("systemctl", "daemon-reload")))


@dataclass(frozen=True)
class OwnEnabled:
    """It starts with the host: by a link, which systemd need not read before the host is started again."""

    impact: ClassVar[Impact] = Impact.FILES
    own: OwnService

    @property
    def id(self) -> str:
        """What the step is about."""
        return f"OwnEnabled {self.own.unit}"

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.own.what} starts with the host"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd, which looks for the link."""
        said = (await on.read(enabled(self.own))).stdout.strip()
        return None if said == "enabled" else Drift(said or "no such unit", "enabled")

    async def apply(self, on: Host) -> None:
        """Make it."""
        await on.do(Command(("systemctl", "enable", "--quiet", "--no-reload", self.own.unit), seconds=60))


@dataclass(frozen=True)
class OwnRuns:
    """It is active, where its package is installed and systemd knows the unit: the steps before tell where not."""

    impact: ClassVar[Impact] = Impact.START
    own: OwnService
    family: Family = field(hash=False)

    @property
    def id(self) -> str:
        """What the step is about."""
        return f"OwnRuns {self.own.unit}"

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.own.service} runs"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd and the package manager."""
        info, package = await on.read(UnitState(self.own.unit), self.family.package(self.own.package))
        known = package is not None and info.load != "not-found"
        return Drift(info.active, "active") if known and info.active != "active" else None

    async def apply(self, on: Host) -> None:
        """Start it: what stands still disturbs nobody by that, and no unit file is read anew."""
        await on.do(Command(("systemctl", "start", self.own.service), seconds=120))


@dataclass(frozen=True)
class OwnLoaded:
    """It runs with its file as it is: it is reloaded, which breaks nothing off."""

    impact: ClassVar[Impact] = Impact.START
    own: OwnService

    @property
    def id(self) -> str:
        """What the step is about."""
        return f"OwnLoaded {self.own.unit}"

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.own.what} runs its current configuration"

    async def check(self, on: Host) -> Drift | None:
        """Compare what was loaded with what the file holds; one that does not run reads it when it starts."""
        own = self.own
        info, loaded = await asyncio.gather(
            on.read(UnitState(own.unit)), is_loaded(on, own.service, (own.config,), same_second=True)
        )
        return None if loaded or info.active != "active" else Drift("an older one", "the file's")

    async def apply(self, on: Host) -> None:
        """Reload it, and keep what it loaded."""
        await restart(on, self.own.service, (self.own.config,), verb="reload")


@dataclass(frozen=True)
class OwnGone:
    """It is not there any more, for nothing needs it; its package stays.

    systemd is not let read its files anew; but what still asks by it may have to be mended by a restart before: so this
    is a service's impact too.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    own: OwnService

    @property
    def id(self) -> str:
        """What the step is about."""
        return f"OwnGone {self.own.unit}"

    @property
    def name(self) -> str:
        """The fact."""
        return f"nothing is left of {self.own.what}"

    async def check(self, on: Host) -> Drift | None:
        """Look for its unit."""
        return Drift(f"{self.own.path} is there", "no such unit") if await on.read(FileState(self.own.path)) else None

    async def apply(self, on: Host) -> None:
        """Stop it, and take away its unit and its files."""
        await on.do(
            Command(("systemctl", "stop", self.own.unit), seconds=60),
            Command(("systemctl", "disable", "--quiet", "--no-reload", self.own.unit), seconds=60),
            Command(("rm", "-rf", "--", self.own.folder, self.own.path)),  # the unit last: it is what is looked for
        )


def own_service(
    own: OwnService, family: Family, may_remove: Sequence[str], files: Sequence[Check[Host]]
) -> list[Check[Host]]:
    """Return the steps of such a service in order: its package, `files` of ours that it reads, its unit, then that."""
    return [
        family.installed(f"{own.package} is installed", {own.package: None}, tuple(may_remove)),
        *files,
        FileIs(f"{own.what} is a service", own.path, own.text),
        OwnUnitRead(own),
        OwnEnabled(own),
        OwnRuns(own, family),
        OwnLoaded(own),
    ]
