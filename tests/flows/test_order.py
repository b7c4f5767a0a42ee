"""The order of a bootstrap with stages that do nothing: what runs side by side, and how many joins at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from prefect.states import Completed

from flows import bootstrap
from shipway.cluster.profiles import profile_data, profile_names
from shipway.cluster_file import parse_cluster
from tasks.context import Run

WORKERS = 120
HEAD = "name: many\nprofile: {profile}\nkubernetes: {{pod_network: 10.0.0.0/14{more}}}\nhosts:\n"
HOSTS = "".join(f"- {{name: h{number}, address: 192.0.2.{number}}}\n" for number in range(WORKERS + 1))


class Admitted:
    """Every host may be changed at once."""

    async def of(self, _: str) -> Any:
        """Return the state of a host's preflight."""
        return Completed()


async def most_at_once(monkeypatch: pytest.MonkeyPatch, text: str) -> Counter[str]:
    """Run every worker's stages; return how many of each stage were under way at one time at most."""
    under_way, most = Counter[str](), Counter[str]()

    async def on(stage: str, _host: str, *_after: Any) -> Any:
        under_way[stage] += 1
        most[stage] = max(most[stage], under_way[stage])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        under_way[stage] -= 1
        return Completed()

    monkeypatch.setattr(bootstrap, "on", on)
    run = Run(parse_cluster(text), "bootstrap")
    admission: Any = Admitted()
    async with asyncio.TaskGroup() as together:
        ready = together.create_task(on("control_plane_ready", "cluster"))
        for host in run.hosts[1:]:
            together.create_task(bootstrap.worker(run, host, admission, ready))
    assert len(run.ready) == WORKERS
    return most


@pytest.mark.parametrize(("more", "limit"), [("", 50), (", joins_at_once: 7", 7)])
async def test_joins_are_limited_and_preparation_is_not(monkeypatch: pytest.MonkeyPatch, more: str, limit: int) -> None:
    most = await most_at_once(monkeypatch, HEAD.format(profile="seed", more=more) + HOSTS)
    assert most["join_worker"] == limit
    assert most["prepare_system"] == WORKERS


@pytest.mark.parametrize("profile", profile_names())
def test_no_profile_lets_other_than_fifty_join_at_once(profile: str) -> None:
    assert "joins_at_once" not in profile_data(profile).get("kubernetes", {})
