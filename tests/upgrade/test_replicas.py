"""Replicas of services on hosts of one wave leave one host after the other, each while another one answers."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from shipway.gpu.chosen import VENDOR
from shipway.kube import drain as drains
from shipway.step import StepResult
from shipway.steps.upgrade import gpu_jobs
from tasks.context import Run
from tasks.waves import turn
from tests.retire.objects import Object, node, pod
from tests.upgrade.test_flow import a_run
from tests.upgrade.test_services import gpu_node, replica
from tests.upgrade.test_work import Api, codes

NOTE = "upgrade by Shipway"


class Cluster(Api):
    """Replicas whose owner makes another one as soon as one is evicted, which loads its model before it answers."""

    def __init__(self, *objects: Object, loading: int = 3) -> None:
        super().__init__(*objects)
        self.loading, self.left, self.looks = loading, list[str](), dict[str, int]()
        self.answering: list[int] = []

    @property
    def free(self) -> list[str]:
        """The open nodes that have a free GPU."""
        held = [one["spec"]["nodeName"] for one in self.objects if one["kind"] == "Pod"]
        return [
            one["metadata"]["name"]
            for one in self.objects
            if one["kind"] == "Node"
            and not one["spec"].get("unschedulable")
            and held.count(one["metadata"]["name"]) < int(one["status"]["allocatable"][VENDOR.resource])
        ]

    async def evict(self, _: object, one: Object) -> str:
        """Let it go, and its owner start another one where a GPU is free."""
        service = one["metadata"]["ownerReferences"][0]["uid"]
        self.objects.remove(one)
        self.left.append(f"{one['metadata']['name']} of {one['spec']['nodeName']}")
        same = [
            other
            for other in self.objects
            if other["kind"] == "Pod" and other["metadata"]["ownerReferences"][0]["uid"] == service
        ]
        self.answering.append(sum(other["status"]["conditions"][0]["status"] == "True" for other in same))
        place = next(iter(self.free), "")
        new = replica(f"{service}-{len(self.left)}", place, of=service, ready=False)
        if not place:
            new["status"] = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}
        self.objects.append(new)
        return ""

    def forget(self) -> None:
        """Let time go by: what has a GPU answers after some looks."""
        for one in self.objects:
            name = one["metadata"]["name"]
            if one["kind"] == "Pod" and one["spec"]["nodeName"]:
                self.looks[name] = self.looks.get(name, 0) + 1
                if self.looks[name] > self.loading:
                    one["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


async def emptied(monkeypatch: pytest.MonkeyPatch, run: Run, api: Cluster, *hosts: str) -> list[list[StepResult]]:
    """Return the results of emptying hosts of one wave at once."""

    async def kube() -> Any:
        return api

    monkeypatch.setattr(run, "kube", kube)
    monkeypatch.setattr(drains, "_evict", api.evict)
    monkeypatch.setattr(drains, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(gpu_jobs, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(turn, "BOUND_SECONDS", 0.01)
    return await asyncio.gather(*(turn.empty(run, "upgrade_worker", host, NOTE, begun=False) for host in hosts))


async def test_of_two_replicas_on_hosts_of_one_wave_one_answers_at_every_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = gpu_node("w1"), gpu_node("w2"), gpu_node("w3", 2)
    api = Cluster(*nodes, replica("a", "w1"), replica("b", "w2"))
    results = await emptied(monkeypatch, a_run(), api, "w1", "w2")
    assert [codes(one) for one in results] == [[], []]
    assert sorted(api.left) == ["a of w1", "b of w2"]
    assert api.answering == [1, 1]
    assert all(one["spec"]["unschedulable"] for one in nodes[:2])


async def test_one_free_gpu_is_given_to_one_host_of_a_wave_and_the_other_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = gpu_node("w1"), gpu_node("w2"), gpu_node("w3", 3)
    others = replica("a2", "w3"), replica("b2", "w3", of="other")
    api, run = Cluster(*nodes, replica("a", "w1"), replica("b", "w2", of="other"), *others), a_run(wait_minutes=1)
    ticks = itertools.count(0, 5)
    monkeypatch.setattr(gpu_jobs, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    results = await emptied(monkeypatch, run, api, "w1", "w2")
    assert sorted(codes(one) for one in results) == [[], ["SHW-795"]]
    assert len(api.left) == 1
    assert sum(bool(one["spec"].get("unschedulable")) for one in nodes) == 1


async def test_a_host_without_replicas_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run()
    api = Cluster(gpu_node("w1"), gpu_node("w2"), node("w3"), pod("web", "w1"))
    monkeypatch.setattr(Cluster, "evict", taken_away)
    async with run.waves.moving, asyncio.timeout(5):
        ((*_, last),) = await emptied(monkeypatch, run, api, "w1")
    assert (last.outcome, api.left) == ("changed", ["web"])


async def test_a_host_that_waits_for_another_one_too_long_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(wait_minutes=0)
    api = Cluster(gpu_node("w1"), gpu_node("w2"), gpu_node("w3", 2), replica("a", "w1"), replica("b", "w2"))
    async with run.waves.moving:
        (results,) = await emptied(monkeypatch, run, api, "w1")
    assert codes(results) == ["SHW-795"]
    assert (api.left, run.waves.whole) == ([], set())
    assert not api.objects[0]["spec"].get("unschedulable")


async def taken_away(api: Cluster, _: object, one: Object) -> str:
    api.objects.remove(one)
    api.left.append(one["metadata"]["name"])
    return ""


async def test_a_window_that_closes_while_another_host_is_emptied_leaves_the_next_one_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = a_run()
    api = Cluster(gpu_node("w1"), gpu_node("w2"), gpu_node("w3", 2), replica("a", "w1"), replica("b", "w2"))
    monkeypatch.setattr(turn, "closed_until", lambda _: "the window is closed" if api.left else "")
    results = await emptied(monkeypatch, run, api, "w1", "w2")
    assert sorted(codes(one) for one in results) == [[], ["SHW-798"]]
    assert len(api.left) == 1
