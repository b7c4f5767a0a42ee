"""dpkg and apt of a simulated host: what is installed and held, what the lists offer, and what an install would do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from lab.simulated.files import FileTree
from lab.simulated.proxies import by_apt
from lab.simulated.versions import compare, order
from lab.simulated.world import Offer, Repository, World, fingerprints

NATIVE = "amd64"
SERVER = "[IP: 10.0.0.3 80]"  # apt names the server that said no


@dataclass(frozen=True)
class Installed:
    """An installed package; `state` is dpkg's second letter: i installed, U unpacked, F half configured, c removed."""

    version: str
    held: bool = False
    state: str = "i"
    source: str = ""
    needs: tuple[str, ...] = ()

    @property
    def abbreviation(self) -> str:
        """Dpkg's Status-Abbrev, three letters."""
        return "rc " if self.state == "c" else f"{'h' if self.held else 'i'}{self.state} "


@dataclass(frozen=True)
class Source:
    """One line of apt's sources."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str


class AptFailed(Exception):
    """apt cannot do what is asked; the text is its E: lines."""


@dataclass
class Action:
    """What one install does: packages by their change."""

    new: dict[str, Offer] = field(default_factory=dict)
    changed: dict[str, Offer] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    already: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def all(self) -> dict[str, Offer]:
        """Everything that is unpacked."""
        return {**self.new, **self.changed}


def read_sources(files: FileTree, only: str | None = None) -> list[Source]:
    """Return the entries of the host's source files, or of `only` one."""
    paths = [only] if only else ["/etc/apt/sources.list"]
    if not only:
        paths += [f"/etc/apt/sources.list.d/{name}" for name in files.names("/etc/apt/sources.list.d") or ()]
    found: list[Source] = []
    for path in paths:
        text = files.text(path)
        found += _deb822(text) if path.endswith(".sources") else _one_line(text) if path.endswith(".list") else []
    return found


def _one_line(text: str) -> list[Source]:
    found: list[Source] = []
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)", line.strip())
        if match:
            options = dict(word.split("=", 1) for word in (match.group(1) or "").split() if "=" in word)
            components = tuple(match.group(4).split("#")[0].split())
            found.append(Source(match.group(2), match.group(3), components, options.get("signed-by", "")))
    return found


def _deb822(text: str) -> list[Source]:
    found: list[Source] = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields = {
            key.strip().lower(): value.strip()
            for key, _, value in (line.partition(":") for line in paragraph.splitlines() if ":" in line)
        }
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                components = tuple(fields.get("components", "").split())
                found.append(Source(uri, suite, components, fields.get("signed-by", "")))
    return found


