"""What kubeadm put into kube-system and keeps nodes alive: kube-proxy, CoreDNS, rights, and what each kubelet runs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import quote

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.edits.yaml import with_values
from shipway.errors import ApiRefused, Blocked, Permanent
from shipway.foreign.yaml import read_yaml
from shipway.host.session import OPERATIONS, Command, Host
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import nodes_by_name
from shipway.kube.status import is_true
from shipway.kubeadm.config import as_yaml, init_documents
from shipway.kubeadm.values import differences, spell
from shipway.kubeadm.writes import dns_address, rights
from shipway.step import Drift, Impact

SYSTEM = "kube-system"
OK = 200
REPLICAS = 2  # kubeadm's own number for CoreDNS (app/phases/addons/dns)
RESTARTED = "shipway.dev/restarted-at"  # an annotation of a pod template: another value makes new pods
SHOWN = 6


def managers(obj: Object | None) -> str:
    """Return who wrote an object last, its controllers aside, by its managedFields; empty where none is named."""
    entries = ((obj or {}).get("metadata") or {}).get("managedFields") or ()
    named = [(str(one.get("time", "")), str(one.get("manager", ""))) for one in entries if not one.get("subresource")]
    who = max(named, default=("", ""))
    return f" (last written by {who[1]} at {who[0]})" if who[1] else ""


async def phase(control: Host, cluster: Cluster, spec: HostSpec, *words: str) -> None:
    """Run a phase of `kubeadm init` on the control plane's host; it writes what is missing, and is safe to repeat."""
    config = f"{OPERATIONS}/kubeadm-phase.yaml"
    await control.write(config, as_yaml(init_documents(cluster, spec)).encode(), mode="600")
    await control.do(
        Command(("kubeadm", "init", "phase", *words, "--config", config), seconds=180), Command(("rm", "-f", config))
    )


@dataclass(frozen=True)
class KubeProxyAsWritten:
    """kube-proxy is there and its configuration says what the cluster file says."""

    impact: ClassVar[Impact] = Impact.SERVICE
    cluster: Cluster = field(hash=False)
    spec: HostSpec = field(hash=False)
    control: Host = field(hash=False)
    name: str = "kube-proxy is as kubeadm writes it"

    @property
    def wanted(self) -> dict[str, Any]:
        """The fields of its configuration that are declared."""
        return {"clusterCIDR": str(self.cluster.kubernetes.pod_network), **self.cluster.kubernetes.kube_proxy}

    async def check(self, on: Kube) -> Drift | None:
        """Look for the DaemonSet, and compare the declared fields of its ConfigMap."""
        found, config, account = await asyncio.gather(
            on.get("apps/v1", "DaemonSet", "kube-proxy", SYSTEM),
            on.get("v1", "ConfigMap", "kube-proxy", SYSTEM),
            on.get("v1", "ServiceAccount", "kube-proxy", SYSTEM),
        )
        parts = {"DaemonSet kube-proxy": found, "ConfigMap kube-proxy": config, "ServiceAccount kube-proxy": account}
        missing = [name for name, obj in parts.items() if obj is None]
        if missing:
            return Drift(f"missing: {', '.join(missing)}", "as kubeadm writes them")
        wrong = list(differences(_document(config, "config.conf"), self.wanted))
        if not wrong:
            return None
        return Drift(spell(wrong, wanted=False) + managers(config), spell(wrong, wanted=True))

    async def apply(self, on: Kube) -> None:
        """Let kubeadm write it anew, then have its pods made anew: they read their configuration when they start."""
        await phase(self.control, self.cluster, self.spec, "addon", "kube-proxy")
        stamp = {"spec": {"template": {"metadata": {"annotations": {RESTARTED: str(time.time_ns())}}}}}
        await on.patch("apps/v1", "DaemonSet", "kube-proxy", stamp, SYSTEM)


@dataclass(frozen=True)
class KubeProxyDeclared:
    """The kube-proxy of a running cluster says what is declared now: a bootstrap does not restart it."""

    wanted: Mapping[str, Any] = field(hash=False)
    name: str = "kube-proxy was given what is declared"

    async def check(self, on: Kube) -> Drift | None:
        """Compare the declared fields; a lost ConfigMap is drift repair's to tell. Raises Permanent SHW-345."""
        config = await on.get("v1", "ConfigMap", "kube-proxy", SYSTEM)
        wrong = list(differences(_document(config, "config.conf"), self.wanted)) if config else []
        if wrong:
            message = f"kube-proxy has {spell(wrong, wanted=False)}, declared is {spell(wrong, wanted=True)}"
            fix = "Run `python -m flows.drift_repair FILE --repair service`: it writes that and restarts kube-proxy."
            raise Permanent(message, code="SHW-345", fix=fix)
        return None


