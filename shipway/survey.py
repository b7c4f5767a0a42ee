"""What a first look at a host tells the rest of a run: whether it has joined, its cards, what must be unique."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.host import Host

# PCI vendor 0x10de is NVIDIA; class 0x0300 is a VGA and 0x0302 a 3D controller (PCI ID database).
_DEVICES = ("find", "-L", "/sys/bus/pci/devices", "-mindepth", "2", "-maxdepth", "2", "-name")
PCI = Says((*_DEVICES, "vendor", "-exec", "grep", "-l", "0x10de", "{}", "+"))
PCI_CLASSES = Says((*_DEVICES, "class", "-exec", "grep", "-l", "^0x030[02]", "{}", "+"))
DRIVER = Says(("nvidia-smi", "-L"), seconds=30)
CLOCK = Says(("date", "+%s.%N"))
TOOLKIT = Says(("nvidia-ctk", "--version"))


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen on a host; `skew` is its clock minus ours in seconds, `cards` what PCI shows."""

    host: str
    joined: bool
    cards: int
    driver_cards: int
    driver_said: str
    toolkit: bool
    machine_id: str
    product_uuid: str
    skew: float


def cards_of(vendors: str, classes: str) -> int:
    """Give the number of NVIDIA display and 3D controllers from the two lists of files that matched."""
    folders = {line.rsplit("/", 1)[0] for line in vendors.split()}
    return len(folders & {line.rsplit("/", 1)[0] for line in classes.split()})


def uuids(listed: str) -> list[str]:
    """Give the UUIDs of `nvidia-smi -L`: `GPU 0: NVIDIA A10 (UUID: GPU-...)`."""
    return re.findall(r"UUID: (GPU-[0-9A-Za-z-]+)", listed)


async def survey(on: Host) -> Survey:
    """Look at a host; costs the round trip that the preflight checks share."""
    asked = time.time()
    (vendors, classes, driver, toolkit), (machine, product, credentials, clock) = await asyncio.gather(
        on.read(PCI, PCI_CLASSES, DRIVER, TOOLKIT),
        on.read(
            FileText("/etc/machine-id"),
            FileText("/sys/class/dmi/id/product_uuid"),
            FileState("/etc/kubernetes/kubelet.conf"),
            CLOCK,
        ),
    )
    now = time.time()
    try:
        skew = float(clock.stdout) - (asked + now) / 2
        skew = 0.0 if abs(skew) <= (now - asked) / 2 else skew  # within what the round trip itself leaves open
    except ValueError:
        skew = 0.0
    return Survey(
        host=on.name,
        joined=credentials is not None,
        cards=cards_of(vendors.stdout, classes.stdout),
        driver_cards=len(uuids(driver.stdout)) if driver.ok else 0,
        driver_said=(driver.stderr or driver.stdout).strip()[:200] if not driver.ok else "",
        toolkit=toolkit.ok,
        machine_id=(machine or "").strip(),
        product_uuid=(product or "").strip(),
        skew=skew,
    )
