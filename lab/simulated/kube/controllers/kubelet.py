"""The kubelets of all nodes: a pod's way from assigned to running to its end, with the events of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lab.simulated.kube.api_errors import bad_request
from lab.simulated.kube.objects import Obj, dig, key_of, name_of
from lab.simulated.kube.store import DELETED, Change
from lab.simulated.kube.world import World, is_finished

from .containers import Containers
from .devices import Devices, NoDeviceError
from .nodes import Nodes
from .pods.network import PodNetwork, is_network_pod
from .pods.runs import ContainerState, PodRun, Run, written
from .sandboxes import SandboxError, check_sandbox, runtime_handler

MIRROR = "kubernetes.io/config.mirror"


class Kubelets:
    """Runs the pods that were given a node, wherever that node's kubelet is alive."""

    def __init__(self, world: World, nodes: Nodes, devices: Devices) -> None:
        self.world = world
        self.devices = devices
        self._nodes = nodes
        self._network = PodNetwork(world)
        self._containers = Containers(self)
        self._runs: dict[str, PodRun] = {}
        nodes.on_alive.append(self._node_alive)
        world.store.listen(["pods"], self._pod_changed)
        world.store.listen(["nodes"], self._node_changed)

    def _node_changed(self, change: Change) -> None:
        if change.kind == DELETED:
            self.devices.forget_node(name_of(change.obj))

    def _pod_changed(self, change: Change) -> None:
        node = dig(change.obj, "spec", "nodeName")
        if not node:
            return
        if change.kind == DELETED:
            self._forget(change.obj)
        elif (pod := self.world.store.get("pods", *key_of(change.obj))) is not None:
            self._sync(pod)

    def _sync(self, pod: Obj) -> None:
        """Start or stop a pod as its object asks, where its kubelet is alive."""
        if not self.world.alive(str(pod["spec"]["nodeName"])):
            return
        run = self._runs.get(pod["metadata"]["uid"])
        if pod["metadata"].get("deletionTimestamp"):
            if run is None:
                self.world.store.remove("pods", *key_of(pod))
            elif not run.stopping:
                run.stopping = True
                self._event(pod, "Killing", f"Stopping container {pod['spec']['containers'][0]['name']}")
                self.later(run, self.world.latencies.pod_stop, self._stopped)
        elif run is None and not is_finished(pod):
            self._start(pod)

    def _event(self, pod: Obj, reason: str, message: str) -> None:
        self.world.event(pod, reason, message, "kubelet", str(pod["spec"]["nodeName"]))

    def later(self, run: PodRun, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """Call `action(pod, run, ...)` after some time, if the pod is still there and its kubelet is alive."""

        def act() -> None:
            pod = self.world.store.get("pods", *run.key)
            if pod is None or pod["metadata"]["uid"] != run.uid or self._runs.get(run.uid) is not run:
                return
            if self.world.alive(run.node):
                action(pod, run, *arguments)
            else:
                run.missed.append((action, arguments))  # until the kubelet is back

        now = asyncio.get_running_loop().time()
        run.timers = [timer for timer in run.timers if not timer.cancelled() and timer.when() > now]
        run.timers.append(self.world.pace.after(seconds, act))

    def publish(self, pod: Obj, run: PodRun) -> Obj:
        """Write a pod's status from the state of its containers."""
        host = self.world.hosts[run.node]
        return self.world.store.replace("pods", written(pod, run, host, self.world.config.minor))

    def run_of(self, pod: Obj, container: str) -> Run:
        """Return the latest run of a container, of the only one where none is named.

        Raises ApiError (400), in the words of the API server and the kubelet, where there is none.
        """
        names = [one["name"] for one in pod["spec"]["containers"]]
        if not container and len(names) > 1:
            text = f"a container name must be specified for pod {name_of(pod)}, choose one of: [{' '.join(names)}]"
            raise bad_request(text)
        name = container or names[0]
        if name not in names:
            raise bad_request(f"container {name} is not valid for pod {name_of(pod)}")
        known = self._runs.get(pod["metadata"]["uid"])
        state = known.containers.get(name) if known is not None else None
        if state is not None and state.run is not None:
            return state.run
        if not dig(pod, "spec", "nodeName"):
            raise bad_request(f"pod {name_of(pod)} does not have a host assigned")
        reason = dig(state.state, "waiting", "reason") if state is not None else None
        raise bad_request(
            f'container "{name}" in pod "{name_of(pod)}" is waiting to start: {reason or "ContainerCreating"}'
        )

    def _start(self, pod: Obj) -> None:
        containers = {c["name"]: ContainerState(c["name"], c["image"]) for c in pod["spec"]["containers"]}
        run = PodRun(key_of(pod), pod["metadata"]["uid"], containers, str(pod["spec"]["nodeName"]))
        self._runs[run.uid] = run
        try:
            self.devices.allocate(pod)
        except NoDeviceError as error:
            run.failure = ("UnexpectedAdmissionError", str(error))
            run.containers = {}
            self._event(pod, "UnexpectedAdmissionError", str(error))
            self.publish(pod, run)
            return
        pod = self.publish(pod, run)
        self.later(run, self.world.latencies.sandbox, self._sandbox)

    def _sandbox(self, pod: Obj, run: PodRun) -> None:
        """Make the pod's sandbox, or say why not and try again: the network may come, the runtime may learn."""
        if run.stopping:
            return
        if why := self.devices.unprepared(pod):
            self._event(pod, "FailedPrepareDynamicResources", why)
            self.later(run, self.world.latencies.sandbox_retry, self._sandbox)
            return
        try:
            check_sandbox(self.world, pod, networked=run.node in self._nodes.networked)
        except SandboxError as error:
            self._event(pod, error.reason, str(error))
            self.later(run, self.world.latencies.sandbox_retry, self._sandbox)
            return
        host = self.world.hosts[run.node]
        run.address = host.address if dig(pod, "spec", "hostNetwork") else self._network.address(run.node)
        self._containers.begin(pod, run)

    def running(self, pod: Obj, run: PodRun) -> None:
        """Note what a pod that has begun to run brings to its node: a network, a device plugin."""
        self.devices.plugin_started(pod, runtime_handler(self.world, pod))
        if is_network_pod(pod) and run.node not in self._nodes.networked:
            self.later(run, self.world.latencies.network_ready, self._network_up)

    def _network_up(self, pod: Obj, run: PodRun) -> None:
        self._nodes.network_up(run.node)
        for other in self.world.store.indexed("pods", "node", run.node):
            waiting = self._runs.get(other["metadata"]["uid"])
            if waiting is not None and not waiting.address and not waiting.stopping:
                self.later(waiting, self.world.latencies.sandbox, self._sandbox_again)

    def _sandbox_again(self, pod: Obj, run: PodRun) -> None:
        if not run.address:
            self._sandbox(pod, run)

    def host_changed(self, node: str) -> None:
        """Try again what waited for something on a host: a runtime handler, a GPU's health."""
        self.devices.health_changed(node)
        for pod in self.world.store.indexed("pods", "node", node):
            run = self._runs.get(pod["metadata"]["uid"])
            if run is not None and not run.address and not run.failure:
                self.later(run, self.world.latencies.sandbox, self._sandbox_again)

    def _stopped(self, pod: Obj, run: PodRun) -> None:
        """Let go of a pod, unless a driver is to take back first what it was prepared: until then it stays."""
        if run.address and self.devices.unprepared(pod):
            self.later(run, self.world.latencies.sandbox_retry, self._stopped)
            return
        self.world.store.remove("pods", *key_of(pod))

    def end(self, pod: Obj, run: PodRun) -> None:
        """Release what a pod that has finished held."""
        self.devices.release(pod)
        self.devices.plugin_stopped(pod)

    def _forget(self, pod: Obj) -> None:
        run = self._runs.pop(pod["metadata"]["uid"], None)
        if run is None:
            return
        for timer in run.timers:
            self.world.pace.cancel(timer)
        self.end(pod, run)
        if MIRROR in (pod["metadata"].get("annotations") or {}) and self.world.alive(run.node):
            self._recreate_mirror(pod)

    def _recreate_mirror(self, pod: Obj) -> None:
        """Make a static pod's mirror again: it is the file on the host that counts."""
        if self.world.store.get("nodes", "", str(pod["spec"]["nodeName"])) is None:
            return
        kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
        metadata = {key: pod["metadata"][key] for key in kept if key in pod["metadata"]}
        if self.world.store.get("pods", *key_of(pod)) is None:
            self.world.store.create("pods", {**pod, "metadata": metadata, "status": {"phase": "Pending"}})

    def _node_alive(self, node: str) -> None:
        """Take up the pods of a node whose kubelet is back: what fell into its absence, and their conditions."""
        for pod in self.world.store.indexed("pods", "node", node):
            run = self._runs.get(pod["metadata"]["uid"])
            if run is not None:
                missed, run.missed = run.missed, []
                for action, arguments in missed:
                    self.later(run, 0.0, action, *arguments)
                pod = self.publish(pod, run)  # noqa: PLW2901 - the same pod, with its conditions true again
            self._sync(pod)

    def rebooted(self, node: str) -> None:
        """Start every pod of a node that was rebooted anew: same pods, one restart more, new addresses."""
        for pod in self.world.store.indexed("pods", "node", node):
            run = self._runs.get(pod["metadata"]["uid"])
            if run is None or is_finished(pod) or run.stopping:
                continue
            for timer in run.timers:
                self.world.pace.cancel(timer)
            if run.address:
                self.devices.plugin_stopped(pod)
            run.address, run.missed = "", []
            self._containers.rebooted(run)
            self.publish(pod, run)
            self.later(run, self.world.latencies.sandbox, self._sandbox)
