"""Stand-ins for NVIDIA's container toolkit packages: same names and dependencies, SIMULATED content."""

from __future__ import annotations

from pathlib import Path

from lab.containers.deb_builder import Deb
from lab.containers.places import ASSETS

NOTE = "SIMULATED by the lab: no NVIDIA software is in this package.\n"


def nvidia_debs(stand_ins: Path, version: str) -> list[Deb]:
    """Return the four packages that `apt-get install nvidia-container-toolkit` brings."""
    scripts = ASSETS / "nvidia"
    return [
        Deb(
            name="libnvidia-container1",
            version=version,
            summary="NVIDIA container runtime library (SIMULATED)",
            texts={"/usr/share/lab-nvidia/libnvidia-container1": NOTE},
        ),
        Deb(
            name="libnvidia-container-tools",
            version=version,
            summary="NVIDIA container runtime library tools (SIMULATED)",
            files={"/usr/bin/nvidia-container-cli": scripts / "nvidia-container-cli"},
            fields={"Depends": f"libnvidia-container1 (>= {version})"},
        ),
        Deb(
            name="nvidia-container-toolkit-base",
            version=version,
            summary="NVIDIA container toolkit base (SIMULATED)",
            files={
                "/usr/bin/nvidia-ctk": scripts / "nvidia-ctk",
                "/usr/bin/nvidia-container-runtime": stand_ins / "lab-runtime",
            },
            fields={"Depends": "python3"},
        ),
        Deb(
            name="nvidia-container-toolkit",
            version=version,
            summary="NVIDIA container toolkit (SIMULATED)",
            files={
                "/usr/bin/nvidia-container-runtime-hook": scripts / "nvidia-container-runtime-hook",
                "/etc/nvidia-container-runtime/config.toml": scripts / "config.toml",
            },
            fields={
                "Depends": f"nvidia-container-toolkit-base (= {version}), libnvidia-container-tools (>= {version})"
            },
            conffiles=("/etc/nvidia-container-runtime/config.toml",),
        ),
    ]