def _document(config: Object | None, key: str) -> dict[str, Any]:
    """Return a YAML document that a ConfigMap holds; an empty one where it cannot be read."""
    try:
        found = read_yaml(((config or {}).get("data") or {})[key])
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


COREDNS = (("apps/v1", "Deployment", "coredns"), ("v1", "ConfigMap", "coredns"), ("v1", "Service", "kube-dns"))


@dataclass(frozen=True)
class CoreDnsAsWritten:
    """CoreDNS is there, is not scaled to nothing, and has the address that pods ask."""

    impact: ClassVar[Impact] = Impact.SERVICE
    cluster: Cluster = field(hash=False)
    spec: HostSpec = field(hash=False)
    control: Host = field(hash=False)
    name: str = "CoreDNS is as kubeadm writes it"

    async def _objects(self, on: Kube) -> list[Object | None]:
        """Return Deployment, ConfigMap and Service as they are; None for what is not there."""
        return await asyncio.gather(*(on.get(*one, SYSTEM) for one in COREDNS))

    async def check(self, on: Kube) -> Drift | None:
        """Look for its objects; more replicas than kubeadm's two are somebody's choice, none are not."""
        deployment, config, service = await self._objects(on)
        parts = zip(COREDNS, (deployment, config, service), strict=True)
        missing = [f"{kind} {name}" for (_, kind, name), obj in parts if obj is None]
        if missing:
            return Drift(f"missing: {', '.join(missing)}", "as kubeadm writes them")
        address = ((service or {}).get("spec") or {}).get("clusterIP")
        if address != (want := dns_address(self.cluster)):
            fix = (
                f"{want}, which every kubelet gives to pods: `kubectl -n {SYSTEM} delete service kube-dns`, then repair"
            )
            return Drift(f"Service kube-dns has {address}{managers(service)}", fix)
        if not (((deployment or {}).get("spec") or {}).get("replicas", 1)):
            return Drift(f"scaled to 0{managers(deployment)}", f"{REPLICAS} replicas")
        if not ((config or {}).get("data") or {}).get("Corefile", "").strip():
            return Drift(f"an empty Corefile{managers(config)}", "kubeadm's Corefile")
        return None

    async def apply(self, on: Kube) -> None:
        """Scale it up where all of it is there and scaled to nothing, else let kubeadm write what is missing."""
        deployment, config, service = await self._objects(on)
        if deployment and config and service and not (deployment.get("spec") or {}).get("replicas", 1):
            await on.patch("apps/v1", "Deployment", "coredns", {"spec": {"replicas": REPLICAS}}, SYSTEM)
        else:
            await phase(self.control, self.cluster, self.spec, "addon", "coredns")


@dataclass(frozen=True)
class JoiningRights:
    """The roles and bindings by which hosts join and renew certificates are there; what others added to them stays."""

    impact: ClassVar[Impact] = Impact.SERVICE
    cluster: Cluster = field(hash=False)
    name: str = "hosts have the rights that kubeadm gives them"

    async def _wrong(self, on: Kube) -> list[tuple[Object, Object | None, str]]:
        """Return each object that is not as kubeadm writes it, as it is, and what is wrong with it."""
        wanted = rights(self.cluster)
        found = await asyncio.gather(
            *(
                on.get(one["apiVersion"], one["kind"], one["metadata"]["name"], one["metadata"].get("namespace", ""))
                for one in wanted
            )
        )
        pairs = zip(wanted, found, strict=True)
        return [(want, have, why) for want, have in pairs if (why := _lacks(want, have))]

    async def check(self, on: Kube) -> Drift | None:
        """Compare what each gives, and to whom."""
        wrong = await self._wrong(on)
        said = [f"{want['kind']} {want['metadata']['name']}: {why}{managers(have)}" for want, have, why in wrong]
        more = f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
        return Drift("; ".join(said[:SHOWN]) + more, "as kubeadm writes them") if said else None

    async def apply(self, on: Kube) -> None:
        """Write what is missing, and add to what is there; a binding of another role cannot be changed in the API."""
        for want, have, why in await self._wrong(on):
            meta, kind = want["metadata"], want["kind"]
            if have is None:
                await on.apply(want)
            elif "roleRef" in want and why.startswith("leads to"):
                place = f" -n {meta['namespace']}" if "namespace" in meta else ""
                fix = f"`kubectl delete {kind.lower()} {meta['name']}{place}`, then run again: it is made anew."
                message = f"{kind} {meta['name']} {why}: a binding's role cannot be changed"
                raise ApiRefused(message, code="SHW-340", fix=fix)
            else:
                key = "subjects" if "roleRef" in want else "rules"
                lacking = [one for one in want[key] if not _holds(have.get(key) or (), one)]
                changes: Object = {"metadata": {"resourceVersion": have["metadata"]["resourceVersion"]}}
                changes[key] = [*(have.get(key) or ()), *lacking]
                await on.patch(want["apiVersion"], kind, meta["name"], changes, meta.get("namespace", ""))


