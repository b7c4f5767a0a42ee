"""Edits of IMEX's config.cfg, of which all but a block of ours is the package's, or somebody's."""

from __future__ import annotations

import re

from shipway.edits.lines import BEGIN, END, OFF, with_block
from shipway.gpu.driver.imex import SETTINGS

_SETS = re.compile(rf"\s*(?:{'|'.join(SETTINGS)})\s*=")


def with_settings(text: str) -> str:
    """Return config.cfg with our settings in a block of our own; lines that set the same are commented out."""
    lines = without_settings(text).split("\n")
    off = [f"{OFF}{line}" if _SETS.match(line) else line for line in lines]
    return with_block("\n".join(off), [f"{key}={value}" for key, value in SETTINGS.items()])


def without_settings(text: str) -> str:
    """Return config.cfg without our block, and with the lines that we commented out as they were.

    A block without an end is left: what follows its head may be somebody's.
    """
    lines = text.split("\n")
    if BEGIN in lines and END in lines[lines.index(BEGIN) :]:
        start = lines.index(BEGIN)
        del lines[start : lines.index(END, start) + 1]
    return "\n".join(line.removeprefix(OFF) for line in lines)
