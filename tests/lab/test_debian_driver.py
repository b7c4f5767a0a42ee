"""The driver of Debian's own archive, from the REAL packages, in a chroot of Debian 12 with a kernel of Debian's.

Real are the packages, apt, dpkg, dkms, the compiler and modprobe. Stand-ins: `uname -r` says the chroot's kernel (this
machine's runs), and where a test says so files below /sys are a bus with GPUs. There is no GPU: loading says so. The
lab's own packages say SIMULATED. Needs root, and Debian's archive as this machine's apt reaches it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.containers.commands import run
from lab.containers.deb_builder import Deb
from shipway.converge import converge, look_at_all
from shipway.errors import ShipwayError
from shipway.os.debian import drivers
from shipway.step import Impact, StepResult
from shipway.steps.gpu.driver.declared import DriverDeclared
from shipway.steps.gpu.driver.module import installed_version, why_restart_for
from shipway.steps.maintain.restart import KernelHasModule
from tasks.stages import gpu_driver
from tests.fresh.__main__ import archive, cache, mirror
from tests.gpu.driver_machine import B200, H100, P40, SWITCH, space
from tests.gpu.test_driver import cluster
from tests.lab.test_gpu_driver import Chrooted, Place, System, wrong
from tests.places.facts import DEBIAN

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
KEEP = 'mount -t proc proc "$0/proc" && exec chroot "$0" sh -c "echo there; exec sleep infinity"'
SECONDS = 2400  # for a build of the modules beside other work
UNAME = '#!/bin/sh\n[ "$*" != -r ] || exec cat /etc/stand-in-kernel\nexec /usr/bin/uname "$@"\n'
DEFAULT = """Types: deb
URIs: {uri}
Suites: bookworm
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
IN_STEP = ("libcuda1", "libnvidia-ml1", "libnvidia-nvvm4", "libnvidia-cfg1", "nvidia-smi", "nvidia-alternative")
OWN = ("nvidia-modprobe", "nvidia-persistenced")
BUS = "/sys/bus/pci/devices"


class Mounted(Chrooted):
    """A shell in a chroot that has a /proc while its keeper lives: mounts of a namespace of its own."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        words = ("unshare", "--mount", "sh", "-c", KEEP, str(root))
        self.keeper = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.keeper.stdout is not None
        assert self.keeper.stdout.readline() == "there\n"

    def words(self, text: str) -> tuple[str, ...]:
        """Return the command that runs a script there."""
        return ("nsenter", "--target", str(self.keeper.pid), "--mount", "--root", "--wd", "bash", "-c", text)


class Real(Place):
    """A chroot of Debian 12 and what its own archive offers it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.inside = Mounted(root)
        self.host = System("te2", self.inside)
        self.version = self.branch = self.kernel = ""

    def sh(self, text: str) -> str:
        """Run a script there; it must end well."""
        words = self.inside.words(f"set -e\nexport DEBIAN_FRONTEND=noninteractive\n{text}")
        ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file there."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        place.chmod(mode)

    def fetch(self, *packages: str) -> None:
        """Fetch packages with what they need, once for all runs: they are kept beside the packed systems."""
        kept, here = cache() / "driver-debs", self.root / "var/cache/apt/archives"
        kept.mkdir(exist_ok=True)
        for one in kept.glob("*.deb"):
            shutil.copy(one, here)
        self.sh(f"apt-get -q -y --no-install-recommends --download-only install {' '.join(packages)}")
        for one in here.glob("*.deb"):
            if not (kept / one.name).exists():
                shutil.copy(one, kept)

    def offer_own(self, work: Path, *debs: Deb) -> None:
        """Offer packages of the lab's own beside Debian's."""
        folder = self.root / "opt/debs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for one in debs:
            one.build(work, folder / f"{one.name}_{one.version}.deb")
        (folder / "Packages").write_text(run("apt-ftparchive", "packages", ".", cwd=folder) + "\n", encoding="utf-8")
        self.put("/etc/apt/sources.list.d/lab.list", "deb [trusted=yes] file:/opt/debs ./\n")
        self.sh("apt-get -q update")

    def declared(self, **driver: Any) -> Any:
        """Return a cluster file with Debian's driver, of the branch that the archive has."""
        return cluster(**{"source": "debian", "branch": int(self.branch), **driver})

    async def bring(self, **driver: Any) -> list[StepResult]:
        """Bring it, up to the restart."""
        made = self.declared(**driver)
        self.host.forget()
        return await converge(gpu_driver.before_restart(made, made.hosts[1], DEBIAN), self.host, Impact.WORKLOADS)

    async def errors(self, **driver: Any) -> list[ShipwayError]:
        """Return what forbids it."""
        made = self.declared(**driver)
        self.host.forget()
        results = await look_at_all(gpu_driver.checks(made, made.hosts[1], DEBIAN), self.host)
        return [one.error for one in results if one.error]

    async def codes(self, **driver: Any) -> list[str]:
        """Return the codes of what forbids it."""
        return sorted({one.code for one in await self.errors(**driver)})

    async def drift(self, **driver: Any) -> str:
        """Return what a drift pass says of the driver."""
        self.host.forget()
        found = await DriverDeclared(self.declared(**driver).gpu.driver, DEBIAN, "maintain").check(self.host)
        return found.have if found else ""

    def modules(self) -> list[str]:
        """Return the files of the driver's module."""
        names = ("nvidia.ko", "nvidia-current.ko", "nvidia-current-open.ko")
        return sorted(self.sh(f"find /lib/modules -name {' -o -name '.join(f'{one}*' for one in names)}").split())

    def on_bus(self, *devices: tuple[int, str], virtual: bool = False) -> None:
        """Let /sys have these devices: ids and classes."""
        shutil.rmtree(self.root / "sys/bus", ignore_errors=True)
        for at, (device, kind) in enumerate(devices):
            folder = self.root / BUS.lstrip("/") / f"0000:0{at}:00.0"
            folder.mkdir(parents=True)
            (folder / "vendor").write_text("0x10de\n")
            (folder / "config").write_bytes(bytes.fromhex(space(device, kind, virtual=virtual)))


