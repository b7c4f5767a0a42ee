"""Reads of the API that are shared: few requests however many look, and never an answer from before a change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from shipway.converge import converge, wait_until
from shipway.errors import ApiUnavailable
from shipway.kube.calls import Calls
from shipway.kube.client import Kube
from shipway.kube.reads import JSON
from shipway.step import Check, Impact
from shipway.steps.kubernetes.nodes import NodeLabels, NodeRegistered

KINDS = {"resources": [{"name": "nodes", "kind": "Node", "namespaced": False}]}
HOSTS = 300


class Paged(Calls):
    """An API of many nodes in two pages, with a new token a list; each answer takes a while."""

    name = "cluster"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.labels: dict[str, str] = {}
        self.at_once = self.most = self.failures = 0
        self.lists = asyncio.Event()

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        media: str = JSON,
        seconds: float = 30,
    ) -> tuple[int, str]:
        """Answer with what is so when the request comes."""
        del body, media, seconds
        self.asked.append(f"{method} {path}")
        number, labels = len(self.asked), dict(self.labels)
        if "nodes" in path:
            self.lists.set()
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.01)
        self.at_once -= 1
        if self.failures:
            self.failures -= 1
            raise ApiUnavailable("the connection broke")
        if "nodes" not in path:
            return 200, json.dumps(KINDS)
        first = "continue" not in path
        half = range(HOSTS // 2) if first else range(HOSTS // 2, HOSTS)
        items = [{"metadata": {"name": f"te{at}", "labels": labels}} for at in half]
        return 200, json.dumps({"metadata": {"continue": f"t{number}" if first else ""}, "items": items})


async def looked(kube: Paged, host: str) -> str:
    """Look at one node as its stage does: forgetting what was known."""
    kube.forget()
    steps: list[Check[Kube]] = [NodeLabels(host, {"of": "shipway"})]
    results = await converge(steps, cast("Kube", kube), Impact.NOTHING)
    return results[0].outcome


async def test_waits_of_many_hosts_at_once_share_a_few_answers() -> None:
    kube = Paged()
    await kube.resource("v1", "Node")
    waits = (wait_until(NodeRegistered(f"te{at}"), cast("Kube", kube), seconds=60) for at in range(HOSTS))
    await asyncio.gather(*waits)
    assert len(kube.asked) <= 1 + 2 * 3, kube.asked  # the kinds, then lists of two pages
    assert kube.most <= 2


async def test_a_page_is_parsed_once_though_all_forget_meanwhile() -> None:
    kube = Paged()
    await kube.resource("v1", "Node")

    async def node() -> int:
        kube.forget()
        return id((await kube.list_("v1", "Node"))[-1])

    assert len(set(await asyncio.gather(*(node() for _ in range(50))))) == 1


async def test_a_look_after_a_change_never_takes_an_answer_from_before_it() -> None:
    kube = Paged()
    await kube.resource("v1", "Node")
    early = asyncio.create_task(looked(kube, "te1"))
    await kube.lists.wait()
    kube.labels = {"of": "shipway"}  # the first list is on its way, with what was before
    late = [asyncio.create_task(looked(kube, f"te{at}")) for at in range(5)]
    assert await early == "drifted"
    assert set(await asyncio.gather(*late)) == {"ok"}


async def test_a_read_that_failed_is_reported_to_those_who_waited_for_it_and_to_nobody_else() -> None:
    kube = Paged()
    await kube.resource("v1", "Node")
    kube.failures = 1
    first = asyncio.create_task(kube.list_("v1", "Node"))
    await kube.lists.wait()
    kube.forget()
    assert len(await kube.list_("v1", "Node")) == HOSTS
    with pytest.raises(ApiUnavailable):
        await first


async def test_reads_that_are_cancelled_in_their_turn_keep_nobody_from_reading() -> None:
    kube = Paged()
    await kube.resource("v1", "Node")
    waiting = []
    for _ in range(3):
        kube.forget()
        waiting.append(asyncio.create_task(kube.list_("v1", "Node")))
        await asyncio.sleep(0)
    await kube.stop_reading()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended)
    assert len(await kube.list_("v1", "Node")) == HOSTS
