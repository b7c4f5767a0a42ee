"""The hosts' root file system: Debian 12 with systemd, sshd and sudo, as a cloud image, with nothing of Kubernetes."""

from __future__ import annotations

from pathlib import Path

from lab.containers.commands import run
from lab.containers.debian import Apt, sources_of
from lab.containers.places import ASSETS

CODENAME = "bookworm"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "openssh-server",
    "sudo",
    "python3",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "procps",
    "mount",
    "gpg",
    "gpgv",
    "ca-certificates",
    "debian-archive-keyring",
    "netbase",
)
USER = "ops"
RECIPE = f"2 {CODENAME} {PACKAGES} {USER}"


def build_host_image(into: Path) -> None:
    """Build rootfs.tar (what the engine imports) and dpkg-status (what counts as installed) into a folder; ~40 s."""
    sources = into / "sources.list"
    sources.write_text(
        "".join(
            f"deb {f'[signed-by={each.signed_by}] ' if each.signed_by else ''}{each.uri} {each.suite} main\n"
            for each in sources_of(CODENAME)
        )
    )
    hook = ASSETS / "host" / "customize.sh"
    run(
        *("nice", "-n", "5", "mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        # What dpkg writes is not synced to disk, as in every container image: a crash loses the host anyway.
        *(
            "--dpkgopt=force-unsafe-io",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
        ),
        *("--aptopt=APT::Install-Recommends false", "--aptopt=Acquire::Languages none"),
        f"--customize-hook={hook} $1 {ASSETS / 'host'} {USER}",
        f"--customize-hook=cp $1/var/lib/dpkg/status {into}/dpkg-status",
        *(CODENAME, into / "rootfs.tar", sources),
        env={"SOURCE_DATE_EPOCH": "1700000000"},
        seconds=1200,
    )
    sources.unlink()


def host_apt(folder: Path, status: Path) -> Apt:
    """Return apt as such a host would see it: its packages are installed already."""
    return Apt(folder, CODENAME, status=status)
