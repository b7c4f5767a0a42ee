"""The Kubernetes API session: real TLS, the simulated API, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.simulated.kube.faults import Fault
from lab.simulated.kube.pki import Authority, kubeconfig
from shipway.errors import ApiRefused, ApiUnavailable, Blocked, Refused, ShipwayError
from shipway.kube.access import as_file, parse_admin_conf, save_kubeconfig, save_secret
from shipway.kube.calls import Calls
from shipway.kube.client import SILENT_SECONDS, Kube
from shipway.kube.errors import KindMissing, no_answer, refusal
from shipway.kube.paths import with_protocols
from shipway.kube.reads import CALL_SECONDS
from tests.places.kube import Control, Place, cluster_of, gpu_host, place

NAMES = ("te1", "te2")


def config_map(text: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "words", "namespace": "default"},
        "data": {"text": text},
    }


@pytest.fixture
async def small() -> AsyncIterator[Place]:
    async with place(hosts=[gpu_host(1, 0), gpu_host(2, 1)], cluster=cluster_of(NAMES)) as made:
        yield made


@pytest.mark.parametrize("version", ["v1.20.2", "v1.24.17", "v1.31.7", "v1.37.1"])
async def test_every_supported_server_answers_the_calls(version: str) -> None:
    async with place(hosts=[gpu_host(1, 0)], cluster=cluster_of(["te1"]), version=version) as made:
        kube = made.kube
        assert await kube.version() == version
        assert [node["metadata"]["name"] for node in await kube.list_("v1", "Node")] == ["te1"]
        assert await kube.get("v1", "ConfigMap", "words", "default") is None
        assert (await kube.apply(config_map("one")))["data"] == {"text": "one"}
        assert (await kube.dry_run_apply(config_map("two")))["data"] == {"text": "two"}
        assert (await kube.get("v1", "ConfigMap", "words", "default"))["data"] == {"text": "one"}  # type: ignore[index]
        assert await kube.delete("v1", "ConfigMap", "words", "default")
        assert not await kube.delete("v1", "ConfigMap", "words", "default")
        assert (await kube.raw("/readyz"))[0] == 200


async def test_an_api_that_answers_nothing_is_waited_for_briefly_until_it_answers_again(
    small: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With containerd stopped for minutes it accepted connections; 30 s for each question kept a repair away."""
    real, limits = small.kube._client.rest_client.request, list[float]()
    silent = True

    async def request(*words: object, _request_timeout: float, **more: object) -> object:
        limits.append(_request_timeout)
        if silent:
            raise TimeoutError
        return await real(*words, _request_timeout=_request_timeout, **more)

    monkeypatch.setattr(small.kube._client.rest_client, "request", request)
    for _ in range(2):
        with pytest.raises(ApiUnavailable):
            await small.kube.send("GET", "/version")
    silent = False
    for _ in range(2):
        assert (await small.kube.send("GET", "/version"))[0] == 200
    assert limits[0] == CALL_SECONDS
    assert set(limits[1:-1]) == {SILENT_SECONDS}
    assert limits[-1] == CALL_SECONDS


async def test_identical_reads_of_one_look_are_one_request(small: Place) -> None:
    await small.kube.list_("v1", "Node")
    before = small.kube.requests
    await asyncio.gather(*(small.kube.list_("v1", "Node") for _ in range(20)))
    assert small.kube.requests == before
    small.kube.forget()
    await asyncio.gather(*(small.kube.list_("v1", "Node") for _ in range(20)))
    assert small.kube.requests == before + 1


async def test_a_change_is_seen_by_the_next_read(small: Place) -> None:
    assert await small.kube.get("v1", "ConfigMap", "words", "default") is None
    await small.kube.apply(config_map("one"))
    assert await small.kube.get("v1", "ConfigMap", "words", "default") is not None


