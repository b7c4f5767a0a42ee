"""The simulated API keeps the promises of the real one: verbs, patches, apply, errors, access."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubernetes_asyncio import client, watch
from kubernetes_asyncio.client.exceptions import ApiException

from lab.simulated.kube.faults import Fault
from lab.simulated.kube.latencies import Latencies
from tests.simulated.test_kube_support import FACTOR, Place, place, until

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def where(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as made:
        yield made


def config_map(name: str, **data: str) -> Any:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(replicas: int = 1, image: str = "registry.example/web:1") -> dict[str, Any]:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


async def test_the_official_client_creates_reads_lists_and_deletes(where: Place) -> None:
    async with where.api() as api:
        core = client.CoreV1Api(api)
        made = await core.create_namespaced_config_map("default", config_map("one", a="1"))
        assert made.metadata.uid
        assert made.metadata.resource_version
        assert (await core.read_namespaced_config_map("one", "default")).data == {"a": "1"}
        assert "one" in [item.metadata.name for item in (await core.list_namespaced_config_map("default")).items]
        await core.delete_namespaced_config_map("one", "default")
        with pytest.raises(ApiException) as missing:
            await core.read_namespaced_config_map("one", "default")
    assert missing.value.status == 404
    assert '"message":"configmaps \\"one\\" not found"' in str(missing.value.body)


async def test_create_of_an_existing_object_says_already_exists(where: Place) -> None:
    await where.call("POST", MAPS, config_map("one"))
    code, answer = await where.call("POST", MAPS, config_map("one"))
    assert (code, answer["reason"], answer["message"]) == (409, "AlreadyExists", 'configmaps "one" already exists')


async def test_an_update_from_an_old_version_conflicts(where: Place) -> None:
    _, first = await where.call("POST", MAPS, config_map("one", a="1"))
    assert (await where.call("PUT", f"{MAPS}/one", {**first, "data": {"a": "2"}}))[0] == 200
    code, answer = await where.call("PUT", f"{MAPS}/one", {**first, "data": {"a": "3"}})
    assert (code, answer["reason"]) == (409, "Conflict")
    assert answer["message"].startswith(
        'Operation cannot be fulfilled on configmaps "one": the object has been modified'
    )


async def test_create_in_a_missing_namespace_names_the_namespace(where: Place) -> None:
    code, answer = await where.call("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("one"))
    assert (code, answer["message"]) == (404, 'namespaces "nowhere" not found')


async def test_an_unserved_kind_is_a_plain_404(where: Place) -> None:
    assert await where.call("GET", "/apis/example.com/v1/things") == (404, "404 page not found\n")


async def test_patches_change_what_they_should_and_others_are_refused_aloud(where: Place) -> None:
    await where.call("POST", "/apis/apps/v1/namespaces/default/deployments", deployment())
    path = "/apis/apps/v1/namespaces/default/deployments/web"
    _, answer = await where.call("PATCH", path, {"spec": {"replicas": 3}}, Content_Type="application/merge-patch+json")
    assert (answer["spec"]["replicas"], answer["metadata"]["generation"] >= 2) == (3, True)
    strategic = "application/strategic-merge-patch+json"
    _, answer = await where.call("PATCH", path, {"spec": {"replicas": 2}}, Content_Type=strategic)
    assert (answer["spec"]["replicas"], len(answer["spec"]["template"]["spec"]["containers"])) == (2, 1)
    two = {"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "registry.example/side:1"}]}}}}
    _, answer = await where.call("PATCH", path, two, Content_Type=strategic)
    assert [c["name"] for c in answer["spec"]["template"]["spec"]["containers"]] == ["c", "d"]
    code, answer = await where.call("PATCH", path, {"spec": {"$patch": "replace"}}, Content_Type=strategic)
    assert (code, answer["message"].startswith("SIMULATED cluster: $patch in a strategic merge")) == (405, True)
    code, answer = await where.call("PATCH", path, {}, Content_Type="text/plain")
    assert (code, answer["reason"]) == (415, "UnsupportedMediaType")


async def apply(
    where: Place, obj: dict[str, Any], manager: str, query: str = "", force: str = "&force=true"
) -> tuple[int, Any]:
    path = f"/apis/apps/v1/namespaces/default/deployments/web?fieldManager={manager}{force}{query}"
    return await where.call("PATCH", path, obj, Content_Type="application/apply-patch+yaml")


async def test_apply_creates_then_changes_nothing_the_second_time(where: Place) -> None:
    code, first = await apply(where, deployment(), "shipway")
    assert code == 201
    assert first["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": "25%"}
    await until("a first status", lambda: where.cluster.store.get("deployments.apps", "default", "web"))
    code, dry = await apply(where, deployment(), "shipway", "&dryRun=All")
    _, live = await where.call("GET", "/apis/apps/v1/namespaces/default/deployments/web")
    assert code == 200
    assert dry["spec"] == live["spec"]
    assert dry["metadata"]["generation"] == live["metadata"]["generation"]


async def test_apply_takes_a_field_from_its_owner_by_force_and_no_other_way(where: Place) -> None:
    await apply(where, deployment(1), "shipway")
    code, answer = await apply(where, deployment(5), "other", force="")
    assert (code, answer["message"].startswith("SIMULATED cluster: ")) == (405, True)
    code, answer = await apply(where, deployment(5), "other")
    assert (code, answer["spec"]["replicas"]) == (200, 5)
    owners = {e["manager"]: e["fieldsV1"] for e in answer["metadata"]["managedFields"] if e["operation"] == "Apply"}
    assert "f:replicas" not in owners["shipway"]["f:spec"]
    assert "f:replicas" in owners["other"]["f:spec"]


async def test_what_an_owner_no_longer_applies_goes_away(where: Place) -> None:
    path = f"{MAPS}/one?fieldManager=shipway&force=true"
    await where.call("PATCH", path, config_map("one", a="1", b="2"), Content_Type="application/apply-patch+yaml")
    kind = "application/merge-patch+json"
    await where.call("PATCH", f"{MAPS}/one?fieldManager=hand", {"data": {"c": "3"}}, Content_Type=kind)
    _, answer = await where.call("PATCH", path, config_map("one", a="1"), Content_Type="application/apply-patch+yaml")
    assert answer["data"] == {"a": "1", "c": "3"}


async def test_a_number_and_its_stored_text_are_the_same_quantity(where: Place) -> None:
    obj = deployment()
    obj["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 1}}
    await apply(where, obj, "shipway")
    code, answer = await apply(where, obj, "other")
    assert code == 200, answer
    limits = answer["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": "1"}


async def test_dry_run_stores_nothing(where: Place) -> None:
    code, answer = await where.call("POST", f"{MAPS}?dryRun=All", config_map("one"))
    assert (code, answer["metadata"]["name"]) == (201, "one")
    assert where.cluster.store.get("configmaps", "default", "one") is None


async def test_a_watch_tells_every_change_after_its_version(where: Place) -> None:
    seen: list[tuple[str, str]] = []
    async with where.api() as api:
        core = client.CoreV1Api(api)
        version = (await core.list_namespaced_config_map("default")).metadata.resource_version

        async def change() -> None:
            await core.create_namespaced_config_map("default", config_map("one", a="1"))
            await core.patch_namespaced_config_map("one", "default", {"data": {"a": "2"}})
            await core.delete_namespaced_config_map("one", "default")

        changing = asyncio.create_task(change())
        async with watch.Watch() as stream:
            options = {"resource_version": version, "timeout_seconds": 3}
            async for event in stream.stream(core.list_namespaced_config_map, "default", **options):
                seen.append((event["type"], event["object"].metadata.name))
                if len(seen) == 3:
                    break
        await changing
    assert seen == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


async def test_what_is_not_simulated_is_said(where: Place) -> None:
    for method, path in (("DELETE", MAPS), ("POST", "/api/v1/namespaces/default/pods/x/exec")):
        code, answer = await where.call(method, path)
        assert (code, answer["message"].startswith("SIMULATED cluster: ")) == (405, True)


async def test_lists_select_and_come_in_pages(where: Place) -> None:
    for number in range(5):
        obj = config_map(f"m{number}")
        obj["metadata"]["labels"] = {"odd": str(number % 2), "app": "x"}
        await where.call("POST", MAPS, obj)
    _, odd = await where.call("GET", f"{MAPS}?labelSelector=odd%3D1,app+in+(x,y)")
    assert [item["metadata"]["name"] for item in odd["items"]] == ["m1", "m3"]
    assert "kind" not in odd["items"][0]  # as in the lists of the real server
    _, one = await where.call("GET", f"{MAPS}?fieldSelector=metadata.name%3Dm4")
    assert [item["metadata"]["name"] for item in one["items"]] == ["m4"]
    names: list[str] = []
    query = "?labelSelector=app&limit=2"
    for _ in range(3):
        _, page = await where.call("GET", MAPS + query)
        names += [item["metadata"]["name"] for item in page["items"]]
        query = f"?labelSelector=app&limit=2&continue={page['metadata'].get('continue', '')}"
    assert names == ["m0", "m1", "m2", "m3", "m4"]
    code, answer = await where.call("GET", "/api/v1/pods?fieldSelector=spec.color%3Dred")
    assert (code, answer["message"]) == (400, "field label not supported: spec.color")


async def test_annotations_beyond_256_kib_are_refused_in_the_real_words(where: Place) -> None:
    obj = config_map("one")
    obj["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 300_000}
    code, answer = await where.call("POST", MAPS, obj)
    assert code == 422
    assert answer["message"] == (
        'ConfigMap "one" is invalid: metadata.annotations: Too long: must have at most 262144 bytes'
    )


async def test_faults_hit_the_requests_that_the_hook_names(where: Place) -> None:
    faults = {"/version": Fault(status=503), "/api": Fault(drop=True), "/apis": Fault(status=429, retry_after=7)}
    where.cluster.set_faults(lambda _, path: faults.get(path))
    code, answer = await where.call("GET", "/version")
    assert (code, answer["reason"]) == (503, "ServiceUnavailable")
    code, answer = await where.call("GET", "/apis")
    assert (code, answer["details"]["retryAfterSeconds"]) == (429, 7)
    with pytest.raises(aiohttp.ClientError):
        await where.call("GET", "/api")


async def test_the_api_may_stop_and_come_back_with_all_it_held(where: Place) -> None:
    await where.call("POST", MAPS, config_map("one", a="1"))
    await where.cluster.stop_serving()
    with pytest.raises(OSError, match="Cannot connect"):
        await where.call("GET", "/readyz")
    assert await where.cluster.serve(port=where.port) == where.port
    assert (await where.call("GET", f"{MAPS}/one"))[1]["data"] == {"a": "1"}


async def test_a_namespace_takes_everything_in_it_along(tmp_path: Path) -> None:
    slow = Latencies(factor=FACTOR, init=0.0, namespace_deletion=50.0)
    async with place(tmp_path, latencies=slow) as where:
        await _namespace_ends(where)


async def _namespace_ends(where: Place) -> None:
    await where.call("POST", "/api/v1/namespaces", {"metadata": {"name": "short-lived"}})
    path = "/api/v1/namespaces/short-lived/configmaps"
    await where.call("POST", path, config_map("one"))
    _, answer = await where.call("DELETE", "/api/v1/namespaces/short-lived")
    assert answer["status"]["phase"] == "Terminating"
    code, answer = await where.call("POST", path, config_map("two"))
    assert (code, "because it is being terminated" in answer["message"]) == (403, True)
    await until("the namespace gone", lambda: where.cluster.store.get("namespaces", "", "short-lived") is None)
    assert where.cluster.store.objects("configmaps", "short-lived") == []
