"""A worker of a SIMULATED lab is replaced by another machine, by the flow itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from flows.bootstrap import bootstrap
from flows.cli.demo import Demo
from flows.replace import replace
from lab.simulated.control import ask
from shipway.cluster_file import load_cluster
from shipway.errors import Permanent
from shipway.facts.files import FileText
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Command, Host
from shipway.host.ssh import Pool
from shipway.kube.client import Kube
from shipway.step import Drift, Impact
from shipway.steps.reset.kubelet import RESETTING, KubeletOff, NodeUndone
from tasks.report import Report
from tasks.retire import work
from tests.flows.story import LATENCY, patient
from tests.places.prefect import Place, hurried

pytestmark = pytest.mark.xdist_group("replace")  # each goes on from what the one before it left
Lab = tuple[Path, Path]
ORDER = [
    "preflight te3",
    "may_replace te3",
    "may_remove te3",
    "control_plane_ready cluster",
    "kubernetes_packages te3",
    "drain_node te3",
    "stop_kubelet te3",
    "delete_node cluster",
    "reset_host te3",
    "control_plane_ready cluster",
    "join_worker te3",
]


@pytest.fixture(scope="module")
def lab(prefect_place: Place) -> Iterator[Lab]:
    """Yield a lab's folder and the file of its cluster of three hosts; te4's machine is bare, and in no file."""
    assert prefect_place
    with hurried(), Demo(latency=LATENCY) as demo:
        file = patient(demo.cluster_file())
        of_three = named(file, "te1", "te2", "te3")
        made = asyncio.run(_report(bootstrap, of_three))
        assert made.outcome == "ok", made.errors
        yield demo.folder, file


def named(file: Path, *names: str, **at: str) -> Path:
    """Write a file of these hosts, some of them at the address of another one; return its path."""
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    addresses = {host["name"]: host["address"] for host in data["hosts"]}
    data["hosts"] = [
        {**host, "address": addresses[at.get(host["name"], host["name"])]}
        for host in data["hosts"]
        if host["name"] in names
    ]
    written = file.with_name("of-some.yaml")
    written.write_text(yaml.safe_dump(data), encoding="utf-8")
    return written


async def _report(flow: Any, file: Path, *parameters: Any, **more: Any) -> Report:
    state = await flow(str(file), *parameters, return_state=True, **more)
    report = await state.aresult(raise_on_failure=False)
    assert isinstance(report, Report), report
    return report


def replaced(file: Path, mode: str = "replace", host: str = "te3", **more: Any) -> Report:
    """Run the flow to its end."""
    return asyncio.run(_report(replace, file, host, mode, **more))


def stages(report: Report) -> list[str]:
    """Return the stages in order, each with its host."""
    return [f"{one.stage} {one.host}" for one in report.stages]


def changed(report: Report) -> list[str]:
    """Return the steps that changed something."""
    return [row.step for stage in report.stages for row in stage.rows if row.outcome == "changed"]


@dataclass(frozen=True)
class MarkGone:
    """What the last step of a reset does with the mark of one."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "no mark of a reset is left"

    async def check(self, on: Host) -> Drift | None:
        """Look for it."""
        return Drift("there", "none") if await on.read(FileText(RESETTING)) is not None else None

    async def apply(self, on: Host) -> None:
        """Remove it."""
        await on.do(Command(("rm", "-f", RESETTING)))


@dataclass(frozen=True)
class Broken:
    """A reset that fails."""

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "a step that fails"

    async def check(self, on: Host) -> Drift | None:
        """Fail."""
        raise Permanent("it does not work", host=on.name)

    async def apply(self, on: Host) -> None:
        """Never get here."""


