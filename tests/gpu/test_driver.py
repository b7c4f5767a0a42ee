"""The driver of a host: what it gets, in one transaction and one version, and what of it follows."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.converge import converge
from shipway.errors import Refused
from shipway.host.session import Host
from shipway.os.debian import drivers as debian
from shipway.os.drivers import Drivers
from shipway.step import Impact, StepResult
from shipway.steps.gpu.driver.choice import Chooser
from shipway.steps.gpu.driver.declared import DriverDeclared
from shipway.steps.gpu.driver.module import ModuleLoaded, why_restart_for
from tasks.stages import gpu_driver
from tests.gpu.driver_machine import H100, KERNEL, SWITCH, V1, V2, DriverMachine, offers
from tests.os.machine import Installed
from tests.places.facts import DEBIAN

NEXT = "6.1.0-21-amd64"


def cluster(**driver: Any) -> Cluster:
    """Return a cluster with two GPUs on its worker and a driver of NVIDIA's repository."""
    driver = {"source": "cuda", "branch": 580, **driver}
    text = "name: te\nhosts: [{name: te1, address: 10.0.0.1}, {name: te2, address: 10.0.0.2, gpus: 2}]\n"
    return parse_cluster(f"{text}gpu: {{driver: {driver!r}}}\n".replace("None", "null"))


def steps(made: Cluster) -> list[Any]:
    """Return the steps on its worker, but for the repository, whose key nobody serves here."""
    found = gpu_driver.steps(made, made.hosts[1], DEBIAN)
    return [one for one in found if type(one).__name__ != "RepositoryIs"]


async def bring(on: DriverMachine, made: Cluster, allow: Impact = Impact.WORKLOADS) -> list[StepResult]:
    """Converge."""
    return await converge(steps(made), cast("Host", on), allow)


def wrong(results: list[StepResult]) -> list[str]:
    """Return what did not end well."""
    return [
        f"{one.step}: {one.outcome} {one.error or one.drift}" for one in results if one.outcome not in ("ok", "changed")
    ]


async def test_a_bare_host_gets_the_newest_whole_driver_of_the_branch_in_one_transaction() -> None:
    host = DriverMachine()
    host.packages["linux-headers-" + KERNEL] = Installed("1")
    results = await bring(host, cluster())
    assert wrong(results) == []
    assert len(host.installs) == 1
    named = [one.partition("=") for one in host.installs[0]]
    assert {version for _, _, version in named} == {f"{V2}-1"}, "every package has its version beside it"
    assert {name for name, _, _ in named} >= {"nvidia-kernel-open-dkms", "nvidia-driver-cuda", "libcuda1", "nvidia-smi"}
    assert all(host.packages[name].held for name, _, _ in named)
    assert host.files["/sys/module/nvidia/version"].decode().strip() == V2
    assert host.units["nvidia-persistenced"] == ["active", "enabled"]
    assert b"Pin: version 580.*\n" in host.files[debian.PIN]
    assert b"Pin-Priority: 1001" in host.files[debian.PIN]
    assert b'"^libnvidia-";' in host.files[debian.UNATTENDED]
    assert b"blacklist nouveau" in host.files["/etc/modprobe.d/shipway-nouveau.conf"]
    again = await bring(host, cluster())
    assert [one.step for one in again if one.outcome != "ok"] == []
    assert len(host.installs) == 1


async def test_a_plan_changes_nothing_and_names_every_package() -> None:
    host = DriverMachine()
    before = dict(host.files), dict(host.packages)
    results = await bring(host, cluster(), Impact.NOTHING)
    assert (dict(host.files), dict(host.packages)) == before
    (together,) = (one for one in results if one.step == "the driver is branch 580, all of it")
    assert together.drift is not None
    assert f"nvidia-driver-cuda {V2}-1" in together.drift.want


async def test_headers_come_for_the_running_and_the_next_kernel_and_both_get_the_module() -> None:
    host = DriverMachine(kernels=(KERNEL, NEXT))
    host.offered |= {f"linux-headers-{KERNEL}": ["1"], f"linux-headers-{NEXT}": ["1"]}
    assert wrong(await bring(host, cluster())) == []
    assert host.mods == {KERNEL, NEXT}


async def test_headers_that_no_repository_has_are_refused_before_the_driver_comes() -> None:
    host = DriverMachine()
    results = await bring(host, cluster())
    assert [one.error.code for one in results if one.outcome == "failed" and one.error] == ["SHW-690"]
    assert host.installs == []


async def test_a_next_kernel_that_dkms_passed_over_is_built_for() -> None:
    host = DriverMachine(kernels=(KERNEL, NEXT))
    host.packages |= {f"linux-headers-{one}": Installed("1") for one in (KERNEL, NEXT)}
    host.mods, host.builds = {KERNEL}, False
    assert wrong(await bring(host, cluster())) == []
    assert NEXT in host.mods


