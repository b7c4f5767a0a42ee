"""The lab's cluster file: an ordinary one, as a site without internet would write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lab.containers.kubernetes import chosen
from lab.containers.machine import lacks_sys_resource
from lab.containers.model import LabPlan
from shipway.cluster.profiles import merge

MANIFESTS = Path(__file__).parent / "manifests"
REGISTRIES = ("k8s.gcr.io", "registry.k8s.io", "nvcr.io", "docker.io")


def content(plan: LabPlan, state: Path, **changes: Any) -> dict[str, Any]:
    """Return the cluster file as data; `changes` replace whole sections (gpu, system ...)."""
    key = {"url": f"{plan.apt_url('debian')}/Release.key", "fingerprint": plan.key_fingerprint}

    def repository(name: str) -> dict[str, Any]:
        return {"uri": plan.apt_url(name), "suite": "./", "key": dict(key)}

    data: dict[str, Any] = {
        "name": "lab",
        "profile": "lab",
        "hosts": [
            {"name": host.name, "address": host.address, "roles": [host.role], "gpus": host.gpus} for host in plan.hosts
        ],
        "ssh": {
            "user": plan.hosts[0].user,
            "key": str(state / "id_ed25519"),
            "known_hosts": str(state / "known_hosts"),
            "connect_seconds": 6,
        },
        "runtime": {"restrict_oom_score_adj": lacks_sys_resource()},
        "gpu": {"compute": "off"},  # stand-ins for GPUs run no CUDA
        "network": {"provider": "manifests", "manifests": [str(MANIFESTS / "lab-cni.yaml")]},
        "sources": {
            "base_apt": repository("debian"),
            "apt": {
                "docker": repository("containerd"),
                "nvidia": repository("nvidia"),
                "kubernetes": repository("kubernetes"),
            },
            "registry_mirrors": dict.fromkeys(REGISTRIES, f"http://{plan.mirror}:5000"),
        },
        "state_dir": str(state / "controller"),
    }
    return merge(data, chosen().cluster) | changes


def write(plan: LabPlan, state: Path) -> Path:
    """Write state/cluster.yaml; return its path."""
    path = state / "cluster.yaml"
    head = "# A lab of containers: the hosts and Kubernetes are real, the GPUs are SIMULATED.\n"
    path.write_text(head + yaml.safe_dump(content(plan, state), sort_keys=False), encoding="utf-8")
    return path
