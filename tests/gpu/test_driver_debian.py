"""The driver of Debian's own archive: parts with versions of their own, two flavours, and sources that lack it.

Names, versions and words are those of Debian 12 (tests/lab/test_debian_driver.py has the real packages).
"""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.converge import converge, look_at_all
from shipway.errors import Refused, ShipwayError
from shipway.gpu.driver.packages import OWN_VERSION, versions_of
from shipway.host.session import Host
from shipway.step import Impact, StepResult
from shipway.steps.gpu.driver.declared import DriverDeclared
from shipway.steps.gpu.driver.module import why_restart_for
from shipway.survey.notices import kernels_with
from tasks.stages import gpu_driver
from tests.gpu.driver_machine import (
    DEBIAN_535,
    H100,
    KERNEL,
    OF_DEBIAN,
    SWITCH,
    V2,
    DriverMachine,
    of_debian,
)
from tests.gpu.test_driver import cluster, wrong
from tests.places.facts import DEBIAN

ENTRY = "/etc/apt/sources.list.d/debian.sources:1|http://deb.debian.org/debian/|bookworm"
DEFAULT = f"{ENTRY}|main\n{ENTRY}|non-free-firmware\n{ENTRY}-updates|main\n"  # as Debian 12 is installed


def declared(**driver: Any) -> Cluster:
    """Return a cluster with the driver of Debian's archive."""
    return cluster(**{"source": "debian", "branch": 535, **driver})


async def bring(on: DriverMachine, made: Cluster) -> list[StepResult]:
    """Converge."""
    return await converge(gpu_driver.steps(made, made.hosts[1], DEBIAN), cast("Host", on), Impact.WORKLOADS)


async def errors(on: DriverMachine, made: Cluster) -> list[ShipwayError]:
    """Return all that forbids it."""
    results = await look_at_all(gpu_driver.checks(made, made.hosts[1], DEBIAN), cast("Host", on))
    return [one.error for one in results if one.error]


async def test_a_bare_debian_gets_the_driver_of_its_archive_and_parts_of_another_version_are_no_mix() -> None:
    host, made = of_debian(), declared()
    assert await errors(host, made) == []
    assert wrong(await bring(host, made)) == []
    (install,) = host.installs
    assert {"nvidia-kernel-dkms=535.261.03-1", "nvidia-persistenced=535.171.04-1~deb12u1"} <= set(install)
    assert host.packages["nvidia-modprobe"].version == "535.161.07-1~deb12u1"
    assert host.packages["nvidia-settings"].version == "535.247.01-1~deb12u1"
    assert all(host.packages[name].held for name in OF_DEBIAN if name in host.packages)
    assert host.files["/sys/module/nvidia/version"].decode().strip() == DEBIAN_535
    assert host.mods == {KERNEL}
    assert await why_restart_for(cast("Host", host), DEBIAN) == []
    assert [one.step for one in await bring(host, made) if one.outcome != "ok"] == []
    step = DriverDeclared(made.gpu.driver, DEBIAN, "x")
    assert await step.check(cast("Host", host)) is None


@pytest.mark.parametrize("name", ["libcuda1", "nvidia-kernel-support", "firmware-nvidia-gsp"])
async def test_a_part_that_is_always_of_the_driver_s_version_is_a_mix_in_another_one(name: str) -> None:
    host, made = of_debian(), declared()
    assert wrong(await bring(host, made)) == []
    host.packages[name].version = "535.247.01-1"
    drift = await DriverDeclared(made.gpu.driver, DEBIAN, "x").check(cast("Host", host))
    assert drift is not None
    assert "packages of several drivers are installed: 535.247.01, 535.261.03" in drift.have
    refused = of_debian(odd={"nvidia-kernel-support": "535.247.01-1"})
    results = await bring(refused, made)
    assert [one.error.code for one in results if one.outcome == "failed" and one.error] == ["SHW-689"]


async def test_the_flavours_take_each_other_s_place_and_what_only_sounds_open_stays() -> None:
    host = of_debian()
    for flavour, gone in (("proprietary", "open-kernel"), ("open", "kernel"), ("proprietary", "open-kernel")):
        assert wrong(await bring(host, declared(flavour=flavour))) == []
        assert {f"nvidia-{gone}-dkms", f"nvidia-{gone}-support"}.isdisjoint(host.packages)
        assert {"libnvidia-pkcs11-openssl3", "nvidia-opencl-icd", "nvidia-settings"} <= set(host.packages)
    assert len(host.installs) == 3


