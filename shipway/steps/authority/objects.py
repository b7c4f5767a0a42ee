"""Who in the cluster is told of its CA: joining hosts, pods; and which pods have read it and will not read it again."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from shipway.converge import wait_until
from shipway.errors import Blocked
from shipway.kube.client import Kube, Object
from shipway.kube.drain import MIRROR
from shipway.kube.nodes import few
from shipway.kube.owners import controller_of, walk_up
from shipway.kube.record import SYSTEM
from shipway.kubeadm.writes import ETC
from shipway.ownership.evidence import authorities, decode_pem
from shipway.step import Drift, Impact
from shipway.steps.authority.pair import trusted_by, who
from shipway.steps.authority.trust import differs
from shipway.steps.endpoint.objects import INFO, INFO_KEY, INFO_NAMESPACE
from shipway.steps.kubernetes.nodes import is_ending

ROOTS, ROOT_KEY = "kube-root-ca.crt", "ca.crt"
TOLD = "shipway-ca-told"
PAUSE = 1.1  # seconds; the API dates objects in whole ones
TOKEN_TYPE = "kubernetes.io/service-account-token"  # noqa: S105 - a kind of Secret
RESTARTED = "kubectl.kubernetes.io/restartedAt"  # as `kubectl rollout restart` has it: operators leave it alone
PLUGINS = "/var/lib/kubelet/device-plugins"  # whoever mounts this talks to the kubelet, and not to the API
WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")
_DATA = re.compile(r"^([ -]*certificate-authority-data:[ \t]*)(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class ClusterInfoTrusts:
    """cluster-info, by which hosts join, holds these authorities; the controller manager signs it anew by itself."""

    impact: ClassVar[Impact] = Impact.SERVICE
    trusted: tuple[str, ...] = field(repr=False)
    exactly: bool = True
    name: str = "cluster-info holds the CA that is wanted"

    async def check(self, on: Kube) -> Drift | None:
        """Read it; where somebody took it away nobody is told."""
        found = await on.get("v1", "ConfigMap", INFO, INFO_NAMESPACE)
        if found is None:
            return None
        return differs(trusted_by(decode_pem(_data(found))), self.trusted, exactly=self.exactly)

    async def apply(self, on: Kube) -> None:
        """Put them in the place of what is there, unless somebody changed it meanwhile."""
        found = await on.get("v1", "ConfigMap", INFO, INFO_NAMESPACE)
        if found is None:
            return
        data = base64.b64encode("".join(self.trusted).encode()).decode()
        text = _DATA.sub(lambda match: f"{match[1]}{data}", found["data"][INFO_KEY])
        head = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await on.patch("v1", "ConfigMap", INFO, {"metadata": head, "data": {INFO_KEY: text}}, INFO_NAMESPACE)
        on.forget()


def _data(found: Object) -> str:
    lines = _DATA.findall((found.get("data") or {}).get(INFO_KEY, ""))
    if len(lines) != 1:
        fix = f"See `kubectl -n {INFO_NAMESPACE} get configmap {INFO} -o yaml`: it is to name one cluster."
        raise Blocked(f"{INFO_NAMESPACE}/{INFO} holds no kubeconfig of one cluster", fix=fix)
    return str(lines[0][1])


@dataclass(frozen=True)
class PodsAreTold:
    """Every namespace's kube-root-ca.crt, and every token that is a Secret, holds these authorities.

    The controller manager writes both, by the ca.crt that it was started with.
    """

    trusted: tuple[str, ...] = field(repr=False)
    exactly: bool = True
    name: str = "pods are told of the CA that is wanted"

    async def check(self, on: Kube) -> Drift | None:
        """Read what holds it; of a token's Secret only the CA is looked at."""
        spaces, maps, secrets = await asyncio.gather(
            on.list_("v1", "Namespace"), _roots(on), on.list_("v1", "Secret", fields=f"type={TOKEN_TYPE}")
        )
        living = {one["metadata"]["name"] for one in spaces if not is_ending(one)}
        texts = {f"{space}/{ROOTS}": maps.get(space, {}).get("data", {}).get(ROOT_KEY, "") for space in living}
        texts |= {
            f"{_space(one)}/{one['metadata']['name']}": decode_pem((one.get("data") or {}).get(ROOT_KEY, ""))
            for one in secrets
            if _space(one) in living
        }
        wrong = {
            place: seen
            for place, text in sorted(texts.items())
            if (seen := differs(trusted_by(text), self.trusted, exactly=self.exactly))
        }
        if not wrong:
            return None
        return Drift(f"{next(iter(wrong.values())).have} by {few(list(wrong))}", next(iter(wrong.values())).want)


