"""Packages that are fetched and not installed, and a program taken out of one: a new version beside the running one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import Permanent
from shipway.facts.commands import Says
from shipway.facts.versions import ProgramVersion
from shipway.host.session import OPERATIONS, Host
from shipway.os.debian.apt import APT, APT_SECONDS, wait_for_lock, with_lock
from shipway.os.debian.dpkg import Package
from shipway.os.debian.packages import madison, offers, version_matches
from shipway.step import Drift, Impact

# As PackagesInVersion installs them, so that what is fetched is what that will want; nothing is changed by either.
OPTIONS = ("--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages")
SCRIPT = f"{OPERATIONS}/take-program.sh"  # a file, for systemd cannot read a unit with several lines of a command again
# $1 package=version, $2 the program's path in it, $3 where it is put. The package lies in a folder that goes again.
TAKE = """
set -eu
work=$(mktemp -d); trap 'rm -rf -- "$work"' EXIT
cd -- "$work"
apt-get -q -o Acquire::Retries=3 -o APT::Sandbox::User=root download "$1"
install -d -m 755 -- "$(dirname -- "$3")"
dpkg-deb --fsys-tarfile ./*.deb | tar -xO -- ".$2" > "$3.part"
chmod 755 -- "$3.part"
mv -fT -- "$3.part" "$3"
"""


@dataclass(frozen=True)
class PackagesFetched:
    """Packages lie on the host in their versions, or are installed in them; nothing is installed by this."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str
    packages: Mapping[str, str]

    async def check(self, on: Host) -> Drift | None:
        """Ask apt which files it would still have to fetch."""
        wanted, lacking = await self._wanted(on)
        want = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        if lacking:
            return Drift(f"apt is not offered {', '.join(lacking)} by the repositories that it knows now", want)
        if not wanted:
            return None
        said = await on.read(Says((*APT, "--print-uris", *OPTIONS, "install", "--", *wanted), 60))
        left = [line for line in said.stdout.splitlines() if line.startswith("'")]
        if said.ok and not left:
            return None
        return Drift(f"{len(left)} files are not fetched" if said.ok else "apt cannot tell what to fetch", want)

    async def _wanted(self, on: Host) -> tuple[list[str], list[str]]:
        """Return the packages that have another version as apt takes them (name=version), and those not offered."""
        infos = await on.read_all([Package(name) for name in self.packages])
        differ = {
            name: version
            for (name, version), info in zip(self.packages.items(), infos, strict=True)
            if info is None or not info.sound or not version_matches(info.version, version)
        }
        if not differ:
            return [], []
        offered = offers((await on.read(madison(differ))).stdout)
        fitting = {n: [one for one in offered.get(n, []) if version_matches(one, v)] for n, v in differ.items()}
        return [f"{name}={found[0]}" for name, found in fitting.items() if found], [
            f"{name} {differ[name]}" for name, found in fitting.items() if not found
        ]

    async def apply(self, on: Host) -> None:
        """Fetch them; where none fits, fetch the lists once and look again. Raises Permanent SHW-307."""
        wanted, lacking = await self._wanted(on)
        if lacking:
            await with_lock(on, *APT, "update")
            on.forget()
            wanted, lacking = await self._wanted(on)
        if lacking:
            fix = "Name a version that the repository offers, or a repository that offers this one (sources.apt)."
            raise Permanent(f"no repository offers {', '.join(lacking)}", host=on.name, code="SHW-307", fix=fix)
        await with_lock(on, *APT, "--download-only", *OPTIONS, "install", "--", *wanted)


@dataclass(frozen=True)
class ProgramBeside:
    """A package's program of a version is on the host: installed, or at a place of its own beside the installed one."""

    impact: ClassVar[Impact] = Impact.FILES
    program: str
    version: str
    place: str

    @property
    def name(self) -> str:
        """The program."""
        return f"{self.program} {self.version} is there, installed or beside the installed one"

    async def check(self, on: Host) -> Drift | None:
        """Ask both."""
        installed, beside = await on.read(ProgramVersion(self.program), ProgramVersion(self.program, self.place))
        if self.version in (installed, beside):
            return None
        return Drift(f"installed: {installed or 'none'}", f"{self.version} in {self.place}")

    async def apply(self, on: Host) -> None:
        """Fetch its package once more, and take the one file out. Raises Permanent SHW-307 where none is offered."""
        offered = offers((await on.read(madison((self.program,)))).stdout).get(self.program, [])
        fitting = next((one for one in offered if version_matches(one, self.version)), None)
        if fitting is None:
            raise Permanent(f"no repository offers {self.program} {self.version}", host=on.name, code="SHW-307")
        await on.write(SCRIPT, TAKE.encode(), mode="700")
        words = ("bash", SCRIPT, f"{self.program}={fitting}", f"/usr/bin/{self.program}", self.place)
        await wait_for_lock(lambda: on.succeed("apt", words, seconds=APT_SECONDS))
