"""A faulty cluster file mended for the eye only: each faulty value replaced, so that the rest can be judged as well."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from shipway.cluster.text import Path


def mend(data: Mapping[str, Any], base: Mapping[str, Any], faulty: Iterable[Path]) -> dict[str, Any]:
    """Return the data with each faulty value replaced by the profile's, by a stand-in, or left out."""
    result = copy.deepcopy(dict(data))
    for path in faulty:
        if path[:1] == ("hosts",):
            _mend_host(result, path)
        elif path == ("name",):
            result["name"] = "unknown"
        elif path:
            _mend(result, base, path)
    return result


def _at(data: Any, path: Path) -> Any:
    """Return the value at a path, or None."""
    for part in path:
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _mend(data: dict[str, Any], base: Any, path: Path) -> None:
    """Put the profile's value in, or take the key out; in a list the last good item stands for the faulty one."""
    held, last, known = _at(data, path[:-1]), path[-1], _at(base, path)
    if isinstance(held, dict):
        held.pop(last, None)
        if known is not None:
            held[last] = copy.deepcopy(known)
    elif isinstance(held, list) and isinstance(last, int) and last < len(held):
        del held[last]


def _mend_host(data: dict[str, Any], path: Path) -> None:
    """Mend a host; it keeps its place in the list, and a stand-in where its name or address is no good."""
    hosts = data.get("hosts")
    if len(path) == 1 or not isinstance(hosts, list):
        data["hosts"] = [{"name": "unknown", "address": "unknown"}]
        return
    index = path[1]
    if not isinstance(index, int) or index >= len(hosts):
        return
    stand_in = f"unknown-{index}"
    if len(path) == 2 or not isinstance(hosts[index], dict):  # noqa: PLR2004 - the host itself
        hosts[index] = {"name": stand_in, "address": stand_in}
    elif path[2] in {"name", "address"}:
        hosts[index][path[2]] = stand_in
    else:
        _mend(data, {}, path)
