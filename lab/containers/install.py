"""Installs with apt-get the Debian packages that the lab needs on a new machine."""

from __future__ import annotations

from lab.containers.commands import run, say
from lab.containers.machine import missing_packages


def install() -> list[str]:
    """Install what is missing; gives the packages. Raises LabError with apt's last lines."""
    packages = missing_packages()
    if packages:
        say(f"installing {' '.join(packages)}")
        settings = {"DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "-q", "update", seconds=300)
        words = ("-q", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300")
        run("nice", "-n", "5", "apt-get", *words, *packages, env=settings, seconds=1800)
    return packages


if __name__ == "__main__":
    install()
