"""Debian packages of any suite, fetched with apt from wherever this machine's own apt sources point."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lab.containers.commands import LabError, run

SOURCES = Path("/etc/apt")


@dataclass(frozen=True)
class Source:
    """One line of apt sources: where, which suite, which key file signs it."""

    uri: str
    suite: str
    signed_by: str


def machine_codename() -> str:
    """Return the machine's Debian codename, as /etc/os-release says it; raises LabError on another system."""
    release: dict[str, str] = dict(
        re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE)
    )
    if release.get("ID") != "debian":
        raise LabError(f"the lab builds from Debian packages, and this machine runs {release.get('ID')}; use Debian 12")
    return release["VERSION_CODENAME"]


def machine_sources() -> list[Source]:
    """Return the Debian sources of this machine (deb822 and one-line files), those of other vendors left out."""
    found: list[Source] = []
    for path in sorted(SOURCES.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.*)$", stanza, re.MULTILINE))
            if "deb" in fields.get("Types", "").split():
                found += [
                    Source(uri, suite, fields.get("Signed-By", ""))
                    for uri in fields["URIs"].split()
                    for suite in fields["Suites"].split()
                ]
    for path in [SOURCES / "sources.list", *sorted(SOURCES.glob("sources.list.d/*.list"))]:
        text = path.read_text() if path.is_file() else ""
        for options, uri, suite in re.findall(r"^deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)", text, re.MULTILINE):
            signed = re.search(r"signed-by=([^\s\]]+)", options)
            found.append(Source(uri, suite, signed.group(1) if signed else ""))
    ours = [source for source in found if source.suite.split("-")[0] == machine_codename()]
    if not ours:
        raise LabError("this machine's apt sources name no Debian suite; add Debian's to /etc/apt/sources.list.d")
    return ours


def sources_of(codename: str) -> list[Source]:
    """Return the sources of a Debian release: this machine's with another suite, of others the main suite."""
    here = machine_codename()
    sources = [Source(each.uri, each.suite.replace(here, codename, 1), each.signed_by) for each in machine_sources()]
    return sources if codename == here else [each for each in sources if each.suite == codename]


class Apt:
    """apt with lists, sources and installed packages of its own, so that the machine's stay as they are."""

    def __init__(
        self, folder: Path, codename: str, *, status: Path | None = None, components: tuple[str, ...] = ("main",)
    ) -> None:
        self.folder = folder
        self.codename = codename
        for name in ("lists/partial", "cache/archives/partial", "parts", "etc"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        parts = " ".join(components)
        lines = [
            f"{kind} {f'[signed-by={each.signed_by}] ' if each.signed_by else ''}{each.uri} {each.suite} {parts}\n"
            for each in sources_of(codename)
            for kind in ("deb", "deb-src")
        ]
        (folder / "sources.list").write_text("".join(lines))
        installed = folder / "status"
        installed.write_bytes(status.read_bytes() if status else b"")
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": folder / "parts",
            "Dir::Etc::preferencesparts": folder / "etc",
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": installed,
            "Dir::Cache": folder / "cache",
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
            "Acquire::Retries": "3",
        }
        self.config = folder / "apt.conf"
        self.config.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))

    def apt(self, *words: str | Path, cwd: Path | None = None, seconds: float = 900) -> str:
        """Return the output of one apt-get call under these settings."""
        return run("apt-get", "-q", *words, env={"APT_CONFIG": str(self.config)}, cwd=cwd, seconds=seconds)

    def update(self) -> None:
        """Fetch the package lists."""
        self.apt("update")

    def download(self, packages: tuple[str, ...], into: Path) -> None:
        """Put the packages, and what they depend on that does not count as installed, into a folder."""
        (into / "partial").mkdir(parents=True, exist_ok=True)
        self.apt("install", "-y", "--download-only", "-o", f"Dir::Cache::archives={into}", *packages)
        (into / "partial").rmdir()
        (into / "lock").unlink(missing_ok=True)

    def download_only(self, packages: tuple[str, ...], into: Path) -> None:
        """Put just these packages into a folder."""
        into.mkdir(parents=True, exist_ok=True)
        self.apt("download", *packages, cwd=into)

    def source(self, package: str, into: Path) -> Path:
        """Put a source package into a folder and return its .dsc file."""
        into.mkdir(parents=True, exist_ok=True)
        self.apt("source", "--download-only", package, cwd=into)
        return next(into.glob(f"{package}_*.dsc"))


def unpack(packages: list[Path], root: Path) -> None:
    """Unpack .deb files over one folder, running none of their scripts."""
    root.mkdir(parents=True, exist_ok=True)
    for package in packages:
        run("dpkg-deb", "-x", package, root)


def deb(folder: Path, name: str) -> Path:
    """Return the package's .deb file in a folder; raises LabError where there is none."""
    for path in sorted(folder.glob(f"{name}_*.deb")):
        return path
    raise LabError(f"{folder} has no package {name}; run `python -m lab.containers bundle --refresh`")
