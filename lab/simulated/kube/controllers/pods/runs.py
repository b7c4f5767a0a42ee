"""A pod on its kubelet: the state of its containers, and the status that is written from it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.simulated.kube.hosts import SimpleHost
from lab.simulated.kube.objects import Obj, dig, set_condition, timestamp, with_status
from lab.simulated.kube.pod_programs import Program
from lab.simulated.kube.store import Key


def container_id(pod: Obj, name: str, restarts: int) -> str:
    """Return a container's id, made from what it is."""
    return "containerd://" + hashlib.sha256(f"{pod['metadata']['uid']}/{name}/{restarts}".encode()).hexdigest()


@dataclass
class Run:
    """One run of one container: when it began, and what it does; a line of its log is there once its time has come."""

    program: Program
    factor: float  # wall seconds that stand for one simulated second
    clock: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    @property
    def passed(self) -> float:
        """Return the simulated seconds since it began."""
        return (asyncio.get_running_loop().time() - self.clock) / self.factor

    def lines(self) -> list[str]:
        """Return what has been written until now."""
        return [text for offset, text in self.program.lines if offset <= self.passed]

    def over(self) -> bool:
        """Say whether nothing more will be written."""
        return self.program.ends is not None and self.program.ends <= self.passed


@dataclass
class ContainerState:
    """One container's state as containerStatuses show it, and its latest run."""

    name: str
    image: str
    state: Obj = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    ready: bool = False
    restarts: int = 0
    last: Obj = field(default_factory=dict)
    begun: bool = False
    run: Run | None = None

    def shown(self, pod: Obj) -> Obj:
        """Return the entry of containerStatuses."""
        entry: Obj = {
            "name": self.name,
            "image": self.image,
            "imageID": f"{self.image.split('@')[0]}@sha256:{hashlib.sha256(self.image.encode()).hexdigest()}",
            "containerID": container_id(pod, self.name, self.restarts),
            "lastState": self.last,
            "ready": self.ready,
            "restartCount": self.restarts,
            "started": "running" in self.state,
            "state": self.state,
        }
        if not self.begun:
            entry |= {"imageID": ""}
            del entry["containerID"]
        return entry


@dataclass
class PodRun:
    """What a kubelet knows of one pod."""

    key: Key
    uid: str
    containers: dict[str, ContainerState]
    node: str
    address: str = ""
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    began: str = field(default_factory=timestamp)
    failure: tuple[str, str] | None = None  # reason and message of a pod that was refused
    stopping: bool = False
    missed: list[tuple[Callable[..., None], tuple[object, ...]]] = field(default_factory=list)

    def phase(self, restart_policy: str) -> str:
        """Return the pod's phase from its containers' states."""
        if self.failure:
            return "Failed"
        states = list(self.containers.values())
        ended = [state.state["terminated"]["exitCode"] for state in states if "terminated" in state.state]
        if len(ended) == len(states) and restart_policy != "Always":
            if all(code == 0 for code in ended):
                return "Succeeded"
            if restart_policy == "Never":
                return "Failed"
        return "Running" if any(state.begun for state in states) else "Pending"


def _conditions(conditions: list[Obj], run: PodRun, phase: str, minor: int) -> list[Obj]:
    ready = phase == "Running" and all(state.ready for state in run.containers.values())
    finished = phase in {"Succeeded", "Failed"}
    names = " ".join(state.name for state in run.containers.values() if not state.ready)
    conditions = set_condition(conditions, "Initialized", "True", "PodCompleted" if phase == "Succeeded" else "")
    for kind in ("Ready", "ContainersReady"):
        if ready:
            conditions = set_condition(conditions, kind, "True")
        elif phase == "Succeeded":
            conditions = set_condition(conditions, kind, "False", "PodCompleted")
        elif phase == "Failed":
            conditions = set_condition(conditions, kind, "False", "PodFailed")
        else:
            text = f"containers with unready status: [{names}]"
            conditions = set_condition(conditions, kind, "False", "ContainersNotReady", text)
    conditions = set_condition(conditions, "PodScheduled", "True")
    if minor >= 29:
        there = bool(run.address) and not finished
        conditions = set_condition(conditions, "PodReadyToStartContainers", "True" if there else "False")
    return conditions


def written(pod: Obj, run: PodRun, host: SimpleHost, minor: int) -> Obj:
    """Return a pod with the status that its kubelet would write now."""
    phase = run.phase(dig(pod, "spec", "restartPolicy", default="Always"))
    conditions = _conditions(dig(pod, "status", "conditions", default=[]), run, phase, minor)
    fields: Obj = {
        "phase": phase,
        "conditions": conditions,
        "hostIP": host.address,
        "startTime": run.began,
        "qosClass": "BestEffort" if not _asks(pod) else "Burstable",
        "containerStatuses": [state.shown(pod) for state in run.containers.values()],
    }
    if minor >= 28:
        fields["hostIPs"] = [{"ip": host.address}]
    if run.address:
        fields |= {"podIP": run.address, "podIPs": [{"ip": run.address}]}
    if run.failure:
        fields |= {"reason": run.failure[0], "message": run.failure[1]}
    return with_status(pod, **fields)


def _asks(pod: Obj) -> bool:
    return any(dig(c, "resources", part) for c in pod["spec"]["containers"] for part in ("requests", "limits"))
