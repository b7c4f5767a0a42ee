"""How lists and maps of built-in kinds merge: by which keys, as a set, or as one value."""

from __future__ import annotations

from lab.simulated import recorded

from .objects import Obj

_FACTS = recorded.table("merge_keys.yaml")
_DEFAULTS = {"protocol": "TCP"}


class Shape:
    """The shape of one kind of object; custom resources have granular maps and atomic lists unless metadata."""

    def __init__(self, *, custom: bool) -> None:
        self.custom = custom

    def list_keys(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """Return the keys of the list at this path of field names; empty where it is atomic or a set."""
        field = path[-1] if path else ""
        if self.custom and path[:1] != ("metadata",):
            return ()
        if field == "ports":
            if "containers" in path or "initContainers" in path:
                return ("containerPort", "protocol")
            return ("port", "protocol") if path[:2] == ("spec", "ports") else ()
        return tuple(_FACTS["lists"].get(field, ()))

    def is_set(self, path: tuple[str, ...]) -> bool:
        """Say whether the list at this path is a set of plain values."""
        return bool(path) and path[-1] in _FACTS["sets"] and (not self.custom or path[:1] == ("metadata",))

    def is_atomic_map(self, path: tuple[str, ...]) -> bool:
        """Say whether the map at this path has one owner as a whole."""
        return not self.custom and bool(path) and path[-1] in _FACTS["atomic"]

    @staticmethod
    def key_values(item: Obj, keys: tuple[str, ...]) -> tuple[tuple[str, object], ...]:
        """Return the values by which an item of a keyed list is known; protocol is TCP where it is not said."""
        return tuple((key, item.get(key, _DEFAULTS.get(key))) for key in keys)
