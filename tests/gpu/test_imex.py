"""IMEX: only on GPUs that NVLink joins across hosts, in the driver's transaction, and run by pods or by the host.

The machines are doubles: no GB200 or GB300 was there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from flows.bootstrap import run_imex
from shipway.cluster_file import parse_cluster
from shipway.converge import converge, look_at_all
from shipway.edits.imex import with_settings, without_settings
from shipway.errors import Refused, Unreachable
from shipway.gpu.driver.generations import generation_of, is_coherent
from shipway.gpu.driver.imex import CHANNELS, CONFIG, NODES, SOCKET, Fellow, nodes_text, read_fabric
from shipway.host.session import Host
from shipway.script import Output
from shipway.stage import StageName
from shipway.step import Impact, StepResult
from shipway.steps.gpu.driver.holders import find_holders
from shipway.steps.gpu.driver.imex import ImexChannels, ImexConfigured, ImexLeftToPods, ImexReady, ImexRuns, read_fellow
from tasks import imex
from tasks.context import Run
from tasks.maintain import look, work
from tasks.stages import gpu_driver
from tasks.workloads import permit_undisturbed
from tests.gpu.driver_machine import (
    B200,
    B300,
    GB200,
    GB300,
    GH200,
    H100,
    KERNEL,
    PACKAGED,
    V1,
    V2,
    DriverMachine,
    offers,
    space,
)
from tests.gpu.test_driver import bring, cluster, steps, wrong
from tests.gpu.test_fabric import told
from tests.maintain.test_driver import with_driver
from tests.os.machine import Installed
from tests.places.facts import DEBIAN

RACK = "9c6f5af3-53bf-49b5-a436-b66766c413c3"
LEFT = ImexLeftToPods(None).name


def joined(device: int = GB200, **more: Any) -> DriverMachine:
    """Return a host with such GPUs, whose repository has IMEX in all its versions."""
    found = offers(V2, V1) | {"nvidia-imex": [f"{V2}-1", f"{V1}-1"]}
    host = DriverMachine(**{"devices": ((device, "0302"),), "offered": found, **more})
    host.packages[f"linux-headers-{KERNEL}"] = Installed("1")
    return host


def of_rack(clique: str = "4026", rack: str = RACK) -> str:
    """Return what a driver tells of a GPU that has joined a fabric of several hosts."""
    return told(ClusterUUID=rack, CliqueId=clique)


@pytest.mark.parametrize("device", [GB200, GB300])
async def test_its_package_comes_with_the_driver_in_its_very_version_and_its_service_never_starts(device: int) -> None:
    host = joined(device)
    assert wrong(await bring(host, cluster())) == []
    assert (host.packages["nvidia-imex"].version, len(host.installs)) == (f"{V2}-1", 1)
    assert host.packages["nvidia-imex"].held
    assert host.units["nvidia-imex"] == ["inactive", "masked"]
    assert [one.outcome for one in await bring(host, cluster()) if one.step == LEFT] == ["ok"]


@pytest.mark.parametrize("device", [H100, B200, B300, GH200])
async def test_no_other_host_gets_it_or_is_asked_of_it(device: int) -> None:
    host = joined(device)
    assert wrong(await bring(host, cluster())) == []
    assert "nvidia-imex" not in host.packages
    assert "nvidia-imex" not in host.units


def test_gb200_and_gb300_are_blackwells_with_memory_beside_a_grace_cpu() -> None:
    assert [generation_of(one) is not None and is_coherent(one) for one in (GB200, GB300, GH200, B200, B300)] == [
        *(True, True, True),
        *(False, False),
    ]


async def test_a_driver_that_is_not_offered_with_it_is_refused_by_its_name() -> None:
    host = joined(offered=offers(V2))
    results = await bring(host, cluster())
    (error,) = (one.error for one in results if one.outcome == "failed")
    assert error is not None
    assert (error.code, "IMEX (nvidia-imex or nvidia-imex-580)" in error.message) == ("SHW-686", True)
    assert host.installs == []


async def test_ubuntus_name_of_it_is_known() -> None:
    version = f"{V1}-0ubuntu0.24.04.2"
    names = ("nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server", "nvidia-imex-580")
    modules = "linux-modules-nvidia-580-server-open"
    found = {one: [version] for one in names}
    found |= {f"{modules}-{one}": ["6.8.0-49.49+1"] for one in ("amd64", KERNEL)}
    host = joined(release='ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n', offered=found)
    made = cluster(source="ubuntu")
    results = await look_at_all(gpu_driver.checks(made, made.hosts[1], DEBIAN), cast("Host", host))
    assert [one.error for one in results if one.error] == []
    del found["nvidia-imex-580"]
    results = await look_at_all(gpu_driver.checks(made, made.hosts[1], DEBIAN), cast("Host", host))
    assert [one.error.code for one in results if one.error] == ["SHW-686"]


@pytest.mark.parametrize("source", ["none", "debian"])
def test_a_source_without_it_takes_no_key_of_it(source: str) -> None:
    with pytest.raises(Refused, match="has no nvidia-imex"):
        cluster(source=source, imex="host")


async def test_a_service_that_runs_and_is_not_declared_is_left_and_refused_before_anything_is_changed() -> None:
    host = joined(units={"nvidia-imex": ["active", "enabled"]})
    made = cluster()
    results = await look_at_all(gpu_driver.checks(made, made.hosts[1], DEBIAN), cast("Host", host))
    assert {one.error.code for one in results if one.error} == {"SHW-695"}
    results = await bring(host, made)
    assert [one.error.code for one in results if one.outcome == "failed" and one.error] == ["SHW-695"]
    assert (host.units["nvidia-imex"], host.installs) == (["active", "enabled"], [])


async def test_one_that_the_file_leaves_to_pods_is_stopped_and_masked() -> None:
    host = joined(units={"nvidia-imex": ["active", "enabled"]})
    assert wrong(await bring(host, cluster(imex="workloads"))) == []
    assert host.units["nvidia-imex"] == ["inactive", "masked"]


async def test_one_that_is_just_starting_runs_and_a_mask_alone_stops_none() -> None:
    with pytest.raises(Refused, match="was left as it is"):
        await ImexLeftToPods(None).check(cast("Host", joined(units={"nvidia-imex": ["activating", "enabled"]})))
    drift = await ImexLeftToPods("workloads").check(cast("Host", joined(units={"nvidia-imex": ["active", "masked"]})))
    assert drift is not None


def test_its_daemon_holds_a_gpu_and_is_no_work() -> None:
    assert find_holders("12 nvidia-imex 0::/system.slice/nvidia-imex.service\n", outside=True) == []
    assert find_holders("12 nvidia-imex-te 0::/system.slice/x.service\n", outside=True) == ["nvidia-imex-te (12)"]


@pytest.mark.parametrize(
    ("said", "fabric"),
    [
        (of_rack(), f"{RACK} 4026"),
        (told(), ""),
        (told(State="In Progress"), None),
        (told(State="N/A"), None),
        (told(Status="Insufficient Resources"), None),
        (told(ClusterUUID="N/A"), None),
        (told(CliqueId="[Not Supported]", ClusterUUID="Not Supported"), None),
        (of_rack() + "\nGPU 00000000:00:07.0" + of_rack().partition("GPU 00000000:00:06.0")[2], f"{RACK} 4026"),
        (of_rack() + "\nGPU 00000000:00:07.0" + of_rack("7").partition("GPU 00000000:00:06.0")[2], None),
        (of_rack() + "\nGPU 00000000:00:07.0\n    Product Name  : x", None),
        ("", None),
    ],
)
def test_a_fabric_is_known_where_all_gpus_have_joined_the_same(said: str, fabric: str | None) -> None:
    found, why = read_fabric(Output(0, said, ""))
    assert found == fabric
    assert bool(why) == (fabric is None)
    assert read_fabric(Output(9, said, ""))[0] is None


def test_the_list_is_the_same_on_every_node() -> None:
    assert nodes_text(["10.0.0.10", "10.0.0.9", "10.0.0.10"]) == "10.0.0.9\n10.0.0.10\n"


@pytest.mark.parametrize(
    ("text", "back"),
    [
        (PACKAGED.decode(), PACKAGED.decode()),
        ("", ""),
        ("IMEX_CMD_ENABLED = 1\n\n", "IMEX_CMD_ENABLED = 1\n\n"),
        ("A=1\n# END shipway\n", "A=1\n# END shipway\n"),
        ("# BEGIN shipway\nIMEX_CMD_ENABLED=0\nOTHER=2\n", "IMEX_CMD_ENABLED=0\nOTHER=2\n"),  # a block without an end
    ],
)
def test_an_edit_keeps_what_others_wrote_and_is_taken_back(text: str, back: str) -> None:
    edited = with_settings(text)
    assert with_settings(edited) == edited
    assert [one for one in edited.splitlines() if one.startswith("IMEX_CMD_ENABLED")] == ["IMEX_CMD_ENABLED=1"]
    assert edited.count(f"\nIMEX_CMD_UNIX_DOMAIN_PATH={SOCKET}\n") == 1
    assert without_settings(edited) == back


def test_a_line_that_somebody_adds_behind_ours_does_not_count() -> None:
    edited = with_settings(f"{with_settings('A=1')}IMEX_CMD_ENABLED=0\n")
    assert "# off by shipway: IMEX_CMD_ENABLED=0" in edited
    assert edited.index("\nIMEX_CMD_ENABLED=1") > edited.index("IMEX_CMD_ENABLED=0")


@dataclass
class Fabric:
    """Hosts of a run, by name: what each is, or that it does not answer."""

    hosts: dict[str, DriverMachine | None]

    def run(self, monkeypatch: pytest.MonkeyPatch, mode: Any = "bootstrap") -> Run:
        """Return a run about them, which has nobody's pods in the way."""
        names = "".join(f"- {{name: {one}, address: 10.0.0.{at}, gpus: 1}}\n" for at, one in enumerate(self.hosts, 1))
        text = f"name: te\nhosts:\n{names}gpu: {{driver: {{source: cuda, branch: 580, imex: host}}}}\n"
        run = Run(parse_cluster(text), mode)

        async def nobody(*_: Any) -> None:
            """Find no pod."""

        monkeypatch.setattr(run, "session", self.session)
        monkeypatch.setattr("tasks.workloads.find_busy", nobody)
        monkeypatch.setattr(imex, "READY_SECONDS", 0.05)
        return run

    def session(self, name: str) -> Any:
        """Return one."""
        return self.hosts[name] or Silent()


