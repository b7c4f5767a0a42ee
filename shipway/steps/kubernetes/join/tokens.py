"""Tokens that an interrupted run left behind are deleted before the next joins begin."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import ClassVar

from shipway.kube.client import Kube
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.join.worker import PURPOSE

SPACE = "kube-system"
TOKEN_TYPE = "bootstrap.kubernetes.io/token"  # noqa: S105 - the type of a Secret (Kubernetes: bootstrap tokens)


@dataclass(frozen=True)
class NoTokenLeft:
    """No token of an earlier join is left; sound only while nobody joins: before this run's joins, under the lease."""

    traps: ClassVar[tuple[int, ...]] = (37,)
    impact: ClassVar[Impact] = Impact.FILES
    name: str = "no token of an earlier join is left"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for the tokens; those that a person made are theirs."""
        left = await _find_left(on)
        return Drift(f"{len(left)} left by a run that broke off", "none") if left else None

    async def apply(self, on: Kube) -> None:
        """Delete them."""
        for name in await _find_left(on):
            await on.delete("v1", "Secret", name, SPACE)


async def _find_left(on: Kube) -> list[str]:
    """Return the names of the Secrets that hold tokens of ours; what they hold stays here."""
    secrets = await on.list_("v1", "Secret", SPACE, fields=f"type={TOKEN_TYPE}")
    described = {one["metadata"]["name"]: (one.get("data") or {}).get("description", "") for one in secrets}
    return [name for name, text in described.items() if _plain(text).startswith(PURPOSE)]


def _plain(text: str) -> str:
    """Return base64 as text; nothing for anything else."""
    try:
        return base64.b64decode(text).decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""
