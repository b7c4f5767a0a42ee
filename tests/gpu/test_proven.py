"""A GPU that a plugin only calls healthy does not count: what was proven holds for the container that ran then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from lab.simulated.kube.hosts import SimpleHost
from shipway.converge import converge, wait_until
from shipway.errors import PostconditionFailed
from shipway.gpu.counts import GpusAllocatable
from shipway.gpu.proof import HostGpuFacts, prove
from shipway.gpu.proven import PROVEN, Mark, Record, read_record
from shipway.kube.client import Kube
from shipway.step import Impact
from shipway.steps.gpu.proven import GpusProvenAnew, GpusProvenLater
from tests.gpu.test_proof import EXPECTED, declared, furnished, hold_a_gpu
from tests.places.kube import Place, gpu_host, place

WELL = HostGpuFacts(pci=2, driver=2, toolkit=True, handler=True)
SICK = "I1128 05:04:23.6 1 server.go:290] 'nvidia.com/gpu' device marked unhealthy: GPU-00000002"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.SETTLE_SECONDS", 1.0)
    monkeypatch.setattr("shipway.gpu.proof.DECIDE_SECONDS", 2.0)


def hosts() -> list[SimpleHost]:
    return [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]


async def proven(made: Place) -> None:
    """Prove every GPU of the place."""
    proof = await prove(made.kube, made.cluster, EXPECTED, {"te2": WELL, "te3": WELL})
    assert (proof.outcome, proof.error) == ("ok", None)


async def records(made: Place) -> Mapping[str, Record | None]:
    made.kube.forget()
    nodes = await made.kube.list_("v1", "Node")
    return {node["metadata"]["name"]: read_record(node) for node in nodes}


async def start_plugin_anew(made: Place, node: str) -> None:
    """Delete the plugin's pod of a node, and wait until another one offers the GPUs."""
    found = await made.kube.list_("v1", "Pod", "kube-system", labels="name=nvidia-device-plugin-ds")
    (old,) = (pod["metadata"] for pod in found if pod["spec"].get("nodeName") == node)
    await made.kube.delete("v1", "Pod", old["name"], "kube-system", grace=0)
    async with asyncio.timeout(30):
        while True:
            made.kube.forget()
            pods = await made.kube.list_("v1", "Pod", "kube-system", labels="name=nvidia-device-plugin-ds")
            here = [pod for pod in pods if pod["spec"].get("nodeName") == node and pod["metadata"]["uid"] != old["uid"]]
            if any((pod.get("status") or {}).get("containerStatuses", [{}])[0].get("containerID") for pod in here):
                break
            await asyncio.sleep(0.05)
    await wait_until(GpusAllocatable(EXPECTED), made.kube, seconds=30, every=0.05)


async def test_a_plugin_that_was_started_anew_is_found_and_its_gpus_are_proven_again() -> None:
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        step = GpusProvenAnew(made.cluster, EXPECTED)
        assert await step.check(made.kube) is None  # no proof has written anything: there is nothing to hold against it
        await proven(made)
        before = await records(made)
        assert before["te1"] is None
        assert before["te2"]
        assert before["te2"].devices == {uuid for uuid, _ in gpu_host(2, 2).gpus}
        assert await step.check(made.kube) is None
        await start_plugin_anew(made, "te2")
        drift = await step.check(made.kube)
        assert drift
        assert drift.have.startswith(
            "te2: 0 of 2 GPUs proven since its plugin was started anew (the last proof was at 20"
        )
        (looked,) = await converge([step], made.kube, Impact.FILES)
        assert (looked.outcome, looked.impact) == ("drifted", Impact.START)
        (done,) = await converge([step], made.kube, Impact.SERVICE)
        assert (done.outcome, done.error) == ("changed", None)
        after = await records(made)
        assert after["te2"]
        assert after["te2"].mark != before["te2"].mark
        assert after["te3"] == before["te3"]  # the proof was of te2 alone