async def test_long_lists_are_read_page_by_page(small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.kube.calls.PAGE", 2)
    for number in range(5):
        obj = config_map("x")
        obj["metadata"] = {"name": f"w{number}", "namespace": "default", "labels": {"of": "list"}}
        await small.kube.apply(obj)
    found = await small.kube.list_("v1", "ConfigMap", "default", labels="of=list")
    assert [item["metadata"]["name"] for item in found] == [f"w{number}" for number in range(5)]
    assert found[0]["kind"] == "ConfigMap"


@pytest.mark.parametrize("status", [429, 500, 503, 504])
async def test_what_may_pass_is_worth_another_try(small: Place, status: int) -> None:
    small.simulated.set_faults(lambda _m, path: Fault(status=status) if "nodes" in path else None)
    with pytest.raises(ApiUnavailable) as caught:
        await small.kube.list_("v1", "Node")
    assert caught.value.may_retry
    small.simulated.set_faults(lambda _m, _p: None)
    assert await small.kube.list_("v1", "Node")  # an error is not kept as the answer


async def test_a_dropped_connection_and_a_slow_answer_are_distinguished(small: Place) -> None:
    await small.kube.list_("v1", "Node")
    small.kube.forget()
    small.simulated.set_faults(lambda _m, _p: Fault(drop=True))
    with pytest.raises(ApiUnavailable, match="cannot be reached"):
        await small.kube.list_("v1", "Node")
    small.simulated.set_faults(lambda _m, _p: Fault(delay=5))
    with pytest.raises(ApiUnavailable, match=r"no answer .* within 0 s"):
        await small.kube.raw("/readyz", seconds=0.2)


async def test_an_unknown_kind_is_blocked_and_looked_up_again(small: Place) -> None:
    with pytest.raises(KindMissing, match=r"does not know Installation of operator.tigera.io/v1 yet"):
        await small.kube.list_("operator.tigera.io/v1", "Installation")
    with pytest.raises(Blocked):
        await small.kube.get("v1", "NoSuchKind", "x")


def served(*kinds: str, verbs: Sequence[str] = ("get", "list")) -> dict[str, Any]:
    return {"resources": [{"name": f"{kind.lower()}s", "kind": kind, "verbs": list(verbs)} for kind in kinds]}


async def test_every_kind_that_can_be_listed_is_named_once_by_its_preferred_version_and_no_other_servers() -> None:
    def group(name: str, *versions: str) -> dict[str, Any]:
        named = [{"groupVersion": f"{name}/{one}"} for one in versions]
        return {"name": name, "preferredVersion": named[-1], "versions": named}

    core = served("Pod")
    core["resources"] += [
        {"name": "pods/log", "kind": "Pod", "verbs": ["get", "list"]},
        {"name": "bindings", "kind": "Binding", "verbs": ["create"]},
    ]
    metrics = {"spec": {"group": "metrics.k8s.io", "version": "v1beta1", "service": {"name": "metrics-server"}}}
    groups = [
        group("batch", "v1beta1", "v1"),
        group("apiregistration.k8s.io", "v1"),
        group("metrics.k8s.io", "v1beta1"),
        group("ray.io", "v1"),
    ]
    answers: dict[str, dict[str, Any]] = {
        "/api/v1": core,
        "/apis": {"groups": groups},
        "/apis/batch/v1": served("Job"),
        "/apis/batch/v1beta1": served("Job", "CronJob"),
        "/apis/apiregistration.k8s.io/v1": served("APIService"),
        "/apis/apiregistration.k8s.io/v1/apiservices?limit=500": {"items": [metrics, {"spec": {"group": "ray.io"}}]},
        "/apis/ray.io/v1": served("RayCluster"),
    }

    class Served(Calls):
        async def send(self, _method: str, path: str, **_: Any) -> tuple[int, str]:
            return (200, json.dumps(answers[path])) if path in answers else (503, "nobody serves it")

    assert await Served().kinds() == [
        ("v1", "Pod"),
        ("batch/v1", "Job"),
        ("batch/v1beta1", "CronJob"),
        ("apiregistration.k8s.io/v1", "APIService"),
        ("ray.io/v1", "RayCluster"),
    ]
    del answers["/apis/ray.io/v1"]
    with pytest.raises(ApiUnavailable, match=r"ray\.io"):
        await Served().kinds()


async def test_the_api_is_reached_by_its_own_host_when_its_endpoint_leads_nowhere(small: Place) -> None:
    control = Control(small.simulated.admin_kubeconfig(), {("127.0.0.1", 6443): small.port})
    kube = await Kube.connect(control, small.cluster)
    try:
        assert await kube.version() == "v1.31.7"
        await kube.list_("v1", "Node")
        assert control.forwarded[0] == (small.hosts["te1"].address, 6443)
        assert control.forwarded[-1] == ("127.0.0.1", 6443)
        assert len(control.forwarded) < 5  # what worked is tried first afterwards
    finally:
        await kube.close()


async def test_a_tunnel_that_moved_is_followed(small: Place) -> None:
    await small.kube.version()
    await small.simulated.stop_serving()
    small.kube.forget()
    with pytest.raises(ApiUnavailable):
        await small.kube.version()
    new = await small.simulated.serve()
    small.control.ways = {(small.hosts["te1"].address, 6443): new}
    assert await small.kube.version() == "v1.31.7"


async def test_another_authority_is_refused(small: Place) -> None:
    other = Authority()
    text = kubeconfig(
        f"https://{small.hosts['te1'].address}:6443", other.certificate, "c", "u", other.client("u", ["system:masters"])
    )
    kube = await Kube.connect(Control(text, small.control.ways), small.cluster)
    try:
        with pytest.raises(ApiRefused, match="not of this cluster"):
            await kube.version()
    finally:
        await kube.close()


async def test_a_certificate_for_another_name_is_refused(small: Place) -> None:
    text = small.simulated.admin_kubeconfig("https://10.66.0.1:6443")
    kube = await Kube.connect(Control(text, {("10.66.0.1", 6443): small.port}), small.cluster)
    try:
        with pytest.raises(ApiRefused, match="not of this cluster"):
            await kube.version()
    finally:
        await kube.close()


async def test_no_rights_are_refused_with_the_apis_reason(small: Place) -> None:
    text = small.simulated.kubeconfig_for("nobody", ())
    kube = await Kube.connect(Control(text, small.control.ways), small.cluster)
    try:
        with pytest.raises(ApiRefused, match=r"403 Forbidden: .*nobody") as caught:
            await kube.list_("v1", "Node")
        assert not caught.value.may_retry
    finally:
        await kube.close()


async def test_a_token_is_made_and_never_logged(small: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "namespace": "default"}}
    await small.kube.apply(account)
    token = await small.kube.create_token("default", "a", 3600)
    assert token.count(".") == 2
    assert token not in caplog.text
    assert "PRIVATE KEY" not in caplog.text


