"""A control plane that leaves: another one answers, and every worker asks past it before it stops."""

from __future__ import annotations

from typing import Any

import pytest

from shipway.facts.files import FileInfo, FileState
from shipway.step import Impact
from shipway.steps.system.api_proxy import CONFIG, OWN, proxy_config
from shipway.steps.system.names import HostsNamed
from shipway.steps.system.own_service import OwnEnabled, OwnGone, OwnUnitRead, enabled
from tasks.context import Run
from tasks.leading import lead_beside
from tasks.retire import work
from tests.ownership.test_leading import NAME, cluster, plane
from tests.places.facts import DEBIAN, KnownFacts, said
from tests.retire.joined_host import cluster as two_hosts
from tests.retire.test_may_go import Removing

THERE = FileInfo("0" * 64, "644", "root:root", 1)


@pytest.mark.parametrize(("ready", "lead", "there"), [("cp3", "cp3", True), ("cp1", "cp1", False), ("", "cp1", False)])
async def test_another_one_that_serves_answers_for_the_cluster(
    monkeypatch: pytest.MonkeyPatch,
    ready: str,
    lead: str,
    there: bool,  # noqa: FBT001 - a table
) -> None:
    class Answers(KnownFacts):
        async def read(self, *_: Any) -> Any:
            return said("ok" if self.name == ready else "")

    def session(name: str) -> Any:
        host = Answers({})
        host.name = name
        return host

    run = Run(cluster(), "remove")
    run.lead, run.seen.elsewhere = "cp1", tuple(plane(name) for name in ("cp1", "cp2", "cp3"))
    monkeypatch.setattr(run, "session", session)
    assert await lead_beside(run, "cp2") is True
    assert run.control.name == "cp1"
    assert await lead_beside(run, "cp1") is there
    assert run.control.name == lead


async def steps_past(run: Run, leaving: str, monkeypatch: pytest.MonkeyPatch, *, declared: bool) -> list[Any]:
    """Return the steps that a worker takes when a control plane leaves."""
    kept: list[Any] = []
    limits: list[Impact] = []

    async def recognise(_: Any) -> Any:
        return DEBIAN

    async def converge(steps: list[Any], _: Any, limit: Impact, __: Any) -> list[Any]:
        kept.extend(steps)
        limits.append(limit)
        return []

    class Place(KnownFacts):
        def forget(self) -> None:
            """Look anew."""

    monkeypatch.setattr(run, "session", lambda _: Place({}))
    monkeypatch.setattr(work, "recognise", recognise)
    monkeypatch.setattr(work, "converge", converge)
    run.retirement.host, run.retirement.declared = leaving, declared
    await work.leave_api(run, "leave_api", "w1")
    assert limits == [Impact.START, Impact.SERVICE], "on a host that nobody empties"
    return kept


async def test_a_workers_proxy_is_loaded_without_the_one_that_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(cluster(), "remove")
    steps = await steps_past(run, "cp1", monkeypatch, declared=True)
    (written,) = (step for step in steps if getattr(step, "path", "") == CONFIG and hasattr(step, "content"))
    assert "server cp1" not in written.content
    assert all(f"server {name} " in written.content for name in ("cp2", "cp3"))
    (named,) = (step for step in steps if isinstance(step, HostsNamed))
    assert named.planes == ("10.9.0.2", "10.9.0.3"), "without a proxy the name leads to none that leaves"
    assert "cp1" in named.entries, "a host of the file keeps its name: a bootstrap would write it again"
    assert not any(isinstance(step, OwnGone) for step in steps)
    assert "server cp1" in proxy_config(run.cluster), "the run's own cluster is as the file says"


async def test_with_one_control_plane_left_the_name_leads_to_it_and_the_proxy_goes_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(cluster(1), "remove")
    leaving = run.cluster.hosts[1].model_copy(update={"name": "cp2"})  # out of the file, found at its node's address
    run.cluster = run.cluster.model_copy(update={"hosts": (*run.cluster.hosts, leaving)})
    steps = await steps_past(run, "cp2", monkeypatch, declared=False)
    assert [type(step).__name__ for step in steps] == ["HostsNamed", "KubeProxyKnowsApi", "OwnGone"]
    assert (steps[0].api_name, steps[0].api_address) == (NAME, "10.9.0.1")
    assert sorted(steps[0].entries) == ["cp1", "w1"]


async def test_a_proxy_that_nobody_needs_is_stopped_without_letting_systemd_read_its_units_anew() -> None:
    host = KnownFacts({FileState(OWN.path): THERE})
    assert await OwnGone(OWN).check(host) is not None  # type: ignore[arg-type]
    await OwnGone(OWN).apply(host)  # type: ignore[arg-type]
    assert not any("daemon-reload" in line for line in host.done)
    assert any("disable" in line and "--no-reload" in line for line in host.done)
    assert await OwnGone(OWN).check(KnownFacts({})) is None  # type: ignore[arg-type]
    assert OwnGone.impact is Impact.SERVICE


async def nothing(*_: Any) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("declared", "number", "said_then"),
    [
        (True, 3, "`shipway replace FILE te2` lets another machine take its place"),
        (False, 3, "remove the others"),
        (False, 2, ""),
    ],
)
async def test_what_an_even_number_of_members_bears_is_told(
    monkeypatch: pytest.MonkeyPatch,
    declared: bool,  # noqa: FBT001 - a table
    number: int,
    said_then: str,
) -> None:
    run, lead = Run(two_hosts(), "remove"), Removing(number)
    monkeypatch.setattr(run, "session", lambda _: lead)
    run.retirement.host, run.retirement.declared, run.retirement.to_replace = "te2", declared, True
    monkeypatch.setattr(work, "by_api", nothing)
    (result,) = await work.leave_etcd(run, "leave_etcd", "cluster")
    assert (result.outcome, lead.done) == ("changed", ["2"])
    assert [f"etcd has 2 members now, and bears the loss of 0: {said_then}" in one for one in run.retirement.left] == (
        [True] if said_then else []
    )
    (again,) = await work.leave_etcd(run, "leave_etcd", "cluster")
    assert again.outcome == "ok"


async def test_beside_gpu_pods_a_proxy_is_made_to_start_with_the_host_and_systemd_reads_nothing_anew() -> None:
    host = KnownFacts({})
    assert await OwnEnabled(OWN).check(host) is not None  # type: ignore[arg-type]
    await OwnEnabled(OWN).apply(host)  # type: ignore[arg-type]
    assert [line for line in host.done if "reload" in line] == [
        "systemctl enable --quiet --no-reload shipway-api-proxy.service"
    ]
    assert await OwnEnabled(OWN).check(KnownFacts({enabled(OWN): said("enabled\n")})) is None  # type: ignore[arg-type]
    assert (OwnEnabled.impact, OwnUnitRead.impact) == (Impact.FILES, Impact.SERVICE)
