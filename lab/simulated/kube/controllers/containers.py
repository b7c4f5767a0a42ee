"""The containers of a pod: images pulled, programs started, ended, and started again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lab.simulated.kube.objects import Obj, dig, name_of, timestamp
from lab.simulated.kube.world import is_finished

from .container_programs import ContainerRefusedError, configured, is_device_plugin, program_for
from .pods.runs import ContainerState, PodRun, Run, container_id
from .sandboxes import runtime_handler

if TYPE_CHECKING:
    from .kubelet import Kubelets

MAX_BACKOFF = 300.0  # seconds; the kubelet's longest wait before it starts a container again


class Containers:
    """Starts and restarts the containers of pods that have a sandbox."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets
        self._world = kubelets.world
        self._images: dict[str, set[str]] = {}

    def _event(self, pod: Obj, reason: str, message: str) -> None:
        self._world.event(pod, reason, message, "kubelet", str(pod["spec"]["nodeName"]))

    def begin(self, pod: Obj, run: PodRun) -> None:
        """Start all containers of a pod, each as soon as its image is there."""
        for container in pod["spec"]["containers"]:
            self._pull(pod, run, container)

    def _pull(self, pod: Obj, run: PodRun, container: Obj) -> None:
        image, known = container["image"], self._images.setdefault(run.node, set())
        if image in known and container.get("imagePullPolicy") != "Always":
            self._event(pod, "Pulled", f'Container image "{image}" already present on machine')
            self._kubelets.later(run, self._world.latencies.container_start, self._start, container)
            return
        self._event(pod, "Pulling", f'Pulling image "{image}"')
        self._kubelets.later(run, self._world.latencies.image_pull, self._pulled, container)

    def _pulled(self, pod: Obj, run: PodRun, container: Obj) -> None:
        image = container["image"]
        hook = self._world.config.image_fault
        fault = hook(run.node, image) if hook is not None else None
        state = run.containers[container["name"]]
        if fault is None:
            self._images[run.node].add(image)
            took = f"{self._world.latencies.image_pull:g}s"
            self._event(pod, "Pulled", f'Successfully pulled image "{image}" in {took}')
            self._start(pod, run, container)
            return
        text = f'Failed to pull image "{image}": {fault}'
        self._event(pod, "Failed", text)
        self._event(pod, "Failed", "Error: ErrImagePull")
        self._event(pod, "BackOff", f'Back-off pulling image "{image}"')
        state.state = {"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}}
        self._kubelets.publish(pod, run)
        self._kubelets.later(run, self._world.latencies.image_retry, self._pulled, container)

    def _start(self, pod: Obj, run: PodRun, container: Obj) -> None:
        if run.stopping:
            return
        state = run.containers[container["name"]]
        host = self._world.hosts[run.node]
        given = self._kubelets.devices.given(pod, state.name)
        if is_device_plugin(container):
            maps = partial(self._world.store.get, "configmaps")
            own = host.own_sharing  # it sees the parts that there are when it starts
            host.sharing = replace(configured(pod, maps) or own, parts=own.parts, profile=own.profile)
        try:
            program = program_for(pod, container, host, runtime_handler(self._world, pod), given)
        except ContainerRefusedError as error:
            self._refused(pod, run, state, str(error))
            return
        state.run = Run(program, self._world.latencies.program)
        colon = ":" if self._world.config.minor >= 32 else ""
        self._event(pod, "Created", f"Created container{colon} {state.name}")
        self._event(pod, "Started", f"Started container {state.name}")
        state.state, state.begun, state.ready = {"running": {"startedAt": timestamp()}}, True, False
        pod = self._kubelets.publish(pod, run)
        self._kubelets.running(pod, run)
        self._kubelets.later(run, self._world.latencies.readiness, self._ready, state, state.restarts)
        if program.ends is not None:
            ended = (self._ended, state, state.restarts, program.code)
            wait = program.ends * state.run.factor
            run.timers.append(self._world.pace.after_exactly(wait, self._kubelets.later, run, 0.0, *ended))

    def _refused(self, pod: Obj, run: PodRun, state: ContainerState, why: str) -> None:
        """Tell of a container that its runtime did not start: the kubelet says StartError, and tries again."""
        self._event(pod, "Created", f"Created container {state.name}")
        self._event(pod, "Failed", f"Error: {why}")
        end = {"exitCode": 128, "reason": "StartError", "message": why, "startedAt": "1970-01-01T00:00:00Z"}
        self._terminated(pod, run, state, end)

    def _ready(self, pod: Obj, run: PodRun, state: ContainerState, restarts: int) -> None:
        if "running" in state.state and state.restarts == restarts and not state.ready:
            state.ready = True
            self._kubelets.publish(pod, run)

    def _ended(self, pod: Obj, run: PodRun, state: ContainerState, restarts: int, code: int) -> None:
        if "running" in state.state and state.restarts == restarts and not run.stopping:
            begun = state.state["running"]["startedAt"]
            end = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": begun}
            self._terminated(pod, run, state, end)

    def _terminated(self, pod: Obj, run: PodRun, state: ContainerState, end: Obj) -> None:
        """Note how a container ended, and start it again where its pod's policy says so."""
        end |= {"finishedAt": timestamp(), "containerID": container_id(pod, state.name, state.restarts)}
        state.state, state.ready = {"terminated": end}, False
        policy = dig(pod, "spec", "restartPolicy", default="Always")
        pod = self._kubelets.publish(pod, run)
        if policy == "Always" or (policy == "OnFailure" and end["exitCode"]):
            self._back_off(pod, run, state, end)
        elif is_finished(pod):
            self._kubelets.end(pod, run)

    def _back_off(self, pod: Obj, run: PodRun, state: ContainerState, end: Obj) -> None:
        """Wait before a container is started again, twice as long each time; the first restart is at once."""
        state.last = {"terminated": end}
        wait = 0.0
        if state.restarts:
            wait = min(MAX_BACKOFF, self._world.latencies.crash_backoff * 2 ** (state.restarts - 1))
            where = f"{name_of(pod)}_{pod['metadata']['namespace']}({run.uid})"
            text = f"back-off {int(wait)}s restarting failed container={state.name} pod={where}"
            state.state = {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
            pod = self._kubelets.publish(pod, run)
            self._event(pod, "BackOff", f"Back-off restarting failed container {state.name} in pod {where}")
        container = next(c for c in pod["spec"]["containers"] if c["name"] == state.name)
        self._kubelets.later(run, wait, self._restart, container)

    def _restart(self, pod: Obj, run: PodRun, container: Obj) -> None:
        run.containers[container["name"]].restarts += 1
        self._start(pod, run, container)

    def rebooted(self, run: PodRun) -> None:
        """Note that a reboot has ended every container: each will start again, one restart more."""
        for state in run.containers.values():
            if state.begun:
                end = {"exitCode": 255, "reason": "Unknown", "finishedAt": timestamp()}
                end["startedAt"] = dig(state.state, "running", "startedAt", default=run.began)
                state.last, state.restarts = {"terminated": end}, state.restarts + 1
            state.state, state.ready = {"waiting": {"reason": "ContainerCreating"}}, False
