"""A simulated cluster for the tests of the simulated Kubernetes API, with clients that speak the real protocol."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_asyncio import client, config

from lab.simulated.kube.cluster import Cluster
from lab.simulated.kube.hosts import SimpleHost
from lab.simulated.kube.latencies import Latencies
from lab.simulated.kube.world import ClusterConfig
from tests.places.kube import POD_NETWORK, authority

FACTOR = 0.01  # a minute of the real cluster is 0.6 s here
PLUGIN = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: nvidia-device-plugin, namespace: kube-system}
spec:
  selector: {matchLabels: {app: plugin}}
  template:
    metadata: {labels: {app: plugin}}
    spec:
      containers:
      - name: plugin
        image: nvcr.io/nvidia/k8s-device-plugin:v0.17.1
        env: [{name: FAIL_ON_INIT_ERROR, value: "false"}]
"""
RUNTIME_CLASS = """
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: nvidia}
handler: nvidia
"""


def gpu_host(name: str, address: str, gpus: int = 2, **fields: Any) -> SimpleHost:
    """Return a host with an nvidia runtime beside runc, and with GPUs."""
    found = [(f"GPU-{name}-{number}", True) for number in range(gpus)]
    return SimpleHost(name, address, runtime_handlers={"runc", "nvidia"}, gpus=found, **fields)


def pod(name: str, *command: str, **spec: Any) -> dict[str, Any]:
    """Return a pod of one container `c` that runs a command once."""
    container: dict[str, Any] = {"name": "c", "image": "registry.example/tool:1", "command": list(command)}
    container |= spec.pop("container", {})
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}}
    return {**head, "spec": {"restartPolicy": "Never", "containers": [container], **spec}}


