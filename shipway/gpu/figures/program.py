"""The probe as one text for any Python: probe.py with its kernels (probe.ptx) packed into it."""

from __future__ import annotations

import base64
import zlib
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
_HOLE = 'PTX = ""'


@cache
def program_text() -> str:
    """Return the program; it has no dollar sign in it, for a kubelet would take some for a variable of its own."""
    packed = base64.b64encode(zlib.compress((HERE / "probe.ptx").read_bytes(), 9)).decode()
    return (HERE / "probe.py").read_text(encoding="utf-8").replace(_HOLE, f'PTX = "{packed}"', 1)
