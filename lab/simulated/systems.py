"""The operating systems a simulated host may run, as data: identity, kernel, base packages and files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from lab.simulated.files import Node, directory, link


@dataclass(frozen=True)
class System:
    """One operating system release as its cloud image is delivered."""

    id: str
    name: str
    version_id: str
    version: str
    codename: str
    kernel: str
    packages: tuple[tuple[str, str], ...]
    upgradable: tuple[tuple[str, str], ...] = ()
    archive: str = ""
    components: str = "main"

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


UBUNTU_2204 = System(
    id="ubuntu",
    name="Ubuntu",
    version_id="22.04",
    version="22.04.5 LTS",
    codename="jammy",
    kernel="5.15.0-134-generic",
    archive="http://archive.ubuntu.com/ubuntu",
    components="main restricted universe multiverse",
    packages=(
        ("apt", "2.4.13"),
        ("bash", "5.1-6ubuntu1.1"),
        ("ca-certificates", "20240203~22.04.1"),
        ("cloud-init", "24.4-0ubuntu1~22.04.1"),
        ("coreutils", "8.32-4.1ubuntu1.2"),
        ("curl", "7.81.0-1ubuntu1.18"),
        ("dbus", "1.12.20-2ubuntu4.1"),
        ("gpg", "2.2.27-3ubuntu2.1"),
        ("iproute2", "5.15.0-1ubuntu2"),
        ("iptables", "1.8.7-1ubuntu5.2"),
        ("kmod", "29-1ubuntu1"),
        ("linux-image-5.15.0-134-generic", "5.15.0-134.145"),
        ("linux-image-generic", "5.15.0.134.132"),
        ("openssh-server", "1:8.9p1-3ubuntu0.10"),
        ("mount", "2.37.2-4ubuntu3.4"),
        ("procps", "2:3.3.17-6ubuntu2.1"),
        ("sudo", "1.9.9-1ubuntu2.4"),
        ("systemd", "249.11-0ubuntu3.12"),
        ("systemd-timesyncd", "249.11-0ubuntu3.12"),
        ("util-linux", "2.37.2-4ubuntu3.4"),
    ),
    upgradable=(("openssl", "3.0.2-0ubuntu1.19"), ("linux-image-generic", "5.15.0.140.136")),
)
DEBIAN_12 = System(
    id="debian",
    name="Debian GNU/Linux",
    version_id="12",
    version="12 (bookworm)",
    codename="bookworm",
    kernel="6.1.0-28-amd64",
    archive="http://deb.debian.org/debian",
    packages=(
        ("apt", "2.6.1"),
        ("bash", "5.2.15-2+b7"),
        ("ca-certificates", "20230311"),
        ("coreutils", "9.1-1"),
        ("curl", "7.88.1-10+deb12u8"),
        ("dbus", "1.14.10-1~deb12u1"),
        ("gpg", "2.2.40-1.1"),
        ("iproute2", "6.1.0-3"),
        ("iptables", "1.8.9-2"),
        ("kmod", "30+20221128-1"),
        ("linux-image-amd64", "6.1.119-1"),
        ("openssh-server", "1:9.2p1-2+deb12u3"),
        ("mount", "2.38.1-5+deb12u3"),
        ("procps", "2:4.0.2-3"),
        ("sudo", "1.9.13p3-1+deb12u1"),
        ("systemd", "252.31-1~deb12u1"),
        ("systemd-timesyncd", "252.31-1~deb12u1"),
        ("util-linux", "2.38.1-5+deb12u3"),
    ),
    upgradable=(("openssl", "3.0.15-1~deb12u1"),),
)
SYSTEMS = {"ubuntu-22.04": UBUNTU_2204, "debian-12": DEBIAN_12}
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
