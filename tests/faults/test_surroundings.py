"""What befalls a real run from outside: a proxy, an audience that leaves, a Prefect server that restarts, a clock.

Each is a `python -m flows.bootstrap` in a process of its own over real SSH. After it: the state of an undisturbed lab.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lab.simulated.lab import SimulatedLab
from tests.faults.left_over import left_over
from tests.faults.plain import Line, brought_up
from tests.faults.real_run import ROOT, after_commands, ended_well, environment, migrated, real_run
from tests.faults.undisturbed import Known, after
from tests.places.loopback_proxy import loopback_proxy

pytestmark = pytest.mark.faults
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
SECONDS = 600.0  # a whole process, with Prefect and its server in it
DEAD = "http://127.0.0.1:9"  # the port "discard", where nothing listens


@pytest.fixture(scope="module", autouse=True)
def _database() -> None:
    migrated()


# --- a proxy in the controller's environment


def test_a_proxy_where_nothing_listens_keeps_no_run_from_its_own_api_and_its_hosts(known: Known) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        async with real_run(lab, **dict.fromkeys(PROXIES, DEAD)) as run:
            await ended_well(lab, run)

    after(known, disturb, seconds=SECONDS)


def test_a_proxy_that_works_hears_nothing_of_what_goes_to_loopback(known: Known) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        async with loopback_proxy() as proxy, real_run(lab, **dict.fromkeys(PROXIES, proxy.url)) as run:
            await ended_well(lab, run)
            assert [line for line in proxy.heard if "127." in line or "localhost" in line] == []

    after(known, disturb, seconds=SECONDS)


# --- the audience gone

MOMENTS = (40, 2000)  # commands of the 2,700 of a bootstrap: hosts are looked at; a cluster is being built


@pytest.mark.parametrize("commands", MOMENTS)
@pytest.mark.parametrize("terminal", [False, True], ids=["a pipe without reader", "a terminal that closed"])
def test_a_run_whose_audience_leaves_goes_on_to_its_end(known: Known, commands: int, terminal: bool) -> None:  # noqa: FBT001
    async def disturb(lab: SimulatedLab) -> None:
        async with real_run(lab, terminal=terminal) as run:
            await after_commands(lab, run, commands)
            run.leave()
            await ended_well(lab, run)

    after(known, disturb, seconds=SECONDS)


@pytest.mark.parametrize("commands", MOMENTS)
def test_a_run_whose_session_hangs_up_goes_on_to_its_end(known: Known, commands: int) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        async with real_run(lab) as run:
            await after_commands(lab, run, commands)
            os.killpg(run.process.pid, signal.SIGHUP)  # its own session: `start_new_session`
            await ended_well(lab, run)

    after(known, disturb, seconds=SECONDS)


@pytest.mark.parametrize("commands", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_asked_to_end_ends_in_order_and_frees_the_cluster(
    known: Known, commands: int, number: signal.Signals
) -> None:
    """Its audience is gone as well: nothing it says at its end may keep it from the report and from its locks."""

    async def disturb(lab: SimulatedLab) -> None:
        async with real_run(lab) as run:
            await after_commands(lab, run, commands)
            run.leave()
            run.process.send_signal(number)
            assert await run.ended() == 3
            report = run.report()
            assert (report["outcome"], report["errors"][-1]["cause"]) == ("failed", "the run was interrupted")
            held = [fault for fault in left_over(lab) if "lock" in fault or "lease" in fault]
            assert held == []

    after(known, disturb, seconds=SECONDS)


# --- the Prefect server gone and back


@asynccontextmanager
async def prefect_server(lab: SimulatedLab, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a Prefect server on a port; killed at the end, without a word, as by the kernel."""
    words = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words),
        cwd=ROOT,
        env=environment(lab.folder, PREFECT_SERVER_ANALYTICS_ENABLED="false"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # it has children, which end with it
    )
    try:
        await asyncio.wait_for(_answers(port, process), 120)
        yield process
    finally:
        if process.returncode is None:  # else the test killed it itself, and its number may be another's by now
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _answers(port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until the server answers at once: just started, it is healthy and yet busy with itself for seconds."""

    def asked() -> bool:
        began = time.monotonic()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/admin/version", timeout=5) as answer:
                return bool(answer.status == 200) and time.monotonic() - began < 0.5
        except OSError:
            return False

    while not await asyncio.to_thread(asked):
        assert process.returncode is None, "the server ended"
        await asyncio.sleep(0.2)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


@pytest.mark.parametrize(("commands", "seconds"), [(40, 1.0), (900, 20.0), (2000, 8.0)])
def test_a_run_whose_prefect_server_is_killed_and_comes_back_ends_ok(
    known: Known, commands: int, seconds: float
) -> None:
    """Away for `seconds` and the time that its start takes: less than a minute together."""

    async def disturb(lab: SimulatedLab) -> None:
        port = free_port()
        api = f"http://127.0.0.1:{port}/api"
        async with prefect_server(lab, port) as first, real_run(lab, PREFECT_API_URL=api) as run:
            await after_commands(lab, run, commands)
            os.killpg(first.pid, signal.SIGKILL)
            await first.wait()
            await asyncio.sleep(seconds)
            assert run.process.returncode is None, "the run was over before the server was back"
            async with prefect_server(lab, port):
                await ended_well(lab, run)

    after(known, disturb, seconds=SECONDS)


# --- a clock that went back


def restarts(lab: SimulatedLab, name: str) -> int:
    """Return how often a service was restarted on a host."""
    return sum("restart" in one.words and "systemctl" in one.words for one in lab.hosts[name].ran)


@pytest.mark.parametrize("commands", [700, 1400])
def test_a_clock_that_was_ahead_in_a_run_and_went_back_costs_no_second_restart(known: Known, commands: int) -> None:
    """A hardware clock in local time, 8 h ahead: what was written then is dated into the future."""

    async def disturb(lab: SimulatedLab) -> None:
        host = lab.hosts["te2"]
        async with real_run(lab) as run:
            await after_commands(lab, run, commands)
            host.skew = 28800.0
            await run.ended()
        host.skew = 0.0
        lab.reboot("te2")
        repaired = await brought_up(lab, Line())
        assert repaired.outcome == "ok", repaired.errors
        before = restarts(lab, "te2"), host.digest()
        again = await brought_up(lab, Line())
        assert again.outcome == "ok", again.errors
        assert [result for stage in again.stages for result in stage.rows if result.outcome == "changed"] == []
        assert (restarts(lab, "te2"), host.digest()) == before
        # Masked, it is not started again by the reboot; the undisturbed lab was not rebooted.
        host.units.set(host.units.all["swap.target"], "active", "active")

    after(known, disturb, seconds=SECONDS)


@pytest.mark.parametrize("commands", MOMENTS)
def test_a_clock_that_goes_back_in_the_middle_of_a_run_is_reported_at_the_latest_by_the_next_one(
    known: Known, commands: int
) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        host = lab.hosts["te2"]
        async with real_run(lab) as run:
            await after_commands(lab, run, commands)
            host.skew = -3600.0
            await run.ended()
            report = run.report()
            assert {error["host"] for error in report["errors"]} <= {"te2", "cluster"}, report["errors"]
            ends = {host["name"]: host["outcome"] for host in report["hosts"] if host["name"] != "te2"}
            assert ends == {"te1": "changed", "te3": "changed"}, report["errors"]
            assert left_over(lab) == []
        before = host.digest()
        heard = await brought_up(lab, Line())
        assert [(error.host, error.code) for error in heard.errors] == [("te2", "SHW-312")]
        assert host.digest() == before
        host.skew = 0.0

    after(known, disturb, seconds=SECONDS)
