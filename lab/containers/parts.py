"""A part of the bundle: built once for one content of its inputs, and swapped in whole."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.containers.commands import say

KEY_FILE = ".key"


@dataclass(frozen=True)
class Part:
    """One folder, what it is made from (text and files), the parts it needs, and how it is made."""

    name: str
    folder: Path
    recipe: str
    build: Callable[[Path], None]
    files: tuple[Path, ...] = ()
    needs: tuple[Part, ...] = ()

    def key(self) -> str:
        """Return the digest of the inputs; parts with the same key have the same content."""
        digest = hashlib.sha256(f"{self.name}\0{self.recipe}\0".encode())
        for start in self.files:
            for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
                if path.is_file() and "__pycache__" not in path.parts:
                    digest.update(f"{path.relative_to(start.parent)}\0".encode() + path.read_bytes())
        for part in self.needs:
            digest.update(part.key().encode())
        return digest.hexdigest()

    def current(self) -> bool:
        """Say whether the folder holds this very content."""
        stamp = self.folder / KEY_FILE
        return stamp.is_file() and stamp.read_text() == self.key()

    def ensure(self) -> bool:
        """Build the part unless it is current; gives whether it was built."""
        if self.current():
            return False
        say(f"building {self.name} ...")
        started = time.monotonic()
        fresh = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        self.build(fresh)
        (fresh / KEY_FILE).write_text(self.key())
        former = self.folder.with_name(self.folder.name + ".old")
        shutil.rmtree(former, ignore_errors=True)
        if self.folder.exists():  # moved, not deleted, so that a running mirror misses it only for an instant
            self.folder.rename(former)
        fresh.rename(self.folder)
        shutil.rmtree(former, ignore_errors=True)
        say(f"built {self.name} in {time.monotonic() - started:.0f} s")
        return True
