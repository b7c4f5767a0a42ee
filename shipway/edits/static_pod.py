"""Edits of a static pod's manifest: flags and mounts that are set or taken out, with every other byte as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from shipway.foreign.yaml import Loader, read_yaml, write_flow, write_yaml
from shipway.kubeadm.hardening import Mount


def command_of(pod: Any) -> list[str]:
    """Return the words of a static pod's only container; raises ValueError for what is no such pod."""
    try:
        (container,) = pod["spec"]["containers"]
        return [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError("no pod with one container") from None


def with_flags(
    text: str,
    wanted: Mapping[str, str],
    unwanted: Iterable[str] = (),
    mounts: Iterable[Mount] = (),
    gone: Iterable[str] = (),
) -> str:
    """Return the manifest with these flags and mounts, and without those that are not wanted (by name).

    The text is read again and must say what was meant; a layout that is not understood is written anew. Raises
    ValueError where the text is no static pod.
    """
    pod = read_yaml(text)
    command_of(pod)
    meant = _meant(pod, wanted, set(unwanted), list(mounts), set(gone))
    if meant == pod:
        return text
    try:
        edited = _edit(text, pod, meant)
        if read_yaml(edited) == meant:
            return edited
    except (ValueError, LookupError, yaml.YAMLError, RecursionError):
        pass
    return write_yaml(meant)


def _meant(pod: Any, wanted: Mapping[str, str], unwanted: set[str], mounts: list[Mount], gone: set[str]) -> Any:
    """Return what the manifest is to say."""
    meant = copy.deepcopy(pod)
    spec = meant["spec"]
    (container,) = spec["containers"]
    key = "command" if container.get("command") else "args"
    left = dict(wanted)
    words: list[str] = []
    for word in container[key]:
        name = _flag(str(word))
        if name in left:
            words.append(f"--{name}={left.pop(name)}")
        elif name not in wanted and name not in unwanted:
            words.append(word)
    container[key] = [*words, *(f"--{name}={value}" for name, value in left.items())]
    names = gone | {mount.name for mount in mounts}
    for holder, field, own in (
        (container, "volumeMounts", [_mounted(mount) for mount in mounts]),
        (spec, "volumes", [_volume(mount) for mount in mounts]),
    ):
        there = list(holder.get(field) or ())
        kept = [one for one in there if one.get("name") not in names or one in own]
        new = [*kept, *(one for one in own if one not in kept)]
        if new != there:
            holder[field] = new
    return meant


def _flag(word: str) -> str:
    return word[2:].partition("=")[0] if word.startswith("--") else ""


def _mounted(mount: Mount) -> dict[str, Any]:
    """Return the mount as kubeadm writes it: readOnly only where it is so."""
    made: dict[str, Any] = {"mountPath": mount.path, "name": mount.name}
    return {**made, "readOnly": True} if mount.read_only else made


def _volume(mount: Mount) -> dict[str, Any]:
    return {"hostPath": {"path": mount.path, "type": mount.kind}, "name": mount.name}


def _edit(text: str, pod: Any, meant: Any) -> str:
    """Return the text with what differs set, from its end to its beginning, so that places stay what they are."""
    root = yaml.compose(text, Loader=Loader)
    spec = _at(root, "spec")
    (container,) = _at(spec, "containers").value
    key = "command" if pod["spec"]["containers"][0].get("command") else "args"
    places = [
        (_at(container, key), meant["spec"]["containers"][0][key]),
        (_at(container, "volumeMounts"), meant["spec"]["containers"][0].get("volumeMounts")),
        (_at(spec, "volumes"), meant["spec"].get("volumes")),
    ]
    changes = [(node, values) for node, values in places if values is not None]
    for node, values in sorted(changes, key=lambda one: -int(one[0].start_mark.index)):
        text = _listed(text, node, values)
    return text


def _at(node: Any, key: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("no mapping")  # noqa: TRY004 - as in shipway.edits.yaml
    found = next((value for name, value in node.value if name.value == key), None)
    if found is None:
        raise ValueError(f"no {key}")
    return found


def _listed(text: str, node: Any, wanted: list[Any]) -> str:
    """Return the text with a block list's entries as wanted: those that are equal keep their lines."""
    if not isinstance(node, yaml.SequenceNode) or node.flow_style or not node.value:
        raise ValueError("no list in block style")
    starts = [text.rindex("\n", 0, item.start_mark.index) + 1 for item in node.value]
    indent = text[starts[0] : node.value[0].start_mark.index].partition("-")[0]
    ends = [*starts[1:], _end_of(text, node.value[-1])]
    kept: list[tuple[Any, str]] = [
        (read_yaml(text[start:end])[0], text[start:end]) for start, end in zip(starts, ends, strict=True)
    ]
    lines: list[str] = []
    for value in wanted:
        found = next((at for at, (one, _) in enumerate(kept) if one == value), None)
        lines.append(_entry(value, indent) if found is None else kept.pop(found)[1])
    return text[: starts[0]] + "".join(lines) + text[ends[-1] :]


def _end_of(text: str, node: Any) -> int:
    """Return where the line behind a node begins."""
    last = node
    while isinstance(last, yaml.CollectionNode) and not last.flow_style and last.value:
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    end = text.find("\n", int(last.end_mark.index) - 1)
    return len(text) if end < 0 else end + 1


def _entry(value: Any, indent: str) -> str:
    """Return an entry of a list as kubeadm writes it."""
    if isinstance(value, str):
        said = write_flow(value).removesuffix("...\n").strip()
        return f"{indent}- {said}\n"
    body = write_yaml(value).splitlines()
    return "".join(f"{indent}{'- ' if not at else '  '}{line}\n" for at, line in enumerate(body))
