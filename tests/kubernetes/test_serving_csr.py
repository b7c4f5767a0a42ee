"""A request for a kubelet's serving certificate is approved by the cluster file alone; every other one is left."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from shipway.cluster.model import Cluster
from shipway.converge import converge
from shipway.kube.serving_csr import SIGNER, inventory, is_waiting, objections
from shipway.place import Place
from shipway.step import Impact
from shipway.steps.kubernetes.serving_requests import (
    ServingRequestsApproved,
    inventories,
    is_declared,
    judge_requests,
)
from tasks.context import Run
from tasks.gates import node_steps
from tasks.stages import verify
from tests.places.kube import cluster_of

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOSTS = {
    "w1": inventory("w1", "10.9.0.12", "10.9.0.12"),
    "w2": inventory("w2", "w2.example", "10.9.0.13"),
    "w3": inventory("w3", "10.9.0.14", "fd00::14"),
}
OWN = {"w1": {"w1", "10.9.0.12"}, "w2": {"w2", "w2.example", "10.9.0.13"}, "w3": {"w3", "10.9.0.14", "fd00::14"}}
NODES = {"w1", "w2", "stranger"}
ALL = {"digital signature", "key encipherment", "server auth"}


@cache
def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def content(user: str, organisation: str = "system:nodes", names: tuple[x509.GeneralName, ...] = ()) -> str:
    """Return a request as its object holds it: base64 of PEM."""
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else []
    asked = x509.CertificateSigningRequestBuilder(x509.Name([*subject, x509.NameAttribute(NameOID.COMMON_NAME, user)]))
    if names:
        asked = asked.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = asked.sign(_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return base64.b64encode(pem).decode()


def request(node: str = "w1", names: tuple[str, ...] = ("w1", "10.9.0.12"), **changes: Any) -> dict[str, Any]:
    """Return the object of a request as a kubelet makes it, with these parts of its spec changed."""
    user = f"system:node:{node}"
    made = content(user, names=tuple(_name(one) for one in names))
    spec = {
        "signerName": SIGNER,
        "username": user,
        "groups": ["system:nodes", "system:authenticated"],
        "usages": sorted(ALL),
        "request": made,
    }
    created = f"{NOW - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
    return {"metadata": {"name": "csr-1", "creationTimestamp": created}, "spec": {**spec, **changes}, "status": {}}


def test_what_a_kubelet_asks_for_its_own_host_is_approved() -> None:
    assert objections(request(), HOSTS, NODES, NOW) == ()
    assert objections(request("w2", ("w2", "w2.example", "10.9.0.13")), HOSTS, NODES, NOW) == ()
    assert objections(request(usages=["digital signature", "server auth"]), HOSTS, NODES, NOW) == ()


PICK = st.sampled_from
SOME = ("w1", "w2", "w2.example", "w3", "10.9.0.12", "10.9.0.13", "10.9.0.14", "fd00::14", "evil.example", "10.0.0.1")


@settings(max_examples=150, deadline=None)
@given(
    node=PICK(("w1", "w2", "w3", "stranger", "")),
    subject=PICK(("", "", "", "system:node:w2", "system:admin")),
    organisation=PICK(("system:nodes", "system:nodes", "system:masters", "")),
    names=st.sets(PICK(SOME), max_size=3),
    own=st.booleans(),
    groups=PICK((("system:nodes",), ("system:nodes", "system:authenticated"), ("system:authenticated",), ())),
    usages=st.sets(PICK((*sorted(ALL), "client auth")), max_size=4),
    minutes=PICK((-90, 0, 5, 59, 61, 6000)),
    signer=PICK((SIGNER, SIGNER, SIGNER, "kubernetes.io/kube-apiserver-client", "")),
    conditions=PICK(((), (), ({"type": "Denied"},))),
)
def test_a_request_is_approved_exactly_where_the_cluster_file_vouches_for_all_of_it(  # noqa: PLR0917 - drawn values
    node: str,
    subject: str,
    organisation: str,
    names: set[str],
    own: bool,  # noqa: FBT001
    groups: tuple[str, ...],
    usages: set[str],
    minutes: int,
    signer: str,
    conditions: tuple[dict[str, str], ...],
) -> None:
    names = names & OWN.get(node, set()) if own else names
    user = f"system:node:{node}"
    made = content(subject or user, organisation, tuple(_name(one) for one in sorted(names)))
    created = f"{NOW - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"
    spec = {"signerName": signer, "username": user, "groups": groups, "usages": sorted(usages), "request": made}
    asked = {"metadata": {"creationTimestamp": created}, "spec": spec, "status": {"conditions": list(conditions)}}
    may = (
        signer == SIGNER
        and not conditions
        and (subject or user) == user
        and organisation == "system:nodes"
        and "system:nodes" in groups
        and "server auth" in usages <= ALL
        and bool(names)
        and names <= OWN.get(node, set())
        and node in NODES
        and -60 < minutes < 60
    )
    assert (objections(asked, HOSTS, NODES, NOW) == ()) is may


def test_a_name_of_another_kind_is_never_approved() -> None:
    kinds = (
        x509.RFC822Name("root@w1"),
        x509.UniformResourceIdentifier("https://w1"),
        x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "w1")])),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.DNSName("*.w1"),
        x509.IPAddress(ip_address("10.9.0.13")),
    )
    for kind in kinds:
        made = content("system:node:w1", names=(_name("w1"), kind))
        (why,) = objections(request(request=made), HOSTS, NODES, NOW)
        assert "which the cluster file does not say of that host" in why


def test_a_request_that_is_not_signed_by_its_own_key_or_is_none_is_left() -> None:
    pem = base64.b64decode(request()["spec"]["request"])
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE REQUEST-----\n"
    encoded = base64.b64encode(forged).decode()
    assert objections(request(request=encoded), HOSTS, NODES, NOW)
    for nothing in ("", "?", None, 7, base64.b64encode(b"no request").decode(), "é"):
        assert objections(request(request=nothing), HOSTS, NODES, NOW) == (
            "it is no certificate request that can be read",
        )


PLAIN = st.none() | st.integers() | st.text(max_size=8)


@given(PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(st.text(max_size=3), PLAIN, max_size=2))
@settings(max_examples=40, deadline=None)
def test_whatever_stands_in_a_request_is_an_objection_and_no_crash(value: Any) -> None:
    good = request()
    for key in ("signerName", "username", "groups", "usages", "request"):
        asked = {**good, "spec": {**good["spec"], key: value}}
        assert objections(asked, HOSTS, NODES, NOW)


def test_only_undecided_requests_of_that_signer_wait() -> None:
    assert is_waiting(request())
    assert not is_waiting({**request(), "status": {"conditions": [{"type": "Approved"}]}})
    assert not is_waiting({**request(), "status": {"certificate": "x"}})
    assert not is_waiting(request(signerName="kubernetes.io/kube-apiserver-client-kubelet"))


class Requests(Place):
    """The API of a cluster with these requests, whose nodes are there."""

    name = "cluster"

    def __init__(self, *requests: dict[str, Any]) -> None:
        self.requests, self.patched = list(requests), list[tuple[Any, ...]]()

    async def list_(self, api_version: str, kind: str, namespace: str = "", **_: str) -> list[dict[str, Any]]:
        """Return the requests, or the nodes."""
        del api_version, namespace
        return self.requests if kind == "CertificateSigningRequest" else [{"metadata": {"name": n}} for n in NODES]

    async def patch(self, api: str, kind: str, name: str, changes: dict[str, Any], *, under: str = "") -> None:
        """Keep the decision."""
        self.patched.append((api, kind, name, under, changes["metadata"]))
        (one,) = [one for one in self.requests if one["metadata"]["name"] == name]
        one["status"] = changes["status"]


def young(node: str, names: tuple[str, ...], name: str) -> dict[str, Any]:
    made = request(node, names)
    made["metadata"] = {"name": name, "creationTimestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    made["metadata"]["resourceVersion"] = "7"
    return made


async def test_what_the_file_vouches_for_is_approved_in_the_form_that_was_judged_and_the_rest_is_named() -> None:
    api = Requests(young("w1", ("w1", "10.9.0.12"), "csr-1"), young("w2", ("w2", "10.9.0.12"), "csr-2"))
    step = ServingRequestsApproved(HOSTS)
    (result,) = await converge([step], api, Impact.FILES)  # type: ignore[list-item]
    assert result.outcome == "changed"
    assert api.patched == [
        ("certificates.k8s.io/v1", "CertificateSigningRequest", "csr-1", "approval", {"resourceVersion": "7"})
    ]
    assert api.requests[0]["status"]["conditions"][0]["type"] == "Approved"
    good, left = await judge_requests(api, HOSTS)  # type: ignore[arg-type]
    assert not good
    why = "csr-2 of system:node:w2 is left: it is for 10.9.0.12, which the cluster file does not say of that host"
    assert left == [why]


class Answers(Requests):
    """That API, which reaches a kubelet once its request was approved."""

    async def raw(self, path: str) -> tuple[int, str]:
        """Answer for a node's kubelet."""
        return (200, "ok") if path == "/api/v1/nodes/w1/proxy/healthz" and self.patched else (500, "no certificate")