class Silent:
    """A host that does not answer."""

    def forget(self) -> None:
        """Know nothing."""

    async def read(self, *_: Any) -> Any:
        """Fail."""
        raise Unreachable("no route to it")


def serving(report: str, **more: Any) -> DriverMachine:
    """Return a host whose driver is there, with IMEX as its package leaves it."""
    host = with_driver(V2, devices=((GB200, "0302"),), **more)
    host.report = report
    host.files |= {CONFIG: PACKAGED, "/proc/devices": f"Character devices:\n234 {CHANNELS}\n".encode()}
    host.units["nvidia-imex"] = ["active", "enabled"]
    return host


def codes(results: list[StepResult]) -> list[str]:
    """Return how each ended."""
    return [one.outcome for one in results]


async def test_hosts_of_one_fabric_get_one_list_and_no_other_host_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = {"a": serving(of_rack()), "b": serving(of_rack("5")), "c": serving(of_rack()), "d": with_driver(V2)}
    run = Fabric(dict(hosts)).run(monkeypatch)
    for name in hosts:
        assert set(codes(await imex.bring_undisturbed(run, "gpu_imex", name))) <= {"ok", "changed"}
    assert hosts["a"].files[NODES] == hosts["c"].files[NODES] == b"10.0.0.1\n10.0.0.3\n"
    assert hosts["b"].files[NODES] == b"10.0.0.2\n"
    assert NODES not in hosts["d"].files
    assert "nvidia-imex" not in hosts["d"].starts
    text = hosts["a"].files[CONFIG].decode()
    assert f"\nIMEX_CMD_UNIX_DOMAIN_PATH={SOCKET}\n" in text
    assert "\nIMEX_CMD_BIND_INTERFACE_IP=127.0.0.1\n" in text, "whoever reaches it can stop it"
    assert "SOMEBODY=1\n" in text
    assert hosts["a"].starts == {"nvidia-imex": 1}, "it reads its files when it starts"
    assert codes(await imex.bring_undisturbed(run, "gpu_imex", "a")) == ["ok"] * 4
    assert hosts["a"].starts == {"nvidia-imex": 1}


