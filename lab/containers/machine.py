"""What this machine can do: capabilities, kernel features and programs, looked at and never assumed."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.containers.commands import LabError, run
from lab.containers.programs import REFLECT2

CAP_SYS_RESOURCE = 24  # linux/capability.h
CGROUPS = Path("/sys/fs/cgroup")
SBIN = "/usr/sbin:/sbin:/usr/local/sbin"
# Program -> the Debian package that brings it.
PROGRAM_PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "runc": "runc",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "dpkg-deb": "dpkg",
    "dpkg-source": "dpkg-dev",
    "apt-ftparchive": "apt-utils",
    "gpg": "gpg",
    "gpgconf": "gpgconf",
    "gpg-agent": "gpg-agent",
    "ssh-keygen": "openssh-client",
    "go": "golang-go",
    "make": "make",
    "rsync": "rsync",
}
REFLECT2_PACKAGE = "golang-github-modern-go-reflect2-dev"
ROOM_GB = 12


def lacks_sys_resource() -> bool:
    """Say whether this process can never hold CAP_SYS_RESOURCE, which privileged containers ask for."""
    bits = re.search(r"^CapBnd:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bits is None or not int(bits.group(1), 16) >> CAP_SYS_RESOURCE & 1


def cgroup_v2() -> bool:
    """Say whether the unified cgroup hierarchy is the machine's only one."""
    return (CGROUPS / "cgroup.controllers").is_file()


def program(name: str) -> str | None:
    """Return a program's path, looked for in the system folders too."""
    return shutil.which(name) or shutil.which(name, path=SBIN)


def missing_packages() -> list[str]:
    """Return the Debian packages that the lab needs and this machine lacks."""
    missing = {package for name, package in PROGRAM_PACKAGES.items() if program(name) is None}
    if not REFLECT2.is_dir():
        missing.add(REFLECT2_PACKAGE)
    return sorted(missing)


def load_modules() -> None:
    """Load the kernel's modules; modprobe's exit code says nothing where they are built in, so `examine` looks."""
    if program("modprobe"):
        run("modprobe", "--all", "--quiet", "overlay", "br_netfilter", "iptable_nat", "ip6table_nat", expect=(0, 1))


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is as needed, and else what to do."""

    good: bool
    text: str


def examine(cache: Path) -> list[Finding]:
    """Look at everything the lab needs of this machine."""
    filesystems = Path("/proc/filesystems").read_text().split()
    room = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(room).free / 1e9
    lacking = missing_packages()
    findings = [
        Finding(os.geteuid() == 0, "root: the lab makes namespaces, mounts and containers; run it with sudo"),
        Finding("overlay" in filesystems, "kernel: overlay file system; run `modprobe overlay`"),
        Finding(Path("/proc/sys/net/bridge").is_dir(), "kernel: bridge netfilter; run `modprobe br_netfilter`"),
        Finding(
            not lacking, f"packages; run `python -m lab.containers doctor --install`; missing: {' '.join(lacking)}"
        ),
        Finding(free > ROOM_GB, f"disk: {ROOM_GB} GB free for building at {room}; free are {free:.0f} GB"),
    ]
    if lacks_sys_resource():
        note = (
            "CAP_SYS_RESOURCE is missing on this machine: containers start through lab-runtime, which works around it"
        )
        findings.append(Finding(good=True, text=note))
    return findings


def require(cache: Path) -> None:
    """Raise LabError with everything that is missing, at once."""
    faults = [finding.text for finding in examine(cache) if not finding.good]
    if faults:
        raise LabError("this machine is not ready for the lab:\n  " + "\n  ".join(faults))
