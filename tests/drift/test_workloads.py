"""A run holds the cluster, by its lease or its host's claim, before it changes anything; else it changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from flows import admission, bootstrap, drift_passes
from flows.drift_repair import _repair
from lab.simulated.lab import SimulatedLab
from shipway.cluster_file import load_cluster
from shipway.errors import ApiUnavailable, ConnectionLost, Refused
from shipway.kube.client import Kube
from shipway.locks import lease as cluster_lease
from shipway.locks.bare import UNIT
from shipway.locks.lease import NAME, NAMESPACE, holder
from shipway.step import Impact
from tasks import table as stages
from tasks.context import Run, open_run
from tasks.locking import lease, new_lease, still_alone
from tests.faults.left_over import left_over
from tests.faults.plain import Direct, Line, Pool, brought_up, installed, plain_on
from tests.faults.undisturbed import fresh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("workloads")]
ELSEWHERE = "ops@elsewhere pid 7, bootstrap of te"


class Place:
    """A lab that was bootstrapped, whose API can be away; what held it is kept whenever a stage begins."""

    def __init__(self, lab: SimulatedLab) -> None:
        self.lab, self.away, self.back_at = lab, False, ""
        self.began_under: dict[str, tuple[bool, str]] = {}
        self.late: dict[str, float] = {}  # seconds after which a stage begins

    def began(self, stage: str) -> None:
        """Keep whether te1 is claimed and who holds the lease; the API is back where it is said to be."""
        if stage == self.back_at:
            self.away = False
        self.began_under.setdefault(stage, (self.claimed, self.holder))

    @property
    def claimed(self) -> bool:
        """Say whether a run claims te1."""
        return UNIT in self.lab.hosts["te1"].operations

    @property
    def holder(self) -> str:
        """Return who holds the lease."""
        assert self.lab.link.cluster is not None
        found = self.lab.link.cluster.world.store.get("leases.coordination.k8s.io", NAMESPACE, NAME)
        return str(((found or {}).get("spec") or {}).get("holderIdentity") or "")

    def held_by(self, who: str) -> None:
        """Let somebody of another machine hold the lease."""
        assert self.lab.link.cluster is not None
        now, store = cluster_lease._now(), self.lab.link.cluster.world.store
        spec = {"holderIdentity": who, "acquireTime": now, "renewTime": now}
        found = store.get("leases.coordination.k8s.io", NAMESPACE, NAME)
        assert found is not None
        store.replace("leases.coordination.k8s.io", {**found, "spec": spec})

    def run(self, mode: Any = "bootstrap") -> Run:
        """Return a run on it."""
        return Run(load_cluster(self.lab.cluster_file), mode)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bootstrapped() -> AsyncIterator[SimulatedLab]:
    """Yield a lab that was bootstrapped once for all of these tests: each puts back what it changes of it."""
    with pytest.MonkeyPatch.context() as patch:
        installed(patch)
        async with fresh() as lab:
            assert (await brought_up(lab, Line())).outcome == "ok"
            patch.undo()
            yield lab


@pytest_asyncio.fixture(loop_scope="module")
async def working(bootstrapped: SimulatedLab, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """Yield a cluster that works."""
    installed(monkeypatch)
    Pool.lab, Pool.line = bootstrapped, Line()
    made, send = Place(bootstrapped), Kube.send

    async def on(stage: str, host: str, *after: Any) -> Any:
        if not any(state is None for state in after):
            await asyncio.sleep(made.late.get(stage, 0))
            made.began(stage)
        return await plain_on(stage, host, *after)

    for module in (bootstrap, admission, drift_passes):
        monkeypatch.setattr(module, "on", on)
    monkeypatch.setattr(stages, "GATE_SECONDS", 3.0)

    async def cut(kube: Kube, method: str, path: str, **more: Any) -> tuple[int, str]:
        if made.away:
            raise ApiUnavailable("no answer from the Kubernetes API")
        return await send(kube, method, path, **more)

    monkeypatch.setattr(Kube, "send", cut)
    yield made
    try:
        assert [line for line in left_over(bootstrapped) if ELSEWHERE not in line] == []
    finally:
        made.held_by("")
        units = bootstrapped.hosts["te1"].units
        units.enable(units.all["kubelet.service"])


def codes(report: Any) -> set[str]:
    return {error.code for error in report.errors}


async def test_a_control_plane_whose_api_is_away_is_repaired_under_the_claim_and_joined_under_the_lease(
    working: Place,
) -> None:
    working.away, working.back_at = True, "control_plane"
    report = await brought_up(working.lab, Line())
    assert report.outcome == "ok", report.errors
    assert working.began_under["prepare_system"] == (True, "")
    assert working.began_under["control_plane"] == (True, "")
    assert working.began_under["join_worker"][1].startswith(holder("bootstrap of"))


async def test_nothing_is_joined_where_another_run_turns_out_to_hold_the_lease(working: Place) -> None:
    working.held_by(ELSEWHERE)
    working.away, working.back_at = True, "control_plane"
    report = await brought_up(working.lab, Line())
    assert "SHW-102" in codes(report)
    assert not {"join_worker", "pod_network", "node_settings"} & set(working.began_under)
    assert working.holder == ELSEWHERE


async def test_two_runs_do_not_repair_one_control_plane_whose_api_is_away(working: Place) -> None:
    working.away, first, second = True, working.run(), working.run("drift")
    second.allow = Impact.SERVICE
    async with open_run(first):
        assert await lease(first) is None
        assert (first.locks.leased, working.claimed) == (False, True)
        working.lab.hosts["te1"].units.all[UNIT].description = ELSEWHERE  # as if it came from another machine
        async with open_run(second):
            refused = await lease(second)
            assert isinstance(refused, Refused)
            assert ELSEWHERE in refused.message
        assert working.claimed
        working.lab.hosts["te1"].units.all[UNIT].description = holder(f"bootstrap of {first.cluster.name}")


async def test_the_lease_is_tried_again_until_it_is_held(working: Place) -> None:
    working.away, run = True, working.run()
    async with open_run(run):
        assert await lease(run) is None
        with pytest.raises(ApiUnavailable):
            await new_lease(run)
        assert not run.locks.leased
        working.away = False
        await new_lease(run)
        assert run.locks.leased
        assert working.holder == holder(f"bootstrap of {run.cluster.name}")
    assert working.holder == ""


async def test_a_run_that_can_have_neither_lock_changes_nothing(
    working: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Direct.script

    async def claims_nothing(shell: Direct, text: str, **more: Any) -> tuple[str, str]:
        if "systemd-run" in text:
            raise ConnectionLost("the connection broke while a command ran", host="te1")
        return await script(shell, text, **more)

    monkeypatch.setattr(Direct, "script", claims_nothing)
    working.away = True
    report = await brought_up(working.lab, Line())
    assert report.outcome == "refused"
    assert codes(report) == {"SHW-202"}
    assert set(working.began_under) <= {"preflight", "control_plane_ready"}

    def findings(run: Run) -> set[str]:
        return {one.action for some in run.drift.findings.values() for one in some}

    await drifted(working)
    run = working.run("drift")
    async with open_run(run):
        await drift_passes.look(run)
        await _repair(run, Impact.SERVICE, "te.yaml", ask=False)
        assert findings(run) == {"held back"}
    assert not {"repair", "repair_cluster"} & set(working.began_under)


async def drifted(working: Place) -> None:
    """Let the kubelet of te1 be disabled: pods do not keep from its repair, as they do on a worker."""
    working.lab.drift("te1", "disable", {"unit": "kubelet.service"})


async def test_drift_repair_takes_the_lease_once_the_api_is_back(working: Place) -> None:
    await drifted(working)
    working.away, working.back_at = True, "repair"
    run = working.run("drift")
    async with open_run(run):
        await drift_passes.look(run)
        await _repair(run, Impact.SERVICE, "te.yaml", ask=False)
        assert working.began_under["repair"] == (True, "")
        assert run.locks.leased, run.results
        assert working.holder == holder(f"drift of {run.cluster.name}")


async def test_drift_repair_ends_where_another_run_turns_out_to_hold_the_lease(
    working: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await drifted(working)
    working.held_by(ELSEWHERE)
    first: Callable[..., Any] = drift_passes.new_lease

    async def back(run: Run) -> None:
        working.away = False
        await first(run)

    monkeypatch.setattr(drift_passes, "new_lease", back)
    run = working.run("drift")
    async with open_run(run):
        await drift_passes.look(run)
        working.away = True
        with pytest.raises(Refused, match=ELSEWHERE):
            await _repair(run, Impact.SERVICE, "te.yaml", ask=False)
    assert "repair" not in working.began_under


async def test_a_run_that_lost_its_lease_begins_nothing_more(working: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_lease, "RENEW_SECONDS", 0.05)

    def began(stage: str) -> None:
        if stage == "container_runtime" and working.holder != ELSEWHERE:
            working.held_by(ELSEWHERE)
        Place.began(working, stage)

    monkeypatch.setattr(working, "began", began)
    working.late["join_worker"] = 1.0  # many renewals later: one of them has met the other run by then
    report = await brought_up(working.lab, Line())
    assert "SHW-102" in codes(report)
    assert any(ELSEWHERE in error.cause for error in report.errors)
    assert not {"join_worker"} & {row.stage for row in report.stages if row.outcome in ("ok", "changed")}
    assert working.holder == ELSEWHERE


async def test_a_run_whose_lease_cannot_be_renewed_claims_the_host_and_goes_on(
    working: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_lease, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(cluster_lease, "AWAY_SECONDS", 0.1)
    run = working.run()
    async with open_run(run):
        await new_lease(run)
        assert not working.claimed
        working.away = True
        await asyncio.sleep(0.5)
        assert working.claimed
        still_alone(run)
        working.away = False
        await asyncio.sleep(0.3)
        still_alone(run)
