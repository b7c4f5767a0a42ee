"""A driver's packages on a real apt and dpkg, in a chroot of Debian 12; the packages are SIMULATED and empty.

Their names and how they depend on each other are those of NVIDIA's repository for Debian, one of them loosely on
purpose: so apt would mix two drivers. There is no GPU and no kernel module: loading says so. No containers are needed.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.containers.commands import run
from lab.containers.deb_builder import Deb
from shipway.converge import converge, look_at_all
from shipway.host.session import Command, Host
from shipway.os.debian import drivers
from shipway.script import Output
from shipway.step import Impact, StepResult
from tasks.stages import gpu_driver
from tests.fresh.__main__ import archive
from tests.gpu.driver_machine import V1, V2
from tests.gpu.test_driver import cluster
from tests.places.facts import DEBIAN

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
MODULES = ("nvidia-kernel-open-dkms", "nvidia-kernel-dkms")
PLAIN = ("libcuda1", "libnvidia-ml1", "nvidia-kernel-support", "nvidia-persistenced")
PARTS = ("nvidia-driver-cuda", "nvidia-smi", *PLAIN)
LISTED = "dpkg-query -W -f '${db:Status-Abbrev}|${Package}|${Version}\\n'"


class Chrooted:
    """A shell in a chroot, as root of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def words(self, text: str) -> tuple[str, ...]:
        """Return the command that runs a script there."""
        return ("chroot", str(self.root), "bash", "-c", text)

    async def script(self, text: str, *, stdin: bytes | None = b"", seconds: float) -> tuple[str, str]:
        """Run a script."""
        words = self.words(text)
        pipe = subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
        said, errors = await asyncio.wait_for(process.communicate(stdin or b""), seconds)
        return said.decode(), errors.decode()

    async def forward(self, address: str, port: int) -> int:
        """Lead nowhere."""
        raise NotImplementedError


class System(Host):
    """A system without systemd: what is long runs as any other command."""

    async def operate(self, name: str, words: Sequence[str], *, seconds: int, marker: str = "") -> Output:
        """Run it."""
        del name, marker
        return (await self._sent([Command(tuple(words), seconds=seconds)]))[-1]


class Place:
    """The system, what it is offered, and the driver that it is brought to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = System("te2", Chrooted(root))

    def sh(self, text: str) -> str:
        """Run a script there; it must end well."""
        ran = subprocess.run(
            ["chroot", str(self.root), "bash", "-ec", text], capture_output=True, text=True, check=False, timeout=300
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def offer(self, work: Path, *versions: str, without: Sequence[str] = ()) -> None:
        """Let apt offer these drivers; `without` are NAME=VERSION that are not there."""
        debs = self.root / "opt" / "debs"
        run("rm", "-rf", debs)
        debs.mkdir(parents=True)
        for one in (*_rest(self.sh("uname -r").strip()), *(deb for version in versions for deb in _driver(version))):
            if f"{one.name}={one.version}" not in without:
                one.build(work, debs / f"{one.name}_{one.version}.deb")
        (debs / "Packages").write_text(run("apt-ftparchive", "packages", ".", cwd=debs) + "\n", encoding="utf-8")
        self.sh(
            "rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*; "
            "echo 'deb [trusted=yes] file:/opt/debs ./' > /etc/apt/sources.list.d/lab.list; apt-get -q update"
        )

    def packages(self) -> dict[str, tuple[str, bool]]:
        """Return the version of each package of a driver, and whether it is held; of some only settings are left."""
        rows = [line.split("|") for line in self.sh(LISTED).splitlines()]
        return {
            name: (version, status[0] == "h")
            for status, name, version in rows
            if status[1] == "i" and drivers.is_drivers(name, version)
        }

    async def bring(self, **driver: Any) -> list[StepResult]:
        """Bring a driver, up to the restart, as far as its repository is known already."""
        made = cluster(**driver)
        steps = gpu_driver.before_restart(made, made.hosts[1], DEBIAN)
        self.host.forget()
        chosen = [one for one in steps if type(one).__name__ != "RepositoryIs"]
        return await converge(chosen, self.host, Impact.WORKLOADS)

    async def refused(self, **driver: Any) -> set[str]:
        """Return the codes of what forbids a driver."""
        made = cluster(**driver)
        self.host.forget()
        results = await look_at_all(gpu_driver.checks(made, made.hosts[1], DEBIAN), self.host)
        return {one.error.code for one in results if one.error}


def _driver(version: str) -> Iterator[Deb]:
    full = f"{version}-1"
    same = f"(= {full})"
    yield Deb(
        "nvidia-driver-cuda", full, "SIMULATED", fields={"Depends": f"libcuda1, libnvidia-ml1 {same}, nvidia-smi"}
    )
    yield Deb("nvidia-smi", full, "SIMULATED", fields={"Depends": "libnvidia-ml1"})
    for name, other in (MODULES, MODULES[::-1]):
        needs = {"Depends": f"dkms, nvidia-kernel-support (>= {full})", "Conflicts": other}
        yield Deb(name, full, "SIMULATED", fields=needs)
    for name in PLAIN:
        yield Deb(name, full, "SIMULATED")


def _rest(kernel: str) -> Iterator[Deb]:
    yield Deb("dkms", "3.0", "SIMULATED")
    yield Deb(
        f"linux-headers-{kernel}", "1", "SIMULATED", texts={f"/lib/modules/{kernel}/build/Makefile": "# SIMULATED\n"}
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An unpacked system that is offered two drivers."""
    root = tmp_path_factory.mktemp("driver")
    run("tar", "--extract", "--file", archive("bookworm"), "--directory", root)
    made = Place(root)
    made.offer(tmp_path_factory.mktemp("debs"), V2, V1)
    return made


