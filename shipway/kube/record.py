"""kubeadm's record of the cluster: its ClusterConfiguration in a ConfigMap, by which joins and upgrades go."""

from __future__ import annotations

from typing import Any

from shipway.errors import Blocked
from shipway.foreign.yaml import read_yaml
from shipway.kube.client import Kube, Object

SYSTEM, RECORD, KEY = "kube-system", "kubeadm-config", "ClusterConfiguration"
# What kubectl on a host is asked, where this machine does not ask the API itself.
ASK = ("-n", SYSTEM, "get", "configmap", RECORD, "-o", f"jsonpath={{.data.{KEY}}}")
_LOST = "Write it anew with `kubeadm init phase upload-config kubeadm --config FILE` on a control-plane host."


async def find_record(on: Kube) -> tuple[Object, dict[str, Any]]:
    """Return the ConfigMap and the ClusterConfiguration in it. Raises Blocked where that is lost."""
    found = await on.get("v1", "ConfigMap", RECORD, SYSTEM)
    try:
        config = read_yaml((found or {}).get("data", {})[KEY])
    except (KeyError, TypeError, AttributeError, ValueError):
        config = None
    if found is None or not isinstance(config, dict):
        raise Blocked(f"{SYSTEM}/{RECORD} holds no {KEY}", fix=_LOST)
    return found, config


async def read_record(on: Kube) -> dict[str, Any]:
    """Return the ClusterConfiguration, its networks beside the rest. Raises Blocked where it is lost."""
    _, config = await find_record(on)
    networks = config.get("networking")
    return {**config, **(networks if isinstance(networks, dict) else {})}
