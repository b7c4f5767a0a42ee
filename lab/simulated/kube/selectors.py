"""Label and field selectors, as queries and as objects carry them."""

from __future__ import annotations

import re
from collections.abc import Callable

from .api_errors import bad_request
from .objects import Obj, dig
from .resources import Resource

Match = Callable[[Obj], bool]
_SET = re.compile(r"^\s*([\w./-]+)\s+(in|notin)\s*\(([^)]*)\)\s*$")
_SPLIT = re.compile(r",(?![^(]*\))")


def _requirement(key: str, operator: str, values: list[str]) -> Callable[[dict[str, str]], bool]:
    wanted = set(values)
    tests: dict[str, Callable[[dict[str, str]], bool]] = {
        "In": lambda labels: labels.get(key) in wanted,
        "NotIn": lambda labels: labels.get(key) not in wanted,
        "Exists": lambda labels: key in labels,
        "DoesNotExist": lambda labels: key not in labels,
        "Gt": lambda labels: key in labels and labels[key].isdigit() and int(labels[key]) > int(values[0]),
        "Lt": lambda labels: key in labels and labels[key].isdigit() and int(labels[key]) < int(values[0]),
    }
    return tests[operator]


def _label_term(term: str) -> Callable[[dict[str, str]], bool]:
    if found := _SET.match(term):
        values = [value.strip() for value in found[3].split(",")]
        return _requirement(found[1], "In" if found[2] == "in" else "NotIn", values)
    for sign, operator in (("!=", "NotIn"), ("==", "In"), ("=", "In")):
        if sign in term:
            key, value = term.split(sign, 1)
            return _requirement(key.strip(), operator, [value.strip()])
    key = term.strip()
    if key.startswith("!"):
        return _requirement(key[1:].strip(), "DoesNotExist", [])
    if not re.fullmatch(r"[\w./-]+", key):
        raise bad_request(f"unable to parse requirement: invalid label key {key!r}")
    return _requirement(key, "Exists", [])


def label_match(text: str) -> Match | None:
    """Return the test that a labelSelector query asks for; None where it asks for nothing. Raises ApiError (400)."""
    if not text.strip():
        return None
    terms = [_label_term(term) for term in _SPLIT.split(text) if term.strip()]

    def matches(obj: Obj) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(term(labels) for term in terms)

    return matches


def selects(selector: Obj | None, labels: dict[str, str]) -> bool:
    """Say whether a LabelSelector object (matchLabels, matchExpressions) selects these labels; empty selects all."""
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    expressions = selector.get("matchExpressions") or []
    return all(_requirement(e["key"], e["operator"], e.get("values") or [])(labels) for e in expressions)


def _field(obj: Obj, path: str) -> str:
    if path == "source" and obj.get("kind") == "Event":
        return str(dig(obj, "source", "component") or obj.get("reportingComponent") or "")
    if path == "status.successful":
        return str(dig(obj, "status", "succeeded", default=0))
    value = dig(obj, *path.split("."), default="")
    return str(value).lower() if isinstance(value, bool) else str(value)


def field_match(resource: Resource, text: str) -> Match | None:
    """Return the test that a fieldSelector query asks for; None where it asks for nothing.

    Raises ApiError (400) for a field that the real API cannot select by either.
    """
    if not text.strip():
        return None
    terms: list[tuple[str, str, bool]] = []
    for term in text.split(","):
        sign = "!=" if "!=" in term else "==" if "==" in term else "="
        path, found, value = term.partition(sign)
        if not found:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        path = path.strip()
        if path not in ("metadata.name", "metadata.namespace", *resource.fields):
            raise bad_request(f"field label not supported: {path}")
        terms.append((path, value.strip(), sign != "!="))
    default = "false"

    def matches(obj: Obj) -> bool:
        for path, value, wanted in terms:
            have = _field(obj, path) or (default if path == "spec.unschedulable" else "")
            if (have == value) is not wanted:
                return False
        return True

    return matches
