"""Secrets that a cluster file only names: a file that its owner alone may read, or a Secret block of Prefect's.

Prefect is not known here: whoever starts a run puts the blocks' values in by `keep`, before they are asked for.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shipway.errors import Refused

BLOCK = "block:"
CODE = "SHW-352"
_BLOCKS: dict[str, str] = {}


def block_of(place: str) -> str:
    """Return the name of the Secret block that a place names, "" where it is a file."""
    return place.removeprefix(BLOCK) if place.startswith(BLOCK) else ""


def keep(block: str, value: str) -> None:
    """Keep the value of a Secret block for as long as this process lives."""
    _BLOCKS[block] = value


def read_block(block: str) -> str | None:
    """Return the value of a Secret block that was kept, None where none was."""
    return _BLOCKS.get(block)


def trouble(place: str) -> str:
    """Return why the file at a place cannot be used, "" where it can; a block is asked for when a run starts."""
    if block_of(place):
        return ""
    try:
        with Path(place).expanduser().open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        return f"{place} cannot be read: {reason}"
    if not stat.S_ISREG(mode):
        return f"{place} is no regular file"
    open_to = stat.S_IMODE(mode) & 0o077
    return f"{place} may be read by others than its owner (mode {stat.S_IMODE(mode):03o}): chmod 600" if open_to else ""


def secret(place: str) -> str:
    """Return the first line of a secret; raises Refused (SHW-352) where it cannot be had, never with its text."""
    if name := block_of(place):
        if name not in _BLOCKS:
            fix = f"Make it: `prefect block create secret`, named {name}; or name a file of mode 0600, then run again."
            raise Refused(f"there is no Secret block {name}", code=CODE, fix=fix)
        text = _BLOCKS[name]
    else:
        if why := trouble(place):
            raise Refused(why, code=CODE, fix="Correct the file, or name another one in the cluster file.")
        text = Path(place).expanduser().read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    if not lines or not lines[0].strip():
        raise Refused(f"{place} is empty", code=CODE, fix="Write USER:PASSWORD into its first line.")
    return lines[0].strip()


def user_and_password(place: str) -> tuple[str, str]:
    """Return user and password of a secret `USER:PASSWORD`; raises Refused (SHW-352), never with its text."""
    user, _, password = secret(place).partition(":")
    if not user or not password:
        raise Refused(f"{place} does not hold USER:PASSWORD", code=CODE, fix="Write USER:PASSWORD into its first line.")
    return user, password
