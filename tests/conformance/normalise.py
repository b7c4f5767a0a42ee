"""Take from an answer what may differ from run to run: times, addresses, tokens, digests, random names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.conformance.case import Answer

_AGE = r"(?:\d+d)?(?:\d+h)?(?:\d+m)?(?:\d+s)?"
_RULES: tuple[tuple[str, str], ...] = (
    (r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", "<token>"),
    (r'token ID "[a-z0-9]{6}"', 'token ID "<id>"'),
    (r'bootstrap token "[a-z0-9]{6}"', 'bootstrap token "<id>"'),
    (r"\bbootstrap-token-[a-z0-9]{6}\b", "bootstrap-token-<id>"),
    (r"sha256:[0-9a-f]{64}", "sha256:<digest>"),
    (r"(?m)^[0-9a-f]{64}  /", "<digest>  /"),
    (r"^[WEI]\d{4} [\d:.]+ +\d+ (\w+\.go):\d+\]", r"<log> \1]"),
    (r'time="[^"]*"', 'time="<time>"'),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
    (r"(\w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \w+", "<time>"),
    (r"healthy after [\d.]+ seconds", "healthy after <n> seconds"),
    (r"healthy after [\d.]+(?:µs|ms|s)$", "healthy after <time>"),
    (r"(containerd://[\d.]+)\+unknown", r"\1"),  # what a build that knows no tag of its own adds
    (r"\b(process|with pid) \d+ \(", r"\1 <pid> ("),
    (r"with pid \d+$", "with pid <pid>"),
    (r"\[IP: [\d.]+ \d+\]", "[IP: <ip>]"),
    (r"\bNO_PUBKEY [0-9A-F]{16}\b", "NO_PUBKEY <key>"),
    (r"\b10\.244\.\d+\.\d+\b", "<pod-ip>"),
    (r"((?:deployment|pod|replicaset|gpu|coredns|rc)[\w/-]*?)-[a-z0-9]{8,10}-[a-z0-9]{5}\b", r"\1-<set>-<id>"),
    (r"\b(kube-proxy|lab-cni|nvidia-device-plugin[a-z-]*)-[a-z0-9]{5}\b", r"\1-<id>"),
    (r"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|GPU-\w+-\d", "GPU-<uuid>"),
)
# Lines that tell of the network, of the load, or of a terminal: no caller reads them.
_DROPPED = re.compile(
    r"^(Get:|Hit:|Ign:|Fetched |Need to get |After this operation|\(Reading database|debconf: |Suggested packages|"
    r"Recommended packages|\[kubelet-check\] Initial timeout|W: Download is performed unsandboxed)|"
    r"could not fetch a Kubernetes version from the internet|falling back to the local client version|"
    "^\x1b\\[0;37m"  # a row of kubeadm's system verification: it tells of the machine's kernel
)


def normalised(text: str, places: Mapping[str, str]) -> str:
    """Return the text with everything replaced that is another one in every run; `places` gives address -> name."""
    for address, name in places.items():
        text = re.sub(rf"(?<![\d.]){re.escape(address)}(?![\d])", f"<{name}>", text)
    for pattern, put in _RULES:
        text = re.sub(pattern, put, text, flags=re.MULTILINE)
    lines = [line.rstrip() for line in text.splitlines() if not _DROPPED.search(line)]
    return "\n".join(lines).strip("\n")


def settled(answer: Answer) -> Answer:
    """Return a recorded answer as the rules of today would have written it."""
    return Answer(answer.status, normalised(answer.stdout, {}), normalised(answer.stderr, {}))


def table(text: str) -> str:
    """Return kubectl's table with its columns apart by one bar and ages replaced."""
    rows = []
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        rows.append(" | ".join("<age>" if re.fullmatch(_AGE, cell) and cell else cell for cell in cells))
    return "\n".join(rows)
