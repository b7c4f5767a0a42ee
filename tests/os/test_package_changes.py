"""apt is asked before it acts: nothing is removed unasked, no held package and no driver is changed in passing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from lab.simulated.options import Options
from lab.simulated.packages import Installed as Simulated
from shipway.errors import CommandFailed, Permanent, Refused
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.facts.packages import PackageInfo
from shipway.host.session import Command, Host
from shipway.os.debian.apt import APT_SECONDS, INSTALL_SECONDS
from shipway.os.debian.dpkg import Installed, Package, find_installed
from shipway.os.debian.package_changes import (
    SIMULATE_SECONDS,
    Changes,
    change,
    changes,
    frozen,
    is_kernel,
    refuse,
    simulation,
)
from shipway.os.debian.packages import (
    AUDIT,
    HELD_MEANWHILE,
    UPGRADED,
    BaseUpgraded,
    DpkgInOrder,
    PackagesHeld,
    PackagesInstalled,
    PackagesInVersion,
    madison,
    offers,
)
from shipway.ownership.evidence import ADMIN, CLIENT_FOLDER, KUBELET_CONF, PODS
from shipway.script import Output
from shipway.step import Drift, Impact
from tasks.stages import container_runtime
from tests.places.facts import DEBIAN, KnownFacts
from tests.places.simulated import failed, simulated_place

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


class Apt(KnownFacts):
    """A host whose apt and dpkg answer these texts, and that keeps what apt was let do."""

    def __init__(self, simulated: str, listed: str = LISTED) -> None:
        super().__init__({Installed(): find_installed(listed)})
        self._answers = {"-s": simulated, "-W": listed}

    async def do(self, *commands: Command) -> list[Output]:
        """Answer a simulation and a question for packages; keep anything else."""
        asked = [next((text for flag, text in self._answers.items() if flag in c.words), None) for c in commands]
        if None in asked:
            return await super().do(*commands)
        return [Output(0, text or "", "") for text in asked]


def test_the_changes_are_read_from_what_apt_prints() -> None:
    assert changes(REMOVES) == Changes(removed=("docker.io", "containerd", "runc"))
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
    names = {info.full_name for info in frozen(find_installed(LISTED))}
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
    assert [one.full_name for one in frozen(find_installed(f"{name}|amd64|ii |1|other|{name}\n"))] == [name]


@pytest.mark.parametrize(
    "source",
    [
        *("nvidia-graphics-drivers", "libnvidia-container", "fabric-manager-535", "linux", "linux-signed-amd64"),
        "linux-restricted-modules",
    ],
)
def test_what_is_built_from_a_drivers_or_the_kernels_source_is_never_changed_in_passing(source: str) -> None:
    packages = find_installed(f"firmware-x|amd64|ii |1|{source}|firmware-x\n")
    assert [one.full_name for one in frozen(packages)] == ["firmware-x"]
    with pytest.raises(Refused, match="of a driver or the kernel") as refused:
        refuse(Changes(changed=("firmware-x",)), packages, ("tool",), ())
    assert refused.value.code == "SHW-328"
    other = find_installed("firmware-x|amd64|ii |1|firmware-x|firmware-x\n")
    assert frozen(other) == []
    refuse(Changes(changed=("firmware-x",)), other, ("tool",), ())


@pytest.mark.parametrize(
    ("name", "source", "kernel"),
    [
        ("linux-image-6.8.0-31-generic", "other", True),
        ("linux-headers-6.8.0-31", "other", True),
        ("linux-modules-6.8.0-31-generic", "other", True),
        ("bpftool", "linux", True),
        ("usb-modules", "linux-signed-amd64", True),
        ("linux-generic", "linux-meta-hwe-6.8", True),
        ("linux-modules-nvidia-535-6.8.0-31-generic", "linux-restricted-modules", False),
        ("nvidia-kernel-common", "linux", False),
        ("linux-headers-of-a-driver", "nvidia-graphics-drivers", False),
        ("containerd", "containerd", False),
    ],
)
def test_an_upgrade_that_may_change_the_kernel_leaves_drivers_and_runtimes_alone_all_the_same(
    name: str, source: str, *, kernel: bool
) -> None:
    packages = find_installed(f"{name}|amd64|ii |1|{source}|{name}\n")
    assert is_kernel(name, source) is kernel
    assert [len(frozen(packages, kernel=may)) for may in (False, True)] == [1, 0 if kernel else 1]


@pytest.mark.parametrize(("simulated", "keeps"), [("Inst tool (1 x [amd64])\n", True), (FIXES, False)])
async def test_apt_itself_may_remove_nothing_where_no_removal_was_foreseen(simulated: str, *, keeps: bool) -> None:
    host = Apt(simulated)
    await change(cast("Host", host), "-f", "install", removable=["tool"])
    assert ("--no-remove" in host.done[-1]) is keeps


async def test_what_installs_is_given_the_time_that_dkms_needs_and_what_only_fetches_is_not() -> None:
    """An installation that is ended in the middle leaves packages half installed; a list or an archive does not."""
    limits: dict[str, int] = {}

    class Timed(Apt):
        async def succeed(self, name: str, words: Sequence[str], **given: int) -> Output:
            limits.update({word: given["seconds"] for word in words if word in verbs})
            return await super().succeed(name, words)

    verbs = ("--configure", "install", "update", "upgrade")
    await DpkgInOrder(removable=("tool",)).apply(cast("Host", Timed(FIXES)))  # type: ignore[arg-type]
    await BaseUpgraded().apply(cast("Host", Timed("0 upgraded\n")))  # type: ignore[arg-type]
    assert limits == dict.fromkeys(verbs, INSTALL_SECONDS) | {"update": APT_SECONDS}
    assert APT_SECONDS < INSTALL_SECONDS


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
        (Changes(changed=("libc6",)), ("tool",), (), ""),
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


async def test_apt_itself_is_asked_to_remove_nothing_unless_the_cluster_file_allows_it() -> None:
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
    async with simulated_place(tmp_path, Options(scale=0.01)) as place:
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


WRONG = PackageInfo("1.0-1", held=False, sound=True)
RIGHT = PackageInfo("2.0-1", held=False, sound=True)
HALF = PackageInfo("2.0-1", held=False, sound=False)


@pytest.mark.parametrize(
    ("info", "any_version", "in_version"),
    [
        (None, "tool missing", "tool missing"),
        (HALF, "tool 2.0-1 half installed", "tool 2.0-1 half installed"),
        (WRONG, None, "tool 1.0-1"),
        (RIGHT, None, None),
    ],
)
async def test_what_is_there_keeps_its_version_where_none_is_demanded(
    info: PackageInfo | None, any_version: str | None, in_version: str | None
) -> None:
    for kind, have in ((PackagesInstalled, any_version), (PackagesInVersion, in_version)):
        host = KnownFacts({Package("tool"): info, Package("other"): RIGHT})
        drift = await kind("x", {"other": "2.0", "tool": "2.0"}).check(cast("Host", host))
        heard = "what else that changes is reported once apt offers it"
        assert (drift and drift.have) == (have and f"{have}, {heard}"), kind


@pytest.mark.parametrize(("simulated", "heard"), [(REMOVES, True), ("Inst tool (2 x [amd64])\n", False)])
async def test_what_would_go_is_reported_of_what_is_wrong_alone_before_anything_is_done(
    simulated: str, *, heard: bool
) -> None:
    asked = Says(simulation("install", *PackagesInstalled.options, "--", "tool=*2.0*", "any"), SIMULATE_SECONDS)
    packages = {"other": "2.0", "tool": "2.0", "any": None}
    facts: dict[Fact[Any], Any] = {Package("other"): RIGHT, asked: Output(0, simulated, "")}
    step = PackagesInstalled("x", packages, ("docker.io", "containerd", "runc"))
    drift = await step.check(cast("Host", KnownFacts(facts)))
    assert drift is not None
    gone = ", to install that, docker.io, containerd, runc will be REMOVED"
    assert drift.have == f"tool missing, any missing{gone if heard else ''}"
    if heard:
        with pytest.raises(Refused, match=r"to install tool, any, apt would remove docker\.io, runc;"):
            await PackagesInstalled("x", packages, ("containerd",)).check(cast("Host", KnownFacts(facts)))


class Repositories(Apt):
    """A host whose repositories offer this; after a fetch of the lists, that."""

    def __init__(self, before: str, after: str = "", error: CommandFailed | None = None) -> None:
        super().__init__("0 upgraded\n")
        self.facts |= {Package("other"): RIGHT, madison(["other", "tool"]): Output(0, before, "")}
        self._after, self._error = after, error

    async def succeed(self, name: str, words: Sequence[str], **more: int) -> Output:
        """Keep what was to be run, and offer what the newest lists have."""
        await super().succeed(name, words, **more)
        if words[-1] == "update":
            self.facts[madison(["other", "tool"])] = Output(0, self._after, "")
            self._error = None
        elif self._error:
            raise self._error
        return Output(0, "", "")

    @property
    def acts(self) -> list[str]:
        """What apt was let do: its last words."""
        return ["update" if line.endswith("update") else line.rpartition(" -- ")[2] for line in self.done]


OFFERED = "other | 2.0-2 | x\ntool | 2.0-2 | x\ntool | 2.0-1 | x\ntool | 1.0-1 | x\n"
TOOL = PackagesInVersion("x", {"other": "2.0", "tool": "2.0"})


async def test_the_newest_version_that_fits_is_installed_of_what_is_wrong_alone() -> None:
    host = Repositories("tool | 3.0-1 | x\n" + OFFERED)
    await TOOL.apply(cast("Host", host))
    assert host.acts == ["tool=2.0-2"]
    assert "install --no-install-recommends --allow-downgrades --allow-change-held-packages -- " in host.done[0]
    host = Repositories(OFFERED)
    await PackagesInstalled("x", {"other": None, "tool": None}).apply(cast("Host", host))
    assert host.acts == ["tool"]
    virtual = Repositories("")  # a name that only others provide is offered in no version
    await PackagesInstalled("x", {"other": None, "tool": None}).apply(cast("Host", virtual))
    assert virtual.acts == ["tool"]


async def test_old_lists_are_fetched_once_and_what_no_repository_offers_even_then_is_refused() -> None:
    old = "tool | 1.0-1 | x\n"
    host = Repositories(old, OFFERED)
    await TOOL.apply(cast("Host", host))
    assert host.acts == ["update", "tool=2.0-2"]
    host = Repositories(old, old)
    with pytest.raises(Permanent, match=r"no repository offers tool 2\.0; offered: 1\.0-1") as refused:
        await TOOL.apply(cast("Host", host))
    assert (refused.value.code, host.acts) == ("SHW-307", ["update"])


@pytest.mark.parametrize(
    ("output", "acts"),
    [
        ("E: Failed to fetch http://x/tool.deb  404  Not Found", ["tool=2.0-2", "update", "tool=2.0-2"]),
        ("E: Unable to fetch some archives", ["tool=2.0-2", "update", "tool=2.0-2"]),
        ("E: Sub-process /usr/bin/dpkg returned an error code (1)", ["tool=2.0-2"]),
    ],
)
async def test_only_what_new_lists_may_cure_is_tried_again(output: str, acts: list[str]) -> None:
    host = Repositories(OFFERED, OFFERED, CommandFailed("apt", exit_status=100, output=output))
    if "update" in acts:
        await TOOL.apply(cast("Host", host))
    else:
        with pytest.raises(CommandFailed):
            await TOOL.apply(cast("Host", host))
    assert host.acts == acts


async def test_a_permit_is_asked_when_it_is_looked_and_again_when_it_is_installed() -> None:
    async def never(on: Host) -> None:
        raise Refused("not here", host=on.name)

    host = Repositories(OFFERED)
    step = PackagesInstalled("x", {"other": None, "tool": None}, permit=never)
    for act in (step.check(cast("Host", host)), step.apply(cast("Host", host))):
        with pytest.raises(Refused, match="not here"):
            await act
    assert host.done == []
    assert await PackagesInstalled("x", {"other": None}, permit=never).check(cast("Host", host)) is None


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("junk\n | \ntool | 2\n", {"tool": ["2"], "": [""]}),
        ("tool | 2 | x\ntool | 2 | y\n", {"tool": ["2"]}),
    ],
)
def test_a_version_that_several_repositories_offer_is_one(listed: str, found: dict[str, list[str]]) -> None:
    assert offers(listed) == found


async def test_a_package_that_is_missing_or_loose_is_not_held() -> None:
    held = PackageInfo("1", held=True, sound=True)
    step = PackagesHeld(("kubelet", "kubeadm", "kubectl"))
    host = KnownFacts({Package("kubelet"): held, Package("kubeadm"): RIGHT})
    assert await step.check(cast("Host", host)) == Drift("not held: kubeadm, kubectl", "held")
    await step.apply(cast("Host", host))
    assert host.done == ["apt-mark hold kubelet kubeadm kubectl"]
    host = KnownFacts(dict.fromkeys(map(Package, step.packages), held))
    assert await step.check(cast("Host", host)) is None


async def test_what_dpkg_began_is_finished_by_dpkg_before_apt_mends_the_rest() -> None:
    host = Apt("0 upgraded\n")
    assert await DpkgInOrder().check(cast("Host", host)) is None
    host.facts[AUDIT] = Output(0, "\nThe following packages are only half configured:\n tool\n", "")
    assert await DpkgInOrder().check(cast("Host", host)) == Drift(
        "The following packages are only half configured:", "nothing half installed"
    )
    await DpkgInOrder().apply(cast("Host", host))
    assert [line.split()[1] for line in host.done] == ["dpkg", "apt-get"]
    assert host.done[1].endswith(" --no-remove -f install")


UPGRADED_SIGNS: dict[str, dict[Fact[Any], Any]] = {
    "upgraded": {FileState(UPGRADED): FileInfo("0" * 64, "644", "root:root", 0)},
    "kubelet.conf": {FileState(KUBELET_CONF): FileInfo("0" * 64, "600", "root:root", 1)},
    "admin.conf": {FileState(ADMIN): FileInfo("0" * 64, "600", "root:root", 1)},
    "certificate": {CLIENT_FOLDER: ("kubelet-client-current.pem",)},
    "pods": {PODS: Output(0, "/proc/7/cgroup\n", "")},
}


@pytest.mark.parametrize("sign", UPGRADED_SIGNS)
async def test_an_upgraded_host_or_one_with_any_sign_of_a_cluster_is_not_upgraded_as_a_whole(sign: str) -> None:
    assert await BaseUpgraded().check(cast("Host", KnownFacts({}))) == Drift("never", "once")
    assert await BaseUpgraded().check(cast("Host", KnownFacts(UPGRADED_SIGNS[sign]))) is None


HOLDABLE = "libcuda1|amd64|ii |535.1|nvidia-graphics-drivers|libcuda1\n"


class Noting(Apt):
    """A host that keeps writes among what was done."""

    async def write(self, path: str, content: bytes, **more: str) -> None:
        """Keep it."""
        await super().write(path, content, **more)
        self.done.append(f"write {path}")


async def test_an_upgrade_notes_its_holds_first_and_takes_them_back_and_says_last_that_it_is_done() -> None:
    host = Noting("0 upgraded\n", HOLDABLE)
    await BaseUpgraded().apply(cast("Host", host))  # type: ignore[arg-type]
    assert [line.removeprefix("apt: ").rpartition("force-confold ")[2] for line in host.done] == [
        "update",
        f"write {HELD_MEANWHILE}",
        "apt-mark hold libcuda1",
        "--no-remove upgrade",
        "apt-mark unhold libcuda1",
        f"rm -f {HELD_MEANWHILE}",
        f"write {UPGRADED}",
    ]
    assert host.written[HELD_MEANWHILE] == "libcuda1\n"
    host = Noting("0 upgraded\n", "adduser|all|ii |3.134|adduser|adduser\n")
    await BaseUpgraded().apply(cast("Host", host))  # type: ignore[arg-type]
    assert [line.rpartition(" ")[2] for line in host.done] == ["update", "upgrade", UPGRADED]
    host = Noting(UPGRADES, HOLDABLE)
    with pytest.raises(Refused):
        await BaseUpgraded().apply(cast("Host", host))  # type: ignore[arg-type]
    assert UPGRADED not in host.written, "what was refused is tried again"


@pytest.mark.parametrize(
    ("line", "ours", "holds"),
    [
        ("libcuda1|amd64|hi |535.1|x|libcuda1\n", None, False),
        ("libcuda1|amd64|hi |535.1|x|libcuda1\n", "libcuda1\n", True),
        ("libcuda1|amd64|hi |535.1|x|libcuda1\n", "libcuda1-dev\n", False),
        ("libcuda1|amd64|ii |535.1|x|--libcuda1\n", None, False),
    ],
)
async def test_a_persons_hold_stays_and_one_that_an_interrupted_upgrade_left_goes(
    line: str, ours: str | None, *, holds: bool
) -> None:
    host = Noting("0 upgraded\n", line)
    host.facts[FileText(HELD_MEANWHILE)] = ours
    await BaseUpgraded().apply(cast("Host", host))  # type: ignore[arg-type]
    assert ("apt-mark unhold libcuda1" in host.done) is holds
    assert any("apt-mark" in one for one in host.done) is holds
