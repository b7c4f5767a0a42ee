"""The key of encryption at rest: made where there is none anywhere, else copied or asked for, and never replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from shipway.backup.script import ROOT as BACKUPS
from shipway.backup.sealed import SUFFIX
from shipway.errors import Blocked, Refused, ShipwayError
from shipway.facts.fact import Fact, Words
from shipway.facts.files import FileText, Listing
from shipway.host.session import OPERATIONS, Command, Host
from shipway.known_failures.catalogue import failure
from shipway.kubeadm.hardening import ENCRYPTION
from shipway.kubeadm.manifests import FLAG_IN
from shipway.kubeadm.writes import ETC
from shipway.ownership.evidence import ETCD
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.hardening.scripts import script
from shipway.steps.hardening.stored import SecretsStored, Stored

SCRIPT = f"{OPERATIONS}/make-encryption-key.sh"
# $1 the file. A hard link takes no place that is taken, so no key is ever written over; the key is in no process list.
MAKE = script("make_key")
# $0 our file, $1 /etc/kubernetes, $2 where backups are: what of a key is there, and no key; the newest backup last.
LOOK = FLAG_IN + script("keys")
Choice = Literal["there", "make", "copy"]


@dataclass(frozen=True, slots=True)
class Keys:
    """What of a key is on a host: our file by digest, mode and owner, what the API server is told, others' files."""

    own: str = ""
    mode: str = ""
    whole: bool = False
    flag: str = ""
    others: tuple[str, ...] = ()
    backups: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeysThere(Fact[Keys]):
    """Where keys of encryption at rest are; no key leaves the host."""

    def words(self) -> Words:
        """Ask find(1), grep(1) and sha256sum(1)."""
        return ("timeout", "-k", "5", "60", "bash", "-c", LOOK, ENCRYPTION, ETC, BACKUPS)

    def parse(self, output: Output) -> Keys:
        """Return what is there; raises CommandFailed where the look did not end well: then nothing is known."""
        if not output.ok:
            error = failure("look for keys of encryption at rest", Output(output.status, "", output.stderr))
            error.may_retry = True
            raise error
        said = [line.partition("=") for line in output.stdout.splitlines()]
        one = {name: value for name, _, value in said}
        digest, _, mode = one.get("own", "").partition(" ")
        several = {kind: tuple(value for name, _, value in said if name == kind) for kind in ("other", "backup")}
        return Keys(digest, mode, "whole" in one, one.get("flag", ""), several["other"], several["backup"])


def choose(
    host: str, keys: Keys, peers: Sequence[tuple[str, Keys]], kept: Sequence[str], stored: Stored | None
) -> Choice:
    """Return what is to be done about the key of a host: nothing, make one, or copy another control plane's.

    `kept` are copies in backups on this machine; `stored` what etcd has, None where that cannot be told. Raises
    Refused: SHW-801 for a configuration of the site's own, SHW-805 where a key is somewhere and not where it belongs,
    SHW-806 where two control planes have different ones.
    """
    _foreign(host, keys)
    for name, other in peers:
        _foreign(name, other)
    owners = {other.own: name for name, other in peers if other.own}
    if keys.own:
        owners[keys.own] = host
    if len(owners) > 1:
        fix = (
            f"Find out by which of them Secrets are encrypted (the API server that can read them), and put its "
            f"{ENCRYPTION} onto the others (mode 600, root). Neither is deleted by Shipway."
        )
        names = ", ".join(sorted(owners.values()))
        raise Refused(f"{names} have different keys of encryption at rest", host=host, code="SHW-806", fix=fix)
    if keys.own:
        if not keys.whole:
            message = f"{ENCRYPTION} is no configuration with a key of secretbox, and it is never written over"
            raise Refused(message, host=host, code="SHW-801", fix=_OWN)
        return "there"
    if owners:
        return "copy"
    _lost(host, keys, peers, kept, stored)
    return "make"


_OWN = (
    "Shipway leaves it as it is. Keep it, and take hardening.encryption_at_rest out of the cluster file; or decrypt "
    "all Secrets and remove it by kubernetes.io, `Decrypting Confidential Data`, then run again."
)


def _foreign(host: str, keys: Keys) -> None:
    """Refuse a host on which the site encrypts by a configuration of its own."""
    places = ([keys.flag] if keys.flag not in ("", ENCRYPTION) else []) or list(keys.others)
    if places:
        message = f"Secrets are encrypted at rest by a configuration of the site's own: {places[0]}"
        raise Refused(message, host=host, code="SHW-801", fix=_OWN)


