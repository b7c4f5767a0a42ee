"""apt is asked before it acts: nothing is removed unasked, no held package and no driver is changed in passing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from lab.simulated.options import Options
from lab.simulated.packages import Installed as Simulated
from shipway.errors import Refused
from shipway.facts.packages import PackageInfo
from shipway.host.session import Command, Host
from shipway.os.debian.dpkg import Installed, Package, installed
from shipway.os.debian.package_changes import Changes, change, changes, frozen, refuse
from shipway.os.debian.packages import BaseUpgraded, DpkgInOrder, PackagesInstalled, PackagesInVersion
from shipway.script import Output
from shipway.step import Impact
from tasks.stages import container_runtime
from tests.facts_place import DEBIAN, Told
from tests.simulated_place import failed, simulated_place

# What apt 2.6.2 and dpkg 1.21 of Debian 12 answered, with small packages made for the question.
REMOVES = """Reading package lists...
The following packages will be REMOVED:
  containerd docker.io runc
The following NEW packages will be installed:
  containerd.io
0 upgraded, 1 newly installed, 3 to remove and 5 not upgraded.
Remv docker.io [24.0.7]
Remv containerd [1.7.12]
Remv runc [1.1.12]
Inst containerd.io (1.7.27-1 localhost [amd64])
Conf containerd.io (1.7.27-1 localhost [amd64])
"""
UPGRADES = """The following packages have been kept back:
  held tool
