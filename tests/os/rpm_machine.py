"""rpm and dnf of a machine that is none: what they answer to the commands of the test double."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from shipway.script import Output
from tests.os.machine import Machine, Words


@dataclass
class RpmMachine(Machine):
    """A host with dnf."""

    LOCK_SAID: ClassVar[str] = "Failed to obtain the transaction lock (logged in as: root).\n"

    def program(self, words: Words) -> Output:  # noqa: C901, PLR0911 - a row each program
        """Answer as rpm, dnf and curl do."""
        match words:
            case ("rpm", "-q", "--qf", form, *names) if "INSTALLTIME" in form:
                return Output(
                    0, "".join(f"{name}|{self.changed[name]}\n" for name in names if name in self.changed), ""
                )
            case ("rpm", "-q", "--qf", _, *names):
                return Output(0, "".join(self._listed(names)), "")
            case ("dnf", "-q", "versionlock", "list"):
                return Output(0, "".join(f"{name}-*\n" for name, one in self.packages.items() if one.held), "")
            case ("dnf", "-q", "list", "--showduplicates", *names):
                lines = [f"{name}.x86_64 {one} x\n" for name in names for one in reversed(self.offered.get(name, ()))]
                return Output(0, "".join(lines), "")
            case ("dnf", "-q", "check", "--duplicates"):
                return Output(0, "".join(f"{name} is a duplicate\n" for name in self._half()), "")
            case ("dnf", "-q", "repolist"):
                return Output(0, "x\n", "")
            case ("dnf", "--assumeno", "install", *asked):
                names = [one.partition("=")[0] for one in asked]
                gone = [other for name in names for other in self.removes.get(name, ()) if other in self.packages]
                return Output(1, "".join(f" Removing {name}\n" for name in gone), "Operation aborted.\n")
            case ("curl", "-fsSL", "-o", path, url):
                self.files[path] = self.served[url]
            case ("dnf", "-q", "check-update", *words):
                kept = tuple(one.removeprefix("--exclude=").rstrip("*") for one in words if "--exclude" in one)
                only = self.security if "--security" in words else tuple(self.packages)
                found = {name: new for name, new in self.newer().items() if name in only and not name.startswith(kept)}
                return Output(
                    100 if found else 0, "".join(f"{name}.x86_64 {new} x\n" for name, new in found.items()), ""
                )
            case ("needs-restarting", "-r"):
                return Output(1 if "/run/reboot-required" in self.files else 0, "", "")
            case ("dnf", "-y", *rest):
                return self._change(rest)
            case _:
                return self.unknown(words)
        return Output(0, "", "")

    def _half(self) -> list[str]:
        return [name for name, one in self.packages.items() if not one.sound]

    def _listed(self, names: list[str]) -> Iterator[str]:
        for name in names:
            if one := self.packages.get(name):
                yield f"{name}|{one.version}\n" * (1 if one.sound else 2)

    def _change(self, rest: list[str]) -> Output:
        self.locked()
        match rest:
            case ("remove", "--duplicates"):
                for name in self._half():
                    self.packages[name].sound = True
            case ("install", *asked):
                self.install(asked)
            case ("upgrade", *excluded):
                patterns = tuple(one.removeprefix("--exclude=").rstrip("*") for one in excluded if "--exclude" in one)
                only = self.security if "--security" in excluded else tuple(self.packages)
                self.upgrade([name for name in self.packages if name.startswith(patterns) or name not in only])
            case ("versionlock", verb, *names):
                for name in names:
                    self.packages[name].held = verb == "add"
        return Output(0, "", "")
