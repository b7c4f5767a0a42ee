"""A restore with several control planes, or a bare host: all are stopped, one gets the data, the others join anew.

Each is a command of the script on the host, with the restore's id: so a host tells which restore it has taken part in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.backup.script import PLACE, ROOT
from shipway.backup.state import BackupsThere
from shipway.cluster.model import node_ip
from shipway.cluster.parts import HostSpec
from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.foreign.addresses import in_url
from shipway.host.session import Host
from shipway.kube.nodes import few
from shipway.kubeadm.certificates import KUBELET_PORT
from shipway.ownership.evidence import KUBELET_CONF
from shipway.step import Drift, Impact
from shipway.steps.backup.restored import OPERATION, RESTORE_SECONDS
from shipway.steps.kubernetes.etcd_members import CLIENT, OWN, PEER, health, says_healthy
from shipway.steps.kubernetes.skew import own_api
from shipway.steps.system.sources import DIAL

STOP, ASIDE, START = "restore-stop", "restore-aside", "restore-start"
OPERATIONS = (OPERATION, STOP, ASIDE, START)
STOP_SECONDS = 600
DIAL_SECONDS = 5


@dataclass(frozen=True)
class QuorumLost:
    """No member of etcd has a quorum: then nothing is restored that the cluster itself still knows."""

    planes: tuple[Host, ...] = field(compare=False)
    name: str = "etcd has lost its quorum for good"

    async def check(self, on: Host) -> Drift | None:
        """Ask each member itself. Raises Refused SHW-752 where one has a leader, and a majority that votes."""
        found = await asyncio.gather(*(plane.read(health(OWN)) for plane in self.planes))
        if well := [plane.name for plane, said in zip(self.planes, found, strict=True) if says_healthy(said.stdout)]:
            message = (
                f"etcd still has its quorum, by what its member on {', '.join(well)} says: nothing is to be restored"
            )
            fix = (
                "Replace what is lost instead: `shipway replace FILE HOST --dead` has a bare machine take its place, "
                "`shipway remove FILE HOST --dead` takes one out that stays away."
            )
            raise Refused(message, host=on.name, code="SHW-752", fix=fix)
        return None


@dataclass(frozen=True)
class GoneForGood:
    """What a person called gone answers none of the hosts that were seen: no kubelet, no etcd, no API server.

    That this machine has no way there tells of this machine's network alone. `gone` are addresses by name. `api` is
    where the cluster's API would be, by the cluster file; empty where a restored one may answer there by now.
    """

    gone: Mapping[str, str] = field(hash=False)
    witnesses: tuple[Host, ...] = field(compare=False)
    port: int
    api: str = ""
    name: str = "what was called gone answers no host that was seen"

    async def check(self, on: Host) -> Drift | None:
        """Ask from each witness. Raises Refused SHW-754 for an answer, and what keeps from asking."""
        del on
        found = [one for some in await asyncio.gather(*map(self._hears, self.witnesses)) for one in some]
        if found:
            message = f"{', '.join(self.gone)} called gone, and {few(found)}: this machine alone may have no way there"
            fix = f"Mend SSH to {next(iter(self.gone))} and leave `--gone` away, or switch that machine off for good."
            raise Refused(message, host=next(iter(self.gone)), code="SHW-754", fix=fix)
        return None

    async def _hears(self, witness: Host) -> list[str]:
        witness.forget()
        ports = (self.port, CLIENT, PEER, KUBELET_PORT)
        places = [(name, address, port) for name, address in self.gone.items() for port in ports]
        dialled = [Says(("bash", "-c", DIAL, address, str(port)), DIAL_SECONDS) for _, address, port in places]
        conf, answers = await asyncio.gather(witness.read(FileText(KUBELET_CONF)), witness.read_all(dialled))
        heard = [
            f"{witness.name} reaches port {at[2]} of {at[0]}" for at, one in zip(places, answers, strict=True) if one.ok
        ]
        if not self.api:
            return heard
        own = own_api(conf or "", "readyz") or (f"https://{self.api}", api_answer(self.api))
        ready = (await witness.read(own[1])).stdout.strip() == "ok"
        return [*heard, *([f"an API server that is ready answers {witness.name} at {own[0]}"] if ready else [])]


def api_answer(place: str) -> Says:
    """Return the fact of whether an API server is ready, etcd's quorum with it, for a host without credentials."""
    return Says(("curl", "-sk", "--noproxy", "*", "--max-time", "8", f"https://{place}/readyz"))