async def _roots(on: Kube) -> dict[str, Object]:
    found = await on.list_("v1", "ConfigMap", fields=f"metadata.name={ROOTS}")
    return {_space(one): one for one in found if one["metadata"]["name"] == ROOTS}


def _space(obj: Mapping[str, Any]) -> str:
    return str(obj["metadata"].get("namespace", ""))


@dataclass(frozen=True, slots=True)
class Holder:
    """A pod that read the CA when it started, and the workload that makes it anew (kind and name; "" for none)."""

    namespace: str
    pod: str
    kind: str = ""
    workload: str = ""

    @property
    def said(self) -> str:
        """The workload, or the pod where nothing makes it anew."""
        return f"{self.namespace}/{self.workload or self.pod}"


@dataclass(frozen=True)
class PodsToldSince:
    """When all pods were told of these authorities is kept in the cluster, by an object of ours that was made then.

    What a change of kube-root-ca.crt leaves there tells no time: managedFields keep the old one where only a value is
    another (seen of 1.20.2).
    """

    impact: ClassVar[Impact] = Impact.FILES
    trusted: tuple[str, ...] = field(repr=False)
    name: str = "when pods were told of the CA that is wanted is kept"

    def _wanted(self) -> dict[str, str]:
        return {"authorities": " ".join(sorted(who(one).removeprefix("sha256:") for one in self.trusted))}

    async def check(self, on: Kube) -> Drift | None:
        """Look for it; one of an earlier rotation is none."""
        found = await on.get("v1", "ConfigMap", TOLD, SYSTEM)
        return None if found and found.get("data") == self._wanted() else Drift("not kept", "now")

    async def apply(self, on: Kube) -> None:
        """Make it, and let its second pass: a pod of the same one counts as older, and would be waited for in vain."""
        await on.delete("v1", "ConfigMap", TOLD, SYSTEM)
        meta = {"name": TOLD, "namespace": SYSTEM}
        await on.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": self._wanted()})
        await asyncio.sleep(PAUSE)
        on.forget()


@dataclass(frozen=True)
class SigningChanges:
    """That another key begins to sign tokens is kept in the cluster before it does: what was told earlier is void.

    Without this a way back could not tell whether a token of the new key is in use anywhere.
    """

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "that another key begins to sign tokens is kept"

    async def check(self, on: Kube) -> Drift | None:
        """Look for it."""
        found = await on.get("v1", "ConfigMap", TOLD, SYSTEM)
        return None if found is not None and not found.get("data") else Drift("not kept", "now")

    async def apply(self, on: Kube) -> None:
        """Make it."""
        await on.delete("v1", "ConfigMap", TOLD, SYSTEM)
        await on.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TOLD, "namespace": SYSTEM}})
        on.forget()


