"""Signed tokens: those of service accounts (JWT, ES256) and the detached JWS that cluster-info carries."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def detached_jws(token_id: str, token_secret: str, content: str) -> str:
    """Return the JWS (HS256, payload left out) by which `kubeadm join` knows cluster-info as its own cluster's."""
    header = _encoded(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    payload = _encoded(content.encode())
    signature = hmac.new(token_secret.encode(), f"{header}.{payload}".encode(), hashlib.sha256).digest()
    return f"{header}..{_encoded(signature)}"


class TokenSigner:
    """The service account key of a cluster: signs tokens and knows its own."""

    def __init__(self, issuer: str = "https://kubernetes.default.svc.cluster.local") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.issuer = issuer

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a JWT with these claims."""
        header = _encoded(json.dumps({"alg": "ES256", "kid": "simulated"}, separators=(",", ":")).encode())
        payload = _encoded(json.dumps(claims, separators=(",", ":")).encode())
        der = self._key.sign(f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(der)
        return f"{header}.{payload}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def for_account(
        self, namespace: str, account: str, uid: str, seconds: int | None, audiences: list[str] | None = None
    ) -> str:
        """Return a token of a service account; `seconds` None makes the endless kind that a Secret holds."""
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": uid}},
        }
        if seconds is not None:
            now = int(time.time())
            claims |= {"aud": audiences or [self.issuer], "iat": now, "nbf": now, "exp": now + seconds}
        return self.sign(claims)

    def claims(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a token that this key signed and that has not expired, else None."""
        parts = token.split(".")
        if len(parts) != 3:
            return None
        try:
            raw = _decoded(parts[2])
            der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
            signed = f"{parts[0]}.{parts[1]}".encode()
            self._key.public_key().verify(der, signed, ec.ECDSA(hashes.SHA256()))
            claims: dict[str, Any] = json.loads(_decoded(parts[1]))
        except (ValueError, InvalidSignature):  # ValueError: no base64, no JSON
            return None
        return claims if claims.get("exp", float("inf")) > time.time() else None