async def test_gpus_at_work_are_told_of_and_never_taken() -> None:
    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        await proven(made)
        await start_plugin_anew(made, "te2")
        await start_plugin_anew(made, "te3")
        await hold_a_gpu(made, "training")
        at_work, step = GpusProvenLater(EXPECTED), GpusProvenAnew(made.cluster, EXPECTED)
        made.kube.forget()
        pod = await made.kube.get("v1", "Pod", "training", "default")
        assert pod
        busy = pod["spec"]["nodeName"]
        kept = await at_work.check(made.kube)
        assert kept
        assert kept.have.startswith(f"{busy}: 0 of 2 GPUs proven since its plugin was started anew")
        assert kept.have.endswith("; pods hold 1 of them")
        (done,) = await converge([step], made.kube, Impact.SERVICE)
        assert done.outcome == "changed"
        made.kube.forget()
        assert await at_work.check(made.kube)
        # A proof of all takes what is free; what it saw before holds, and what it sees once the pod has ended is added.
        proof = await prove(made.kube, made.cluster, EXPECTED, {"te2": WELL, "te3": WELL})
        assert proof.verified == 3
        await made.kube.delete("v1", "Pod", "training", "default", grace=0)
        await proven(made)
        made.kube.forget()
        assert await at_work.check(made.kube) is None
        assert await step.check(made.kube) is None


async def test_a_proof_that_fails_leaves_nothing_of_an_earlier_one() -> None:
    made_of = hosts()
    async with place(hosts=made_of, cluster=declared(verify_seconds=10)) as made:
        await furnished(made)
        await proven(made)
        made_of[2].runtime_handlers.discard("nvidia")
        made.simulated.host_changed("te3")
        assert (await prove(made.kube, made.cluster, EXPECTED, {"te2": WELL, "te3": WELL})).outcome == "failed"
        found = await records(made)
        assert found["te2"]
        assert found["te3"]
        assert (len(found["te2"].devices), found["te3"].devices) == (2, frozenset())
        drift = await GpusProvenAnew(made.cluster, EXPECTED).check(made.kube)
        assert drift
        assert drift.have.startswith("te3: 0 of 2 GPUs proven since its plugin started")
        (done,) = await converge([GpusProvenAnew(made.cluster, EXPECTED)], made.kube, Impact.SERVICE)
        assert done.outcome == "failed"
        assert isinstance(done.error, PostconditionFailed)


async def test_a_gpu_that_was_called_sick_and_is_offered_again_is_not_taken_for_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logs = Kube.logs

    async def told(self: Kube, namespace: str, pod: str, **more: Any) -> str:
        said = await logs(self, namespace, pod, **more)
        return f"{said}\n{SICK}\n" if namespace == "kube-system" else said

    async with place(hosts=hosts(), cluster=declared(compute="off")) as made:
        await furnished(made)
        await proven(made)
        with monkeypatch.context() as patched:
            patched.setattr(Kube, "logs", told)
            drift = await GpusProvenAnew(made.cluster, EXPECTED).check(made.kube)
            assert drift
            assert "te2: 0 of 2 GPUs proven since its plugin called one unhealthy" in drift.have
            await proven(made)
            made.kube.forget()
            assert await GpusProvenAnew(made.cluster, EXPECTED).check(made.kube) is None
        made.kube.forget()
        assert (
            await GpusProvenAnew(made.cluster, EXPECTED).check(made.kube) is None
        )  # a log that was cut is nothing new


@pytest.mark.parametrize(
    ("then", "now", "holds"),
    [
        (Mark("a"), Mark("a"), True),
        (Mark("a"), Mark("b"), False),
        (Mark("a"), Mark(""), False),
        (Mark("a"), Mark("a", "x"), False),
        (Mark("a", "x"), Mark("a", "x"), True),
        (Mark("a", "x"), Mark("a"), True),
        (Mark("a", "x"), Mark("a", "y"), False),
    ],
)
def test_a_mark_holds_for_its_container_and_what_that_has_said(then: Mark, now: Mark, *, holds: bool) -> None:
    assert then.holds(now) == holds


@pytest.mark.parametrize("text", ["", "{", "[]", '{"container": 1}', '{"container": "a", "sick": "", "devices": 3}'])
def test_an_annotation_that_cannot_be_read_is_none(text: str) -> None:
    assert read_record({"metadata": {"annotations": {PROVEN: text}}}) is None
    whole = json.dumps({"container": "a", "sick": "", "devices": ["x"], "at": "t"})
    assert read_record({"metadata": {"annotations": {PROVEN: whole}}}) == Record(Mark("a"), frozenset("x"), "t")
