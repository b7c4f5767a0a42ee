"""Updates on Debian: read from apt's simulation, brought while what stays is held; what apt keeps back is noted."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.errors import CommandFailed, Refused
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.host.session import Host
from shipway.os.debian.packages import HELD_MEANWHILE
from shipway.os.debian.updates import (
    INDEXED,
    KEPT_BACK,
    SIMULATED,
    PackagesIndexed,
    PackagesUpdated,
    UpdatesFetched,
    find_changed,
    find_restart_reasons,
    read_pending,
)
from shipway.script import Output
from shipway.step import Drift
from tests.os.debian_machine import DebianMachine
from tests.os.machine import Installed
from tests.places.facts import KnownFacts

RELEASE = 'ID=debian\nVERSION_ID="12"\n'


def machine(**more: Any) -> DebianMachine:
    names = ("base", "tied", "containerd.io")
    made = DebianMachine(RELEASE, offered={name: ["2", "1"] for name in names}, **more)
    made.packages = {name: Installed("1") for name in names}
    return made


async def test_what_apt_keeps_back_for_a_package_that_stays_is_not_pending_again() -> None:
    host = machine(needs={"tied": "containerd.io"})
    step = PackagesUpdated("all", kernel=True)
    await step.apply(cast("Host", host))
    assert {name: one.version for name, one in host.packages.items()} == {
        "base": "2",
        "tied": "1",
        "containerd.io": "1",
    }
    assert host.files[KEPT_BACK] == b"tied 2\n"
    assert await step.check(cast("Host", host)) is None
    host.offered["tied"] = ["3", "2", "1"]
    assert await step.check(cast("Host", host)) == Drift("1 package to come", "none"), "a later version is tried again"


async def test_holds_of_a_run_that_was_broken_off_are_drift_and_let_go() -> None:
    host = machine()
    host.packages = {"base": Installed("2"), "mine": Installed("1", held=True), "left": Installed("1", held=True)}
    host.files[HELD_MEANWHILE] = b"left\nnot-there\n"
    step = PackagesUpdated("all", kernel=True)
    assert "broken off" in str(await step.check(cast("Host", host)))
    await step.apply(cast("Host", host))
    assert [name for name, one in host.packages.items() if one.held] == ["mine"]
    assert HELD_MEANWHILE not in host.files
    assert await step.check(cast("Host", host)) is None


async def test_a_removal_is_refused_unless_it_is_allowed() -> None:
    removing = Output(0, "Inst base [1] (2 x [amd64])\nRemv docker.io [1]\n", "")
    host = cast("Host", KnownFacts({SIMULATED: removing}))
    with pytest.raises(Refused) as raised:
        await PackagesUpdated("all", kernel=True).check(host)
    assert (raised.value.code, "docker.io" in raised.value.message) == ("SHW-327", True)
    assert await PackagesUpdated("all", kernel=True, removable=("docker.io",)).check(host) is not None


async def test_an_apt_that_cannot_tell_is_no_host_without_updates() -> None:
    host = cast("Host", KnownFacts({SIMULATED: Output(100, "", "E: The list of sources could not be read.")}))
    with pytest.raises(CommandFailed):
        await read_pending(host, "all", kernel=True)


@pytest.mark.parametrize(("age", "young"), [(3600, True), (3601, False)])
async def test_lists_are_young_for_an_hour(age: int, *, young: bool) -> None:
    class Aged(DebianMachine):
        """One whose clock is at 10000."""

        def _value(self, fact: Any) -> Any:
            if fact == FileState(INDEXED):
                return FileInfo("0" * 64, "644", "root:root", 100 - age)
            return super()._value(fact)

    found = await PackagesIndexed().check(cast("Host", Aged(RELEASE)))
    assert (found is None) is young


async def test_files_of_a_repository_on_the_host_itself_need_no_fetching() -> None:
    host = machine()
    host.packages = {"base": Installed("1")}
    real = host.program

    def program(words: tuple[str, ...]) -> Output:
        if "--print-uris" in words:
            return Output(0, "'file:/opt/packages/base.deb' base.deb 100 SHA256:x\n", "")
        return real(words)

    host.program = program  # type: ignore[method-assign]
    assert await UpdatesFetched("all", kernel=True).check(cast("Host", host)) is None


async def test_why_the_system_asks_for_a_restart_is_told() -> None:
    host = DebianMachine(RELEASE, changed={"libc6": 60, "libssl3": 40, "curl": 70, "intel-microcode": 80})
    host.files["/run/reboot-required"] = b"*** System restart required ***\n"
    host.files["/run/reboot-required.pkgs"] = b"linux-image-6.1.0-20-amd64\nlinux-base\nlinux-base\n"
    assert await find_restart_reasons(cast("Host", host), 50.0) == [
        "the system asks for it (linux-image-6.1.0-20-amd64, linux-base)",
        "changed since the boot: intel-microcode, libc6",
    ]
    assert await find_changed(cast("Host", host), ("libssl[0-9]*",), 30.0) == ["libssl3"]
    assert FileText("/run/reboot-required.pkgs").path in host.read_paths
