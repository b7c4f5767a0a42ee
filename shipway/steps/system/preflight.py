"""Checks before anything is changed: what a host must be for a bootstrap to work on it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import ClassVar

from shipway.errors import Permanent
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.facts.sockets import LISTENING, listeners
from shipway.foreign.numbers import whole
from shipway.host.session import Host
from shipway.os.families import FAMILIES
from shipway.os.release import RELEASE, os_release
from shipway.ownership.evidence import ADMIN, KUBELET_CONF, STARTED
from shipway.step import Drift

ARCHITECTURES = ("x86_64", "aarch64")  # what images and packages are made for
# kubeadm's preflight asks for 2 CPUs and 1,700 MB on a control plane (kubeadm preflight NumCPU, Mem).
CONTROL_PLANE = (2, 1700)
WORKER = (1, 900)
FREE_GIB = 8  # images of the control plane, the runtime and a CUDA sample take about 5 GiB


@dataclass(frozen=True)
class SystemSupported:
    """The host runs a supported system on a supported architecture, with systemd."""

    name: str = "operating system and architecture are supported"

    async def check(self, on: Host) -> Drift | None:
        """Read os-release, the architecture and what process 1 is."""
        release, machine, init = await on.read(RELEASE, Says(("uname", "-m")), FileText("/proc/1/comm"))
        found = os_release(release or "")
        known = [tried for family in FAMILIES for tried in family.systems.get(found.get("ID", ""), ())]
        wrong = []
        version = found.get("VERSION_ID", "")
        if not known or (version and version not in known):
            wrong.append(found.get("PRETTY_NAME", "unknown system"))
        if machine.stdout.strip() not in ARCHITECTURES:
            wrong.append(machine.stdout.strip() or "unknown architecture")
        if (init or "").strip() != "systemd":
            wrong.append("no systemd")
        supported = " or ".join(family.supported for family in FAMILIES)
        return Drift(", ".join(wrong), f"{supported}, {' or '.join(ARCHITECTURES)}, systemd") if wrong else None


@dataclass(frozen=True)
class SizeEnough:
    """CPUs, memory and free disk are enough."""

    control_plane: bool
    name: str = "CPU, memory and disk are enough"

    async def check(self, on: Host) -> Drift | None:
        """Compare with what kubeadm asks for."""
        cpus, memory, disk = await on.read(Says(("nproc",)), FileText("/proc/meminfo"), Says(("df", "-Pk", "/var/lib")))
        need_cpus, need_mb = CONTROL_PLANE if self.control_plane else WORKER
        wrong = []
        count = whole(cpus.stdout) or 0
        totals = (line for line in (memory or "").splitlines() if line.startswith("MemTotal:"))
        megabytes = (whole(next(totals, "").removeprefix("MemTotal:").removesuffix("kB")) or 0) // 1024
        last = disk.stdout.strip().splitlines()[-1:]
        fields = last[0].split() if last else []
        free = (whole("".join(fields[3:4])) or 0) / 2**20
        if count < need_cpus:
            wrong.append(f"{count} CPU")
        if megabytes < need_mb:
            wrong.append(f"{megabytes} MB memory")
        if free < FREE_GIB:
            wrong.append(f"{free:.1f} GiB free in /var/lib")
        return Drift(", ".join(wrong), f"{need_cpus} CPU, {need_mb} MB, {FREE_GIB} GiB free") if wrong else None


@dataclass(frozen=True)
class CgroupFits:
    """The cgroup version is one that this Kubernetes runs on."""

    traps: ClassVar[tuple[int, ...]] = (16,)
    minor: tuple[int, int]
    allow_v1: bool
    name: str = "the cgroup version fits"

    async def check(self, on: Host) -> Drift | None:
        """Kubelet 1.35 and later refuses cgroup v1 (kubernetes#134298)."""
        kind = (await on.read(Says(("stat", "-fc", "%T", "/sys/fs/cgroup")))).stdout.strip()
        if kind == "cgroup2fs" or self.minor < (1, 35) or self.allow_v1:
            return None
        return Drift(f"cgroup v1 ({kind or 'unknown'})", "cgroup v2, or kubernetes.allow_cgroup_v1: true")


# What an init or a join of ours writes before it starts the kubelet, and what it leaves: its ports are ours then.
BEGUN = (
    STARTED,
    ADMIN,
    "/etc/kubernetes/bootstrap-kubelet.conf",
    KUBELET_CONF,
)


@dataclass(frozen=True)
class PortsFree:
    """The ports that Kubernetes needs are free, on a host that is not yet part of a cluster."""

    traps: ClassVar[tuple[int, ...]] = (34,)
    ports: tuple[int, ...]
    name: str = "the ports are free"

    async def check(self, on: Host) -> Drift | None:
        """List listening sockets; what a cluster of our own (or an interrupted run) uses is no fault.

        Raises Permanent (SHW-474): nothing here may end another program.
        """
        sockets, ours = await asyncio.gather(on.read(LISTENING), on.read_all([FileState(path) for path in BEGUN]))
        if any(ours):
            return None
        used = {one.port: one.owner or "unknown" for one in listeners(sockets.stdout) if one.port in self.ports}
        if not used:
            return None
        said = ", ".join(f"{port} is used by {owner}" for port, owner in sorted(used.items()))
        fix = (
            "On the host: `sudo ss -ltnp` shows it; stop it, or (for the API's own port) name another "
            "`kubernetes.api_port` in the cluster file, then run again."
        )
        raise Permanent(f"TCP port {said}", host=on.name, code="SHW-474", fix=fix)


@dataclass(frozen=True)
class AddressOnHost:
    """The declared node address is on one of the host's interfaces."""

    traps: ClassVar[tuple[int, ...]] = (13,)
    address: str
    name: str = "the node's address is on the host"

    async def check(self, on: Host) -> Drift | None:
        """List IPv4 addresses; the whole loopback range is on every host."""
        if IPv4Address(self.address).is_loopback:
            return None
        listed = (await on.read(Says(("ip", "-o", "-4", "addr", "show")))).stdout
        found = [word.split("/")[0] for line in listed.splitlines() for word in line.split()[3:4]]
        return None if self.address in found else Drift(", ".join(found) or "no address", self.address)
