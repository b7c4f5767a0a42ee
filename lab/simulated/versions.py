"""Debian's order of package versions (Debian Policy 5.6.12)."""

from __future__ import annotations

import re
from functools import cache, cmp_to_key


def _split(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-")
    return (int(epoch), upstream, revision) if upstream else (int(epoch), rest, "")


def _weight(letter: str) -> int:
    """`~` sorts before the end, letters before everything else."""
    if letter == "~":
        return -1
    return ord(letter) if letter.isalpha() else ord(letter) + 256


def _parts(left: str, right: str) -> int:
    """Compare two parts: runs of non-digits by weight, runs of digits as numbers."""
    while left or right:
        texts = [re.match(r"\D*", part) for part in (left, right)]
        a, b = (found.group() if found else "" for found in texts)
        for at in range(max(len(a), len(b))):
            one = _weight(a[at]) if at < len(a) else 0
            two = _weight(b[at]) if at < len(b) else 0
            if one != two:
                return one - two
        left, right = left[len(a) :], right[len(b) :]
        digits = [re.match(r"\d*", part) for part in (left, right)]
        a, b = (found.group() if found else "" for found in digits)
        if int(a or 0) != int(b or 0):
            return int(a or 0) - int(b or 0)
        left, right = left[len(a) :], right[len(b) :]
    return 0


@cache
def compare(left: str, right: str) -> int:
    """Return a negative number where `left` is older, 0 where equal, a positive one where it is newer."""
    one, two = _split(left), _split(right)
    return (one[0] - two[0]) or _parts(one[1], two[1]) or _parts(one[2], two[2])


order = cmp_to_key(compare)
