"""What every family of operating systems does, whichever package manager is behind it.

Each promise is kept by the Debian family and by a second one that exists here alone: so it is one of the seam, and not
of apt.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest
from pysequoia import Tsk

from shipway.cluster.model import Cluster
from shipway.cluster.parts import Key
from shipway.cluster_file import parse_cluster
from shipway.errors import Blocked, CommandFailed, Permanent, Refused
from shipway.host.session import Host
from shipway.os import families
from shipway.os.debian import apt
from shipway.os.families import recognise
from shipway.os.family import Family
from shipway.ownership.evidence import KUBELET_CONF
from shipway.step import Check, Drift, Impact, Step
from shipway.steps.system import preflight, sources
from tests.os import rpm_family
from tests.os.debian_machine import DebianMachine
from tests.os.machine import Installed, Machine
from tests.os.rpm_family import Rpm
from tests.os.rpm_machine import RpmMachine
from tests.places.facts import DEBIAN

KEY_URL = "https://packages.example.com/v{minor}/key.asc"
TSK = Tsk.generate("site <site@example.com>").extract_certificate()
PINNED = TSK.fingerprint.upper()
PROXY = "http://proxy.example.com:3128"


@dataclass(frozen=True)
class Scene:
    """A family, a host of it, and a cluster that declares a repository `docker` for it."""

    family: Callable[[str], Family]  # by the pinned fingerprint
    machine: type[Machine]
    system: str


def rpm(pinned: str) -> Family:
    key = Key(url=KEY_URL.replace("{minor}", "1.36"), fingerprint=pinned)
    return Rpm({"docker": ("https://packages.example.com/docker", key)})


SCENES = {
    "debian": Scene(lambda _: DEBIAN, DebianMachine, 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'),
    "rpm": Scene(rpm, RpmMachine, 'ID="rocky"\nVERSION_ID="9"\n'),
}


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(apt, "LOCK_EVERY", 0)
    monkeypatch.setattr(rpm_family, "LOCK_EVERY", 0)
    return SCENES[request.param]


def family_in(scene: Scene, pinned: str = PINNED) -> Family:
    return scene.family(pinned)


def cluster(sections: str = "", pinned: str = PINNED) -> Cluster:
    key = f"{{url: '{KEY_URL}', fingerprint: '{pinned}'}}"
    docker = f"{{uri: 'https://packages.example.com/docker', suite: ./, key: {key}}}"
    return parse_cluster(
        f"name: te\nhosts: [{{name: te1, address: 10.0.0.1}}]\nsources: {{apt: {{docker: {docker}}}}}\n{sections}"
    )


def machine(scene: Scene, **fields: Any) -> Machine:
    made = scene.machine(scene.system, **fields)
    made.served = {KEY_URL.replace("{minor}", f"1.{cluster().kubernetes.minor[1]}"): str(TSK).encode()}
    made.served[KEY_URL.replace("{minor}", "1.36")] = str(TSK).encode()
    return made


async def look(step: Check[Host], on: Machine) -> Drift | None:
    return await step.check(cast("Host", on))


async def apply(step: Step[Host], on: Machine) -> None:
    await step.apply(cast("Host", on))


async def brought(step: Step[Host], on: Machine) -> None:
    """Bring about what a step wants: it drifts before, and is as wanted after."""
    assert await look(step, on) is not None, step.name
    await apply(step, on)
    assert await look(step, on) is None, step.name


def versions(on: Machine) -> Mapping[str, str]:
    return {name: one.version for name, one in on.packages.items()}


# --- what a host is ---------------------------------------------------------------------------------------------


async def test_a_host_is_recognised_by_what_it_says_it_is(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", tuple(one.family(PINNED) for one in SCENES.values()))
    host, own = machine(scene), family_in(scene)
    assert (await recognise(cast("Host", host))).systems == own.systems
    assert host.ran == []


async def test_where_one_family_is_known_a_host_is_not_asked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", (family_in(scene),))
    host = machine(scene)
    assert (await recognise(cast("Host", host))).fetcher == family_in(scene).fetcher
    assert host.read_paths == []


async def test_preflight_takes_the_systems_of_every_family_that_is_known_and_names_them(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = machine(scene)
    host.files["/proc/1/comm"] = b"systemd\n"
    monkeypatch.setattr(preflight, "FAMILIES", (family_in(scene),))
    assert await look(preflight.SystemSupported(), host) is None
    other = next(one for one in SCENES.values() if one is not scene)
    host.files["/etc/os-release"] = other.system.encode()
    drift = await look(preflight.SystemSupported(), host)
    assert drift is not None
    assert drift.want.startswith(family_in(scene).supported)


# --- packages ---------------------------------------------------------------------------------------------------


async def test_a_package_is_reported_with_its_version_its_hold_and_whether_it_is_whole(scene: Scene) -> None:
    host = machine(scene)
    host.packages = {"one": Installed("1.0", held=True), "two": Installed("2.0", sound=False)}
    asked = [family_in(scene).package(name) for name in ("one", "two", "none")]
    one, two, none = await host.read_all(asked)
    assert (one.version, one.held, one.sound) == ("1.0", True, True)
    assert (two.held, two.sound) == (False, False)
    assert none is None


async def test_offered_versions_are_reported_newest_first(scene: Scene) -> None:
    host = machine(scene, offered={"one": ["1.2", "1.1"]})
    offered = await family_in(scene).offered(cast("Host", host), ("one", "none"))
    assert offered == {"one": ["1.2", "1.1"]}


async def test_what_is_missing_is_installed_and_what_is_there_keeps_its_version(scene: Scene) -> None:
    host = machine(scene, offered={"one": ["1.3", "1.2.9", "1.2.8"], "two": ["2.2"]})
    host.packages["two"] = Installed("2.1")
    step = family_in(scene).installed("both are there", {"one": "1.2", "two": None}, restarts="containerd")
    assert (step.name, step.impact) == ("both are there", Impact.SERVICE)
    assert getattr(step, "restarts", "") == "containerd"
    await brought(step, host)
    assert versions(host) == {"one": "1.2.9", "two": "2.1"}


async def test_what_is_half_installed_is_installed_anew(scene: Scene) -> None:
    host = machine(scene, offered={"one": ["1.2"]})
    host.packages["one"] = Installed("1.2", sound=False)
    await brought(family_in(scene).installed("it is there", {"one": None}), host)


async def test_a_version_that_nobody_offers_is_a_permanent_error_that_says_what_is(scene: Scene) -> None:
    host = machine(scene, offered={"one": ["1.3"]})
    with pytest.raises(Permanent, match=r"1\.3") as raised:
        await apply(family_in(scene).installed("it is there", {"one": "9"}), host)
    assert raised.value.code == "SHW-307"
    assert host.packages == {}


async def test_nothing_is_removed_that_may_not_be(scene: Scene) -> None:
    host = machine(scene, offered={"one": ["1"]}, removes={"one": ("other",)})
    host.packages["other"] = Installed("1")
    for removable, gone in (((), False), (("other",), True)):
        step = family_in(scene).installed("it is there", {"one": None}, removable)
        if gone:
            await brought(step, host)
            continue
        for act in (look, apply):
            with pytest.raises(Refused) as raised:
                await act(step, host)
            assert raised.value.code == "SHW-327"
        assert versions(host) == {"other": "1"}
    assert versions(host) == {"one": "1"}


@pytest.mark.parametrize("kind", ["installed", "in_version"])
async def test_what_may_keep_from_a_change_is_asked_at_the_look_and_at_the_act(scene: Scene, kind: str) -> None:
    host, asked = machine(scene, offered={"one": ["1"]}), []

    async def refuse(on: Host) -> None:
        asked.append(on.name)
        raise Blocked("not now")

    step = getattr(family_in(scene), kind)("it is there", {"one": "1"}, permit=refuse)
    for act in (look, apply):
        with pytest.raises(Blocked):
            await act(step, host)
    assert asked == ["te1", "te1"]
    assert host.packages == {}
    host.packages["one"] = Installed("1")
    assert await look(step, host) is None, "what is as wanted asks nobody"


async def test_another_version_is_brought_where_workloads_may_end_even_of_a_held_package(scene: Scene) -> None:
    host = machine(scene, offered={"one": ["2.0", "1.0"]})
    host.packages["one"] = Installed("1.0", held=True)
    step = family_in(scene).in_version("it is 2.0", {"one": "2.0"})
    assert step.impact is Impact.WORKLOADS
    await brought(step, host)
    assert versions(host) == {"one": "2.0"}


async def test_held_packages_are_reported_as_held(scene: Scene) -> None:
    host = machine(scene)
    host.packages = {"one": Installed("1"), "two": Installed("1", held=True)}
    step = family_in(scene).held(("one", "two"))
    assert (step.name, step.impact) == ("one, two are held", Impact.FILES)
    await brought(step, host)
    assert all(one.held for one in host.packages.values())


async def test_the_base_is_upgraded_once_without_what_is_held_drivers_kernel_and_runtime(scene: Scene) -> None:
    names = ("base", "mine", "nvidia-driver", "containerd.io", "kubelet")
    host = machine(scene, offered={name: ["2"] for name in names})
    host.packages = {name: Installed("1", held=name == "mine") for name in names}
    step = family_in(scene).upgraded()
    assert step.impact is Impact.WORKLOADS
    await brought(step, host)
    assert versions(host) == {**dict.fromkeys(names, "1"), "base": "2"}
    assert [name for name, one in host.packages.items() if one.held] == ["mine"], "no hold is left behind or lifted"


async def test_a_host_of_a_cluster_is_never_upgraded(scene: Scene) -> None:
    host = machine(scene)
    host.files[KUBELET_CONF] = b"x"
    assert await look(family_in(scene).upgraded(), host) is None


async def test_what_an_interrupted_package_manager_began_is_finished(scene: Scene) -> None:
    host = machine(scene)
    host.packages["one"] = Installed("1", sound=False)
    step = family_in(scene).in_order(cluster())
    assert step.impact is Impact.SERVICE
    await brought(step, host)
    assert host.packages["one"].sound


async def test_pending_updates_leave_out_what_is_held_drivers_runtime_and_kubernetes(scene: Scene) -> None:
    names = ("base", "mine", "kernel" if scene.machine is RpmMachine else "linux-image-amd64", "nvidia-driver")
    names = (*names, "containerd.io", "kubelet", "current")
    host, family = machine(scene, offered={name: ["2", "1"] for name in names}, security=("base",)), family_in(scene)
    host.packages = {name: Installed("1", held=name == "mine") for name in names}
    host.packages["current"] = Installed("2")

    async def found(scope: Any, *, kernel: bool) -> list[str]:
        return sorted(one.name for one in await family.pending(cast("Host", host), scope, kernel=kernel))

    assert await found("all", kernel=False) == ["base"]
    assert await found("all", kernel=True) == ["base", names[2]]
    assert await found("security", kernel=True) == ["base"]
    (kernel,) = [one for one in await family.pending(cast("Host", host), "all", kernel=True) if one.name == names[2]]
    assert (kernel.gets, kernel.part) == ("2", "kernel")


@pytest.mark.parametrize(("scope", "kernel", "newer"), [("all", True, 3), ("all", False, 2), ("security", True, 1)])
async def test_updates_are_brought_and_what_is_left_out_keeps_its_version_and_no_hold(
    scene: Scene, scope: Any, newer: int, *, kernel: bool
) -> None:
    names = ("base", "other", "kernel" if scene.machine is RpmMachine else "linux-image-amd64", "containerd.io", "mine")
    host, family = machine(scene, offered={name: ["2", "1"] for name in names}, security=("base",)), family_in(scene)
    host.packages = {name: Installed("1", held=name == "mine") for name in names}
    step = family.updated(scope, kernel=kernel)
    assert step.impact is Impact.WORKLOADS
    await brought(step, host)
    assert [name for name, one in host.packages.items() if one.version == "2"] == list(names[:newer])
    assert [name for name, one in host.packages.items() if one.held] == ["mine"]


async def test_lists_and_updates_are_fetched_first(scene: Scene) -> None:
    host, family = machine(scene, offered={"base": ["2", "1"]}), family_in(scene)
    host.packages = {"base": Installed("1")}
    indexed = family.indexed()
    assert indexed.impact is Impact.FILES
    await brought(indexed, host)
    await brought(family.updates_fetched("all", kernel=True), host)
    if scene.machine is DebianMachine:
        assert versions(host) == {"base": "1"}, "nothing is installed by that"
    host.packages = {}
    assert await look(family.updates_fetched("all", kernel=True), host) is None


async def test_a_restart_is_asked_for_by_the_systems_own_mark(scene: Scene) -> None:
    host, family = machine(scene), family_in(scene)
    assert await family.restart_reasons(cast("Host", host), 50.0) == []
    host.files["/run/reboot-required"] = b"*** System restart required ***\n"
    assert len(await family.restart_reasons(cast("Host", host), 50.0)) == 1


async def test_packages_that_changed_after_a_moment_are_told(scene: Scene) -> None:
    host, family = machine(scene, changed={"containerd.io": 60, "base": 70}), family_in(scene)
    host.packages = {"containerd.io": Installed("1"), "base": Installed("1")}
    assert await family.changed_since(cast("Host", host), ("containerd.io", "none"), 50.0) == ["containerd.io"]
    assert await family.changed_since(cast("Host", host), ("containerd.io",), 60.0) == []


async def test_who_changes_packages_now_is_told(scene: Scene) -> None:
    host, family = machine(scene), family_in(scene)
    assert await family.at_work(cast("Host", host)) == ""
    host.worker, host.files["/var/run/dnf.pid"] = "unattended-upgr (7)", b"7"
    assert "7" in await family.at_work(cast("Host", host))


@pytest.mark.parametrize("what", ["installed", "held", "in_order", "upgraded"])
async def test_another_package_managers_lock_is_waited_for(scene: Scene, what: str) -> None:
    host, family = machine(scene, offered={"one": ["1"]}), family_in(scene)
    if what != "installed":
        host.packages["one"] = Installed("1", sound=what != "in_order")
    steps = {
        "installed": family.installed("it is there", {"one": None}),
        "held": family.held(("one",)),
        "in_order": family.in_order(cluster()),
        "upgraded": family.upgraded(),
    }
    host.busy = 3
    await brought(steps[what], host)
    assert host.busy == 0


async def test_a_lock_that_stays_is_reported_as_such(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "LOCK_SECONDS", -1)
    monkeypatch.setattr(rpm_family, "LOCK_SECONDS", -1)
    host = machine(scene, offered={"one": ["1"]}, busy=9)
    with pytest.raises(CommandFailed) as raised:
        await apply(family_in(scene).installed("it is there", {"one": None}), host)
    assert raised.value.code == "SHW-401"
    assert host.packages == {}


# --- repositories and the way to them ---------------------------------------------------------------------------


async def test_a_repository_is_known_with_a_key_that_was_checked(scene: Scene) -> None:
    host, step = machine(scene), family_in(scene).repository("docker", cluster())
    assert step.impact is Impact.FILES
    assert "docker" in step.name
    await brought(step, host)
    ring = next(path for path, content in host.files.items() if content.startswith(b"-----BEGIN PGP"))
    host.files[ring] += b"another one"
    assert await look(step, host) is not None, "a key that nobody checked is drift"


async def test_repositories_keys_and_holds_are_taken_back_and_packages_stay(scene: Scene) -> None:
    host, family = machine(scene), family_in(scene)
    host.packages = {"one": Installed("1"), "two": Installed("2"), "kept": Installed("3", held=True)}
    before = set(host.files)
    await apply(family.repository("docker", cluster()), host)
    await apply(family.held(("one", "two")), host)
    steps = family.taken_back(("one", "two"))
    assert {step.impact for step in steps} == {Impact.FILES}
    for step in steps:
        await apply(step, host)
    assert [await look(step, host) for step in steps] == [None] * len(steps)
    assert {path for path in set(host.files) - before if not path.startswith("/var/lib/shipway/")} == set()
    assert versions(host) == {"one": "1", "two": "2", "kept": "3"}
    assert {name for name, one in host.packages.items() if one.held} == {"kept"}, "a hold of somebody else's"


@pytest.mark.parametrize("served", ["another", "none"])
async def test_a_key_that_is_not_the_pinned_one_is_refused_and_nothing_is_written(scene: Scene, served: str) -> None:
    pinned = "A" * 40
    host = machine(scene)
    if served == "none":
        host.served = dict.fromkeys(host.served, b"<html>403 Forbidden</html>")
    before = dict(host.files)
    with pytest.raises(Permanent) as raised:
        await apply(family_in(scene, pinned).repository("docker", cluster(pinned=pinned)), host)
    assert raised.value.code == "SHW-306"
    assert host.files == before


def test_without_a_declared_base_repository_nothing_is_done_about_it(scene: Scene) -> None:
    assert family_in(scene).base_repository(cluster()) == []


def test_what_is_fetched_first_are_addresses_without_the_version_left_to_fill_in(scene: Scene) -> None:
    family = family_in(scene)
    urls = family.fetches(cluster())
    assert any(url.startswith("https://packages.example.com/docker/") for url in urls)
    assert any("key" in url for url in urls)
    assert not [url for url in urls if "{minor}" in url or not url.startswith("https://")]
    assert not [url for url in family.fetches(cluster(), without=("docker",)) if "packages.example.com" in url]


async def test_the_fetcher_has_the_declared_proxy_and_loses_one_that_was_declared_once(scene: Scene) -> None:
    host, family = machine(scene), family_in(scene)
    declared, undeclared = cluster(f"proxy: {{http: '{PROXY}'}}\n"), cluster()
    if scene.machine is RpmMachine:
        host.files["/etc/dnf/dnf.conf"] = b"[main]\n"
    assert await look(family.proxy(undeclared), host) is None
    step = family.proxy(declared)
    assert step.impact is Impact.FILES
    await apply(step, host)
    assert any(PROXY.encode() in content for content in host.files.values())
    await brought(family.proxy(undeclared), host)
    assert not any(PROXY.encode() in content for content in host.files.values())


async def test_sources_that_can_be_read_are_no_drift_and_nothing_repairs_them(scene: Scene) -> None:
    check = family_in(scene).sources_readable()
    assert await look(check, machine(scene)) is None
    assert not hasattr(check, "apply")


def test_a_host_without_the_fetcher_is_asked_for_addresses_all_the_same(scene: Scene) -> None:
    family = family_in(scene)
    words = ["/bin/bash", "-c", sources.script_of(family), "http://a.example/x", family.fetcher, "/bin/echo"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": "/none"})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "http://a.example/x\n", "")
    assert "@" not in sources.script_of(family).replace('"$@"', "")


def test_no_two_steps_of_a_family_have_one_name(scene: Scene) -> None:
    family, made = family_in(scene), cluster()
    steps = [family.proxy(made), family.in_order(made), family.repository("docker", made), family.upgraded()]
    steps += [family.held(("one",)), family.installed("a", {}), family.in_version("b", {})]
    steps += [family.indexed(), family.updates_fetched("all", kernel=True), family.updated("all", kernel=True)]
    names = [step.name for step in (*steps, family.sources_readable())]
    assert len(set(names)) == len(names)
    assert all(names)
