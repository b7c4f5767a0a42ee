"""etcd's members as a control plane's own etcd tells them, asked over its HTTP gateway with the health check's pair.

The gateway (etcd documentation, "Why gRPC gateway") is part of every etcd from 3.4 to 3.7, so no program of etcd's is
needed on the host. Numbers of 64 bits are text in its JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from shipway.errors import ApiUnavailable, PostconditionFailed, Refused
from shipway.facts.commands import Says
from shipway.host.command import Command
from shipway.host.session import Host
from shipway.known_failures.catalogue import failure
from shipway.redact import tail
from shipway.step import Drift

PKI = "/etc/kubernetes/pki/etcd"
CLIENT, PEER = 2379, 2380
_CURL = (
    *("curl", "-sS", "--noproxy", "*", "--cacert", f"{PKI}/ca.crt", "--cert", f"{PKI}/healthcheck-client.crt"),
    *("--key", f"{PKI}/healthcheck-client.key"),
)
OWN = f"https://127.0.0.1:{CLIENT}"


def ask_own(what: str, words: str) -> Says:
    """Return the fact of what the host's own etcd answers to a request, in its JSON."""
    return Says((*_CURL, "--max-time", "10", "-d", words, f"{OWN}/v3/{what}"))


MEMBERS = ask_own("cluster/member/list", "{}")
SETTLE_SECONDS, EVERY_SECONDS = 20.0, 2.0  # an etcd that was just restarted answers, and votes, within a few seconds
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,5}")


@dataclass(frozen=True, slots=True)
class Member:
    """One member: one that never started has no name and no client URL; a learner has no vote.

    `version` is what runs there (3.5.26); empty where it does not say so.
    """

    id: str
    name: str
    peers: tuple[str, ...]
    clients: tuple[str, ...] = ()
    learner: bool = False
    healthy: bool = False
    version: str = ""

    @property
    def whole(self) -> bool:
        """Whether it is a healthy voter."""
        return self.healthy and not self.learner

    @property
    def address(self) -> str:
        """The address that the others reach it by; empty where it has none."""
        return next((urlsplit(url).hostname or "" for url in self.peers), "")

    @property
    def said(self) -> str:
        """The member in a few words."""
        what = [*(["learner"] if self.learner else []), *([] if self.name else ["never started"])]
        state = ", ".join([*what, "healthy" if self.healthy else "not healthy"])
        return f"{self.name or self.address} ({state})"


def parse_members(text: str) -> list[Member]:
    """Return the members of an answer to member/list; raises ValueError for another answer."""
    found = json.loads(text)
    if not isinstance(found, dict) or not isinstance(found.get("members"), list):
        raise ValueError("no list of members")  # noqa: TRY004 - an answer that cannot be read, whatever it is
    return [
        Member(
            id=str(one["ID"]),
            name=str(one.get("name", "")),
            peers=tuple(map(str, one.get("peerURLs", ()))),
            clients=tuple(map(str, one.get("clientURLs", ()))),
            learner=one.get("isLearner") is True,
        )
        for one in found["members"]
    ]


async def members_of(on: Host) -> list[Member]:
    """Return the members, each with its version and whether it says itself that it is healthy, asked from its host.

    Raises ApiUnavailable where the host's own etcd does not answer.
    """
    answer = await on.read(MEMBERS)
    try:
        members = parse_members(answer.stdout)
    except (ValueError, KeyError, TypeError, RecursionError):
        message = f"etcd does not tell its members: {tail(answer.stderr or answer.stdout, 2) or 'no answer'}"
        raise ApiUnavailable(message, host=on.name) from None
    return list(await asyncio.gather(*(_as_it_says(on, one) for one in members)))


