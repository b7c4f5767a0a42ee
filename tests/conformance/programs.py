"""Which programs a command runs, and which of them are held against recordings of real hosts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.conformance.case import API, Case
from tests.conformance.scenario import SCENES

# Programs whose first word says which one of several they are.
_VERBS = frozenset(
    [
        "systemctl",
        "apt-get",
        "apt-cache",
        "apt-mark",
        "apt-helper",
        "kubeadm",
        "containerd",
        "nvidia-ctk",
        "hostnamectl",
        "cloud-init",
    ]
)
# What a bootstrap runs and no scene holds against a real host yet, with what keeps a wrong answer from going unseen.
# A row may leave this table, never come to it without a reason: record its scene instead (docs/lab-simulated.md).
NOT_RECORDED = {
    "apt-get update": "its status alone counts, words of mirrors differ; what it fetched is looked at",
    "apt-get upgrade": "its status alone counts; versions are looked at by dpkg-query, which is recorded",
    "bash": "opens a connection to a source; its status alone counts",
    "chmod": "silent where it works; modes are looked at by stat, which is recorded",
    "cloud-init status": "the hosts of the container lab were not made by cloud-init",
    "date": "a number",
    "df": "numbers of the machine; the parser has a test",
    "hostnamectl set-hostname": "silent where it works; the name is looked at",
    "ip": "addresses of the machine; the parser has a test",
    "iptables": "a listing of rules that every network has of its own",
    "nproc": "a number",
    "ss": "ports of the machine; the parser has a test",
    "systemctl is-system-running": "one word of systemd's; hosts of the container lab are often degraded",
    "systemctl stop": "silent where it works; states are looked at by systemctl show, which is recorded",
    "umask": "silent; modes are looked at by stat, which is recorded",
    "uname": "a word of the machine",
}


def programs(words: Sequence[str]) -> Iterator[str]:
    """Give the programs of a command, wrappers such as timeout and systemd-run taken off: "apt-get install", "cat"."""
    left = list(words)
    while left:
        name = left.pop(0).rsplit("/", 1)[-1]
        if name == "timeout":
            left = _after_options(left, "-k", "-s")[1:]
        elif name == "env":
            left = [word for at, word in enumerate(left) if "=" not in word or any("=" not in w for w in left[:at])]
        elif name == "systemd-run" and "--" in left:
            yield name
            left = left[left.index("--") + 1 :]
        elif name == "sh" and left[:1] == ["-c"]:
            yield name
            left = left[3:]  # `sh -c TEXT NAME COMMAND...`
        else:
            verb = _after_options(left, "-o", "-c", "-t")[:1] if name in _VERBS else []
            yield " ".join((name, *verb))
            return


def _after_options(words: Sequence[str], *with_value: str) -> list[str]:
    """Give the words after the options; those named take a value as a word of its own."""
    left = list(words)
    while left and left[0].startswith("-"):
        option = left.pop(0)
        if option in with_value and left:
            left.pop(0)
    return left


def recorded() -> set[str]:
    """Give the programs of all cases on hosts: their answers are those of real hosts."""
    cases = [part for parts in SCENES.values() for part in parts if isinstance(part, Case) and part.host != API]
    return {program for one in cases for program in programs(one.words)}
