"""What a first look at a host tells the rest of a run: whether it has joined, its GPUs, what must be unique."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from shipway.facts.commands import NOT_ENDED, Says
from shipway.facts.files import FileText
from shipway.gpu.chosen import VENDOR
from shipway.gpu.vendor import Vendor
from shipway.host.session import Host
from shipway.ownership.evidence import Evidence, evidence
from shipway.script import Output

# Class 0x0300 is a VGA and 0x0302 a 3D controller, whoever made it (PCI ID database).
_DEVICES = ("find", "-L", "/sys/bus/pci/devices", "-mindepth", "2", "-maxdepth", "2", "-name")
PCI_CLASSES = Says((*_DEVICES, "class", "-exec", "grep", "-l", "^0x030[02]", "{}", "+"))
# Each device that a driver holds is a link below it: /sys/bus/pci/drivers/DRIVER/0000:41:00.0.
PCI_BOUND = Says(("find", "/sys/bus/pci/drivers", "-mindepth", "2", "-maxdepth", "2", "-name", "*:*:*.*"))
SAID = 600  # characters of what the driver says: its longest sentence names the GPU and what to do
KERNEL_LOG = Says(("dmesg",))
FOR_MACHINES = ("vfio-pci", "pci-stub", "xen-pciback")  # hold a device for a virtual machine
CLOCK = Says(("date", "+%s.%N"))
# Interfaces with hardware behind them have a link `device`; bridges and the containers' have none.
_INTERFACES = ("find", "-L", "/sys/class/net", "-mindepth", "2", "-maxdepth", "2", "-name")
MACS = Says((*_INTERFACES, "address", "-exec", "grep", "-H", ".", "{}", "+"))
HARDWARE = Says((*_INTERFACES, "device"))
ADDRESSES = Says(("ip", "-o", "-4", "addr", "show"))
CONTAINER = FileText("/run/systemd/container")  # systemd writes into it what kind of container it runs in


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen on a host; `skew` is its clock minus ours in seconds, `gpus` what PCI shows.

    `driver_gpus` are what the driver lists, `driver_parts` the parts of GPUs (MIG) that it lists,
    `driver_uuids` who the former are; `slots` the PCI addresses of the `gpus`.

    `left_out` says of each GPU on PCI that is not among `gpus` why: it is held for a virtual machine, or the driver
    does not support it. `unbound` are the addresses of those that no driver holds for a reason that nobody knows.

    A `vouched` host is one whose entry says that it is no clone, whatever product_uuid its maker gave it.

    `product_uuid` is empty in a container, which shows the machine's; `macs` are of the interfaces with hardware and an
    IPv4 address that is not link-local; `notices` are what a preflight heard (shipway.survey.notices);
    `evidence` is what tells whose the host is, and `joined` follows from it.
    """

    host: str
    joined: bool
    gpus: int
    driver_gpus: int
    driver_said: str
    toolkit: bool
    machine_id: str
    product_uuid: str
    skew: float
    macs: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    evidence: Evidence | None = None
    left_out: tuple[str, ...] = ()
    unbound: tuple[str, ...] = ()
    vouched: bool = False
    driver_parts: int = 0
    driver_uuids: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()


def on_bus(vendor: Vendor) -> Says:
    """Return the fact of which devices on PCI a vendor made."""
    return Says((*_DEVICES, "vendor", "-exec", "grep", "-l", f"0x{vendor.pci_id}", "{}", "+"))


def addresses_of(vendors: str, classes: str) -> tuple[str, ...]:
    """Return the PCI addresses of a vendor's display and 3D controllers from the two lists of files that matched."""
    folders = {line.rsplit("/", 1)[0] for line in vendors.split()}
    both = folders & {line.rsplit("/", 1)[0] for line in classes.split()}
    return tuple(sorted(folder.rsplit("/", 1)[-1] for folder in both))


def drivers_of(bound: str) -> dict[str, str]:
    """Return the driver of each PCI address from the list of links below the drivers."""
    pairs = (line.rsplit("/", 2)[-2:] for line in bound.split() if line.count("/") > 1)
    return {address: driver for driver, address in pairs}


