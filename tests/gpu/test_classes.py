"""Classes of GPUs: what is declared is what the plugin runs with, and no class changes under a pod that holds a GPU."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
import yaml

from lab.simulated.kube.hosts import SimpleHost
from shipway.cluster.parts import GpuClass
from shipway.cluster_file import parse_cluster
from shipway.converge import converge, wait_until
from shipway.errors import Blocked, Refused
from shipway.gpu.classes import CONFIG, LABEL, class_objects, daemon_sets, declared_sharing
from shipway.gpu.counts import GpusAllocatable
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.nvidia.classes import config_of, find_difference
from shipway.gpu.proof import HostGpuFacts, prove
from shipway.gpu.sharing import Sharing
from shipway.step import Impact, StepResult
from shipway.steps.gpu.class_held import find_held
from shipway.steps.gpu.classes import ClassesGone, NodeClass, PluginsConfigured
from shipway.steps.gpu.plugin import PluginRunning
from shipway.steps.gpu.proven import GpusProvenAnew, prove_alone
from shipway.steps.kubernetes.nodes import WorkloadRuns
from tasks import gates
from tasks.context import Run, Unseen
from tasks.stages import device_plugin
from tasks.stages.verify import gpu_proof, gpus_allocatable
from tests.gpu.test_proof import NAMES, POD_NETWORK, NodesReady
from tests.places.kube import Place, cluster_of, gpu_host, place

KUBE_SYSTEM = NVIDIA.plugin.namespace
CLASSES: dict[str, dict[str, Any]] = {
    "turns": {"sharing": "time-slicing", "replicas": 4},
    "at-once": {"sharing": "mps", "replicas": 2},
    "plain": {"sharing": "time-slicing", "replicas": 3, "rename": False},
    "parts": {"sharing": "mig-mixed"},
    "whole": {"sharing": "exclusive"},
}
SEEN = HostGpuFacts(pci=2, driver=2, toolkit=True, handler=True, parts=0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.SETTLE_SECONDS", 1.0)
    monkeypatch.setattr("shipway.steps.gpu.classes.LOOK_SECONDS", 0.05)


def declared(second: str | None = None, third: str | None = None, **gpu: Any) -> Any:
    """Return a cluster of two GPU hosts, of these classes (None: of none), with all classes that a mode knows."""
    known = {name: one for name, one in CLASSES.items() if name != "parts" or gpu.get("mode") == "cdi"}
    if None in (second, third) or "whole" in (second, third):
        known.pop("plain")
    hosts = [
        {"name": "te1", "address": "10.9.0.11", "gpus": 0},
        {"name": "te2", "address": "10.9.0.12", "gpus": 2, "gpu_class": second},
        {"name": "te3", "address": "10.9.0.13", "gpus": 2, "gpu_class": third},
    ]
    return cluster_of(NAMES, hosts=hosts, gpu={"verify_seconds": 20, "classes": known, **gpu})


# --- the plugin's configuration


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("whole", {"version": "v1", "flags": {"migStrategy": "none"}}),
        ("parts", {"version": "v1", "flags": {"migStrategy": "mixed"}}),
        (
            "turns",
            {
                "version": "v1",
                "flags": {"migStrategy": "none"},
                "sharing": {
                    "timeSlicing": {
                        "renameByDefault": True,
                        "failRequestsGreaterThanOne": True,
                        "resources": [{"name": "nvidia.com/gpu", "replicas": 4}],
                    }
                },
            },
        ),
    ],
)
def test_a_class_is_what_the_plugin_reads(name: str, config: dict[str, Any]) -> None:
    assert config_of(GpuClass.model_validate(CLASSES[name])) == config


def logged(**sections: Any) -> str:
    """Return a log as the plugin 0.20 writes it: what is at its zero value is left out, the rest is filled in."""
    plain = {"timeSlicing": {}}
    config = {"version": "v1", "flags": {"migStrategy": "none", "failOnInitError": False}, "sharing": plain, **sections}
    return (
        f"I1128 1 main.go:388] \nRunning with config:\n{json.dumps(config, indent=2)}\nI1128 1 main.go:391] Retrieving"
    )


ROW = {"name": "nvidia.com/gpu", "rename": "nvidia.com/gpu.shared", "devices": "all", "replicas": 4}
TURNS = {"timeSlicing": {"renameByDefault": True, "failRequestsGreaterThanOne": True, "resources": [ROW]}}
MISPLACED = {"timeSlicing": {"failRequestsGreaterThanOne": True, "resources": [ROW]}}


@pytest.mark.parametrize(
    ("name", "log", "said"),
    [
        ("turns", logged(sharing=TURNS), ""),
        ("turns", "no configuration in it", ""),
        # renameByDefault stood under flags, where the plugin passes it over (k8s-device-plugin#1433)
        ("turns", logged(sharing=MISPLACED), "sharing.timeSlicing.renameByDefault is null"),
        # the ConfigMap is there, and nobody mounts it (k8s-device-plugin#990)
        (
            "turns",
            logged(),
            "sharing.timeSlicing.failRequestsGreaterThanOne is null; sharing.timeSlicing.resources has 0 entries",
        ),
        ("plain", logged(sharing=TURNS), "renameByDefault is true; sharing.timeSlicing.resources[0].replicas is 4"),
        ("whole", logged(sharing=TURNS), "sharing.timeSlicing is set"),
        ("parts", logged(), 'flags.migStrategy is "none"'),
    ],
)
def test_what_the_plugin_says_that_it_runs_with_is_held_against_the_class(name: str, log: str, said: str) -> None:
    found = find_difference(GpuClass.model_validate(CLASSES[name]), log)
    assert (said in found) if said else (found == "")


# --- the cluster file


def refused(text: str) -> str:
    with pytest.raises(Refused) as raised:
        parse_cluster(f"name: demo\n{text}")
    return raised.value.message


def test_everything_that_cannot_be_shared_so_is_said_at_once() -> None:
    said = refused(
        """