3 upgraded, 0 newly installed, 0 to remove and 2 not upgraded.
Inst libcuda1 [535.1] (535.2 localhost [amd64])
Inst libnvidia-compute-535 [535.1] (535.2 localhost [amd64]) [libnvidia-compute-535:amd64 on libnvidia-compute-535:i386]
Inst libnvidia-compute-535:i386 [535.1] (535.2 localhost [i386])
Conf libcuda1 (535.2 localhost [amd64])
"""
FIXES = "1 not fully installed or removed.\nRemv tool [2.0]\n"
LISTED = """held|amd64|hi |1.0|held|held
libcuda1|amd64|ii |535.1|nvidia-graphics-drivers|libcuda1
libnvidia-compute-535|amd64|ii |535.1|nvidia-graphics-drivers-535|libnvidia-compute-535:amd64
libnvidia-compute-535|i386|rc |535.1|nvidia-graphics-drivers-535|libnvidia-compute-535:i386
adduser|all|ii |3.134|adduser|adduser
tool|amd64|iU |2.0|tool|tool
gone|amd64|un ||gone|gone
"""


class Apt(Told):
    """A host whose apt and dpkg answer these texts, and that keeps what apt was let do."""

    def __init__(self, simulated: str, listed: str = LISTED) -> None:
        super().__init__({Installed(): installed(listed)})
        self._answers = {"-s": simulated, "-W": listed}

    async def do(self, *commands: Command) -> list[Output]:
        """Answer a simulation and a question for packages; keep anything else."""
        asked = [next((text for flag, text in self._answers.items() if flag in c.words), None) for c in commands]
        if None in asked:
            return await super().do(*commands)
        return [Output(0, text or "", "") for text in asked]


def test_the_changes_are_read_from_what_apt_prints() -> None:
    assert changes(REMOVES) == Changes(("containerd.io",), (), ("docker.io", "containerd", "runc"))
    assert changes(UPGRADES).changed == ("libcuda1", "libnvidia-compute-535", "libnvidia-compute-535:i386")
    assert changes(FIXES) == Changes(removed=("tool",))


@pytest.mark.parametrize("order", [1, -1])
def test_a_package_is_known_by_name_and_architecture_whatever_stands_in_the_next_line(order: int) -> None:
    listed = "\n".join(LISTED.splitlines()[::order])
    asked = [Package(name) for name in ("libnvidia-compute-535", "adduser", "tool", "gone", "held", "none")]
    infos = Package.answer_all(asked, [Output(1, listed, ""), Output(0, "amd64\n", "")])
    assert [info and (info.version, info.held, info.sound) for info in infos] == [
        ("535.1", False, True),
        ("3.134", False, True),
        ("2.0", False, False),
        None,
        ("1.0", True, True),
        None,
    ]
    foreign = Package.answer_all(asked[:1], [Output(0, listed, ""), Output(0, "arm64\n", "")])
    assert foreign == [None], "a foreign architecture of a package is another package"


def test_the_driver_is_known_by_its_names_and_by_its_source() -> None:
    names = {info.full_name for info in frozen(installed(LISTED))}
    assert names == {"libcuda1", "libnvidia-compute-535:amd64"}


@pytest.mark.parametrize(
    "name",
    [
        *("nvidia-driver-535", "libnvidia-compute-535", "cuda-toolkit-12-4", "libcuda1", "xserver-xorg-video-nvidia"),
        *("linux-image-amd64", "linux-headers-amd64", "linux-modules-6.8.0-31-generic"),
        *("containerd", "containerd.io", "docker.io", "runc", "cri-tools", "kubelet", "kubeadm", "kubectl"),
        "kubernetes-cni",
    ],
)
def test_an_upgrade_of_everything_leaves_what_runs_the_pods_alone(name: str) -> None:
    assert [one.full_name for one in frozen(installed(f"{name}|amd64|ii |1|other|{name}\n"))] == [name]


@pytest.mark.parametrize(
    "source",
    [
        *("nvidia-graphics-drivers", "libnvidia-container", "fabric-manager-535", "linux", "linux-signed-amd64"),
        "linux-restricted-modules",
    ],
)
def test_what_is_built_from_a_drivers_or_the_kernels_source_is_never_changed_in_passing(source: str) -> None:
    packages = installed(f"firmware-x|amd64|ii |1|{source}|firmware-x\n")
    assert [one.full_name for one in frozen(packages)] == ["firmware-x"]
    with pytest.raises(Refused, match="of a driver or the kernel") as refused:
        refuse(Changes(changed=("firmware-x",)), packages, ("tool",), ())
    assert refused.value.code == "SHW-328"
    other = installed("firmware-x|amd64|ii |1|firmware-x|firmware-x\n")
    assert frozen(other) == []
    refuse(Changes(changed=("firmware-x",)), other, ("tool",), ())


@pytest.mark.parametrize(("simulated", "keeps"), [("Inst tool (1 x [amd64])\n", True), (FIXES, False)])
async def test_apt_itself_may_remove_nothing_where_no_removal_was_foreseen(simulated: str, *, keeps: bool) -> None:
    host = Apt(simulated)
    await change(cast("Host", host), "-f", "install", removable=["tool"])
    assert ("--no-remove" in host.done[-1]) is keeps


async def test_the_driver_is_held_in_each_architecture_while_all_else_is_upgraded() -> None:
    both = LISTED.replace("|i386|rc ", "|i386|ii ")
    host = Apt("0 upgraded\n", both)
    await BaseUpgraded().apply(cast("Host", host))  # type: ignore[arg-type] - it looks anew
    assert host.done[1] == "apt-mark hold libcuda1 libnvidia-compute-535:amd64 libnvidia-compute-535:i386"
    assert " --no-remove upgrade" in host.done[2]
    assert host.done[3] == host.done[1].replace(" hold ", " unhold ")


async def test_an_upgrade_that_would_change_the_driver_all_the_same_is_refused() -> None:
    host = Apt(UPGRADES)
    with pytest.raises(Refused) as refused:
        await BaseUpgraded().apply(cast("Host", host))  # type: ignore[arg-type]
    assert refused.value.code == "SHW-328"
    assert not [line for line in host.done if " upgrade" in line]
    assert host.done[-2].startswith("apt-mark unhold"), "our own hold does not stay"


def info(held: bool = False) -> PackageInfo:  # noqa: FBT001, FBT002
    """Return an installed package."""
    return PackageInfo("1", held, sound=True)


@pytest.mark.parametrize(
    ("foreseen", "asked", "removable", "code"),
    [
        (Changes(removed=("docker.io",)), (), (), "SHW-327"),
        (Changes(removed=("docker.io", "runc")), (), ("docker.io",), "SHW-327"),
        (Changes(removed=("docker.io", "lib:i386")), (), ("docker.io", "lib"), ""),
        (Changes(changed=("kept",)), ("tool",), (), "SHW-328"),
        (Changes(changed=("kept:i386",)), ("tool",), (), "SHW-328"),
        (Changes(changed=("kept",)), ("kept",), (), ""),
        (Changes(changed=("linux-image-amd64",)), ("tool",), (), "SHW-328"),
        (Changes(changed=("libc6",), added=("tool",)), ("tool",), (), ""),
    ],
)
def test_a_change_goes_no_further_than_it_was_asked_to(
    foreseen: Changes, asked: Sequence[str], removable: Sequence[str], code: str
) -> None:
    packages = {("kept", "amd64"): info(held=True), ("linux-image-amd64", "amd64"): info(), ("libc6", "amd64"): info()}
    if not code:
        refuse(foreseen, packages, asked, removable)
        return
    with pytest.raises(Refused) as refused:
        refuse(foreseen, packages, asked, removable)
    assert refused.value.code == code


async def test_nothing_is_done_where_apt_would_remove_a_package_that_nobody_named() -> None:
    host = Apt(REMOVES)
    with pytest.raises(Refused, match=r"remove docker\.io, containerd, runc"):
        await change(cast("Host", host), "install", "--", "containerd.io", asked=["containerd.io"])
    assert host.done == []
    with pytest.raises(Refused, match="remove tool"):
        await DpkgInOrder().apply(cast("Host", Apt(FIXES)))  # type: ignore[arg-type]


async def test_apt_itself_is_told_to_remove_nothing_unless_the_cluster_file_allows_it() -> None:
    host = Apt("Inst tool (1 x [amd64])\n")
    await change(cast("Host", host), "install", "--", "tool", asked=["tool"])
    allowed = Apt(REMOVES)
    names = ("docker.io", "containerd", "runc")
    await change(cast("Host", allowed), "install", "--", "containerd.io", asked=["containerd.io"], removable=names)
    assert ["--no-remove" in line for line in (*host.done, *allowed.done)] == [True, False]


def test_held_packages_and_downgrades_need_the_permission_for_workloads() -> None:
    risky = {"--allow-downgrades", "--allow-change-held-packages"}
    assert not risky & set(PackagesInstalled.options)
    assert risky < set(PackagesInVersion.options)


async def test_docker_stays_unless_the_cluster_file_lets_it_go_and_the_plan_says_so_first(tmp_path: Path) -> None:
    async with simulated_place(tmp_path, Options()) as place:
        machine, cluster = place.machine("te2"), place.cluster
        for name in ("containerd", "runc", "docker.io"):
            machine.packages.installed[name] = Simulated("1.7.12", needs=("containerd", "runc") * (name == "docker.io"))
        steps = container_runtime.steps(cluster, cluster.host("te2"), DEBIAN)
        count = 1 + next(at for at, step in enumerate(steps) if isinstance(step, PackagesInstalled))
        results = await place.run(steps[:count], "te2")
        assert results[-1].outcome == "failed"
        assert "apt would remove containerd, docker.io, runc; nothing was changed [SHW-327]" in failed(results)[0]
        assert machine.packages.has("docker.io")
        gone = cluster.system.model_copy(update={"may_remove": ("docker.io", "containerd", "runc")})
        allowed = container_runtime.steps(cluster.model_copy(update={"system": gone}), cluster.host("te2"), DEBIAN)[
            :count
        ]
        planned = await place.run(allowed, "te2", Impact.NOTHING)
        assert planned[-1].drift is not None
        assert "containerd, docker.io, runc will be REMOVED" in planned[-1].drift.have
        assert machine.packages.has("docker.io")
        assert (await place.run(allowed, "te2"))[-1].outcome == "changed"
        assert not machine.packages.has("docker.io")
