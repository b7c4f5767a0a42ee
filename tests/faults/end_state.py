"""What a run left on a SIMULATED lab, without what differs from run to run: times, keys, generated names."""

from __future__ import annotations

import re
from typing import Any

from lab.simulated.host import SimulatedHost
from lab.simulated.lab import SimulatedLab

# Each lab's own keys and certificates: only the files' names are compared.
OWN_KEYS = (
    "/etc/kubernetes",
    "/var/lib/kubelet",
    "/var/lib/etcd",
    "/home/",
    "/root/",
    "/etc/apt/keyrings",
    "/var/lib/shipway/apt-",
)
PASSING = ("/run/", "/var/log/", "/var/cache/", "/tmp/", "/var/lib/apt/lists")
BESIDE = re.compile(r"\.before-shipway$|/\.[^/]*\.new$")
GENERATED = ("events", "pods", "replicasets.apps", "leases.coordination.k8s.io", "endpointslices.discovery.k8s.io")
# Loaded where a look did not show that packets can be translated: whichever back end does it, both ends are right.
PERHAPS = {"ip_tables", "iptable_nat", "nf_nat"}
INVOCATION = re.compile(r'"invocation": "[0-9a-f]{32}"')  # another one each time a service starts
UNIQUE = re.compile(r"-[a-z0-9]{5,10}(-[a-z0-9]{5})?$|-token-[a-z0-9]+$")


def end_state(lab: SimulatedLab) -> dict[str, Any]:
    """Return the lasting state of every host and of the API."""
    addresses = {host.address: name for name, host in lab.hosts.items()}
    addresses |= {address.replace(".", "-"): name for address, name in addresses.items()}
    state: dict[str, Any] = {name: _host(host, addresses) for name, host in lab.hosts.items()}
    cluster = lab.link.cluster
    if cluster is None:
        return state
    store = cluster.world.store
    names = {
        (kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        for kind in store.resources()
        if kind not in GENERATED
        for obj in store.objects(kind)
    }
    tokens = {name for name in names if name[0] == "secrets" and name[2].startswith("bootstrap-token-")}
    state["tokens"] = len(tokens)
    state["api"] = sorted(
        {(kind, space, UNIQUE.sub("", name) if kind == "secrets" else name) for kind, space, name in names - tokens}
    )
    return state


def _host(host: SimulatedHost, addresses: dict[str, str]) -> dict[str, Any]:
    files = {}
    for path, node in host.files.changes().items():
        if path.startswith(PASSING) or BESIDE.search(path):
            continue
        files[path] = "" if path.startswith(OWN_KEYS) else host.files.text(path) if node is not None else ""
        for address, name in addresses.items():  # every lab has addresses of its own
            files[path] = re.sub(rf"{re.escape(address)}(?![0-9])", name, files[path])
        files[path] = INVOCATION.sub('"invocation": ""', files[path])
        files[path] += "" if node is not None else " (removed)"
    return {
        "files": files,
        "packages": {name: (one.version, one.held) for name, one in host.packages.installed.items()},
        "units": {u.name: (u.active, u.wanted, u.masked) for u in host.units.all.values() if not u.transient},
        "settings": dict(host.kernel.settings),
        "kernel": {
            "modules": sorted(set(host.kernel.modules) - PERHAPS),
            "swaps": host.kernel.swaps,
            "name": host.kernel.hostname,
        },
    }


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Return the places where two states differ, with both values in short."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted({*one, *other}, key=str)
            for line in differences(one.get(key), other.get(key), f"{place}/{key}")
        ]
    if isinstance(one, list) and isinstance(other, list):
        extra = [f"{place}: + {item}" for item in other if item not in one]
        return extra + [f"{place}: - {item}" for item in one if item not in other]
    return [] if one == other else [f"{place}: {str(one)[:80]!r} != {str(other)[:80]!r}"]
