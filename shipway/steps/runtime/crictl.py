"""crictl: for the people who look at a host; nothing here depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from shipway.edits.yaml import with_values
from shipway.errors import Blocked, Permanent
from shipway.facts.commands import Says
from shipway.facts.files import Listing
from shipway.facts.packages import Package
from shipway.foreign.yaml import read_yaml
from shipway.host.session import Host
from shipway.step import Drift
from shipway.steps.system.files import FileEdited
from shipway.steps.system.packages import PackagesInstalled, offers

PACKAGE = "cri-tools"
OWN = Listing("/usr/local/bin")  # where people put a crictl of their own
FILE = "/etc/crictl.yaml"
OFFERED = Says(("apt-cache", "madison", PACKAGE))


@dataclass(frozen=True)
class CrictlInstalled(PackagesInstalled):
    """crictl is installed where a repository offers it: from 1.32 on kubeadm's package does not bring it along."""

    name: str = "crictl is installed, where a repository offers it"
    packages: Mapping[str, str | None] = field(default_factory=lambda: {PACKAGE: None})

    async def check(self, on: Host) -> Drift | None:
        """Ask dpkg; apt is only asked where the program is missing. Raises Blocked before kubeadm's packages."""
        package, kubeadm, own = await on.read(Package(PACKAGE), Package("kubeadm"), OWN)
        if (package is not None and package.sound) or "crictl" in own:
            return None
        if kubeadm is None:
            raise Blocked("kubeadm is not installed yet", host=on.name)
        if package is None and PACKAGE not in offers((await on.read(OFFERED)).stdout):
            return None
        return Drift("missing" if package is None else "half installed", PACKAGE)


def crictl_finds(endpoint: str) -> FileEdited:
    """Return the step that names containerd's socket in crictl's file; what people set beside it stays."""

    def edit(text: str) -> str:
        want = {"runtime-endpoint": endpoint, "image-endpoint": endpoint}
        try:
            if read_yaml(text) is None:  # empty, or nothing but comments
                return text + "".join(f"{key}: {value}\n" for key, value in want.items())
            return with_values(text, want)
        except (ValueError, yaml.YAMLError) as error:
            fix = f"Correct or remove {FILE} on the host (`crictl config --list` reads it), then run again."
            raise Permanent(f"{FILE} cannot be read: {error}", code="SHW-343", fix=fix) from error

    return FileEdited("crictl finds containerd", FILE, edit, endpoint)
