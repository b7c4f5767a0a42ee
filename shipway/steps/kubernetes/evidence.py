"""Evidence of a failed kubeadm: the kubelet's journal and the containers, so that the error says which part died."""

from __future__ import annotations

import re

from shipway.errors import ShipwayError
from shipway.facts.commands import Says
from shipway.host.session import Host
from shipway.known_failures.catalogue import explain, failure
from shipway.redact import redact, tail
from shipway.script import Output

KUBELET = Says(("journalctl", "-u", "kubelet", "-n", "300", "--no-pager", "-o", "cat"))
# A kubelet that loses its runtime dies with hundreds of lines of goroutines: these are the ones that say something.
TELLING = re.compile(r"[WEF]\d{4} |kubelet\.service|Error|panic")
# What each container of the control plane said last; the runtime keeps it after the container is gone.
PODS = Says(
    ("find", "/var/log/pods", "-path", "*kube-system_*", "-name", "*.log", "-exec", "tail", "-n", "3", "--", "{}", "+")
)
CONTAINERS = Says(("crictl", "--runtime-endpoint", "unix:///run/containerd/containerd.sock", "ps", "-a"))
# What runs, from containerd itself: its package always brings ctr, and no package must bring crictl (Kubernetes 1.32).
TASKS = Says(("ctr", "--connect-timeout", "5s", "--namespace", "k8s.io", "tasks", "ls"))
_NOT_FOUND = 127


async def collect_evidence(on: Host, what: str, output: Output) -> ShipwayError:
    """Return the error of a failed operation with what kubelet and runtime say; the catalogue looks at all of it."""
    error = failure(what, output, host=on.name)
    if error.code != error.default_code:
        return error
    try:
        journal, containers, pods = await on.read(KUBELET, CONTAINERS, PODS)
        if containers.status == _NOT_FOUND:
            containers = await on.read(TASKS)
    except ShipwayError as lost:
        return failure(what, Output(output.status, output.stdout, f"{output.stderr}\n(no evidence: {lost.message})"))
    words, seen = _telling(journal.stdout), f"{containers.stdout}\n{containers.stderr}"
    error.message += f"\nkubelet's last words:\n{tail(words, 6)}\ncontainers:\n{tail(seen, 8)}"
    if pods.stdout.strip():
        error.message += f"\ntheir last words:\n{tail(pods.stdout, 20, 240)}"
    explain(error, redact(f"{words}\n{seen}\n{pods.stdout}"), "{cause}\n{message}")
    return error


async def add_last_words(on: Host, error: ShipwayError) -> ShipwayError:
    """Return the error of a kubelet that does not stay up, with what it said last; the catalogue looks at that."""
    words = _telling((await on.read(KUBELET)).stdout)
    error.message += f"\nkubelet's last words:\n{tail(words, 6)}"
    explain(error, redact(words), "{cause}\n{message}")
    return error


def _telling(journal: str) -> str:
    """Return the lines of the kubelet's journal that tell of trouble; all of it where none is known to."""
    lines = [line for line in journal.splitlines() if TELLING.match(line)]
    return "\n".join(lines[-25:]) or journal
