"""GPUs are judged before anything is changed, and what a host will run into later is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from lab.simulated.options import Options
from shipway.facts.fact import Fact
from shipway.facts.files import FileState, FileText, Listing
from shipway.gpu.nvidia.answers import NVIDIA, find_unsupported
from shipway.host.session import Host
from shipway.known_failures.catalogue import diagnose
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.gpu.healthy import SECURE_BOOT, GpusHealthy
from shipway.survey.first_look import KERNEL_LOG, PCI_BOUND, PCI_CLASSES, on_bus, survey
from shipway.survey.notices import FORWARD, KERNELS, MODULES, RUNNING, UFW, firewall, next_kernel, read_notices
from tests.places.facts import KnownFacts, said
from tests.places.simulated import simulated_place

PCI, DRIVER, HANGS = on_bus(NVIDIA), NVIDIA.probe, NVIDIA.hangs
ONE_GPU: dict[Fact[Any], Any] = {
    PCI: said("/sys/bus/pci/devices/0000:10:00.0/vendor\n"),
    PCI_CLASSES: said("/sys/bus/pci/devices/0000:10:00.0/class\n"),
    DRIVER: said("GPU 0: NVIDIA A10 (UUID: GPU-1)\n"),
}
SILENT = said("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9)


async def of(facts: dict[Fact[Any], Any], declared: int | None = None) -> Drift | None:
    return await GpusHealthy(declared).check(cast("Host", KnownFacts(facts)))


async def test_a_gpu_that_the_driver_shows_is_well() -> None:
    assert await of(ONE_GPU) is None
    assert await of({}, 0) is None


@pytest.mark.parametrize(
    ("facts", "declared", "have", "code"),
    [
        ({}, 1, "0 on PCI", None),
        ({DRIVER: SILENT}, None, "couldn't communicate", "SHW-453"),
        ({DRIVER: said("", 124)}, None, HANGS, "SHW-461"),
        ({FileText("/proc/modules"): "nouveau 1 0 - Live\n"}, None, "Nouveau", "SHW-455"),
        ({DRIVER: said("Failed to initialize NVML: Driver/library version mismatch\n", 18)}, 1, "mismatch", "SHW-451"),
        (
            {DRIVER: said(f"Unable to determine the device handle for GPU0: {'x' * 300} end\n", 255)},
            1,
            "x end",
            "SHW-619",
        ),
        ({DRIVER: said("something new\n", 9)}, 1, "the driver says: something new", "SHW-619"),
        (
            {DRIVER: SILENT, KERNEL_LOG: said("[ 4.1] nvidia: Loading of unsigned module is rejected\n")},
            None,
            "the kernel says: [ 4.1] nvidia: Loading of unsigned",
            "SHW-454",
        ),
        ({DRIVER: SILENT, SECURE_BOOT: said("SecureBoot enabled\n")}, None, "Secure Boot is on", "SHW-453"),
    ],
)
async def test_what_is_wrong_with_a_gpu_is_named_so_that_the_catalogue_knows_it(
    facts: dict[Fact[Any], Any], declared: int | None, have: str, code: str | None
) -> None:
    drift = await of({**(ONE_GPU if facts else {}), **facts}, declared)
    assert drift is not None
    assert have in drift.have
    assert "\n" not in drift.have
    known = diagnose(drift.have)
    assert (known.code if known else None) == code


@pytest.mark.parametrize(
    ("kernels", "modules", "heard"),
    [
        (("6.8.0-49-generic",), "6.8.0-49-generic", False),
        (("6.8.0-101-generic", "6.8.0-49-generic"), "6.8.0-49-generic", True),  # 101 comes after 49
        (("6.8.0-101-generic", "6.8.0-49-generic"), "6.8.0-49-generic 6.8.0-101-generic", False),
        (("6.5.0-14-generic", "6.8.0-49-generic"), "6.8.0-49-generic", False),  # an older one is no next one
        (("6.8.0-101-generic", "6.8.0-49-generic"), "", False),  # no GPU, no module
        ((), "", False),
    ],
)
def test_a_next_kernel_without_the_driver_is_reported(kernels: tuple[str, ...], modules: str, *, heard: bool) -> None:
    paths = "".join(f"/lib/modules/{kernel}/updates/dkms/nvidia.ko.zst\n" for kernel in modules.split())
    found = next_kernel("6.8.0-49-generic", kernels, paths)
    assert bool(found) == heard
    assert not heard or "linux-headers-6.8.0-101-generic" in found


@pytest.mark.parametrize(
    ("ufw", "forward", "heard"),
    [
        ("ENABLED=no\n", "-P FORWARD ACCEPT\n", ""),
        ("# x\nENABLED=yes\n", "-P FORWARD DROP\n", "ufw is on"),
        ("", "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n", "drops forwarded packets"),
        ("", "", ""),
    ],
)
def test_a_firewall_that_is_on_is_reported_with_what_to_open(ufw: str, forward: str, heard: str) -> None:
    found = firewall(ufw, forward)
    assert heard in found
    assert bool(heard) == bool(found)


async def test_a_host_that_has_joined_is_past_its_firewall() -> None:
    facts: dict[Fact[Any], Any] = {
        RUNNING: said("6.8.0-49-generic\n"),
        KERNELS: ("6.8.0-49-generic",),
        MODULES: Output(1, "", "no such folder"),
        UFW: "ENABLED=yes\n",
        FORWARD: said("-P FORWARD DROP\n"),
        FileState("/run/reboot-required"): "there",
    }
    bare = await read_notices(cast("Host", KnownFacts(facts)))
    assert [text.split(" ")[0] for text in bare] == ["it", "ufw"]
    joined = await read_notices(cast("Host", KnownFacts({**facts, FileState("/etc/kubernetes/kubelet.conf"): "there"})))
    assert [text.split(" ")[0] for text in joined] == ["it"]
    assert await read_notices(cast("Host", KnownFacts({Listing("/x"): ()}))) == ()


# --- GPUs that are not meant for pods

OLD, GOOD, THIRD = "0000:01:00.0", "0000:41:00.0", "0000:81:00.0"
LEGACY = (
    "[3.1] NVRM: The NVIDIA GeForce GT 710 GPU installed in this system is\n"
    "[3.1] NVRM:  supported through the NVIDIA 470.xx Legacy drivers.\n"
)
NAMED = (
    "[    3.1] NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:128b)\n"
    "[    3.1] NVRM: installed in this system is not supported by the\n"
    "[    3.1] NVRM: NVIDIA 550.54.14 driver release.\n"
)
OPEN_KERNEL = NAMED.replace("by the\n", "by open\n").replace("NVIDIA 550.54.14 driver release", "nvidia.ko because")


def gpus(*addresses: str, shown: int, bound: str, log: str = "") -> dict[Fact[Any], Any]:
    return {
        PCI: said("".join(f"/sys/bus/pci/devices/{one}/vendor\n" for one in addresses)),
        PCI_CLASSES: said("".join(f"/sys/bus/pci/devices/{one}/class\n" for one in addresses)),
        PCI_BOUND: said("".join(f"/sys/bus/pci/drivers/{line}\n" for line in bound.split())),
        DRIVER: said("".join(f"GPU {at}: NVIDIA RTX A6000 (UUID: GPU-{at})\n" for at in range(shown))),
        KERNEL_LOG: said(log),
    }


@pytest.mark.parametrize("declared", [None, 1])
@pytest.mark.parametrize(
    ("bound", "log", "why"),
    [
        (f"nvidia/{GOOD}", LEGACY, "the installed NVIDIA driver does not support it"),
        (f"nvidia/{GOOD}", NAMED, "the installed NVIDIA driver does not support it"),
        (f"nvidia/{GOOD}", OPEN_KERNEL, "the installed NVIDIA driver does not support it"),
        (f"nvidia/{GOOD} vfio-pci/{OLD} snd_hda_intel/0000:01:00.1", "", "vfio-pci holds it for a virtual machine"),
    ],
)
async def test_a_host_is_taken_with_the_gpus_that_are_meant_for_pods(
    declared: int | None, bound: str, log: str, why: str
) -> None:
    facts = gpus(OLD, GOOD, shown=1, bound=bound, log=log)
    assert await of(facts, declared) is None
    seen = await survey(cast("Host", KnownFacts(facts)))
    assert seen.gpus == 1
    assert seen.left_out == (f"GPU {OLD} is left out: {why}",)
    drift = await of(facts, 2)
    assert drift is not None
    assert why in drift.have


async def test_a_gpu_without_a_driver_for_no_known_reason_is_not_left_out_in_silence() -> None:
    facts = gpus(OLD, GOOD, THIRD, shown=2, bound=f"nvidia/{GOOD} nvidia/{THIRD}")
    drift = await of(facts)
    assert drift is not None
    assert drift.have == f"the driver shows 2; {OLD} on PCI has no driver"
    assert "`gpus: 2` to go on without it" in drift.want
    assert await of(facts, 2) is None, "who declares the number knows"
    assert await of(facts, 3) is not None


async def test_a_gpu_that_fell_off_the_bus_is_no_gpu_that_was_never_meant_for_pods() -> None:
    lost = gpus(GOOD, THIRD, shown=1, bound=f"nvidia/{GOOD} nvidia/{THIRD}", log=LEGACY)
    drift = await of(lost)
    assert drift is not None
    assert drift.have.startswith("the driver shows 1")
    assert await of(gpus(OLD, GOOD, shown=0, bound="", log=LEGACY)) is not None, (
        "no driver at all is a fault of the driver"
    )


def test_the_log_tells_of_the_gpus_that_it_names() -> None:
    assert find_unsupported(LEGACY) == (True, frozenset())
    assert find_unsupported(NAMED) == (True, frozenset({OLD}))
    assert find_unsupported("[1.0] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.14\n") == (False, frozenset())
    assert find_unsupported("") == (False, frozenset())


async def test_a_machine_with_a_gpu_for_its_virtual_machine_passes_preflight(tmp_path: Path) -> None:
    async with simulated_place(tmp_path, Options(hosts=1, gpus=2, scale=0.0)) as place:
        machine = place.machine("te1")
        address = machine.kernel.pci[0][0]
        machine.kernel.held[address] = "vfio-pci"
        del machine.gpu.devices[0]
        looked = await place.run([GpusHealthy(None), GpusHealthy(1), GpusHealthy(2)], "te1", Impact.NOTHING)
        assert [row.outcome for row in looked] == ["ok", "ok", "drifted"]
        seen = await survey(place.session("te1"))
        assert (seen.gpus, seen.driver_gpus) == (1, 1)
        assert seen.left_out == (f"GPU {address} is left out: vfio-pci holds it for a virtual machine",)
