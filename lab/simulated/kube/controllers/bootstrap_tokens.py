"""Bootstrap tokens: signed into cluster-info while they live, cleaned away when they expire."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Hashable
from datetime import UTC, datetime

from lab.simulated.kube.auth import bootstrap_secret
from lab.simulated.kube.objects import Obj, name_of, parsed_time
from lab.simulated.kube.signed_tokens import detached_jws
from lab.simulated.kube.store import DELETED, Change
from lab.simulated.kube.world import World

from .base import Controller

PREFIX, TYPE = "bootstrap-token-", "bootstrap.kubernetes.io/token"


class BootstrapTokens(Controller):
    """The bootstrap signer and the token cleaner."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._expiry: dict[str, asyncio.TimerHandle] = {}
        self.store.listen(["secrets"], self._changed)

    def _changed(self, change: Change) -> None:
        secret = change.obj
        if secret.get("type") != TYPE:
            return
        self.enqueue("sign")
        name = name_of(secret)
        self.pace.cancel(self._expiry.pop(name, None))
        expiration = (secret.get("data") or {}).get("expiration")
        if change.kind != DELETED and expiration:
            moment = parsed_time(base64.b64decode(expiration).decode())
            left = max(0.0, (moment - datetime.now(UTC)).total_seconds())
            self._expiry[name] = self.pace.after_exactly(left, self._expire, name)

    def _expire(self, name: str) -> None:
        self._expiry.pop(name, None)
        self.store.remove("secrets", "kube-system", name)

    def reconcile(self, key: Hashable) -> None:
        """Sign cluster-info with every token that may."""
        info = self.store.get("configmaps", "kube-public", "cluster-info")
        if info is None:
            return
        content = str(info["data"]["kubeconfig"])
        data = {"kubeconfig": content}
        for secret in self.store.objects("secrets", "kube-system"):
            token = self._living(secret)
            if token.get("usage-bootstrap-signing") == "true":
                signature = detached_jws(token["token-id"], token["token-secret"], content)
                data[f"jws-kubeconfig-{token['token-id']}"] = signature
        self.store.replace("configmaps", {**info, "data": dict(sorted(data.items()))})

    def _living(self, secret: Obj) -> dict[str, str]:
        if secret.get("type") != TYPE:
            return {}
        return bootstrap_secret(self.store, name_of(secret).removeprefix(PREFIX)) or {}