class Packages:
    """The packages of one host."""

    def __init__(self, files: FileTree, world: World) -> None:
        self._files = files
        self.world = world
        self.installed: dict[str, Installed] = {name: Installed(v) for name, v in world.system.packages}
        self.lists: dict[tuple[str, str], Repository] = {}
        self.locked_by: str = ""

    def has(self, *names: str) -> bool:
        """Say whether one of the packages is installed and in order."""
        return any(name in self.installed and self.installed[name].state == "i" for name in names)

    def fetch(self, only: str | None = None) -> list[tuple[Source, str]]:
        """Fetch the lists of all sources, or of one file's; gives (source, error) in order, "" where all went well."""
        faults: list[tuple[Source, str]] = []
        fetched: dict[tuple[str, str], Repository] = {}
        for source in read_sources(self._files, only):
            repository, error = self._fetched(source)
            faults.append((source, error))
            if repository is not None:
                fetched[source.uri, source.suite] = repository
        self.lists = {**self.lists, **fetched} if only else fetched
        return faults

    def _fetched(self, source: Source) -> tuple[Repository | None, str]:
        host = re.sub(r"^\w+://([^/]+).*", r"\1", source.uri)
        through = by_apt(self._files, source.uri)
        if not self.world.answers(source.uri, through):
            asks = self.world.is_proxy(through) and not self.world.admits(through)
            refused = f"407  Proxy Authentication Required {SERVER}"
            return None, refused if asks else f"Could not connect to {host} - connect (113: No route to host)"
        address = host.partition(":")[0]
        if address.startswith("127."):  # no host serves packages
            return None, f"Could not connect to {host} ({address}). - connect (111: Connection refused)"
        if any(source.uri.startswith(start) for start in self.world.refused):
            return None, f"403  Forbidden {SERVER}"
        repository = self.world.repository(source.uri, source.suite)
        if repository is None:
            return None, f"404  Not Found {SERVER}"
        if repository.fingerprint:
            known = fingerprints(self._files.read(source.signed_by) or b"") if source.signed_by else []
            if repository.fingerprint not in known:
                short = repository.fingerprint[-16:]
                return (
                    None,
                    f"The following signatures couldn't be verified because the public key is not available: NO_PUBKEY {short}",
                )
        return repository, ""

    def offers(self, name: str) -> list[Offer]:
        """Return the versions of a package that the fetched lists offer, newest first."""
        found = {offer.version: offer for repo in self.lists.values() for offer in repo.offers if offer.name == name}
        return [found[version] for version in sorted(found, key=order, reverse=True)]

    def matching(self, pattern: str) -> list[str]:
        """Return the installed packages that match a pattern; of a foreign architecture they are called NAME:ARCH."""
        return sorted(name for name in self.installed if fnmatchcase(split(name)[0], pattern))

    def plan(self, asked: Iterable[str], *, downgrade: bool, change_held: bool) -> Action:
        """Return what installing these (NAME, NAME=VERSION, NAME=PATTERN) does; raises AptFailed."""
        wanted: dict[str, Offer] = {}
        for word in asked:
            name, equals, version = word.partition("=")
            offers = self.offers(name)
            if not offers and name not in self.installed:
                raise AptFailed(f"E: Unable to locate package {name}")
            fitting = [offer for offer in offers if not equals or fnmatchcase(offer.version, version)]
            if equals and not fitting:
                raise AptFailed(f"E: Version '{version}' for '{name}' was not found")
            if fitting:
                wanted[name] = fitting[0]
        self._depend(wanted)
        action = Action(named=tuple(wanted), removed=self._conflicting(wanted))
        for name, offer in sorted(wanted.items()):
            self._sort(action, name, offer)
        held = [name for name in action.changed if self.installed[name].held]
        if held and not change_held:
            raise AptFailed("E: Held packages were changed and -y was used without --allow-change-held-packages.")
        older = [n for n, offer in action.changed.items() if compare(offer.version, self.installed[n].version) < 0]
        if older and not downgrade:
            raise AptFailed("E: Packages were downgraded and -y was used without --allow-downgrades.")
        return action

    def _conflicting(self, wanted: dict[str, Offer]) -> tuple[str, ...]:
        """Return the installed packages that must go: what conflicts, and what depends on that and is not replaced."""
        gone = {name for offer in wanted.values() for name in offer.conflicts if self.has(name) and name not in wanted}
        while more := {name for name, have in self.installed.items() if self.has(name) and gone & {*have.needs}} - gone:
            gone |= more
        return tuple(sorted(gone))

    def _sort(self, action: Action, name: str, offer: Offer) -> None:
        """Put one package where it belongs."""
        have = self.installed.get(name)
        if have is None or have.state == "c":
            action.new[name] = offer
        elif have.version != offer.version:
            action.changed[name] = offer
        else:
            action.already = (*action.already, name)

    def _depend(self, wanted: dict[str, Offer]) -> None:
        """Add what is needed, in apt's way: the newest version, unless another one is asked for by name."""
        waiting = list(wanted.values())
        while waiting:
            offer = waiting.pop()
            for need in offer.depends:
                name, _, exact = need.partition(" (= ")
                exact = exact.rstrip(")")
                have = wanted[name].version if name in wanted else None
                installed = self.installed.get(name)
                if (
                    have is None
                    and installed is not None
                    and installed.state == "i"
                    and exact in ("", installed.version)
                ):
                    continue
                if have is None:
                    offers = self.offers(name)
                    if not offers:
                        raise AptFailed(_unmet(offer.name, need, "it is not installable"))
                    wanted[name] = offers[0]
                    waiting.append(offers[0])
                if exact and wanted[name].version != exact:
                    raise AptFailed(_unmet(offer.name, need, f"{wanted[name].version} is to be installed"))

    def upgrades(self) -> Action:
        """Return what `apt-get upgrade` does: newer versions, held ones kept back."""
        action = Action()
        for name, have in sorted(self.installed.items()):
            offers = self.offers(split(name)[0])
            if have.state != "i" or not offers or compare(offers[0].version, have.version) <= 0:
                continue
            if have.held:
                action.kept = (*action.kept, name)
            else:
                action.changed[name] = offers[0]
        return action

    def put(self, name: str, version: str, state: str = "i") -> None:
        """Record a package; a hold stays."""
        have = self.installed.get(name, Installed(version))
        self.installed[name] = replace(have, version=version, state=state)

    def hold(self, name: str, *, held: bool) -> bool:
        """Hold a package or let it go; False where it was so already."""
        have = self.installed[name]
        self.installed[name] = replace(have, held=held)
        return have.held != held


def split(name: str) -> tuple[str, str]:
    """Return the name and architecture of an installed package."""
    plain, _, architecture = name.partition(":")
    return plain, architecture or NATIVE


def _unmet(name: str, need: str, why: str) -> str:
    return (
        "The following packages have unmet dependencies:\n"
        f" {name} : Depends: {need} but {why}\n"
        "E: Unable to correct problems, you have held broken packages."
    )
