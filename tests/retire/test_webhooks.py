"""Webhooks without whose answer a drain cannot go on: which count, where they are answered, what is said of them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.errors import Refused
from shipway.kube.client import Kube
from shipway.kube.webhooks import Webhook, list_webhooks
from shipway.steps.kubernetes.webhooks import WebhooksAnswer, warn_of
from tests.retire.objects import Object, Objects, meta, pod

PODS = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}


def config(*rules: Object, kind: str = "Validating", **hook: Any) -> Object:
    """Return a configuration of one webhook, answered by the service guard in its namespace."""
    service = {"service": {"namespace": "guard", "name": "guard"}}
    made = {"name": "hook.example", "clientConfig": service, "failurePolicy": "Fail", "rules": list(rules), **hook}
    return {"kind": f"{kind}WebhookConfiguration", "metadata": meta("guard"), "webhooks": [made]}


def space(name: str, **labels: str) -> Object:
    return {"kind": "Namespace", "metadata": meta(name, labels={"kubernetes.io/metadata.name": name, **labels})}


def ends(*nodes: str, ready: bool = True) -> Object:
    """Return the service's endpoints, with a pod for each node; "" is one outside the cluster."""
    addresses = [
        {"ip": f"10.0.0.{number}"}
        | ({"nodeName": on, "targetRef": {"kind": "Pod", "name": f"guard-{on}"}} if on else {})
        for number, on in enumerate(nodes)
    ]
    subset = {"addresses" if ready else "notReadyAddresses": addresses}
    return {"kind": "Endpoints", "metadata": meta("guard", "guard"), "subsets": [subset] if addresses else []}


async def found(*objects: Object) -> list[Webhook]:
    spaces = [space("guard"), space("default", team="a")]
    pods = [pod(f"guard-{on}", on, namespace="guard", labels={"app": "guard"}) for on in ("te2", "te3")]
    return await list_webhooks(cast("Kube", Objects(*spaces, *pods, *objects)))


def rule(group: str, *resources: str, operation: str = "*") -> Object:
    return {"apiGroups": [group], "operations": [operation], "resources": list(resources)}


@pytest.mark.parametrize(
    ("one", "counts"),
    [
        (PODS, True),
        (rule("*", "*"), True),
        (rule("*", "*/*"), True),
        (rule("", "pods/*"), True),
        (rule("", "pods/eviction"), True),
        (rule("", "*/eviction"), True),
        (rule("", "pods/binding"), True),
        (rule("", "pods/status"), True),
        (rule("", "nodes"), True),
        (rule("", "nodes/status"), True),
        ({"resources": ["pods"], "apiGroups": [""]}, True),
        ({"resources": ["pods"]}, False),
        ({"apiGroups": [""]}, False),
        (rule("coordination.k8s.io", "leases"), True),
        (rule("apps", "*"), False),
        (rule("", "configmaps", "pods/log"), False),
        (rule("", "pods/*", operation="CONNECT"), False),
    ],
)
async def test_only_what_guards_something_that_a_drain_needs_counts(one: Object, counts: bool) -> None:  # noqa: FBT001
    for kind in ("Validating", "Mutating"):
        assert bool(await found(config(one, kind=kind), ends("te2"))) == counts


@pytest.mark.parametrize(
    ("hook", "counts"),
    [
        ({"failurePolicy": "Ignore"}, False),
        ({"rules": None}, False),
        ({"clientConfig": None}, False),
        ({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In"}]}}, False),
        ({"clientConfig": {"url": "https://outside.example"}}, False),
        ({"namespaceSelector": {"matchLabels": {"team": "a"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, False),
        ({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}, True),
        ({"namespaceSelector": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}}, False),
        ({"namespaceSelector": {"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}}, True),
        ({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["b"]}]}}, False),
        ({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["b"]}]}}, True),
    ],
)
async def test_only_what_fails_closed_and_asks_a_service_for_a_namespace_that_is_there_counts(
    hook: Object,
    counts: bool,  # noqa: FBT001 - a table
) -> None:
    assert bool(await found(config(PODS, **hook), ends("te2"))) == counts


async def test_what_says_nothing_of_itself_is_none() -> None:
    empty = {"kind": "ValidatingWebhookConfiguration", "metadata": meta("empty")}
    bare = {"kind": "Namespace", "metadata": {"name": "bare"}}
    wanted = {"namespaceSelector": {"matchLabels": {"team": "a"}}}
    assert len(await found(empty, bare, config(PODS, **wanted), ends("te2"))) == 1
    gone = ends("te9")  # its pod has left since
    (one,) = await found(config(PODS), gone)
    assert not one.guards_itself


async def test_it_answers_while_a_backend_is_ready_and_where_that_is() -> None:
    for silent in ((), (ends(),), (ends("te2", ready=False),)):
        (one,) = await found(config(PODS), *silent)
        assert (one.answers, one.nodes) == (False, frozenset())
    (one,) = await found(config(PODS), ends("te2", "te3"))
    assert (one.answers, one.nodes) == (True, {"te2", "te3"})
    assert one.said == "guard/hook.example (service guard/guard, on te2; te3)"
    assert one.goes_with(["te3", "te2"])
    assert not one.goes_with(["te2"])
    (outside,) = await found(config(PODS), ends("te2", ""))
    assert not outside.goes_with(["te2"])


@pytest.mark.parametrize(
    ("hook", "itself"),
    [
        ({}, True),
        ({"objectSelector": {"matchLabels": {"app": "guard"}}}, True),
        ({"objectSelector": {"matchLabels": {"app": "web"}}}, False),
        ({"rules": [rule("", "pods/eviction")]}, False),
        ({"matchConditions": [{"name": "x", "expression": "true"}]}, False),
        (
            {
                "namespaceSelector": {
                    "matchExpressions": [
                        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["guard"]}
                    ]
                }
            },
            False,
        ),
    ],
)
async def test_one_that_is_asked_for_its_own_pods_is_known(hook: Object, itself: bool) -> None:  # noqa: FBT001
    (one,) = await found(config(PODS, **hook), ends("te2"))
    assert one.guards_itself == itself


HOOK = Webhook("guard/hook", "guard/guard", nodes=frozenset({"te2"}))
SILENT = Webhook("guard/hook", "guard/guard", answers=False)
ITSELF = Webhook("guard/hook", "guard/guard", nodes=frozenset({"te2"}), guards_itself=True)


@pytest.mark.parametrize(
    ("hook", "drains", "code"),
    [
        (HOOK, [["te2"], ["te3"]], ""),
        (SILENT, [["te3"]], "SHW-830"),
        (SILENT, [], ""),
        (ITSELF, [["te3"], ["te2", "te4"]], "SHW-831"),
        (ITSELF, [["te3"]], ""),
    ],
)
async def test_nobody_who_answers_forbids_it_and_so_does_one_that_would_refuse_its_own_pods(
    hook: Webhook, drains: list[list[str]], code: str
) -> None:
    step = WebhooksAnswer([hook], drains)
    if not code:
        assert await step.check(None) is None
        return
    with pytest.raises(Refused) as raised:
        await step.check(None)
    assert raised.value.code == code
    assert "guard/guard" in raised.value.message


def test_a_drain_that_takes_all_who_answer_is_said_beforehand() -> None:
    assert warn_of([HOOK], [["te3"], ["te1"]]) == []
    (said,) = warn_of([HOOK], [["te3"], ["te4", "te2"]])
    assert said.startswith("while te2, te4 is drained nobody answers for the webhook guard/hook (service guard/guard, ")
