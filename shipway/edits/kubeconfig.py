"""A person's kubeconfig with our cluster in it: only our own entries change, those of other clusters stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from shipway.ownership.evidence import authorities, decode_pem

_SERVER = re.compile(r"^([ -]*server:[ \t]*)(\S+)", re.MULTILINE)
SECTIONS = {"clusters": "cluster", "users": "user", "contexts": "context"}


@dataclass(frozen=True)
class _Ours:
    """Our entries as admin.conf has them, by section, and the authorities of our cluster."""

    entries: dict[str, yaml.MappingNode]
    authorities: frozenset[str]


def merge_kubeconfigs(own: str, admin: str) -> str | None:
    """Return a kubeconfig with admin.conf's cluster, user and context in it; None where it holds nothing but ours.

    Scalars keep their text. An entry of the same name that is not ours keeps its name, and ours gets another one; the
    current context stays, and what a person set in ours: its namespace, say. A user of another name is a person's own.
    Raises ValueError where one of the two is no kubeconfig.
    """
    document, leader = _document(own), _document(admin)
    ours = _ours(leader)
    if _nothing_else(document, ours):
        return None
    cluster = _name(document, "clusters", ours)
    context, user = _name(document, "contexts", ours), _name(document, "users", ours)
    for section, name in (("clusters", cluster), ("users", user), ("contexts", context)):
        entry = ours.entries[section]
        _set(entry, "name", name)
        inner = _value(entry, "context")
        if isinstance(inner, yaml.MappingNode):
            _set(inner, "cluster", cluster)
            _set(inner, "user", user)
            inner.value += _chosen(document, name)
        _put(document, section, name, entry)
    if not _text(_value(document, "current-context")):
        _set(document, "current-context", context)
    return yaml.serialize(document, Dumper=yaml.SafeDumper)


def without_clusters(own: str, trusted: frozenset[str]) -> str | None:
    """Return a kubeconfig without the clusters of these authorities, their contexts, and users that no other has.

    None where nothing else is in it; the text itself where none of them is. Raises ValueError for no kubeconfig.
    """
    document = _document(own)
    clusters = {_text(_value(one, "name")) for one in _entries(document, "clusters") if _authorities(one) & trusted}
    if not clusters:
        return own
    contexts: dict[str, tuple[str, str]] = {}
    for one in _entries(document, "contexts"):
        inner = _value(one, "context")
        contexts[_text(_value(one, "name"))] = _text(_value(inner, "cluster")), _text(_value(inner, "user"))
    gone = {name for name, (cluster, _) in contexts.items() if cluster in clusters}
    users = {contexts[name][1] for name in gone} - {user for name, (_, user) in contexts.items() if name not in gone}
    left = 0
    for section, names in (("clusters", clusters), ("contexts", gone), ("users", users)):
        held = _value(document, section)
        if isinstance(held, yaml.SequenceNode):
            held.value = [one for one in held.value if _text(_value(one, "name")) not in names]
            left += len(held.value)
    if not left:
        return None
    if _text(_value(document, "current-context")) in gone:
        _set(document, "current-context", next((name for name in contexts if name not in gone), ""))
    return yaml.serialize(document, Dumper=yaml.SafeDumper)


def _document(text: str) -> yaml.MappingNode:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ValueError("no kubeconfig: not YAML") from None  # the cause would quote it
    if not isinstance(node, yaml.MappingNode) or any(
        isinstance(value, yaml.MappingNode) or _text(value) not in ("", "null", "~")
        for value in (_value(node, section) for section in SECTIONS)
    ):
        raise ValueError("no kubeconfig: not lists of clusters, users and contexts")
    return node


def _ours(leader: yaml.MappingNode) -> _Ours:
    entries = {section: next(_entries(leader, section), None) for section in SECTIONS}
    found = {section: entry for section, entry in entries.items() if entry is not None}
    if len(found) < len(SECTIONS):
        raise ValueError("admin.conf lacks an entry")
    return _Ours(found, _authorities(found["clusters"]))


def _entries(document: yaml.MappingNode, section: str) -> Iterator[yaml.MappingNode]:
    held = _value(document, section)
    for item in held.value if isinstance(held, yaml.SequenceNode) else ():
        if isinstance(item, yaml.MappingNode):
            yield item


def _authorities(cluster: yaml.MappingNode) -> frozenset[str]:
    inner = _value(cluster, "cluster")
    data = _value(inner, "certificate-authority-data") if isinstance(inner, yaml.MappingNode) else None
    return authorities(decode_pem(_text(data)))


def _names(document: yaml.MappingNode, section: str) -> list[str]:
    return [_text(_value(one, "name")) for one in _entries(document, section)]


def _chosen(document: yaml.MappingNode, name: str) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return what the context of this name has besides its cluster and user, as its namespace."""
    inners = [_value(one, "context") for one in _entries(document, "contexts") if _text(_value(one, "name")) == name]
    pairs = [pair for one in inners for pair in _pairs(one)]
    return [(key, value) for key, value in pairs if _text(key) not in ("cluster", "user")]


