"""The operating systems a simulated host may run: identity, kernel, base packages and files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lab.simulated import recorded
from lab.simulated.files import Node, directory, link


@dataclass(frozen=True)
class System:
    """One operating system release: what its cloud image has installed, and what its archive offers beside that."""

    id: str
    name: str
    version_id: str
    version: str
    codename: str
    kernel: str
    packages: tuple[tuple[str, str], ...]
    upgradable: tuple[tuple[str, str], ...]
    offers: tuple[tuple[str, str], ...]
    archive: str
    components: str

    @property
    def pretty(self) -> str:
        """What /etc/os-release calls PRETTY_NAME, and a node its osImage."""
        return f"{self.name} {self.version}"

    def os_release(self) -> str:
        """Return /etc/os-release."""
        lines = [
            f'PRETTY_NAME="{self.pretty}"',
            f'NAME="{self.name}"',
            f'VERSION_ID="{self.version_id}"',
            f'VERSION="{self.version}"',
            f"VERSION_CODENAME={self.codename}",
            f"ID={self.id}",
        ]
        return "\n".join([*lines, "ID_LIKE=debian"] if self.id == "ubuntu" else lines) + "\n"


def _system(row: dict[str, Any]) -> System:
    fields: dict[str, Any] = {
        key: tuple(value.items()) if isinstance(value, dict) else value for key, value in row.items()
    }
    return System(**fields)


SYSTEMS = {name: _system(row) for name, row in recorded.table("systems.yaml").items()}
# Folders that a shell expects; everything else comes with packages or is made by commands.
_FOLDERS = (
    *("/boot", "/etc/apt/keyrings", "/etc/apt/sources.list.d", "/etc/apt/preferences.d", "/etc/apt/apt.conf.d"),
    *("/etc/modules-load.d", "/etc/modprobe.d", "/etc/sysctl.d", "/etc/systemd/system", "/home/ops/.ssh", "/opt"),
    *("/root", "/run/lock", "/run/systemd/system", "/srv", "/usr/share/keyrings", "/usr/local/bin", "/usr/bin"),
    *("/var/cache/apt/archives", "/var/lib/apt/lists", "/var/lib/dpkg", "/var/log", "/var/tmp"),
)
_RESOLVED = "nameserver 10.0.0.2\noptions edns0 trust-ad\nsearch .\n"
_STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"


@lru_cache(maxsize=8)
def base_files(system: System) -> dict[str, Node]:
    """Return the files that every new host of a system has; shared by all hosts and never changed."""
    files = {path: directory() for path in _FOLDERS}
    files |= {"/tmp": directory(0o1777), "/root": directory(0o700), "/home/ops": directory(0o755, "ops:ops")}
    files |= {"/var/run": link("/run"), "/bin": link("usr/bin"), "/sbin": link("usr/sbin"), "/lib": link("usr/lib")}
    texts = {
        "/usr/lib/os-release": system.os_release(),
        "/etc/debian_version": "bookworm/sid\n" if system.id == "ubuntu" else "12.9\n",
        "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\nops:x:1000:1000::/home/ops:/bin/bash\n",
        "/etc/group": "root:x:0:\nsudo:x:27:ops\nops:x:1000:\n",
        "/etc/apt/sources.list": "".join(
            f"deb {system.archive} {system.codename}{pocket} {system.components}\n" for pocket in ("", "-updates")
        ),
        "/etc/modules-load.d/modules.conf": "# kernel modules to load at boot time, one a line\n",
        "/run/systemd/resolve/resolv.conf": _RESOLVED,
        "/run/systemd/resolve/stub-resolv.conf": _STUB,
        "/etc/fstab": (
            "# SIMULATED\nUUID=5f0c6ba1-3b35-4cf9-9df2-f1d1a1d0a6c1 / ext4 defaults 0 1\n/swap.img\tnone\tswap\tsw\t0\t0\n"
        ),
        "/var/lib/dpkg/lock-frontend": "",
        f"/boot/vmlinuz-{system.kernel}": "SIMULATED\n",
    }
    files |= {path: Node(text.encode()) for path, text in texts.items()}
    files["/etc/os-release"] = link("../usr/lib/os-release")
    files["/etc/resolv.conf"] = link("../run/systemd/resolve/stub-resolv.conf")
    files["/swap.img"] = Node(b"", 0o600)
    return files
