"""A cluster file that contradicts its hosts is refused by every flow, on a SIMULATED lab: nothing at all is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.bootstrap import bootstrap
from flows.cli.demo import Demo
from flows.drift_repair import drift_repair
from flows.fleet_group import fleet_group
from flows.verify import verify_cluster
from lab.simulated.control import ask
from shipway.errors import Refused
from tasks.context import VIEW
from tasks.report import Report
from tests.drift.scene import Scene
from tests.flows.story import LATENCY, Kept, patient

pytestmark = pytest.mark.xdist_group("drift")
Data = dict[str, Any]
HOSTS = ("te1", "te2", "te3")


@dataclass(frozen=True)
class Before:
    """What a lab's hosts were, and how many commands each had run."""

    folder: Path
    digests: dict[str, str]
    ran: dict[str, int]
    kubeconfig: str

    @classmethod
    def of(cls, folder: Path) -> Before:
        """Look at every host."""
        digests = ask(folder, do="digest")["digests"]
        ran = {name: len(ask(folder, do="ran", host=name)["ran"]) for name in HOSTS}
        return cls(folder, digests, ran, _kubeconfig(folder))

    def unchanged(self) -> None:
        """Prove by state and by the commands that were run that nothing was written, renamed or reset."""
        assert ask(self.folder, do="digest")["digests"] == self.digests
        assert _kubeconfig(self.folder) == self.kubeconfig
        for name, count in self.ran.items():
            new = ask(self.folder, do="ran", host=name)["ran"][count:]
            assert [one["words"] for one in new if one["verb"] != "r"] == []
            assert not [one for one in new if "reset" in one["words"] or "systemd-run" in one["words"]]


def _kubeconfig(folder: Path) -> str:
    path = folder / "state" / "simulated" / "kubeconfig"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _file(scene: Scene, name: str, change: Callable[[Data], None]) -> Path:
    data = yaml.safe_load(scene.file.read_text(encoding="utf-8"))
    change(data)
    path = scene.file.with_name(f"{name}.yaml")
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def _bootstrapped(file: Path, **asked: Any) -> Report:
    """Run the bootstrap; return its report."""
    view = Kept()
    VIEW.set(view)
    asyncio.run(bootstrap(str(file), return_state=True, **asked))
    report = view.run.report
    assert isinstance(report, Report)
    return report


def _passed(file: Path, **asked: Any) -> Any:
    """Run a pass of drift repair; return its result, an error where it was refused."""

    async def fly() -> Any:
        state = await drift_repair(str(file), return_state=True, **asked)
        return await state.aresult(raise_on_failure=False)

    return asyncio.run(fly())


def _swapped(data: Data) -> None:
    data["hosts"][0], data["hosts"][1] = data["hosts"][1], data["hosts"][0]


def _roles(data: Data) -> None:
    for host in data["hosts"]:
        host["roles"] = ["control_plane"] if host["name"] == "te3" else ["worker"]


def _copied(data: Data) -> None:
    data["name"] = "another"
    data["kubernetes"]["pod_network"] = "10.200.0.0/16"


def _network(data: Data) -> None:
    data["kubernetes"]["service_network"] = "10.77.0.0/16"


def _renamed(data: Data) -> None:
    data["hosts"][1]["name"] = "gpu-two"


def _moved(data: Data) -> None:
    data["hosts"][1]["node_ip"] = "10.1.2.3"


def _endpoint(data: Data) -> None:
    data["kubernetes"]["api_endpoint"] = "api.example.com"


def _swapped_without_state(data: Data) -> None:
    _swapped(data)
    data["state_dir"] += "-lost"