hosts:
- {name: a, address: 10.0.0.1, gpus: 0, gpu_class: one}
- {name: b, address: 10.0.0.2, gpu_class: unknown}
- {name: c, address: 10.0.0.3}
- {name: d, address: 10.0.0.4, gpu_class: kept}
gpu:
  classes:
    exclusive: {sharing: exclusive}
    one: {sharing: time-slicing, replicas: 1}
    none: {sharing: mps}
    many: {sharing: mps, replicas: 49}
    both: {sharing: mps, replicas: 2, mig: all-1g.10gb}
    alone: {sharing: exclusive, replicas: 2}
    parts: {sharing: mig-single}
    kept: {sharing: time-slicing, replicas: 2, rename: false}
"""
    )
    for words in (
        "hosts[0].gpu_class: a declares gpus: 0",
        "hosts[1].gpu_class: unknown is no class of gpu.classes",
        "gpu.classes.exclusive: the name exclusive is taken",
        "gpu.classes.one.replicas: 1 shares nothing: take 2 or more, or sharing: exclusive",
        "gpu.classes.none.replicas: is missing: mps needs how many pods share a GPU",
        "gpu.classes.many.replicas: 49 is more than the 48 pods that MPS lets onto a GPU",
        "gpu.classes.both.mig: goes with mig-single and mig-mixed alone: MPS does not run on a divided GPU",
        "gpu.classes.alone.replicas: belongs to time-slicing and mps",
        "gpu.classes.parts.sharing: mig-single needs gpu.mode: cdi",
        "gpu.classes.kept.rename: offers shares by the name of whole GPUs, which c has",
    ):
        assert words in said
    assert "10 faults" in said


def test_a_default_class_is_one_that_there_is_and_an_old_plugin_has_no_mps() -> None:
    hosts = "hosts: [{name: a, address: 10.0.0.1}]\n"
    assert "gpu.sharing: x is no class of gpu.classes (exclusive)" in refused(hosts + "gpu: {sharing: x}\n")
    mps = "gpu: {classes: {m: {sharing: mps, replicas: 2}}}\ndevice_plugin: {version: 0.14.5}\n"
    assert "mps is in the device plugin from 0.15 on" in refused(hosts + mps)
    shared = "gpu: {sharing: t, classes: {t: {sharing: time-slicing, replicas: 2, rename: false}}}\n"
    assert declared_sharing(parse_cluster(f"name: d\n{hosts}{shared}")) == {"a": Sharing("time slicing", 2)}


def test_where_no_class_is_declared_nothing_is_held_against_what_is_seen() -> None:
    assert declared_sharing(cluster_of(NAMES)) == {}
    assert declared_sharing(declared("turns")) == {"te2": Sharing("time slicing", 4), "te3": Sharing()}


# --- the objects


def test_each_class_has_a_plugin_of_its_own_that_no_other_selects() -> None:
    cluster = declared("turns", "at-once")
    (base,) = device_plugin.daemon_set(cluster)
    sets = [base]
    for name in cluster.gpu_classes:
        config, *others = class_objects(cluster, name, base)
        assert yaml.safe_load(config["data"]["config.yaml"]) == config_of(cluster.gpu.classes[name])
        sets += others
    assert [one["metadata"]["name"] for one in sets] == daemon_sets(cluster)
    for one in sets:
        chosen = one["spec"]["selector"]["matchLabels"].items()
        labels = [other["spec"]["template"]["metadata"]["labels"] for other in sets]
        assert [chosen <= each.items() for each in labels].count(True) == 1
    plugin, daemon = sets[2], sets[3]
    assert plugin["spec"]["template"]["spec"]["nodeSelector"][LABEL] == "at-once"
    assert (
        plugin["spec"]["template"]["metadata"]["annotations"] == daemon["spec"]["template"]["metadata"]["annotations"]
    )
    mounts = {one["mountPath"] for one in plugin["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert {"/config", "/mps", "/dev/shm"} <= mounts
    assert daemon["spec"]["template"]["spec"]["hostPID"] is True
    assert daemon["spec"]["template"]["spec"]["runtimeClassName"] == "nvidia"


def test_mps_needs_programs_of_the_vendors_where_nothing_else_does() -> None:
    cluster = declared("at-once", "turns", mode="cdi")
    for name, wanted in (("at-once", "nvidia"), ("turns", None)):
        plugin = class_objects(cluster, name, device_plugin.daemon_set(cluster)[0])[1]
        assert plugin["spec"]["template"]["spec"].get("runtimeClassName") == wanted
    assert len(device_plugin.runtime_class(cluster)) == 1
    assert device_plugin.runtime_class(declared("turns", mode="cdi")) == []


def test_another_configuration_makes_new_pods() -> None:
    one, other = declared("turns"), declared("turns")
    other.gpu.classes["turns"] = other.gpu.classes["turns"].model_copy(update={"replicas": 5})
    digests = [
        class_objects(each, "turns", device_plugin.daemon_set(each)[0])[1]["spec"]["template"]["metadata"][
            "annotations"
        ][CONFIG]
        for each in (one, one, other)
    ]
    assert digests[0] == digests[1] != digests[2]


# --- a cluster that runs


def hosts() -> list[SimpleHost]:
    return [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]


async def brought(made: Place, cluster: Any) -> list[StepResult]:
    """Bring the nodes and the plugins to what a cluster file says, as a bootstrap does."""
    made.kube.forget()
    nodes = [step for host in cluster.hosts for step in gates.node_steps(cluster, host)]
    results = await converge(nodes, made.kube, Impact.WORKLOADS)
    made.kube.forget()
    return results + await converge(device_plugin.steps(cluster), made.kube, Impact.WORKLOADS)


async def started(made: Place) -> None:
    await made.kube.apply(yaml.safe_load(POD_NETWORK))
    await wait_until(NodesReady(NAMES), made.kube, seconds=30, every=0.05)
    await brought(made, made.cluster)
    await offered(made, made.cluster)


async def offered(made: Place, cluster: Any) -> None:
    for name in daemon_sets(cluster):
        await wait_until(WorkloadRuns("DaemonSet", name, KUBE_SYSTEM), made.kube, seconds=30, every=0.05)
    counted = GpusAllocatable({"te2": 2, "te3": 2}, declared=declared_sharing(cluster))
    await wait_until(counted, made.kube, seconds=30, every=0.05)


async def hold(made: Place, name: str, resource: str, node: str = "te2") -> None:
    container = {"name": "c", "image": "registry.example/x:1", "resources": {"limits": {resource: "1"}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}}
    await made.kube.apply({**pod, "spec": {"nodeName": node, "containers": [container]}})


@pytest.mark.parametrize(
    ("name", "places", "way"),
    [("turns", 8, "time slicing, 4 pods on each"), ("at-once", 4, "MPS, 2 pods on each"), ("whole", 2, "")],
)
async def test_each_class_is_declared_applied_and_proven(name: str, places: int, way: str) -> None:
    cluster = declared(name)
    async with place(hosts=hosts(), cluster=cluster) as made:
        await started(made)
        proof = await prove(made.kube, cluster, {"te2": 2, "te3": 2}, {"te2": SEEN, "te3": SEEN})
        assert (proof.outcome, proof.error) == ("ok", None)
        assert (proof.expected, proof.verified) == (places + 2, places + 2)
        assert [way in told for told in proof.shared.values()] == ([True] if way else [])
        assert await PluginsConfigured(cluster.gpu_classes).check(made.kube) is None
        made.kube.forget()
        assert {one.outcome for one in await brought(made, cluster)} == {"ok"}


async def test_shares_may_have_the_name_of_whole_gpus_where_every_host_shares() -> None:
    cluster = declared("plain", "plain")
    async with place(hosts=hosts(), cluster=cluster) as made:
        await started(made)
        proof = await prove(made.kube, cluster, {"te2": 2, "te3": 2}, {"te2": SEEN, "te3": SEEN})
        assert (proof.outcome, proof.verified) == ("ok", 12)


async def test_a_class_changes_into_another_once_no_pod_holds_a_gpu_of_it_and_back_again() -> None:
    async with place(hosts=hosts(), cluster=declared("turns")) as made:
        await started(made)
        await hold(made, "job", "nvidia.com/gpu.shared")
        after = declared("at-once")
        results = {one.step: one for one in await brought(made, after)}
        held = results["node te2 offers GPUs of class at-once"]
        assert held.outcome == "drifted"
        assert held.drift
        assert held.drift.have.startswith("class turns; it stays so for now: GPUs are held by te2: default/job (")
        assert (
            results["no device plugin is left of a class of GPUs that is not declared"].outcome == "ok"
        )  # te2 needs it
        pod = await made.kube.get("v1", "Pod", "job", "default")
        assert pod
        assert pod["status"]["phase"] == "Running"
        await made.kube.delete("v1", "Pod", "job", "default", grace=0)
        results = {one.step: one for one in await brought(made, after)}
        assert results["node te2 offers GPUs of class at-once"].outcome == "changed"
        assert results["no device plugin is left of a class of GPUs that is not declared"].outcome == "changed"
        await offered(made, after)
        proof = await prove(made.kube, after, {"te2": 2, "te3": 2}, {"te2": SEEN, "te3": SEEN})
        assert (proof.outcome, proof.error, proof.verified) == ("ok", None, 6)
        whole = cluster_of(NAMES, hosts=[one.model_dump() for one in declared().hosts], gpu={"verify_seconds": 20})
        await brought(made, whole)
        await offered(made, whole)
        node = await made.kube.get("v1", "Node", "te2", fresh=True)
        assert node
        assert LABEL not in node["metadata"]["labels"]
        assert await made.kube.list_("apps/v1", "DaemonSet", KUBE_SYSTEM, labels=LABEL) == []
        proof = await prove(made.kube, whole, {"te2": 2, "te3": 2}, {"te2": SEEN, "te3": SEEN})
        assert (proof.outcome, proof.verified) == ("ok", 4)


async def test_a_configuration_changes_once_no_pod_holds_a_gpu_of_the_class() -> None:
    async with place(hosts=hosts(), cluster=declared("turns")) as made:
        await started(made)
        await hold(made, "job", "nvidia.com/gpu.shared")
        after = declared("turns")
        after.gpu.classes["turns"] = after.gpu.classes["turns"].model_copy(update={"replicas": 3})
        step = "the device plugin of GPU class turns is declared (time-slicing)"
        results = {one.step: one for one in await brought(made, after)}
        assert results[step].outcome == "drifted"
        assert "it stays so for now: GPUs are held by te2: default/job" in str(results[step].drift)
        await made.kube.delete("v1", "Pod", "job", "default", grace=0)
        assert {one.step: one.outcome for one in await brought(made, after)}[step] == "changed"
        await offered(made, after)
        assert await PluginsConfigured(after.gpu_classes).check(made.kube) is None


async def test_the_daemon_of_mps_is_not_made_anew_beside_a_pod_that_computes_through_it() -> None:
    async with place(hosts=hosts(), cluster=declared("at-once")) as made:
        await started(made)
        await hold(made, "job", "nvidia.com/gpu.shared")
        after = declared("at-once")
        newer = after.device_plugin.model_copy(update={"version": "0.19.3"})
        assert newer != after.device_plugin
        after = after.model_copy(update={"device_plugin": newer})
        step = "the device plugin of GPU class at-once is declared (mps)"

        async def daemons() -> set[str]:
            made.kube.forget()
            name = "nvidia-mps-control-daemon-at-once"
            found = await made.kube.get("apps/v1", "DaemonSet", name, KUBE_SYSTEM, fresh=True)
            assert found
            return {one["image"] for one in found["spec"]["template"]["spec"]["containers"]}

        before = await daemons()
        results = {one.step: one for one in await brought(made, after)}
        assert results[step].outcome == "drifted"
        assert "GPUs are held by te2: default/job" in str(results[step].drift)
        assert await daemons() == before
        await made.kube.delete("v1", "Pod", "job", "default", grace=0)
        assert {one.step: one.outcome for one in await brought(made, after)}[step] == "changed"
        assert await daemons() != before


async def test_a_pod_that_comes_at_the_last_moment_keeps_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    async with place(hosts=hosts(), cluster=declared("turns")) as made:
        await started(made)
        step = NodeClass("te2", "at-once")
        told = iter(["", "GPUs are held by te2: default/late"])

        async def who(*_: Any) -> str:
            return next(told)

        monkeypatch.setattr("shipway.steps.gpu.classes.who_holds", who)
        assert await step.hold(made.kube) == ""
        with pytest.raises(Blocked, match="default/late"):
            await step.apply(made.kube)
        node = await made.kube.get("v1", "Node", "te2", fresh=True)
        assert node
        assert node["metadata"]["labels"][LABEL] == "turns"
        await offered(made, made.cluster)


async def test_two_stages_that_come_to_a_node_at_once_change_it_once() -> None:
    """Seen on a real H200: the second waited for the new plugin to go, and took the node out of its class again."""
    async with place(hosts=hosts(), cluster=declared("turns")) as made:
        await started(made)
        step = NodeClass("te2", "at-once", wait=5.0)
        await asyncio.gather(step.apply(made.kube), step.apply(made.kube), step.apply(made.kube))
        node = await made.kube.get("v1", "Node", "te2", fresh=True)
        assert node
        assert node["metadata"]["labels"][LABEL] == "at-once"


async def test_a_plugin_that_does_not_leave_keeps_the_node_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async with place(hosts=hosts(), cluster=declared("turns")) as made:
        await started(made)

        async def stuck(*_: Any) -> Any:
            return [{"metadata": {"name": "stuck"}}]

        monkeypatch.setattr("shipway.steps.gpu.classes._plugins_on", stuck)
        with pytest.raises(Blocked, match="the device plugin did not leave te2"):
            await NodeClass("te2", None, wait=0.2).apply(made.kube)
        node = await made.kube.get("v1", "Node", "te2", fresh=True)
        assert node
        assert node["metadata"]["labels"][LABEL] == "turns"


async def test_a_plugin_that_leaves_no_node_is_brought_first() -> None:
    async with place(hosts=hosts(), cluster=declared()) as made:
        await started(made)
        (base,) = device_plugin.daemon_set(made.cluster)
        base["spec"]["template"]["spec"].pop("affinity")
        await made.kube.apply(base)
        await wait_until(WorkloadRuns("DaemonSet", base["metadata"]["name"], KUBE_SYSTEM), made.kube, seconds=30)
        after = declared("turns")
        results = {one.step: one for one in await brought(made, after)}
        held = results["node te2 offers GPUs of class turns"]
        assert "does not leave the nodes of a class yet" in str(held.drift)
        assert {one.step: one.outcome for one in await brought(made, after)}[held.step] == "changed"


async def test_what_is_shared_otherwise_than_declared_is_no_success() -> None:
    async with place(hosts=hosts(), cluster=declared()) as made:
        await started(made)
        wanted = declared("turns")
        made.kube.forget()
        drift = await GpusAllocatable({"te2": 2}, declared=declared_sharing(wanted)).check(made.kube)
        said = "te2: its GPUs are shared by exclusive, and not by time slicing with 4 pods on each as declared"
        assert drift
        assert said in drift.have
        proof = await prove(made.kube, wanted, {"te2": 2, "te3": 2}, {"te2": SEEN, "te3": SEEN})
        assert proof.outcome == "failed"
        assert proof.link
        assert (proof.link.code, said in proof.link.why) == ("SHW-606", True)


async def test_a_plugin_with_another_configuration_than_its_class_is_drift() -> None:
    cluster = declared("turns")
    async with place(hosts=hosts(), cluster=cluster) as made:
        await started(made)
        other = {"turns": GpuClass(sharing="time-slicing", replicas=2)}
        drift = await PluginsConfigured(other).check(made.kube)
        assert drift
        assert drift.have == "te2: sharing.timeSlicing.resources[0].replicas is 4"


async def test_nothing_is_looked_for_but_what_shipway_made() -> None:
    async with place(hosts=hosts(), cluster=declared()) as made:
        await started(made)
        own = {"name": "theirs", "namespace": KUBE_SYSTEM, "labels": {LABEL: "theirs"}}
        await made.kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": own, "data": {}})
        assert await ClassesGone(()).check(made.kube) is None


# --- what is held back does not come by waiting


class Told(Unseen):
    """A view that keeps the sentences of waits."""

    def __init__(self) -> None:
        self.waits: list[str] = []

    def show_wait(self, host: str, stage: str, sentence: str) -> None:
        """Keep it."""
        assert (host, stage) != ("", "")
        self.waits.append(sentence)


async def verified(made: Place, cluster: Any, kind: str) -> tuple[Run, list[StepResult]]:
    """Run the stages that wait for GPUs and prove them, as a run of that kind does on a cluster that stands."""
    made.kube.forget()
    run = Run(cluster, "bootstrap")
    run.kind, run.view, run.ready, run._kube = kind, Told(), {"te2", "te3"}, made.kube
    return run, await gpus_allocatable(run, "gpus_allocatable", "cluster")


@pytest.mark.parametrize("kind", ["bootstrap", "verify"])
async def test_a_class_that_a_pod_holds_back_is_told_at_once_and_what_the_node_offers_today_is_proven(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.stages.verify.GPU_SECONDS", 30.0)
    monkeypatch.setattr("tasks.stages.verify.ROLLOUT_SECONDS", 30.0)
    async with place(hosts=hosts(), cluster=declared("turns")) as made:
        await started(made)
        await hold(made, "job", "nvidia.com/gpu.shared")
        after = declared("at-once")
        if kind == "bootstrap":  # a verification comes without its changes, and finds no plugin of the new class
            await brought(made, after)
        began = time.monotonic()
        run, results = await verified(made, after, kind)
        assert time.monotonic() - began < 15.0
        (row,) = [one for one in results if one.outcome != "ok"]
        assert (row.step, row.outcome) == ("node te2 offers GPUs of class at-once", "drifted")
        said = "have class turns; it stays so for now: GPUs are held by te2: default/job ("
        assert str(row.drift).startswith(said)
        assert isinstance(run.view, Told)
        assert run.view.waits[0].startswith(f"not waited for: {row.step}: {said}")
        rows = await gpu_proof(run, "gpu_proof", "cluster")
        assert [one.outcome for one in rows if one.step == "every expected GPU can be scheduled and used"] == ["ok"]
        assert run.proof
        assert (run.proof.outcome, run.proof.expected, run.proof.verified) == ("ok", 10, 9)
        assert any(note.startswith(f"te2 counts as it shares its GPUs today: {said}") for note in run.proof.notes)


async def test_a_configuration_that_a_pod_holds_back_is_told_of_every_node_of_its_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.stages.verify.GPU_SECONDS", 30.0)
    async with place(hosts=hosts(), cluster=declared("turns", "turns")) as made:
        await started(made)
        await hold(made, "job", "nvidia.com/gpu.shared")
        after = declared("turns", "turns")
        after.gpu.classes["turns"] = after.gpu.classes["turns"].model_copy(update={"replicas": 3})
        await brought(made, after)
        run, results = await verified(made, after, "bootstrap")
        rows = {one.step: str(one.drift) for one in results if one.outcome == "drifted"}
        assert set(rows) == {f"GPU class turns has its declared configuration on {node}" for node in ("te2", "te3")}
        assert all("it stays so for now: GPUs are held by te2: default/job (" in said for said in rows.values())
        await gpu_proof(run, "gpu_proof", "cluster")
        assert run.proof
        assert (run.proof.outcome, run.proof.expected, run.proof.verified) == ("ok", 16, 15)
        await prove_alone(made.kube, after, {"te3": 2})  # a repair's proof of the node that nobody holds
        await made.kube.delete("v1", "Pod", "job", "default", grace=0)
        await brought(made, after)
        await offered(made, after)
        made.kube.forget()
        assert await find_held(made.kube, after) == {}


async def test_a_host_without_gpus_that_declares_none_of_it_is_of_no_class() -> None:
    async with place(hosts=hosts(), cluster=declared("turns")) as made:
        await started(made)
        default = declared("turns")
        auto = [one.model_copy(update={"gpus": "auto"}) for one in default.hosts]
        shared = default.gpu.model_copy(update={"sharing": "turns"})
        made.kube.forget()
        found = await find_held(made.kube, default.model_copy(update={"hosts": tuple(auto), "gpu": shared}))
        assert set(found) == {"te3"}  # te1, the control plane, has none


async def test_a_class_that_only_nobody_has_brought_about_is_told_of_by_a_verification() -> None:
    async with place(hosts=hosts(), cluster=declared("turns")) as made:
        await started(made)
        _, results = await verified(made, declared("at-once"), "verify")
        (row,) = [one for one in results if one.outcome != "ok"]
        assert (row.step, str(row.drift)) == (
            "node te2 offers GPUs of class at-once",
            "have class turns; want class at-once",
        )


@pytest.mark.parametrize("kind", ["bootstrap", "verify"])
async def test_what_is_left_of_a_class_that_the_last_node_left_beside_the_plugins_stage_goes_in_the_same_run(
    kind: str,
) -> None:
    async with place(hosts=hosts(), cluster=declared("turns", "turns")) as made:
        await started(made)
        for node in ("te2", "te3"):  # as their own stage does, once the plugin's has looked
            await made.kube.patch("v1", "Node", node, {"metadata": {"labels": {LABEL: None}}})
        await offered(made, declared())
        _, results = await verified(made, declared(), kind)
        assert [one for one in results if one.outcome == "failed"] == []
        made.kube.forget()
        left = await ClassesGone(()).check(made.kube)
        assert (left is None) is (kind == "bootstrap"), "a verification changes nothing"


async def test_all_that_read_a_plugins_log_in_a_look_share_one_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, gpus = declared("turns"), {"te2": 2, "te3": 2}
    async with place(hosts=hosts(), cluster=cluster) as made:
        await started(made)
        await prove(made.kube, cluster, gpus, {"te2": SEEN, "te3": SEEN})
        asked: list[str] = []
        send = made.kube.send

        async def heard(method: str, path: str, **more: Any) -> tuple[int, str]:
            asked.append(path.partition("/log?")[0] if "/log?" in path else "")
            return await send(method, path, **more)

        monkeypatch.setattr(made.kube, "send", heard)
        made.kube.forget()
        readers: list[Any] = [
            PluginRunning(cluster.gpu.mode, sets=tuple(daemon_sets(cluster))),
            PluginsConfigured(cluster.gpu_classes),
            GpusProvenAnew(cluster, gpus),
            GpusAllocatable(gpus, declared=declared_sharing(cluster)),
        ]
        for reader in readers:  # one by one: together they would share what is under way in any case
            assert await reader.check(made.kube) is None
        logs = [path for path in asked if path]
        assert len(logs) == len(set(logs)) == len(gpus)
