"""Why a pod does not run is reported by its containers' states and the event of the attempt that failed."""

from __future__ import annotations

from typing import Any

import pytest

from shipway.errors import PostconditionFailed
from shipway.gpu.links import find_broken_link
from shipway.gpu.seen import Evidence, HostGpuFacts, NodeSeen, PodSeen
from shipway.kube.pod_states import events_about, find_known, find_trouble
from shipway.steps.gpu.plugin import find_hopeless, start_anew
from shipway.steps.kubernetes.nodes import WorkloadRuns

# The event of a plugin's container on a host whose NVML does not load, as NVIDIA's runtime 1.20 refuses it; the newest
# events about the pod are the pull of the next attempt and the kubelet's back-off.
REFUSED = (
    "Failed: Error: failed to create containerd task: failed to create shim task: OCI runtime create failed: could not "
    "apply required modification to OCI specification: error modifying OCI spec: failed to initialize NVML: "
    "ERROR_LIBRARY_NOT_FOUND"
)
EVENTS = ["Scheduled: assigned", "Pulled: already present", REFUSED, "BackOff: Back-off restarting", "Pulled: present"]


def pod(*containers: dict[str, Any], phase: str = "Running", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "plugin-x", "namespace": "kube-system"},
        "spec": {"nodeName": "gpu1"},
        "status": {"phase": phase, "containerStatuses": list(containers), **status},
    }


def waiting(reason: str, message: str = "", *, restarts: int = 0, last: dict[str, Any] | None = None) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"state": state, "restartCount": restarts, "ready": False, "lastState": {"terminated": last} if last else {}}


RUNS = {"state": {"running": {}}, "ready": True, "restartCount": 0}
LOOP = waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container", restarts=4)


@pytest.mark.parametrize(
    ("seen", "events", "heard"),
    [
        (pod(RUNS), EVENTS, ""),
        (pod({**RUNS, "restartCount": 7}), EVENTS, ""),  # it came up in the end: what was before is over
        (pod(waiting("ErrImagePull", "not found")), ["Failed: x"], "ErrImagePull: not found"),
        (pod(LOOP), EVENTS, f"CrashLoopBackOff (4 restarts): {REFUSED}"),
        (pod(waiting("RunContainerError")), EVENTS, f"RunContainerError: {REFUSED}"),
        (
            pod(waiting("CrashLoopBackOff", "back-off", restarts=2, last={"exitCode": 1, "reason": "Error"})),
            ["BackOff: y"],
            "CrashLoopBackOff (2 restarts, exit code 1): Error",
        ),
        (
            pod(
                {
                    "state": {"running": {}},
                    "ready": False,
                    "restartCount": 3,
                    "lastState": {"terminated": {"exitCode": 2}},
                }
            ),
            [],
            "Restarting (3 restarts, exit code 2)",
        ),
        (pod({"state": {"running": {}}, "ready": False, "restartCount": 0}), ["Unhealthy: probe"], ""),
        (pod(waiting("ContainerCreating"), phase="Pending"), ["Scheduled: y", "FailedMount: z"], "FailedMount: z"),
        (pod(waiting("ContainerCreating"), phase="Pending"), ["Scheduled: y"], ""),
        (pod({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, phase="Succeeded"), [], ""),
        (pod({"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}, phase="Failed"), [], "Error"),
        (
            pod(
                initContainerStatuses=[
                    waiting("CrashLoopBackOff", restarts=1, last={"exitCode": 9, "message": "no disk"})
                ]
            ),
            [],
            "CrashLoopBackOff (1 restarts, exit code 9): no disk",
        ),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}], phase="Pending"),
            [],
            "FailedScheduling: 0/3 nodes",
        ),
        (
            pod(phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed"),
            [],
            "UnexpectedAdmissionError: Allocate failed",
        ),
        ({"status": {}}, [], ""),
    ],
)
def test_the_cause_is_reported_and_not_the_newest_event(seen: dict[str, Any], events: list[str], heard: str) -> None:
    assert find_trouble(seen, events) == heard


def test_a_known_failure_is_known_at_once_and_one_that_may_pass_is_not() -> None:
    known = find_known(pod(LOOP), EVENTS)
    assert known is not None
    assert known.code == "SHW-614"
    assert find_known(pod(waiting("ContainerCreating"), phase="Pending"), ["Scheduled: y"]) is None
    assert find_known(pod(RUNS), []) is None


def event(when: str, message: str, **about: str) -> dict[str, Any]:
    return {
        "involvedObject": {"name": "plugin-x", **about},
        "lastTimestamp": when,
        "reason": "Failed",
        "message": message,
    }


def test_what_was_wrong_before_a_pods_containers_last_started_is_over() -> None:
    """A handler that had been missing an hour ago was reported as the cause of a pod that was only being replaced."""
    early, late = "2026-01-01T10:00:00Z", "2026-01-01T12:00:00Z"
    events = [event(late, "new"), event(early, "old"), event(early, "other", name="else"), event(late, "uid", uid="2")]
    meta = {"name": "plugin-x", "namespace": "kube-system", "uid": "1"}
    started = {"startedAt": "2026-01-01T11:00:00Z"}

    def about(*entries: dict[str, Any]) -> list[str]:
        return events_about({"metadata": meta, "status": {"containerStatuses": list(entries)}}, events)

    never = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    assert about({"state": {"running": started}}) == ["Failed: new"]
    assert about({"state": {"terminated": started}}) == ["Failed: new"]
    assert about({**never, "lastState": {"terminated": started}}) == ["Failed: new"]
    assert about() == about(never) == about({"state": {"running": started}}, never) == ["Failed: old", "Failed: new"]


async def test_a_pod_that_is_being_deleted_keeps_nobody_waiting() -> None:
    ending = pod(LOOP)
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T10:00:00Z"
    assert await find_hopeless(Api(1, ending)) == {}  # type: ignore[arg-type]
    seen = await WorkloadRuns("DaemonSet", "plugin", "kube-system").check(Api(1, ending))  # type: ignore[arg-type]
    assert seen is not None
    assert seen.have == "0 of 1 ready"


class Api:
    """An API with one DaemonSet and its pods."""

    name = "cluster"

    def __init__(self, wanted: int, *pods: dict[str, Any]) -> None:
        self.wanted, self.pods = wanted, pods

    async def get(self, *_: str) -> dict[str, Any]:
        """Return the DaemonSet."""
        status = {"desiredNumberScheduled": self.wanted, "updatedNumberScheduled": self.wanted, "numberReady": 0}
        ready = sum(any(c.get("type") == "Ready" for c in p["status"].get("conditions", ())) for p in self.pods)
        return {
            "kind": "DaemonSet",
            "metadata": {},
            "spec": {"selector": {"matchLabels": {}}},
            "status": {**status, "numberReady": ready},
        }

    async def list_(self, *_: str, **__: str) -> list[dict[str, Any]]:
        """Return the pods."""
        return list(self.pods)

    async def events_of(self, *_: str) -> list[str]:
        """Return the events about any of them."""
        return EVENTS


STARTS = pod(waiting("ContainerCreating"), phase="Pending")


async def test_a_workload_that_can_never_run_ends_its_wait_in_seconds() -> None:
    with pytest.raises(PostconditionFailed, match="NVML") as raised:
        await WorkloadRuns("DaemonSet", "plugin", "kube-system").check(Api(1, pod(LOOP)))  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.host, raised.value.may_retry) == ("SHW-614", "gpu1", False)
    assert "ERROR_LIBRARY_NOT_FOUND" in raised.value.message


