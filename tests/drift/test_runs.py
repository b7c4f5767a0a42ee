"""Drift repair among other runs: one lock for all, the daily GPU proof, events to build on."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.bootstrap import bootstrap
from flows.drift_repair import drift_repair
from flows.lock import hold_lock
from flows.verify import verify_cluster
from shipway.cluster_file import load_cluster
from shipway.errors import Refused
from shipway.gpu.pods import NAMESPACE, apply_pods, pod_with_gpu
from shipway.gpu.proof import own_space
from shipway.host.ssh import Pool
from shipway.kube.client import Kube
from shipway.locks.lease import hold
from tasks.report import Report
from tests.drift.scene import Scene
from tests.places.kube import answering
from tests.places.prefect import rows

pytestmark = pytest.mark.xdist_group("drift")
OTHER = "ops@elsewhere pid 7, drift of te"


async def beside_another(scene: Scene) -> tuple[object, object]:
    """Return what a bootstrap and a repair come to while a run of another machine holds the cluster's lease."""
    cluster, pool = load_cluster(scene.file), Pool()
    kube = await Kube.connect(pool.host(cluster.target(cluster.control_planes[0])), cluster)
    try:
        async with hold(answering(kube), OTHER):
            state = await bootstrap(str(scene.file), return_state=True)
            other = await drift_repair(str(scene.file), "service", return_state=True)
            return await state.aresult(raise_on_failure=False), await other.aresult(raise_on_failure=False)
    finally:
        await kube.close()
        await pool.close()


def test_no_run_changes_a_cluster_that_a_run_of_another_machine_holds(scene: Scene) -> None:
    bootstrapped, repaired = asyncio.run(beside_another(scene))
    assert isinstance(bootstrapped, Report)
    assert (bootstrapped.outcome, bootstrapped.exit_code) == ("refused", 1)
    assert {error.code for error in bootstrapped.errors} == {"SHW-102"}
    assert all(OTHER in error.cause for error in bootstrapped.errors)
    assert isinstance(repaired, Refused)
    assert OTHER in repaired.message


def test_a_proof_leaves_the_test_pods_of_a_run_that_holds_the_cluster_alone(scene: Scene) -> None:
    """Its own begins with deleting what is left of others: a measurement then goes on beside whoever got the GPUs."""

    async def fly() -> tuple[Any, bool]:
        cluster, pool = load_cluster(scene.file), Pool()
        kube = await Kube.connect(pool.host(cluster.target(cluster.control_planes[0])), cluster)
        try:
            async with hold(answering(kube), OTHER), own_space(kube, lambda _: None):
                await apply_pods(kube, [pod_with_gpu(cluster, "gpu-figures-1")])
                state = await verify_cluster(str(scene.file), return_state=True)
                kube.forget()
                left = await kube.get("v1", "Pod", "gpu-figures-1", NAMESPACE) is not None
            return await state.aresult(raise_on_failure=False), left
        finally:
            await kube.close()
            await pool.close()

    refused, left = asyncio.run(fly())
    assert isinstance(refused, Refused)
    assert (refused.code, OTHER in refused.message) == ("SHW-102", True)
    assert left


def test_two_proofs_on_one_machine_are_not_made_at_once(scene: Scene) -> None:
    cluster = load_cluster(scene.file)
    with hold_lock(Path(cluster.state_dir).expanduser() / cluster.name / "lock", cluster.name, shared=True):
        state: Any = asyncio.run(verify_cluster(str(scene.file), return_state=True))
    refused = asyncio.run(state.aresult(raise_on_failure=False))
    assert isinstance(refused, Refused)
    assert refused.code == "SHW-102"


def test_the_daily_proof_runs_on_its_own(scene: Scene) -> None:
    async def fly() -> Report:
        state = await verify_cluster(str(scene.file), return_state=True)
        report: Report = await state.aresult(raise_on_failure=False)
        return report

    report = asyncio.run(fly())
    assert report.outcome == "ok", report.errors
    assert (report.gpus["expected"], report.gpus["verified"]) == (3, 3)


def test_what_is_found_and_repaired_are_events(scene: Scene) -> None:
    scene.drift("te2", "unhold", package="kubelet")
    begin = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"  # events of passes before this one are not meant
    assert scene.passed("service").outcome == "ok"
    name = load_cluster(scene.file).name
    sql = "select event from events where resource_id = ? and event like 'shipway.drift.%' and occurred >= ?"
    until = time.monotonic() + 20
    found: set[str] = set()
    while time.monotonic() < until and len(found) < 2:
        found = {event for (event,) in rows(scene.home, sql, f"shipway.cluster.{name}", begin)}
        time.sleep(0.2)  # Prefect writes them in batches
    assert {"shipway.drift.found", "shipway.drift.repaired"} <= found