async def test_a_host_that_comes_later_is_added_on_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: dict[str, DriverMachine | None] = {"a": serving(of_rack())}
    await imex.bring_undisturbed(Fabric(hosts).run(monkeypatch), "gpu_imex", "a")
    hosts["b"] = serving(of_rack())
    results = await imex.bring_undisturbed(Fabric(hosts).run(monkeypatch), "gpu_imex", "a")
    assert codes(results) == ["changed", "changed", "ok", "ok"]
    assert hosts["a"] is not None
    assert (hosts["a"].files[NODES], hosts["a"].starts) == (b"10.0.0.1\n10.0.0.2\n", {"nvidia-imex": 2})


@pytest.mark.parametrize("other", [None, "starts"])
async def test_nothing_is_written_while_a_host_does_not_tell_its_fabric(
    monkeypatch: pytest.MonkeyPatch, other: str | None
) -> None:
    hosts = {"a": serving(of_rack()), "b": serving(told(State="In Progress")) if other else None}
    results = await imex.bring_undisturbed(Fabric(hosts).run(monkeypatch), "gpu_imex", "a")
    assert codes(results)[:2] == ["failed", "unknown"]
    error = results[0].error
    assert error is not None
    assert "b (" in error.message
    assert hosts["a"] is not None
    assert (hosts["a"].files[CONFIG], NODES in hosts["a"].files, hosts["a"].starts) == (PACKAGED, False, {})


