"""GPUs as the kubelets know them: device plugins that register, GPUs handed out to pods, health that changes."""

from __future__ import annotations

from lab.simulated.kube.hosts import devices_of
from lab.simulated.kube.objects import Obj, dig, with_status
from lab.simulated.kube.world import World

from .claims import SLICES, Claims
from .container_programs import (
    VENDOR,
    Given,
    asked,
    drives_claims,
    is_device_plugin,
    plugin_sees,
    sees_driver,
    strategy_of,
)

DRIVER = "gpu.nvidia.com"
WIPE_SECONDS = 30.0  # the kubelet's (pkg/kubelet/cm/dra/plugin, defaultWipingDelay)


class NoDeviceError(Exception):
    """A pod was placed on a node that has no GPU left for it."""


class Devices:
    """The device managers of all kubelets."""

    def __init__(self, world: World, claims: Claims) -> None:
        self._world, self._claims = world, claims
        self._drivers: dict[str, str] = {}  # node -> uid of the pod of the driver of claims
        self._plugins: dict[str, str] = {}  # node -> uid of the plugin's pod
        self._strategies: dict[str, str] = {}  # node -> how its plugin hands GPUs out
        self._held: dict[str, dict[str, tuple[str, str, str]]] = {}  # node -> device -> (pod uid, container, GPU)
        self._given: dict[str, str] = {}  # pod -> how it was given them: the kubelet keeps it as long as the pod is

    def plugin_started(self, pod: Obj, handler: str | None) -> None:
        """Register the GPUs of a node some moments after its plugin's container began to run."""
        node = str(pod["spec"]["nodeName"])
        container = next((one for one in pod["spec"]["containers"] if is_device_plugin(one)), None)
        host = self._world.hosts.get(node)
        if host is not None and any(drives_claims(pod, one) for one in pod["spec"]["containers"]):
            self._drivers[node] = pod["metadata"]["uid"]
            self._world.pace.after(self._world.latencies.device_plugin, self._offer, node)
        if container is not None and host is not None and plugin_sees(pod, container, host, handler):
            self._plugins[node] = pod["metadata"]["uid"]
            self._strategies[node] = strategy_of(pod)
            self._world.pace.after(self._world.latencies.device_plugin, self.publish, node)

    def plugin_stopped(self, pod: Obj) -> None:
        """Take a node's GPUs out of use when the plugin that served them has gone."""
        node = str(dig(pod, "spec", "nodeName", default=""))
        if self._drivers.get(node) == pod["metadata"]["uid"]:
            del self._drivers[node]
            self._world.pace.after(WIPE_SECONDS, self._wipe, node)
        if self._plugins.get(node) == pod["metadata"]["uid"]:
            del self._plugins[node]
            self.publish(node)

    def _offer(self, node: str) -> None:
        """Write which GPUs a node has into a slice; the driver does not look whether they are well, by default."""
        host, obj = self._world.hosts.get(node), self._world.store.get("nodes", "", node)
        if node not in self._drivers or host is None or obj is None or not sees_driver(host):
            return
        self._remove(node)
        devices = [
            {"name": f"gpu-{at}", "attributes": {"type": {"string": "gpu"}, "uuid": {"string": uuid}}}
            for at, (uuid, _) in enumerate(host.gpus)
        ]
        owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": obj["metadata"]["uid"], "controller": True}
        name = self._world.store.unused_name(SLICES, "", f"{node}-{DRIVER}-")
        pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
        spec = {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices}
        made = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "spec": spec}
        self._world.store.create(SLICES, {**made, "metadata": {"name": name, "ownerReferences": [owner]}})

    def _wipe(self, node: str) -> None:
        """Do what the kubelet does some time after a driver has gone: its slices go too."""
        if node not in self._drivers:
            self._remove(node)

    def _remove(self, node: str) -> None:
        for one in self._world.store.objects(SLICES):
            if one["spec"].get("nodeName") == node and one["spec"]["driver"] == DRIVER:
                self._world.store.remove(SLICES, "", one["metadata"]["name"])

    def unprepared(self, pod: Obj) -> str:
        """Return why a pod's claims cannot be prepared on its node, in the kubelet's words; "" where they can."""
        if not pod["spec"].get("resourceClaims") or str(pod["spec"]["nodeName"]) in self._drivers:
            return ""
        why = f"DRA driver {DRIVER} is not registered"
        return f"Failed to prepare dynamic resources: prepare dynamic resources: {why}"

    def health_changed(self, node: str) -> None:
        """Publish a node's GPUs after the plugin's health check has seen them."""
        if node in self._plugins:
            self._world.pace.after(self._world.latencies.device_health, self.publish, node)

    def publish(self, node: str) -> None:
        """Write a node's capacity and allocatable GPUs; a GPU that is unwell counts in the first alone."""
        obj, host = self._world.store.get("nodes", "", node), self._world.hosts.get(node)
        if obj is None or host is None or not self._world.alive(node):
            return
        status = obj["status"]
        served = node in self._plugins
        known = [name for name in status["capacity"] if name.startswith(VENDOR)]
        offered = devices_of(host) if served else {}
        if not served and not known:
            return
        total = {name: str(len(some)) for name, some in offered.items()}
        usable = {name: str(sum(1 for *_, healthy in some if healthy)) for name, some in offered.items()}
        if served and host.gpus:  # what is not served any more stays, at 0
            total = {**dict.fromkeys(known, "0"), **total}
        capacity = {**status["capacity"], **total}
        allocatable = {**status["allocatable"], **dict.fromkeys(known, "0"), **usable}
        self._world.store.replace("nodes", with_status(obj, capacity=capacity, allocatable=allocatable))

    def allocate(self, pod: Obj) -> None:
        """Hand GPUs to a pod's containers. Raises NoDeviceError, with the kubelet's words, where there are too few."""
        node, uid = str(pod["spec"]["nodeName"]), pod["metadata"]["uid"]
        held = self._held.setdefault(node, {})
        if any(holder == uid for holder, *_ in held.values()):
            return
        offered = devices_of(self._world.hosts[node]) if node in self._plugins else {}
        for container in pod["spec"]["containers"]:
            for resource, wanted in asked(container).items():
                free = [(own, gpu) for own, gpu, well in offered.get(resource, ()) if well and own not in held]
                if len(free) < wanted:
                    self.release(pod)
                    verb = "Allocate failed" if self._world.config.minor >= 21 else "Update plugin resources failed"
                    raise NoDeviceError(
                        f"{verb} due to requested number of devices unavailable for {resource}. Requested: {wanted}, "
                        f"Available: {len(free)}, which is unexpected"
                    )
                # As the plugin's `distributed` policy: those whose GPU has the fewest holders first.
                free.sort(key=lambda one: sum(gpu == one[1] for *_, gpu in held.values()))
                for own, gpu in free[:wanted]:
                    held[own] = (uid, container["name"], gpu)
        self._given[uid] = self._strategies.get(node, "envvar")

    def given(self, pod: Obj, container: str) -> Given:
        """Return the GPUs that one container of a pod holds, and how it was given them."""
        if pod["spec"].get("resourceClaims"):
            mine = next(one for one in pod["spec"]["containers"] if one["name"] == container)
            names = [one["name"] for one in dig(mine, "resources", "claims", default=[])]
            return Given(self._claims.uuids(pod, names), "cdi-cri")
        uid, held = pod["metadata"]["uid"], self._held.get(str(pod["spec"]["nodeName"]), {})
        gpus = [gpu for *holder, gpu in held.values() if holder == [uid, container]]
        return Given(gpus, self._given.get(uid, "envvar"))

    def release(self, pod: Obj) -> None:
        """Take back a pod's GPUs."""
        held = self._held.get(str(dig(pod, "spec", "nodeName", default="")), {})
        for own in [own for own, (uid, *_) in held.items() if uid == pod["metadata"]["uid"]]:
            del held[own]
        self._given.pop(pod["metadata"]["uid"], None)

    def forget_node(self, node: str) -> None:
        """Forget a node that has left."""
        self._plugins.pop(node, None)
        self._drivers.pop(node, None)
        self._remove(node)
        self._held.pop(node, None)
