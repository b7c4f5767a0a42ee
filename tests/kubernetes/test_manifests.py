"""Manifests: our templates are valid for every Kubernetes there is data for; foreign ones only as they are pinned."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from aiohttp import web
from kubernetes_validate.utils import all_versions

from shipway.cluster.parts import AddOn, Manifest, Network
from shipway.converge import converge
from shipway.errors import Blocked, Refused, Transient
from shipway.gpu.classes import claim_objects
from shipway.gpu.pods import pod_with_gpu as pod_of
from shipway.kube.client import Object
from shipway.kube.manifests import TEMPLATES, ForeignManifest, add_on, foreign, parse, render
from shipway.rules.files import ADD_ONS
from shipway.step import Impact
from shipway.steps.kubernetes.objects import ObjectsPresent
from tasks.context import Run
from tasks.drift.parts import cluster_parts
from tasks.stages import addons, dashboard, device_plugin, pod_network
from tasks.stages.listed import add_ons_of
from tests.places.kube import Place, cluster_of, gpu_host, place

RECOMMENDED = """
apiVersion: v1
kind: Namespace
metadata: {name: kubernetes-dashboard}
---
apiVersion: v1
kind: Service
metadata: {name: kubernetes-dashboard, namespace: kubernetes-dashboard, labels: {k8s-app: kubernetes-dashboard}}
spec: {ports: [{port: 443, targetPort: 8443}], selector: {k8s-app: kubernetes-dashboard}}
---
apiVersion: v1
kind: Service
metadata: {name: dashboard-metrics-scraper, namespace: kubernetes-dashboard}
spec: {ports: [{port: 8000}], selector: {k8s-app: scraper}}
"""


def ours() -> list[Object]:
    """Return every object that our templates make of Kubernetes' own kinds."""
    objects: list[Object] = []
    for mode in ("runtime_class", "default_runtime"):
        cluster = cluster_of(["te1"], gpu={"mode": mode})
        objects += [*device_plugin.daemon_set(cluster), pod_of(cluster, "gpu-test-1")]
    objects += render("runtime-class/nvidia.yaml") + render("verify/namespace.yaml", namespace="shipway-verify")
    objects += [obj for folder in ADD_ONS.iterdir() for obj in add_on(folder.name)]
    return objects + render("dashboard/login.yaml", role="view", binding="admin-user-view")


@pytest.mark.parametrize("version", all_versions())
def test_our_objects_are_valid_for_every_minor(version: str) -> None:
    for obj in ours():
        kubernetes_validate.validate(obj, version, strict=True)


SINCE_CLAIMS = [one for one in dict.fromkeys(all_versions()) if int(one.split(".")[1]) >= 34]


@pytest.mark.parametrize("version", SINCE_CLAIMS)
def test_our_objects_of_claims_are_valid_since_there_are_claims(version: str) -> None:
    cluster = cluster_of(["te1"], gpu={"mode": "dra"})
    template = render("verify/claim.yaml", name="gpus-8", namespace="x", device_class="gpu.nvidia.com", count=8)
    for obj in [*claim_objects(cluster), *template, pod_of(cluster, "gpu-test-1", count=8)]:
        kubernetes_validate.validate(obj, version, strict=True)


