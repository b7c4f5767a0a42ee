"""kubeadm token: create and delete bootstrap tokens."""

from __future__ import annotations

from lab.simulated.commands.arguments import Parsed
from lab.simulated.commands.registry import Call
from lab.simulated.kubeadm_preflight import failed


def _admin(call: Call, asked: Parsed) -> str:
    """Say why the API cannot be asked as its administrator; empty where it can."""
    path = asked.value("--kubeconfig", default="/etc/kubernetes/admin.conf")
    if not call.host.files.exists(path):
        return f"failed to load admin kubeconfig: open {path}: no such file or directory"
    cluster = call.host.link.cluster
    if cluster is None or call.host.link.api_of(call.host, cluster.endpoint) is None:
        server = cluster.endpoint if cluster is not None else "127.0.0.1:6443"
        return f'Get "https://{server}/api/v1/namespaces/kube-system?timeout=10s": dial tcp {server}: connect: connection refused'
    return ""


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    return float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text or 0)


async def create_token(call: Call, asked: Parsed) -> int:
    """Make a token and print it, or the whole join command."""
    await call.took(1.0)
    trouble = _admin(call, asked)
    cluster = call.host.link.cluster
    if trouble or cluster is None:
        return failed(call, trouble)
    ttl = _seconds(asked.value("--ttl", default="24h"))
    token = cluster.create_token(ttl, asked.value("--description"), token=asked.rest[2] if len(asked.rest) > 2 else "")
    if asked.has("--print-join-command"):
        return call.say(
            f"kubeadm join {cluster.endpoint} --token {token} --discovery-token-ca-cert-hash {cluster.ca_hash} \n"
        )
    return call.say(f"{token}\n")


async def delete_token(call: Call, asked: Parsed) -> int:
    """Delete a token by its id or whole."""
    trouble = _admin(call, asked)
    cluster = call.host.link.cluster
    if trouble or cluster is None:
        return failed(call, trouble)
    name = asked.rest[2].split(".")[0]
    if not cluster.delete_token(name):
        return failed(call, f'failed to delete bootstrap token "{name}": secrets "bootstrap-token-{name}" not found')
    return call.say(f'bootstrap token "{name}" deleted\n')
