"""What one lab is: its hosts, addresses and names, as lab.json keeps them."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.containers.commands import LabError
from lab.containers.kubernetes import chosen

FIRST_HOST = 11
MIRROR_HOST = 5
MAX_HOSTS = 200
CONTAINERD_VERSIONS = ("1.6", "1.7", "2.1")
USER = "ops"
CRI_V1_ALONE = 26  # from this minor on a kubelet asks by CRI v1 alone, so containerd 2 can serve it


def default_containerd() -> str:
    """Return the containerd that a lab offers unless another is asked for: one that its Kubernetes is used with."""
    return "1.6" if chosen().minor < CRI_V1_ALONE else "2.1"


@dataclass(frozen=True)
class LabHost:
    """One host: `gpus` SIMULATED GPUs, at a fixed address."""

    name: str
    address: str
    gpus: int
    role: str
    port: int = 22
    user: str = USER

    def gpu_ids(self) -> list[str]:
        """Return the GPUs' UUIDs: the same for the same host name and slot, in every lab."""
        digests = [hashlib.sha256(f"{self.name}/{slot}".encode()).digest()[:16] for slot in range(self.gpus)]
        return [f"GPU-{uuid.UUID(bytes=digest)}" for digest in digests]


@dataclass(frozen=True)
class LabPlan:
    """A whole lab; `number` (0 to 63) keeps two labs of one machine apart."""

    hosts: tuple[LabHost, ...]
    containerd: str = field(default_factory=default_containerd)
    number: int = 0
    key_fingerprint: str = ""
    packages: dict[str, str] = field(default_factory=dict)

    @property
    def network(self) -> str:
        """Return the hosts' network, a /24."""
        return f"172.30.{self.number}.0/24"

    @property
    def mirror(self) -> str:
        """Return the mirror's address: apt on port 80, images on port 5000."""
        return f"172.30.{self.number}.{MIRROR_HOST}"

    def host(self, name: str) -> LabHost:
        """Return the host of that name; raises LabError where there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(f"this lab has no host {name!r}; it has {', '.join(host.name for host in self.hosts)}")

    def same_hosts(self, other: LabPlan) -> bool:
        """Say whether another plan has the same hosts and addresses; offered package versions may differ."""
        return (self.hosts, self.containerd, self.number) == (other.hosts, other.containerd, other.number)

    def apt_url(self, name: str) -> str:
        """Return the URL of one apt repository: kubernetes, containerd (of this lab's version), nvidia or debian."""
        folder = f"containerd-{self.containerd}" if name == "containerd" else name
        return f"http://{self.mirror}/apt/{folder}"

    def save(self, state: Path) -> None:
        """Write lab.json, with the derived addresses for whoever reads it."""
        repositories = {name: self.apt_url(name) for name in ("kubernetes", "containerd", "nvidia", "debian")}
        content = {
            **asdict(self),
            "network": self.network,
            "mirror": {
                "address": self.mirror,
                "registry": f"http://{self.mirror}:5000",
                "apt": repositories,
                "key": f"http://{self.mirror}/apt/kubernetes/Release.key",
            },
            "ssh": {"key": str(state / "id_ed25519"), "known_hosts": str(state / "known_hosts")},
        }
        for row, host in zip(content["hosts"], self.hosts, strict=True):
            row["gpu_ids"] = host.gpu_ids()
        (state / "lab.json").write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, state: Path) -> LabPlan:
        """Read lab.json; raises LabError where no lab is recorded."""
        path = state / "lab.json"
        if not path.is_file():
            raise LabError(f"no lab is recorded in {state}; start one with `python -m lab.containers up`")
        content = json.loads(path.read_text())
        names = LabHost.__dataclass_fields__
        hosts = tuple(LabHost(**{key: row[key] for key in names}) for row in content["hosts"])
        return cls(hosts, content["containerd"], content["number"], content["key_fingerprint"], content["packages"])


def plan(names: str, *, gpus: int = 2, containerd: str = "", number: int = 0) -> LabPlan:
    """Return the plan for comma-separated host names: cp* are control planes, `NAME:K` sets a host's GPUs.

    Raises LabError on names that are no host names, come twice, or are too many.
    """
    containerd = containerd or default_containerd()
    if containerd not in CONTAINERD_VERSIONS:
        raise LabError(f"containerd {containerd} is not in the bundle; choose one of {', '.join(CONTAINERD_VERSIONS)}")
    if not 0 <= number <= 63:
        raise LabError(f"lab number {number} is not from 0 to 63")
    hosts: list[LabHost] = []
    for slot, word in enumerate(names.split(",")):
        name, _, own = word.strip().partition(":")
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) or (own and not own.isdigit()):
            raise LabError(f"{word!r} is not a host name in lower case, or NAME:GPUS")
        control = name.startswith("cp")
        count = int(own) if own else 0 if control else gpus
        address = f"172.30.{number}.{FIRST_HOST + slot}"
        hosts.append(LabHost(name, address, count, "control_plane" if control else "worker"))
    if len({host.name for host in hosts}) < len(hosts) or len(hosts) > MAX_HOSTS:
        raise LabError(f"host names must differ and be at most {MAX_HOSTS}: {names}")
    return LabPlan(tuple(hosts), containerd, number)
