"""The controller killed at every stage's boundaries and at random moments, and two controllers at once.

After a plain run that follows: outcome ok, the state of an undisturbed lab, one init, no token and no lock left.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.simulated.lab import SimulatedLab
from tests.faults.plain import Line, brought_up
from tests.faults.undisturbed import Known, after

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
HOST_STAGES = ("preflight", "prepare_system", "container_runtime", "nvidia_runtime", "kubernetes_packages")
PLACES = (  # te3 does what te2 does
    *((stage, host) for host in ("te1", "te2") for stage in HOST_STAGES),
    ("control_plane", "te1"),
    ("join_worker", "te2"),
    *((stage, host) for host in ("te1", "te2") for stage in ("node_settings", "gpu_isolation")),
    *((stage, "cluster") for stage in ("control_plane_ready", "pod_network", "device_plugin", "dashboard")),
    *((stage, "cluster") for stage in ("nodes_ready", "gpus_allocatable", "gpu_proof")),
)
RANDOM = 16
# Shown in the summary, so that the same moments can be had again.
SEED = int(os.environ.get("SHIPWAY_FAULTS_SEED") or random.SystemRandom().randrange(2**32))
os.environ["SHIPWAY_FAULTS_SEED"] = str(SEED)  # xdist's processes are children of the first one that reads it


@asynccontextmanager
async def controller(cluster_file: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "tests.faults.controller", str(cluster_file), *words)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process, line: bytes | None = None) -> dict[str, Any]:
    """Wait for a controller's end, after a line of input where one is given; return what it said of its run."""
    out, err = await process.communicate(line)
    assert process.returncode == 0, err.decode()[-2000:]
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    return said


def elsewhere(lab: SimulatedLab) -> Path:
    """Return the cluster file as another machine has it: with a state folder, and so a lock, of its own."""
    data = yaml.safe_load(lab.cluster_file.read_text(encoding="utf-8"))
    data["state_dir"] = str(lab.folder / "elsewhere")
    path = lab.folder / "elsewhere.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def commands(lab: SimulatedLab) -> int:
    """Return how many commands ran on all hosts."""
    return sum(len(host.ran) for host in lab.hosts.values())


def names_the_holder(end: dict[str, Any], pid: int) -> bool:
    """Say whether a run was refused for another one holds the cluster, which is named by its process."""
    codes = {code for _, code, _, _ in end["errors"]}
    return codes == {"SHW-102"} and all(str(pid) in cause for _, _, cause, _ in end["errors"])


async def settled(lab: SimulatedLab) -> dict[str, str]:
    """Return what the hosts are, once nothing that was begun on them goes on."""
    state: dict[str, str] = {}
    while state != (now := {name: host.digest() for name, host in lab.hosts.items()}):
        state = now
        await asyncio.sleep(1)
    return state


@pytest.mark.parametrize("edge", ["begin", "end"])
@pytest.mark.parametrize(("stage", "host"), PLACES)
def test_a_controller_killed_at_a_stages_boundary(known: Known, stage: str, host: str, edge: str) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        async with controller(lab.cluster_file, "kill", f"{edge} {stage} {host}") as process:
            said = await process.communicate()
            assert process.returncode == -signal.SIGKILL, said

    after(known, disturb)


@pytest.mark.parametrize("number", range(RANDOM))
def test_a_controller_killed_at_any_moment(known: Known, record_property: Any, number: int) -> None:
    moment = random.Random(SEED + number).randrange(1, known.commands)  # noqa: S311 - no secret
    record_property("reported", f"random moments: SHIPWAY_FAULTS_SEED={SEED}")

    async def disturb(lab: SimulatedLab) -> None:
        async with controller(lab.cluster_file) as process:
            while process.returncode is None and commands(lab) < moment:  # noqa: ASYNC110 - nobody is woken by a list
                await asyncio.sleep(0.002)
            if process.returncode is None:
                process.kill()
            await process.communicate()
            assert process.returncode == -signal.SIGKILL, f"it ended before {moment} of {known.commands} commands"

    after(known, disturb)


def test_a_controller_killed_while_a_kubelet_waits_for_its_certificate(known: Known) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        host = lab.hosts["te2"]
        async with controller(lab.cluster_file) as process:
            while not lab.link.born:  # noqa: ASYNC110 - nobody is woken by a list
                await asyncio.sleep(0.002)
            host.scale = 0.3  # the join is slow enough to be met in the middle
            while not (host.files.exists("/etc/kubernetes/bootstrap-kubelet.conf") and host.services.kubelet_up):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            process.kill()
            await process.communicate()
        assert not host.files.exists("/etc/kubernetes/kubelet.conf"), "the join was not met in the middle"

    after(known, disturb)


@pytest.mark.parametrize("place", ["end preflight te1", "begin node_settings te2", "end gpu_proof cluster"])
def test_a_controller_killed_on_a_working_cluster_leaves_no_lease_that_keeps_the_next_out(
    known: Known, place: str
) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        assert (await brought_up(lab, Line())).outcome == "ok"
        async with controller(lab.cluster_file, "kill", place) as process:
            said = await process.communicate()
            assert process.returncode == -signal.SIGKILL, said

    after(known, disturb)


@pytest.mark.parametrize("number", range(4))
def test_of_two_controllers_at_once_on_one_machine_one_works_and_one_names_it(known: Known, number: int) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        async with controller(lab.cluster_file) as one, controller(lab.cluster_file) as other:
            ends = await asyncio.gather(ended(one), ended(other))
        works, refused = sorted(ends, key=lambda end: end["outcome"] != "ok")
        assert (works["outcome"], refused["outcome"]) == ("ok", "refused"), (number, ends)
        assert names_the_holder(refused, works["pid"]), ends

    after(known, disturb)


@pytest.mark.parametrize("number", range(6))
def test_of_two_controllers_at_once_on_two_machines_one_works_and_one_names_it(known: Known, number: int) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        async with controller(lab.cluster_file) as one:
            await asyncio.sleep(number * 0.3)
            async with controller(elsewhere(lab)) as other:
                ends = await asyncio.gather(ended(one), ended(other))
        works, refused = sorted(ends, key=lambda end: end["outcome"] != "ok")
        assert (works["outcome"], refused["outcome"]) == ("ok", "refused"), ends
        assert names_the_holder(refused, works["pid"]), ends

    after(known, disturb)


PAUSED = {
    "bare hosts, one machine": (False, False, "begin prepare_system te1"),
    "bare hosts, two machines": (False, True, "begin prepare_system te1"),
    "a cluster without workers, two machines": (False, True, "begin join_worker te2"),
    "a working cluster, two machines": (True, True, "begin gpu_proof cluster"),
}


@pytest.mark.parametrize("place", PAUSED)
def test_while_one_controller_works_another_is_refused_and_names_it(known: Known, place: str) -> None:
    works, apart, boundary = PAUSED[place]

    async def disturb(lab: SimulatedLab) -> None:
        if works:
            assert (await brought_up(lab, Line())).outcome == "ok"
        async with controller(lab.cluster_file, "pause", boundary) as one:
            assert one.stdout is not None
            assert await one.stdout.readline() == b"paused\n"
            before = await settled(lab)
            async with controller(elsewhere(lab) if apart else lab.cluster_file) as other:
                end = await ended(other)
            assert end["outcome"] == "refused", end
            assert names_the_holder(end, one.pid), end
            assert await settled(lab) == before, "the refused run changed hosts"
            assert (await ended(one, b"\n"))["outcome"] == "ok"

    after(known, disturb)
