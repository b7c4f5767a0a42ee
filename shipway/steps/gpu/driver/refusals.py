"""What forbids to install a driver: asked of every host before anything is changed, and in a plan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from shipway.cluster.parts import Driver
from shipway.errors import Blocked, Refused
from shipway.facts.commands import Says
from shipway.facts.files import FileState, Listing
from shipway.gpu.chosen import VENDOR
from shipway.gpu.driver.generations import SPACES, gpus, read_devices, why_not_branch
from shipway.gpu.driver.packages import BUILT_ON_HOST
from shipway.host.session import Host
from shipway.kube.nodes import few
from shipway.os.family import Family
from shipway.ownership.evidence import evidence
from shipway.step import Check, Drift, id_of
from shipway.steps.gpu.driver.choice import Chooser, choose_modules, drivers_of
from shipway.steps.gpu.driver.holders import Nobody
from shipway.steps.gpu.driver.imex import UNIT, is_joined, refuse_running

NO_SECURE_BOOT = "no Secure Boot here"  # another firmware, or one whose variables have none of it
# Without mokutil the kernel's own copy of the firmware's variable: four bytes of attributes, then 0 or 1.
_ASK_BOOT = f"""
efi=/sys/firmware/efi
mokutil --sb-state 2>/dev/null && exit 0
[ -d $efi ] || {{ echo {NO_SECURE_BOOT}; exit 0; }}
if ls $efi/efivars/SecureBoot-* >/dev/null 2>&1; then od -An -tu1 -j4 -N1 $efi/efivars/SecureBoot-*; exit; fi
ls $efi/efivars 2>/dev/null | grep -q . && echo {NO_SECURE_BOOT}
"""
SECURE_BOOT = Says(("sh", "-c", _ASK_BOOT))
DGX = FileState("/etc/dgx-release")  # DGX OS has it (NVIDIA DGX OS user guide)
# What NVIDIA's installer of one file leaves, and where a driver lies that a container brought (gpu-driver-container).
INSTALLER = ("/usr/bin/nvidia-uninstall", "/usr/bin/nvidia-installer")
CONTAINER = Listing("/run/nvidia/driver")
LIBRARY = Says(
    ("sh", "-c", "ldconfig -p | sed -n 's/.*libnvidia-ml\\.so\\.1 .*=> //p' | head -n 1 | xargs -r readlink -f")
)
VIRTUAL = Says(
    ("sh", "-c", f"timeout 20 {VENDOR.program} -q 2>/dev/null | sed -n 's/^ *Virtualization Mode *: *//p' | sort -u"),
    30,
)
Question = Callable[[Host, Driver, Family], Awaitable[None]]


async def ask_source(on: Host, driver: Driver, family: Family) -> None:
    """Ask whether the source is for this host. Raises Refused SHW-681 on DGX OS, SHW-687 for any other reason."""
    drivers_of(family, driver, on)
    is_dgx = await on.read(DGX) is not None
    if is_dgx and driver.source != "dgx":
        fix = "Leave `gpu.driver` out (it is only checked then), or write `gpu.driver.source: dgx` to take its own."
        message = f"the host runs DGX OS, whose driver comes with it: none of {driver.source} is installed there"
        raise Refused(message, host=on.name, code="SHW-681", fix=fix)
    if driver.source == "dgx" and not is_dgx:
        fix = "Write `gpu.driver.source: cuda` or `ubuntu`: dgx is for hosts that have /etc/dgx-release."
        raise Refused("the host does not run DGX OS", host=on.name, code="SHW-687", fix=fix)


async def ask_boot(on: Host, driver: Driver, family: Family) -> None:
    """Ask whether the kernel would load a module that nobody signed.

    Raises Refused SHW-680 where it would not, or where that cannot be told.
    """
    del family
    said = (await on.read(SECURE_BOOT)).stdout
    off = any(word in said for word in (NO_SECURE_BOOT, "SecureBoot disabled")) or said.strip() == "0"
    if driver.source not in BUILT_ON_HOST or off:
        return
    if "SecureBoot enabled" not in said and said.strip() != "1":
        mount = "Install mokutil, or `mount -t efivarfs none /sys/firmware/efi/efivars` on it, then run again."
        unread = "it cannot be told whether Secure Boot is on: with it the kernel loads no module that is built there"
        raise Refused(unread, host=on.name, code="SHW-680", fix=mount)
    message = f"Secure Boot is on, and modules of {driver.source} are built on the host: the kernel would load none"
    fix = (
        "One of three: `gpu.driver.source: ubuntu` (signed modules, on Ubuntu); Secure Boot off in the firmware's "
        "settings; or the driver by hand with a key enrolled at the console (`mokutil --import` asks there), and "
        "`source: none`."
    )
    raise Refused(message, host=on.name, code="SHW-680", fix=fix)


async def ask_owner(on: Host, driver: Driver, family: Family) -> None:
    """Ask whether a driver is there that no package brought. Raises Refused SHW-683 where one is."""
    library, container = await on.read(LIBRARY, CONTAINER)
    paths = [*INSTALLER, *library.stdout.split()]
    found = await drivers_of(family, driver, on).unowned(on, paths)
    if container:
        found.append(f"{CONTAINER.path} (a container's driver)")
    if not found:
        return
    fix = (
        f"Take it off first: `{INSTALLER[0]}` for NVIDIA's installer, the GPU Operator's driver "
        "(`driver.enabled=false`) for a container's; restart, then run again."
    )
    raise Refused(f"a driver is there that no package brought: {few(found)}", host=on.name, code="SHW-683", fix=fix)


async def ask_cards(on: Host, driver: Driver, family: Family) -> None:
    """Ask whether the GPUs are shared by a hypervisor. Raises Refused SHW-682 where they are."""
    del driver, family
    spaces, report = await on.read(SPACES, VIRTUAL)
    shared = [one.address for one in gpus(read_devices(spaces.stdout)) if one.virtual]
    if not shared and "VGPU" not in report.stdout.split():  # one line is enough: a program's name may be another
        return
    fix = "Install the guest driver that its hypervisor's vGPU release names, by hand; leave `gpu.driver` out."
    message = f"its GPUs are shared by a hypervisor (vGPU: {few(shared) or 'as the driver says'}), which needs its own"
    raise Refused(message, host=on.name, code="SHW-682", fix=fix)


async def ask_branch(on: Host, driver: Driver, family: Family) -> None:
    """Ask whether the branch drives every GPU of which that is known. Raises Refused SHW-684 where it does not."""
    del family
    if wrong := why_not_branch(read_devices((await on.read(SPACES)).stdout), driver.of_branch):
        fix = "Name another `gpu.driver.branch`, or take those GPUs out of the host (vfio-pci leaves them out)."
        message = f"branch {driver.of_branch} does not drive {few(wrong)}"
        raise Refused(message, host=on.name, code="SHW-684", fix=fix)


async def ask_flavour(on: Host, driver: Driver, family: Family) -> None:
    """Ask whether the declared kernel modules drive every GPU. Raises Refused SHW-685 where they do not."""
    del family
    choose_modules(read_devices((await on.read(SPACES)).stdout), driver, on)


async def ask_imex(on: Host, driver: Driver, family: Family) -> None:
    """Ask whether IMEX runs that nobody declared. Raises Refused SHW-695 where NVLink joins hosts and it does."""
    del family
    if await is_joined(on):
        refuse_running(on, await on.read(UNIT), driver.imex)


async def ask_offer(on: Host, driver: Driver, family: Family, sources: Sequence[Check[Host]] = ()) -> None:
    """Ask whether all parts are offered in one version. Raises Refused SHW-685 to SHW-687 where they are not.

    Where what it comes from is not known to the host yet (`sources`), that is asked right before the installation.
    """
    try:
        await Chooser(driver, family, sources).choose(on)
    except Blocked:
        return


@dataclass(frozen=True)
class DriverAllowed:
    """One thing that must not forbid to install the driver."""

    id: str
    name: str
    ask: Question = field(compare=False, repr=False)
    driver: Driver
    family: Family = field(repr=False)

    async def check(self, on: Host) -> Drift | None:
        """Ask; raises Refused where it forbids it."""
        await self.ask(on, self.driver, self.family)
        return None


@dataclass(frozen=True)
class OnlyWhere:
    """A check that is asked of hosts that have joined, or of those that have not; of all others nothing is asked."""

    joined: bool
    of: Check[Host]

    @property
    def name(self) -> str:
        """The fact."""
        return self.of.name

    @property
    def id(self) -> str:
        """What it is about."""
        return id_of(self.of)

    async def check(self, on: Host) -> Drift | None:
        """Ask where it is such a host."""
        return await self.of.check(on) if (await evidence(on)).joined is self.joined else None


QUESTIONS: tuple[tuple[str, str, Question], ...] = (
    ("source", "the driver's source is for this host", ask_source),
    ("boot", "the kernel would load the driver's module", ask_boot),
    ("owner", "no driver is there that no package brought", ask_owner),
    ("cards", "the GPUs are no hypervisor's", ask_cards),
    ("branch", "the branch drives every GPU", ask_branch),
    ("flavour", "the kernel modules drive every GPU", ask_flavour),
    ("imex", "no IMEX runs that the file does not tell of", ask_imex),
)


def refusals(driver: Driver, family: Family, sources: Sequence[Check[Host]]) -> list[Check[Host]]:
    """Return all that is asked of a host before a driver is installed on it; each is asked, whatever another says."""
    offered: Question = partial(ask_offer, sources=sources)
    questions = (*QUESTIONS, ("offer", "every part of the driver is offered in one version", offered))
    asked = [DriverAllowed(f"DriverAllowed {key}", name, ask, driver, family) for key, name, ask in questions]
    return [*asked, Nobody(outside=True)]