@dataclass(frozen=True)
class ControlPlaneStopped:
    """Nothing of the control plane runs on the host, its data are as they were, and the restore is noted there."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    script: str = field(repr=False)
    backup: str
    restore: str
    lead: str
    planes: tuple[Host, ...] = field(default=(), compare=False)  # all that are to be stopped
    name: str = "the control plane is stopped, for the data of another time come"

    async def check(self, on: Host) -> Drift | None:
        """Look whether this very restore has stopped it, or is past that."""
        state = await on.read(BackupsThere(self.script))
        past = self.restore in (state.aside, state.restored_by)
        held = state.id == self.restore and (state.changed or not state.manifest)
        return None if past or held else Drift("runs", "stopped")

    async def apply(self, on: Host) -> None:
        """Let the host stop it; one that does not stop is put back as it was.

        Raises Refused SHW-752 where a quorum has come back since the choice.
        """
        for plane in self.planes:
            plane.forget()
        await QuorumLost(self.planes).check(on)
        words = ("bash", PLACE, "stop", f"{ROOT}/{self.backup}", self.restore, self.lead)
        await on.succeed(STOP, words, seconds=STOP_SECONDS)


@dataclass(frozen=True)
class ControlPlaneStarted:
    """What a restore has stopped on the host, and not changed, runs again; asked of the host with the data first."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    script: str = field(repr=False)
    restore: str
    name: str = "what the restore stopped is as it was"

    async def check(self, on: Host) -> Drift | None:
        """Look whether a restore is under way on it. Raises Refused SHW-737 where it has the restored data already.

        Beside those no other may be started with the data of before: there would be two clusters.
        """
        state = await on.read(BackupsThere(self.script))
        if state.restored_by == self.restore:
            message = "it has the restored data, so the control planes that were stopped for it stay stopped"
            fix = "See what failed, then run the same restore again: it goes on from there."
            raise Refused(message, host=on.name, code="SHW-737", fix=fix)
        return Drift(f"stopped for the restore of {state.restoring}", "as it was") if state.restoring else None

    async def apply(self, on: Host) -> None:
        """Put the manifests back; a host whose data were changed refuses."""
        await on.succeed(START, ("bash", PLACE, "start"), seconds=STOP_SECONDS)


@dataclass(frozen=True)
class DataAside:
    """The host's data of before the restore lie beside etcd's folder, and the host may be joined anew."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    script: str = field(repr=False)
    backup: str
    restore: str
    name: str = "its data of before the restore are put aside, so that it joins anew"

    async def check(self, on: Host) -> Drift | None:
        """Look whether that was done for this restore."""
        state = await on.read(BackupsThere(self.script))
        return None if state.aside == self.restore else Drift("the data of before", "put aside")

    async def apply(self, on: Host) -> None:
        """Rename them, and leave the mark by which the join of a control plane takes the host."""
        await on.succeed(
            ASIDE, ("bash", PLACE, "aside", f"{ROOT}/{self.backup}", self.restore), seconds=RESTORE_SECONDS
        )


@dataclass(frozen=True)
class BackupAdopted:
    """A host that held no control plane has the backup's data and shared keys: `kubeadm init` goes on from there."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    script: str = field(repr=False)
    backup: str
    restore: str
    host: HostSpec = field(hash=False)
    name: str = "etcd's data and the cluster's keys are those of the backup"

    async def check(self, on: Host) -> Drift | None:
        """Look whether the host has them by this restore."""
        state = await on.read(BackupsThere(self.script))
        return None if state.restored_by == self.restore else Drift("a bare host", self.backup)

    async def apply(self, on: Host) -> None:
        """Let the host put them in place; a file of its own is never written over."""
        peer = f"https://{in_url(node_ip(self.host))}:{PEER}"
        words = ("bash", PLACE, "adopt", f"{ROOT}/{self.backup}", self.restore, on.name, on.name, peer)
        await on.succeed(OPERATION, words, seconds=RESTORE_SECONDS)
