"""Numbers that somebody else wrote, read without a crash."""

from __future__ import annotations

import re

# ASCII alone: `isdigit` takes a superscript two for a digit, `int` does not; nor does it take 4,301 digits and more.
_WHOLE = re.compile(r"\s*([0-9]{1,18})\s*", re.ASCII)


def whole(text: str) -> int | None:
    """Return a whole number of at most 18 digits, with blanks around it or not; None for anything else."""
    found = _WHOLE.fullmatch(text)
    return int(found[1]) if found else None
