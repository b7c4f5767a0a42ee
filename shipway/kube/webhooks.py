"""Admission webhooks that refuse what they guard while nobody answers for them, and where their backends run."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shipway.kube.client import Kube, Object
from shipway.kube.nodes import few

API = "admissionregistration.k8s.io/v1"
KINDS = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
# What a drain, the scheduler and kubelets write, as a webhook's rules name it (group/resource).
OF_NAMESPACES = ("/pods", "/pods/eviction", "/pods/binding", "/pods/status", "coordination.k8s.io/leases")
OF_CLUSTER = ("/nodes", "/nodes/status")


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook without whose answer the API refuses pods, evictions, nodes or leases (failurePolicy Fail).

    `answers` says whether a backend of its service is ready; `nodes` are those of the ready ones, none where one is
    outside the cluster. `guards_itself` says that it is asked for its own backends' pods as well.
    """

    name: str
    service: str
    answers: bool = True
    nodes: frozenset[str] = frozenset()
    guards_itself: bool = False

    @property
    def said(self) -> str:
        """One line: the webhook, its service, and where that is answered."""
        return f"{self.name} (service {self.service}{f', on {few(sorted(self.nodes))}' if self.nodes else ''})"

    def goes_with(self, nodes: Collection[str]) -> bool:
        """Say whether nobody answers for it while these nodes are drained at once."""
        return bool(self.nodes) and self.nodes <= set(nodes)


async def list_webhooks(on: Kube) -> list[Webhook]:
    """Return those that may refuse what a drain needs, as far as a service of the cluster answers for them.

    Raises the API's errors.
    """
    *configs, spaces = await asyncio.gather(*(on.list_(API, kind) for kind in KINDS), on.list_("v1", "Namespace"))
    hooks = [(one["metadata"]["name"], hook) for some in configs for one in some for hook in one.get("webhooks") or ()]
    found = []
    for config, hook in hooks:
        if hook.get("failurePolicy", "Fail") != "Fail" or not (hook.get("clientConfig") or {}).get("service"):
            continue
        guarded = {one["metadata"]["name"] for one in spaces if _selects(hook.get("namespaceSelector"), one)}
        if _asked(hook, OF_CLUSTER) or (guarded and _asked(hook, OF_NAMESPACES)):
            found.append(await _webhook(on, f"{config}/{hook.get('name')}", hook, guarded))
    return sorted(found, key=lambda one: one.name)


async def _webhook(on: Kube, name: str, hook: Mapping[str, Any], guarded: Collection[str]) -> Webhook:
    service = hook["clientConfig"]["service"]
    space = str(service.get("namespace"))
    ends = await on.get("v1", "Endpoints", service["name"], space)
    ready = [one for subset in (ends or {}).get("subsets") or () for one in subset.get("addresses") or ()]
    nodes = frozenset(str(one.get("nodeName") or "") for one in ready)
    itself = False
    if space in guarded and _asked(hook, ("/pods",)) and not hook.get("matchConditions"):  # those nobody here can read
        names = [ref["name"] for one in ready if (ref := one.get("targetRef") or {}).get("kind") == "Pod"]
        pods = [await on.get("v1", "Pod", one, space) for one in names]
        itself = any(pod is not None and _selects(hook.get("objectSelector"), pod) for pod in pods)
    where = frozenset[str]() if "" in nodes else nodes
    return Webhook(name, f"{space}/{service['name']}", bool(ready), where, itself)


def _asked(hook: Mapping[str, Any], resources: Iterable[str]) -> bool:
    """Say whether a webhook's rules cover one of the resources (group/resource or group/resource/subresource).

    "*" is every resource and "*/*" every subresource as well, "pods/*" those of one (Kubernetes API reference,
    RuleWithOperations). Which operation is asked for is not looked at, but for CONNECT alone.
    """
    rules = [one for one in hook.get("rules") or () if set(one.get("operations") or ()) != {"CONNECT"}]
    for one in resources:
        group, _, resource = one.partition("/")
        whole, slash, part = resource.partition("/")
        names = {resource, "*/*", *((f"{whole}/*", f"*/{part}") if slash else ("*",))}
        for rule in rules:
            if {group, "*"} & set(rule.get("apiGroups") or ()) and names & set(rule.get("resources") or ()):
                return True
    return False


def _selects(selector: Mapping[str, Any] | None, one: Object) -> bool:
    """Say whether a label selector selects an object; none at all and an empty one select all."""
    labels = one["metadata"].get("labels") or {}
    wanted = (selector or {}).get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_meets(term, labels) for term in (selector or {}).get("matchExpressions") or ())


def _meets(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Say whether labels meet one expression of a selector; a label that is not there is none of the values."""
    has, values = labels.get(str(term.get("key"))), term.get("values") or ()
    match term.get("operator"):
        case "In":
            return has in values
        case "NotIn":
            return has not in values
        case "Exists":
            return has is not None
        case _:
            return has is None
