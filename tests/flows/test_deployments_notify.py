"""Notifications: a webhook hears, through a real server, of what did not end well and of nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.states import Completed, Failed, Paused

from deployments import automations
from flows.prefect_api import local as local_api
from tests.places.prefect import api_in
from tests.places.webhook import Heard, webhook


@pytest.fixture
def heard() -> Iterator[Heard]:
    with webhook() as heard:
        yield heard


@pytest.mark.long
def test_a_webhook_hears_of_what_did_not_end_well_of_what_asks_and_of_nothing_else(
    heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(local_api.TUNED, "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED", "true")
    secret = tmp_path / "url"
    secret.write_text(heard.url + "\n", encoding="utf-8")

    async def ends(flow_name: str, *states: Any) -> None:
        async with get_client() as client:
            flow_id = await client.create_flow_from_name(flow_name)
            for state in states:
                made = await client._client.post(
                    "/flow_runs/",
                    json={"flow_id": str(flow_id), "name": f"{flow_name} te", "state": {"type": "PENDING"}},
                )
                await client.set_flow_run_state(made.json()["id"], state, force=True)

    def printed() -> list[str]:
        return capsys.readouterr().out.split("\n")[:-1]

    names = [notice.name for notice in automations.NOTICES]
    with api_in(tmp_path / "home"):
        assert automations.main(["--block", "webhook/shipway"]) == 1
        assert "no block webhook/shipway" in capsys.readouterr().err
        assert automations.main(["--webhook-url-file", str(secret)]) == 0
        assert printed() == [f"{name}: created" for name in names]
        assert automations.main([]) == 0
        assert printed() == [f"{name}: as wanted" for name in names]
        monkeypatch.setattr(automations, "PAYLOAD", automations.PAYLOAD.replace('{"text"', '{"by": "test", "text"'))
        assert automations.main([]) == 0
        assert printed() == [f"{name}: updated" for name in names]

        asyncio.run(ends("bootstrap", Completed(message="ok: 3 hosts")))
        asyncio.run(ends("other", Failed(name="Partial", message="no business of ours")))
        asyncio.run(ends("bootstrap", Failed(name="Partial", message='te2: said "no"\n{"x": 1}')))
        asyncio.run(ends("drift-repair", Failed(name="Drifted", message="2 drifted"), Paused()))
        asyncio.run(ends("bootstrap", Paused()))
        heard.wait(3)
    by_name = {one["automation"]: one for one in heard.got}
    assert len(heard.got) == 3
    partial, asks, drifted = (by_name[name] for name in names)
    assert partial["outcome"] == "Partial"
    assert partial["text"] == 'bootstrap is Partial: te2: said "no"\n{"x": 1}'
    assert partial["flow_run"] == "bootstrap te"
    assert partial["by"] == "test"
    assert asks["text"] == "drift-repair is Paused: drift-repair te"
    assert drifted["text"] == "drift-repair is Drifted: 2 drifted"