def _nothing_else(document: yaml.MappingNode, ours: _Ours) -> bool:
    names = {section: _text(_value(entry, "name")) for section, entry in ours.entries.items()}
    if any(_names(document, section) != [name] for section, name in names.items()):
        return False
    trusted = _authorities(next(_entries(document, "clusters"))) & ours.authorities
    return bool(trusted) and not _chosen(document, names["contexts"])


def _name(document: yaml.MappingNode, section: str, ours: _Ours) -> str:
    """Return the name of our entry: admin.conf's, or with the start of our CA's hash where another's has that one."""
    name = _text(_value(ours.entries[section], "name"))
    own = {_text(_value(one, "name")) for one in _entries(document, "clusters") if _authorities(one) & ours.authorities}
    contexts = [(_value(one, "context"), _text(_value(one, "name"))) for one in _entries(document, "contexts")]
    pairs = [(_text(_value(inner, "cluster")), _text(_value(inner, "user")), context) for inner, context in contexts]
    taken = {
        "clusters": set(_names(document, "clusters")) - own,
        "contexts": {context for cluster, _, context in pairs if cluster not in own},
        "users": {user for cluster, user, _ in pairs if cluster not in own}
        | (set(_names(document, "users")) - {user for _, user, _ in pairs}),
    }[section]
    short = min(ours.authorities, default="").removeprefix("sha256:")[:8]
    return f"{name}-{short}" if name in taken else name


def _put(document: yaml.MappingNode, section: str, name: str, entry: yaml.MappingNode) -> None:
    held = _value(document, section)
    if not isinstance(held, yaml.SequenceNode):
        document.value = [(key, value) for key, value in document.value if _text(key) != section]
        key = yaml.ScalarNode("tag:yaml.org,2002:str", section)
        held = yaml.SequenceNode("tag:yaml.org,2002:seq", [], flow_style=False)
        document.value.append((key, held))
    places = [at for at, one in enumerate(held.value) if _text(_value(one, "name")) == name]
    if places:
        held.value[places[0]] = entry
    else:
        held.value.append(entry)


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    return next((value for name, value in _pairs(node) if _text(name) == key), None)


def _set(node: yaml.MappingNode, key: str, text: str) -> None:
    scalar = yaml.ScalarNode("tag:yaml.org,2002:str", text)
    at = next((at for at, (name, _) in enumerate(node.value) if _text(name) == key), None)
    if at is None:
        node.value.append((yaml.ScalarNode("tag:yaml.org,2002:str", key), scalar))
    else:
        node.value[at] = (node.value[at][0], scalar)


def _text(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def same(one: str, other: str) -> bool:
    """Say whether two kubeconfigs have the same content, however each is written."""
    try:
        return _plain(_document(one)) == _plain(_document(other))
    except ValueError:
        return one == other


def _plain(node: yaml.Node | None) -> object:
    """Return a node as plain data; every scalar as its text."""
    if isinstance(node, yaml.MappingNode):
        return {_text(key): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(one) for one in node.value]
    return _text(node)


def server_in(text: str) -> str:
    """Return the server that a kubeconfig of one cluster names. Raises ValueError where it names none, or several."""
    (line,) = _SERVER.findall(text)
    return str(line[1]).strip("\"'")


def with_server(text: str, server: str) -> str:
    """Return a kubeconfig of one cluster with another server, and every other byte as it was; raises as `server_in`."""
    server_in(text)
    return _SERVER.sub(lambda found: f"{found[1]}{server}", text)