def test_an_invalid_object_would_be_found() -> None:
    broken = device_plugin.daemon_set(cluster_of(["te1"]))[0]
    broken["spec"]["template"]["spec"]["tolerationz"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.31", strict=True)


def test_every_template_is_used_and_says_what_it_is() -> None:
    for template in TEMPLATES.rglob("*.yaml"):
        assert template.read_text().startswith("# "), template


def test_a_value_cannot_change_the_structure() -> None:
    hostile = 'x"\nroleRef: {name: cluster-admin}\n# '
    binding = render("dashboard/login.yaml", role="view", binding=hostile)[1]
    assert binding["metadata"]["name"] == hostile
    assert binding["roleRef"]["name"] == "view"


def test_a_hole_without_a_value_and_a_value_without_a_hole_are_faults() -> None:
    with pytest.raises(KeyError):
        render("dashboard/login.yaml", role="view")
    with pytest.raises(ValueError, match="no hole for colour"):
        render("dashboard/login.yaml", role="view", binding="x", colour="red")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("", "holds no object"),
        ("---\n---\n", "holds no object"),
        ("- 1", "document 1 is no Kubernetes object"),
        ("kind: Pod\nmetadata: {name: x}", "has no apiVersion"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: x}", "has no metadata.name"),
        ("apiVersion: v1\nkind: List\nitems: [7]", "is no Kubernetes object"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_what_is_no_manifest_is_refused_by_document(text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        parse(text, where="x.yaml")


def test_lists_are_opened_and_the_servers_fields_dropped() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": None}, "status": {}}
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [pod]})
    assert parse(text, where="x") == [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}]


