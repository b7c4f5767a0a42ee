"""Evidence of a failed kubeadm: the kubelet's journal and the containers, so that the error says which part died."""

from __future__ import annotations

from shipway.catalogue import diagnose, failure
from shipway.errors import ShipwayError
from shipway.facts.commands import Says
from shipway.host import Host
from shipway.redact import redact, tail
from shipway.script import Output

KUBELET = Says(("journalctl", "-u", "kubelet", "-n", "25", "--no-pager", "-o", "cat"))
# What each container of the control plane said last; the runtime keeps it after the container is gone.
PODS = Says(
    ("find", "/var/log/pods", "-path", "*kube-system_*", "-name", "*.log", "-exec", "tail", "-n", "3", "--", "{}", "+")
)
CONTAINERS = Says(("crictl", "--runtime-endpoint", "unix:///run/containerd/containerd.sock", "ps", "-a"))


async def collected(on: Host, what: str, output: Output) -> ShipwayError:
    """Give the error of a failed operation with what kubelet and runtime say; the catalogue looks at all of it."""
    error = failure(what, output, host=on.name)
    if error.code != error.default_code:
        return error
    try:
        journal, containers, pods = await on.read(KUBELET, CONTAINERS, PODS)
    except ShipwayError as lost:
        return failure(what, Output(output.status, output.stdout, f"{output.stderr}\n(no evidence: {lost.message})"))
    known = diagnose(redact(f"{journal.stdout}\n{containers.stdout}\n{pods.stdout}"))
    error.message += f"\nkubelet's last words:\n{tail(journal.stdout, 6)}\ncontainers:\n{tail(containers.stdout, 8)}"
    if pods.stdout.strip():
        error.message += f"\ntheir last words:\n{tail(pods.stdout, 20, 240)}"
    if known:
        error.code, error.fix, error.may_retry = known.code, known.fix, known.retryable
        error.message = f"{known.cause}\n{error.message}"
    return error