async def test_sources_without_the_parts_of_the_archive_are_refused_with_the_file_and_what_to_write() -> None:
    host = of_debian(offered={"firmware-nvidia-gsp": ["535.261.03-1"]}, targets=DEFAULT)
    (error,) = await errors(host, declared())
    assert error.code == "SHW-686"
    said = "its sources of bookworm (/etc/apt/sources.list.d/debian.sources:1) have no contrib, non-free"
    assert said in error.message
    assert "`main non-free-firmware contrib non-free` behind `Components:`" in error.fix
    bare = of_debian(offered={"curl": ["1"]}, targets="")
    (error,) = await errors(bare, declared())
    assert "(/etc/apt/sources.list) have no contrib, non-free, non-free-firmware" in error.message
    old = of_debian(
        offered={"curl": ["1"]}, targets=DEFAULT, release='ID=debian\nVERSION_ID="11"\nVERSION_CODENAME=bookworm\n'
    )
    (error,) = await errors(old, declared())
    assert error.message.endswith("have no contrib, non-free"), "non-free-firmware is there from Debian 12 on"
    alias = DEFAULT.replace("|bookworm|", "|stable|")
    (error,) = await errors(of_debian(offered={"curl": ["1"]}, targets=alias), declared())
    assert said in error.message


async def test_lists_that_nobody_fetched_forbid_nothing_and_neither_does_a_source_that_is_still_to_be_written() -> None:
    bare = of_debian(offered={"curl": ["1"]})
    del bare.packages["nvidia-opencl-icd"]
    assert await errors(bare, declared()) == []
    assert await errors(of_debian(offered={"firmware-nvidia-gsp": [f"{DEBIAN_535}-1"]}), declared()) == []
    key = {"url": "https://mirror.example/key", "fingerprint": "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"}
    base = {"uri": "https://mirror.example/debian", "suite": "{codename}", "key": key}
    text = (
        "name: te\nhosts: [{name: te1, address: 10.0.0.1}, {name: te2, address: 10.0.0.2, gpus: 2}]\n"
        "gpu: {driver: {source: debian, branch: 535}}\n"
        f"sources: {{base_apt: {base | {'components': ['main']}!r}}}\n"
    )
    with pytest.raises(Refused, match="has no contrib, non-free: Debian's driver comes from it"):
        parse_cluster(text)
    whole = text.replace("['main']", "['main', 'contrib', 'non-free', 'non-free-firmware']")
    assert await errors(of_debian(offered={"firmware-nvidia-gsp": ["1"]}, targets=DEFAULT), parse_cluster(whole)) == []


async def test_debian_s_own_driver_beside_nvidia_s_repository_to_come_forbids_nothing() -> None:
    host = of_debian(offered={"nvidia-kernel-dkms": [f"{DEBIAN_535}-1"]})
    assert await errors(host, cluster(branch=580)) == []
    assert await errors(host, cluster(version=V2)) == []


async def test_a_branch_that_the_archive_does_not_have_is_refused_with_the_one_that_it_has() -> None:
    for driver in ({"branch": 580}, {"branch": None, "version": V2}):
        (error,) = await errors(of_debian(), declared(**driver))
        assert (error.code, "and offer 535.261.03" in error.message) == ("SHW-686", True)


async def test_hosts_with_switches_are_refused_for_debian_has_no_fabric_manager() -> None:
    (error,) = await errors(of_debian(devices=((H100, "0302"), (SWITCH, "0680"))), declared())
    assert error.code == "SHW-686"
    assert "535.261.03: fabric manager" in error.message


async def test_secure_boot_and_another_system_refuse_debian_s_modules() -> None:
    assert [one.code for one in await errors(of_debian(boot="SecureBoot enabled"), declared())] == ["SHW-680"]
    ubuntu = of_debian(release='ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n')
    assert [one.code for one in await errors(ubuntu, declared())] == ["SHW-687"]


@pytest.mark.parametrize(
    ("file", "is_one"),
    [
        ("nvidia.ko.xz", True),
        ("nvidia-current.ko", True),
        ("nvidia-current-open.ko", True),
        ("nvidia-tesla-535.ko", True),
        ("nvidia-wmi-ec-backlight.ko", False),
        ("nvidiafb.ko", False),
        ("nvidia-current-uvm.ko", False),
    ],
)
def test_debian_s_file_names_of_the_module_are_known_and_the_kernel_s_own_are_none(file: str, *, is_one: bool) -> None:
    assert kernels_with(f"/lib/modules/6.1.0-1-amd64/updates/dkms/{file}\n") == ({"6.1.0-1-amd64"} if is_one else set())


async def test_a_kernel_that_has_no_gpu_for_the_module_is_told_with_modprobe_s_words() -> None:
    host = of_debian(refuses_load="modprobe: ERROR: could not insert 'nvidia_current': No such device")
    (error,) = (one.error for one in await bring(host, declared()) if one.outcome == "failed")
    assert error is not None
    assert error.code == "SHW-691"
    said = (
        "the kernel does not load NVIDIA's module: modprobe: ERROR: could not insert 'nvidia_current': No such device"
    )
    assert error.message == said, "that the module is not loaded is no cause here"


def test_what_has_a_version_of_its_own_is_of_no_driver() -> None:
    assert versions_of({name.replace("*", "-x"): "570.133.07-1" for name in OWN_VERSION}) == set()
