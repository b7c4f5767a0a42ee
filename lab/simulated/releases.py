"""What the simulated lab knows by version of Kubernetes and of what belongs to it: releases.yaml, read once."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
_NEWEST_RECORDED = 36


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return found


def minor_of(version: str) -> int:
    """Return 31 of v1.31.7."""
    return int(version.lstrip("v").split(".")[1])


def since(minor: int, what: str) -> bool:
    """Return whether something is so in a minor version. Raises KeyError for what releases.yaml does not know."""
    kubernetes = _tables()["kubernetes"]
    if what in kubernetes["recorded"]:
        return minor >= _NEWEST_RECORDED
    return minor >= int(kubernetes["since"][what])


def _at(table: dict[int, Any], minor: int) -> Any:
    """Return the row of the newest version up to this one, else the oldest row."""
    return table[max((row for row in table if row <= minor), default=min(table))]


def images(version: str, repository: str = "") -> dict[str, str]:
    """Return the images that kubeadm of this version wants, by component, in the order in which it lists them."""
    minor = minor_of(version)
    upstream = "registry.k8s.io" if since(minor, "public_registry") else "k8s.gcr.io"
    base = repository or upstream
    tags = _at(_tables()["kubernetes"]["images"], minor)
    folder = "coredns/" if base == upstream and since(minor, "dns_below_a_folder") else ""
    found = {part: f"{base}/{part}:v{version.lstrip('v')}" for part in _COMPONENTS}
    dns = {"coredns": f"{base}/{folder}coredns:{tags['coredns']}"}
    rest = {"pause": f"{base}/pause:{tags['pause']}", "etcd": f"{base}/etcd:{tags['etcd']}"}
    return found | (dns | rest if since(minor, "dns_listed_first") else rest | dns)


def kubeadm_apis() -> dict[str, tuple[int, int]]:
    """Return the first and last minor version whose kubeadm reads each version of its API."""
    table: dict[str, list[int]] = _tables()["kubernetes"]["kubeadm_apis"]
    return {name: (minors[0], minors[1] if len(minors) > 1 else 99) for name, minors in table.items()}


def packages(minor: int) -> dict[str, Any]:
    """Return the shape of a minor version's packages: revision, what kubeadm's and the kubelet's need, tools' versions."""
    row: dict[str, Any] = _at(_tables()["kubernetes"]["packages"], minor)
    return {name: said.replace("{minor}", str(minor)) if isinstance(said, str) else said for name, said in row.items()}


def kubelet_defaults(minor: int) -> dict[str, Any]:
    """Return what kubeadm fills into a KubeletConfiguration that says nothing of it."""
    kubernetes = _tables()["kubernetes"]
    more = kubernetes["kubelet_config_recorded"] if minor >= _NEWEST_RECORDED else {}
    return copy.deepcopy({**kubernetes["kubelet_config"], **more})


def offered(package: str) -> tuple[str, ...]:
    """Return the versions of a package that its makers' repository offers."""
    return tuple(_tables()[package])
