"""Hostile values, and every place of a cluster file that they can be put into, found by walking the model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from shipway.cluster.fields import _group_by_section
from shipway.cluster.secrets import keep

Where = tuple[str | int, ...]
KEY = "<key>"  # stands at the end of a place that is a key of the writer's own, not a value
MARK = "OWNED"  # a file that only a payload that ran could make

PAYLOADS = (
    f"$(touch {MARK})",
    f"`touch {MARK}`",
    f"; touch {MARK} ;",
    f"x; touch {MARK}",
    f"a\ntouch {MARK}\n",
    f"x' ; touch {MARK} ; '",
    f'x" ; touch {MARK} ; "',
    f"x | touch {MARK}",
    f"x && touch {MARK}",
    f"> {MARK}",
    f"${{IFS}}touch${{IFS}}{MARK}",
    f"-oProxyCommand=touch {MARK}",
    "--help",
    "-rf",
    "*",
    "~root/.ssh/id_rsa",
    "../../../../etc/shadow",
    "x\x00y",
    "x\x1b]0;title\x07",
    "x\u2028y",
    "\\",
    "{}",
    "%s%n",
)

APT = {
    "uri": "https://mirror.example.com/apt",
    "suite": "{codename}",
    "components": ["main"],
    "key": {"url": "https://mirror.example.com/key.asc", "fingerprint": "A" * 40},
}
JUMP = {"address": "10.0.0.9", "port": 22, "user": "jump", "key": "/keys/jump"}
keep("proxy", "ops:hunter2")
WHOLE: dict[str, Any] = {
    "name": "demo",
    "profile": "current",
    "mirrors": "aliyun",
    "hosts": [
        {
            "name": "te1",
            "address": "10.0.0.1",
            "node_ip": "10.0.0.1",
            "roles": ["control_plane"],
            "gpus": 0,
            "ssh": {"user": "ops", "port": 22, "key": "/keys/te1", "jump": JUMP},
            "labels": {"example.com/rack": "r1"},
        },
        {
            "name": "te2",
            "address": "10.0.0.2",
            "node_ip": "10.0.0.2",
            "gpus": 2,
            "gpu_class": "shared4",
            "rails": ["mlx5_0/1"],
            "not_cloned": True,
        },
    ],
    "ssh": {
        "user": "ops",
        "port": 22,
        "key": "/keys/id",
        "known_hosts": "/keys/known_hosts",
        "host_keys": "strict",
        "jump": JUMP,
        "connect_seconds": 20.0,
        "config": "/keys/config",
        "sudo_password_file": "/keys/sudo",
    },
    "system": {"packages": ["curl"], "upgrade": True, "may_remove": ["docker.io"], "ports": [6443]},
    "kubernetes": {
        "version": "1.34.2",
        "pod_network": "10.244.0.0/16",
        "service_network": "10.96.0.0/12",
        "node_mask": 24,
        "api_endpoint": {"kind": "external", "name": "api.example.com", "port": 6443},
        "api_vip": {"address": "10.0.0.9", "interface": "eth0", "router_id": 9},
        "api_port": 6443,
        "image_repository": "registry.example.com/k8s",
        "allow_cgroup_v1": False,
        "schedule_on_control_plane": "auto",
        "joins_at_once": 50,
        "kubelet": {"clusterDomain": "cluster.local"},
        "kube_proxy": {"mode": "iptables"},
        "init_seconds": 600,
        "join_seconds": 420,
    },
    "runtime": {
        "package": "containerd.io",
        "extra_packages": ["runc"],
        "version": "2.1.4",
        "restrict_oom_score_adj": False,
    },
    "gpu": {
        "mode": "runtime_class",
        "classes": {"shared4": {"sharing": "time-slicing", "replicas": 4, "rename": True}},
        "sharing": "exclusive",
        "rails": ["mlx5_0/1"],
        "toolkit": "1.18.1",
        "driver": {"source": "cuda", "branch": 580, "version": "580.95.05", "flavour": "open", "imex": "host"},
        "verify_image": "registry.example.com/cuda:1",
        "compute": "required",
        "isolation": "strict",
        "verify_seconds": 300,
        "figures": {
            "image": "registry.example.com/torch:2",
            "least": {
                "NVIDIA-H200": {
                    "matmul": 350.0,
                    "library_matmul": 600.0,
                    "copy": 4000.0,
                    "to_gpu": 40.0,
                    "from_gpu": 33.0,
                    "all_reduce": 300.0,
                }
            },
        },
    },
    "network": {"provider": "calico", "version": "3.31.2", "block_size": 26, "encapsulation": "VXLANCrossSubnet"},
    "device_plugin": {"version": "0.18.0", "image": "registry.example.com/plugin"},
    "dra_driver": {"version": "0.4.1", "image": "registry.example.com/dra"},
    "dashboard": {"enabled": False, "version": "2.7.0", "node_port": 31000, "role": "view"},
    "addons": {"node-problem-detector": {}},
    "hardening": {
        "audit": {
            "enabled": True,
            "policy": "/etc/shipway/audit.yaml",
            "max_age_days": 30,
            "max_backups": 10,
            "max_size_mib": 100,
        },
        "pod_security": {
            "enabled": True,
            "enforce": "baseline",
            "warn": "restricted",
            "audit": "restricted",
            "exempt_namespaces": ["storage"],
        },
        "kubelet": {
            "enabled": True,
            "protect_kernel_defaults": True,
            "tls_cipher_suites": ["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"],
        },
        "control_plane": True,
        "encryption_at_rest": True,
    },
    "upgrade": {
        "gpu_jobs": "wait",
        "wait_minutes": 240,
        "hosts_at_once": 1,
        "failures": 1,
        "soak_seconds": 600,
        "approve": False,
        "despite": ["older_patch"],
    },
    "maintain": {"packages": "all", "reboot": "always", "reboot_minutes": 15, "taints": ["site.example.com/own"]},
    "backup": {
        "every_hours": 6,
        "keep": 14,
        "keep_days": 30,
        "keep_local": "/srv/backups",
        "encrypt_to": ["age1qhqsm9gxn7kj4rmpt3r8cl02zss2v3c028nxrf9lqedkvvp2daeqs9nmhu"],
        "s3": {
            "bucket": "backups-1",
            "prefix": "clusters/eu",
            "endpoint": "https://s3.example.com:9000",
            "region": "eu-central-1",
            "clear_text": False,
        },
        "max_age_hours": 26,
    },
    "repair": {
        "allow": "service",
        "ask": False,
        "hosts_at_once": 1,
        "delete_emptydir_data": False,
        "disturb": ["te2"],
        "restart_beside_pods": False,
        "quarantine": False,
        "window": {"cron": "0 2 * * 6", "minutes": 120},
    },
    "proxy": {
        "http": "http://proxy.example.com:3128",
        "https": "http://proxy.example.com:3129",
        "no_proxy": [".example.com"],
        "credentials": "block:proxy",
    },
    "sources": {
        "apt": {"docker": APT, "nvidia": {**APT, "key": {"path": "/keys/nvidia.asc"}}, "kubernetes": APT},
        "base_apt": APT,
        "registry_mirrors": {"registry.k8s.io": "http://mirror.example.com:5000"},
        "registries": {"mirror.example.com": {"credentials": "block:proxy"}, "ca.example.com": {"ca": "/keys/ca.pem"}},
        "manifests": {
            "tigera_operator": {"url": "https://mirror.example.com/o.yaml", "sha256": "0" * 64},
            "operator_crds": {"url": "https://mirror.example.com/c.yaml", "sha256": "0" * 64},
            "dashboard": {"path": "/manifests/dashboard.yaml"},
        },
    },
    "state_dir": "/state",
}
# What cannot stand beside something else of WHOLE.
OTHER: dict[str, Any] = {
    **WHOLE,
    "kubernetes": {
        **WHOLE["kubernetes"],
        "api_endpoint": "10.0.0.1:6443",
        "api_vip": {"address": "10.0.0.9", "by": "kube-vip", "image": "registry.example.com/kube-vip:v1.2.3"},
    },
    "gpu": {**WHOLE["gpu"], "mode": "cdi", "classes": {"shared4": {"sharing": "mig-single", "mig": "all-1g.10gb"}}},
    "ssh": {"user": "ops", "sudo_password_secret": "sudo"},
    "network": {"provider": "manifests", "version": "3.31.2", "manifests": ["/manifests/net.yaml"]},
    "repair": {"window": {"rrule": "FREQ=WEEKLY;BYDAY=SA;BYHOUR=2;BYMINUTE=0;BYSECOND=0", "minutes": 120}},
    "sources": {**WHOLE["sources"], "base_apt": {**APT, "key": {"path": "/keys/base.asc"}}},
}


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every field of a model that holds a value itself, and every key that a writer chooses, by reflection."""
    for name, info in model.model_fields.items():
        yield from _of(info.annotation, f"{prefix}{name}")


