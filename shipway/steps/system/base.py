"""Steps about the base system: its name, and cloud-init being done with it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import CommandFailed, Refused
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.host.session import Command, Host
from shipway.ownership.evidence import evidence
from shipway.step import Drift, Impact

CLOUD_INIT = Says(("cloud-init", "status"))
SYSTEM = Says(("systemctl", "is-system-running"))


@dataclass(frozen=True)
class AnswersAgain:
    """A host that was lost answers, and is not on its way down."""

    name: str = "the host answers again"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd; what keeps from asking is raised by the session."""
        state = (await on.read(SYSTEM)).stdout.strip()
        return Drift("it shuts down", "up") if state == "stopping" else None


@dataclass(frozen=True)
class HostnameIs:
    """The host name is the declared one, now and after a reboot."""

    traps: ClassVar[tuple[int, ...]] = (12,)
    impact: ClassVar[Impact] = Impact.FILES
    hostname: str

    @property
    def name(self) -> str:
        """The fact."""
        return f"the host name is {self.hostname}"

    async def check(self, on: Host) -> Drift | None:
        """Compare the live and the lasting name."""
        live, lasting = await on.read(FileText("/proc/sys/kernel/hostname"), FileText("/etc/hostname"))
        have = {(live or "").strip(), (lasting or "").strip()}
        if have == {self.hostname}:
            return None
        await self._may_change(on)
        return Drift(" and ".join(sorted(have)) or "none", self.hostname)

    async def _may_change(self, on: Host) -> None:
        """Let a joined host only have its node's own name back. Raises Refused (SHW-321) for any other.

        A kubelet whose host has another name than its certificate is refused by the API at its next start (SHW-486).
        """
        seen = await evidence(on)
        if not seen.joined or seen.node == self.hostname:
            return
        node = seen.node or "a node whose name cannot be determined"
        message = (
            f"the host is {node} of a cluster, and the file calls it {self.hostname}: a joined host keeps its name"
        )
        fix = (
            f"Write `name: {seen.node or 'NODE'}` at this host. To give it another name, replace the node: "
            f"`shipway remove FILE {seen.node or 'NODE'}`, then list it anew."
        )
        raise Refused(message, host=on.name, code="SHW-321", fix=fix)

    async def apply(self, on: Host) -> None:
        """Set both, unless the host has joined under another name meanwhile."""
        on.forget()
        await self._may_change(on)
        await on.do(Command(("hostnamectl", "set-hostname", "--", self.hostname)))


@dataclass(frozen=True)
class CloudInitDone:
    """cloud-init has finished, so that it neither holds the package manager's lock nor rewrites what is set after."""

    traps: ClassVar[tuple[int, ...]] = (1,)
    impact: ClassVar[Impact] = Impact.NOTHING
    name: str = "cloud-init is done"

    async def check(self, on: Host) -> Drift | None:
        """Hosts without cloud-init are done."""
        said = await on.read(CLOUD_INIT)
        return Drift("still running", "done") if "running" in said.stdout else None

    async def apply(self, on: Host) -> None:
        """Wait for it, at most 15 minutes.

        Its exit status is its judgement of itself, not of the wait (from 23.4 on 2 for what it recovered from, which is
        done all the same): whether it is done is what the look after this asks.
        """
        with contextlib.suppress(CommandFailed):
            await on.do(Command(("cloud-init", "status", "--wait"), seconds=900))
