"""What is done between the cases, the same on every lab: by the product's own steps where there are some."""

from __future__ import annotations

import asyncio

import yaml

from shipway.cluster.model import Cluster, node_ip
from shipway.converge import converge
from shipway.kube.client import Kube
from shipway.kubeadm.config import as_yaml, init_documents
from shipway.step import Impact
from tasks.stages import (
    container_runtime,
    device_plugin,
    kubernetes_packages,
    nvidia_runtime,
    pod_network,
    prepare_system,
)
from tests.conformance.case import Action
from tests.conformance.places import ADMIN, Place
from tests.places.facts import DEBIAN


async def _stage(place: Place, name: str, stage: object) -> None:
    spec, host = place.cluster.host(name), place.host(name)
    host.forget()
    results = await converge(stage.steps(place.cluster, spec, DEBIAN), host, Impact.WORKLOADS)  # type: ignore[attr-defined]
    wrong = [str(result.error or result.drift) for result in results if result.outcome not in ("ok", "changed")]
    assert not wrong, f"{name}: {wrong}"


async def _prepare(place: Place) -> None:
    async def one(name: str, gpus: object) -> None:
        for stage in (prepare_system, container_runtime, *([nvidia_runtime] if gpus else []), kubernetes_packages):
            await _stage(place, name, stage)

    await asyncio.gather(*(one(spec.name, spec.gpus) for spec in place.cluster.hosts))


def _by_address(place: Place) -> Cluster:
    """Return the cluster as the answers were recorded of it: its API is known by an address, and not by a name."""
    kubernetes = place.cluster.kubernetes
    by_address = f"{node_ip(place.cluster.host('cp1'))}:{kubernetes.api_port}"
    return place.cluster.model_copy(update={"kubernetes": kubernetes.model_copy(update={"api_endpoint": by_address})})


async def _write_config(place: Place) -> None:
    documents = init_documents(_by_address(place), place.cluster.host("cp1"))
    text = as_yaml(documents)
    await place.host("cp1").write("/root/kubeadm.yaml", text.encode())
    parts = [dict(document) for document in documents]
    for part in parts:
        if part["kind"] == "ClusterConfiguration":
            part["imageRepository"] = "k8s.gcr.io/nosuch"
    await place.host("cp1").write("/root/kubeadm-nosuch.yaml", as_yaml(parts).encode())


async def _look_at_ports(place: Place, wanted: str) -> None:
    async def look() -> str:
        return (await place.run("cp1", ("ss", "-Hltn"))).stdout

    await place.until(look, wanted, seconds=60)


async def _listens(place: Place) -> None:
    await _look_at_ports(place, ":10250 ")


async def _all_listen(place: Place) -> None:
    for port in (2379, 6443, 10257, 10259):
        await _look_at_ports(place, f":{port} ")


async def _write_sources(place: Place) -> None:
    """Write sources that are not as they should be: nobody listens, nothing is there, no key is known."""
    known, unknown = "shipway-kubernetes.asc", "nosuch.asc"
    sources = {
        "closed": (known, "http://127.0.0.1:9/apt"),
        "absent": (known, f"{place.values['packages']}/nosuch"),
        "changed": (unknown, place.values["packages"]),
        "unknown": (unknown, place.values["gpus"]),  # its lists were never fetched on the control plane
    }
    for name, (key, uri) in sources.items():
        text = f"deb [signed-by=/etc/apt/keyrings/{key}] {uri} ./\n"
        for host in ("cp1", "w1"):
            await place.host(host).write(f"/etc/apt/conformance/{name}.list", text.encode())


async def _fetch(place: Place) -> None:
    await place.fetch_kubeconfig()
    await _token(place)


async def _token(place: Place) -> None:
    said = await place.run("cp1", ("kubeadm", "token", "create", "--kubeconfig", ADMIN, "--print-join-command"))
    words = said.stdout.split()
    place.values |= {"token": words[words.index("--token") + 1], "hash": words[-1]}


async def _network(place: Place) -> None:
    kube = await Kube.connect(place.host("cp1"), place.cluster)
    await converge(pod_network.steps(place.cluster), kube, Impact.WORKLOADS)
    await kube.close()