def wrong(results: list[StepResult]) -> list[str]:
    """Return what did not end well."""
    odd = [one for one in results if one.outcome not in ("ok", "changed")]
    return [f"{one.step}: {one.outcome} {one.error or one.drift}" for one in odd]


async def test_the_newest_whole_driver_comes_in_one_transaction_and_is_pinned_and_held(place: Place) -> None:
    assert await place.refused() == set()
    assert wrong(await place.bring()) == []
    assert place.packages() == dict.fromkeys((MODULES[0], *PARTS), (f"{V2}-1", True))
    history = place.sh("grep Commandline /var/log/apt/history.log | grep -c nvidia-driver-cuda=").strip()
    assert history == "1"
    assert f"Candidate: {V2}-1" in place.sh("apt-cache policy libcuda1")
    assert "^libnvidia-" in place.sh("apt-config dump Unattended-Upgrade::Package-Blacklist")
    again = await place.bring()
    assert [one.step for one in again if one.outcome != "ok"] == []


async def test_a_step_down_takes_every_part_along_and_nothing_moves_it_afterwards(place: Place) -> None:
    assert wrong(await place.bring(version=V1)) == []
    assert place.packages() == dict.fromkeys((MODULES[0], *PARTS), (f"{V1}-1", True))
    assert "0 upgraded" in place.sh("apt-get -s dist-upgrade")
    place.sh("apt-mark unhold libcuda1")
    assert "0 upgraded" in place.sh("apt-get -s dist-upgrade"), "by the pin alone"


async def test_an_update_that_was_broken_off_is_made_whole(place: Place) -> None:
    place.sh(f"apt-get -y -q --allow-change-held-packages install libcuda1={V2}-1 nvidia-smi={V2}-1")
    assert len({version for version, _ in place.packages().values()}) == 2
    assert wrong(await place.bring(version=V1)) == []
    assert {version for version, _ in place.packages().values()} == {f"{V1}-1"}


async def test_the_other_flavour_takes_the_module_s_place(place: Place) -> None:
    assert wrong(await place.bring(version=V2, flavour="proprietary")) == []
    assert place.packages() == dict.fromkeys((MODULES[1], *PARTS), (f"{V2}-1", True))
    assert wrong(await place.bring(version=V2)) == []


async def test_a_part_that_is_offered_in_another_version_alone_is_refused_and_nothing_is_changed(
    place: Place, tmp_path: Path
) -> None:
    place.offer(tmp_path, V2, V1, without=[f"libcuda1={V1}-1"])
    before = place.packages()
    results = await place.bring(version=V1)
    assert [one.error.code for one in results if one.outcome == "failed" and one.error] == ["SHW-689"]
    assert place.packages() == before
    place.offer(tmp_path, V2, V1)


async def test_loading_says_that_there_is_no_module(place: Place) -> None:
    made = cluster(version=V2)
    assert wrong(await place.bring(version=V2)) == []
    place.host.forget()
    results = await converge(gpu_driver.after_restart(made, made.hosts[1], DEBIAN), place.host, Impact.WORKLOADS)
    (error,) = (one.error for one in results if one.outcome == "failed")
    assert error is not None
    assert error.code in ("SHW-691", "SHW-420", "SHW-453"), error


async def test_each_refusal_of_what_a_host_is_by_its_own_programs(place: Place) -> None:
    assert await place.refused(branch=590) == set(), "NVIDIA's repository, which may have it, is not known there yet"
    assert await place.refused(source="ubuntu") == {"SHW-687"}
    for path, code in (("/etc/dgx-release", "SHW-681"), ("/usr/bin/nvidia-uninstall", "SHW-683")):
        place.sh(f"touch {path}")
        assert await place.refused() == {code}
        place.sh(f"rm {path}")
    place.sh("printf '#!/bin/sh\\necho SecureBoot enabled\\n' > /usr/bin/mokutil; chmod 755 /usr/bin/mokutil")
    assert await place.refused() == {"SHW-680"}
    place.sh("rm /usr/bin/mokutil")
    assert await place.refused() == set()


async def test_a_reset_lets_go_and_leaves_the_driver(place: Place) -> None:
    was = {name: version for name, (version, _) in place.packages().items()}
    place.host.forget()
    assert wrong(await converge(drivers.taken_back(), place.host, Impact.FILES)) == []
    assert place.packages() == {name: (version, False) for name, version in was.items()}
    assert place.sh("ls /etc/apt/preferences.d /etc/apt/apt.conf.d | grep -c shipway || true").strip() == "0"