async def settled_members(on: Host, *, besides: str | None = None, seconds: float | None = None) -> list[Member]:
    """Return the members as soon as each is a healthy voter; after so many seconds (`SETTLE_SECONDS`), as they are.

    Nobody waits for the member at the address `besides`. Raises ApiUnavailable where no etcd answers for so long.
    """
    ends = time.monotonic() + (SETTLE_SECONDS if seconds is None else seconds)
    while True:
        on.forget()
        try:
            members = await members_of(on)
        except ApiUnavailable:
            if time.monotonic() > ends:
                raise
        else:
            if time.monotonic() > ends or all(one.whole or one.address == besides for one in members):
                return members
        await asyncio.sleep(EVERY_SECONDS)


def health(url: str) -> Says:
    """Return the fact of what a member says of itself: `true` only where it has a leader, and a quorum votes."""
    return Says((*_CURL, "--max-time", "5", f"{url}/health"), seconds=10)


def version(url: str) -> Says:
    """Return the fact of which etcd a member runs."""
    return Says((*_CURL, "--max-time", "5", f"{url}/version"), seconds=10)


async def _as_it_says(on: Host, member: Member) -> Member:
    if not member.clients:
        return member
    url = member.clients[0]
    well, runs = await on.read_all([health(url), version(url)])
    found = _VERSION.match(str(_object(runs.stdout).get("etcdserver", "")))
    return replace(member, healthy=says_healthy(well.stdout), version=found[0] if found else "")


def says_healthy(text: str) -> bool:
    """Say whether a member's answer to `health` is that it is."""
    return _object(text).get("health") in ("true", True)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def find_member(members: Sequence[Member], address: str) -> Member | None:
    """Return the member at an address of the peers."""
    return next((one for one in members if one.address == address), None)


def member_of(members: Sequence[Member], host: str, address: str) -> Member | None:
    """Return the member of a host, by its address or by its name, which kubeadm makes the node's; None by neither.

    The address that a host is reached at may be another than its member's. Raises Refused SHW-707 where the address
    leads to another host's member: nobody knows then which one is meant.
    """
    there, named = find_member(members, address), next((one for one in members if one.name == host), None)
    if there is None or there.name in ("", host):
        return there or named
    message = f"at {address} is the member of etcd {there.said}, and not {host}'s"
    has = f": its member is at {named.address}" if named else ""
    fix = f"Correct the address of {host} (in the file, or --address){has}."
    raise Refused(message, host=host, code="SHW-707", fix=fix)


async def remove_member(on: Host, member: Member) -> None:
    """Take a member out, by its id; whoever calls this has asked `shipway.etcd.quorum`. Raises what etcd says."""
    body = json.dumps({"ID": member.id})
    (answer,) = await on.do(
        Command((*_CURL, "--max-time", "30", "-d", body, f"{OWN}/v3/cluster/member/remove"), seconds=45)
    )
    if '"members"' not in answer.stdout:
        raise failure("etcd member remove", answer, host=on.name)
    if any(one.id == member.id for one in parse_members(answer.stdout)):
        raise PostconditionFailed(f"etcd still lists {member.said}", host=on.name)


@dataclass(frozen=True)
class EtcdMembersDeclared:
    """etcd's members are the control planes of the cluster file, each a healthy voter; none is added or taken out here.

    `planes` are the addresses of the control planes by name.
    """

    planes: Mapping[str, str] = field(hash=False)
    lead: Host = field(hash=False)
    name: str = "every control plane is a healthy member of etcd"

    async def check(self, on: object) -> Drift | None:
        """Ask the etcd of the control plane that leads; one that was just restarted is given a moment."""
        del on
        members = await settled_members(self.lead)
        there = {one.address for one in members}
        wrong = [one.said for one in members if not one.whole]
        wrong += [
            f"{one.said} is no control plane of the file" for one in members if one.address not in self.planes.values()
        ]
        wrong += [f"{name} is no member" for name, address in self.planes.items() if address not in there]
        return (
            Drift("; ".join(wrong), f"{len(self.planes)} healthy members: {', '.join(self.planes)}") if wrong else None
        )
