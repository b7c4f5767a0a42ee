"""YAML as Kubernetes reads it: one loader and one writer for manifests, configurations and the cluster file.

kubectl, kubeadm and the kubelet read YAML through sigs.k8s.io/yaml, which is go-yaml v2; PyYAML takes other scalars for
numbers, booleans and dates than that. The rules here are those of its resolve.go and of YAMLToJSON: dates and 22:22 are
text, 1e3 and 0o17 are numbers, y and on are booleans, a key is always text, and a number without a fraction is whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

# libyaml reads megabytes ten times faster than PyYAML's own reader.
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_ENDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# Go's ParseInt with base 0: a leading zero is octal, as 0o is.
_WHOLE = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_LARGEST = 2**64 - 1  # a larger one is a float in Go
_LONGEST = 70  # digits of 64 bits in base 2, and their sign and prefix
_WHOLE_BELOW = 1e21  # Go writes a float from here on with an exponent


class _Unreadable(yaml.YAMLError):
    """A value that is YAML and cannot be JSON."""


def scalar(text: str) -> Any:
    """Return what an unquoted scalar stands for: text, a whole number, a float, a boolean or None.

    Raises YAMLError for .inf and .nan, which no JSON holds.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _ENDLESS.fullmatch(text):
        raise _Unreadable(f"{text} cannot be passed on as JSON: put it in quotes")
    plain = text if text.startswith(".") else text.replace("_", "")
    if text[:1] in "0123456789+-" and len(plain) <= _LONGEST and _WHOLE.fullmatch(plain):
        number = _whole(plain)
        if -(2**63) <= number <= _LARGEST:
            return number
    if text[:1] in "0123456789+-." and _FLOAT.fullmatch(plain):
        value = float(plain)
        if math.isinf(value):
            return text  # Go: out of range, so text
        return int(value) if value.is_integer() and abs(value) < _WHOLE_BELOW else value
    return text


def _whole(plain: str) -> int:
    sign, digits = (-1 if plain.startswith("-") else 1), plain.lstrip("+-").lower()
    if digits.startswith(("0x", "0b", "0o")):
        return sign * int(digits, 0)
    return sign * int(digits, 8 if len(digits) > 1 and digits.startswith("0") else 10)


def has_leading_zero(text: str) -> bool:
    """Say whether an unquoted scalar is a number with a zero in front: octal to YAML, decimal to a person."""
    return _LEADING_ZERO.fullmatch(text) is not None


class Loader(_BASE):  # type: ignore[misc]
    """A safe loader with the scalar rules of Kubernetes' own."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - PyYAML's own
        """Return a mapping whose keys are text, as JSON has them; raises YAMLError for a key that cannot be."""
        self.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            found[_key(key, key_node)] = self.construct_object(value_node, deep=deep)
        return found


def _key(key: Any, node: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, str | int | float):
        return str(key)
    problem = f"a {'null' if key is None else type(key).__name__} cannot be a key"
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _construct(loader: Any, node: Any) -> Any:
    """Return a scalar's value by our rules; a tag that it does not fit is an error."""
    value = scalar(str(loader.construct_scalar(node)))
    kind = node.tag.removeprefix(_TAG)
    found = "bool" if isinstance(value, bool) else "null" if value is None else type(value).__name__
    if found != kind and not (found == "int" and kind == "float"):
        name = str(node.value)[:40]
        raise yaml.MarkedYAMLError(problem=f"{name!a} is no {node.tag}", problem_mark=node.start_mark)
    return value


def _text(loader: Any, node: Any) -> str:
    return str(loader.construct_scalar(node))


class _Resolves:
    """Stands for a pattern in PyYAML's table of implicit tags: matches what our rules take for this kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def match(self, text: str) -> bool:
        """Say whether the unquoted text is of this kind."""
        return tag_of(text) == self._kind


def tag_of(text: str) -> str:
    """Return the kind of an unquoted scalar: `bool`, `null`, `int`, `float` or `str`."""
    if text in _WORDS:
        return "null" if _WORDS[text] is None else "bool"
    if _ENDLESS.fullmatch(text):
        return "float"
    value = scalar(text)
    return "str" if isinstance(value, str) else "int" if isinstance(value, int) else "float"


Loader.yaml_implicit_resolvers = {}
for _kind, _first in (("bool", "yYnNtTfFoO"), ("int", "-+0123456789."), ("float", "-+0123456789.")):
    Loader.add_implicit_resolver(f"{_TAG}{_kind}", _Resolves(_kind), list(_first))
Loader.add_implicit_resolver(f"{_TAG}null", _Resolves("null"), ["~", "n", "N", ""])
Loader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"^<<$"), ["<"])
for _kind in ("bool", "int", "float", "null"):
    Loader.add_constructor(f"{_TAG}{_kind}", _construct)
Loader.add_constructor(f"{_TAG}timestamp", _text)


def read_yaml(text: str) -> Any:
    """Return a YAML text's data; raises ValueError for a text that has none.

    PyYAML itself raises four kinds: its own, ValueError and TypeError for a value that cannot be made, RecursionError
    for what is nested too deeply.
    """
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, AttributeError) as error:
        raise ValueError(f"not YAML ({type(error).__name__})") from None  # the cause would quote what may be secret


def read_all(text: str) -> list[Any]:
    """Return the data of every document of a stream; raises what PyYAML raises (see `read_yaml`)."""
    return list(yaml.load_all(text, Loader=Loader))


class _Dumper(yaml.SafeDumper):
    """A writer whose texts are texts to both readers, PyYAML's and Kubernetes' own."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's own
        """Write everything out: readers of configuration need know no aliases."""
        return True


def _quote(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    node = dumper.represent_scalar(f"{_TAG}str", data)
    if tag_of(data) != "str":
        node.style = "'"
    return node


_Dumper.add_representer(str, _quote)


def write_yaml(data: Mapping[str, Any]) -> str:
    """Return data as YAML text that Kubernetes reads as it is meant: a text such as 1e3 or y stays text."""
    return write_all([data])


def write_flow(value: Any) -> str:
    """Return a scalar as YAML text in one line, with the end of document that YAML may need after it."""
    text: str = yaml.dump(value, Dumper=_Dumper, width=10**6, allow_unicode=True)
    return text


def write_all(documents: Iterable[Mapping[str, Any]]) -> str:
    """Return several documents as one YAML stream; see `write_yaml`."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False)