async def test_one_broken_node_does_not_end_the_wait_for_those_that_still_start() -> None:
    seen = await WorkloadRuns("DaemonSet", "plugin", "kube-system").check(Api(3, pod(LOOP), STARTS))  # type: ignore[arg-type]
    assert seen is not None
    assert "0 of 3 ready; plugin-x: CrashLoopBackOff" in str(seen.have)


async def test_the_nodes_on_which_the_plugin_can_never_run_are_named() -> None:
    lost = await find_hopeless(Api(1, pod(LOOP)))  # type: ignore[arg-type]
    assert {name: error.code for name, error in lost.items()} == {"gpu1": "SHW-614"}


async def test_only_pods_that_wait_after_a_known_failure_are_started_anew() -> None:
    """On a host whose driver was mended the kubelet's back-off says what was wrong for five minutes more."""
    deleted: list[str] = []

    class Deleting(Api):
        async def delete(self, _api: str, _kind: str, name: str, _namespace: str) -> None:
            deleted.append(name)

    assert await start_anew(Deleting(1, pod(LOOP))) == deleted == ["plugin-x"]  # type: ignore[arg-type]
    well = pod({"state": {"running": {}}, "ready": True}, conditions=[{"type": "Ready", "status": "True"}])
    assert await start_anew(Deleting(1, well)) == []  # type: ignore[arg-type]


def test_nvml_that_does_not_load_is_the_drivers_fault_and_no_sick_gpu() -> None:
    """Phase Running beside a crash loop was trusted: "2 of 2 GPUs are unhealthy"."""
    plugin = PodSeen(
        "plugin-x", "gpu1", "Running", why=f"CrashLoopBackOff (4 restarts): {REFUSED}", events=tuple(EVENTS)
    )
    node = NodeSeen("gpu1", 2, 0, 2, host=HostGpuFacts(2, 2, toolkit=True), plugin=plugin)
    link = find_broken_link(Evidence("runtime_class", (node,), handler="nvidia"))
    assert (link.name, link.code) == ("driver", "SHW-614"), "by the driver's own words"
    assert "ERROR_LIBRARY_NOT_FOUND" in link.why