async def test_a_declared_version_is_brought_also_where_a_newer_one_is_offered_and_downwards() -> None:
    host = ready()
    assert wrong(await bring(host, cluster())) == []
    assert wrong(await bring(host, cluster(version=V1)))[0].startswith(
        "NVIDIA's module is loaded, in the installed version"
    ), "another one is loaded: a restart comes first"
    assert {one.version for name, one in host.packages.items() if name.startswith("nvidia")} == {f"{V1}-1"}
    assert f"Pin: version {V1}*\n".encode() in host.files[debian.PIN]
    assert await why_restart_for(cast("Host", host), DEBIAN) == [f"driver {V1} is installed, and {V2} is loaded"]
    host.restart()
    assert await why_restart_for(cast("Host", host), DEBIAN) == []
    assert wrong(await bring(host, cluster(version=V1))) == []


def ready(**more: Any) -> DriverMachine:
    """Return a host with its kernel's headers."""
    host = DriverMachine(**more)
    host.packages[f"linux-headers-{KERNEL}"] = Installed("1")
    return host


async def test_what_a_host_has_of_the_branch_stays_where_no_version_is_declared() -> None:
    host = ready(offered=offers(V1))
    assert wrong(await bring(host, cluster())) == []
    host.offered = offers(V2, V1)
    assert wrong(await bring(host, cluster())) == []
    assert (host.driver, len(host.installs)) == (V1, 1)
    host.offered = {name: [] for name in host.offered}
    assert wrong(await bring(host, cluster())) == [], "a repository that dropped it takes nothing away"


async def test_a_package_that_would_come_in_another_version_is_refused_and_nothing_is_changed() -> None:
    host = ready(odd={"libcuda1": f"{V1}-1"})
    results = await bring(host, cluster())
    (error,) = (one.error for one in results if one.outcome == "failed")
    assert error is not None
    assert (error.code, f"libcuda1 {V1}-1" in error.message, host.installs, host.driver) == ("SHW-689", True, [], "")


async def test_an_update_that_was_broken_off_is_made_whole() -> None:
    host = ready()
    assert wrong(await bring(host, cluster())) == []
    host.packages["libnvidia-ml1"].version = f"{V1}-1"
    host.packages["nvidia-kernel-support"].version = f"{V1}-1"
    results = await bring(host, cluster(version=V2))
    assert wrong(results) == []
    assert {one.version for name, one in host.packages.items() if "nvidia" in name} == {f"{V2}-1"}


async def test_another_flavour_takes_the_place_of_the_one_that_is_there() -> None:
    host = ready(removes={"nvidia-kernel-dkms": ("nvidia-kernel-open-dkms",)})
    assert wrong(await bring(host, cluster(version=V2))) == []
    assert wrong(await bring(host, cluster(version=V2, flavour="proprietary"))) == []
    assert "nvidia-kernel-open-dkms" not in host.packages


async def test_a_removal_of_what_is_no_driver_s_is_refused() -> None:
    host = ready(removes={"nvidia-driver-cuda": ("docker.io",)})
    host.packages["docker.io"] = Installed("1")
    results = await bring(host, cluster())
    assert [one.error.code for one in results if one.outcome == "failed" and one.error] == ["SHW-327"]
    assert "docker.io" in host.packages


async def test_a_module_that_the_kernel_does_not_take_is_told_with_its_words() -> None:
    host = ready(refuses_load="modprobe: ERROR: could not modprobe said: Cannot allocate memory")
    results = await bring(host, cluster())
    (error,) = (one.error for one in results if one.outcome == "failed")
    assert error is not None
    assert (error.code, "Cannot allocate memory" in error.message) == ("SHW-691", True)


async def test_a_driver_that_is_loaded_in_another_version_is_never_loaded_over() -> None:
    host = ready()
    host.packages["nvidia-driver-cuda"] = Installed(f"{V2}-1")
    host.files["/sys/module/nvidia/version"] = f"{V1}\n".encode()
    step = ModuleLoaded(cast("Drivers", DEBIAN.drivers()))
    await step.apply(cast("Host", host))
    assert not any(words[0] == "modprobe" for words in host.ran)
    assert await step.check(cast("Host", host)) is not None


async def test_nouveau_asks_for_a_restart_and_its_files_are_in_the_boot_images() -> None:
    host = ready(images_at=0)
    host.files["/proc/modules"] = b"nouveau 2000000 4 - Live 0x0\n"
    assert wrong(await bring(host, cluster())) == []
    assert host.images_at == 10, "the boot images were made after the file"
    assert await why_restart_for(cast("Host", host), DEBIAN) == ["nouveau is loaded in the driver's place"]
    host.restart()
    assert await why_restart_for(cast("Host", host), DEBIAN) == []


