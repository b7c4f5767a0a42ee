"""Bootstrap tokens as `kubeadm token` makes them, and as a join finds them."""

from __future__ import annotations

import base64
import secrets
import string
from datetime import UTC, datetime, timedelta

from .objects import Obj, parsed_time, timestamp
from .store import Store

PREFIX, TYPE = "bootstrap-token-", "bootstrap.kubernetes.io/token"
DEFAULT_GROUP = "system:bootstrappers:kubeadm:default-node-token"
DEFAULT_TTL = 24 * 3600.0  # seconds
_LETTERS = string.ascii_lowercase + string.digits


def new_token() -> str:
    """Return a fresh token of kubeadm's form, six and sixteen letters."""
    return (
        "".join(secrets.choice(_LETTERS) for _ in range(6)) + "." + "".join(secrets.choice(_LETTERS) for _ in range(16))
    )


def token_secret(token: str, ttl: float, description: str, usages: tuple[str, ...], groups: tuple[str, ...]) -> Obj:
    """Return the Secret that holds a token; `ttl` in seconds, 0 for a token without end.

    Raises ValueError for a token that is not of kubeadm's form.
    """
    token_id, _, secret = token.partition(".")
    if len(token_id) != 6 or len(secret) != 16 or set(token_id + secret) - set(_LETTERS):
        raise ValueError(f"the bootstrap token with ID {token_id!r} is not of the form [a-z0-9]{{6}}.[a-z0-9]{{16}}")
    data = {"token-id": token_id, "token-secret": secret}
    if "authentication" in usages:
        data["auth-extra-groups"] = ",".join(groups)
    if ttl:
        data["expiration"] = timestamp(datetime.now(UTC) + timedelta(seconds=ttl))
    if description:
        data["description"] = description
    data |= {f"usage-bootstrap-{usage}": "true" for usage in usages}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": PREFIX + token_id, "namespace": "kube-system"},
        "type": TYPE,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in sorted(data.items())},
    }


def bootstrap_secret(store: Store, token_id: str) -> dict[str, str] | None:
    """Return the decoded data of a bootstrap token's Secret, or None where it is missing or has expired."""
    secret = store.get("secrets", "kube-system", f"{PREFIX}{token_id}")
    if secret is None or secret.get("type") != TYPE:
        return None
    data = {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}
    expiration = data.get("expiration")
    if expiration:
        moment = parsed_time(expiration)
        if moment <= type(moment).now(moment.tzinfo):
            return None
    return data
