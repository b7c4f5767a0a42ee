"""etcd's CA: its members know each other by it, and the API servers that read and write what they keep."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Collection
from dataclasses import dataclass

from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.facts.files import Listing
from shipway.host.session import Host
from shipway.kube.nodes import few
from shipway.kubeadm.certificates import APISERVER, ETCD
from shipway.kubeadm.writes import MANIFESTS
from shipway.redact import tail
from shipway.step import Drift
from shipway.steps.authority.own_server import OwnServer
from shipway.steps.authority.signing import flags_of
from shipway.steps.authority.which import ETCD_CA
from shipway.steps.kubernetes.etcd_members import ask_own, members_of, settled_members

PREFIX = "/registry"  # where an API server keeps its objects unless --etcd-prefix says otherwise


@dataclass(frozen=True)
class EtcdStacked:
    """etcd runs on this control plane, as kubeadm sets it up, and not elsewhere."""

    name: str = "etcd runs on the control planes"

    async def check(self, on: Host) -> Drift | None:
        """Look for its manifest, and whom the API server asks. Raises Refused SHW-858 for an etcd that is elsewhere."""
        (_, api), names = await asyncio.gather(flags_of(on, APISERVER), on.read(Listing(MANIFESTS)))
        if f"{ETCD}.yaml" in names or api.get("etcd-cafile") == ETCD_CA.path:  # its manifest may be moved away just now
            return None
        message = f"etcd is not on the control planes: the API server asks {api.get('etcd-servers', 'nobody')}"
        fix = "Whoever runs that etcd replaces its CA; Shipway has neither its key nor its hosts."
        raise Refused(message, host=on.name, code="SHW-858", fix=fix)


@dataclass(frozen=True)
class MembersKnown:
    """Every member of etcd is on a control plane whose files are replaced (names, addresses); others were cut off."""

    names: Collection[str]
    addresses: Collection[str]
    name: str = "every member of etcd is a control plane of the file"

    async def check(self, on: Host) -> Drift | None:
        """Ask etcd on this host. Raises Refused SHW-858 naming each that is not, ApiUnavailable for no answer."""
        members = await settled_members(on)
        strange = [one.said for one in members if one.name not in self.names and one.address not in self.addresses]
        if strange:
            message = f"{few(strange)}: a member of etcd that is no control plane of this file which has joined"
            fix = (
                "Write its host into the file and bring it up, or take it out (docs/control-planes.md), then run again."
            )
            raise Refused(f"{message}; it would trust the old CA alone", host=on.name, code="SHW-858", fix=fix)
        return None


@dataclass(frozen=True)
class MembersHealthy:
    """Every member of etcd that votes says that it is healthy, asked from this host by the pair that lies here."""

    name: str = "every member of etcd is healthy"

    async def check(self, on: Host) -> Drift | None:
        """Ask each; raises ApiUnavailable where the host's own etcd does not answer."""
        ill = [one.said for one in await members_of(on) if not one.learner and not one.healthy]
        return Drift(few(ill), "healthy") if ill else None


@dataclass(frozen=True)
class KeysRead:
    """The API server of a control plane reads in etcd what the member there has: as many namespaces."""

    server: OwnServer
    name: str = "the API server here reads the keys that etcd has"

    async def check(self, on: Host) -> Drift | None:
        """Count them by both."""
        _, flags = await flags_of(on, APISERVER)
        prefix = f"/{flags.get('etcd-prefix', PREFIX).strip('/')}/namespaces/"
        kept, told = await on.read(count_of(prefix), self.server.get("namespaces", "-o", "name"))
        have = len(told.stdout.split()) if told.ok else None
        want = _count(kept.stdout)
        if have and have == want:
            return None
        why = f"{have} namespaces" if have is not None else tail(told.stderr, 1)
        return Drift(why, f"{want} namespaces" if want is not None else f"a count by etcd: {tail(kept.stderr, 1)}")


def count_of(prefix: str) -> Says:
    """Return the fact of how many keys with a prefix the host's own etcd has (etcd documentation, "API", Range)."""
    ends = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    key, end = (base64.b64encode(one.encode()).decode() for one in (prefix, ends))
    return ask_own("kv/range", json.dumps({"key": key, "range_end": end, "count_only": True}))


def _count(text: str) -> int | None:
    try:
        return int(json.loads(text).get("count", 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