@pytest.fixture
def short_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a reset end once kubeadm has undone the node: what comes after is not simulated."""
    whole = work.reset_steps

    def steps(*asked: Any) -> list[Any]:
        return [*(step for step in whole(*asked) if isinstance(step, KubeletOff | NodeUndone)), MarkGone()]

    monkeypatch.setattr(work, "reset_steps", steps)


@pytest.mark.usefixtures("short_reset")
def test_a_plan_of_two_living_machines_names_both_halves_and_changes_nothing(lab: Lab) -> None:
    folder, file = lab
    before = ask(folder, do="digest")["digests"]
    plan = replaced(named(file, "te1", "te2", "te3", te3="te4"), "plan")
    assert plan.outcome == "planned", plan.errors
    assert [one for one in stages(plan) if one in ORDER] == ORDER, "what is prepared first, and what goes then"
    would = {(stage.host, row.step) for stage in plan.stages for row in stage.rows if row.outcome == "drifted"}
    assert {
        ("te3", "kubelet, kubeadm and kubectl are installed"),
        ("cluster", "node te3 is not in the cluster"),
        ("te3", "nothing of kubeadm's is left"),
        ("te2", "/etc/hosts names every host"),
    } <= would
    drained = [(s.host, row.outcome) for s in plan.stages for row in s.rows if row.step == "node te3 is drained"]
    assert drained in ([("te3", "drifted")], [("te3", "ok")]), "where the scheduler put the cluster's pods is its own"
    assert ask(folder, do="digest")["digests"] == before


def test_a_machine_of_the_cluster_takes_no_others_place_and_all_refusals_are_named(lab: Lab) -> None:
    _, file = lab
    refused = replaced(named(file, "te1", "te3", te3="te2"), dead=True)
    assert (refused.outcome, refused.exit_code, changed(refused)) == ("refused", 1, [])
    codes = {error.code for error in refused.errors}
    assert {"SHW-321", "SHW-718"} <= codes, "it is te2"
    assert {"SHW-708", "SHW-709"} <= codes, "and te3 is alive"


@pytest.mark.usefixtures("short_reset")
def test_what_was_broken_off_goes_on_with_the_machine_that_was_half_taken_out(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = lab
    new = named(file, "te1", "te2", "te3", te3="te4")
    with monkeypatch.context() as patched:
        patched.setattr(work, "reset_steps", lambda *_: [Broken()])
        failed = replaced(new)
    assert (failed.outcome, failed.exit_code) == ("failed", 3)
    assert "join_worker te3" not in stages(failed)
    assert any("nothing has its place" in told for told in failed.warnings)
    done = replaced(new)  # the node is gone, and its address with it; the control plane's /etc/hosts tells it
    assert done.outcome == "ok", done.errors
    assert "the node has joined" in changed(done)
    assert "nothing of kubeadm's is left" in changed(done)
    assert done.gpus["verified"] == done.gpus["expected"] > 0
    assert ask(folder, do="file", host="te3", path="/etc/kubernetes/kubelet.conf")["text"] is None
    addresses = {host["name"]: host["address"] for host in yaml.safe_load(file.read_text(encoding="utf-8"))["hosts"]}
    for host in ("te1", "te2"):
        assert f"{addresses['te4']} te3" in ask(folder, do="file", host=host, path="/etc/hosts")["text"]


def test_the_same_again_changes_nothing_and_says_why(lab: Lab) -> None:
    _, file = lab
    again = replaced(named(file, "te1", "te2", "te3", te3="te4"))
    assert (again.outcome, changed(again)) == ("ok", [])
    assert not {one.split()[0] for one in stages(again)} & {"may_remove", "drain_node", "reset_host", "learn_address"}
    assert "is te3 already, and nothing is taken out" in again.warnings[0]


def works_on(file: Path, host: str) -> None:
    """Let a Deployment's pod hold a GPU of a host."""

    async def start() -> None:
        cluster, pool = load_cluster(file), Pool()
        kube = await Kube.connect(pool.host(cluster.target(cluster.control_planes[0])), cluster)
        limits = {"limits": {VENDOR.resource: "1"}}
        spec = {
            "containers": [{"name": "c", "image": "registry.example/train:1", "resources": limits}],
            "nodeSelector": {"kubernetes.io/hostname": host},
        }
        template = {"metadata": {"labels": {"app": "training"}}, "spec": spec}
        selects = {"replicas": 1, "selector": {"matchLabels": {"app": "training"}}, "template": template}
        meta = {"name": "training", "namespace": "default"}
        try:
            await kube.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": selects})
            async with asyncio.timeout(60):
                while True:
                    kube.forget()
                    pods = await kube.list_("v1", "Pod", "default", labels="app=training")
                    if any(pod["spec"].get("nodeName") == host for pod in pods):
                        return
                    await asyncio.sleep(0.1)
        finally:
            await kube.close()
            await pool.close()

    asyncio.run(start())


@pytest.mark.usefixtures("short_reset")
def test_a_machine_that_is_made_anew_is_taken_out_reset_and_joined(lab: Lab) -> None:
    _, file = lab
    new = named(file, "te1", "te2", "te3", te3="te4")
    plan = replaced(new, "plan", remake=True)
    assert (plan.outcome, changed(plan)) == ("planned", [])
    assert "then it is prepared anew (prepare_system, " in plan.warnings[0]
    works_on(new, "te3")
    held = replaced(new, remake=True)
    assert (held.outcome, [error.code for error in held.errors]) == ("refused", ["SHW-703"])
    done = replaced(new, remake=True, evict_gpu_pods=True)  # what ran there keeps nothing from the bare machine
    assert done.outcome == "ok", done.errors
    assert {"node te3 is not in the cluster", "nothing of kubeadm's is left", "the node has joined"} <= {*changed(done)}
    ran = [one.split()[0] for one in stages(done)]
    assert ran.index("reset_host") < ran.index("prepare_system"), "and not before"


def test_a_machine_that_is_gone_is_believed_gone_once_its_node_is(lab: Lab) -> None:
    folder, file = lab
    new = named(file, "te1", "te2", "te3", te3="te4", te2="te3")
    ask(folder, do="cut", host="te2")
    silent = replaced(new, "plan", host="te2")
    assert [error.code for error in silent.errors] == ["SHW-710"]
    ends = time.monotonic() + 60
    while "SHW-709" in [error.code for error in replaced(new, "plan", host="te2", dead=True).errors]:
        assert time.monotonic() < ends, "the cluster does not take te2 for lost"
    done = replaced(new, host="te2", dead=True)
    assert done.outcome == "ok", done.errors
    assert not {one.split()[0] for one in stages(done)} & {"drain_node", "stop_kubelet", "reset_host"}
    assert any("install it anew before it is on the network" in told for told in done.warnings)


@pytest.mark.faults  # a lab of its own
@pytest.mark.usefixtures("short_reset")
def test_one_of_three_control_planes_is_replaced(prefect_place: Place) -> None:
    assert prefect_place
    with hurried(), Demo(latency=LATENCY) as demo:
        file = patient(demo.cluster_file())
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        data["hosts"] = [{**host, "roles": ["control_plane"]} for host in data["hosts"]]
        file.write_text(yaml.safe_dump(data), encoding="utf-8")
        made = asyncio.run(_report(bootstrap, named(file, "te1", "te2", "te3")))
        assert made.outcome == "ok", made.errors
        new = named(file, "te1", "te2", "te3", te3="te4")  # a simulated etcd keeps the member that began it
        done = replaced(new)
        assert done.outcome == "ok", done.errors
        assert {"te3 is no member of etcd", "the control plane has joined"} <= {*changed(done)}
        again = replaced(new)
        assert (again.outcome, changed(again)) == ("ok", [])
        whole = asyncio.run(_report(bootstrap, new))
        assert (whole.outcome, changed(whole)) == ("ok", [])
