"""What forbids a driver: each is refused before anything is changed, all at once, and only where it is known."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from shipway.cluster_file import parse_cluster
from shipway.converge import look_at_all
from shipway.errors import Refused
from shipway.gpu.driver.generations import SPACES, flavours_of, generation_of, gpus, read_devices, why_not_branch
from shipway.gpu.driver.packages import upstream
from shipway.host.session import Host
from shipway.ownership.evidence import KUBELET_CONF
from shipway.script import Output
from shipway.steps.gpu.driver.holders import ENDED, HOLDERS, Nobody, find_holders
from shipway.steps.gpu.driver.refusals import CONTAINER, NO_SECURE_BOOT, SECURE_BOOT, VIRTUAL, OnlyWhere, ask_cards
from tasks.stages import gpu_driver, preflight
from tests.gpu.driver_machine import (
    A100,
    B200,
    H100,
    KERNEL,
    L40S,
    P40,
    SWITCH,
    UNKNOWN,
    V1,
    DriverMachine,
    offers,
    space,
)
from tests.gpu.test_driver import cluster
from tests.os.rpm_family import Rpm
from tests.places.facts import DEBIAN, KnownFacts, said

UBUNTU = 'ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n'
POD = "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope"


async def refused(on: DriverMachine, family: Any = DEBIAN, **driver: Any) -> list[str]:
    """Return the codes of everything that forbids it."""
    made = cluster(**driver)
    before = dict(on.files), dict(on.packages)
    results = await look_at_all(gpu_driver.checks(made, made.hosts[1], family), cast("Host", on))
    assert (dict(on.files), dict(on.packages)) == before
    return sorted({one.error.code for one in results if one.error})


def of(*ids: int, kind: str = "0302") -> tuple[tuple[int, str], ...]:
    """Return GPUs of these ids."""
    return tuple((one, kind) for one in ids)


async def test_nothing_forbids_it_on_a_host_of_a_kind_that_is_known() -> None:
    assert await refused(DriverMachine()) == []
    assert await refused(DriverMachine(devices=of(UNKNOWN))) == [], "what is not known is not judged"


@pytest.mark.parametrize("said", ["SecureBoot enabled", "   1"])
async def test_secure_boot_forbids_modules_that_are_built_on_the_host_and_no_signed_ones(said: str) -> None:
    assert await refused(DriverMachine(boot=said)) == ["SHW-680"]
    signed = {
        "nvidia-headless-no-dkms-580-server-open": [f"{V1}-0ubuntu0.24.04.2"],
        "nvidia-utils-580-server": [f"{V1}-0ubuntu0.24.04.2"],
        "linux-modules-nvidia-580-server-open-amd64": ["6.8.0-49.49+1"],
        f"linux-modules-nvidia-580-server-open-{KERNEL}": ["6.8.0-49.49+1"],
    }
    assert await refused(DriverMachine(UBUNTU, boot=said, offered=signed), source="ubuntu") == []


async def test_a_dgx_os_keeps_its_own_driver_and_only_it_has_one() -> None:
    dgx = DriverMachine(UBUNTU, files={"/etc/dgx-release": b"DGX_NAME=x\n"})
    dgx.offered = {"nvidia-driver-580-open": [f"{V1}-0ubuntu1"], "nvidia-modprobe": [f"{V1}-0ubuntu1"]}
    assert "SHW-681" in await refused(dgx)
    assert await refused(dgx, source="dgx") == []
    assert await refused(DriverMachine(UBUNTU, offered=dgx.offered), source="dgx") == ["SHW-687"]


async def test_gpus_that_a_hypervisor_shares_are_refused_by_their_bus_and_by_the_driver() -> None:
    assert await refused(DriverMachine(virtual=True)) == ["SHW-682"]
    for modes, forbids in (("VGPU\n", True), ("None\nVGPU\n", True), ("None\n", False), ("", False)):
        host = cast("Host", KnownFacts({SPACES: said(f"0000:00:06.0 {space(H100)}"), VIRTUAL: said(modes)}))
        with pytest.raises(Refused, match="as the driver says") if forbids else contextlib.nullcontext():
            await ask_cards(host, cluster().gpu.driver, DEBIAN)


@pytest.mark.parametrize(
    ("host", "owned"),
    [
        (DriverMachine(files={"/usr/bin/nvidia-uninstall": b""}), ()),
        (DriverMachine(library="/usr/lib/libnvidia-ml.so.570.1", files={"/usr/lib/libnvidia-ml.so.570.1": b""}), ()),
        (DriverMachine(files={f"{CONTAINER.path}/usr": b""}), ()),
        (DriverMachine(files={"/usr/bin/nvidia-installer": b""}), ("/usr/bin/nvidia-installer",)),
    ],
)
async def test_a_driver_that_no_package_brought_is_refused(host: DriverMachine, owned: Sequence[str]) -> None:
    host.owned = tuple(owned)
    assert await refused(host) == ([] if owned else ["SHW-683"])


@pytest.mark.parametrize(
    ("ids", "branch", "codes"),
    [
        ((P40,), 590, ["SHW-684"]),
        ((P40,), 580, []),
        ((B200,), 550, ["SHW-684"]),
        ((H100,), 515, ["SHW-684"]),
        ((L40S,), 525, []),
        ((A100, UNKNOWN), 610, []),
    ],
)
async def test_a_branch_is_refused_for_what_it_is_known_not_to_drive(
    ids: tuple[int, ...], branch: int, codes: list[str]
) -> None:
    version = f"{branch}.90.05"
    assert await refused(DriverMachine(devices=of(*ids), offered=offers(version)), branch=branch) == codes


@pytest.mark.parametrize(
    ("ids", "flavour", "codes"),
    [
        ((B200,), "proprietary", ["SHW-685"]),
        ((P40,), "open", ["SHW-685"]),
        ((P40,), "auto", []),
        ((P40, A100), "auto", []),
        ((P40, B200), "auto", ["SHW-685"]),
        ((H100,), "proprietary", []),
    ],
)
async def test_a_flavour_is_refused_that_does_not_drive_every_gpu(
    ids: tuple[int, ...], flavour: str, codes: list[str]
) -> None:
    assert await refused(DriverMachine(devices=of(*ids)), flavour=flavour) == codes


def test_older_gpus_beside_middle_ones_take_the_proprietary_modules_and_all_others_the_open_ones() -> None:
    def best(*ids: int) -> tuple[str, ...]:
        said = "\n".join(f"0000:0{at}:00.0 {space(one)}" for at, one in enumerate(ids))
        return flavours_of(read_devices(said), branch)

    branch = 580

    assert best(P40, A100) == ("proprietary",)
    assert best(A100, H100) == ("open", "proprietary")
    assert best(B200, UNKNOWN) == ("open",)
    assert best(P40, B200) == ()
    branch = 535
    assert best(A100, H100) == ("proprietary", "open"), "open modules drove few GPUs then"


async def test_a_driver_that_is_not_offered_whole_is_refused_with_the_names_that_the_host_knows() -> None:
    host = DriverMachine(devices=((H100, "0302"), (SWITCH, "0680")))
    assert await refused(host) == ["SHW-686"]
    made = cluster()
    results = await look_at_all(gpu_driver.checks(made, made.hosts[1], DEBIAN), cast("Host", host))
    (error,) = (one.error for one in results if one.error)
    assert "fabric manager (nvidia-fabricmanager or nvidia-fabricmanager-580)" in error.message
    assert "they know nvidia-driver-cuda" in error.message


async def test_a_source_that_the_host_does_not_know_yet_forbids_nothing() -> None:
    assert await refused(DriverMachine(offered={"curl": ["1"]})) == []


@pytest.mark.parametrize(("release", "source"), [('ID=debian\nVERSION_ID="12"\n', "ubuntu"), ("ID=arch\n", "cuda")])
async def test_a_source_for_another_system_is_refused(release: str, source: str) -> None:
    assert await refused(DriverMachine(release), source=source) == ["SHW-687"]


async def test_a_system_of_another_family_has_no_driver_by_packages() -> None:
    made = cluster()
    assert gpu_driver.steps(made, made.hosts[1], cast("Any", Rpm({}))) == []
    codes = await refused(DriverMachine(), family=Rpm({}))
    assert codes == ["SHW-687"]


async def test_who_holds_a_gpu_outside_of_pods_forbids_it_and_pods_do_not() -> None:
    holders = f"7 python 0::/user.slice/session-1.scope\n8 vllm {POD}\n9 nvidia-persiste 0::/system.slice/x\n"
    host = DriverMachine(holders=holders)
    assert await refused(host) == ["SHW-688"]
    with pytest.raises(Refused, match=r"held by python \(7\) \[SHW-688\]"):
        await Nobody(outside=True).check(cast("Host", host))
    drift = await Nobody().check(cast("Host", host))
    assert drift is not None
    assert drift.have == "held by python (7); vllm (8)"
    assert find_holders(f"1 nv-fabricmanage 0::/x\n2 nvidia-device-p {POD}\n", outside=False) == []
    assert find_holders("garbage\n\n", outside=False) == []


@pytest.mark.parametrize("answer", [Output(124, "", ""), Output(0, "", ""), Output(124, f"{ENDED}\n", "")])
async def test_where_it_cannot_be_told_who_holds_a_gpu_that_is_no_nobody(answer: Output) -> None:
    host = cast("Host", KnownFacts({HOLDERS: answer}))
    with pytest.raises(Refused, match=r"cannot be told who holds a GPU .*\[SHW-688\]"):
        await Nobody(outside=True).check(host)
    drift = await Nobody().check(host)
    assert drift is not None
    assert "cannot be told" in drift.have
    nobody = cast("Host", KnownFacts({HOLDERS: Output(0, f"{ENDED}\n", "")}))
    assert await Nobody().check(nobody) is await Nobody(outside=True).check(nobody) is None


def test_who_was_asked_on_this_machine_is_all_of_it() -> None:
    ran = subprocess.run(HOLDERS.command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == ENDED


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({}, NO_SECURE_BOOT),
        ({"efi/efivars/BootOrder-8be4": b"x"}, NO_SECURE_BOOT),
        ({"efi/efivars/SecureBoot-8be4": b"\6\0\0\0\1"}, "1"),
        ({"efi/efivars/SecureBoot-8be4": b"\6\0\0\0\0"}, "0"),
        ({"efi/efivars/SecureBoot-8be4": b""}, ""),
        ({"efi/runtime": b"the variables are not mounted"}, ""),
    ],
)
def test_secure_boot_is_asked_of_the_firmware_and_what_does_not_tell_it_is_not_off(
    there: dict[str, bytes], said: str, tmp_path: Path
) -> None:
    for name, content in there.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "mokutil").write_text("#!/bin/sh\nexit 255\n")
    (tmp_path / "mokutil").chmod(0o755)
    script = SECURE_BOOT.command[-1].replace("/sys/firmware", str(tmp_path))
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = subprocess.run(["sh", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == said
    assert asyncio.run(refused(DriverMachine(boot=ran.stdout))) == (
        [] if said in (NO_SECURE_BOOT, "0") else ["SHW-680"]
    )


async def test_all_of_them_are_named_at_once() -> None:
    host = DriverMachine(boot="SecureBoot enabled", virtual=True, devices=of(P40), holders="7 python 0::/x\n")
    host.files["/usr/bin/nvidia-uninstall"] = b""
    assert await refused(host, branch=590, flavour="open") == [
        *("SHW-680", "SHW-682", "SHW-683", "SHW-684", "SHW-685", "SHW-688")
    ]


async def test_a_host_in_service_is_not_refused_by_a_bootstrap() -> None:
    made, host = cluster(), DriverMachine(boot="SecureBoot enabled", strict=False)
    asked = [
        one for one in preflight.checks(made, made.hosts[1], DEBIAN) if isinstance(one, OnlyWhere) and not one.joined
    ]
    assert len(asked) == len(gpu_driver.checks(made, made.hosts[1], DEBIAN))
    codes = {one.error.code for one in await look_at_all(asked, cast("Host", host)) if one.error}
    assert codes == {"SHW-680"}
    host.files |= {KUBELET_CONF: b"x", "/var/lib/kubelet/pki/kubelet-client-current.pem": b"x"}
    assert [one.error for one in await look_at_all(asked, cast("Host", host)) if one.error] == []


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        ("{source: cuda}", "needs its branch"),
        ("{source: cuda, branch: 580, version: '570.86.15'}", "is not of branch 580"),
        ("{source: cuda, version: '580'}", "the version of a driver in quotes"),
        ("{source: snap, branch: 580}", "ubuntu"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_by_the_file(driver: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        parse_cluster(f"name: te\nhosts: [10.0.0.1]\ngpu: {{driver: {driver}}}\n")


def test_devices_are_read_from_their_own_bytes() -> None:
    circle = bytearray(bytes.fromhex(space(H100)))
    circle[6], circle[0x34], circle[0x40], circle[0x41] = 0x10, 0x40, 0x05, 0x40
    said = f"0000:01:00.0  {space(H100)}\n0000:02:00.0 {circle.hex(' ')}\n0000:03:00.0 {space(SWITCH, '0680')}\nx zz\n"
    found = read_devices(said)
    assert [(one.address, one.id, one.kind, one.virtual) for one in found] == [
        ("0000:01:00.0", H100, "0302", False),
        ("0000:02:00.0", H100, "0302", False),
        ("0000:03:00.0", SWITCH, "0680", False),
    ]
    assert len(gpus(found)) == 2
    assert read_devices(f"0000:01:00.0 {space(H100, virtual=True)}")[0].virtual
    assert why_not_branch(found, 580) == []


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (0x102D, "Kepler"),
        (0x1389, "Maxwell"),
        (P40, "Pascal"),
        (0x1DB6, "Volta"),
        (0x1EB8, "Turing"),
        (A100, "Ampere"),
        (0x2236, "Ampere"),
        (L40S, "Ada"),
        (H100, "Hopper"),
        (0x233B, "Hopper"),
        (0x2342, "Grace Hopper"),
        (B200, "Blackwell"),
        (0x3182, "Blackwell"),
        (0x2BB5, "Blackwell"),
        (UNKNOWN, ""),
    ],
)
def test_a_device_is_of_its_generation(device: int, name: str) -> None:
    kind = generation_of(device)
    assert (kind.name if kind else "") == name


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("580.95.05-0ubuntu0.24.04.2", "580.95.05"),
        ("1:580.95.05-1", "580.95.05"),
        ("575.57-1", "575.57"),
        ("1.1.13-1build1", ""),
        ("1.20.0-1", ""),
        ("2025.06.5-1", ""),
    ],
)
def test_a_driver_s_version_is_told_from_what_only_has_its_name(version: str, found: str) -> None:
    assert upstream(version) == found