async def _ready(place: Place) -> None:
    async def look() -> str:
        said = await place.kubectl("get", "nodes", "--no-headers")
        rows = [line.split()[1] for line in said.stdout.splitlines()]
        pods = (await place.kubectl("get", "pods", "-A", "--no-headers")).stdout.splitlines()
        waiting = [row for row in pods if " Running " not in row]
        return f"{rows} {len(waiting)} waiting"

    await place.until(look, r"^\['Ready', 'Ready', 'Ready'\] 0 waiting", seconds=180)


async def _plugin(place: Place) -> None:
    kube = await Kube.connect(place.host("cp1"), place.cluster)
    for node in ("w1", "w2"):
        await place.kubectl("label", "node", node, "nvidia.com/gpu.present=true", "--overwrite")
    await converge(device_plugin.steps(place.cluster), kube, Impact.WORKLOADS)
    await kube.close()
    path = "jsonpath={.items[*].status.allocatable.nvidia\\.com/gpu}"

    async def look() -> str:
        return (await place.kubectl("get", "nodes", "-o", path)).stdout

    await place.until(look, "2 2", seconds=120)


def _deployment(place: Place) -> str:
    limits = {"nvidia.com/gpu": 1}
    container = {
        "name": "c",
        "image": place.cluster.gpu.verify_image,
        "command": ["sh", "-c", "sleep 3600"],
        "resources": {"limits": limits},
    }
    pod = {
        "runtimeClassName": "nvidia",
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [container],
    }
    spec = {
        "replicas": 4,
        "selector": {"matchLabels": {"app": "gpu"}},
        "template": {"metadata": {"labels": {"app": "gpu"}}, "spec": pod},
    }
    return yaml.safe_dump({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "gpu"}, "spec": spec})


async def _gpu_pods(place: Place) -> None:
    path = place.folder / "gpu.yaml"
    path.write_text(_deployment(place), encoding="utf-8")
    place.values["gpu_file"] = str(path)

    def pod(name: str, runtime: str, node: str) -> dict[str, object]:
        image = place.cluster.gpu.verify_image
        containers = [{"name": "c", "image": image, "command": ["sh", "-c", "sleep 3600"]}]
        spec = {
            "runtimeClassName": runtime,
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": containers,
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}

    missing = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "gvisor"},
        "handler": "gvisor",
    }
    (place.folder / "rc.yaml").write_text(
        yaml.safe_dump_all([missing, pod("rc-missing", "gvisor", "w1")]), encoding="utf-8"
    )
    (place.folder / "nosuch.yaml").write_text(yaml.safe_dump(pod("rc-none", "nosuch", "w1")), encoding="utf-8")
    place.values |= {name: str(place.folder / f"{name}.yaml") for name in ("rc", "nosuch")}


def _pods_show(pattern: str, *words: str) -> Action:
    async def do(place: Place) -> None:
        async def look() -> str:
            return (await place.kubectl("get", *words)).stdout

        await place.until(look, pattern, seconds=90)

    return Action(f"wait for {pattern}", do)


def command(host: str, *words: str) -> Action:
    """Return an action that runs a command on a host, whatever it answers."""

    async def do(place: Place) -> None:
        await place.run(host, words, seconds=180)

    return Action(" ".join(words), do)


def befall(host: str, what: str) -> Action:
    """Return an action that lets something happen to a host; see tests.conformance.befall."""

    async def do(place: Place) -> None:
        await place.befall(host, what)

    return Action(f"{what} on {host}", do)


PREPARE = Action("prepare every host by the product's own steps", _prepare)
WRITE_CONFIG = Action("write kubeadm's configuration", _write_config)
FETCH = Action("fetch the kubeconfig, make a token", _fetch)
WRITE_SOURCES = Action("write apt sources that fail", _write_sources)
CONTROL_PLANE_LISTENS = Action("wait for the ports of the control plane", _all_listen)
KUBELET_LISTENS = Action("wait for the kubelet's port", _listens)
NETWORK = Action("apply the pod network", _network)
READY = Action("wait until all is ready", _ready)
PLUGIN = Action("install the device plugin", _plugin)
GPU_PODS = Action("write the manifests of the GPU cases", _gpu_pods)
wait_for = _pods_show