async def test_a_proxy_in_the_environment_is_not_used(small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    kube = await Kube.connect(small.control, small.cluster)
    try:
        assert await kube.version() == "v1.31.7"
    finally:
        await kube.close()


async def test_a_host_without_admin_conf_is_blocked(small: Place) -> None:
    with pytest.raises(Blocked, match="not initialised"):
        await Kube.connect(Control(None, {}), small.cluster)


@pytest.mark.parametrize(
    "text", ["", "[]", "a: b", "{", "current-context: x\ncontexts: []", "apiVersion: v1\nclusters: 7", "\x00", "- 1"]
)
def test_a_broken_admin_conf_is_reported_without_its_content(text: str) -> None:
    with pytest.raises(Blocked) as caught:
        parse_admin_conf(text, host="te1")
    assert "cannot be used" in caught.value.message
    assert caught.value.__cause__ is None


def test_secrets_do_not_show_in_the_access() -> None:
    authority = Authority()
    text = kubeconfig("https://10.0.0.1:6443", authority.certificate, "c", "u", authority.client("u"))
    access = parse_admin_conf(text)
    assert (access.host, access.port) == ("10.0.0.1", 6443)
    assert "BEGIN" not in repr(access)
    assert "BEGIN" in access.key


def test_a_kubeconfig_is_private_from_its_first_byte_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state" / "kubeconfig"
    save_kubeconfig(path, "one")
    with pytest.raises(Refused, match="never overwritten"):  # nobody can say whose it is
        save_kubeconfig(path, "two")
    save_secret(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["kubeconfig"]


def test_a_key_is_never_a_file_on_disk_on_linux() -> None:
    with as_file("secret") as path:
        assert path.startswith("/proc/self/fd/")
        assert Path(path).read_text() == "secret"
        assert Path(path).read_text() == "secret"


def _leaves(kind: type[BaseException]) -> list[type[BaseException]]:
    children = kind.__subclasses__()
    return [kind, *(leaf for child in children for leaf in _leaves(child))]


def _made(kind: type[BaseException]) -> BaseException:
    error = kind.__new__(kind)
    Exception.__init__(error, "x")
    return error


@pytest.mark.parametrize("kind", sorted(set(_leaves(aiohttp.ClientError)), key=str), ids=lambda kind: kind.__name__)
def test_every_error_of_the_http_client_becomes_ours(kind: type[BaseException]) -> None:
    error = kind.__new__(kind)
    error.__str__ = lambda: "x"  # type: ignore[method-assign,assignment] - some need a live connection to be printed
    shown = type("Shown", (kind,), {"__str__": lambda _self: "shown"})
    error = shown.__new__(shown)
    ours = no_answer("GET /version", error, 3)
    assert isinstance(ours, ShipwayError)
    assert isinstance(ours, ApiRefused if issubclass(kind, aiohttp.ClientConnectorCertificateError) else ApiUnavailable)


@pytest.mark.parametrize("error", [OSError("x"), ConnectionResetError(), TimeoutError(), ssl.SSLError("x")], ids=repr)
def test_every_error_of_the_link_may_pass(error: BaseException) -> None:
    assert no_answer("GET /", error, 3).may_retry


@pytest.mark.parametrize(
    ("code", "reason", "causes", "retry"),
    [
        (400, "BadRequest", [], False),
        (401, "Unauthorized", [], False),
        (403, "Forbidden", [], False),
        (409, "AlreadyExists", [], False),
        (409, "Conflict", [], True),
        (409, "Conflict", [{"reason": "FieldManagerConflict"}], False),
        (410, "Expired", [], True),
        (415, "UnsupportedMediaType", [], False),
        (422, "Invalid", [], False),
        (429, "TooManyRequests", [], True),
        (500, "InternalError", [], True),
        (503, "ServiceUnavailable", [], True),
        (504, "Timeout", [], True),
    ],
)
def test_the_answer_says_whether_to_try_again(code: int, reason: str, causes: list[object], *, retry: bool) -> None:
    status = {"kind": "Status", "message": "because", "reason": reason, "details": {"causes": causes}}
    error = refusal("PATCH node/te1", code, json.dumps(status))
    assert error.may_retry is retry
    assert "because" in error.message
    assert "PATCH node/te1" in error.message


def test_an_object_that_cannot_be_typed_is_refused_though_the_server_answers_500() -> None:
    # As a real 1.20.2 server words it.
    text = "failed to create typed patch object: .spec.ports: element 0: associative list with keys has an element"
    error = refusal("PATCH Service/a/b", 500, json.dumps({"kind": "Status", "message": text}))
    assert isinstance(error, ApiRefused)


def test_ports_name_their_protocol_because_it_is_part_of_their_key() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 1}, {"port": 2, "protocol": "UDP"}]}}
    assert with_protocols(service)["spec"]["ports"] == [{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "UDP"}]
    pod = {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": pod}}}
    container = with_protocols(deployment)["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    foreign = {"apiVersion": "example.org/v1", "kind": "Ship", "spec": {"ports": [{"city": "Oslo"}]}}
    assert with_protocols(foreign) == foreign


def test_a_refusal_hides_secrets_and_takes_any_text() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4eHh4eCJ9.c2lnbmF0dXJlLWhlcmU"  # noqa: S105 - made up
    assert token not in refusal("GET /", 401, f"bad token {token}").message
    for text in ("", "<html>", "[]", "null", '{"kind": "Status", "details": null}', "\x00" * 10):
        assert isinstance(refusal("GET /", 500, text), ApiUnavailable)
