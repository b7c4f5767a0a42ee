"""NVIDIA's GPUs by PCI device id: which branches of the driver drive a generation, and with which kernel modules.

A device that is in no row is not judged: only what is known is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shipway.facts.commands import Says
from shipway.gpu.chosen import VENDOR

Flavour = Literal["open", "proprietary"]
# The first 256 bytes of each device's configuration space: its ids, its class, its capabilities.
_READ = f"""
for one in $(grep -l 0x{VENDOR.pci_id} /sys/bus/pci/devices/*/vendor); do
  one=${{one%/vendor}}; echo "${{one##*/}} $(od -An -v -tx1 -N256 "$one/config" | tr -d '\\n')"
done
"""
SPACES = Says(("sh", "-c", _READ))
GPU, SWITCH = ("0300", "0302"), "0680"  # classes: a VGA and a 3D controller; NVSwitches up to NVLink 4 are bridges
HAS_CAPABILITIES, FIRST, OF_VENDOR = 0x10, 0x34, 0x09  # PCI Local Bus Specification 3.0, 6.2.3 and 6.7
# What the capability of a virtual GPU says behind its length (gpu-feature-discovery, internal/vgpu, pciutil.go).
VIRTUAL = b"VF"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU or a switch on PCI; `virtual` is a part of a GPU that a hypervisor shares (vGPU)."""

    address: str
    id: int
    kind: str
    virtual: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """GPUs of one kind: their device ids, the branches that drive them (0: no limit is known), their modules."""

    name: str
    ids: tuple[tuple[int, int], ...]
    first: int = 0
    last: int = 0
    flavours: tuple[Flavour, ...] = ("open", "proprietary")

    def has(self, device: int) -> bool:
        """Say whether a device is one of these."""
        return any(low <= device <= high for low, high in self.ids)


OLD: tuple[Flavour, ...] = ("proprietary",)  # without a GSP: "not supported by open nvidia.ko" (open-gpu-kernel#587)
NEW: tuple[Flavour, ...] = ("open",)
# Ids: the blocks of the PCI ID database (2023.04.11) up to Hopper; of Ada and Blackwell those of NVIDIA's products as
# machines show them (10de:26b9 L40S, 2901 B200, 2941 GB200, 3182 B300, 31c2 GB300, 2bb5 RTX PRO 6000). First branches:
# NVIDIA's release notes of them. Last ones: its announcement that 470 and 580 are the last for those (UNIX graphics
# feature deprecation schedule). Modules: README of branch 580, "Open Linux Kernel Modules".
GENERATIONS = (
    Generation("Kepler", ((0x0FC0, 0x103F), (0x1180, 0x11FC), (0x1280, 0x12BA)), last=470, flavours=OLD),
    Generation("Maxwell", ((0x1340, 0x1436), (0x1617, 0x1667), (0x174D, 0x17FD)), last=580, flavours=OLD),
    Generation("Pascal", ((0x15F0, 0x15F9), (0x1725, 0x172F), (0x1B00, 0x1D7F)), last=580, flavours=OLD),
    Generation("Volta", ((0x1D80, 0x1DFF),), last=580, flavours=OLD),
    Generation("Turing", ((0x1E00, 0x1FFF), (0x2180, 0x21FF))),
    Generation("Ampere", ((0x2080, 0x20FF), (0x2200, 0x22FF), (0x2400, 0x25FF)), first=450),
    Generation("Grace Hopper", ((0x2340, 0x237F),), first=525, flavours=NEW),
    Generation("Hopper", ((0x2300, 0x233F),), first=525),
    Generation("Ada", ((0x2680, 0x28FF),), first=525),
    Generation("Blackwell", ((0x2900, 0x29FF), (0x2B80, 0x2FFF), (0x3180, 0x31FF)), first=570, flavours=NEW),
)
FIRST_OPEN = 545  # the first branch whose open modules drive every GPU with a GSP (545.23.06, nv-reg.h)
ACROSS = (0x2940, 0x297F), (0x31C0, 0x31FF)  # GB200, GB300: NVLink joins them across hosts
COHERENT = (0x2340, 0x237F), *ACROSS  # beside a Grace CPU: GH200 and these
_SPACE = re.compile(r"(\S+) ((?:[0-9a-f]{2} ?)+)$")


def read_devices(said: str) -> list[Device]:
    """Return the vendor's devices by what `SPACES` prints."""
    found = []
    for match in map(_SPACE.match, (" ".join(line.split()) for line in said.splitlines())):
        space = bytes.fromhex(match[2]) if match else b""
        if match and len(space) >= FIRST:
            ident = int.from_bytes(space[2:4], "little")
            found.append(Device(match[1], ident, space[10:12][::-1].hex(), virtual=_is_virtual(space)))
    return found


def _is_virtual(space: bytes) -> bool:
    """Say whether a device has the capability of a virtual GPU; the list of capabilities may lead in a circle."""
    at, seen = (space[FIRST] if len(space) > FIRST and space[6] & HAS_CAPABILITIES else 0), set[int]()
    while at and at not in seen and at + 5 <= len(space):
        if space[at] == OF_VENDOR and space[at + 3 : at + 5] == VIRTUAL:
            return True
        seen.add(at)
        at = space[at + 1]
    return False


def gpus(devices: Sequence[Device]) -> list[Device]:
    """Return those that are GPUs."""
    return [one for one in devices if one.kind in GPU]


def generation_of(device: int) -> Generation | None:
    """Return the generation of a device; None where it is in no row."""
    return next((one for one in GENERATIONS if one.has(device)), None)


def is_coherent(device: int) -> bool:
    """Say whether a GPU's memory is a part of its host's (a Grace CPU beside it)."""
    return any(low <= device <= high for low, high in COHERENT)


def joins_hosts(devices: Sequence[Device]) -> bool:
    """Say whether a host has GPUs whose memory other hosts may reach over NVLink: those need IMEX."""
    return any(low <= one.id <= high for one in gpus(devices) for low, high in ACROSS)


def why_not_branch(devices: Sequence[Device], branch: int) -> list[str]:
    """Return what of a host's GPUs this branch does not drive, and why; empty where nothing is known against it."""
    found = []
    for one in gpus(devices):
        kind = generation_of(one.id)
        if kind and kind.last and branch > kind.last:
            found.append(f"{one.address} ({kind.name}): {kind.last} is the last branch for it")
        elif kind and branch < kind.first:
            found.append(f"{one.address} ({kind.name}): {kind.first} is the first branch for it")
    return found


def flavours_of(devices: Sequence[Device], branch: int) -> tuple[Flavour, ...]:
    """Return the kernel modules that drive every GPU of a host, the better ones first; none where GPUs are mixed.

    Open ones come first: they are NVIDIA's own choice from 560 on where both work. Before 545 they drive no GeForce and
    no workstation GPU unless they are told to (its README of 535.54.03, kernel_open), and so come last.
    """
    kinds = [kind for one in gpus(devices) if (kind := generation_of(one.id))]
    both: tuple[Flavour, ...] = ("open", "proprietary") if branch >= FIRST_OPEN else ("proprietary", "open")
    return tuple(one for one in both if all(one in kind.flavours for kind in kinds))
