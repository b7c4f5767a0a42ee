"""The driver's stage of a bootstrap: it installs on a host that has not joined, and only looks at any other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shipway.cluster_file import parse_cluster
from shipway.errors import Refused
from shipway.stage import StageName
from shipway.step import Impact, StepResult
from shipway.steps.gpu.driver.declared import DriverDeclared
from shipway.steps.gpu.healthy import FabricReady, GpusHealthy
from shipway.steps.maintain import restart
from shipway.survey.first_look import Survey
from tasks import drivers
from tasks.context import Run
from tasks.drift.parts import host_parts
from tasks.drift.permission import explain_kept, permission_now
from tasks.findings import find
from tasks.judging import _withheld
from tasks.stage_result import StageResult, StepRow, errors_of
from tasks.stages.listed import preparation_of
from tests.gpu.driver_machine import KERNEL, V1, V2
from tests.gpu.test_driver import cluster
from tests.maintain.test_driver import Known, Serving, with_driver
from tests.os.machine import Installed

STAGE = StageName.GPU_DRIVER


class Scene:
    """A bootstrap of one GPU host."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, host: Serving, *, joined: bool | None, mode: Any = "bootstrap"
    ) -> None:
        self.run, self.host = Run(cluster(version=V2), mode), host
        self.again: list[str] = []
        if joined is not None:
            self.run.seen.surveys["te2"] = survey_of(joined=joined, notices=("heard",))

        async def fine(*_: Any, **__: Any) -> None:
            """Be so."""

        async def claimed(_run: Any, name: str) -> None:
            self.again.append(name)

        async def surveyed(*_: Any) -> Survey:
            return survey_of(joined=False, driver_gpus=2)

        family = Known()
        monkeypatch.setattr(self.run, "session", lambda _: host)
        monkeypatch.setattr(self.run, "family", lambda _: family)
        monkeypatch.setattr(self.run, "connect_anew", fine)
        monkeypatch.setattr(drivers, "claim_again", claimed)
        monkeypatch.setattr(drivers, "survey", surveyed)
        monkeypatch.setattr("tasks.workloads.find_busy", fine)
        for check in (GpusHealthy, FabricReady):
            monkeypatch.setattr(check, "check", fine)
        real = restart.asyncio
        monkeypatch.setattr(restart, "asyncio", SimpleNamespace(sleep=fine, timeout=real.timeout, gather=real.gather))

    async def stage(self) -> list[StepResult]:
        """Return the results of the stage."""
        return await drivers.install_driver(self.run, STAGE, "te2")


def survey_of(**changes: Any) -> Survey:
    """Return a survey of a host with two GPUs."""
    told: dict[str, Any] = {"joined": False, "driver_gpus": 0, "machine_id": "", "product_uuid": "", "skew": 0.0}
    return Survey("te2", gpus=2, driver_said="", toolkit=True, **{**told, **changes})


def bare(**more: Any) -> Serving:
    """Return a host without a driver."""
    host = Serving(strict=False, name="te2", **more)
    host.packages[f"linux-headers-{KERNEL}"] = Installed("1")
    return host


async def test_a_bare_host_gets_its_driver_and_is_seen_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, bare(), joined=False)
    results = await scene.stage()
    assert errors_of("te2", results, scene.run.allow) == ()
    assert (scene.host.driver, scene.host.boots) == (V2, 1)
    seen = scene.run.seen.surveys["te2"]
    assert (seen.driver_gpus, seen.notices) == (2, ("heard",)), "the proof goes by what is there now"


async def test_nouveau_costs_one_restart_after_which_the_host_is_held_again(monkeypatch: pytest.MonkeyPatch) -> None:
    host = bare()
    host.files["/proc/modules"] = b"nouveau 2000000 4 - Live 0x0\n"
    scene = Scene(monkeypatch, host, joined=False)
    results = await scene.stage()
    assert errors_of("te2", results, scene.run.allow) == ()
    assert (host.boots, scene.again) == (2, ["te2"])


async def test_a_refusal_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    host = bare(boot="SecureBoot enabled")
    before = dict(host.files), dict(host.packages)
    scene = Scene(monkeypatch, host, joined=False)
    results = await scene.stage()
    assert {error.code for error in errors_of("te2", results, scene.run.allow)} == {"SHW-680"}
    assert (dict(host.files), dict(host.packages)) == before


async def test_a_plan_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    host = bare()
    before = dict(host.files), dict(host.packages)
    scene = Scene(monkeypatch, host, joined=False, mode="plan")
    assert "drifted" in {one.outcome for one in await scene.stage()}
    assert (dict(host.files), dict(host.packages)) == before


@pytest.mark.parametrize("joined", [True, None])
async def test_on_a_host_in_service_or_of_which_nobody_knows_nothing_of_the_driver_is_changed(
    monkeypatch: pytest.MonkeyPatch, *, joined: bool | None
) -> None:
    host = with_driver(V1)
    for one in host.packages.values():
        one.held = False
    scene = Scene(monkeypatch, host, joined=joined)
    results = await scene.stage()
    assert [(one.outcome, one.impact) for one in results] == [
        ("drifted", Impact.WORKLOADS),
        ("changed", Impact.FILES),
        ("ok", Impact.WORKLOADS),  # IMEX, which such GPUs have not
    ]
    assert (host.driver, host.boots, host.installs) == (V1, 1, [])
    assert errors_of("te2", results, scene.run.allow) == (), "what is withheld ends no bootstrap"
    row = StepRow.of(results[0])
    scene.run.results.append(StageResult("te2", STAGE, "drifted", (row,)))
    (said,) = _withheld(scene.run)
    assert "`shipway maintain FILE --driver`" in said


async def test_a_drift_pass_names_the_wave_whatever_it_may_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, with_driver(V1), joined=True)
    (part,) = (one for one in host_parts(scene.run, scene.run.cluster.host("te2")) if one.stage == STAGE)
    assert part.most is Impact.SERVICE
    (declared,) = (one for one in part.steps if isinstance(one, DriverDeclared))
    drift = await declared.check(scene.host)  # type: ignore[arg-type]
    finding = find("te2", STAGE, StepResult(declared.name, "drifted", Impact.WORKLOADS, drift))
    assert finding is not None
    (kept,) = explain_kept(scene.run, permission_now(scene.run), [finding], "te.yaml")
    assert (kept.action, kept.command) == ("reported", "shipway maintain te.yaml --driver")
    with pytest.raises(Refused, match="SHW-693"):
        await declared.apply(scene.host)  # type: ignore[arg-type]


def test_the_stage_is_there_only_where_a_driver_is_declared_and_gpus_are() -> None:
    plain = parse_cluster("name: te\nhosts: [{name: te1, address: 10.0.0.1, gpus: 1}]\n")
    assert STAGE not in preparation_of(plain, 1)
    assert STAGE not in preparation_of(cluster(), 0)
    made = preparation_of(cluster(), 1)
    assert made.index(StageName.PREPARE_SYSTEM) < made.index(STAGE) < made.index(StageName.CONTAINER_RUNTIME)
    run = Run(plain, "drift")
    assert [part.steps for part in host_parts(run, plain.hosts[0]) if part.stage == STAGE] == [[]]