async def test_a_host_whose_fabric_reaches_no_other_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: dict[str, DriverMachine | None] = {"a": serving(told()), "b": serving(told())}
    await imex.bring_undisturbed(Fabric(hosts).run(monkeypatch), "gpu_imex", "a")
    assert hosts["a"] is not None
    assert hosts["a"].files[NODES] == b"10.0.0.1\n"


async def test_a_plan_only_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: dict[str, DriverMachine | None] = {"a": serving(of_rack())}
    results = await imex.bring_undisturbed(Fabric(hosts).run(monkeypatch, "plan"), "gpu_imex", "a")
    assert codes(results)[:1] == ["drifted"]
    assert hosts["a"] is not None
    assert (hosts["a"].files[CONFIG], hosts["a"].starts) == (PACKAGED, {})


async def test_a_host_in_service_is_told_of_in_a_drift_pass_and_has_its_turn_in_a_wave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = serving(of_rack())
    host.packages["nvidia-imex"] = Installed(f"{V2}-1", held=True)
    run = Fabric({"a": host}).run(monkeypatch, "maintain")
    monkeypatch.setattr(run, "family", lambda _: DEBIAN)
    run.maintenance.driver = True
    state = await look.read_system(run, "a")
    assert state.driver is not None
    assert CONFIG in state.driver[0] or NODES in state.driver[0]
    for step in imex.steps(run, "a"):
        assert getattr(step, "impact", Impact.WORKLOADS) is Impact.WORKLOADS, "a drift pass changes none of it"
    await imex.bring_undisturbed(run, "gpu_imex", "a")
    assert (await look.read_system(run, "a")).driver is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [("READY\n", ""), ("NOT READY\n", "NOT READY"), ("", "it does not tell"), ("READY soon", "READY soon")],
)
async def test_it_is_ready_where_it_says_so_and_nowhere_else(answer: str, words: str) -> None:
    drift = await ImexReady().check(cast("Host", serving(of_rack(), imex=answer)))
    assert (drift.have if drift else "") == words


