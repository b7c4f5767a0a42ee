"""Tokens of ServiceAccounts that are kept: in Secrets, which nobody signs anew by himself, and in pods.

The controller manager fills a Secret whose token is empty, by the key that it was started with, and touches no other
(pkg/controller/serviceaccount/tokens_controller.go, secretUpdateNeeded, the same in 1.20 and 1.36). API servers then
turn away every copy of the token that was there before (pkg/serviceaccount/legacy.go, "does not match server's copy").
A kubelet asks anew for a pod's token at 80 % of its life, or after a day (pkg/kubelet/token/token_manager.go).
"""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from shipway.converge import wait_until
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import few
from shipway.kube.record import SYSTEM
from shipway.kube.status import made_at
from shipway.step import Drift, Impact
from shipway.steps.authority.objects import TOKEN_TYPE, TOLD
from shipway.steps.authority.pair import Pair
from shipway.steps.authority.tokens import kid_of, short, signer_of
from shipway.steps.kubernetes.nodes import is_ending

TOKEN = "token"  # noqa: S105 - the key of a Secret
PROJECTED = 3600  # seconds that a projected token lives where nothing is said (kubernetes.io, `Projected Volumes`)
AGED, DAY = 0.8, 86400.0  # when a kubelet asks anew
SPARE = timedelta(minutes=10)  # a kubelet looks at a pod every 60 to 90 s; clocks are 5 min apart at most


@dataclass(frozen=True, slots=True)
class Kept:
    """A Secret with a token: `signer` is the key id that this names, `ours` whether the controller manager made it."""

    namespace: str
    name: str
    signer: str
    empty: bool
    ours: bool
    version: str

    @property
    def said(self) -> str:
        """Its place."""
        return f"{self.namespace}/{self.name}"


async def kept_tokens(on: Kube) -> list[Kept]:
    """Return the Secrets with a token; of that only who signed it is kept."""
    secrets, accounts = await asyncio.gather(
        on.list_("v1", "Secret", fields=f"type={TOKEN_TYPE}"), on.list_("v1", "ServiceAccount")
    )
    named = {
        (one["metadata"]["namespace"], secret.get("name")) for one in accounts for secret in one.get("secrets") or ()
    }
    return [_kept(one, named) for one in secrets if not is_ending(one)]


def _kept(secret: Object, named: set[tuple[str, Any]]) -> Kept:
    meta = secret["metadata"]
    token = _text((secret.get("data") or {}).get(TOKEN, ""))
    place = (str(meta["namespace"]), str(meta["name"]))
    return Kept(*place, signer_of(token), not token, place in named, str(meta.get("resourceVersion", "")))


def _text(encoded: str) -> str:
    try:
        return b64decode(encoded, validate=True).decode()
    except (ValueError, binascii.Error):
        return encoded


def signed_by_leaving(kept: Kept, pair: Pair) -> bool:
    """Say whether a token ends with the key that goes; one that names no key was signed before there were two."""
    return not kept.empty and (kept.signer == kid_of(pair.leaving) or (not kept.signer and not pair.back))


@dataclass(frozen=True)
class OwnTokensSigned:
    """Tokens that the controller manager keeps in Secrets for the cluster's own ServiceAccounts are signed anew.

    `spaces` are the namespaces of the cluster's own parts. Only a Secret that its ServiceAccount names is one of them:
    one that a person made is in use somewhere else, and its copies would be turned away. The wait is for so many
    seconds.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    pair: Pair
    spaces: frozenset[str]
    seconds: float
    name: str = "the cluster's own tokens in Secrets are signed by the key that is wanted"

    async def _left(self, on: Kube) -> list[Kept]:
        own = [one for one in await kept_tokens(on) if one.ours and one.namespace in self.spaces]
        return [one for one in own if one.empty or signed_by_leaving(one, self.pair)]

    async def check(self, on: Kube) -> Drift | None:
        """List those that are not, or that are empty still."""
        left = await self._left(on)
        want = f"signed by {short(kid_of(self.pair.wanted))}"
        return Drift(f"by another: {few([one.said for one in left])}", want) if left else None

    async def apply(self, on: Kube) -> None:
        """Empty each that nobody changed meanwhile, and wait until all are filled. Raises DeadlineExceeded."""
        for one in await self._left(on):
            if not one.empty:
                change = {"metadata": {"resourceVersion": one.version}, "data": {TOKEN: None}}
                await on.patch("v1", "Secret", one.name, change, one.namespace)
        await wait_until(self, on, seconds=self.seconds)


async def tokens_of_others(on: Kube, pair: Pair, spaces: frozenset[str]) -> list[str]:
    """Return the Secrets, but the cluster's own (`spaces`, as above), whose token ends with the key that goes.

    Whoever uses one has it signed anew.
    """
    others = [one for one in await kept_tokens(on) if not (one.ours and one.namespace in spaces)]
    return sorted(one.said for one in others if signed_by_leaving(one, pair))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Pods that were made before all tokens were signed anew, and when the last of their kubelets has asked again."""

    pods: tuple[str, ...]
    until: datetime

    @property
    def over(self) -> bool:
        """Whether that time has come."""
        return datetime.now(UTC) >= self.until


async def find_waiting(on: Kube) -> Waiting | None:
    """Return the pods with a projected token that are older than the mark of all being told; None where none are.

    Both times are the API server's own; without a mark nothing was signed anew yet, and all pods count from now.
    """
    pods, told = await asyncio.gather(on.list_("v1", "Pod"), on.get("v1", "ConfigMap", TOLD, SYSTEM))
    since = made_at(told["metadata"]) if told else datetime.now(UTC)
    old = [
        (f"{one['metadata'].get('namespace', '')}/{one['metadata']['name']}", max(lives))
        for one in pods
        if made_at(one["metadata"]) <= since
        and not is_ending(one)
        and (one.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        and (lives := _lives(one))
    ]
    if not old:
        return None
    longest = max(life for _, life in old)
    return Waiting(tuple(sorted(name for name, _ in old)), since + timedelta(seconds=longest) + SPARE)


def _lives(pod: Mapping[str, Any]) -> list[float]:
    """Return after how many seconds a kubelet asks anew for each projected token of a pod."""
    sources = [
        source
        for volume in pod["spec"].get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
    ]
    asked = [source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source]
    return [min(AGED * float(one.get("expirationSeconds") or PROJECTED), DAY) for one in asked]
