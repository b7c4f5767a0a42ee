"""The work that every contestant does on each host, as data; and an independent look at whether it was done."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

NODE = "/srv/shipway-bench"  # the same path on every host, and on every host another directory
COMMANDS = 6
HOSTS_LINES = tuple(f"10.0.0.{number} node-{number}" for number in range(1, 13))
BEGIN, END = "# BEGIN shipway", "# END shipway"
FSTAB = "UUID=1111 / ext4 defaults 0 1\n/swap.img none swap sw 0 0\nUUID=2222 /data xfs defaults 0 2\n"
HOSTS = "127.0.0.1 localhost\n::1 ip6-localhost\n"
FACTS = ("/proc/sys/kernel/osrelease", "/etc/os-release", "/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Work:
    """One host's share: seconds that each guarded command takes; files, edits and facts are the same on all."""

    seconds: tuple[float, ...]

    @property
    def path(self) -> float:
        """What the host itself needs from the first to the last command, in seconds: its part of the critical path."""
        return sum(self.seconds)


def files() -> dict[str, str]:
    """Return the managed files, path -> content: the shape of a node's preparation (9 KB in all)."""
    containerd = "".join(f"[plugins.section-{number}]\n  setting = {number * 7}\n" for number in range(125))
    digest = "".join(hashlib.sha256(str(number).encode()).hexdigest() + "\n" for number in range(43))
    return {
        f"{NODE}/etc/modules-load.d/k8s.conf": "overlay\nbr_netfilter\nnf_nat\n",
        f"{NODE}/etc/sysctl.d/k8s.conf": "net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n",
        f"{NODE}/etc/containerd/config.toml": containerd,
        f"{NODE}/etc/apt/sources.list.d/kubernetes.list": "deb https://packages.example.com/core stable main\n",
        f"{NODE}/etc/apt/keyrings/kubernetes.asc": digest,
    }


def shares(count: int, *, base: float, stragglers: bool, seed: int = 1) -> list[Work]:
    """Return each host's work; with stragglers 10 % of the hosts (at least one) take 10 x `base` in one random step."""
    dice = random.Random(seed)  # noqa: S311 - the same slow hosts in every run
    slow = set(dice.sample(range(count), max(1, count // 10))) if stragglers else set()
    works = []
    for index in range(count):
        seconds = [base] * COMMANDS
        if index in slow:
            seconds[dice.randrange(COMMANDS)] = 10 * base
        works.append(Work(tuple(seconds)))
    return works


def laid(root: Path) -> None:
    """Make a host's directory as it is before the first run."""
    for folder in ("etc", "tmp", "flags", "home"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/fstab").write_text(FSTAB, encoding="utf-8")
    (root / "etc/hosts").write_text(HOSTS, encoding="utf-8")


def faults(root: Path) -> list[str]:
    """Return what is not as wanted in a host's directory, seen from outside; empty when all of the work is done."""
    found = []
    for path, content in files().items():
        file = root / path.removeprefix(f"{NODE}/")
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            found.append(path)
    fstab = (root / "etc/fstab").read_text(encoding="utf-8").splitlines()
    if [line for line in fstab if " swap " in line and not line.startswith("#")] or len(fstab) != len(
        FSTAB.splitlines()
    ):
        found.append("etc/fstab")
    hosts = (root / "etc/hosts").read_text(encoding="utf-8")
    if not hosts.startswith(HOSTS) or any(hosts.count(f"{line}\n") != 1 for line in HOSTS_LINES):
        found.append("etc/hosts")
    return found + [f"flag {index}" for index in range(COMMANDS) if not (root / f"flags/{index}").exists()]


def marks(root: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of change of every managed file: a run with nothing to change leaves them as they are."""
    paths = [*(path.removeprefix(f"{NODE}/") for path in files()), "etc/fstab", "etc/hosts"]
    paths += [f"flags/{index}" for index in range(COMMANDS)]
    return {path: ((root / path).stat().st_ino, (root / path).stat().st_mtime_ns) for path in paths}


@dataclass(frozen=True, slots=True)
class Door:
    """How one host is reached."""

    name: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Order:
    """What a contestant is given: the hosts, how to log in, each host's work; it travels as a JSON file."""

    doors: tuple[Door, ...]
    works: tuple[Work, ...]
    key: str
    known_hosts: str

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Order:
        """Read what `write` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        doors = tuple(Door(**door) for door in data["doors"])
        works = tuple(Work(tuple(work["seconds"])) for work in data["works"])
        return cls(doors, works, data["key"], data["known_hosts"])


def guarded(work: Work) -> Sequence[tuple[str, float]]:
    """Return each command's flag file and how long the command takes."""
    return [(f"{NODE}/flags/{index}", seconds) for index, seconds in enumerate(work.seconds)]
