"""The controller killed at every stage's boundaries and at random moments, and two controllers at once.

After a plain run that follows: outcome ok, the state of an undisturbed lab, one init, no token left behind.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.simulated.lab import SimulatedLab
from lab.simulated.options import Options
from tests.faults.end_state import differences, end_state
from tests.faults.plain import Line, brought_up, installed

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
OPTIONS = Options(hosts=3, scale=0.01)
SECONDS = 180.0
HOST_STAGES = ("preflight", "prepare_system", "container_runtime", "nvidia_runtime", "kubernetes_packages")
PLACES = (  # te3 does what te2 does
    *((stage, host) for host in ("te1", "te2") for stage in HOST_STAGES),
    ("control_plane", "te1"),
    ("join_worker", "te2"),
    *(("node_settings", host) for host in ("te1", "te2")),
    *((stage, "cluster") for stage in ("control_plane_ready", "pod_network", "device_plugin")),
    *((stage, "cluster") for stage in ("nodes_ready", "cards_allocatable", "gpu_proof")),
)
RANDOM = 16
SEED = random.randrange(2**32)  # noqa: S311 - it is told, so that the moments can be had again


@asynccontextmanager
async def fresh() -> AsyncIterator[SimulatedLab]:
    with tempfile.TemporaryDirectory() as folder:
        async with SimulatedLab(Path(folder), OPTIONS) as lab:
            yield lab


def inits(lab: SimulatedLab) -> int:
    """Give how many times kubeadm was asked to initialise."""
    return sum("kubeadm init" in " ".join(one.words) for one in lab.hosts["te1"].ran)


@pytest.fixture(scope="module")
def want() -> Iterator[tuple[dict[str, Any], int, set[tuple[str, str]]]]:
    """The state and the inits of an undisturbed lab, and the stages that ran on it."""

    async def undisturbed() -> tuple[dict[str, Any], int, set[tuple[str, str]]]:
        async with fresh() as lab:
            report = await brought_up(lab, Line())
            assert (await brought_up(lab, Line())).outcome == "ok"
            return end_state(lab), inits(lab), {(stage.stage, stage.host) for stage in report.stages}

    with pytest.MonkeyPatch.context() as patch:
        installed(patch)
        yield asyncio.run(undisturbed())


@asynccontextmanager
async def controller(lab: SimulatedLab, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "tests.faults.controller", str(lab.cluster_file), *words)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def after(
    want: tuple[dict[str, Any], int, set[tuple[str, str]]], disturb: Callable[[SimulatedLab], Awaitable[None]]
) -> None:
    """Disturb a bare lab, run plainly, and compare with what was to be."""

    async def case() -> None:
        async with fresh() as lab:
            await disturb(lab)
            report = await brought_up(lab, Line())
            assert report.outcome == "ok", report.errors
            assert inits(lab) == want[1]
            assert differences(want[0], end_state(lab)) == []

    asyncio.run(asyncio.wait_for(case(), SECONDS))


def test_the_places_are_all_the_stages_there_are(want: tuple[dict[str, Any], int, set[tuple[str, str]]]) -> None:
    assert {place for place in want[2] if place[1] != "te3"} == set(PLACES)


@pytest.mark.parametrize("edge", ["begin", "end"])
@pytest.mark.parametrize(("stage", "host"), PLACES)
def test_a_controller_killed_at_a_stages_boundary(
    want: tuple[dict[str, Any], int, set[tuple[str, str]]], stage: str, host: str, edge: str
) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        async with controller(lab, f"{edge} {stage} {host}") as process:
            said = await process.communicate()
            assert process.returncode == -signal.SIGKILL, said

    after(want, disturb)


@pytest.mark.parametrize("number", range(RANDOM))
def test_a_controller_killed_at_any_moment(want: tuple[dict[str, Any], int, set[tuple[str, str]]], number: int) -> None:
    share = random.Random(SEED + number).random()  # noqa: S311
    print(f"seed {SEED}, number {number}: killed when {share:.0%} of the exchanges were begun")

    async def disturb(lab: SimulatedLab) -> None:
        commands = 40 + int(share * 800)
        async with controller(lab) as process:
            # what is counted is plain lists, which wake nobody
            while process.returncode is None and sum(len(host.ran) for host in lab.hosts.values()) < commands:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            if process.returncode is None:
                process.kill()
            await process.communicate()
            print(f"exit {process.returncode} after {sum(len(host.ran) for host in lab.hosts.values())} commands")

    after(want, disturb)


@pytest.mark.parametrize("number", range(4))
def test_two_controllers_at_once(want: tuple[dict[str, Any], int, set[tuple[str, str]]], number: int) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        async with controller(lab) as one:
            await asyncio.sleep(number * 0.3)
            async with controller(lab) as other:
                said = await asyncio.gather(one.communicate(), other.communicate())
        ends = [json.loads(out) for out, _ in said]
        print(json.dumps(ends, indent=1)[:3000])
        assert any(end["outcome"] == "ok" for end in ends), ends
        for end in ends:  # whoever did not get through says that there is another, or that trying again helps
            assert all(code == "SHW-102" or retryable for _, code, _, retryable in end["errors"]), end

    after(want, disturb)
