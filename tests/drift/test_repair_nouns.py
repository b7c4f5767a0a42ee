"""The nouns of repair: window, history, drain, cordon; on the SIMULATED API where they need one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shipway.cluster.parts import Window
from shipway.cluster.window import next_opening, open_now
from shipway.errors import DeadlineExceeded, Refused
from shipway.kube.client import Object
from shipway.kube.drain import cordon, drain, find_left_cordoned, uncordon
from tasks.drift.history import History
from tests.places.kube import Place, cluster_of, gpu_host, place

SATURDAY = datetime(2026, 11, 28, 2, 30)  # noqa: DTZ001 - local time, as a window is
NAMES = ("te1", "te2", "te3")


@pytest.fixture
async def small() -> AsyncIterator[Place]:
    hosts = [gpu_host(1, 0), gpu_host(2, 1), gpu_host(3, 1)]
    async with place(hosts=hosts, cluster=cluster_of(NAMES), version="v1.20.2") as made:
        yield made


def deployment(replicas: int) -> Object:
    labels = {"app": "web"}
    unready = {"key": "node.kubernetes.io/not-ready", "operator": "Exists"}  # there is no pod network here
    spec = {"containers": [{"name": "c", "image": "registry.example/web:1"}], "tolerations": [unready]}
    template = {"metadata": {"labels": labels}, "spec": {**spec, "hostNetwork": True}}
    meta = {"name": "web", "namespace": "default"}
    body = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": body}


async def web(small: Place, *, on: str = "") -> list[Object]:
    pods = await small.kube.list_("v1", "Pod", "default", labels="app=web")
    return [pod for pod in pods if not on or pod["spec"].get("nodeName") == on]


async def running(small: Place, count: int) -> None:
    async with asyncio.timeout(20):
        while True:
            small.kube.forget()
            ready = [pod for pod in await web(small) if pod.get("status", {}).get("phase") == "Running"]
            if len(ready) >= count:
                return


@pytest.mark.parametrize(
    ("rules", "now", "is_open"),
    [
        ({"cron": "0 2 * * 6"}, SATURDAY, True),
        ({"cron": "0 2 * * 6"}, SATURDAY + timedelta(hours=2), False),
        ({"cron": "0 2 * * 6"}, SATURDAY - timedelta(minutes=31), False),
        ({"rrule": "FREQ=WEEKLY;BYDAY=SA;BYHOUR=2;BYMINUTE=0;BYSECOND=0"}, SATURDAY, True),
        ({"rrule": "FREQ=MONTHLY;BYDAY=1SU;BYHOUR=3;BYMINUTE=0;BYSECOND=0"}, SATURDAY, False),
    ],
)
def test_a_window_is_open_for_its_minutes(rules: dict[str, str], now: datetime, is_open: bool) -> None:  # noqa: FBT001
    assert open_now(Window(minutes=120, **rules), now) is is_open


def test_a_window_is_in_the_controllers_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        night = datetime(2026, 11, 27, 17, 30, tzinfo=UTC)  # 02:30 on Saturday in Tokyo
        assert open_now(Window(cron="0 2 * * 6", minutes=120), night)
        assert not open_now(Window(cron="0 2 * * 6", minutes=120), SATURDAY.replace(tzinfo=UTC))
        assert next_opening(Window(cron="0 2 * * 6"), night) == datetime(2026, 12, 5, 2, 0)  # noqa: DTZ001
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_next_opening_is_reported() -> None:
    assert next_opening(Window(cron="0 2 * * 6"), SATURDAY) == datetime(2026, 12, 5, 2, 0)  # noqa: DTZ001


def test_a_window_may_have_ended_for_good() -> None:
    assert next_opening(Window(rrule="FREQ=DAILY;UNTIL=20250601T000000"), SATURDAY) is None


def test_three_repairs_within_a_day_are_a_fight_and_the_file_stays_small(tmp_path: Path) -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    for hours in (30, 20, 10):
        History(tmp_path / "h.json").keep({"repaired": 1}, [("te1", "swap is off")], now - timedelta(hours=hours))
    assert History(tmp_path / "h.json").fights(now) == {}
    History(tmp_path / "h.json").keep({"repaired": 1}, [("te1", "swap is off")], now)
    assert History(tmp_path / "h.json").fights(now) == {("te1", "swap is off"): 3}
    history = History(tmp_path / "h.json")
    for _ in range(300):
        history.keep({}, [("te1", "x")] * 10, now)
    assert len(history.trend(1000)) == 200
    assert (tmp_path / "h.json").stat().st_size < 200_000


@pytest.mark.parametrize("text", ["", "[]", '{"passes": 1}', "\x00", '{"passes": [], "repairs": [["a"]]}'])
def test_a_history_that_cannot_be_read_begins_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "h.json").write_text(text, encoding="utf-8")
    assert History(tmp_path / "h.json").fights(datetime.now(UTC)) == {}


async def test_a_cordon_says_why_and_is_found_again(small: Place) -> None:
    await cordon(small.kube, "te2", "repair of containerd")
    small.kube.forget()
    assert (await find_left_cordoned(small.kube))["te2"].startswith("repair of containerd (since 20")
    await uncordon(small.kube, "te2")
    small.kube.forget()
    assert await find_left_cordoned(small.kube) == {}


async def test_somebody_elses_cordon_is_not_ours(small: Place) -> None:
    await small.kube.patch("v1", "Node", "te2", {"spec": {"unschedulable": True}})
    assert await find_left_cordoned(small.kube) == {}


async def test_a_drain_evicts_what_a_controller_starts_again(small: Place) -> None:
    await small.kube.apply(deployment(2))
    await running(small, 2)
    node = (await web(small))[0]["spec"]["nodeName"]
    names = {f"default/{pod['metadata']['name']}" for pod in await web(small, on=node)}
    await cordon(small.kube, node, "test")
    gone = await drain(small.kube, node, seconds=30)
    assert names <= set(gone)


async def test_a_budget_holds_a_drain_up_and_is_named(small: Place) -> None:
    await small.kube.apply(deployment(1))
    meta = {"name": "kept", "namespace": "default"}
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    await small.kube.apply({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec})
    await running(small, 1)
    said: list[str] = []
    with pytest.raises(DeadlineExceeded, match="The disruption budget kept needs 1 healthy pods and has 1 currently"):
        await drain(small.kube, (await web(small))[0]["spec"]["nodeName"], seconds=0.5, on_wait=said.append)
    assert said
    assert len(await web(small)) == 1


async def test_a_pod_without_an_owner_is_not_evicted(small: Place) -> None:
    spec = {"containers": [{"name": "c", "image": "registry.example/web:1"}], "nodeName": "te2", "hostNetwork": True}
    meta = {"name": "alone", "namespace": "default", "labels": {"app": "web"}}
    await small.kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    await running(small, 1)
    with pytest.raises(Refused, match="default/alone"):
        await drain(small.kube, "te2", seconds=5)
    assert len(await web(small, on="te2")) == 1
