"""A host whose clock is off, whose disk is full or fills up, or whose SSH key changed: named, and whole after."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lab.simulated.failures import Failure
from lab.simulated.lab import SimulatedLab
from shipway.errors import ErrorReport
from tasks.report import Report
from tests.faults.plain import Line, brought_up, over_ssh
from tests.faults.undisturbed import Known, after

pytestmark = pytest.mark.faults
ROOM = 200_000_000  # KiB
OFF = 600.0  # seconds


def errors_on(report: Report, host: str) -> list[ErrorReport]:
    """Return a host's errors, once each."""
    return [error for error in report.errors if error.host == host]


def outcomes(report: Report) -> dict[str, str]:
    """Return each host's outcome."""
    return {host.name: host.outcome for host in report.hosts}


@pytest.mark.parametrize("seconds", [OFF, -OFF])
def test_a_worker_whose_clock_is_off_is_named_and_left_as_it_is_while_the_rest_is_built(
    known: Known, seconds: float
) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        host = lab.hosts["te2"]
        host.skew = seconds
        before = host.digest()
        report = await brought_up(lab, Line())
        (error,) = errors_on(report, "te2")
        assert (error.code, error.retryable, error.step) == ("SHW-312", False, "the clocks agree")
        assert f"{seconds:+.0f} s" in error.cause
        assert "te2" in error.fix
        assert report.outcome == "partial"
        assert outcomes(report) == {"te1": "changed", "te2": "failed", "te3": "changed"}
        assert host.digest() == before
        host.skew = 0.0

    after(known, disturb)


def test_a_control_plane_whose_clock_is_off_stops_the_run_before_anything_is_changed(known: Known) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        lab.hosts["te1"].skew = OFF
        before = {name: host.digest() for name, host in lab.hosts.items()}
        report = await brought_up(lab, Line())
        assert [(error.host, error.code) for error in report.errors] == [("te1", "SHW-312")]
        assert report.outcome == "refused"
        assert {name: host.digest() for name, host in lab.hosts.items()} == before
        lab.hosts["te1"].skew = 0.0

    after(known, disturb)


def test_a_full_disk_is_seen_before_anything_is_changed(known: Known) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        host = lab.hosts["te2"]
        host.free_kib = 0
        before = host.digest()
        report = await brought_up(lab, Line())
        (error,) = errors_on(report, "te2")
        assert error.step == "CPU, memory and disk are enough"
        assert "0.0 GiB free in /var/lib" in error.cause
        assert (report.outcome, error.retryable) == ("partial", False)
        assert host.digest() == before
        host.free_kib = ROOM

    after(known, disturb)


# Which command meets the full disk on which host, with how many KiB left; the stage in which it fails.
FILLS: dict[str, tuple[str, str, str, str]] = {
    "the first managed file": ("te2", "dd", "0", "prepare_system"),
    "the base packages are fetched": ("te2", "apt-get upgrade", "100", "prepare_system"),
    "the runtime is unpacked": ("te2", "apt-get install containerd.io", "7000", "container_runtime"),
    "containerd's configuration": ("te2", "dd containerd", "0", "container_runtime"),
    "the toolkit is unpacked": ("te2", "apt-get install nvidia-container-toolkit", "7000", "nvidia_runtime"),
    "kubelet is unpacked": ("te2", "apt-get install kubelet", "5000", "kubernetes_packages"),
    "kubeadm init": ("te1", "systemd-run kubeadm init", "0", "control_plane"),
    "kubeadm join": ("te2", "systemd-run kubeadm join", "0", "join_worker"),
}


@pytest.mark.parametrize("moment", FILLS)
def test_a_disk_that_fills_up_in_the_middle_is_named_and_the_next_run_goes_on(known: Known, moment: str) -> None:
    name, match, left, stage = FILLS[moment]

    async def disturb(lab: SimulatedLab) -> None:
        lab.fail_command(name, Failure("full", match, text=left))
        report = await brought_up(lab, Line())
        assert lab.hosts[name].failures.waiting == [], "the disk never filled up"
        failed = {result.stage: result.errors for result in report.stages if result.host == name and result.errors}
        assert list(failed)[-1] == stage, failed
        for error in failed[stage]:
            assert (error.host, error.code, error.retryable) == (name, "SHW-413", False), error
            assert "df -h" in error.fix
        assert report.outcome == ("failed" if name == "te1" else "partial")
        lab.hosts[name].free_kib = ROOM

    after(known, disturb)


def refused_key(report: Report) -> None:
    """Expect that te2 was refused for its key, and that the advice says how to go on."""
    (error,) = errors_on(report, "te2")
    assert (error.code, error.retryable) == ("SHW-301", False)
    assert "known_hosts" in error.cause
    assert "verify its key at its console" in error.fix


@pytest.mark.parametrize("policy", ["strict", "accept-new"])
def test_a_host_with_another_key_is_refused_by_name_and_nothing_is_sent_to_it(known: Known, policy: str) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        lab.rekey("te2")
        report = await over_ssh(lab)
        refused_key(report)
        assert report.outcome == "partial"
        assert outcomes(report) == {"te1": "changed", "te2": "failed", "te3": "changed"}
        assert (list(lab.hosts["te2"].ran), lab.ssh.logins("te2")) == ([], 0)
        assert lab.ssh.logins("te3") > 0, "logins are counted"

    after(known, disturb, {"ssh": {"host_keys": policy}})


@pytest.mark.parametrize("commands", [60, 120, 180])
def test_a_host_whose_key_changes_in_the_middle_is_sent_nothing_more(known: Known, commands: int) -> None:
    async def disturb(lab: SimulatedLab) -> None:
        host = lab.hosts["te2"]
        running: asyncio.Task[Any] = asyncio.create_task(over_ssh(lab))
        while len(host.ran) < commands and not running.done():  # noqa: ASYNC110 - nobody is woken by a list
            await asyncio.sleep(0.001)
        assert not running.done()
        lab.rekey("te2")
        logins = lab.ssh.logins("te2")
        await asyncio.sleep(0)  # what was at work when its link broke
        report = await running
        refused_key(report)
        assert lab.ssh.logins("te2") == logins
        assert report.outcome == "partial"

    after(known, disturb)
