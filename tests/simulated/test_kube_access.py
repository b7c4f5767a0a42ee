"""Who may do what at the simulated API, and what its access objects are given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_asyncio import client

from tests.simulated.test_kube_support import Place, place


@pytest.fixture
async def where(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as made:
        yield made


async def test_strangers_see_health_and_cluster_info_only(where: Place) -> None:
    nobody = where.cluster.kubeconfig_for("x", ()).replace("client-", "unused-")
    assert (await where.call("GET", "/readyz", kubeconfig=nobody))[0] == 200
    info = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
    code, answer = await where.call("GET", info, kubeconfig=nobody)
    assert code == 200
    assert "kubeconfig" in answer["data"]
    code, answer = await where.call("GET", "/api/v1/nodes", kubeconfig=nobody)
    assert (code, answer["message"]) == (
        403,
        'nodes is forbidden: User "system:anonymous" cannot list resource "nodes" in API group "" at the cluster scope',
    )
    code, answer = await where.call("GET", "/apis", kubeconfig=nobody)
    assert answer["message"] == 'forbidden: User "system:anonymous" cannot get path "/apis"'
    code, answer = await where.call("GET", "/api", kubeconfig=nobody, Authorization="Bearer wrong")
    assert (code, answer["message"]) == (401, "Unauthorized")


async def test_a_service_account_may_what_its_roles_allow(where: Place) -> None:
    async with where.api() as api:
        core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
        account: Any = {"metadata": {"name": "reader"}}
        await core.create_namespaced_service_account("default", account)
        asked: Any = {"spec": {"expirationSeconds": 3600, "audiences": None}}
        token = (await core.create_namespaced_service_account_token("reader", "default", asked)).status.token
        nobody = where.cluster.kubeconfig_for("x", ()).replace("client-", "unused-")
        bearer = f"Bearer {token}"
        code, answer = await where.call("GET", "/api/v1/nodes", kubeconfig=nobody, Authorization=bearer)
        assert code == 403
        assert 'User "system:serviceaccount:default:reader"' in answer["message"]
        role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}
        subject = {"kind": "ServiceAccount", "name": "reader", "namespace": "default"}
        binding: Any = {"metadata": {"name": "reader"}, "roleRef": role, "subjects": [subject]}
        await rbac.create_cluster_role_binding(binding)
        code, _ = await where.call("GET", "/api/v1/nodes", kubeconfig=nobody, Authorization=bearer)
        assert code == 200
        await core.delete_namespaced_service_account("reader", "default")
        code, _ = await where.call("GET", "/api/v1/nodes", kubeconfig=nobody, Authorization=bearer)
        assert code == 401


async def test_a_node_port_is_taken_once(where: Place) -> None:
    ports = [{"port": 443, "targetPort": 8443, "nodePort": 31000}]
    path = "/api/v1/namespaces/default/services"
    spec = {"type": "NodePort", "ports": ports, "selector": {"app": "web"}}
    code, answer = await where.call("POST", path, {"metadata": {"name": "a"}, "spec": spec})
    assert (code, answer["spec"]["clusterIP"].startswith("10.96.")) == (201, True)
    code, answer = await where.call("POST", path, {"metadata": {"name": "b"}, "spec": spec})
    assert code == 422
    assert "spec.ports[0].nodePort: Invalid value: 31000: provided port is already allocated" in answer["message"]


async def test_a_kubelet_reads_its_own_node_and_no_other_since_1_32(tmp_path: Path) -> None:
    for version, reads_all in (("v1.31.7", True), ("v1.36.2", False)):
        async with place(tmp_path / version, version=version) as where:
            own = where.cluster.kubelet_kubeconfig("w1")
            codes = [
                (await where.call("GET", f"/api/v1/nodes{rest}", kubeconfig=own))[0]
                for rest in ("/w1", "?fieldSelector=metadata.name%3Dw1", "/cp1", "")
            ]
            assert codes == ([404, 200, 200, 200] if reads_all else [404, 200, 403, 403])
            if not reads_all:
                _, answer = await where.call("GET", "/api/v1/nodes", kubeconfig=own)
                assert answer["message"] == (
                    'nodes is forbidden: User "system:node:w1" cannot list resource "nodes" in API group "" '
                    "at the cluster scope: node 'w1' cannot read all nodes, only its own Node object"
                )


async def test_the_groups_are_those_of_the_version(tmp_path: Path) -> None:
    for version, there, absent in (
        ("v1.20.2", {"certificates.k8s.io", "events.k8s.io"}, {"resource.k8s.io", "flowcontrol.apiserver.k8s.io"}),
        ("v1.36.2", {"certificates.k8s.io", "events.k8s.io", "resource.k8s.io", "flowcontrol.apiserver.k8s.io"}, set()),
    ):
        async with place(tmp_path / version, version=version) as where:
            _, answer = await where.call("GET", "/apis")
            groups = {group["name"]: group for group in answer["groups"]}
            assert there <= groups.keys()
            assert not absent & groups.keys()
            preferred = groups["autoscaling"]["preferredVersion"]["version"]
            assert preferred == ("v1" if version == "v1.20.2" else "v2")
