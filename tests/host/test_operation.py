"""An operation that was stopped from outside is never taken for done, and a host that restarts is waited for once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shipway.errors import (
    ApiUnavailable,
    ConnectionLost,
    DeadlineExceeded,
    LoginRefused,
    ShipwayError,
    Stopped,
    Transient,
    Unreachable,
)
from shipway.host.operation import read_end, start_unit
from shipway.known_failures.catalogue import explain, failure
from shipway.script import Output
from shipway.step import StepResult
from tasks import returning
from tasks.stage_result import StageResult, find_lost

UNIT = "shipway-kubeadm-join"
# systemd-run of systemd 252, recorded on a host of the container lab
ENDED = f"Running as unit: {UNIT}.service\nFinished with result: "
GOOD = f"{ENDED}success\nMain processes terminated with: code=exited/status=0\nService runtime: 1.1s\n"
STOPPED = f"{ENDED}success\nMain processes terminated with: code=killed/status=TERM\nService runtime: 2.983s\n"
FAILED = f"{ENDED}exit-code\nMain processes terminated with: code=exited/status=1\nService runtime: 3.000s\n"
TIMED_OUT = f"{ENDED}timeout\nMain processes terminated with: code=killed/status=TERM\nService runtime: 1.168s\n"
LOST = "Failed to query unit state: Connection reset by peer\nFinished with result: success\n"
TAKEN = f"Failed to start transient service unit: Unit {UNIT}.service was already loaded or has a fragment file."


def outputs(status: int, stderr: str, system: str = "running") -> list[Output]:
    fine = Output(0, "", "")
    return [fine, fine, Output(status, "", stderr), Output(0, "what it said\n", ""), fine, Output(0, f"{system}\n", "")]


def test_there_is_an_output_for_each_command() -> None:
    assert len(start_unit(UNIT, ("true",), 60)) == len(outputs(0, GOOD))


@pytest.mark.parametrize(
    ("status", "stderr", "system"),
    [(0, GOOD, "running"), (0, GOOD, "stopping"), (1, FAILED, "degraded"), (1, TIMED_OUT, "")],
)
def test_what_came_to_its_own_end_is_reported_as_it_is(status: int, stderr: str, system: str) -> None:
    assert read_end(UNIT, outputs(status, stderr, system), host="w2") == Output(status, "what it said\n", "")


@pytest.mark.parametrize(
    ("status", "stderr", "system", "code"),
    [
        (0, STOPPED, "running", "SHW-211"),
        (0, STOPPED, "stopping", "SHW-211"),
        (0, LOST, "stopping", "SHW-211"),
        (0, LOST, "running", "SHW-211"),
        (1, FAILED, "stopping", "SHW-211"),
        (1, TAKEN, "running", "SHW-205"),
    ],
)
def test_what_was_ended_from_outside_may_be_tried_again(status: int, stderr: str, system: str, code: str) -> None:
    with pytest.raises(Transient) as caught:
        read_end(UNIT, outputs(status, stderr, system), host="w2")
    assert (caught.value.code, caught.value.may_retry, caught.value.host) == (code, True, "w2")


@pytest.mark.parametrize(("stderr", "system"), [(STOPPED, "running"), (LOST, "stopping")])
def test_a_stop_is_distinguished_from_an_end_that_was_not_seen(stderr: str, system: str) -> None:
    with pytest.raises(Stopped, match="was stopped before it was done"):
        read_end(UNIT, outputs(0, stderr, system), host="w2")
    with pytest.raises(Stopped, match="was not seen"):
        read_end(UNIT, outputs(0, LOST, "running"), host="w2")


def test_why_a_unit_did_not_start_is_kept() -> None:
    said = "Failed to start transient service unit: Interactive authentication required."
    assert read_end(UNIT, outputs(1, said), host="w2").stderr == said


def ran(*sessions: SimpleNamespace, gate: bool = False) -> Any:
    """Return a run in which these hosts have answered, and the API where `gate`."""
    by_name = {one.name: one for one in sessions}
    results = [StageResult("cluster", "control_plane_ready", "ok")] * gate

    async def kube() -> SimpleNamespace:
        return SimpleNamespace(name="cluster")

    seen = SimpleNamespace(surveys=by_name)
    return SimpleNamespace(seen=seen, gone=set(), session=by_name.get, results=results, kube=kube)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what was waited for, and for how long; only comes-back does come back."""
    waits: list[str] = []

    async def waited(_run: Any, _stage: str, _check: Any, on: SimpleNamespace, *, seconds: float) -> StepResult:
        waits.append(f"{on.name} {seconds:.0f}")
        return StepResult("it answers again", "ok" if on.name == "comes-back" else "failed")

    monkeypatch.setattr(returning, "wait_for", waited)
    return waits


async def failed(run: Any, error: ShipwayError) -> None:
    """Wait for what a stage lost that failed with an error."""
    await returning.wait_for_lost(run, "join_worker", find_lost([error]))


async def test_a_host_that_stays_away_is_waited_for_once(asked: list[str]) -> None:
    run = ran(*(SimpleNamespace(name=name) for name in ("comes-back", "stays-away", "refuses")))
    for host in ("comes-back", "stays-away", "never-seen"):
        for kind in (ConnectionLost, Unreachable, Stopped):
            await failed(run, kind("gone", host=host))
    await failed(run, LoginRefused("no", host="refuses"))
    await failed(run, DeadlineExceeded("slow", host="refuses"))
    assert asked == ["comes-back 90"] * 3 + ["stays-away 90"]


def join_failed(said: str) -> ShipwayError:
    return failure("kubeadm join", Output(1, "", said), host="w2")


# No answer from the API: to us, to a joining host, to its kubeadm; whatever words and codes they have by then.
NO_API = [
    ApiUnavailable("no answer", code="SHW-206"),
    join_failed('error execution phase preflight: Get "https://te1:6443/api/v1/x": connect: connection refused'),
    join_failed("timed out waiting for the condition"),
]


async def test_an_api_that_had_answered_is_waited_for_once(asked: list[str]) -> None:
    for error in NO_API:
        asked.clear()
        run, never = ran(gate=True), ran()
        for _ in range(2):
            await failed(never, error)
            await failed(run, error)
            await failed(run, join_failed("no such kind of error"))
        assert asked == ["cluster 120"], error


def test_what_was_lost_is_kept_where_its_cause_is_found_later() -> None:
    error = ConnectionLost("the connection broke", host="w2")
    error.explain("out of memory (the connection broke)", code="SHW-999", fix="Add memory.", retry=True)
    assert find_lost([error]) == {"w2"}
    error = DeadlineExceeded("last seen: dial tcp: connect: connection refused", host="w2")
    explain(error, "error execution phase preflight: couldn't validate: connection refused")
    assert (error.code, find_lost([error])) == ("SHW-481", {"cluster"})
