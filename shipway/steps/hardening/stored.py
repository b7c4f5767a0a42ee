"""How Secrets lie in etcd: encrypted by our key, by another, or in plain; counted on the host, and none leaves it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.errors import Blocked, Permanent
from shipway.facts.fact import Fact, Words
from shipway.facts.static_pods import StaticPodFlags
from shipway.foreign.addresses import in_url
from shipway.foreign.numbers import whole
from shipway.host.session import OPERATIONS, Host
from shipway.kubeadm.hardening import APISERVER, ENCRYPTION, ENCRYPTION_FLAG
from shipway.kubeadm.manifests import FLAG_IN
from shipway.kubeadm.writes import ETC
from shipway.redact import tail
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.hardening.scripts import script

KEY_NAME = "shipway1"  # with it the prefix has 30 bytes, which are 40 letters of Base64 and no part of another
PREFIX = f"k8s:enc:secretbox:v1:{KEY_NAME}:"  # kubernetes.io, "Verify that newly written data is encrypted"
OWN, ENCRYPTED = (base64.b64encode(text.encode()).decode() for text in (PREFIX, "k8s:en"))
# How many values begin as ours ($1), and how many as any that is encrypted ($2): by etcd's own client in its container,
# which only reads. No letter of a value leaves the host.
LOOK = FLAG_IN + script("stored")


@dataclass(frozen=True, slots=True)
class Stored:
    """How many Secrets lie in etcd encrypted by our key, encrypted in another way, and in plain."""

    own: int = 0
    other: int = 0
    plain: int = 0

    @property
    def sealed(self) -> int:
        """How many are encrypted in any way."""
        return self.own + self.other


@dataclass(frozen=True)
class SecretsStored(Fact[Stored | None]):
    """How Secrets lie in etcd; None where etcd does not run here, or does not answer."""

    def words(self) -> Words:
        """Count by the first letters."""
        return ("timeout", "-k", "5", "80", "bash", "-c", LOOK, ETC, OWN, ENCRYPTED)

    def parse(self, output: Output) -> Stored | None:
        """Return the counts."""
        if not output.ok:
            return None
        counts = {"own": 0, "other": 0, "plain": 0}
        for line in output.stdout.splitlines():
            kind, _, number = line.partition(" ")
            if kind in counts:
                counts[kind] = whole(number) or 0
        return Stored(**counts)


SCRIPT = f"{OPERATIONS}/seal-secrets.sh"
SECONDS = 3600
# $1 the API server of this host. Every Secret is written again as it is: what is stored is encrypted then. They go from
# one kubectl to the other and nowhere else; what was changed meanwhile is tried again.
SEAL = script("seal")


@dataclass(frozen=True)
class SecretsSealed:
    """Every Secret in etcd begins with the prefix of our key: looked at in etcd itself, not through the API.

    `others` are the other control planes: each API server must be able to read what this one encrypts.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    address: str
    api_port: int
    others: Sequence[Host] = field(default=(), compare=False)
    name: str = "every Secret in etcd is encrypted"

    async def check(self, on: Host) -> Drift | None:
        """Count them. Raises Blocked where etcd cannot be asked here."""
        stored = await on.read(SecretsStored())
        if stored is None:
            fix = f"See `ctr -n k8s.io tasks ls` on {on.name}; of an etcd outside the cluster its owner can tell."
            raise Blocked("etcd does not run here or does not answer, so its Secrets cannot be looked at", fix=fix)
        if not stored.plain and not stored.other:
            return None
        have = f"{stored.plain} in plain, {stored.other} encrypted in another way, {stored.own} by the key"
        return Drift(have, "all by the key")

    async def hold(self, on: Host) -> str:
        """Return why they are not written again now: an API server that does not use the key would not read them."""
        lacking = [one.name for one in (on, *self.others) if not await _uses_key(one)]
        return f"the API server of {', '.join(lacking)} does not use the key yet" if lacking else ""

    async def apply(self, on: Host) -> None:
        """Write every Secret again as it is, by a unit of the host. Raises Permanent SHW-807 where some cannot be."""
        await on.write(SCRIPT, SEAL.encode(), mode="700")
        words = ("bash", SCRIPT, f"https://{in_url(self.address)}:{self.api_port}")
        output = await on.operate("seal-secrets", words, seconds=SECONDS)
        if not output.ok:
            fix = (
                "Mend what the API says of them, or the webhook that refuses them, then run again: the others are done."
            )
            message = f"some Secrets could not be written again: {tail(output.stdout, 4) or 'the API did not answer'}"
            raise Permanent(message, host=on.name, code="SHW-807", fix=fix)


async def _uses_key(on: Host) -> bool:
    flags = await on.read(StaticPodFlags(APISERVER))
    return flags is not None and flags.get(ENCRYPTION_FLAG) == ENCRYPTION