def _lost(host: str, keys: Keys, peers: Sequence[tuple[str, Keys]], kept: Sequence[str], stored: Stored | None) -> None:
    """Refuse to make a key where one was: another one could read nothing of what the first has written."""
    backups = [f"{path} on {name}" for name, one in ((host, keys), *peers) for path in one.backups[-1:]]
    copies = [*backups, *(f"{path} on this machine" for path in kept[-1:])]
    used = [name for name, one in ((host, keys), *peers) if one.flag]
    signs = [f"a backup has one ({copy})" for copy in copies]
    signs += [f"the API server of {name} is told to use it" for name in used]
    if stored is not None and stored.sealed:
        signs.append(f"{stored.sealed} Secrets in etcd are encrypted")
    if not signs:
        return
    source = copies[0].partition(" on ")[0] if copies else "COPY"
    put = f"install -D -m 600 -o root -g root {source} {ENCRYPTION}"
    if source.endswith(SUFFIX):
        put = f"age -d -i KEY {source} | install -D -m 600 -o root -g root /dev/stdin {ENCRYPTION}"
    fix = (
        f"Put the key back onto {host}: `{put}`, then run again. "
        "A new one is never made beside an old one. Where the backup is of another cluster that is gone, move it "
        f"out of {BACKUPS}."
    )
    message = f"there is a key of encryption at rest, and it is not in {ENCRYPTION}: {'; '.join(signs)}"
    raise Refused(message, host=host, code="SHW-805", fix=fix)


@dataclass(frozen=True)
class EncryptionKeyThere:
    """The key of encryption at rest is in its file on this control plane, root's alone, and the same on all of them.

    `peers` are the other control planes, `others` how many there are: a key is only made where all were asked;
    `kept` is the folder of backups on this machine.
    """

    impact: ClassVar[Impact] = Impact.FILES
    peers: tuple[Host, ...] = field(default=(), compare=False)
    kept: Path | None = None
    others: int = 0
    name: str = "the key of encryption at rest is there"

    async def _choice(self, on: Host) -> tuple[Choice, Keys]:
        (keys, etcd), peers = await asyncio.gather(on.read(KeysThere(), Listing(ETCD)), self._peers())
        known = bool(keys.own) or any(one.own for _, one in peers)
        # To count Secrets is to read them all: only where a key would be made, and not by every look at one.
        stored = None if known or not etcd else await on.read(SecretsStored())
        if not known and etcd and stored is None:
            fix = "Bring etcd up first (a bootstrap says what keeps it from that), then run again."
            message = "etcd has data and does not answer, so nobody can tell whether Secrets are encrypted already"
            raise Blocked(message, host=on.name, fix=fix)
        kept = await asyncio.to_thread(self._kept)
        choice = choose(on.name, keys, peers, kept, stored)
        if choice == "make" and len(peers) < self.others:
            message = "not every control plane was asked whether it has the key of encryption at rest"
            raise Blocked(message, host=on.name, fix="Run `shipway harden FILE`: it asks all of them.")
        return choice, keys

    async def _peers(self) -> list[tuple[str, Keys]]:
        """Return what the other control planes have. Raises what keeps from asking one: it may have the key."""
        found = await asyncio.gather(*(peer.read(KeysThere()) for peer in self.peers), return_exceptions=True)
        for peer, keys in zip(self.peers, found, strict=True):
            if isinstance(keys, ShipwayError):
                raise keys.at(host=peer.name)
            if isinstance(keys, BaseException):
                raise keys
        return [(peer.name, keys) for peer, keys in zip(self.peers, found, strict=True) if isinstance(keys, Keys)]

    def _kept(self) -> list[str]:
        """Return the copies of the key in backups on this machine, the newest last."""
        if self.kept is None:
            return []
        return [str(path) for path in sorted(self.kept.expanduser().glob(f"*/files{ENCRYPTION}*"))]

    async def check(self, on: Host) -> Drift | None:
        """Look everywhere. Raises Refused as `choose`, Blocked where etcd cannot be asked."""
        choice, keys = await self._choice(on)
        if choice == "make":
            return Drift("no key on any control plane, in any backup, in etcd", "one, made on this host")
        if choice == "copy":
            return Drift("no key here; another control plane has it", "the same one")
        return None if keys.mode == "600,root:root" else Drift(f"its file is {keys.mode}", "600,root:root")

    async def apply(self, on: Host) -> None:
        """Make it on the host, or bring another control plane's; what is there stays what it is."""
        choice, _ = await self._choice(on)
        if choice == "there":
            await on.do(Command(("chmod", "600", "--", ENCRYPTION)), Command(("chown", "root:root", "--", ENCRYPTION)))
        elif choice == "copy":
            texts = await asyncio.gather(*(peer.read(FileText(ENCRYPTION)) for peer in self.peers))
            text = next(text for text in texts if text)
            await on.write(ENCRYPTION, text.encode(), mode="600")
        else:
            await on.write(SCRIPT, MAKE.encode(), mode="700")
            await on.succeed("encryption-key", ("bash", SCRIPT, ENCRYPTION), seconds=60)


def same_key(host: str, keys: Keys, peers: Sequence[tuple[str, Keys]]) -> None:
    """Let pass where every control plane has the same key. Raises Blocked where one lacks it: it could read nothing."""
    lacking = [name for name, one in ((host, keys), *peers) if not one.own or one.own != keys.own]
    if lacking:
        message = (
            f"{', '.join(lacking)} has not the same key yet: what one API server encrypts, all must be able to read"
        )
        raise Blocked(message, host=host, fix="Run `shipway harden FILE`: it brings the key to all of them first.")
