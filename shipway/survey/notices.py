"""What a host will run into later: it keeps nothing from being built, and whoever runs it should know it now."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address

from shipway.facts.boot import order_kernels
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Host

TRAPS = (4, 14, 44)  # numbers of docs/traps.md
PLAIN = "/etc/resolv.conf"
REAL = "/run/systemd/resolve/resolv.conf"  # what systemd-resolved itself asks
RUNNING = Says(("uname", "-r"))
KERNELS = Listing("/lib/modules")
MODULES = Says(("find", "/lib/modules", "-name", f"{VENDOR.module}*.ko*"))  # .ko, .ko.zst, .ko.xz
UFW = FileText("/etc/ufw/ufw.conf")
FORWARD = Says(("iptables", "-S", "FORWARD"))


async def read_notices(on: Host) -> tuple[str, ...]:
    """Return a sentence for each thing; costs the round trip that the preflight checks share."""
    (running, kernels, modules, restart), (ufw, forward, joined), (plain, real) = await asyncio.gather(
        on.read(RUNNING, KERNELS, MODULES, FileState("/run/reboot-required")),
        on.read(UFW, FORWARD, FileState("/etc/kubernetes/kubelet.conf")),
        on.read(FileText(PLAIN), FileState(REAL)),
    )
    found = [next_kernel(running.stdout.strip(), kernels, modules.stdout)]
    if restart:
        found.append("it waits for a restart (/run/reboot-required): better now than under workloads")
    if not joined:
        found.append(firewall(ufw or "", forward.stdout))
        found.append("" if real or not only_stubs(plain or "") else STUB)
    return tuple(text for text in found if text)


STUB = (
    f"{PLAIN} names only the host itself as name server: CoreDNS would ask itself (`plugin/loop`); set "
    "`kubernetes.kubelet.resolvConf` to a file that names the real ones"
)


def only_stubs(text: str) -> bool:
    """Say whether every name server of a resolv.conf is on the loopback interface; false where there is none."""
    servers = [words[1] for line in text.splitlines() if len(words := line.split()) > 1 and words[0] == "nameserver"]
    return bool(servers) and all(_loopback(server) for server in servers)


def _loopback(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def next_kernel(running: str, kernels: Sequence[str], modules: str) -> str:
    """Say that the kernel which starts next has no module for GPUs, and the running one has (nvidia-docker#804)."""
    ready = kernels_with(modules)
    newest = max(kernels, key=order_kernels, default=running)
    if running not in ready or newest in ready or order_kernels(newest) <= order_kernels(running):
        return ""
    return (
        f"kernel {newest} starts next and has no {VENDOR.name} module: after a restart {VENDOR.program} fails; "
        f"on the host install linux-headers-{newest}, run `sudo dkms autoinstall`, look with `dkms status`"
    )


def kernels_with(modules: str) -> set[str]:
    """Return the kernels that have the GPUs' module, by what `MODULES` prints."""
    names = (VENDOR.module, *VENDOR.module_aliases)
    return {
        path.split("/")[3]
        for path in modules.split()
        if path.count("/") > 3 and any(fnmatchcase(path.rpartition("/")[2], f"{name}.ko*") for name in names)  # noqa: PLR2004 - /lib/modules/KERNEL/
    }


def firewall(ufw: str, forward: str) -> str:
    """Say what a firewall that is on must let through; it is opened, never turned off (its owner wanted it)."""
    if re.search(r"^ENABLED=yes", ufw, re.MULTILINE):
        return (
            "ufw is on: from the other hosts it must let in TCP 6443, 2379, 2380 and 10250, UDP 4789 (VXLAN), and "
            "routed packets (`sudo ufw allow from NETWORK; sudo ufw default allow routed`)"
        )
    if "-P FORWARD DROP" in forward:
        return (
            "the host drops forwarded packets (Docker or a firewall set that): where the pod network does not let its "
            "own through, pods reach only their own host (`sudo iptables -P FORWARD ACCEPT`)"
        )
    return ""
