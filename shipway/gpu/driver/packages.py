"""What NVIDIA's driver is called in each source of packages, part by part; which names there are is asked of a host.

Seen: names of Debian's own archive (branch 535 in Debian 12, 550 in 13, 2026-11-30); of branch 580 in Ubuntu's archive,
of 580 to 610 in NVIDIA's repository for Debian, and of 580 in that for Ubuntu, as published scripts and logs of such
hosts have them (2026-11-29). Read, not seen: NVIDIA's list of the names that lose their branch from 590 on (driver
installation guide, "Ubuntu 590 and later packages"), DGX OS (deepops, roles/nvidia-dgx). Hence alternatives: the first
that a host's repositories offer is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Source = Literal["ubuntu", "cuda", "debian", "dgx"]
# Of these the kernel module is built on the host, so nobody signed it.
BUILT_ON_HOST: tuple[Source, ...] = ("cuda", "debian")
REPOSITORY = "cuda"  # the title of NVIDIA's repository in the cluster file
SYSTEMS: dict[Source, tuple[str, ...]] = {
    "ubuntu": ("ubuntu",),
    "cuda": ("debian", "ubuntu"),
    "debian": ("debian",),
    "dgx": ("ubuntu",),
}
# A version of a driver, in front of what a distribution adds: 580.95.05-0ubuntu1. What else has NVIDIA's name in it
# (egl-wayland 1.1.13, toolkit 1.20.0) has another form.
_DRIVER = re.compile(r"(?:\d+:)?(\d{3}\.\d{2,3}(?:\.\d{2})?)(?=[-+~]|$)")
# What the names of the open flavour's own parts have: nvidia-kernel-open-dkms, nvidia-dkms-580-open, Debian's own
# nvidia-open-kernel-dkms; nvidia-opencl-icd and libnvidia-pkcs11-openssl3 are of both.
_OPEN = re.compile(r"-open(?=-|$)")
# What no upgrade may take from another version by itself.
PATTERNS = ("nvidia-*", "libnvidia-*", "libcuda1*", "libnvsdm*", "cuda-drivers*", "xserver-xorg-video-nvidia*")
FIRMWARE = "firmware-nvidia-gsp*"
# NVIDIA's programs with sources of their own: Debian and Ubuntu have them in versions of their own (Debian 13:
# nvidia-modprobe 570.133.07 beside a driver 550.163.01), and no driver is mixed by it.
OWN_VERSION = ("nvidia-modprobe", "nvidia-persistenced", "nvidia-settings*", "nvidia-xconfig")
MODULES = "linux-modules-nvidia-*"  # a kernel's own, of its version and not the driver's
CONFIGURED = "/etc/modprobe.d/shipway-nvidia.conf"
MODULES_LOAD = "/etc/modules-load.d/shipway-gpu-fabric.conf"
RIVAL_OUT = "/etc/modprobe.d/shipway-nouveau.conf"


@dataclass(frozen=True, slots=True)
class Role:
    """A part of a driver: its possible names, and whether it is always of the driver's own version."""

    what: str
    names: tuple[str, ...]
    exact: bool = True


def upstream(version: str) -> str:
    """Return the driver's version in a package's; empty where a package has none."""
    match = _DRIVER.match(version)
    return match[1] if match else ""


def is_open_part(name: str) -> bool:
    """Say whether a package is a part that the open flavour alone has."""
    return bool(_OPEN.search(name))


def open_twins(name: str) -> set[str]:
    """Return what the same part of the open flavour may be called; none of one that is of that flavour."""
    if is_open_part(name):
        return set()
    opened = name.replace("-dkms", "-open-dkms"), name.replace("nvidia-kernel-", "nvidia-open-kernel-")
    return {f"{name}-open", *opened} - {name}


def is_in_step(name: str) -> bool:
    """Say whether a driver's package always has the driver's own version."""
    return not any(fnmatchcase(name, pattern) for pattern in OWN_VERSION)


def versions_of(packages: Mapping[str, str]) -> set[str]:
    """Return the drivers that these packages are of, by their names and versions: several, where drivers are mixed."""
    return {upstream(version) for name, version in packages.items() if is_in_step(name)} - {""}


def branch_of(version: str) -> int:
    """Return the branch of a driver's version."""
    return int(version.partition(".")[0])


def in_order(version: str) -> tuple[int, ...]:
    """Return what versions of a driver are ordered by."""
    return tuple(map(int, version.split(".")))


