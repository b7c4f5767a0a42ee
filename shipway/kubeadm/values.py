"""Values of Kubernetes' configuration files: when two spellings mean the same, how a part is merged into a whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

Path = tuple[str, ...]
# Go's time.ParseDuration, and the suffixes of resource.Quantity (k8s.io/apimachinery/pkg/api/resource).
_UNITS = {
    "ns": Fraction(1),
    "us": Fraction(10**3),
    "µs": Fraction(10**3),
    "μs": Fraction(10**3),
    "ms": Fraction(10**6),
    "s": Fraction(10**9),
    "m": Fraction(60 * 10**9),
    "h": Fraction(3600 * 10**9),
}
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_SPAN = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"([+-]?)((?:{_NUMBER}(?:ns|us|µs|μs|ms|s|m|h))+|0)")
_SUFFIXES = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{letter: Fraction(10 ** (3 * power)) for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Fraction(2 ** (10 * power)) for power, letter in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(rf"([+-]?{_NUMBER})(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{{1,2}}))?")
_PERCENT = re.compile(rf"({_NUMBER})%")
_LONGEST = 64  # characters of a number; what is longer is text
# These fields are no pointers: kubeadm leaves them out of a file where they are 0 or false, and the kubelet reads a
# file without them in the same way (k8s.io/kubelet/config/v1beta1/types.go, `omitempty`).
_ZERO_IS_ABSENT = frozenset(
    {
        *("readOnlyPort", "port", "registryBurst", "eventBurst", "nodeLeaseDurationSeconds", "maxPods", "podsPerCore"),
        *("maxOpenFiles", "kubeAPIBurst", "rotateCertificates", "serverTLSBootstrap", "enableContentionProfiling"),
        *("protectKernelDefaults", "runOnce", "kernelMemcgNotification", "verbosity", "flushFrequency"),
    }
)
_EMPTY_IS_SET = frozenset({"enforceNodeAllocatable"})  # [] turns off what is on by default
_MISSING = object()


def duration(text: str) -> Fraction | None:
    """Return the nanoseconds of a Go duration (`1h5m`, `300s`); None for any other text."""
    match = _DURATION.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    total = sum((Fraction(number.rstrip(".")) * _UNITS[unit] for number, unit in _SPAN.findall(match[2])), Fraction(0))
    return -total if match[1] == "-" else total


def quantity(text: str) -> Fraction | None:
    """Return the value of a resource quantity (`500m`, `1Gi`, `1e3`); None for any other text."""
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    value = Fraction(match[1].rstrip("."))
    return value * Fraction(10) ** int(match[3]) if match[3] else value * _SUFFIXES[match[2] or ""]


def _percent(text: str) -> Fraction | None:
    match = _PERCENT.fullmatch(text) if len(text) <= _LONGEST else None
    return Fraction(match[1].rstrip(".")) if match else None


def same(have: Any, want: Any, key: str = "") -> bool:
    """Tell whether Kubernetes reads two values alike: 5m and 5m0s, 1Gi and 1024Mi, 110 and "110".

    `key` is the field's name: it tells whether a field that is not there is one that is 0, false or empty.
    """
    if have is _MISSING or have is None or want is None:
        return (have is _MISSING or have is None) and (want is None or _is_zero(want, key))
    if isinstance(have, Mapping) and isinstance(want, Mapping):
        keys = [*want, *(one for one in have if one not in want)]
        return all(same(have.get(one, _MISSING), want.get(one), str(one)) for one in keys)
    if isinstance(have, list | tuple) and isinstance(want, list | tuple):
        return len(have) == len(want) and all(same(one, other) for one, other in zip(have, want, strict=True))
    if isinstance(have, bool) or isinstance(want, bool):
        return have is want
    return _same_scalar(have, want)


def _same_scalar(have: Any, want: Any) -> bool:
    if isinstance(have, Mapping | list | tuple) or isinstance(want, Mapping | list | tuple):
        return False
    if have == want or str(have) == str(want):
        return True
    one, other = str(have), str(want)
    if isinstance(have, int) is not isinstance(want, int):  # a duration may stand as a number of nanoseconds
        one, other = (f"{text}ns" if isinstance(value, int) else text for value, text in ((have, one), (want, other)))
        if _equal(duration(one), duration(other)):
            return True
        one, other = str(have), str(want)
    return any(_equal(read(one), read(other)) for read in (duration, quantity, _percent))


def _equal(one: Fraction | None, other: Fraction | None) -> bool:
    return one is not None and one == other


def _is_zero(want: Any, key: str) -> bool:
    """Tell whether a field that is not there says the same as this value."""
    if isinstance(want, Mapping):
        return all(_is_zero(value, str(name)) or value is None for name, value in want.items())
    if isinstance(want, list | tuple):
        return not want and key not in _EMPTY_IS_SET
    if isinstance(want, str):
        return want == "" or duration(want) == 0
    return not want and key in _ZERO_IS_ABSENT


def differences(have: Mapping[str, Any], want: Mapping[str, Any], at: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Yield path, value and wanted value of each field that is declared and not so; maps are looked into.

    A value of None where there is none. What is not declared is not looked at: it has another owner.
    """
    for key, value in want.items():
        there = have.get(key, _MISSING)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            yield from differences(there, value, (*at, key))
        elif value is not None and not same(there, value, key):
            yield (*at, key), None if there is _MISSING else there, value


def merge(have: Mapping[str, Any], want: Mapping[str, Any]) -> dict[str, Any]:
    """Return `have` with each declared field that differs set; all else, and each spelling that means the same, stays.

    Maps are merged field by field, lists are replaced whole, as Kubernetes' own configuration files are layered.
    """
    merged = dict(have)
    for (*parents, key), _, value in differences(have, want):
        at = merged
        for part in parents:
            at[part] = dict(at[part])
            at = at[part]
        at[key] = value
    return merged


def spell(changes: Sequence[tuple[Path, Any, Any]], *, wanted: bool) -> str:
    """Return the changes in one line, for a drift: `authentication.webhook.cacheTTL: 2m0s`."""
    values = ((".".join(path), want if wanted else have) for path, have, want in changes)
    return ", ".join(f"{path}: {'not set' if value is None else value}" for path, value in values)
