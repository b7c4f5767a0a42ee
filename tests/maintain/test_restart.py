"""A host is restarted for a reason, never where something forbids it at that moment, and believed by another boot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.errors import Blocked, CommandFailed, DeadlineExceeded, Refused
from shipway.facts.boot import BootIs, order_kernels
from shipway.facts.packages import Pending, describe_pending
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Host
from shipway.os.debian.updates import WHO_HOLDS, find_pending
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.maintain import pause, restart
from shipway.steps.maintain.restart import (
    DKMS,
    IMAGES,
    INHIBITORS,
    LOGIND,
    SHIMS,
    KernelHasModule,
    NobodyAtWork,
    NothingInhibits,
    RunsInstalled,
    find_inhibitors,
    find_kernels,
    why_restart,
)
from shipway.survey.notices import MODULES
from tests.maintain.hosts import BORN, NOW, Family, Restarting, boot
from tests.places.facts import KnownFacts, said, unit

OLD, NEW = "6.1.0-18-amd64", "6.1.0-20-amd64"
INSTALLED = said(f"{int(BORN) - 9000} /boot/vmlinuz-{OLD}\n{int(BORN) + 60} /boot/vmlinuz-{NEW}\n")


def host(**facts: Any) -> Host:
    known = {"images": IMAGES, "modules": MODULES, "dkms": DKMS, "inhibitors": INHIBITORS, "shims": SHIMS}
    return cast("Host", KnownFacts({BootIs(): boot(), **{known[name]: one for name, one in facts.items()}}))


async def why(mode: Any = "when_required", family: Family | None = None, **facts: Any) -> list[str]:
    return await why_restart(host(**facts), cast("Any", family or Family()), mode, "containerd.io")


async def refused(check: Any, on: Any, code: str) -> str:
    with pytest.raises(Refused) as raised:
        await check.check(on)
    assert (raised.value.code, bool(raised.value.fix)) == (code, True)
    return raised.value.message


# --- why


async def test_a_newer_kernel_that_was_installed_since_the_boot_asks_for_a_restart() -> None:
    assert await why(images=INSTALLED) == [f"kernel {NEW} is installed, and {OLD} runs"]
    before = said(f"{int(BORN) - 60} /boot/vmlinuz-{NEW}\n")
    assert await why(images=before) == [], "who chose the older one at its boot, chose it"
    assert await why(images=said(f"{int(BORN)} /boot/vmlinuz-{NEW}\n")) == []
    assert await why(images=said(f"{int(NOW)} /boot/vmlinuz-6.1.0-9-amd64\n")) == [], "9 is before 18"
    assert await why(images=said(f"{int(NOW)} /boot/vmlinuz-0-rescue-99\n")) == []
    assert await why("never", images=INSTALLED) == []


async def test_the_systems_own_reasons_count() -> None:
    family = Family()
    family.reasons = ["the system asks for it"]
    assert await why(family=family) == ["the system asks for it"]
    assert await why("never", family=family) == []


async def test_containers_that_are_older_than_their_containerd_ask_for_a_restart() -> None:
    family = Family()
    family.changed = {"containerd.io": NOW - 100}
    assert await why(family=family, shims=said("50 containerd-shim\n900 bash\n")) == []
    assert await why(family=family, shims=said("50 containerd-shim\n200 containerd-shim\n")) == [
        "containers run since before containerd.io was changed"
    ]


async def test_always_restarts_a_host_once_a_day_at_most() -> None:
    assert await why("always") == [], "booted an hour ago: a run that is repeated restarts nothing twice"
    old = cast("Host", KnownFacts({BootIs(): boot(now=BORN + 3 * 86400)}))
    old.facts[BootIs()] = type(boot())("b", BORN, BORN + 3 * 86400, OLD)  # type: ignore[attr-defined]
    family = Family()
    family.reasons = ["the system asks for it"]
    assert await why_restart(old, cast("Any", family), "always", "containerd.io") == ["the system asks for it"]
    assert "3 days old" in (await why_restart(old, cast("Any", Family()), "always", "containerd.io"))[0]
    assert await why_restart(old, cast("Any", Family()), "when_required", "containerd.io") == []
    old.facts[BootIs()] = type(boot())("b", BORN, BORN + 86400, OLD)  # type: ignore[attr-defined]
    assert await why_restart(old, cast("Any", Family()), "always", "containerd.io") == []


async def test_a_host_that_does_not_tell_its_boot_is_not_guessed_about() -> None:
    with pytest.raises(Blocked):
        await why_restart(cast("Host", KnownFacts({BootIs(): None})), cast("Any", Family()), "always", "x")


# --- what forbids it


async def test_a_kernel_without_the_gpus_module_is_refused() -> None:
    modules = said(f"/lib/modules/{OLD}/updates/dkms/{VENDOR.module}.ko.xz\n")
    told = said(f"{VENDOR.module}/550.1, {OLD}, x86_64: installed\n")
    message = await refused(KernelHasModule(), host(images=INSTALLED, modules=modules, dkms=told), "SHW-820")
    assert f"kernel {NEW} starts next" in message
    assert "550.1" in message
    for dkms in (said("", 1), said(""), said("dkms: no such command", 127)):
        message = await refused(KernelHasModule(), host(images=INSTALLED, modules=modules, dkms=dkms), "SHW-820")
        assert "dkms says" not in message
    both = said(modules.stdout + f"/lib/modules/{NEW}/updates/dkms/{VENDOR.module}.ko.xz\n")
    assert await KernelHasModule().check(host(images=INSTALLED, modules=both)) is None
    assert await KernelHasModule().check(host(images=said("", 1), modules=said(""))) is None, (
        "a container has no kernel"
    )


async def test_who_inhibits_a_shutdown_is_named_and_a_delay_is_no_refusal() -> None:
    row = ["shutdown:sleep", "backup", "copies the disks", "block", 0, 7]
    delay = ["shutdown", "kubelet", "Kubelet needs time", "delay", 0, 8]
    sleep = ["sleep", "x", "y", "block", 0, 9]

    def answer(*rows: Any) -> Output:
        return said(json.dumps({"type": "a(ssssuu)", "data": [list(rows)]}))

    message = await refused(NothingInhibits(), host(inhibitors=answer(delay, row)), "SHW-821")
    assert "backup (copies the disks)" in message
    at_work = KnownFacts({INHIBITORS: answer(delay, row), LOGIND: unit()})
    assert "is inhibited by backup" in await refused(NothingInhibits(), at_work, "SHW-821")
    assert await NothingInhibits().check(host(inhibitors=answer(delay, sleep))) is None
    assert await NothingInhibits().check(host(inhibitors=said("", 1))) is None, "without logind nobody can"
    assert find_inhibitors('{"data": [[["shutdown"]]]}') is None
    assert find_inhibitors('{"data": [[]]}') == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (said("", 1), "no answer"),
        (said("", 124), "no answer"),
        (Output(1, "", "Access denied"), "Access denied"),
        (said("no JSON"), "no JSON"),
        (said('{"data": [[["shutdown"]]]}'), '{"data": [[["shutdown"]]]}'),
    ],
)
async def test_a_logind_that_does_not_tell_who_inhibits_a_restart_forbids_it(answer: Output, told: str) -> None:
    silent = KnownFacts({INHIBITORS: answer, LOGIND: unit()})
    message = await refused(NothingInhibits(), silent, "SHW-821")
    assert f"logind does not tell who inhibits a restart: {told}" in message
    gone = KnownFacts({INHIBITORS: answer, LOGIND: unit("failed")})
    assert await NothingInhibits().check(cast("Host", gone)) is None


async def test_a_package_manager_at_work_is_named() -> None:
    family = Family()
    assert await NobodyAtWork(cast("Any", family)).check(host()) is None
    family.worker = "unattended-upgr (712)"
    assert "unattended-upgr (712)" in await refused(NobodyAtWork(cast("Any", family)), host(), "SHW-822")


@pytest.mark.parametrize(
    ("healthy", "learners", "allowed"), [("+", 0, True), ("+++", 0, True), ("++-", 0, False), ("++", 1, False)]
)
async def test_a_restart_that_would_lose_the_quorum_is_refused(
    healthy: str, learners: int, monkeypatch: pytest.MonkeyPatch, *, allowed: bool
) -> None:
    members = [SimpleNamespace(healthy=one == "+", learner=False) for one in healthy]
    members += [SimpleNamespace(healthy=True, learner=True)] * learners

    async def settled(_: Any) -> Any:
        return members

    monkeypatch.setattr(pause, "settled_members", settled)
    if allowed:
        assert await pause.QuorumStays().check(host()) is None
    else:
        await refused(pause.QuorumStays(), host(), "SHW-823")


# --- the restart


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only sleeping moves."""
    now = [0.0]
    real = restart.asyncio.timeout

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(restart, "asyncio", SimpleNamespace(sleep=sleep, timeout=real, gather=restart.asyncio.gather))
    monkeypatch.setattr(restart, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def step(family: Family, **more: Any) -> RunsInstalled:
    return RunsInstalled(cast("Any", family), "when_required", "containerd.io", gpus=True, minutes=5, **more)


async def test_a_host_is_back_when_another_boot_answers_a_new_connection(clock: list[float]) -> None:
    family, dropped, heard = Family(), list[float](), list[str]()
    family.reasons = ["the system asks for it"]
    one = Restarting(family, away=4)

    async def anew() -> None:
        dropped.append(clock[0])

    made = step(family, anew=anew, on_wait=heard.append)
    assert made.impact is Impact.WORKLOADS
    assert await made.check(cast("Host", one)) is not None
    await made.apply(cast("Host", one))
    assert one.done == ["systemctl reboot"]
    assert dropped == [3.0, 6.0, 9.0, 12.0, 15.0]
    assert one.forgotten == 6, "before what forbids it, and before each look whether it is back"
    assert heard[1:] == ["waiting until w1 is back: the connection broke"]
    assert await made.check(cast("Host", one)) is None


@pytest.mark.parametrize("how", ["away", "stays"])
async def test_a_host_that_is_not_back_in_time_is_named(clock: list[float], how: str) -> None:
    family = Family()
    one = Restarting(family, away=10_000)
    one.stays = how == "stays"
    with pytest.raises(DeadlineExceeded) as raised:
        await step(family).apply(cast("Host", one))
    assert (raised.value.code, raised.value.may_retry) == ("SHW-824", False)
    assert ("it still runs as before" in raised.value.message) is one.stays
    assert clock[0] == 300


async def test_a_host_that_cannot_be_restarted_says_so(clock: list[float]) -> None:
    class Broken(Restarting):
        """One without systemctl."""

        async def do(self, *commands: Any) -> list[Output]:
            del commands
            raise CommandFailed("systemctl reboot: not found", exit_status=127, host=self.name)

    with pytest.raises(CommandFailed):
        await step(Family()).apply(cast("Host", Broken(Family())))
    assert clock[0] == 0


@pytest.mark.parametrize("what", ["module", "inhibitor", "worker", "permit"])
async def test_what_forbids_a_restart_is_asked_again_right_before_it(what: str) -> None:
    family = Family()
    one = Restarting(family)
    if what == "module":
        one.facts |= {IMAGES: INSTALLED, MODULES: said("")}
    elif what == "inhibitor":
        one.facts[INHIBITORS] = said(json.dumps({"data": [[["shutdown", "a", "b", "block", 0, 1]]]}))
    elif what == "worker":
        family.worker = "dpkg (7)"

    async def permit() -> None:
        if what == "permit":
            raise Refused("no control plane may be restarted now", code="SHW-823")

    with pytest.raises(Refused):
        await step(family, permit=permit).apply(cast("Host", one))
    assert one.done == []


# --- what hosts really say


def test_this_machine_tells_its_boot() -> None:
    ran = subprocess.run(BootIs().words(), capture_output=True, text=True, check=False)
    found = BootIs().parse(Output(ran.returncode, ran.stdout, ran.stderr))
    assert found is not None
    assert 0 < found.since <= found.now
    assert found.kernel == os.uname().release


@pytest.mark.parametrize(
    "text", ["", "a\nb\nc\nd\ne\nf", "a\nk\n0\n1\n2\n1 (x) S " + "1 " * 30, "a\nk\n100\n1\n2\n1 (x"]
)
def test_a_boot_that_is_not_told_is_none(text: str) -> None:
    assert BootIs().parse(Output(0, text, "")) is None


def test_the_first_process_may_be_called_anything() -> None:
    text = "id\n6.1\n100\n1000\n2000\n1 (a) b) S " + " ".join(map(str, range(1, 40)))
    found = BootIs().parse(Output(0, text, ""))
    assert found is not None
    assert (found.id, found.since) == ("id-19", 1000.19)


def test_kernels_are_ordered_by_their_numbers() -> None:
    names = ["6.8.0-101-generic", "6.8.0-49-generic", "5.15.0-200-generic"]
    assert max(names, key=order_kernels) == names[0]
    assert find_kernels("1 /boot/vmlinuz-6.1\nstat: cannot\n2 /boot/vmlinuz-0-rescue-1\n") == {"6.1": 1}


def test_who_holds_a_lock_is_found_by_the_kernels_own_list(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()

    def ask() -> str:
        words = ("sh", "-c", WHO_HOLDS, "sh", str(lock), str(tmp_path / "none"))
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert ask() == ""
    script = (
        f"import fcntl; f = open({str(lock)!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        (sys.executable, "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        found = ask()
        holder.communicate("\n")
    assert found.endswith(f" ({holder.pid})\n")
    assert found.count("\n") == 1


REAL = """\
NOTE: This is only a simulation!
Inst libc-bin [2.36-9+deb12u4] (2.36-9+deb12u9 Debian:12.8/stable [amd64]) []
Conf libc-bin (2.36-9+deb12u9 Debian:12.8/stable [amd64]) []
Inst libssl3 [3.0.11-1] (3.0.15-1~deb12u1 Debian:12.8/stable, Debian-Security:12/stable-security [amd64])
Inst linux-image-6.1.0-28-amd64 (6.1.119-1 Debian-Security:12/stable-security [amd64])
Inst linux-image-amd64 [6.1.66-1] (6.1.119-1 Debian-Security:12/stable-security [amd64])
Inst containerd.io [1.6.20-1] (1.7.27-1 docker [amd64])
Inst linux-modules-nvidia-550-generic [1] (2 Ubuntu:22.04/jammy-security [amd64])
Inst curl [7.81.0-1] (7.81.0-1ubuntu1.20 Ubuntu:22.04/jammy-updates, Ubuntu:22.04/jammy-security [amd64])
Inst nvidia-driver [1] (2 x [amd64])
"""


def test_what_apt_simulates_is_read_by_scope_and_part() -> None:
    def names(scope: Any, *, kernel: bool) -> list[str]:
        return [one.name for one in find_pending(REAL, {}, scope, kernel=kernel)]

    kernels = ["linux-image-6.1.0-28-amd64", "linux-image-amd64"]
    assert names("all", kernel=True) == ["libc-bin", "libssl3", *kernels, "curl"]
    assert names("all", kernel=False) == ["libc-bin", "libssl3", "curl"]
    assert names("security", kernel=True) == ["libssl3", *kernels, "curl"]
    found = find_pending(REAL, {}, "all", kernel=True)
    assert found[2] == Pending("linux-image-6.1.0-28-amd64", "", "6.1.119-1", "kernel")
    assert describe_pending(found) == "5 packages (libc, openssl, kernel)"
    assert describe_pending(found[4:]) == "1 package"