async def test_switches_get_a_fabric_manager_of_the_very_version_and_else_the_driver_is_another_one() -> None:
    fabric = {"nvidia-fabricmanager": [f"{V1}-1"], "libnvidia-nscq": [f"{V1}-1"]}
    host = ready(devices=((H100, "0302"), (SWITCH, "0680")), offered=offers(V2, V1) | fabric)
    assert wrong(await bring(host, cluster())) == []
    assert host.driver == V1, "the newest of which all parts are offered"
    assert host.units["nvidia-fabricmanager"] == ["active", "enabled"]
    started = [words[-1] for words in host.ran if words[:2] == ("systemctl", "start")]
    assert started == ["nvidia-fabricmanager", "nvidia-persistenced"], "the daemon may wait for the fabric"
    with pytest.raises(Refused, match=r"fabric manager.*they know .*nvidia-fabricmanager") as refused:
        await Chooser(cluster(version=V2).gpu.driver, DEBIAN).choose(
            cast("Host", ready(devices=host.devices, offered=host.offered))
        )
    assert refused.value.code == "SHW-686"


async def test_switches_of_nvlink_5_get_the_subnet_manager_and_its_module() -> None:
    fabric = {name: [f"{V2}-1"] for name in ("nvidia-fabricmanager", "libnvidia-nscq", "libnvsdm")}
    host = ready(managed=True, offered=offers(V2) | fabric | {"nvlsm": ["2025.06.5-1"]})
    assert wrong(await bring(host, cluster())) == []
    assert host.packages["nvlsm"].version == "2025.06.5-1"
    assert b"ib_umad" in host.files["/etc/modules-load.d/shipway-gpu-fabric.conf"]


async def test_memory_of_gpus_beside_a_grace_cpu_is_kept_by_the_driver() -> None:
    host = ready(devices=((0x2342, "0302"),))
    assert wrong(await bring(host, cluster())) == []
    assert b"NVreg_CoherentGPUMemoryMode=driver" in host.files["/etc/modprobe.d/shipway-nvidia.conf"]
    plain = ready()
    await bring(plain, cluster())
    assert "/etc/modprobe.d/shipway-nvidia.conf" not in plain.files


@pytest.mark.parametrize(
    ("befall", "said"),
    [
        (lambda host: host.packages.clear(), "no package of a driver is installed"),
        (
            lambda host: setattr(host.packages["libcuda1"], "version", f"{V1}-1"),
            "packages of several drivers are installed",
        ),
        (lambda host: host.files.pop("/sys/module/nvidia/version"), "none is loaded"),
        (lambda host: host.files.__setitem__("/sys/module/nvidia/version", b"570.86.15\n"), "570.86.15 is loaded"),
        (lambda host: setattr(host, "kernels", (KERNEL, NEXT)), f"kernel {NEXT} starts next and has no module"),
        (lambda host: host.packages.pop("nvidia-persistenced"), "missing: nvidia-persistenced"),
    ],
)
async def test_a_host_in_service_is_compared_and_never_changed(befall: Any, said: str) -> None:
    host, made = ready(), cluster()
    assert wrong(await bring(host, made)) == []
    step = DriverDeclared(made.gpu.driver, DEBIAN, "shipway maintain FILE --driver")
    assert await step.check(cast("Host", host)) is None
    befall(host)
    drift = await step.check(cast("Host", host))
    assert drift is not None
    assert said in drift.have
    assert "shipway maintain FILE --driver" in drift.want
    with pytest.raises(Refused, match="not changed in passing"):
        await step.apply(cast("Host", host))


async def test_another_branch_or_version_than_the_installed_one_is_told() -> None:
    host = ready()
    assert wrong(await bring(host, cluster())) == []
    for driver in ({"branch": 590}, {"version": V1}):
        step = DriverDeclared(cluster(**driver).gpu.driver, DEBIAN, "x")
        drift = await step.check(cast("Host", host))
        assert drift is not None
        assert f"{V2} is installed" in drift.have


async def test_what_we_held_is_let_go_and_what_a_person_held_stays_so() -> None:
    host = ready()
    host.packages["nvidia-smi"] = Installed(f"{V2}-1", held=True)
    assert wrong(await bring(host, cluster())) == []
    await converge(debian.taken_back(), cast("Host", host), Impact.FILES)
    held = {name for name, one in host.packages.items() if one.held}
    assert (held, debian.PIN in host.files, debian.UNATTENDED in host.files) == ({"nvidia-smi"}, False, False)


def test_without_a_declared_driver_there_is_nothing_to_do() -> None:
    plain = parse_cluster(
        "name: te\nhosts: [{name: te1, address: 10.0.0.1}, {name: te2, address: 10.0.0.2, gpus: 2}]\n"
    )
    assert gpu_driver.steps(plain, plain.hosts[1], DEBIAN) == []
    assert gpu_driver.checks(plain, plain.hosts[1], DEBIAN) == []
    assert gpu_driver.declared(plain, plain.hosts[1], DEBIAN, "f") == []
    assert gpu_driver.steps(cluster(), cluster().hosts[0], DEBIAN) != [], "GPUs of `auto` are told by their bus"
