"""Tokens of service accounts (JWT): signed by a key that the cluster alone has and asks for."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenSigner:
    """The service account key of a cluster: signs tokens and knows its own."""

    def __init__(self, issuer: str) -> None:
        self._key = secrets.token_bytes(32)
        self.issuer = issuer

    def _signed(self, claims: str) -> str:
        header = _encoded(json.dumps({"alg": "HS256", "kid": "simulated"}, separators=(",", ":")).encode())
        signature = hmac.new(self._key, f"{header}.{claims}".encode(), hashlib.sha256).digest()
        return f"{header}.{claims}.{_encoded(signature)}"

    def for_account(self, namespace: str, account: str, uid: str, seconds: int, audiences: list[str]) -> str:
        """Return a token of a service account that lives for `seconds`."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": uid}},
            "aud": audiences,
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
        }
        return self._signed(_encoded(json.dumps(claims, separators=(",", ":")).encode()))

    def claims(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a token that this key signed and that has not expired, else None."""
        part = token.split(".")[1] if token.count(".") == 2 else ""
        if not hmac.compare_digest(self._signed(part).encode(), token.encode()):
            return None
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return claims if claims["exp"] > time.time() else None