@dataclass(frozen=True)
class NoTimeKept:
    """Of a rotation that is over nothing is kept in the cluster."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "nothing of a rotation is kept in the cluster"

    async def check(self, on: Kube) -> Drift | None:
        """Look for it."""
        return Drift(f"{SYSTEM}/{TOLD}", "none") if await on.get("v1", "ConfigMap", TOLD, SYSTEM) else None

    async def apply(self, on: Kube) -> None:
        """Delete it."""
        await on.delete("v1", "ConfigMap", TOLD, SYSTEM)
        on.forget()


async def holders_of_old(on: Kube, *, whenever: bool = False) -> list[Holder]:
    """Return the pods that mount a token and were made before pods were told of the CA; else all (`whenever`).

    A program reads that file once, as a rule (client-go, rest.InClusterConfig). Device plugins ask no API. Both times
    are the API server's own.
    """
    pods, secrets, told = await asyncio.gather(
        on.list_("v1", "Pod"),
        on.list_("v1", "Secret", fields=f"type={TOKEN_TYPE}"),
        on.get("v1", "ConfigMap", TOLD, SYSTEM),
    )
    tokens = {(_space(one), one["metadata"]["name"]) for one in secrets}
    since = str(told["metadata"].get("creationTimestamp", "")) if told else ""
    old = [
        pod
        for pod in pods
        if _mounts(pod, tokens)
        and not is_ending(pod)
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        and (whenever or str(pod["metadata"].get("creationTimestamp", "")) <= since)
    ]
    return [await _holder(on, pod) for pod in old]


def _mounts(pod: Object, tokens: Collection[tuple[str, str]]) -> bool:
    volumes = pod["spec"].get("volumes") or ()
    if any(str((one.get("hostPath") or {}).get("path", "")).startswith(PLUGINS) for one in volumes):
        return False
    projected = [source for one in volumes for source in (one.get("projected") or {}).get("sources") or ()]
    secret = any((_space(pod), (one.get("secret") or {}).get("secretName")) in tokens for one in volumes)
    return secret or any("serviceAccountToken" in source for source in projected)


async def _holder(on: Kube, pod: Object) -> Holder:
    above = await walk_up(on, pod) if controller_of(pod) else []
    made_by = next((one for one in above if one["kind"] in WORKLOADS), {})
    name = str(made_by.get("metadata", {}).get("name", ""))
    return Holder(_space(pod), pod["metadata"]["name"], str(made_by.get("kind", "")), name)


@dataclass(frozen=True)
class PartsReadAnew:
    """The cluster's own pods (`spaces`) that ask the API were made since it tells of the CA that is wanted.

    They are made anew as their workloads do it, one after the other, within so many seconds. Pods that hold GPUs are
    none of them.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    spaces: frozenset[str]
    seconds: float
    name: str = "the cluster's own pods have read the CA that is wanted"

    async def workloads(self, on: Kube) -> list[tuple[str, str, str]]:
        """Return kind, name and namespace of each whose pods are older."""
        old = await holders_of_old(on)
        return sorted(
            {(one.kind, one.workload, one.namespace) for one in old if one.namespace in self.spaces and one.kind}
        )

    async def check(self, on: Kube) -> Drift | None:
        """List the workloads whose pods are older."""
        old = await self.workloads(on)
        return Drift(f"made before: {few([f'{space}/{name}' for _, name, space in old])}", "since") if old else None

    async def apply(self, on: Kube) -> None:
        """Have each made anew, and wait for that. Raises DeadlineExceeded naming what is older still."""
        stamp = {RESTARTED: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        for kind, name, space in await self.workloads(on):
            template = {"spec": {"template": {"metadata": {"annotations": stamp}}}}
            await on.patch("apps/v1", kind, name, template, space)
        await wait_until(self, on, seconds=self.seconds)


async def readers_of_files(on: Kube, path: str) -> list[str]:
    """Return the pods that mount a file of kubeadm's or a folder of its that has it; static pods are none of them."""
    found = [
        f"{_space(pod)}/{pod['metadata']['name']}"
        for pod in await on.list_("v1", "Pod")
        if MIRROR not in (pod["metadata"].get("annotations") or {}) and _sees(pod, path) and not is_ending(pod)
    ]
    return sorted(found)


def _sees(pod: Object, path: str) -> bool:
    paths = [str((one.get("hostPath") or {}).get("path", "")) for one in pod["spec"].get("volumes") or ()]
    return any(one.startswith(ETC) and f"{path}/".startswith(f"{one.rstrip('/')}/") for one in paths)


async def bundles_of_others(on: Kube, authority: str) -> list[str]:
    """Return webhooks, aggregated APIs and conversions that trust an authority: they are their owners' to change."""
    api, hooks = "admissionregistration.k8s.io/v1", ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
    *configs, services, definitions = await asyncio.gather(
        *(on.list_(api, kind) for kind in hooks),
        on.list_("apiregistration.k8s.io/v1", "APIService"),
        on.list_("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    )
    known = authorities(authority)
    found = [
        *_trusting(
            "webhook",
            (
                (one, (hook.get("clientConfig") or {}))
                for some in configs
                for one in some
                for hook in one.get("webhooks") or ()
            ),
            known,
        ),
        *_trusting("aggregated API", ((one, one.get("spec") or {}) for one in services), known),
        *_trusting("conversion", ((one, _conversion(one)) for one in definitions), known),
    ]
    return sorted(set(found))


def _conversion(definition: Object) -> Mapping[str, Any]:
    webhook = ((definition.get("spec") or {}).get("conversion") or {}).get("webhook") or {}
    return webhook.get("clientConfig") or {}


def _trusting(what: str, configs: Iterable[tuple[Object, Mapping[str, Any]]], known: frozenset[str]) -> list[str]:
    return [
        f"{what} {one['metadata']['name']}"
        for one, config in configs
        if known & authorities(decode_pem(str(config.get("caBundle") or "")))
    ]
