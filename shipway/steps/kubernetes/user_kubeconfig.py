"""The login user's kubeconfig on the control plane: made where there is none, merged into one with other clusters."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from typing import ClassVar

from shipway.edits.kubeconfig import merge_kubeconfigs, same
from shipway.errors import Blocked, Permanent
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.foreign.numbers import whole
from shipway.host.session import Command, Host
from shipway.ownership.evidence import ADMIN
from shipway.step import Drift, Impact

_PASSWD_FIELDS = 7  # passwd(5)


@dataclass(frozen=True)
class UserHasKubeconfig:
    """The login user on the control plane has the admin kubeconfig, private and its own."""

    impact: ClassVar[Impact] = Impact.FILES
    user: str

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.user} has the admin kubeconfig"

    @property
    def _usual(self) -> str:
        return "/root" if self.user == "root" else f"/home/{self.user}"

    async def _place(self, on: Host) -> tuple[str, str, str]:
        """Return the file's path in the user's home, the user's name and its own group's number, as the host has them.

        The name may be another one than that of the login: sssd answers jane.doe with jane.doe@example.com, and so does
        stat(1), which names a file's owner.
        """
        known = await on.read(Says(("getent", "passwd", self.user)))
        fields = known.stdout.strip().split(":")
        if len(fields) < _PASSWD_FIELDS or not fields[5].startswith("/") or whole(fields[3]) is None:
            fix = f"See `getent passwd {shlex.quote(self.user)}` on it: `ssh.user` needs a home and a group there."
            message = f"the host knows no user {self.user} with a home"
            raise Permanent(message, host=on.name, code="SHW-316", fix=fix)
        return f"{fields[5]}/.kube/config", fields[0], fields[3]

    async def check(self, on: Host) -> Drift | None:
        """Compare digests, mode and owner; a content leaves the host only where a file has other clusters too.

        An unusual home costs a second look, and so does such a file. One that is a link or no file is left alone.
        """
        (admin, _), (path, name, _) = await asyncio.gather(
            on.read(FileState(ADMIN), FileState(f"{self._usual}/.kube/config")), self._place(on)
        )
        if admin is None:
            raise Blocked("the control plane is not initialised yet", host=on.name)
        own = await on.read(FileState(path))
        private = own is not None and own.mode == "600" and own.owner.startswith(f"{name}:")
        if own and own.sha256 == admin.sha256 and private:
            return None
        text = await on.read(FileText(path))
        if text is None:
            return Drift("none", f"{path}, mode 600")
        if own is None:
            return None  # a link, say: what is behind it is the user's
        wanted = await self._wanted(on, text)
        if wanted is None:
            return Drift("another one of this cluster alone", f"{path}, mode 600")
        if same(wanted, text) and own.mode == "600":
            return None
        return Drift("without this cluster", f"{path} with this cluster's entries; what others put there stays")

    async def _wanted(self, on: Host, text: str) -> str | None:
        """Return the user's file with our entries, None where it may be replaced: it is of this cluster alone."""
        admin = await on.read(FileText(ADMIN))
        try:
            return merge_kubeconfigs(text, admin or "")
        except ValueError:
            return admin  # what is there is no kubeconfig: kubectl cannot read it, and a copy of it is kept

    async def apply(self, on: Host) -> None:
        """Copy it on the host where there is none, or none but ours; else merge, and keep a copy of what was there."""
        path, name, group = await self._place(on)
        folder = path.rsplit("/", 1)[0]
        text = await on.read(FileText(path))
        wanted = await self._wanted(on, text) if text is not None else None
        made = Command(("install", "-d", "-m", "700", "-o", name, "-g", group, "--", folder))
        if text is None or wanted is None:
            await on.do(made, Command(("install", "-m", "600", "-o", name, "-g", group, "--", ADMIN, path)))
            return
        copy = f"{path}.before-shipway"
        if await on.read(FileState(copy)) is None:  # the first one is the user's own
            await on.do(Command(("cp", "-p", "--", path, copy)))
        own = await on.read(FileState(path))
        await on.write(path, wanted.encode(), mode="600", owner=own.owner if own else f"{name}:{group}")
