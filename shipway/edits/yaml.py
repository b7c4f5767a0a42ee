"""Edits of a YAML file that others own too: the values that change are written, every other byte stays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from shipway.foreign.yaml import Loader, read_yaml, write_flow, write_yaml
from shipway.kubeadm.values import Path, differences, merge


def with_values(text: str, want: Mapping[str, Any]) -> str:
    """Return the text with each declared field that differs set; comments, order and foreign fields stay as they are.

    The text is read again and must say what was meant. A layout that is not understood (anchors, several documents)
    is written anew: then every field stays, and comments are lost. Raises ValueError where the text is no mapping.
    """
    have = read_yaml(text)
    if not isinstance(have, dict):
        raise ValueError("no mapping")  # noqa: TRY004 - one kind of error for whatever is wrong with a text
    meant = merge(have, want)
    try:
        edited = text
        for path, _, value in differences(have, want):
            edited = _set(edited, path, value)
        if read_yaml(edited) == meant:
            return edited
    except (ValueError, yaml.YAMLError, RecursionError):
        pass
    return write_yaml(meant)


def _set(text: str, path: Path, value: Any) -> str:
    """Return the text with one field set; raises ValueError where its place is not found."""
    node, found = yaml.compose(text, Loader=Loader), None
    for depth, key in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            raise ValueError("no mapping")  # noqa: TRY004 - as above
        found = next((pair for pair in node.value if pair[0].value == key), None)
        if found is None:
            return _with_field(text, node, key, _nest(path[depth + 1 :], value))
        _, node = found
    if found is None:
        raise ValueError("no path")
    return _replace(text, found[0], found[1], value)


def _nest(path: Path, value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _replace(text: str, key: yaml.Node, old: yaml.Node, value: Any) -> str:
    """Return the text with the value of a field replaced; what follows it in its line, a comment too, stays."""
    start, end = key.end_mark.index, _end(old)
    end -= end > start and text[end - 1] == "\n"  # a block scalar takes the end of its last line along
    colon = text.index(":", start) + 1
    return f"{text[:colon]} {_flow(value)}{text[end:]}"


def _with_field(text: str, mapping: yaml.MappingNode, key: str, value: Any) -> str:
    """Return the text with a field added at the end of a mapping."""
    if mapping.flow_style:
        start, end = mapping.start_mark.index, mapping.end_mark.index
        inside = text[start + 1 : end - 1].rstrip().rstrip(",")
        joined = f"{inside}, " if inside.strip() else ""
        return f"{text[:start]}{{{joined}{_flow(key)}: {_flow(value)}}}{text[end:]}"
    column = mapping.value[0][0].start_mark.column
    at = text.find("\n", _end(mapping))
    head, rest = (f"{text}\n", "") if at < 0 else (text[: at + 1], text[at + 1 :])
    return f"{head}{' ' * column}{_plain(key)}: {_flow(value)}\n{rest}"


def _end(node: yaml.Node) -> int:
    """Return where a node's own text ends: a block ends for the parser only where the next one begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _flow(value: Any) -> str:
    return _plain(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(value: str) -> str:
    """Return a text as YAML writes it on one line, in quotes where it needs them."""
    said: str = write_flow(value)
    line = said.removesuffix("...\n").rstrip("\n")
    return json.dumps(value) if "\n" in line else line
