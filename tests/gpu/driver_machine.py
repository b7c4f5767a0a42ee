"""A Debian host with GPUs and no driver, as its programs tell of it: nothing here is a recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shipway.gpu.driver.generations import SPACES
from shipway.gpu.driver.imex import CONFIG, NODES_OF_CHANNELS
from shipway.gpu.driver.packages import versions_of
from shipway.gpu.nvidia.answers import NVIDIA, REPORT
from shipway.os.debian import drivers
from shipway.script import Output
from shipway.steps.gpu.driver.choice import MANAGED
from shipway.steps.gpu.driver.holders import ENDED, HOLDERS
from shipway.steps.gpu.driver.refusals import LIBRARY, SECURE_BOOT, VIRTUAL
from shipway.steps.maintain.restart import IMAGES
from tests.os.debian_machine import DebianMachine
from tests.os.machine import Installed, Words

KERNEL = "6.1.0-18-amd64"
# As much of the package's config.cfg as is known, with other software's line.
PACKAGED = (
    b"# NVIDIA IMEX configuration file.\nLOG_LEVEL=4\nSERVER_PORT=50000\nIMEX_CMD_ENABLED=0\n"
    b"IMEX_CMD_PORT=50005\nIMEX_CMD_UNIX_DOMAIN_PATH=\nSOMEBODY=1\n"
)
GB200, GB300, GH200, B300 = 0x2941, 0x31C2, 0x2342, 0x3182
H100, A100, P40, B200, L40S, UNKNOWN, SWITCH = 0x2330, 0x20B0, 0x1B38, 0x2901, 0x26B9, 0x0123, 0x22A3
V1, V2 = "580.95.05", "580.105.08"
# NVIDIA's repository for Debian, as far as a host needs it: the packages that are named bring the others.
BRINGS = {
    "nvidia-driver-cuda": ("libcuda1", "libnvidia-ml1", "nvidia-smi"),
    "nvidia-kernel-open-dkms": ("nvidia-kernel-support",),
}
# Debian's own archive, of Debian 12: parts that have versions of their own are so there.
DEBIAN_535 = "535.261.03"
OF_DEBIAN = {
    "nvidia-modprobe": "535.161.07-1~deb12u1",
    "nvidia-persistenced": "535.171.04-1~deb12u1",
    "nvidia-settings": "535.247.01-1~deb12u1",
    **dict.fromkeys(
        (
            *("nvidia-kernel-dkms", "nvidia-open-kernel-dkms", "nvidia-kernel-support", "nvidia-open-kernel-support"),
            *("firmware-nvidia-gsp", "libcuda1", "libnvidia-nvvm4", "libnvidia-ml1", "libnvidia-cfg1", "nvidia-smi"),
            *("libnvidia-pkcs11-openssl3", "nvidia-alternative", "nvidia-opencl-icd"),
        ),
        f"{DEBIAN_535}-1",
    ),
}
BRINGS_OF_DEBIAN = {
    "nvidia-kernel-dkms": ("nvidia-kernel-support", "nvidia-modprobe"),
    "nvidia-open-kernel-dkms": ("nvidia-open-kernel-support", "nvidia-modprobe"),
    "libcuda1": ("libnvidia-pkcs11-openssl3", "nvidia-alternative"),
    "nvidia-smi": ("libnvidia-ml1",),
}
OF_CUDA = (*BRINGS, *(one for some in BRINGS.values() for one in some), "nvidia-persistenced", "nvidia-kernel-dkms")


def space(device: int, kind: str = "0302", *, virtual: bool = False, vendor: int = 0x10DE) -> str:
    """Return the configuration space of a device, as `SPACES` prints it behind the address."""
    data = bytearray(256)
    data[0:2], data[2:4] = vendor.to_bytes(2, "little"), device.to_bytes(2, "little")
    data[10:12] = bytes.fromhex(kind)[::-1]
    if virtual:
        data[6], data[0x34] = 0x10, 0x40
        data[0x40:0x42], data[0x50:0x55] = b"\x05\x50", b"\x09\x00\x10VF"
    return data.hex(" ")


def of_debian(**more: Any) -> DriverMachine:
    """Return a Debian 12 whose own archive offers its driver, and whose kernel has its headers."""
    odd = {name: version for name, version in OF_DEBIAN.items() if DEBIAN_535 not in version}
    entry = "/etc/apt/sources.list.d/debian.sources:1|http://deb.debian.org/debian/|bookworm"
    told: dict[str, Any] = {
        "offered": {name: [version] for name, version in OF_DEBIAN.items()},
        "brings": dict(BRINGS_OF_DEBIAN),
        "odd": odd,
        "module": "nvidia-current",
        "targets": "".join(f"{entry}|{part}\n" for part in ("main", "contrib", "non-free", "non-free-firmware")),
        **more,
    }
    host = DriverMachine(**told)
    host.packages |= {
        f"linux-headers-{KERNEL}": Installed("1"),
        "nvidia-settings": Installed(odd["nvidia-settings"]),
        "nvidia-opencl-icd": Installed(f"{DEBIAN_535}-1"),
    }
    return host


def offers(*versions: str) -> dict[str, list[str]]:
    """Return what NVIDIA's repository for Debian offers, the newest first."""
    return {name: [f"{one}-1" for one in versions] for name in OF_CUDA}


