"""containerd's configuration as it was before our first edit, where that is all that lies between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from shipway.edits.containerd import BEFORE, CONFIG, UnreadableError, Wanted, edit_config
from shipway.edits.toml import NotEditableError
from shipway.errors import Blocked
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.facts.services import UnitState
from shipway.host.session import AT_WORK, Command, Host
from shipway.step import Drift, Impact
from shipway.steps.reset.kubelet import SHIMS, foreign_namespaces
from shipway.steps.runtime.containerd import DEFAULT
from shipway.steps.runtime.pause_image import pause_image
from shipway.steps.system.services import CONTAINERD


@lru_cache(maxsize=64)  # it is looked at again after every change before it, with the same texts
def edits_of(before: str, default: str, named: str | None, wanted: tuple[Wanted, ...]) -> frozenset[str]:
    """Return what our edits of a text come to, after each stage, by the planned pause image or `named`, kubeadm's."""
    found: set[str] = set()
    for image in filter(None, (*(one.sandbox_image for one in wanted), named)):
        text = before
        try:
            for one in wanted:
                text = edit_config(text, default, replace(one, sandbox_image=image))
                found.add(text)
        except (UnreadableError, NotEditableError):
            continue
    return frozenset(found)


@dataclass(frozen=True)
class ContainerdAsBefore:
    """containerd's configuration is the file from before our first edit.

    That file is put back only where our edits of it are what is there now, byte for byte: what somebody wrote into it
    since is theirs. Beside running containers of others neither the file nor containerd is touched.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    restarts: ClassVar[str] = CONTAINERD
    wanted: tuple[Wanted, ...]  # what a bootstrap edits in, stage by stage
    images: Says  # kubeadm's list, whose pause image a bootstrap sets at last
    name: str = "containerd's configuration is as before"

    async def _before(self, on: Host) -> str | None:
        """Return the text from before, "" for no file; None where there is nothing to be put back."""
        (text, kept), (default, images, shims) = await asyncio.gather(
            on.read(FileText(CONFIG), FileText(BEFORE)), on.read(DEFAULT, self.images, SHIMS)
        )
        if text is None or not default.ok or foreign_namespaces(shims.stdout):
            return None
        named = pause_image(images)
        for before in ("", *([kept] if kept else [])):
            if text != before and text in edits_of(before, default.stdout, named, self.wanted):
                return before
        return None

    async def check(self, on: Host) -> Drift | None:
        """Edit the kept file again, and compare."""
        before = await self._before(on)
        if before is None:
            return None
        return Drift(f"{CONFIG} with our edits", f"{BEFORE}, and a restart of containerd" if before else "no such file")

    async def apply(self, on: Host) -> None:
        """Put it back, and restart a containerd that runs; nothing of Kubernetes runs on it any more."""
        before = await self._before(on)
        if before is None:
            raise Blocked(f"{CONFIG} has changed since the look", host=on.name)
        commands = [Command(("mv", "-fT", "--", BEFORE, CONFIG) if before else ("rm", "-f", "--", CONFIG, BEFORE))]
        if (await on.read(UnitState(f"{CONTAINERD}.service"))).active in AT_WORK:
            commands += [
                Command(("systemctl", "daemon-reload")),
                Command(("systemctl", "restart", CONTAINERD), seconds=180),
            ]
        await on.do(*commands)