def macs_of(addresses: str, macs: str, hardware: str) -> tuple[str, ...]:
    """Return the hardware addresses from the three looks at a host's interfaces, sorted.

    Link-local ones are left out: servers of one maker often have a management interface with the same MAC in each.
    """
    words = [line.split() for line in addresses.splitlines()]
    used = {fields[1] for fields in words if len(fields) > 3 and not fields[3].startswith(("169.254.", "127."))}  # noqa: PLR2004 - index, name, family, address
    real = {path.split("/")[-2] for path in hardware.split() if path.count("/") > 1}
    pairs = (line.split("/")[-2:] for line in macs.splitlines() if line.count("/") > 1)
    found = {name: rest.partition(":")[2].strip().lower() for name, rest in pairs}
    return tuple(sorted({mac for name, mac in found.items() if name in used & real and mac.strip("0:")}))


async def survey(on: Host, vendor: Vendor = VENDOR) -> Survey:
    """Look at a host; costs the round trip that the preflight checks share."""
    asked = time.time()
    (
        (vendors, classes, driver),
        toolkit,
        (machine, product, clock),
        (addresses, macs, hardware, container),
        owned,
        bound,
    ) = await asyncio.gather(
        on.read(on_bus(vendor), PCI_CLASSES, vendor.probe),
        _is_installed(on, vendor),
        on.read(
            FileText("/etc/machine-id"),
            FileText("/sys/class/dmi/id/product_uuid"),
            CLOCK,
        ),
        on.read(ADDRESSES, MACS, HARDWARE, CONTAINER),
        evidence(on),
        on.read(PCI_BOUND),
    )
    now = time.time()
    try:
        skew = float(clock.stdout) - (asked + now) / 2
        skew = 0.0 if abs(skew) <= (now - asked) / 2 else skew  # within what the round trip itself leaves open
    except ValueError:
        skew = 0.0
    uuids = tuple(vendor.uuids(driver.stdout)) if driver.ok else ()
    shown = len(uuids)
    slots, left_out, unbound = await _sort_out(
        on, addresses_of(vendors.stdout, classes.stdout), bound.stdout, shown, vendor
    )
    return Survey(
        host=on.name,
        joined=owned.joined,
        gpus=len(slots),
        driver_gpus=shown,
        driver_uuids=uuids,
        driver_parts=vendor.count_parts(driver.stdout) if driver.ok else 0,
        driver_said=_say(driver, vendor),
        toolkit=toolkit,
        machine_id=(machine or "").strip(),
        product_uuid="" if container else (product or "").strip(),
        skew=skew,
        macs=macs_of(addresses.stdout, macs.stdout, hardware.stdout),
        evidence=owned,
        left_out=left_out,
        unbound=unbound,
        slots=slots,
    )


async def _sort_out(
    on: Host, found: tuple[str, ...], bound: str, shown: int, vendor: Vendor
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return which GPUs are meant for pods, why others are not, and which have no driver for no known reason.

    A driver that shows none at all is a fault of the driver, whatever is bound; so is a container's /sys that shows no
    drivers. The kernel's log is asked only where a GPU beside others has no driver: that costs an exchange.
    """
    drivers = drivers_of(bound)
    away = {address: drivers[address] for address in found if drivers.get(address) in FOR_MACHINES}
    left_out = [
        f"GPU {address} is left out: {driver} holds it for a virtual machine" for address, driver in away.items()
    ]
    free = tuple(address for address in found if address not in drivers)
    meant = tuple(address for address in found if address not in away)
    if not shown or not free or len(free) == len(found) or shown >= len(found) - len(away):
        return meant, tuple(left_out), ()
    unsupported, named = vendor.unsupported((await on.read(KERNEL_LOG)).stdout)
    old = [address for address in free if (address in named if named else unsupported)]
    left_out += [
        f"GPU {address} is left out: the installed {vendor.name} driver does not support it" for address in old
    ]
    unbound = tuple(address for address in free if address not in old)
    return tuple(address for address in meant if address not in old), tuple(left_out), unbound


async def _is_installed(on: Host, vendor: Vendor) -> bool:
    """Return whether the vendor's toolkit is there; one that needs none lacks nothing."""
    return vendor.toolkit is None or (await on.read(vendor.toolkit)).ok


def _say(driver: Output, vendor: Vendor) -> str:
    """Return why the driver did not answer; empty where it did."""
    if driver.status == NOT_ENDED:
        return vendor.hangs
    return "" if driver.ok else (driver.stderr or driver.stdout).strip()[:SAID]
