"""A CA of an earlier rotation that aggregated API servers still know callers by, and no control plane any more.

API servers only ever add theirs to what they publish. What else is there may be a CA of the site's own: only one that
lies in a control plane's folder of a rotation that is over is provably the old one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.record import SYSTEM
from shipway.ownership.evidence import certificates_in
from shipway.step import Drift
from shipway.steps.authority.front_proxy import PUBLISHED, published
from shipway.steps.authority.pair import PLANNED, said, trusted_by, who
from shipway.steps.authority.which import ALL, Which


def kept_of(of: Which) -> Says:
    """Return the fact of the certificates in a host's folders of rotations that are over; their keys stay there."""
    return Says(("sh", "-c", 'cat -- "$0"*/old.crt "$0"*/new.crt 2>/dev/null; exit 0', of.kept))


async def left_behind(on: Kube, planes: Sequence[Host], of: Which) -> tuple[str, ...]:
    """Return the CAs in PEM that are published, lie in a folder of an earlier rotation, and are no control plane's.

    Raises the errors of a read: of a control plane that does not answer it cannot be told what it trusts.
    """
    shown = certificates_in(published(await on.get("v1", "ConfigMap", PUBLISHED, SYSTEM), of)) if of.told else ()
    if len(shown) < 2:  # noqa: PLR2004 - one alone is the one that is in use
        return ()
    answers = await asyncio.gather(*(plane.read(FileText(of.path), kept_of(of)) for plane in planes))
    held = {one for text, _ in answers for one in trusted_by(text or "")}
    kept = {one for _, folders in answers for one in trusted_by(folders.stdout)} - {PLANNED}
    return tuple(one for one in shown if who(one) in kept - held)


@dataclass(frozen=True)
class NoneLeftBehind:
    """No CA of an earlier rotation is published to aggregated API servers; `planes` are all control planes."""

    planes: tuple[Host, ...]
    name: str = "aggregated API servers are told of no CA that was rotated away"

    async def check(self, on: Kube) -> Drift | None:
        """Look at what is published; hosts are asked only where that is more than one CA."""
        found = {one: left for one in ALL.values() if (left := await left_behind(on, self.planes, one))}
        if not found:
            return None
        have = "; ".join(f"{of.told} holds {said(map(who, left))}" for of, left in found.items())
        ways = " and ".join(f"`{of.command} --plan`" for of in found)
        return Drift(f"{SYSTEM}/{PUBLISHED}: {have}", f"taken out: see {ways}")
