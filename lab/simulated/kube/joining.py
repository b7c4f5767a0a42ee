"""The refusals of `kubeadm join`, in its words."""

from __future__ import annotations

from .bootstrap_tokens import bootstrap_secret
from .objects import condition
from .store import Store


class JoinRefusedError(Exception):
    """`kubeadm join` ends with this message (what follows `error execution phase ...`)."""

    def __init__(self, phase: str, message: str) -> None:
        super().__init__(f"error execution phase {phase}: {message}")
        self.phase = phase
        self.message = message


def check_join(store: Store, own_hash: str, name: str, token: str, ca_hash: str) -> None:
    """Pass where a host of that name may join with this token and CA hash. Raises JoinRefusedError."""
    doubt = "couldn't validate the identity of the API Server: "
    token_id, _, secret = token.partition(".")
    data = bootstrap_secret(store, token_id)
    if data is None or data.get("usage-bootstrap-signing") != "true":
        text = f'could not find a JWS signature in the cluster-info ConfigMap for token ID "{token_id}"'
        raise JoinRefusedError("preflight", doubt + text)
    if data["token-secret"] != secret:
        text = "failed to verify JWS signature of received cluster info object, can't trust this API Server"
        raise JoinRefusedError("preflight", doubt + text)
    if ca_hash and ca_hash != own_hash:
        text = f'cluster CA found in cluster-info ConfigMap is invalid: none of the public keys "{own_hash}" are pinned'
        raise JoinRefusedError("preflight", doubt + text)
    node = store.get("nodes", "", name)
    ready = condition(node, "Ready") if node is not None else None
    if node is None:
        return
    if ready is not None and ready["status"] == "True":
        text = (
            f'a Node with name "{name}" and status "Ready" already exists in the cluster. '
            "You must delete the existing Node or change the name of this new joining Node"
        )
        raise JoinRefusedError("kubelet-start", text)