CASES: dict[str, tuple[Callable[[Data], None], str, tuple[str, ...]]] = {
    "two lines of hosts are swapped": (_swapped, "SHW-317", ("te1", "te2")),
    "the roles are others": (_roles, "SHW-317", ("te1", "te3")),
    "state_dir is lost, and two lines are swapped": (_swapped_without_state, "SHW-317", ("te1", "te2")),
    "a copied file has another name and pod network": (_copied, "SHW-319", ("te1",)),
    "the service network is another": (_network, "SHW-319", ("te1",)),
    "the API's endpoint is another": (_endpoint, "SHW-319", ("te1",)),
    "a joined host has another name": (_renamed, "SHW-321", ("gpu-two",)),
    "a joined host has another address": (_moved, "SHW-322", ("te2",)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_contradicts_its_hosts_is_refused_and_nothing_is_changed(scene: Scene, case: str) -> None:
    change, code, named = CASES[case]
    file, before = _file(scene, "contradicting", change), Before.of(scene.lab)
    report = _bootstrapped(file)
    assert (report.outcome, report.exit_code) == ("refused", 1)
    assert {error.host for error in report.errors if error.code == code} == set(named)
    assert all(error.fix and "kubeadm reset -f" not in error.fix for error in report.errors)
    refused = _passed(file, repair="workloads")
    assert isinstance(refused, Refused)
    assert refused.code == code
    before.unchanged()


def test_hosts_named_alone_are_refused_too_whichever_they_are(scene: Scene) -> None:
    file, before = _file(scene, "swapped", _swapped), Before.of(scene.lab)
    for hosts in (("te1",), ("te2",), ("te3",)):
        assert _bootstrapped(file, hosts=hosts).outcome == "refused", hosts
        assert isinstance(_passed(file, repair="service", hosts=hosts), Refused), hosts
    before.unchanged()


def test_verification_and_the_groups_of_a_fleet_refuse_it_as_well(scene: Scene) -> None:
    file, before = _file(scene, "swapped", _swapped), Before.of(scene.lab)
    view = Kept()
    VIEW.set(view)
    asyncio.run(verify_cluster(str(file), return_state=True))
    assert view.run.report is not None
    assert view.run.report.outcome == "refused"
    for what in ("plan", "look"):
        state: Any = asyncio.run(fleet_group(str(file), what, ("te3",), return_state=True))  # type: ignore[arg-type]
        assert state.is_failed(), what
    before.unchanged()


def test_reset_of_a_running_control_plane_is_refused(scene: Scene) -> None:
    before = Before.of(scene.lab)
    report = _bootstrapped(scene.file, reset=("te1",))
    assert (report.outcome, {error.code for error in report.errors}) == ("refused", {"SHW-318"})
    before.unchanged()


def test_a_right_file_needs_no_state_dir_and_gets_its_kubeconfig_back(scene: Scene) -> None:
    def lost(data: Data) -> None:
        data["state_dir"] += "-anew"

    file = _file(scene, "anew", lost)
    assert _bootstrapped(file).outcome == "ok"
    saved = scene.lab / "state-anew" / "simulated" / "kubeconfig"
    assert saved.read_text(encoding="utf-8") == _kubeconfig(scene.lab)


@pytest.fixture(scope="module")
def other() -> Iterator[tuple[Path, Path]]:
    """Return another lab with a cluster of its own on its first two hosts, and the file of it."""
    with Demo(latency=LATENCY) as lab:
        whole = patient(lab.cluster_file())
        data = yaml.safe_load(whole.read_text(encoding="utf-8"))
        file = whole.with_name("two.yaml")
        file.write_text(yaml.safe_dump({**data, "hosts": data["hosts"][:2]}), encoding="utf-8")
        assert _bootstrapped(file).outcome == "ok"
        yield lab.folder, file


def _mixed(scene: Scene, other: Path, take: dict[str, str]) -> Path:
    """Write a file in which hosts of the scene (key) are machines of the other lab (value)."""
    foreign = yaml.safe_load((other / "cluster.yaml").read_text(encoding="utf-8"))
    there = {host["name"]: host for host in foreign["hosts"]}
    known = scene.file.with_name("known_hosts_of_both")
    known.write_text(
        "".join((folder / "known_hosts").read_text(encoding="utf-8") for folder in (scene.lab, other)),
        encoding="utf-8",
    )

    def change(data: Data) -> None:
        data["ssh"]["known_hosts"] = str(known)
        for host in data["hosts"]:
            if host["name"] in take:
                host["address"] = there[take[host["name"]]]["address"]
                host["ssh"] = {"key": str(other / "id_ed25519")}

    return _file(scene, "mixed", change)


def test_a_host_of_another_cluster_is_refused_before_it_is_touched(scene: Scene, other: tuple[Path, Path]) -> None:
    file = _mixed(scene, other[0], {"te3": "te2"})
    here, there = Before.of(scene.lab), Before.of(other[0])
    report = _bootstrapped(file)
    assert (report.outcome, report.exit_code) == ("refused", 1)
    assert "SHW-309" in {error.code for error in report.errors if error.host == "te3"}
    assert isinstance(_passed(file, repair="workloads", hosts=("te3",)), Refused)
    here.unchanged()
    there.unchanged()


def test_a_control_plane_of_another_cluster_of_the_same_name_is_refused(scene: Scene, other: tuple[Path, Path]) -> None:
    """Its nodes disagree; and where it is asked alone, the kubeconfig that this machine keeps does."""
    file = _mixed(scene, other[0], {"te1": "te1"})
    here, there = Before.of(scene.lab), Before.of(other[0])
    codes = {error.code for error in _bootstrapped(file).errors}
    assert {"SHW-309", "SHW-320"} <= codes
    assert {"SHW-320"} <= {error.code for error in _bootstrapped(file, hosts=("te1",)).errors}
    here.unchanged()
    there.unchanged()


def test_a_bare_machine_in_the_control_plane_s_place_is_never_initialised(
    scene: Scene, other: tuple[Path, Path]
) -> None:
    """With a new state_dir nothing but the nodes tells of the cluster; and asked alone, it asks them."""
    file = _mixed(scene, other[0], {"te1": "te4"})
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    fresh = file.with_name("fresh.yaml")
    fresh.write_text(yaml.safe_dump({**data, "state_dir": data["state_dir"] + "-fresh"}), encoding="utf-8")
    here, there = Before.of(scene.lab), Before.of(other[0])
    for one in (file, fresh):
        for hosts in ((), ("te1",)):
            report = _bootstrapped(one, hosts=hosts)
            assert report.outcome == "refused"
            assert "SHW-318" in {error.code for error in report.errors}
    here.unchanged()
    there.unchanged()
