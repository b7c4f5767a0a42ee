"""Cut an answer down to what must agree between labs whose machines differ: one named function a kind of answer."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from typing import Any

from tests.conformance import reduce_machine
from tests.conformance.normalise import table


def _cri(text: str) -> str:
    """Containerd's configuration: the settings that a cluster's set-up reads."""
    data = tomllib.loads(text)
    cri: dict[str, Any] = data.get("plugins", {}).get("io.containerd.grpc.v1.cri", {})
    engine: dict[str, Any] = cri.get("containerd", {})
    runtimes: dict[str, Any] = engine.get("runtimes", {})
    kept = {
        "version": data.get("version"),
        "disabled_plugins": data.get("disabled_plugins"),
        "imports": data.get("imports"),
        "sandbox_image": cri.get("sandbox_image"),
        "config_path": cri.get("registry", {}).get("config_path"),
        "default": engine.get("default_runtime_name"),
        "cgroups": {name: one.get("options", {}).get("SystemdCgroup") for name, one in runtimes.items()},
        "binaries": {name: one.get("options", {}).get("BinaryName") for name, one in runtimes.items()},
        "types": {name: one.get("runtime_type") for name, one in runtimes.items()},
        "cni": {key: cri.get("cni", {}).get(key) for key in ("bin_dir", "conf_dir")},
    }
    return json.dumps(kept, indent=1, sort_keys=True)


def _rows(*wanted: str) -> Callable[[str], str]:
    """Keep the lines in which one of the patterns is found."""
    pattern = re.compile("|".join(wanted))
    return lambda text: "\n".join(line for line in text.splitlines() if pattern.search(line))


def _collapsed(text: str) -> str:
    return "\n".join(re.sub(r"\s+", " ", line).strip() for line in text.splitlines())


def _columns(*dropped: str) -> Callable[[str], str]:
    """Return a table without some of its columns (they depend on the machine or its load)."""

    def reduce(text: str) -> str:
        lines = text.splitlines()
        if not lines:
            return text
        starts = [(found.group(), found.start()) for found in re.finditer(r"\S+(?: \S+)*", lines[0])]
        kept = [
            (start, starts[at + 1][1] if at + 1 < len(starts) else None)
            for at, (name, start) in enumerate(starts)
            if name not in dropped
        ]
        return table("\n".join("   ".join(line[a:b].strip() or "-" for a, b in kept) for line in lines))

    return reduce


def _sorted(text: str) -> str:
    return "\n".join(sorted(text.splitlines()))


def _image_errors(text: str) -> str:
    """Return which images failed, and not why: a mirror, a proxy and an empty network each say it in their own way."""
    found = re.findall(r"^\[preflight.*|\[ERROR \w+\]: failed to pull image [^ ]+:", text, re.MULTILINE)
    return _sorted("\n".join(found))


def _network(text: str) -> str:
    """Return the reason about the network alone: for a moment another one stands beside it."""
    return "".join(re.findall(r"runtime network not ready: .*?cni plugin not initialized", text))


REDUCERS: dict[str, Callable[[str], str]] = {
    "": lambda text: text,
    "table": table,
    "nodes": _columns("KERNEL-VERSION"),
    "pods": lambda text: _sorted(_columns("READY", "RESTARTS", "AGE", "IP", "NODE")(text)),
    "pods-placed": lambda text: _sorted(_columns("RESTARTS", "AGE", "IP", "NODE")(text)),
    "events": lambda text: "\n".join(dict.fromkeys(_columns("LAST SEEN")(text).splitlines())),
    "cri": _cri,
    "cri-plugin": lambda text: _collapsed(_rows(r"^TYPE", r"\bcri\b")(text)),
    "no-output": lambda text: "",  # noqa: ARG005 - the status is what must agree
    "sorted": _sorted,
    "errors": _rows(r"^E: "),
    "image-errors": _image_errors,
    "capacity": lambda text: _collapsed(_rows(r"nvidia\.com/gpu", r"^  pods:")(text)),
    "network": _network,
    "actions": lambda text: _sorted(_rows(r"newly installed", r"^Setting up", r"^Unpacking", r"set on hold")(text)),
    "clock": reduce_machine.clock,
    "number": reduce_machine.number,
    "release": reduce_machine.release,
    "room": reduce_machine.room,
    "addresses": reduce_machine.addresses,
    "ports": reduce_machine.ports,
    "policies": _rows(r"^-P ", r"^iptables"),
    "ended": _rows(r"^Finished with", r"^Main processes terminated", r"^Failed to"),
    "counts": lambda text: re.sub(
        r" and \d+ not", " and <n> not", _rows(r"^\d+ upgraded", r"^Setting up", r"^E: ")(text)
    ),
    "first-line": lambda text: text.splitlines()[0] if text else "",
}
