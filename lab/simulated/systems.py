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


@lru_cache(maxsize=8)
def base_files(system: System) -> dict[str, Node]:
    """Return the files that every new host of a system has; shared by all hosts and never changed."""
    ubuntu = system.id == "ubuntu"
    pockets = "".join(
        f"deb {system.archive} {system.codename}{pocket} {system.components}\n" for pocket in ("", "-updates")
    )
    [base] = recorded.documents(
        "base_files.yaml",
        os_release=system.os_release(),
        debian_version="bookworm/sid" if ubuntu else "12.9",
        sources=pockets,
    )
    files = {path: directory() for path in base["folders"]}
    files |= {"/tmp": directory(0o1777), "/root": directory(0o700), "/home/ops": directory(0o755, "ops:ops")}
    files |= {path: link(target) for path, target in base["links"].items()}
    files |= {path: Node(text.encode()) for path, text in base["files"].items()}
    files[f"/boot/vmlinuz-{system.kernel}"] = Node(b"SIMULATED\n")
    files["/swap.img"] = Node(b"", 0o600)
    return files
