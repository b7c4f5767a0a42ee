"""A bootstrapped SIMULATED cluster that things drift on, for the tests of drift repair."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from flows.bootstrap import bootstrap
from flows.cli.demo import Demo
from flows.drift_repair import Allow, drift_repair
from lab.simulated.control import ask
from shipway.cluster_file import load_cluster
from shipway.converge import wait_until
from shipway.gpu.chosen import VENDOR
from shipway.host.ssh import Pool
from shipway.kube.client import Kube
from shipway.steps.kubernetes.nodes import WorkloadRuns
from tasks.drift.report import DriftReport
from tests.flows.story import LATENCY, patient
from tests.places.prefect import Place, hurried


@dataclass
class Scene:
    """A bootstrapped SIMULATED cluster of three hosts, and a file that declares a fourth."""

    lab: Path
    file: Path
    declared: Path
    home: Path
    flow_run: UUID | None = None  # of the last pass

    def passed(self, repair: Allow = "service", file: Path | None = None, **more: Any) -> DriftReport:
        """Return the report of a pass."""

        async def fly() -> DriftReport:
            state = await drift_repair(str(file or self.file), repair, return_state=True, **more)
            self.flow_run = state.state_details.flow_run_id
            report = await state.aresult(raise_on_failure=False)
            assert isinstance(report, DriftReport), report
            return report

        return asyncio.run(fly())

    def drift(self, host: str, kind: str, **values: Any) -> None:
        """Let something drift."""
        ask(self.lab, do="drift", host=host, kind=kind, **values)

    def patched(self, kind: str, name: str, changes: dict[str, Any], namespace: str, api: str = "v1") -> None:
        """Change an object behind Shipway's back."""

        async def change(kube: Kube) -> None:
            await kube.patch(api, kind, name, changes, namespace)

        self._through(change)

    def gpu_pod(self, host: str, gpus: int = 1) -> None:
        """Start a pod that holds GPUs of a host (or none), and wait until it runs."""

        async def start(kube: Kube) -> None:
            limits = {"resources": {"limits": {VENDOR.resource: str(gpus)}}} if gpus else {}
            spec = {"containers": [{"name": "c", "image": "registry.example/train:1", **limits}], "nodeName": host}
            meta = {"name": "training", "namespace": "default"}
            await kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
            async with asyncio.timeout(30):
                while True:
                    pod = await kube.get("v1", "Pod", "training", "default", fresh=True)
                    if pod and (pod.get("status") or {}).get("phase") in ("Running", "Pending"):
                        return
                    await asyncio.sleep(0.1)

        self._through(start)

    def no_gpu_pod(self) -> None:
        """End that pod, and wait until it has gone."""

        async def end(kube: Kube) -> None:
            await kube.delete("v1", "Pod", "training", "default", grace=0)
            async with asyncio.timeout(30):
                while await kube.get("v1", "Pod", "training", "default", fresh=True):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)  # there is no event to wait for: the API is asked

        self._through(end)

    def usable(self, host: str, gpus: int) -> None:
        """Wait until the API says how many GPUs of a host are usable: a plugin's health check takes its time."""

        async def seen(kube: Kube) -> None:
            async with asyncio.timeout(30):
                while True:
                    node = await kube.get("v1", "Node", host, fresh=True)
                    if node and node["status"]["allocatable"].get(VENDOR.resource) == str(gpus):
                        return
                    await asyncio.sleep(0.1)

        self._through(seen)

    def plugin_started_anew(self, host: str) -> None:
        """Delete the device plugin's pod of a host, and wait until another one runs there and offers the GPU."""

        async def renew(kube: Kube) -> None:
            (uid,) = [pod["metadata"]["uid"] for pod in await here(kube) if await _deleted(kube, pod)]
            async with asyncio.timeout(30):
                while not any(pod["metadata"]["uid"] != uid and ready(pod) for pod in await here(kube)):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

        async def here(kube: Kube) -> list[Any]:
            kube.forget()
            pods = await kube.list_("v1", "Pod", VENDOR.plugin.namespace, labels=VENDOR.plugin.selector)
            return [pod for pod in pods if pod["spec"].get("nodeName") == host]

        async def _deleted(kube: Kube, pod: Any) -> bool:
            return await kube.delete("v1", "Pod", pod["metadata"]["name"], VENDOR.plugin.namespace, grace=0)

        def ready(pod: Any) -> bool:
            return all(one.get("ready") for one in (pod.get("status") or {}).get("containerStatuses") or [{}])

        self._through(renew)
        self.usable(host, 1)

    def rolled_out(self, daemon_set: str, namespace: str) -> None:
        """Wait until a DaemonSet runs everywhere in its newest form."""

        async def seen(kube: Kube) -> None:
            check = WorkloadRuns("DaemonSet", daemon_set, namespace)
            await wait_until(check, kube, seconds=60, every=0.1)

        self._through(seen)

    def _through(self, use: Callable[[Kube], Awaitable[None]]) -> None:
        """Use the cluster's API, on a connection of its own."""

        async def used() -> None:
            cluster, pool = load_cluster(self.file), Pool()
            kube = await Kube.connect(pool.host(cluster.target(cluster.control_planes[0])), cluster)
            try:
                await use(kube)
            finally:
                await kube.close()
                await pool.close()

        asyncio.run(used())


@contextmanager
def staged(place: Place) -> Iterator[Scene]:
    """Yield the scene; its lab ends with it."""
    with hurried(), Demo(latency=LATENCY) as lab:
        declared = patient(lab.cluster_file())
        data = yaml.safe_load(declared.read_text(encoding="utf-8"))
        file = declared.with_name("three.yaml")
        file.write_text(yaml.safe_dump({**data, "hosts": data["hosts"][:3]}), encoding="utf-8")
        state = asyncio.run(bootstrap(str(file), return_state=True))
        assert state.is_completed(), state
        yield Scene(lab.folder, file, declared, place.home)
