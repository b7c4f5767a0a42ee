"""systemd's units on a simulated host: what is loaded, enabled, active, and since when."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

from lab.simulated.files import FileTree, Node, link
from shipway.steps.system.kernel import SWAP_PROGRAMS

FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


@dataclass
class Unit:
    """One unit; `wanted` is systemd's UnitFileState, `since` the time it last became active (seconds since 1970)."""

    name: str
    description: str = ""
    fragment: str = ""
    wanted: str = ""
    active: str = "inactive"
    sub: str = "dead"
    since: float = 0.0
    result: str = "success"
    pid: int = 0
    restarts: int = 0
    loaded_at: float = 0.0
    type: str = "notify"
    masked: bool = False
    transient: bool = False
    drop_ins: tuple[str, ...] = ()  # as systemd has read them
    began_with: tuple[str, ...] = ()  # as they were when it last became active

    @property
    def load(self) -> str:
        """Systemd's LoadState."""
        return "masked" if self.masked else "loaded"


class UnitFailed(Exception):
    """A unit did not start; the text is what systemctl says."""


class Units:
    """All units of a host; `starting` is asked before a unit becomes active and may fail or name another state."""

    def __init__(self, files: FileTree, now: Callable[[], float]) -> None:
        self._files = files
        self._now = now
        self._pids = 1000
        self.all: dict[str, Unit] = {}
        self.starting: dict[str, Callable[[Unit], None]] = {}
        self.stopping: dict[str, Callable[[Unit], None]] = {}

    @staticmethod
    def full(name: str) -> str:
        """Return the full name of a unit: without a suffix it is a service."""
        suffixes = (".service", ".socket", ".target", ".timer", ".swap", ".mount", ".slice", ".scope", ".path")
        return name if name.endswith(suffixes) else f"{name}.service"

    def get(self, name: str) -> Unit | None:
        """Return a unit, one for a masked name too; None where systemd knows none."""
        unit = self.all.get(self.full(name))
        if unit is not None and not unit.transient and unit.fragment and not self._files.exists(unit.fragment):
            return unit if unit.active == "active" else None
        return unit

    def add(self, unit: Unit, *, text: str = "", active: bool = False) -> Unit:
        """Make a unit known, with its file."""
        if text:
            unit.fragment = unit.fragment or f"/usr/lib/systemd/system/{unit.name}"
            self._files.put(unit.fragment, Node(text.encode(), changed=0.0))
        unit.loaded_at, unit.drop_ins = self._now(), self._drop_ins(unit)
        self.all[unit.name] = unit
        if unit.wanted == "enabled":
            self._files.put(self._wants(unit), link(unit.fragment))
        if active:
            self.set(unit, "active", "running" if unit.name.endswith(".service") else "active")
        return unit

    def _wants(self, unit: Unit) -> str:
        return f"/etc/systemd/system/multi-user.target.wants/{unit.name}"

    def set(self, unit: Unit, active: str, sub: str, result: str = "success") -> None:
        """Put a unit into a state."""
        if active == "active" and unit.active != "active":
            unit.since, unit.began_with = self._now(), unit.drop_ins
        if active == "active" and unit.name.endswith(".service"):
            self._pids += 1
            unit.pid = self._pids
        elif active != "active":
            unit.pid = 0
        unit.active, unit.sub, unit.result = active, sub, result

    def start(self, unit: Unit) -> None:
        """Start a unit; raises UnitFailed in systemctl's words."""
        if unit.masked:
            raise UnitFailed(f"Failed to start {unit.name}: Unit {unit.name} is masked.")
        if unit.active == "active":
            return
        before = self.starting.get(unit.name)
        if before is None:
            running = unit.name.endswith(".service")
            self.set(unit, "active", "running" if running else "active")
        else:
            before(unit)

    def stop(self, unit: Unit) -> None:
        """Stop a unit."""
        if unit.active in ("active", "activating"):
            self.set(unit, "inactive", "dead")
            after = self.stopping.get(unit.name)
            if after is not None:
                after(unit)

    def enable(self, unit: Unit) -> str | None:
        """Enable a unit; gives systemctl's line, None where it was enabled already or is static."""
        if unit.wanted != "disabled":
            return None
        unit.wanted = "enabled"
        self._files.put(self._wants(unit), link(unit.fragment))
        return f"Created symlink {self._wants(unit)} -> {unit.fragment.removeprefix('/usr')}."

    def disable(self, unit: Unit) -> str | None:
        """Disable a unit; gives systemctl's line, None where nothing was to remove."""
        if unit.wanted != "enabled":
            return None
        unit.wanted = "disabled"
        self._files.remove(self._wants(unit))
        return f'Removed "{self._wants(unit)}".'

    def mask(self, name: str) -> str | None:
        """Mask a unit or a name that is none yet; gives systemctl's line."""
        name = self.full(name)
        known = self.all.get(name)
        unit = known or self.add(Unit(name))
        if unit.masked:
            return None
        unit.masked = True
        path = f"/etc/systemd/system/{name}"
        self._files.put(path, link("/dev/null"))
        first = "" if known else f"Unit {name} does not exist, proceeding anyway.\n"
        return f"{first}Created symlink {path} -> /dev/null."

    def unmask(self, name: str) -> str | None:
        """Undo mask; gives systemctl's line, None where it was not masked."""
        unit = self.all.get(self.full(name))
        if unit is None or not unit.masked:
            return None
        unit.masked = False
        path = f"/etc/systemd/system/{unit.name}"
        self._files.remove(path)
        if not unit.fragment and not unit.wanted:
            del self.all[unit.name]
        return f'Removed "{path}".'

    def needs_reload(self, unit: Unit) -> bool:
        """Say whether the unit's file or a drop-in is newer than what systemd has loaded."""
        drop_ins = self._drop_ins(unit)
        nodes = [self._files.node(path) for path in (unit.fragment, *drop_ins) if path]
        return drop_ins != unit.drop_ins or any(node is not None and node.changed > unit.loaded_at for node in nodes)

    def for_swap(self) -> list[tuple[str, Unit]]:
        """Return the services that turn swap on when they start, but for masked ones; `only` those that do no more."""
        only = re.compile(rf"^ExecStart=\S*/(?:{SWAP_PROGRAMS})\b", re.MULTILINE)
        others = re.compile(r"^ExecStart=.*[ /\";]swapon[ \";]", re.MULTILINE)
        found: list[tuple[str, Unit]] = []
        for unit in self.all.values():
            text = self._files.text(unit.fragment) if unit.fragment and unit.name.endswith(".service") else ""
            kind = "only" if only.search(text) else "among-others" if others.search(text) else ""
            found += [(kind, unit)] if kind and not unit.masked else []
        return found

    def _drop_ins(self, unit: Unit) -> tuple[str, ...]:
        folders = [f"{folder}/{unit.name}.d" for folder in FOLDERS]
        return tuple(posixpath.join(folder, name) for folder in folders for name in self._files.names(folder) or ())

    def reload(self) -> None:
        """Systemctl daemon-reload: take every unit file as it is now, new ones too."""
        now = self._now()
        for folder in FOLDERS[:3]:
            for name in self._files.names(folder) or ():
                path = f"{folder}/{name}"
                node = self._files.node(path, follow=False)
                if node is not None and node.kind == "file" and name not in self.all:
                    self.all[name] = Unit(name, fragment=path, wanted="disabled")
        for unit in self.all.values():
            unit.loaded_at, unit.drop_ins = now, self._drop_ins(unit)
