"""One simulated host: files, units, packages, kernel, GPUs and a clock, and what a reboot does to them."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.gpu_figures import Scene
from lab.simulated import installs
from lab.simulated.adapters import Adapter
from lab.simulated.clock import Clock
from lab.simulated.commands.registry import NEEDS
from lab.simulated.failures import Failures
from lab.simulated.files import FileTree, Node
from lab.simulated.kernel import Kernel
from lab.simulated.packages import Packages
from lab.simulated.services import Services
from lab.simulated.systems import System, base_files
from lab.simulated.units import Unit, Units
from lab.simulated.world import World

if TYPE_CHECKING:
    from lab.simulated.cluster_link import ClusterLink

DRIVER = "550.144.03"


@dataclass
class GpuDevice:
    """One simulated GPU."""

    uuid: str
    healthy: bool = True
    name: str = "NVIDIA A10 SIMULATED"
    rows: dict[str, str] = field(default_factory=dict)  # of its report, which say something else than a healthy one's
    parts: dict[str, str] = field(default_factory=dict)  # of MIG: the profile of each, by UUID
    capability: str = "8.6"
    links: int = 0  # NVLinks, all active
    link_errors: dict[str, int] = field(default_factory=dict)  # counters by link and name, as in `3: Replay Errors`


@dataclass(frozen=True)
class Ran:
    """One command that ran: when (host seconds), whether it may change, its words, its exit status."""

    at: float
    verb: str
    words: tuple[str, ...]
    status: int


@dataclass
class Gpu:
    """The GPUs and the driver; `trouble` is one of "", absent, mismatch, unreachable, hang."""

    devices: list[GpuDevice] = field(default_factory=list)
    driver: str = DRIVER
    trouble: str = ""


class SimulatedHost:
    """A machine as a session sees it."""

    def __init__(
        self,
        name: str,
        address: str,
        *,
        world: World,
        system: System,
        gpus: int,
        scale: float,
        seed: int,
        swap: bool,
        link: ClusterLink,
    ) -> None:
        self.name = name
        self.address = address
        self.system = system
        self.scale = scale
        self.link = link
        self.skew = 0.0
        self.free_kib = 200_000_000
        self.sudo = True  # without a password
        self.sudo_password = ""  # what sudo takes where it asks for one
        self.reachable = True
        self.refusing = False
        self.not_simulated: list[str] = []
        self.ran: deque[Ran] = deque(maxlen=5000)
        self.failures = Failures()
        self.operations: dict[str, asyncio.Task[int]] = {}
        self.images: set[str] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self.machine_id = hashlib.md5(f"{seed}/{name}".encode(), usedforsecurity=False).hexdigest()
        identity = uuid.UUID(hashlib.md5(f"product/{seed}/{name}".encode(), usedforsecurity=False).hexdigest())
        self.gpu = Gpu([GpuDevice(_gpu_uuid(seed, name, index)) for index in range(gpus)])
        self.figures = Scene()
        self.adapters: list[Adapter] = []  # of InfiniBand or RoCE
        self.kernel = Kernel(system.kernel, f"ip-{address.replace('.', '-')}")
        if not swap:
            self.kernel.swaps = []
        self.kernel.pci = [(f"0000:{16 + index:02x}:00.0", "0x2236") for index in range(gpus)]
        if gpus:
            self.kernel.modules["nvidia"] = None
        self.kernel.extra = {
            "/proc/1/comm": b"systemd\n",
            "/sys/class/dmi/id/product_uuid": f"{identity}\n".encode(),
        }
        self.files = FileTree(base_files(system), self.kernel, self.now)
        self.files.full = lambda: self.free_kib <= 0
        self.units = Units(self.files, self.now)
        self.packages = Packages(self.files, world)
        self._own_files()
        self.services = Services(self)
        self._first_units()

        self.boots, self.booted = 1, self.now() - 86_400

    def _own_files(self) -> None:
        hostname = self.kernel.hostname
        booted = self.now() - 86_400
        for path, text in {
            "/etc/hostname": f"{hostname}\n",
            "/etc/machine-id": f"{self.machine_id}\n",
            "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 ip6-localhost ip6-loopback\n",
        }.items():
            self.files.put(path, Node(text.encode(), changed=booted))
        if self.gpu.devices:
            self.files.put("/usr/bin/nvidia-smi", Node(b"SIMULATED\n", 0o755, changed=booted))
        for index in range(len(self.gpu.devices)):
            self.files.put(f"/dev/nvidia{index}", Node(b"", 0o666, changed=booted))
        self.files.put("/dev/null", Node(b"", 0o666, changed=booted))

    def _first_units(self) -> None:
        for name, wanted in (("ssh", "enabled"), ("systemd-timesyncd", "enabled"), ("systemd-resolved", "enabled")):
            self.units.add(Unit(f"{name}.service", f"SIMULATED {name}", wanted=wanted), text="[Service]\n", active=True)
        self.units.add(Unit("swap.target", "Swaps", wanted="static"), text="[Unit]\n", active=True)
        self.units.add(Unit("multi-user.target", "Multi-User System", wanted="static"), text="[Unit]\n", active=True)
        if self.kernel.swaps:
            self.units.add(Unit("swap.img.swap", "/swap.img", wanted="generated"), active=True)
        for name in self.packages.installed:
            installs.configure(self, name, running=True)

    def now(self) -> float:
        """The host's clock, in seconds since 1970."""
        return time.time() + self.skew

    def clock(self) -> Clock:
        """Return a stopwatch for one session."""
        return Clock(self.scale)

    def has_program(self, name: str) -> bool:
        """Say whether a program is there: part of every host, or of a package that is installed."""
        if name == "nvidia-smi":
            return bool(self.gpu.devices) and self.gpu.trouble != "absent"
        needs = NEEDS.get(name)
        return needs is None or self.packages.has(*needs)

    def changed(self) -> None:
        """Tell the cluster that something about this host may be another now."""
        self.link.host_changed(self)

    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start work that outlives the session that began it; it ends with the host."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def kill(self, unit: str) -> bool:
        """Kill a transient unit with all it does, as SIGKILL would; False where none of that name runs."""
        task = self.operations.get(self.units.full(unit))
        return task is not None and task.cancel()

    async def close(self) -> None:
        """End everything that still runs."""
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reboot(self) -> None:
        """Do what a reboot does: /run is empty, kernel settings come from files, enabled units start."""
        for task in self.operations.values():
            task.cancel()
        for path in self.files.under("/run"):
            if not path.startswith(("/run/systemd/resolve", "/run/lock")):
                self.files.remove(path)
        self.kernel.reboot()
        self.boots, self.booted = self.boots + 1, self.now()
        self._load_kernel()
        masked = any(self.units.all[name].masked for name in ("swap.img.swap", "swap.target") if name in self.units.all)
        in_table = any(line.split()[2:3] == ["swap"] for line in self._table_lines())
        self.kernel.swaps = [("/swap.img", 4_194_300)] if in_table and not masked else []
        for unit in list(self.units.all.values()):
            if unit.transient:
                del self.units.all[unit.name]
                continue
            self.units.set(unit, "inactive", "dead")
        self.services.boot()
        if any(unit.active == "active" for _, unit in self.units.for_swap()):
            self.kernel.swaps = [*self.kernel.swaps, ("/dev/zram0", 4_194_300)]
        self.changed()

    def _table_lines(self) -> list[str]:
        return [line for line in self.files.text("/etc/fstab").splitlines() if not line.lstrip().startswith("#")]

    def _load_kernel(self) -> None:
        for name in self.files.names("/etc/modules-load.d") or ():
            for line in self.files.text(f"/etc/modules-load.d/{name}").splitlines():
                if line.strip() and not line.startswith("#"):
                    self.kernel.load(line.strip())
        if self.gpu.devices:
            self.kernel.modules["nvidia"] = None
        self.services.apply_sysctls()

    def digest(self) -> str:
        """Return one hash over files, packages, units and kernel: equal hashes mean that nothing was changed."""
        what = hashlib.sha256()
        for path, node in sorted(self.files.changes().items()):
            if not path.startswith("/run/"):
                what.update(f"{path}|{node}".encode())
        what.update(repr(sorted(self.packages.installed.items())).encode())
        units = [(u.name, u.active, u.wanted, u.masked, u.since) for u in self.units.all.values() if not u.transient]
        what.update(repr(sorted(units)).encode())
        kernel = (self.kernel.settings, list(self.kernel.modules), self.kernel.swaps, self.kernel.hostname)
        what.update(repr(kernel).encode())
        return what.hexdigest()


def _gpu_uuid(seed: int, name: str, index: int) -> str:
    digest = hashlib.md5(f"gpu/{seed}/{name}/{index}".encode(), usedforsecurity=False).hexdigest()
    return f"GPU-{uuid.UUID(digest)}"