def _lacks(want: Object, have: Object | None) -> str:
    """Return what an object lacks of what kubeadm writes; empty where it lacks nothing."""
    if have is None:
        return "missing"
    if "roleRef" in want and (have.get("roleRef") or {}).get("name") != want["roleRef"]["name"]:
        return f"leads to {(have.get('roleRef') or {}).get('name')} instead of {want['roleRef']['name']}"
    key = "subjects" if "roleRef" in want else "rules"
    lacking = [one for one in want[key] if not _holds(have.get(key) or (), one)]
    names = [str(one.get("name") or "/".join(one.get("resources", ()))) for one in lacking]
    return f"lacks {', '.join(names)}" if names else ""


def _holds(entries: Sequence[Mapping[str, Any]], want: Mapping[str, Any]) -> bool:
    """Say whether one of the entries gives at least what is wanted."""
    return any(all(_within(value, one.get(key)) for key, value in want.items()) for one in entries)


def _within(want: Any, have: Any) -> bool:
    if isinstance(want, list):
        return isinstance(have, list) and (set(want) <= set(have) or "*" in have)
    return bool(want == have)


@dataclass(frozen=True)
class KubeletRuns:
    """A node's kubelet runs with what is declared: asked from the kubelet itself, whatever file or flag said so."""

    node: str
    wanted: Mapping[str, Any] = field(hash=False)
    name: str = "the kubelet runs what is declared"

    async def check(self, on: Kube) -> Drift | None:
        """Ask the kubelet through the API for its effective configuration (/configz); a node that is away is not asked.

        Raises Blocked where the API cannot reach a kubelet that is Ready: then neither logs nor exec work there.
        """
        node = (await nodes_by_name(on)).get(self.node)
        if node is None or not is_true(node, "Ready"):
            return None
        code, text = await on.raw(f"/api/v1/nodes/{quote(self.node)}/proxy/configz")
        try:
            config = json.loads(text)["kubeletconfig"] if code == OK else None
        except (ValueError, KeyError, TypeError, RecursionError):
            config = None
        if not isinstance(config, dict):
            fix = f"Open port 10250 of {self.node} to the control plane; `kubectl get --raw` shows the API's words."
            raise Blocked(f"the API cannot ask the kubelet ({code}: {' '.join(text.split())[:160]})", fix=fix)
        wrong = list(differences(config, self.wanted))
        if not wrong:
            return None
        how = "; where its file says so already, a flag overrules it or it was not restarted"
        return Drift(spell(wrong, wanted=False), spell(wrong, wanted=True) + how)


def kubelet_config_name(minor: tuple[int, int]) -> str:
    """Return the name of the ConfigMap that joining hosts take their kubelet's configuration from."""
    return f"kubelet-config-1.{minor[1]}" if minor < (1, 24) else "kubelet-config"


@dataclass(frozen=True)
class JoinsGetDeclared:
    """Hosts that join from now on are given the declared kubelet configuration."""

    impact: ClassVar[Impact] = Impact.SERVICE
    minor: tuple[int, int]
    wanted: Mapping[str, Any] = field(hash=False)
    name: str = "joining hosts are given the declared kubelet configuration"

    async def _read(self, on: Kube) -> Object:
        found = await on.get("v1", "ConfigMap", kubelet_config_name(self.minor), SYSTEM)
        if found is None or not _document(found, "kubelet"):
            fix = "Write it anew on a control-plane host: `kubeadm init phase upload-config kubelet --config FILE`."
            raise Blocked(f"{SYSTEM}/{kubelet_config_name(self.minor)} holds no kubelet configuration", fix=fix)
        return found

    async def check(self, on: Kube) -> Drift | None:
        """Compare the declared fields with the ConfigMap."""
        found = await self._read(on)
        wrong = list(differences(_document(found, "kubelet"), self.wanted))
        if not wrong:
            return None
        return Drift(spell(wrong, wanted=False) + managers(found), spell(wrong, wanted=True))

    async def apply(self, on: Kube) -> None:
        """Set the declared fields that differ in its text, keep every other byte."""
        found = await self._read(on)
        text = with_values(found["data"]["kubelet"], self.wanted)
        changes = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "data": {"kubelet": text}}
        await on.patch("v1", "ConfigMap", kubelet_config_name(self.minor), changes, SYSTEM)