@dataclass
class DriverMachine(DebianMachine):
    """Answers as such a host; `devices` are ids and classes, `brings` what comes with a package, `odd` its version.

    `mods` are the kernels that have the driver's module, `builds` says whether a package's script builds one.
    """

    release: str = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
    devices: tuple[tuple[int, str], ...] = ((H100, "0302"), (H100, "0302"))
    virtual: bool = False
    boot: str = "SecureBoot disabled"
    holders: str = ""
    library: str = ""
    owned: tuple[str, ...] = ()
    kernels: tuple[str, ...] = (KERNEL,)
    running: str = KERNEL
    mods: set[str] = field(default_factory=set)
    module: str = "nvidia"
    targets: str = ""
    builds: bool = True
    refuses_load: str = ""
    brings: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(BRINGS))
    odd: dict[str, str] = field(default_factory=dict)
    units: dict[str, list[str]] = field(default_factory=dict)
    managed: bool = False
    imex: str = "READY\n"
    starts: dict[str, int] = field(default_factory=dict)
    report: str = ""
    channels: str = ""
    images_at: int = 5
    installs: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dkms", "linux-image-amd64", "linux-headers-amd64"):
            self.packages.setdefault(name, Installed("1"))
        self.offered = self.offered or offers(V2, V1)

    @property
    def driver(self) -> str:
        """The version of the installed driver."""
        found = versions_of({name: one.version for name, one in self.packages.items()})
        return min(found, default="")

    def program(self, words: Words) -> Output:  # noqa: C901, PLR0911, PLR0912 - a row each program
        """Answer as the programs of such a host do."""
        facts = (
            SPACES,
            HOLDERS,
            SECURE_BOOT,
            LIBRARY,
            VIRTUAL,
            IMAGES,
            MANAGED,
            drivers.KERNELS,
            drivers.BUILDS,
            drivers.INITRDS,
            NODES_OF_CHANNELS,
        )
        for fact in facts:
            if words == fact.command:
                return self._tells(fact)
        if words == NVIDIA.probe.words() or words[: len(NVIDIA.probe.command)] == NVIDIA.probe.command:
            return Output(9, "NVIDIA-SMI has failed", "")
        if words == REPORT.words():
            return Output(0 if self.report else 9, self.report, "")
        match words:
            case ("uname", "-r"):
                return Output(0, f"{self.running}\n", "")
            case ("find", "/lib/modules", *_):
                lines = [f"/lib/modules/{one}/updates/dkms/{self.module}.ko\n" for one in sorted(self.mods)]
                return Output(0, "".join(lines), "")
            case ("dkms", "status"):
                lines = [f"nvidia/{self.driver}, {one}, x86_64: installed\n" for one in sorted(self.mods)]
                return Output(0, "".join(lines), "")
            case ("dkms", "autoinstall", "-k", kernel):
                self.mods.add(kernel)
            case ("apt-get", "indextargets", *_):
                return Output(0, self.targets, "")
            case ("apt-cache", "pkgnames"):
                return Output(0, "".join(f"{name}\n" for name in self.offered), "")
            case ("dpkg", "-S", path):
                return Output(0, "x", "") if path in self.owned else Output(1, "", "no path found")
            case ("modprobe", "nvidia"):
                if self.refuses_load:
                    return Output(1, "", self.refuses_load)
                self.files["/sys/module/nvidia/version"] = f"{self.driver}\n".encode()
            case ("modprobe", module):
                self.files[f"/sys/module/{module}/refcnt"] = b"0"
            case ("sleep", _):
                pass
            case ("nvidia-modprobe", *_):
                self.files |= {f"/dev/{name}": b"" for name in ("nvidia0", "nvidia-uvm", "nvidiactl")}
            case ("env", "TZ=UTC", "systemctl", "show", *rest):
                return Output(0, "\n".join(self._unit(one) for one in rest[rest.index("--") + 1 :]), "")
            case ("systemctl", verb, *_, unit) if verb in ("enable", "unmask", "start"):
                self.units[unit][verb == "enable"] = {"enable": "enabled", "start": "active"}.get(
                    verb, self.units[unit][0]
                )
            case ("systemctl", "stop" | "restart" | "disable" | "mask" as verb, *_, unit):
                self._systemctl(verb, unit.removesuffix(".service"))
            case ("nvidia-imex-ctl", "-q", "-u", _):
                runs = self.units.get("nvidia-imex", [""])[0] == "active"
                return Output(0, self.imex, "") if runs else Output(1, "", "connection refused")
            case ("update-initramfs", *_):
                self.images_at = 10
            case (("nv-fabricmanager" | "lspci" | "mokutil"), *_):
                return Output(127, "", "not found")
            case _:
                return super().program(words)
        return Output(0, "", "")

    def _tells(self, fact: Any) -> Output:
        """Return what one of the scripts prints."""
        if fact == SPACES:
            lines = [
                f"0000:{at:02x}:00.0  {space(ident, kind, virtual=self.virtual)}"
                for at, (ident, kind) in enumerate(self.devices)
            ]
            return Output(0, "\n".join(lines), "")
        texts = {
            HOLDERS: f"{self.holders}{ENDED}\n",
            SECURE_BOOT: self.boot,
            LIBRARY: self.library,
            VIRTUAL: "",
            IMAGES: "".join(f"{at} /boot/vmlinuz-{one}\n" for at, one in enumerate(self.kernels)),
            MANAGED: "x\n" if self.managed else "",
            drivers.KERNELS: "\n".join([self.running, *(f"/boot/vmlinuz-{one}" for one in self.kernels)]),
            drivers.BUILDS: "".join(
                f"/lib/modules/{name.removeprefix('linux-headers-')}/build\n" for name in self.packages
            ),
            drivers.INITRDS: f"{self.images_at}\n",
            NODES_OF_CHANNELS: self.channels,
        }
        return Output(0 if texts[fact] or fact != MANAGED else 1, texts[fact], "")

    def _unit(self, name: str) -> str:
        unit = name.removesuffix(".service")
        if unit not in self.units:
            return f"Id={name}\nLoadState=not-found\nActiveState=inactive\n"
        active, enabled = self.units[unit]
        load = "masked" if enabled == "masked" else "loaded"
        start = f"InvocationID={self.starts[unit]}\n" if unit in self.starts else ""
        return f"Id={name}\nLoadState={load}\nActiveState={active}\nUnitFileState={enabled}\n{start}"

    def _systemctl(self, verb: str, unit: str) -> None:
        """Do what takes a unit away, and start one anew: no masked one, and each start is another one."""
        state = self.units.setdefault(unit, ["inactive", ""])
        if verb == "restart":
            assert state[1] != "masked"
            state[0], self.starts[unit] = "active", self.starts.get(unit, 0) + 1
        elif verb == "stop":
            state[0] = "inactive"
        else:
            state[1] = f"{verb}{'d' if verb.endswith('e') else 'ed'}"

    def _get(self, rest: list[str]) -> Output:  # noqa: C901 - a row each way
        """Simulate and install what is named, with what it brings in the same version."""
        if "--" not in rest:
            return super()._get(rest)
        words = rest[rest.index("--") + 1 :]
        asked = dict(one.partition("=")[::2] for one in words if not one.endswith("-"))
        for name, version in asked.items():
            if version and version not in self.offered.get(name, ()):
                return Output(100, "", f"E: Version '{version}' for '{name}' was not found\nE: Unable to correct\n")
        whole = dict(asked)
        for name, version in asked.items():
            for other in self.brings.get(name, ()):
                whole.setdefault(other, self.odd.get(other, version))
        coming = {name: version or "1" for name, version in whole.items() if self._has(name) != (version or "1")}
        named = [one.removesuffix("-") for one in words if one.endswith("-")]
        named += [other for name in coming for other in self.removes.get(name, ())]
        gone = [name for name in dict.fromkeys(named) if name in self.packages]
        if "-s" in rest:
            lines = [f"Remv {name} [{self._has(name)}]\n" for name in gone]
            lines += [
                f"Inst {name}{f' [{self._has(name)}]' if self._has(name) else ''} ({new} x [amd64])\n"
                for name, new in coming.items()
            ]
            return Output(0, "".join(lines), "")
        self.locked()
        self.installs.append(sorted(words))
        for name in gone:
            assert "--no-remove" not in rest
            del self.packages[name]
        for name, version in coming.items():
            self.packages[name] = Installed(version, held=name in self.packages and self.packages[name].held)
            if name.endswith("-dkms") and self.builds:
                self.mods |= {one for one in self.kernels if f"linux-headers-{one}" in self.packages}
            if name in ("nvidia-persistenced", "nvidia-fabricmanager"):
                self.units.setdefault(name, ["inactive", "disabled"])
            if name == "nvidia-imex":  # its package starts it, unless it is masked
                self.units.setdefault(name, ["active", "enabled"])
                self.files.setdefault(CONFIG, PACKAGED)
        return Output(0, "", "")

    def _has(self, name: str) -> str:
        return self.packages[name].version if name in self.packages else ""

    def restart(self) -> None:
        """Start anew: what is installed is loaded, where the kernel has it."""
        self.files = {path: data for path, data in self.files.items() if not path.startswith(("/sys/module/", "/dev/"))}
        self.files.pop("/proc/modules", None)
        self.running = self.kernels[-1]
        if self.running in self.mods:
            self.files["/sys/module/nvidia/version"] = f"{self.driver}\n".encode()
