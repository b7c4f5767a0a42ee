"""GPUs of simulated nodes: seen under the nvidia runtime only, handed out one by one, unwell, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml

from lab.simulated.kube.hosts import SimpleHost
from lab.simulated.kube.latencies import Latencies
from tests.simulated.test_kube_support import PLUGIN, RUNTIME_CLASS, Place, gpu_host, place, pod, until

GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}, "image": "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0"}
STAY = ("sh", "-c", 'echo "devices=$NVIDIA_VISIBLE_DEVICES"; nvidia-smi -L; sleep 86400')


async def with_gpus(where: Place, *hosts: SimpleHost) -> None:
    """Bring up nodes whose GPUs are allocatable, in the RuntimeClass way."""
    await where.ready_with(*hosts)
    await where.apply(RUNTIME_CLASS)
    plugin = yaml.safe_load(PLUGIN)
    plugin["spec"]["template"]["spec"]["runtimeClassName"] = "nvidia"
    await where.apply(yaml.safe_dump(plugin))
    await until("gpus allocatable", lambda: all(where.gpus(host.name) == str(len(host.gpus)) for host in hosts))


async def gpu_pods(where: Place, *names: str) -> None:
    for name in names:
        await where.create_pod(pod(name, *STAY, runtimeClassName="nvidia", container=dict(GPU)))


async def test_gpus_need_the_nvidia_runtime_under_the_plugin(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        await where.ready_with(gpu_host("w1", "10.0.0.12"))
        await where.apply(PLUGIN)  # the default runtime is runc, and no RuntimeClass is named

        def plugin() -> str:
            pods = where.cluster.store.objects("pods", "kube-system")
            found = [p for p in pods if p["metadata"]["labels"].get("app") == "plugin"]
            return str(found[0]["metadata"]["name"]) if found and found[0]["status"]["phase"] == "Running" else ""

        await until("the plugin", plugin)
        await asyncio.sleep(0.1)
        assert "No devices found. Waiting indefinitely." in await where.log(plugin(), "kube-system")
        assert where.gpus("w1") == ""
        host = where.hosts["w1"]
        host.default_runtime = "nvidia"
        where.cluster.host_changed("w1")
        await where.call("DELETE", f"/api/v1/namespaces/kube-system/pods/{plugin()}")
        await until("gpus", lambda: where.gpus("w1") == "2")
        assert "Registered device plugin for 'nvidia.com/gpu' with Kubelet" in await where.log(plugin(), "kube-system")


async def test_four_pods_get_four_gpus_and_a_fifth_waits(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        await with_gpus(where, gpu_host("w1", "10.0.0.12"), gpu_host("w2", "10.0.0.13"))
        names = ["gpu-test1", "gpu-test2", "gpu-test3", "gpu-test4"]
        await gpu_pods(where, *names)
        await until("four pods", lambda: all(where.phase(name) == "Running" for name in names))
        logs = [(await where.log(name)).splitlines() for name in names]
        given = {lines[0].removeprefix("devices=") for lines in logs}
        assert given == {f"GPU-w{host}-{gpu}" for host in (1, 2) for gpu in (0, 1)}
        assert logs[0][1] == f"GPU 0: NVIDIA A10 (UUID: {logs[0][0].removeprefix('devices=')})"
        await gpu_pods(where, "gpu-test5")
        text = (
            "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
            "2 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 1 Preemption is not helpful for "
            "scheduling, 2 No preemption victims found for incoming pod."
        )
        await until("the refusal", lambda: where.events("FailedScheduling")[-1:] == [text])
        await where.call("DELETE", "/api/v1/namespaces/default/pods/gpu-test1")
        await until("the fifth pod", lambda: where.phase("gpu-test5") == "Running")


async def test_where_nothing_is_waited_for_a_long_sleep_still_holds_its_gpu(tmp_path: Path) -> None:
    async with place(tmp_path, latencies=Latencies(factor=0.0)) as where:
        await with_gpus(where, gpu_host("w1", "10.0.0.12"))
        await gpu_pods(where, "gpu-test1", "gpu-test2")
        await until("both pods", lambda: all(where.phase(name) == "Running" for name in ("gpu-test1", "gpu-test2")))
        await asyncio.sleep(0.3)
        assert [where.phase(name) for name in ("gpu-test1", "gpu-test2")] == ["Running", "Running"]


async def test_an_unwell_gpu_lowers_allocatable_and_leaves_pods_alone(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        host = gpu_host("w1", "10.0.0.12")
        await with_gpus(where, host)
        await gpu_pods(where, "a", "b")
        await until("both pods", lambda: where.phase("a") == where.phase("b") == "Running")
        host.gpus = [(host.gpus[0][0], True), (host.gpus[1][0], False)]
        where.cluster.host_changed("w1")
        await until("one gpu", lambda: where.gpus("w1") == "1")
        assert where.gpus("w1", "capacity") == "2"
        assert where.phase("a") == where.phase("b") == "Running"


async def test_a_missing_runtime_handler_keeps_a_pod_waiting_until_it_is_there(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        host = SimpleHost("w1", "10.0.0.12")
        await where.ready_with(host)
        code, answer = await where.call(
            "POST", "/api/v1/namespaces/default/pods", pod("a", "true", runtimeClassName="no")
        )
        assert code == 403
        assert answer["message"] == 'pods "a" is forbidden: pod rejected: RuntimeClass "no" not found'
        await where.apply(RUNTIME_CLASS)
        await where.create_pod(pod("a", "sleep", "86400", runtimeClassName="nvidia"))
        text = (
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: "
            'no runtime for "nvidia" is configured'
        )
        await until("the event", lambda: where.events("FailedCreatePodSandBox") == [text])
        assert where.phase("a") == "Pending"
        host.runtime_handlers = {"runc", "nvidia"}
        where.cluster.host_changed("w1")
        await until("the pod", lambda: where.phase("a") == "Running")


async def test_a_reboot_restarts_the_same_pods(tmp_path: Path) -> None:
    async with place(tmp_path) as where:
        host = gpu_host("w1", "10.0.0.12")
        await with_gpus(where, host)
        await where.create_pod(pod("a", *STAY, runtimeClassName="nvidia", container=dict(GPU), restartPolicy="Always"))
        await until("the pod", lambda: where.phase("a") == "Running")
        host.kubelet_running = host.reachable = False
        where.cluster.host_changed("w1")
        host.kubelet_running = host.reachable = True
        where.cluster.rebooted("w1")

        def restarts() -> tuple[int, bool]:
            entry = (where.cluster.store.get("pods", "default", "a") or {})["status"]["containerStatuses"][0]
            return entry["restartCount"], entry["ready"]

        await until("one restart", lambda: restarts() == (1, True))
        await until("the gpus", lambda: where.gpus("w1") == "2")
