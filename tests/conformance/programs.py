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
NOT_RECORDED: dict[str, str] = {
    "systemctl daemon-reload": "it prints nothing; NeedDaemonReload is asked after it, by which a bootstrap would fail",
    "nvidia-ctk config": "the lab's toolkit is a stand-in; the form is a real 1.20's (test_gpu_isolation)",
}
# What is recorded in part, and which part cannot be recorded in the lab of containers.
PARTLY = {
    "apt-get upgrade": "the lab's mirror has one version of each package: there is nothing to upgrade",
    "cloud-init status": "the lab's hosts are without it, and that is recorded; `status: running` and `status: done` "
    "are the words of Debian 12's cloud-init 22.4.2, looked at by hand",
    "date": "a number near this machine's time; the lab's hosts have the machine's clock",
    "df": "the table's form, and that its numbers add up; the machine has disks of its own",
    "iptables": "policies and status; the rules of the lab's own engine stand in the nat table of its hosts",
    "nproc": "that it is a number; the machine has CPUs of its own",
    "nvidia-ctk": "Debian does not package it: the lab's is a stand-in too",
    "nvidia-smi": "there is no gpu in the lab: its hosts have a stand-in too",
    "systemctl is-system-running": "`stopping`: a host that shuts down ends the session that would ask",
    "uname": "the machine's kernel is not the simulated one: `-m` is compared, of `-r` its form",
}


def programs(words: Sequence[str]) -> Iterator[str]:
    """Yield the programs of a command, wrappers such as timeout and systemd-run taken off: "apt-get install", "cat"."""
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
    """Return the words after the options; those named take a value as a word of its own."""
    left = list(words)
    while left and left[0].startswith("-"):
        option = left.pop(0)
        if option in with_value and left:
            left.pop(0)
    return left


def recorded() -> set[str]:
    """Return the programs of all cases on hosts: their answers are those of real hosts."""
    cases = [part for parts in SCENES.values() for part in parts if isinstance(part, Case) and part.host != API]
    return {program for one in cases for words in one.commands for program in programs(words)}