async def until(what: str, look: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until `look` gives something true; fail by name of what was waited for."""
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, f"not within {seconds} s: {what}; last seen: {look()!r}"
        await asyncio.sleep(0.01)


@dataclass
class Place:
    """A running cluster, its API's port, and ways to use it."""

    cluster: Cluster
    port: int
    folder: Path
    admin: client.ApiClient | None = None
    hosts: dict[str, SimpleHost] = field(default_factory=dict)

    @property
    def server(self) -> str:
        """Return the API's URL on this machine."""
        return f"https://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def api(self, kubeconfig: str = "") -> AsyncIterator[client.ApiClient]:
        """Yield a kubernetes_asyncio client, the administrator's unless another kubeconfig is given."""
        text = kubeconfig or self.cluster.admin_kubeconfig(self.server)
        api = await config.new_client_from_config_dict(yaml.safe_load(text), temp_file_path=str(self.folder))
        try:
            yield api
        finally:
            await api.close()

    async def call(
        self, method: str, path: str, body: Any = None, kubeconfig: str = "", **headers: str
    ) -> tuple[int, Any]:
        """Send one request as it is; return the status and the decoded (or plain) answer."""
        async with self.api(kubeconfig) if kubeconfig or self.admin is None else nullcontext(self.admin) as api:
            session = api.rest_client.pool_manager
            sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): v for name, v in headers.items()}
            data = None if body is None else body if isinstance(body, str) else json.dumps(body)
            async with session.request(method, self.server + path, data=data, headers=sent) as answer:
                text = await answer.text()
                return answer.status, json.loads(text) if text.startswith("{") else text

    async def apply(self, text: str, *, manager: str = "test", force: bool = True) -> dict[str, Any]:
        """Apply one object on the server's side; fail with the server's message where it refuses."""
        obj = yaml.safe_load(text)
        resource = self.cluster.world.resources.of_kind(obj["apiVersion"], obj["kind"])
        assert resource is not None, f"nobody serves {obj['apiVersion']} {obj['kind']}"
        place = f"/namespaces/{obj['metadata'].get('namespace', 'default')}" if resource.namespaced else ""
        path = f"{resource.base_path}{place}/{resource.plural}/{obj['metadata']['name']}"
        query = f"?fieldManager={manager}&force={str(force).lower()}"
        code, answer = await self.call("PATCH", path + query, obj, Content_Type="application/apply-patch+yaml")
        assert code in (200, 201), answer
        return dict(answer)

    async def create_pod(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Create a pod; fail where it is refused."""
        code, answer = await self.call("POST", "/api/v1/namespaces/default/pods", obj)
        assert code == 201, answer
        return dict(answer)

    def phase(self, name: str) -> str:
        """Return the phase of a pod of the default namespace, empty for one that is not there."""
        found = self.cluster.store.get("pods", "default", name) or {}
        return str((found.get("status") or {}).get("phase", ""))

    def ready(self, name: str) -> str:
        """Return the status of a node's Ready condition."""
        node = self.cluster.store.get("nodes", "", name) or {}
        found = [c["status"] for c in (node.get("status") or {}).get("conditions", []) if c["type"] == "Ready"]
        return str(found[0]) if found else ""

    def gpus(self, name: str, part: str = "allocatable") -> str:
        """Return the GPUs of a node, empty where it offers none."""
        node = self.cluster.store.get("nodes", "", name) or {}
        return str(((node.get("status") or {}).get(part) or {}).get("nvidia.com/gpu", ""))

    async def log(self, name: str, namespace: str = "default") -> str:
        """Return a pod's log."""
        code, text = await self.call("GET", f"/api/v1/namespaces/{namespace}/pods/{name}/log")
        assert code == 200, text
        return str(text)

    def events(self, reason: str) -> list[str]:
        """Return the messages of all events with this reason."""
        return [event["message"] for event in self.cluster.store.objects("events") if event["reason"] == reason]

    async def join(self, *hosts: SimpleHost) -> None:
        """Join hosts to the cluster."""
        for host in hosts:
            await self.cluster.join(host, self.cluster.init_token, self.cluster.ca_hash)
            self.hosts[host.name] = host

    async def ready_with(self, *hosts: SimpleHost) -> None:
        """Join hosts, bring a pod network, and wait until every node is Ready."""
        await self.join(*hosts)
        await self.apply(POD_NETWORK)
        names = ["cp1", *(host.name for host in hosts)]
        await until("all nodes Ready", lambda: all(self.ready(name) == "True" for name in names))


@asynccontextmanager
async def place(folder: Path, version: str = "v1.31.7", **fields: Any) -> AsyncIterator[Place]:
    """Yield a cluster after kubeadm init on host cp1, served on loopback; its own errors fail the test at the end."""
    latencies = fields.pop("latencies", Latencies(factor=FACTOR, init=0.0, join=0.0))
    host = SimpleHost("cp1", "10.0.0.11", kubelet_version=version)
    cluster = Cluster(ClusterConfig(version=version, latencies=latencies, **fields), authority())
    await cluster.start(host)
    port = await cluster.serve()
    made = Place(cluster, port, folder, hosts={"cp1": host})
    try:
        async with made.api() as made.admin:
            yield made
    finally:
        await cluster.close()


def kubectl_path() -> str:
    """Return the kubectl to test with: $KUBECTL or the one on PATH. In CI it must be there; elsewhere tests skip."""
    found = os.environ.get("KUBECTL") or shutil.which("kubectl")
    if found:
        return found
    text = "kubectl is missing: apt-get install kubernetes-client, or point KUBECTL at one"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


async def kubectl(where: Place, *words: str, environment: Mapping[str, str] | None = None) -> str:
    """Run the real kubectl as administrator; return its output, and fail with it where it does."""
    path = where.folder / "admin.conf"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(where.cluster.admin_kubeconfig(where.server))
    program = kubectl_path()
    env = {"HOME": str(where.folder), "PATH": os.environ["PATH"], **(environment or {})}
    process = await asyncio.create_subprocess_exec(
        program,
        f"--kubeconfig={path}",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 20)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, f"kubectl {' '.join(words)}: {err.decode()}{out.decode()}"
    return out.decode()