async def test_a_bootstrap_approves_until_the_api_reaches_every_kubelet_and_a_verification_only_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "SERVING_SECONDS", 0.5)
    cluster = cluster_of(("w0", "w1"), kubernetes={"kubelet": {"serverTLSBootstrap": True}})
    for kind, outcome in (("bootstrap", "ok"), ("verify", "failed")):
        api, run = Answers(young("w1", ("w1", "10.9.0.12"), "csr-1")), Run(cluster, "bootstrap")
        run.kind, run._kube = kind, api  # type: ignore[assignment] - a double of the API
        (result,) = await verify._reach_kubelets(run, "nodes_ready", ("w1",))
        assert (result.outcome, len(api.patched)) == (outcome, 1 if kind == "bootstrap" else 0)
    assert await verify._reach_kubelets(Run(cluster_of(("w0", "w1")), "bootstrap"), "nodes_ready", ("w1",)) == []


async def test_a_plan_approves_nothing() -> None:
    api = Requests(young("w1", ("w1",), "csr-1"))
    (result,) = await converge([ServingRequestsApproved(HOSTS)], api, Impact.NOTHING)  # type: ignore[list-item]
    assert (result.outcome, api.patched) == ("drifted", [])


def test_a_bootstrap_and_a_drift_pass_approve_only_where_the_file_declares_it() -> None:
    plain = cluster_of(("te1", "te2"))
    asked = cluster_of(("te1", "te2"), kubernetes={"kubelet": {"serverTLSBootstrap": True}})
    host = asked.host("te2")

    def approving(cluster: Cluster) -> list[Any]:
        return [one for one in node_steps(cluster, host) if isinstance(one, ServingRequestsApproved)]

    assert (is_declared(plain), approving(plain)) == (False, [])
    (step,) = approving(asked)
    assert step.hosts == {"te2": inventory("te2", "10.9.0.12")}
    assert set(inventories(asked)) == {"te1", "te2"}
