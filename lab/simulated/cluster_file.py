"""The ordinary files by which a lab is used: cluster file, private key, known_hosts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncssh
import yaml

from lab.simulated.host import SimulatedHost
from shipway.cluster.profiles import merge

# The guide's pod network, a /20, has room for 16 nodes; this one for 2,048.
_NARROW, _WIDE = 16, "10.128.0.0/13"
NAME = "simulated"  # so that reports, artifacts and names of runs say what it is, as well as the terminal
HEAD = "# SIMULATED: these hosts are in-process objects of `python -m lab.simulated`, not machines.\n"


def write_private(path: Path, content: bytes) -> None:
    """Write a file that is 0600 from its first byte."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def known_hosts(keys: Sequence[tuple[str, int, asyncssh.SSHKey]]) -> str:
    """Return known_hosts for (address, port, key)."""
    lines = (f"[{address}]:{port} {key.export_public_key().decode().strip()}" for address, port, key in keys)
    return "".join(f"{line}\n" for line in lines)


def cluster_data(hosts: Sequence[SimulatedHost], port: int, folder: Path, profile: str) -> dict[str, Any]:
    """Return a cluster file's data: the first host is the control plane."""
    wide = {"pod_network": _WIDE} if len(hosts) > _NARROW else {}
    return {
        "name": NAME,
        "profile": profile,
        "hosts": [{"name": host.name, "address": host.address, "gpus": len(host.gpu.devices)} for host in hosts],
        "ssh": {
            "user": "ops",
            "port": port,
            "key": str(folder / "id_ed25519"),
            "known_hosts": str(folder / "known_hosts"),
        },
        "state_dir": str(folder / "state"),
        # As the guide does on a test cluster: each of its four GPUs is one of the four test pods'.
        "kubernetes": {"schedule_on_control_plane": True, **wide},
    }


def write_cluster_file(path: Path, data: dict[str, Any], over: dict[str, Any]) -> None:
    """Write the cluster file with `over` put over it."""
    text = yaml.safe_dump(merge(data, over), sort_keys=False)
    path.write_text(HEAD + text, encoding="utf-8")
