"""crictl: for the people who look at a host; nothing here depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import yaml

from shipway.edits.files import FileEdited
from shipway.edits.yaml import with_values
from shipway.errors import Blocked, Permanent
from shipway.facts.files import Listing
from shipway.foreign.yaml import read_yaml
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Drift, Impact

PACKAGE = "cri-tools"
OWN = Listing("/usr/local/bin")  # where people put a crictl of their own
FILE = "/etc/crictl.yaml"


@dataclass(frozen=True)
class CrictlInstalled:
    """crictl is installed where a repository offers it: from 1.32 on kubeadm's package does not bring it along."""

    impact: ClassVar[Impact] = Impact.SERVICE
    family: Family
    name: str = "crictl is installed, where a repository offers it"

    async def check(self, on: Host) -> Drift | None:
        """Ask what is offered only where the program is missing. Raises Blocked before kubeadm's packages."""
        package, kubeadm, own = await on.read(self.family.package(PACKAGE), self.family.package("kubeadm"), OWN)
        if (package is not None and package.sound) or "crictl" in own:
            return None
        if kubeadm is None:
            raise Blocked("kubeadm is not installed yet", host=on.name)
        if package is None and PACKAGE not in await self.family.offered(on, (PACKAGE,)):
            return None
        return Drift("missing" if package is None else "half installed", PACKAGE)

    async def apply(self, on: Host) -> None:
        """Install it."""
        await self.family.installed(self.name, {PACKAGE: None}).apply(on)


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
