"""Backups in a folder of the controller: each whole or not there, removed by count and age, never the newest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from shipway.backup.sealed import SUFFIX, kept_as
from shipway.backup.state import NAME, taken_at
from shipway.errors import Permanent
from shipway.foreign.errors import describe_error

_NAME = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._@:+-]+"  # Kubernetes' own packages bring a `.kubelet-keep`
_PATH = re.compile(rf"{_NAME}(?:/{_NAME})*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
MANIFEST, VERIFIED = "manifest.json", "verified"


def read_manifest(text: str, cluster: str) -> Mapping[str, Any]:
    """Return what a backup's manifest says. Raises Permanent SHW-731 for one that is not ours, or names other paths."""
    fix = "On the host: `bash /var/lib/shipway/backup/host.sh look`; take another backup."
    try:
        said = json.loads(text)
        files = dict(said["files"])
        ours = said["made_by"] == "shipway-backup" and said["cluster"] == cluster
        sound = all(_PATH.fullmatch(path) and _SHA256.fullmatch(digest) for path, digest in files.items())
    except (ValueError, KeyError, TypeError, RecursionError):
        ours = sound = False
    if not ours or not sound:
        raise Permanent(f"its {MANIFEST} is none of a backup of cluster {cluster}", code="SHW-731", fix=fix)
    return {**said, "files": files}


def find_too_many(names: Sequence[str], keep: int, days: int, now: datetime) -> list[str]:
    """Return those of the backups, newest first, that are one too many or too old; the newest is never among them."""
    oldest = now.astimezone(UTC) - timedelta(days=days)
    return [name for at, name in enumerate(names) if at and (at >= keep or taken_at(name) < oldest)]


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """The folder in which a cluster's backups are kept on this machine."""

    path: Path
    cluster: str

    @property
    def own(self) -> Path:
        """The folder of this cluster's backups alone."""
        return self.path.expanduser() / self.cluster

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a kept backup's manifest; "" where it is not kept, or not whole."""
        try:
            return hashlib.sha256((self.own / name / MANIFEST).read_bytes()).hexdigest()
        except OSError:
            return ""

    def sealed(self, name: str) -> bool:
        """Say whether a kept backup is encrypted."""
        return kept_as(self.own / name, "snapshot.db").suffix == SUFFIX

    def begin(self, name: str) -> Path:
        """Return a new private folder for a backup that is being fetched; raises OSError.

        What an earlier fetch left that was broken off goes: it has Secrets, and the next is mostly of another backup.
        """
        self.path.expanduser().mkdir(parents=True, exist_ok=True)
        self.own.mkdir(mode=0o700, exist_ok=True)
        for left in self.own.glob(".part-*[!d]"):  # a whole one that was moved aside ends with `old`
            shutil.rmtree(left, ignore_errors=True)
        part = self.own / f".part-{name}"
        part.mkdir(mode=0o700)
        return part

    def finish(self, name: str, part: Path) -> None:
        """Put a fetched backup in its place in one rename; raises OSError."""
        old = self.own / f".part-{name}.old"
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (self.own / name).rename(old)
        part.rename(self.own / name)
        _sync(self.own)
        shutil.rmtree(old, ignore_errors=True)

    def names(self) -> list[str]:
        """Return the backups that are ours by their manifest, newest first."""
        found = []
        for folder in self.own.glob("[0-9]*Z"):
            with contextlib.suppress(OSError, Permanent, ValueError):
                if NAME.fullmatch(folder.name) and not folder.is_symlink() and taken_at(folder.name):
                    read_manifest((folder / MANIFEST).read_text(encoding="utf-8"), self.cluster)
                    found.append(folder.name)
        return sorted(found, reverse=True)

    def too_many(self, keep: int, days: int, now: datetime) -> list[str]:
        """Return the backups that are one too many or too old; the newest is never among them."""
        return find_too_many(self.names(), keep, days, now)

    def remove(self, name: str) -> None:
        """Remove a kept backup; raises OSError."""
        shutil.rmtree(self.own / name)


def open_private(path: Path) -> IO[bytes]:
    """Open a new file that its owner alone may read; raises OSError."""
    for folder in (*reversed(path.parent.parents), path.parent):  # `parents=True` would make those between for all
        folder.mkdir(mode=0o700, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def write_private(path: Path, content: bytes) -> None:
    """Write a new private file, on the disk when this returns; raises OSError."""
    with open_private(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_keep(folder: Path, error: OSError) -> Permanent:
    """Return the error of a folder in which nothing can be kept."""
    message = f"the backup cannot be kept in {folder}: {describe_error(error)}; it stays on its host"
    return Permanent(
        message, code="SHW-732", fix="Make room there, or give another `backup.keep_local`, and run again."
    )
