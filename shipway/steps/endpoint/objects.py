"""What in the cluster itself names its endpoint: kubeadm's record, what joining hosts are told, kube-proxy's way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

from shipway.edits.kubeconfig import server_in, with_server
from shipway.edits.yaml import with_values
from shipway.errors import Blocked
from shipway.kube.client import Kube, Object
from shipway.kube.record import KEY, RECORD, SYSTEM, find_record
from shipway.step import Drift, Impact
from shipway.steps.endpoint.kubeconfigs import LOOPBACK
from shipway.steps.kubernetes.kubeadm_objects import managers

LED = "shipway.dev/api-endpoint"  # an annotation of kube-proxy's ConfigMap and of its pods: which change made them
PROXY, PROXY_KEY = "kube-proxy", "kubeconfig.conf"
INFO, INFO_NAMESPACE, INFO_KEY = "cluster-info", "kube-public", "kubeconfig"


@dataclass(frozen=True)
class EndpointRecorded:
    """kubeadm's record names the endpoint and the names of its certificate: joins, renewals and upgrades go by it."""

    impact: ClassVar[Impact] = Impact.SERVICE
    endpoint: str
    names: Sequence[str] = field(hash=False)
    name: str = "kubeadm-config names the endpoint"

    def _changes(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that are to be otherwise; names that are there stay."""
        changes: dict[str, Any] = {}
        if str(config.get("controlPlaneEndpoint", "")) != self.endpoint:
            changes["controlPlaneEndpoint"] = self.endpoint
        there = [str(one) for one in (config.get("apiServer") or {}).get("certSANs") or ()]
        if missing := [one for one in self.names if one not in there]:
            changes["apiServer"] = {"certSANs": [*there, *missing]}
        return changes

    async def check(self, on: Kube) -> Drift | None:
        """Compare. Raises Blocked where the record is lost."""
        found, config = await find_record(on)
        if not self._changes(config):
            return None
        have = f"{config.get('controlPlaneEndpoint', 'none')}{managers(found)}"
        return Drift(have, f"{self.endpoint}, certSANs {', '.join(self.names)}")

    async def apply(self, on: Kube) -> None:
        """Set the fields in its text, keep every other byte."""
        found, config = await find_record(on)
        text = with_values(found["data"][KEY], self._changes(config))
        meta = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await on.patch("v1", "ConfigMap", RECORD, {"metadata": meta, "data": {KEY: text}}, SYSTEM)
        on.forget()


@dataclass(frozen=True)
class ClusterInfoLeads:
    """cluster-info, by which hosts join, names the endpoint; the controller manager signs it anew by itself."""

    impact: ClassVar[Impact] = Impact.SERVICE
    endpoint: str
    name: str = "cluster-info names the endpoint"

    async def check(self, on: Kube) -> Drift | None:
        """Read its server; where somebody took it away nothing names another one."""
        found = await on.get("v1", "ConfigMap", INFO, INFO_NAMESPACE)
        have = _server(found, INFO_KEY) if found else ""
        return Drift(f"{have}{managers(found)}", f"https://{self.endpoint}") if have and not _is(have, self) else None

    async def apply(self, on: Kube) -> None:
        """Put the new server in the place of the old one."""
        found = await on.get("v1", "ConfigMap", INFO, INFO_NAMESPACE)
        if found is not None:
            await _lead(on, found, INFO_KEY, self.endpoint)


@dataclass(frozen=True)
class KubeProxyLeads:
    """kube-proxy's kubeconfig names the endpoint, and its pods were made since; where there is none, nothing does.

    The ConfigMap is marked in the very change, and the pods' template by the same words afterwards: whoever is cut off
    in between finds that the pods are still to be made anew.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    endpoint: str
    name: str = "kube-proxy's kubeconfig names the endpoint, and its pods read it"

    async def check(self, on: Kube) -> Drift | None:
        """Read its server, and compare the marks."""
        found = await on.get("v1", "ConfigMap", PROXY, SYSTEM)
        if found is None:
            return None
        have, want = _server(found, PROXY_KEY), f"https://{self.endpoint}"
        if not _is(have, self) and urlsplit(have).hostname not in LOOPBACK:
            return Drift(f"{have}{managers(found)}", f"{want}, and its pods made anew one by one")
        mark = _annotations(found).get(LED)
        pods = _annotations(
            ((await on.get("apps/v1", "DaemonSet", PROXY, SYSTEM) or {}).get("spec") or {}).get("template")
        )
        return Drift("its pods were made before", "made since") if mark and pods.get(LED) != mark else None

    async def apply(self, on: Kube) -> None:
        """Put the new server in the place of the old one, then have the pods made anew, one node after the other."""
        found = await on.get("v1", "ConfigMap", PROXY, SYSTEM)
        if found is None:
            return
        server = _server(found, PROXY_KEY)
        mark = _annotations(found).get(LED)
        if not _is(server, self) and urlsplit(server).hostname not in LOOPBACK:
            # Of this very change: who was cut off and goes back finds another mark than the pods have from before.
            mark = f"https://{self.endpoint} after {found['metadata']['resourceVersion']}"
            await _lead(on, found, PROXY_KEY, self.endpoint, {LED: mark})
        stamp = {"spec": {"template": {"metadata": {"annotations": {LED: mark}}}}}
        await on.patch("apps/v1", "DaemonSet", PROXY, stamp, SYSTEM)


def _is(server: str, step: ClusterInfoLeads | KubeProxyLeads) -> bool:
    return server == f"https://{step.endpoint}"


def _annotations(obj: Mapping[str, Any] | None) -> Mapping[str, str]:
    return ((obj or {}).get("metadata") or {}).get("annotations") or {}


def _server(found: Object, key: str) -> str:
    """Return the server in a ConfigMap's kubeconfig. Raises Blocked where there is none, or several."""
    meta = found["metadata"]
    try:
        return server_in((found.get("data") or {})[key])
    except (KeyError, ValueError) as error:
        fix = f"See `kubectl -n {meta['namespace']} get configmap {meta['name']} -o yaml`: it is to name one server."
        raise Blocked(f"{meta['namespace']}/{meta['name']} holds no kubeconfig of one cluster", fix=fix) from error


async def _lead(on: Kube, found: Object, key: str, endpoint: str, annotations: Mapping[str, str] | None = None) -> None:
    """Put a new server into a ConfigMap's kubeconfig, unless somebody changed it meanwhile."""
    meta = found["metadata"]
    text = with_server(found["data"][key], f"https://{endpoint}")
    head: dict[str, Any] = {"resourceVersion": meta["resourceVersion"]}
    if annotations:
        head["annotations"] = dict(annotations)
    await on.patch("v1", "ConfigMap", meta["name"], {"metadata": head, "data": {key: text}}, meta["namespace"])
    on.forget()
