"""Building one .deb from a description: control fields, files, maintainer scripts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from lab.containers.commands import run

MAINTAINER = "Shipway lab <lab@localhost>"


@dataclass(frozen=True)
class Deb:
    """A package: `files` maps a path on the host to a file here, `texts` to text, `links` to a link's target.

    `tree` is a folder to start from; programs get mode 0755, other files 0644.
    """

    name: str
    version: str
    summary: str
    files: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()
    tree: Path | None = None

    def control(self) -> str:
        """Return the control file."""
        base = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": "amd64",
            "Maintainer": MAINTAINER,
            "Section": "admin",
            "Priority": "optional",
            **self.fields,
            "Description": self.summary,
        }
        return "".join(f"{key}: {value}\n" for key, value in base.items())

    def build(self, work: Path, into: Path) -> None:
        """Build the package below `work` and put it into a folder."""
        root = work / self.name
        shutil.rmtree(root, ignore_errors=True)
        if self.tree:
            shutil.copytree(self.tree, root, symlinks=True)
        for target, source in self.files.items():
            self._place(root, target).write_bytes(source.read_bytes())
        for target, text in self.texts.items():
            self._place(root, target).write_text(text)
        for target in [*self.files, *self.texts]:
            program = target.startswith(("/usr/bin/", "/usr/sbin/", "/opt/cni/bin/"))
            (root / target.lstrip("/")).chmod(0o755 if program else 0o644)
        for target, source_path in self.links.items():
            self._place(root, target).symlink_to(source_path)
        meta = root / "DEBIAN"
        meta.mkdir(parents=True)
        (meta / "control").write_text(self.control())
        if self.conffiles:
            (meta / "conffiles").write_text("".join(f"{path}\n" for path in self.conffiles))
        for name, text in self.scripts.items():
            (meta / name).write_text(text)
            (meta / name).chmod(0o755)
        # zstd at its fastest: these packages live for one lab, and dpkg of Debian 12 and Ubuntu 22.04 read it.
        run("dpkg-deb", "--root-owner-group", "-Zzstd", "-z1", "--build", root, into)
        shutil.rmtree(root)

    @staticmethod
    def _place(root: Path, target: str) -> Path:
        path = root / target.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
