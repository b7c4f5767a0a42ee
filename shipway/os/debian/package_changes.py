"""Changes of packages by apt: simulated first, and refused where they would touch what nobody asked to be touched."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.facts.packages import PackageInfo
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Command, Host
from shipway.os.debian.apt import APT, INSTALL_SECONDS, with_lock
from shipway.os.debian.dpkg import find_installed, query

SIMULATE_SECONDS = 60
Packages = dict[tuple[str, str], PackageInfo]
# Never changed in passing: a new driver or kernel under running pods breaks NVML (homelab#4110: 269 restarts). By name,
# and by source package: not all that is a driver's is called so.
KERNELS = ("linux-image*", "linux-headers*", "linux-modules*")
KERNEL_SOURCES = ("linux", "linux-signed*", "linux-meta*")
DRIVERS = (*VENDOR.packages, *KERNELS)
SOURCES = (*VENDOR.sources, *KERNEL_SOURCES, "linux-restricted*")
# A kernel's modules that are the driver's: Ubuntu has them as packages of each kernel.
MODULES = (f"linux-*{VENDOR.module}*",)
# Their upgrade restarts what runs, so an upgrade of everything leaves them alone as well.
RUNTIMES = ("containerd*", "docker*", "runc*", "cri-*", "kubelet", "kubeadm", "kubectl", "kubernetes-cni")
# `apt-get -s` prints a line each: Inst NAME [OLD] (NEW ORIGIN [ARCH]) ..., Remv NAME [OLD], Purg NAME [OLD].
_ACT = re.compile(r"(Inst|Remv|Purg) (\S+)(?: \[([^\]]*)\])?")


@dataclass(frozen=True, slots=True)
class Changes:
    """What apt says that it would do: packages that get another version, and those that go."""

    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def changes(simulated: str) -> Changes:
    """Return the changes that `apt-get -s` prints; names are apt's, with `:i386` where they are foreign."""
    acts = [match.groups() for line in simulated.splitlines() if (match := _ACT.match(line))]
    gone = tuple(dict.fromkeys(name for act, name, _ in acts if act != "Inst"))
    other = tuple(name for act, name, old in acts if act == "Inst" and old)
    return Changes(other, gone)


def frozen(packages: Packages, *, kernel: bool = False) -> list[PackageInfo]:
    """Return the installed packages that an upgrade of everything leaves alone, of every architecture.

    With `kernel` the kernel is none of them; its modules that are a driver's are.
    """
    return [info for (name, _), info in packages.items() if stays(name, info.source, kernel=kernel)]


def stays(name: str, source: str = "", *, kernel: bool = False) -> bool:
    """Tell whether a package is left alone by an upgrade of everything; `source` is empty where it is not known."""
    if kernel and is_kernel(name, source):
        return False
    return _drives(name, source) or matches(name, RUNTIMES)


def is_kernel(name: str, source: str = "") -> bool:
    """Tell whether a package is a part of the kernel, and none of a driver."""
    drives = matches(name, (*VENDOR.packages, *MODULES)) or matches(source, VENDOR.sources)
    return not drives and (matches(name, KERNELS) or matches(source, KERNEL_SOURCES))


def _drives(name: str, source: str) -> bool:
    """Tell whether a package is a part of a driver or of the kernel."""
    return matches(name, DRIVERS) or matches(source, SOURCES)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a name is one of these, which may have `*` in them."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def plain(name: str) -> str:
    """Return the name of a package without its architecture and version."""
    return re.split("[:=]", name, maxsplit=1)[0]


def simulation(*words: str) -> tuple[str, ...]:
    """Return the command that says what apt would do with these words; it takes no lock and changes nothing."""
    return (*APT, "-s", *words)


def refuse(foreseen: Changes, packages: Packages, asked: Collection[str], removable: Collection[str]) -> None:
    """Raise Refused where a change goes further than it was asked to; nothing was changed.

    SHW-327: a package would be removed that is not in `removable`. SHW-328: a held package, or one that is never
    changed in passing (a driver's, the kernel's), would get another version and is not in `asked`. Names are without
    architecture.
    """
    named = f"to install {', '.join(asked)}" if asked else "for this"
    if gone := [name for name in foreseen.removed if plain(name) not in removable]:
        message = f"{named}, apt would remove {', '.join(gone)}; nothing was changed"
        fix = (
            f"Where nothing needs {'it' if len(gone) == 1 else 'them'} any more, allow it under `system.may_remove` in "
            "the cluster file; what they run ends with them. Else name another package, or another host."
        )
        raise Refused(message, code="SHW-327", fix=fix)
    held = {name for (name, _), info in packages.items() if info.held}
    kept = held | {name for (name, _), info in packages.items() if _drives(name, info.source)}
    if moved := [name for name in foreseen.changed if plain(name) in kept and plain(name) not in asked]:
        why = "held" if any(plain(name) in held for name in moved) else "of a driver or the kernel"
        message = f"{named}, apt would change {', '.join(moved)}, which is {why}; nothing was changed"
        fix = "See `apt-mark showhold` and `apt-cache policy PACKAGE` on the host; whether it may, a person decides."
        raise Refused(message, code="SHW-328", fix=fix)


async def foresee(on: Host, *words: str) -> Changes | None:
    """Return what apt would do with these words; None where it cannot tell, as without the packages' lists."""
    said = await on.read(Says(simulation(*words), SIMULATE_SECONDS))
    return changes(said.stdout) if said.ok else None


async def change(on: Host, *words: str, asked: Collection[str] = (), removable: Collection[str] = ()) -> None:
    """Let apt-get do what these words say (`install`, `--`, names), once a simulation at that moment shows no harm.

    Nothing is removed but what `removable` names: apt itself refuses any other removal. Raises Refused (SHW-327,
    SHW-328) with nothing changed, CommandFailed where apt cannot do it.
    """
    said, listed = await on.do(Command(simulation(*words), SIMULATE_SECONDS), Command(query()))
    foreseen = changes(said.stdout)
    refuse(foreseen, find_installed(listed.stdout), asked, removable)
    keep = () if foreseen.removed else ("--no-remove",)
    await with_lock(on, *APT, *keep, *words, seconds=INSTALL_SECONDS)