def _ways(kind: Any) -> Iterator[Any]:
    """Yield each way in which a value may be written; that it may be left out is none."""
    if get_origin(kind) is Annotated:
        yield from _ways(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            yield from _ways(one)
    elif kind is not NoneType:
        yield kind


def _of(kind: Any, path: str) -> Iterator[str]:
    if len(ways := list(_ways(kind))) > 1:
        for one in ways:
            yield from _of(one, path)
        return
    kind = _group_by_section(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from fields(kind, f"{path}.")
    elif get_origin(kind) is tuple:
        yield from _of(get_args(kind)[0], f"{path}[]")
    elif get_origin(kind) is dict:
        yield f"{path}.{KEY}"
        yield from _of(get_args(kind)[1], f"{path}.NAME")
    else:
        yield path


def places(data: Any, at: Where = ()) -> Iterator[tuple[Where, str]]:
    """Yield every place of a file's data: values and own keys, each with its field as `fields` names it."""
    if isinstance(data, dict):
        own = _field(at) in OWN_KEYS
        for key, value in data.items():
            if own:
                yield (*at, key, KEY), f"{_field(at)}.{KEY}"
            yield from places(value, (*at, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from places(value, (*at, index))
    else:
        yield at, _field(at)


OWN_KEYS = (
    "addons",
    "gpu.classes",
    "gpu.figures.least",
    "gpu.figures.least.NAME",
    "hosts[].labels",
    "kubernetes.kubelet",
    "kubernetes.kube_proxy",
    "sources.apt",
    "sources.registry_mirrors",
    "sources.registries",
    "sources.manifests",
)


def _field(at: Where) -> str:
    text = ""
    for part in at:
        text += "[]" if isinstance(part, int) else ".NAME" if text in OWN_KEYS else f".{part}"
        text = text.removeprefix(".")
    return text


def with_value(data: dict[str, Any], at: Where, value: Any) -> dict[str, Any]:
    """Return the data with one place filled otherwise."""
    made = copy.deepcopy(data)
    inner: Any = made
    if at[-1] == KEY:
        *way, key, _ = at
        for part in way:
            inner = inner[part]
        inner[value] = inner.pop(key)
        return made
    for part in at[:-1]:
        inner = inner[part]
    inner[at[-1]] = value
    return made
