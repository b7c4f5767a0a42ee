"""A simulated host's kernel: modules, settings and swap, and what /proc and /sys show of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.simulated import recorded

_KNOWN = recorded.table("kernel.yaml")
_DRIVERS = "/sys/bus/pci/drivers"
_FILESYSTEMS = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\n\text4\n"


@dataclass
class Kernel:
    """One host's kernel; swap is a list of (device, size in KiB)."""

    release: str
    hostname: str
    cpus: int = 8
    memory_kib: int = 65_536_000
    cgroup: int = 2
    pci: list[tuple[str, str]] = field(default_factory=list)  # (address, device id) of NVIDIA's display controllers
    held: dict[str, str] = field(default_factory=dict)  # PCI address -> its driver, "" for none; others have nvidia
    log: list[str] = field(default_factory=list)  # lines that dmesg shows
    settings: dict[str, str] = field(default_factory=lambda: dict(_KNOWN["settings"]))
    modules: dict[str, None] = field(default_factory=dict)
    swaps: list[tuple[str, int]] = field(default_factory=lambda: [("/swap.img", 4_194_300)])
    extra: dict[str, bytes] = field(default_factory=dict)

    @staticmethod
    def knows(module: str) -> bool:
        """Tell whether the kernel has a module of that name."""
        return module.replace("-", "_") in _KNOWN["modules"]

    def load(self, module: str) -> bool:
        """Load a module and what it brings; False where the kernel has none of that name."""
        if not self.knows(module):
            return False
        module = module.replace("-", "_")
        self.modules[module] = None
        for key, value in _KNOWN.get(f"with {module}", {}).items():
            self.settings.setdefault(key, value)
        return True

    def set(self, key: str, value: str) -> bool:
        """Set a kernel setting; False where there is none of that name."""
        if key not in self.settings:
            return False
        self.settings[key] = value
        if key == "net.ipv4.ip_forward":
            self.settings["net.ipv4.conf.all.forwarding"] = value
        return True

    def reboot(self) -> None:
        """Forget what a reboot forgets."""
        self.settings, self.modules = dict(_KNOWN["settings"]), {}

    def read(self, path: str) -> bytes | None:
        """Return a computed file."""
        if path in self.extra:
            return self.extra[path]
        if path == "/proc/sys/kernel/hostname":
            return f"{self.hostname}\n".encode()
        if path.startswith("/proc/sys/"):
            value = self.settings.get(path[len("/proc/sys/") :].replace("/", "."))
            return None if value is None else f"{value}\n".encode()
        text = self._proc(path) if path.startswith("/proc/") else self._sys(path)
        return None if text is None else text.encode()

    def _proc(self, path: str) -> str | None:
        if path == "/proc/swaps":
            head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
            return head + "".join(f"{name:<40}file\t\t{size}\t\t0\t\t-2\n" for name, size in self.swaps)
        if path == "/proc/modules":
            return "".join(f"{name} 16384 0 - Live 0x0000000000000000\n" for name in reversed(self.modules))
        if path == "/proc/filesystems":
            return _FILESYSTEMS + ("nodev\toverlay\n" if "overlay" in self.modules else "")
        if path == "/proc/meminfo":
            free = self.memory_kib - 2_000_000
            return f"MemTotal:       {self.memory_kib} kB\nMemFree:        {free} kB\nMemAvailable:   {free} kB\n"
        if path == "/proc/cpuinfo":
            return "".join(f"processor\t: {index}\nmodel name\t: SIMULATED\n\n" for index in range(self.cpus))
        return "0.10 0.05 0.01 1/200 4242\n" if path == "/proc/loadavg" else None

    def _sys(self, path: str) -> str | None:
        if not path.startswith("/sys/"):
            return None
        if self.cgroup == 2 and path == "/sys/fs/cgroup/cgroup.controllers":
            return "cpuset cpu io memory hugetlb pids rdma misc\n"
        for address, device in self.pci:
            folder = f"/sys/bus/pci/devices/{address}/"
            if path.startswith(folder):
                known = {"vendor": "0x10de\n", "device": f"{device}\n", "class": "0x030200\n"}
                return known.get(path[len(folder) :])
        return None

    def names(self, path: str) -> list[str] | None:
        """Return the names in a computed directory."""
        if path == "/sys/bus/pci/devices":
            return ["0000:00:00.0", *(address for address, _ in self.pci)]
        if path.startswith("/sys/bus/pci/devices/") and any(path.endswith(address) for address, _ in self.pci):
            return ["class", "device", "vendor"]
        if f"{path}/".startswith(f"{_DRIVERS}/"):
            return self._drivers(path[len(_DRIVERS) + 1 :])
        if f"{path}/".startswith("/sys/module/"):
            name = path[len("/sys/module/") :]
            return sorted(self.modules) if not name else [] if name in self.modules else None
        if path == "/proc/sys" or path.startswith("/proc/sys/"):
            return self._settings_below(path[len("/proc/sys") :].strip("/").replace("/", "."))
        return [] if path in ("/proc", "/sys", "/sys/fs/cgroup") else None

    def _drivers(self, name: str) -> list[str] | None:
        """Return the drivers that hold a GPU, or the addresses that one of them holds."""
        usual = "nvidia" if "nvidia" in self.modules else ""
        bound = {address: self.held.get(address, usual) for address, _ in self.pci}
        if not name:
            return sorted({driver for driver in bound.values() if driver})
        return [address for address, driver in bound.items() if driver == name] or ([] if name in bound else None)

    def _settings_below(self, start: str) -> list[str] | None:
        """Return the next parts of the settings' names below a part of them."""
        start = f"{start}." if start else ""
        found = {key[len(start) :].split(".", 1)[0] for key in self.settings if key.startswith(start)}
        return sorted(found) or None

    def write(self, path: str, content: bytes) -> bool:
        """Take a setting written through /proc/sys."""
        return path.startswith("/proc/sys/") and self.set(
            path[len("/proc/sys/") :].replace("/", "."), content.decode(errors="replace").strip()
        )