def versions(place: Real) -> dict[str, str]:
    """Return the version of each package of a driver."""
    return {name: version for name, (version, _) in place.packages().items()}


def failed(results: list[StepResult]) -> list[ShipwayError]:
    """Return what failed."""
    return [one.error for one in results if one.outcome == "failed" and one.error]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """A system as Debian 12 is installed: main and non-free-firmware, a kernel without its headers."""
    root = tmp_path_factory.mktemp("debian")
    run("tar", "--extract", "--file", archive("bookworm"), "--directory", root)
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(Path("/etc") / name, root / "etc" / name)
    made = Real(root)
    made.put("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)  # nothing is started in a chroot
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    made.put(
        "/etc/apt/sources.list.d/debian.sources", DEFAULT.format(uri=(mirror() or ["http://deb.debian.org/debian"])[0])
    )
    made.sh("apt-get -q update")
    made.fetch("linux-image-amd64")
    made.sh("apt-get -q -y --no-install-recommends install linux-image-amd64")
    made.kernel = made.sh("ls /lib/modules").strip()
    made.put("/etc/stand-in-kernel", f"{made.kernel}\n")
    made.put("/usr/local/bin/uname", UNAME, 0o755)
    yield made
    with made.inside.keeper as keeper:
        keeper.kill()


async def test_sources_as_debian_is_installed_are_refused_with_the_file_and_what_it_lacks(place: Real) -> None:
    place.branch = "535"
    (error,) = await place.errors()
    assert error.code == "SHW-686"
    said = "its sources of bookworm (/etc/apt/sources.list.d/debian.sources:1) have no contrib, non-free"
    assert said in error.message
    assert "`main non-free-firmware contrib non-free` behind `Components:`" in error.fix
    place.sh("sed -i 's/^Components:.*/Components: main non-free-firmware contrib non-free/' /etc/apt/sources.list.d/*")
    assert await place.codes() == [], "lists that nobody fetched yet forbid nothing"
    place.sh("apt-get -q update")
    assert await place.codes() == []
    place.version = place.sh("apt-cache show --no-all-versions nvidia-kernel-dkms | sed -n 's/^Version: //p'").strip()
    place.branch = place.version.partition(".")[0]


async def test_another_branch_is_refused_with_the_version_that_the_archive_has(place: Real) -> None:
    (error,) = await place.errors(branch=580)
    assert (error.code, f"and offer {place.version.partition('-')[0]}" in error.message) == ("SHW-686", True)
    assert "nvidia-open-kernel-dkms" in error.message


async def test_each_refusal_by_what_the_host_is(place: Real) -> None:
    for path, code in (("/etc/dgx-release", "SHW-681"), ("/usr/bin/nvidia-uninstall", "SHW-683")):
        place.put(path, "")
        assert await place.codes() == [code]
        place.sh(f"rm {path}")
    place.put("/usr/bin/mokutil", "#!/bin/sh\necho SecureBoot enabled\n", 0o755)
    assert await place.codes() == ["SHW-680"]
    place.sh("rm /usr/bin/mokutil")
    assert await place.codes(source="ubuntu") == ["SHW-687"]
    place.on_bus((H100, "0302"), virtual=True)
    assert await place.codes() == ["SHW-682"]
    place.on_bus((B200, "0302"))
    assert await place.codes() == ["SHW-684"]
    place.on_bus((P40, "0302"))
    assert await place.codes(flavour="open") == ["SHW-685"]
    place.on_bus((H100, "0302"), (SWITCH, "0680"))
    (error,) = await place.errors()
    assert (error.code, "fabric manager (nvidia-fabricmanager" in error.message) == ("SHW-686", True)
    place.on_bus()
    place.put("/dev/nvidia0", "")
    holder = await asyncio.create_subprocess_exec(*place.inside.words("exec sleep 600 < /dev/nvidia0"))
    try:
        for _ in range(100):
            if (found := await place.codes()) == ["SHW-688"]:
                break
            await asyncio.sleep(0.2)
    finally:
        holder.kill()
        await holder.wait()
    assert found == ["SHW-688"]
    place.sh("rm /dev/nvidia0")
    assert await place.codes() == []


async def test_a_kernel_without_headers_in_the_archive_is_refused_before_anything_is_built(place: Real) -> None:
    place.put("/etc/stand-in-kernel", "6.1.0-9999-amd64\n")
    (error,) = failed(await place.bring())
    assert (error.code, "linux-headers-6.1.0-9999-amd64" in error.message) == ("SHW-690", True)
    place.put("/etc/stand-in-kernel", f"{place.kernel}\n")
    assert place.packages() == {}


async def test_a_package_that_is_no_driver_s_is_not_removed_for_it(place: Real, tmp_path: Path) -> None:
    place.offer_own(tmp_path, Deb("lab-gl", "1", "SIMULATED", fields={"Conflicts": "nvidia-alternative"}))
    place.sh("apt-get -q -y install lab-gl")
    (error,) = failed(await place.bring())
    assert (error.code, "lab-gl" in error.message) == ("SHW-327", True)
    assert place.packages() == {}
    place.sh("apt-get -q -y purge lab-gl")


async def test_the_whole_driver_comes_in_one_transaction_and_dkms_builds_the_module(place: Real) -> None:
    started = time.monotonic()
    results = await place.bring()
    print(f"\nbrought in {time.monotonic() - started:.0f} s")
    assert wrong(results) == []
    have = place.packages()
    assert {name: have[name] for name in (*IN_STEP, "nvidia-kernel-dkms", "firmware-nvidia-gsp")} == dict.fromkeys(
        (*IN_STEP, "nvidia-kernel-dkms", "firmware-nvidia-gsp"), (place.version, True)
    )
    assert all(have[name][1] and not have[name][0].startswith(place.version) for name in OWN), have
    assert place.sh("grep Commandline /var/log/apt/history.log | grep -c nvidia-kernel-dkms=").strip() == "1"
    assert place.modules() == [f"/lib/modules/{place.kernel}/updates/dkms/nvidia-current.ko"]
    driver = place.version.partition("-")[0]
    assert place.sh("dkms status").strip() == f"nvidia-current/{driver}, {place.kernel}, x86_64: installed"
    assert place.sh(f"modinfo -k {place.kernel} -F version nvidia-current").strip() == driver
    assert f"Candidate: {place.version}" in place.sh("apt-cache policy libcuda1")
    place.host.forget()
    assert await installed_version(place.host, DEBIAN.drivers()) == driver, "parts of their own version are no mix"
    assert await why_restart_for(place.host, DEBIAN) == []
    again = await place.bring()
    assert [one.step for one in again if one.outcome != "ok"] == []
    assert await place.codes() == [], "its library is a package's"
    assert await place.drift() == "none is loaded"


async def test_loading_says_that_there_is_no_gpu_or_no_such_kernel_with_modprobe_s_own_words(place: Real) -> None:
    """This machine's kernel is another one: it takes no module of Debian's, whatever is in it."""
    made, running = place.declared(), os.uname().release
    if running == place.kernel:
        pytest.skip("this machine runs the very kernel of the chroot: its module would be loaded")
    steps = gpu_driver.after_restart(made, made.hosts[1], DEBIAN)
    place.host.forget()
    (error,) = failed(await converge(steps, place.host, Impact.WORKLOADS))
    assert error.code == "SHW-420", "no folder of this machine's kernel is there"
    place.sh(f"ln -s {place.kernel} /lib/modules/{running}")
    place.host.forget()
    (error,) = failed(await converge(steps, place.host, Impact.WORKLOADS))
    place.sh(f"rm /lib/modules/{running}")
    print(f"\n{error}")
    assert (error.code, error.host) == ("SHW-691", "te2")
    assert "modprobe: ERROR: could not insert 'nvidia_current'" in error.message
    assert "dkms status" in error.fix


async def test_a_kernel_that_dkms_has_built_nothing_for_forbids_a_restart(place: Real) -> None:
    place.put("/boot/vmlinuz-6.1.0-9999-amd64", "")
    place.host.forget()
    (result,) = await look_at_all([KernelHasModule()], place.host)
    assert result.error is not None
    assert result.error.code == "SHW-820"
    assert f"dkms says: nvidia-current/{place.version.partition('-')[0]}, {place.kernel}" in result.error.message
    assert "kernel 6.1.0-9999-amd64 starts next and has no module" in await place.drift()
    place.sh("rm /boot/vmlinuz-6.1.0-9999-amd64")
    place.host.forget()
    (result,) = await look_at_all([KernelHasModule()], place.host)
    assert result.error is None, "nvidia-current.ko is the module"


async def test_an_unattended_upgrade_takes_all_but_the_driver(place: Real, tmp_path: Path) -> None:
    newer = f"{place.branch}.999.01-1"
    place.sh("apt-get -q -y --no-install-recommends install unattended-upgrades")
    place.offer_own(tmp_path, Deb("lab-tool", "1", "SIMULATED"))
    place.sh("apt-get -q -y install lab-tool")
    place.offer_own(
        tmp_path,
        Deb("lab-tool", "2", "SIMULATED"),
        *(Deb(name, newer, "SIMULATED") for name in ("libnvidia-nvvm4", "nvidia-persistenced")),
    )
    place.put("/etc/apt/apt.conf.d/99lab", 'Unattended-Upgrade::Origins-Pattern { "origin=*"; };\n')
    before, held = versions(place), place.packages()
    for loose in ("", "apt-mark unhold libnvidia-nvvm4 nvidia-persistenced"):  # then its list alone keeps them
        place.sh(f"{loose}\nunattended-upgrade --debug > /tmp/unattended 2>&1 || {{ cat /tmp/unattended; false; }}")
        assert versions(place) == before
        assert place.sh("dpkg-query -W -f '${Version}' lab-tool").strip() == "2", "it was at work"
    assert wrong(await place.bring()) == []
    assert place.packages() == held, "held again"


async def test_a_mix_is_told_and_made_whole(place: Real) -> None:
    before = place.packages()
    newer = f"{place.branch}.999.01"
    place.sh("apt-get -q -y --allow-change-held-packages install libnvidia-nvvm4")
    driver = place.version.partition("-")[0]
    assert await place.drift() == f"packages of several drivers are installed: {driver}, {newer}; none is loaded"
    assert wrong(await place.bring()) == []
    assert place.packages() == before
    place.sh("rm /etc/apt/sources.list.d/lab.list; apt-get -q update")


async def test_the_open_modules_take_the_others_place_and_back(place: Real) -> None:
    others = {name: one for name, one in place.packages().items() if "kernel" not in name}
    for flavour, part, gone, file in (
        ("open", "nvidia-open-kernel", "nvidia-kernel", "nvidia-current-open"),
        ("proprietary", "nvidia-kernel", "nvidia-open-kernel", "nvidia-current"),
    ):
        started = time.monotonic()
        assert wrong(await place.bring(flavour=flavour)) == []
        print(f"\n{flavour}: {time.monotonic() - started:.0f} s")
        have = place.packages()
        assert have[f"{part}-dkms"] == (place.version, True)
        assert {f"{gone}-dkms", f"{gone}-support"}.isdisjoint(have)
        assert {name: one for name, one in have.items() if "kernel" not in name} == others
        assert place.modules() == [f"/lib/modules/{place.kernel}/updates/dkms/{file}.ko"]


async def test_a_reset_lets_go_and_leaves_the_driver(place: Real) -> None:
    was = versions(place)
    place.host.forget()
    assert wrong(await converge(drivers.taken_back(), place.host, Impact.FILES)) == []
    assert place.packages() == {name: (version, False) for name, version in was.items()}
    assert place.sh("ls /etc/apt/preferences.d /etc/apt/apt.conf.d | grep -c shipway || true").strip() == "0"
    assert place.modules() != []
