"""Stand-ins for NVIDIA's container toolkit packages: same names and dependencies, SIMULATED content."""

from __future__ import annotations

from pathlib import Path

from lab.containers.deb_builder import Deb
from lab.containers.places import ASSETS

NOTE = "SIMULATED by the lab: no NVIDIA software is in this package.\n"


MIG_MANAGER = "/etc/nvidia-mig-manager"
# Which hooks count follows the GPUs, as in NVIDIA's package: from Hopper on nothing is stopped around a change.
_HOOKS = f"""#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
if [ ! -e {MIG_MANAGER}/hooks.yaml ]; then
    case $(nvidia-smi -i 0 --query-gpu=compute_cap --format=csv,noheader 2>/dev/null) in
        9.* | [1-9][0-9].*) ln -s hooks-minimal.yaml {MIG_MANAGER}/hooks.yaml ;;
        *) ln -s hooks-default.yaml {MIG_MANAGER}/hooks.yaml ;;
    esac
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable nvidia-mig-manager.service
fi
"""


def _mig_manager(scripts: Path) -> Deb:
    """Return NVIDIA's MIG manager: the program, its hooks, and the unit that makes its layouts at each boot."""
    override = "/etc/systemd/system/nvidia-mig-manager.service.d/override.conf"
    names = ("hooks.sh", "hooks-default.yaml", "hooks-minimal.yaml", "service.sh")
    return Deb(
        name="nvidia-mig-manager",
        version="0.15.0-1",
        summary="NVIDIA MIG Partition Editor and Systemd Service (SIMULATED)",
        files={
            "/usr/bin/nvidia-mig-parted": scripts / "nvidia-mig-parted",
            "/lib/systemd/system/nvidia-mig-manager.service": scripts / "nvidia-mig-manager.service",
            override: scripts / "override.conf",
            **{f"{MIG_MANAGER}/{name}": scripts / name for name in names},
        },
        fields={"Depends": "python3"},
        scripts={"postinst": _HOOKS},
        conffiles=(override,),
    )


def nvidia_debs(stand_ins: Path, version: str) -> list[Deb]:
    """Return the four packages that `apt-get install nvidia-container-toolkit` brings, and the one for MIG."""
    scripts = ASSETS / "nvidia"
    return [
        _mig_manager(scripts / "mig"),
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
                "/usr/bin/nvidia-cdi-hook": scripts / "nvidia-cdi-hook",
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