async def test_one_that_does_not_answer_is_not_ready() -> None:
    host = serving(of_rack())
    host.units["nvidia-imex"] = ["failed", "enabled"]
    drift = await ImexReady().check(cast("Host", host))
    assert drift is not None
    assert drift.have == "connection refused"


@pytest.mark.parametrize(
    ("devices", "nodes", "have"),
    [
        (f"234 {CHANNELS}\n", "", None),
        (f"234 {CHANNELS}\n", f"character special file|ea|/dev/{CHANNELS}/channel0\n", None),
        (f"234 {CHANNELS}\n", f"character special file|eb|/dev/{CHANNELS}/channel0\n", "channel0 is none"),
        (f"234 {CHANNELS}\n", f"regular file|0|/dev/{CHANNELS}/channel7\n", "channel7 is none"),
        (f"234 {CHANNELS}-other\n", "", f"no {CHANNELS}"),
        ("", "", f"no {CHANNELS}"),
    ],
)
async def test_channels_are_those_that_the_driver_registered(devices: str, nodes: str, have: str | None) -> None:
    host = serving(of_rack(), channels=nodes)
    host.files["/proc/devices"] = devices.encode()
    drift = await ImexChannels().check(cast("Host", host))
    assert (drift is None) == (have is None)
    assert drift is None or (have or "") in drift.have


async def test_what_is_not_there_yet_is_waited_for() -> None:
    async def alone() -> list[Fellow]:
        return [Fellow("te2", "10.0.0.2", f"{RACK} 1")]

    bare = joined()
    wanted = [ImexConfigured("te2", alone), ImexRuns(), ImexChannels()]
    assert codes(await converge(wanted, cast("Host", bare), Impact.NOTHING)) == ["unknown"] * 3


async def test_a_host_tells_of_a_fabric_only_where_its_gpus_could_be_in_one() -> None:
    assert await read_fellow(cast("Host", serving(of_rack())), "a", "10.0.0.1") == Fellow(
        "a", "10.0.0.1", f"{RACK} 4026"
    )
    assert await read_fellow(cast("Host", with_driver(V2)), "a", "10.0.0.1") is None


def test_where_hosts_run_it_nothing_masks_it() -> None:
    masks = [[one for one in steps(cluster(imex=way)) if isinstance(one, ImexLeftToPods)] for way in ("host", None)]
    assert [len(one) for one in masks] == [0, 1]
    assert space(GB200).startswith("de 10 41 29")


async def test_a_wave_goes_on_where_another_host_does_not_tell_its_fabric_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Fabric({"a": serving(of_rack()), "b": None}).run(monkeypatch, "maintain")

    async def proven(*_: Any) -> list[StepResult]:
        return [StepResult("proven", "ok")]

    monkeypatch.setattr(work, "prove_driver", proven)
    monkeypatch.setattr(work, "permit_held", lambda _: permit_undisturbed(run, "a"))
    results = await work._end_of_driver(run, "maintain_worker", "a", [])
    assert codes(results)[:2] == ["ok", "unknown"]
    assert results[1].error is not None


@pytest.mark.parametrize(("way", "asked"), [("host", ["a"]), ("workloads", [])])
async def test_a_bootstrap_has_its_ready_hosts_run_it_once_all_are_there(
    monkeypatch: pytest.MonkeyPatch, way: str, asked: list[str]
) -> None:
    text = "name: te\nhosts: [{name: a, address: 10.0.0.1, gpus: 1}, {name: b, address: 10.0.0.2, gpus: 1}, "
    text += f"{{name: c, address: 10.0.0.3, gpus: 0}}]\ngpu: {{driver: {{source: cuda, branch: 580, imex: {way}}}}}\n"
    run, seen = Run(parse_cluster(text), "bootstrap"), []

    async def on(stage: StageName, host: str) -> None:
        assert stage is StageName.GPU_IMEX
        seen.append(host)

    monkeypatch.setattr("flows.bootstrap.on", on)
    run.ready = {"a", "c"}
    await run_imex(run)
    assert seen == asked