@dataclass(frozen=True, slots=True)
class Machine:
    """What of a host decides on the packages: its system, its kernels, how they are followed, its switches, its GPUs.

    `flavours` are the endings of the kernel's metapackages that are installed: "generic", "generic-hwe-24.04";
    `joins_hosts` says that NVLink joins its GPUs to those of other hosts.
    """

    system: str
    kernels: tuple[str, ...]
    flavours: tuple[str, ...]
    switches: bool = False
    newer_switches: bool = False
    joins_hosts: bool = False


def roles(source: Source, branch: int, machine: Machine, *, open_modules: bool) -> list[Role]:
    """Return the parts of a driver that a machine needs, by where they come from."""
    if source == "ubuntu":
        server = f"{branch}-server{'-open' if open_modules else ''}"
        modules = f"linux-modules-nvidia-{server}"
        endings = machine.flavours or tuple(dict.fromkeys(one.rpartition("-")[2] for one in machine.kernels))
        found = [Role("modules that follow the kernel", tuple(f"{modules}-{one}" for one in endings), exact=False)]
        found += [Role(f"module of {one}", (f"{modules}-{one}",), exact=False) for one in machine.kernels]
        found += [
            Role("libraries", (f"nvidia-headless-no-dkms-{server}",)),
            Role("tools", (f"nvidia-utils-{branch}-server",)),
        ]
    elif source == "dgx":
        found = [
            Role("module and libraries", (f"nvidia-driver-{branch}{'-open' if open_modules else ''}",)),
            Role("device nodes", ("nvidia-modprobe",)),
        ]
    elif source == "debian":
        found = [
            Role("module", (f"nvidia-{'open-' if open_modules else ''}kernel-dkms",)),
            Role("firmware", ("firmware-nvidia-gsp",)),
            Role("libraries", ("libcuda1",)),
            Role("compiler at run time", ("libnvidia-nvvm4",)),
            Role("tools", ("nvidia-smi",)),
            Role("configuration library", ("libnvidia-cfg1",)),
            Role("persistence", ("nvidia-persistenced",), exact=False),
        ]
    elif machine.system == "debian":
        found = [
            Role("module", (f"nvidia-kernel-{'open-' if open_modules else ''}dkms",)),
            Role("libraries", ("nvidia-driver-cuda",)),
            Role("persistence", ("nvidia-persistenced",)),
        ]
    else:
        ending = "-open" if open_modules else ""
        found = [
            Role("module", (f"nvidia-dkms{ending}", f"nvidia-dkms-{branch}{ending}")),
            Role("libraries", ("libnvidia-compute", f"libnvidia-compute-{branch}")),
            Role("tools", ("nvidia-utils", f"nvidia-utils-{branch}")),
            Role("persistence", ("nvidia-persistenced", f"nvidia-compute-utils-{branch}")),
        ]
    return found + _of_switches(branch, machine) + _of_hosts(branch, machine)


def _of_switches(branch: int, machine: Machine) -> list[Role]:
    """Return what joins GPUs by switches: always of the driver's very version, but for the subnet manager."""
    if not (machine.switches or machine.newer_switches):
        return []
    found = [
        Role("fabric manager", ("nvidia-fabricmanager", f"nvidia-fabricmanager-{branch}")),
        Role("switch library", ("libnvidia-nscq", f"libnvidia-nscq-{branch}")),
    ]
    if machine.newer_switches:
        found += [
            Role("switch telemetry", ("libnvsdm", f"libnvsdm-{branch}")),
            Role("subnet manager", ("nvlsm",), exact=False),
        ]
    return found


def _of_hosts(branch: int, machine: Machine) -> list[Role]:
    """Return what lets hosts reach each other's GPU memory: it refuses a driver of another version (its guide).

    Ubuntu's archive names it by its branch; NVIDIA's repository did so up to 570, and provides those names since.
    """
    return [Role("IMEX", ("nvidia-imex", f"nvidia-imex-{branch}"))] if machine.joins_hosts else []


@dataclass(frozen=True, slots=True)
class Choice:
    """A driver for a host: its version, which kernel modules, and every package in its version."""

    version: str
    open_modules: bool
    packages: tuple[tuple[str, str], ...]
    module: str
    fabric: bool = False


def match_roles(
    wanted: Sequence[Role], offered: dict[str, list[str]], version: str
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the package and version for each part in a driver's version, and the parts that nobody offers so."""
    found: list[tuple[str, str]] = []
    lacking: list[str] = []
    for role in wanted:
        fitting = [
            (name, full)
            for name in role.names
            for full in offered.get(name, ())
            if not role.exact or upstream(full) == version
        ]
        if fitting:
            found.append(fitting[0])
        else:
            lacking.append(f"{role.what} ({' or '.join(role.names)})")
    return found, lacking
