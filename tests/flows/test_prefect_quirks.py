"""What tasks/prefect_quirks.py works around: each test fails where Prefect changes, or where the workaround is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import State, flow, get_client, task
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed

from flows.running import as_states
from shipway.errors import Refused
from tasks import prefect_quirks
from tasks.prefect_quirks import name_or_typed, tag_run, wait_for_server
from tasks.run_stage import stage_task
from tasks.table import STAGES

pytestmark = [
    pytest.mark.xdist_group("prefect"),
    pytest.mark.usefixtures("prefect_place"),
    # Prefect's clients leave their sockets to the garbage collector, which comes by in whatever test is next.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NOWHERE = "http://127.0.0.1:9/api"  # the port "discard", where nothing listens


@pytest.mark.parametrize("stage", STAGES.complete())
def test_no_stage_has_a_tag_for_which_prefect_would_ask_its_server(stage: str) -> None:
    assert stage_task(stage, 1.0).tags == set()


def test_prefect_asks_its_server_for_a_slot_for_every_tag_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server that restarts would fail: Prefect asks once per tag, and does not ask again."""
    asked: list[list[str]] = []

    @asynccontextmanager
    async def slots(*_: object, names: list[str], **__: object) -> AsyncIterator[None]:
        asked.append(names)
        yield

    monkeypatch.setattr("prefect.task_engine._aconcurrency", slots)

    @task(persist_result=False)
    async def work() -> str:
        return "done"

    @flow(persist_result=False)
    async def both() -> None:
        await work()
        await work.with_options(tags=["stage"])()

    asyncio.run(both())
    assert asked == [[], ["tag:stage"]]


def test_a_server_that_is_away_is_waited_for_and_reported() -> None:
    async def asked() -> tuple[bool, bool]:
        here = await wait_for_server(30)
        with temporary_settings({PREFECT_API_URL: NOWHERE}):
            return here, await wait_for_server(0.1)

    assert asyncio.run(asked()) == (True, False)


def test_a_run_has_its_own_tags_and_hands_none_down() -> None:
    seen: list[set[str]] = []

    @task(persist_result=False)
    async def work() -> None:
        from prefect.context import TagsContext  # noqa: PLC0415 - what a task would be given

        seen.append(set(TagsContext.get().current_tags))

    @flow(persist_result=False)
    async def tagged() -> UUID:
        run = UUID(flow_run.id)
        await tag_run(run, ("cluster:te",))
        await tag_run(run, ("mode:plan",))
        await work()
        return run

    async def read(run: UUID) -> list[str]:
        async with get_client() as client:
            return list((await client.read_flow_run(run)).tags)

    assert asyncio.run(read(asyncio.run(tagged()))) == ["cluster:te", "mode:plan"]
    assert seen == [set()]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [("before the move", True), ("Nightly", True), ("bootstrap te", True), ("nightly-check", True), ("", False)],
)
def test_a_name_that_a_person_typed_is_kept(typed: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    monkeypatch.setattr(prefect_quirks, "flow_run", type("Run", (), {"name": typed}))
    assert name_or_typed("bootstrap te") == (typed if kept else "bootstrap te")


def test_every_name_that_prefect_draws_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.utilities.names import generate_slug  # noqa: PLC0415 - what is held against

    for _ in range(500):
        monkeypatch.setattr(prefect_quirks, "flow_run", type("Run", (), {"name": generate_slug(2)}))
        assert name_or_typed("bootstrap te") == "bootstrap te"


@pytest.mark.parametrize("drawn", ["delta2-uxal-b", "alpha-canis-majoris", "mu512-comae-berenices-a", "omega-sirius"])
def test_every_name_that_the_form_draws_is_replaced(drawn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_quirks, "flow_run", type("Run", (), {"name": drawn}))
    assert name_or_typed("bootstrap te") == "bootstrap te"


def test_a_refusal_is_a_state_of_its_own_with_one_sentence() -> None:
    @flow(persist_result=False)
    @as_states
    async def refusing(cluster_file: str) -> State[Any]:
        if cluster_file:
            raise Refused("two hosts have one address", code="SHW-120", fix="Correct it.")
        return Completed()

    state: State[Any] = asyncio.run(refusing("te.yaml", return_state=True))
    assert (state.name, state.message) == ("Refused", "two hosts have one address [SHW-120] Next: Correct it.")
    assert isinstance(asyncio.run(state.aresult(raise_on_failure=False)), Refused)


def test_a_client_that_never_reached_its_server_does_not_try_again() -> None:
    """Why a subflow is begun only once the server answers."""

    async def ask() -> None:
        with temporary_settings({PREFECT_API_URL: NOWHERE}):
            async with get_client() as client:
                await client.read_flow_runs(limit=1)

    with pytest.raises(httpx.ConnectError):
        asyncio.run(asyncio.wait_for(ask(), 30))
