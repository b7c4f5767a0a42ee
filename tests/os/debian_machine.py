"""apt and dpkg of a machine that is none: what they answer to the commands of shipway/os/debian."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from shipway.script import Output
from tests.os.machine import Machine, Words


@dataclass
class DebianMachine(Machine):
    """A Debian host."""

    LOCK_SAID: ClassVar[str] = (
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (unattended-upgr)\n"
    )

    def program(self, words: Words) -> Output:  # noqa: C901, PLR0911, PLR0912 - a row each program
        """Answer as apt and dpkg do."""
        match words:
            case ("dpkg-query", *rest):
                names = rest[rest.index("--") + 1 :] if "--" in rest else list(self.packages)
                return Output(0, "".join(self._listed(names)), "")
            case ("dpkg", "--print-architecture"):
                return Output(0, "amd64\n", "")
            case ("dpkg", "--audit"):
                return Output(0, "".join(f"{name} is half configured\n" for name in self._half()), "")
            case ("dpkg", "--configure", *_):
                self.locked()
                for name in self._half():
                    self.packages[name].sound = True
            case ("apt-mark", verb, *names):
                self.locked()
                for name in names:
                    self.packages[name].held = verb == "hold"
            case ("apt-cache", "madison", *names):
                lines = [f" {name} | {one} | x\n" for name in names for one in self.offered.get(name, ())]
                return Output(0, "".join(lines), "")
            case ("apt-config", "shell", *_):
                return Output(0, "", "")
            case ("apt-get", "indextargets", *_):
                return Output(0, "x\n", "")
            case (program, *_, url, path) if program.endswith("apt-helper"):
                self.files[path] = self.served[url]
            case ("date", "+%s"):
                return Output(0, "100\n", "")
            case ("find", folder, "-maxdepth", "1", "-name", "*.list", "-newermt", moment):
                later = [name for name, at in self.changed.items() if at > int(moment.removeprefix("@"))]
                return Output(0, "".join(f"{folder}/{name}:amd64.list\n" for name in later), "")
            case ("sh", "-c", script, *_) if "/proc/locks" in script:
                return Output(0, f"{self.worker}\n" if self.worker else "", "")
            case ("apt-get", *rest):
                return self._get(rest)
            case _:
                return self.unknown(words)
        return Output(0, "", "")

    def _upgrading(self) -> Iterator[str]:
        for name, new in self.newer().items():
            suite = "stable-security" if name in self.security else "stable"
            yield f"Inst {name} [{self.packages[name].version}] ({new} Debian:12.8/{suite} [amd64])\n"

    def _half(self) -> list[str]:
        return [name for name, one in self.packages.items() if not one.sound]

    def _listed(self, names: list[str]) -> Iterator[str]:
        for name in names:
            if one := self.packages.get(name):
                status = f"{'h' if one.held else 'i'}{'i' if one.sound else 'F'} "
                yield f"{name}|amd64|{status}|{one.version}|{name}|{name}\n"

    def _get(self, rest: list[str]) -> Output:
        simulated, keep = "-s" in rest, "--no-remove" in rest
        asked = [one.strip("*").replace("=*", "=") for one in rest[rest.index("--") + 1 :]] if "--" in rest else []
        if simulated and "upgrade" in rest:
            return Output(0, "".join(self._upgrading()), "")
        if "--print-uris" in rest or "--download-only" in rest:
            self.fetched |= set(asked) if "--download-only" in rest else set()
            return Output(0, "".join(f"'http://x/{one}'\n" for one in asked if one not in self.fetched), "")
        if simulated:
            names = [one.partition("=")[0] for one in asked]
            gone = [other for name in names for other in self.removes.get(name, ()) if other in self.packages]
            lines = [f"Remv {name} [1]\n" for name in gone]
            lines += [f"Inst {name}{' [1]' if name in self.packages else ''} (2 x [amd64])\n" for name in names]
            return Output(0, "".join(lines), "")
        self.locked()
        if "upgrade" in rest:
            self.upgrade()
        if asked and self.install(asked, only=("",) if keep else ()):
            assert not keep
        return Output(0, "", "")