@pytest.fixture
async def site() -> AsyncIterator[dict[str, Any]]:
    """Serve what `body` says on loopback, and count the downloads."""
    state: dict[str, Any] = {"body": RECOMMENDED.encode(), "status": 200, "downloads": 0}

    async def answer(_request: web.Request) -> web.Response:
        state["downloads"] += 1
        return web.Response(body=state["body"], status=state["status"])

    application = web.Application()
    application.router.add_get("/manifest.yaml", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    state["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}/manifest.yaml"
    yield state
    await runner.cleanup()


def pinned(site: dict[str, Any], folder: Path, sha256: str = "") -> ForeignManifest:
    right = hashlib.sha256(RECOMMENDED.encode()).hexdigest()
    return ForeignManifest("dashboard", Manifest(url=site["url"], sha256=sha256 or right), folder)


async def test_a_pinned_manifest_is_downloaded_once_and_kept(site: dict[str, Any], tmp_path: Path) -> None:
    assert len(await pinned(site, tmp_path).load()) == 3
    assert len(await pinned(site, tmp_path).load()) == 3
    assert site["downloads"] == 1


async def test_a_changed_manifest_is_never_used(site: dict[str, Any], tmp_path: Path) -> None:
    site["body"] = b"kind: Evil"
    with pytest.raises(Refused, match=r"has sha256 .* not"):
        await pinned(site, tmp_path).load()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - a test may look


async def test_a_spoiled_copy_is_downloaded_again(site: dict[str, Any], tmp_path: Path) -> None:
    manifest = pinned(site, tmp_path)
    (tmp_path / f"{manifest.manifest.sha256}.yaml").write_text("kind: Evil")
    assert len(await manifest.load()) == 3
    assert site["downloads"] == 1


@pytest.mark.parametrize(("status", "retry"), [(404, False), (403, False), (429, True), (503, True)])
async def test_a_download_that_fails_says_whether_to_try_again(
    site: dict[str, Any], tmp_path: Path, status: int, *, retry: bool
) -> None:
    site["status"] = status
    with pytest.raises(Transient, match=str(status)) as caught:
        await pinned(site, tmp_path).load()
    assert caught.value.may_retry is retry
    assert "sources.manifests.dashboard.path" in caught.value.fix


async def test_a_place_that_does_not_answer_may_answer_later(tmp_path: Path) -> None:
    manifest = Manifest(url="http://127.0.0.1:9/x.yaml", sha256="0" * 64)
    with pytest.raises(Transient, match="cannot be downloaded") as caught:
        await ForeignManifest("dashboard", manifest, tmp_path).load()
    assert caught.value.may_retry


async def test_a_manifest_without_end_is_refused(
    site: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipway.kube.manifests.LARGEST", 10)
    with pytest.raises(Refused, match="larger than 10 bytes"):
        await pinned(site, tmp_path).load()


async def test_a_local_manifest_needs_no_pin_but_keeps_to_it(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(RECOMMENDED)
    assert len(await ForeignManifest("own", Manifest(path=str(path)), tmp_path).load()) == 3
    wrong = Manifest(path=str(path), sha256="0" * 64)
    with pytest.raises(Refused, match="sha256"):
        await ForeignManifest("own", wrong, tmp_path).load()
    with pytest.raises(Refused, match="cannot be read"):
        await ForeignManifest("own", Manifest(path=str(tmp_path / "no.yaml")), tmp_path).load()


def test_a_manifest_that_is_needed_and_not_named_is_refused_before_anything_is_done() -> None:
    cluster = cluster_of(["te1"])
    bare = cluster.model_copy(update={"sources": cluster.sources.model_copy(update={"manifests": {}})})
    with pytest.raises(Refused, match=r"sources.manifests.tigera_operator is needed"):
        pod_network.steps(bare)
    with pytest.raises(Refused):
        foreign(bare, "dashboard")


# --- the dashboard, on the simulated API


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Place]:
    path = tmp_path / "recommended.yaml"
    path.write_text(RECOMMENDED)
    sources = cluster_of(["te1"]).sources.model_dump(exclude_none=True)
    sources["manifests"]["dashboard"] = {"path": str(path)}
    cluster = cluster_of([], hosts=[{"name": "te1", "address": "10.9.0.11"}])
    cluster = cluster.model_copy(
        update={
            "state_dir": str(tmp_path / "state"),
            "sources": cluster.sources.model_copy(update={"manifests": {"dashboard": Manifest(path=str(path))}}),
        }
    )
    async with place(hosts=[gpu_host(1, 0)], cluster=cluster) as made:
        yield made


async def test_the_dashboard_gets_a_port_a_login_and_a_private_token(shown: Place) -> None:
    steps = dashboard.steps(shown.cluster)
    results = await converge(steps, shown.kube, Impact.WORKLOADS)
    assert [(result.outcome, result.error) for result in results] == [
        ("changed", None), ("ok", None), ("changed", None), ("changed", None),
    ]  # fmt: skip
    service = await shown.kube.get("v1", "Service", "kubernetes-dashboard", "kubernetes-dashboard")
    assert service
    assert service["spec"]["type"] == "NodePort"
    assert [(p["port"], p["targetPort"], p["nodePort"]) for p in service["spec"]["ports"]] == [(443, 8443, 31000)]
    path = dashboard.token_path(shown.cluster)
    token = path.read_text().strip()
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in "".join(str(result) for result in results)
    shown.kube.forget()
    again = await converge(dashboard.steps(shown.cluster), shown.kube, Impact.WORKLOADS)
    assert {result.outcome for result in again} == {"ok"}


async def test_a_login_of_fewer_rights_loses_the_greater_ones(shown: Place) -> None:
    await converge(dashboard.steps(shown.cluster), shown.kube, Impact.WORKLOADS)
    less = shown.cluster.model_copy(update={"dashboard": shown.cluster.dashboard.model_copy(update={"role": "view"})})
    shown.kube.forget()
    await converge(dashboard.steps(less), shown.kube, Impact.WORKLOADS)
    bindings = await shown.kube.list_("rbac.authorization.k8s.io/v1", "ClusterRoleBinding")
    own = {
        b["metadata"]["name"]: b["roleRef"]["name"] for b in bindings if b["metadata"]["name"].startswith("admin-user")
    }
    assert own == {"admin-user-view": "view"}


def made_token(uid: str, seconds: float, life: float = 86400) -> str:
    claims = {"exp": time.time() + seconds, "iat": time.time() + seconds - life}
    claims |= {"kubernetes.io": {"serviceaccount": {"uid": uid}}}  # type: ignore[dict-item]
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


async def test_a_token_that_ends_soon_or_is_of_another_cluster_is_renewed(shown: Place) -> None:
    step = dashboard.TokenFile(dashboard.token_path(shown.cluster))
    with pytest.raises(Blocked, match="no ServiceAccount"):
        await step.check(shown.kube)
    await converge(dashboard.steps(shown.cluster)[:-1], shown.kube, Impact.WORKLOADS)
    account = await shown.kube.get("v1", "ServiceAccount", "admin-user", "kubernetes-dashboard")
    assert account
    uid = account["metadata"]["uid"]
    step.path.parent.mkdir(parents=True, exist_ok=True)
    for token, said in [
        (made_token(uid, 40000), None),
        (made_token(uid, 60), "ends within the hour"),
        (made_token(uid, 500, life=600), None),  # an API server that gives ten minutes at most
        (made_token("other", 40000), "another cluster"),
        ("rubbish", "no token"),
    ]:
        step.path.write_text(token)
        step.path.chmod(0o600)
        drift = await step.check(shown.kube)
        assert (drift is None) if said is None else (drift and said in drift.have)
    step.path.chmod(0o644)
    drift = await step.check(shown.kube)
    assert drift
    assert drift.have == "mode 644"


def test_a_manifest_without_the_service_is_refused() -> None:
    with pytest.raises(Refused, match="holds no Service"):
        dashboard.on_node_port(render("runtime-class/nvidia.yaml"), 31000)


async def test_a_pod_network_of_the_users_own_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "cni.yaml"
    path.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cni, namespace: kube-system}\ndata: {a: b}\n")
    cluster = cluster_of(["te1"], network={"provider": "manifests", "manifests": [str(path)]})
    async with place(hosts=[gpu_host(1, 0)], cluster=cluster) as made:
        steps = pod_network.steps(cluster)
        assert all(isinstance(step, ObjectsPresent) for step in steps)
        assert [r.outcome for r in await converge(steps, made.kube, Impact.WORKLOADS)] == ["changed"]
        made.kube.forget()
        assert [r.outcome for r in await converge(steps, made.kube, Impact.WORKLOADS)] == ["ok"]


# --- add-ons, each a folder of data


async def test_a_folder_is_an_add_on_that_a_plan_a_bootstrap_and_a_drift_pass_know(
    shown: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "addons" / "probe").mkdir(parents=True)
    for name in ("one", "two"):
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
        (tmp_path / "addons" / "probe" / f"{name}.yaml").write_text(yaml.safe_dump({**made, "data": {"a": "1"}}))
    monkeypatch.setattr("shipway.kube.manifests.ADD_ONS", tmp_path / "addons")
    network = Network(provider="manifests", manifests=("net.yaml",))
    cluster = shown.cluster.model_copy(update={"addons": {"probe": AddOn()}, "network": network})
    assert (addons.steps(shown.cluster), "addons" in add_ons_of(shown.cluster)) == ([], False)
    assert "addons" in add_ons_of(cluster)
    for allow, outcome in ((Impact.NOTHING, "drifted"), (Impact.WORKLOADS, "changed"), (Impact.NOTHING, "ok")):
        shown.kube.forget()
        (result,) = await converge(addons.steps(cluster), shown.kube, allow)
        assert (result.step, result.outcome) == ("the add-on probe is as declared", outcome)
    await shown.kube.patch("v1", "ConfigMap", "two", {"data": {"a": "2"}}, "default")
    monkeypatch.setattr("tasks.drift.parts.device_plugin.unready", lambda _: None)
    (part,) = (part for part in cluster_parts(Run(cluster, "drift")) if part.stage == "addons")
    shown.kube.forget()
    drift = await part.steps[0].check(shown.kube)
    assert (drift and drift.have, part.most) == ("ConfigMap/default/two: data.a", Impact.SERVICE)


@pytest.mark.parametrize("name", sorted(folder.name for folder in ADD_ONS.iterdir()))
async def test_an_add_on_of_ours_is_applied_once(shown: Place, name: str) -> None:
    cluster = shown.cluster.model_copy(update={"addons": {name: AddOn()}})
    for outcome in ("changed", "ok"):
        shown.kube.forget()
        (result,) = await converge(addons.steps(cluster), shown.kube, Impact.WORKLOADS)
        assert (result.outcome, result.error) == (outcome, None)
