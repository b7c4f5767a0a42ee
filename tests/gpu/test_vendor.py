"""The seam of shipway.gpu.vendor: what every vendor answers, and that nothing else in the product knows NVIDIA's names.

Each promise is kept by NVIDIA, and by AMD, which is data that nothing chooses: another id, resource and plugin, and no
runtime.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any, cast

import pytest

from lab.simulated.kube.selectors import label_match
from shipway.edits.containerd import Wanted, settings
from shipway.facts.fact import Fact
from shipway.facts.files import FileText
from shipway.gpu.amd import AMD
from shipway.gpu.chosen import VENDOR
from shipway.gpu.counts import GpusAllocatable, count_asked_gpus, count_gpus
from shipway.gpu.evidence import find_barrier, mismatches
from shipway.gpu.health.quarantine import TAINT
from shipway.gpu.links import find_broken_link, rules
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.pods import count_seen_without, pod_with_gpu, pod_without, read_log, script
from shipway.gpu.proof import prove
from shipway.gpu.result import Proof, no_gpus
from shipway.gpu.seen import Evidence, HostGpuFacts, NodeSeen, PodSeen
from shipway.gpu.vendor import Vendor
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.manifests import render
from shipway.os.families import family_of
from shipway.step import Drift
from shipway.steps.gpu.healthy import FabricReady, GpusHealthy
from shipway.steps.gpu.plugin import PluginRunning
from shipway.steps.runtime.containerd import ContainerdConfigured
from shipway.survey.first_look import PCI_CLASSES, on_bus, survey
from tasks.context import Run
from tasks.drift import parts
from tasks.stages import container_runtime, device_plugin, gpu_isolation, nvidia_runtime
from tests.gpu.test_proof import declared
from tests.gpu.vendors import VENDORS, WORDS, Api
from tests.places.facts import KnownFacts
from tests.places.facts import said as output

ROOT = Path(__file__).parents[2]
MODES = ("runtime_class", "default_runtime")
every_vendor = pytest.mark.parametrize("vendor", VENDORS, ids=lambda one: one.name)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.01)


def host(vendor: Vendor, **changes: Any) -> Host:
    """Return a host with two GPUs of the vendor, which its driver lists, and three of another."""
    ours, theirs = ("41", "42"), ("43", "44", "45")
    places = {vendor.pci_id: ours, **{one.pci_id: theirs for one in VENDORS if one is not vendor}}
    facts: dict[Fact[Any], Any] = {
        on_bus(one): output("".join(f"/sys/bus/pci/devices/0000:{at}:00.0/vendor\n" for at in places[one.pci_id]))
        for one in VENDORS
    }
    facts[PCI_CLASSES] = output("".join(f"/sys/bus/pci/devices/0000:{at}:00.0/class\n" for at in (*ours, *theirs)))
    facts[vendor.probe] = output(changes.get("lists", WORDS[vendor.name].lists), changes.get("status", 0))
    facts[FileText("/proc/modules")] = changes.get("modules", "")
    if vendor.toolkit:
        facts[vendor.toolkit] = output("version 1.17\n", changes.get("toolkit", 0))
    return cast("Host", KnownFacts(facts))


# --- on a host


@every_vendor
async def test_the_gpus_on_the_bus_and_of_the_driver_are_those_of_the_vendor(vendor: Vendor) -> None:
    found = await survey(host(vendor), vendor)
    assert (found.gpus, found.driver_gpus, found.toolkit) == (2, 2, True)
    assert vendor.uuids(WORDS[vendor.name].lists) == list(WORDS[vendor.name].identities)
    assert await GpusHealthy(2, vendor=vendor).check(host(vendor)) is None


@every_vendor
async def test_a_driver_that_does_not_answer_or_never_ends_is_named_by_its_own_program(vendor: Vendor) -> None:
    for changes in ({"lists": WORDS[vendor.name].fails, "status": 9}, {"lists": "", "status": 124}):
        drift = await GpusHealthy(2, vendor=vendor).check(host(vendor, **changes))
        assert drift
        assert vendor.program in drift.want
    assert drift.have == vendor.hangs


@every_vendor
async def test_another_driver_for_the_same_gpus_is_named_where_there_is_one(vendor: Vendor) -> None:
    loaded = f"{vendor.rival_module or 'nouveau'} 1 0 - Live 0x0\n"
    drift = await GpusHealthy(2, vendor=vendor).check(host(vendor, modules=loaded))
    assert bool(drift) == bool(vendor.rival_module)


@every_vendor
async def test_a_vendor_without_switches_is_asked_for_no_fabric(vendor: Vendor) -> None:
    asked = cast("Any", host(vendor))
    assert await FabricReady(vendor=vendor).check(asked) is None
    assert asked.asked == ([vendor.fabric.switches, vendor.fabric.ports] if vendor.fabric else [])


@every_vendor
def test_containerd_gets_the_runtime_of_the_vendor_and_no_other(vendor: Vendor) -> None:
    for layout in (2, 3, 4):
        values = settings({"version": layout}, Wanted("pause", vendor.runtime, by_default=True))
        handlers = {path[path.index("runtimes") + 1] for path in values if "runtimes" in path}
        programs = {value for path, value in values.items() if path[-1] == "BinaryName"}
        (default,) = (value for path, value in values.items() if path[-1] == "default_runtime_name")
        if vendor.runtime is None:
            assert (handlers, programs, default) == ({"runc"}, set(), "runc")
        else:
            assert (handlers, programs) == ({"runc", vendor.runtime.handler}, {vendor.runtime.program})
            assert default == vendor.runtime.handler


# --- in the cluster


@every_vendor
def test_gpus_are_counted_by_the_resource_of_the_vendor_alone(vendor: Vendor) -> None:
    other = next(one for one in VENDORS if one is not vendor)
    node = {"status": {"allocatable": {vendor.resource: "2", other.resource: "7"}}}
    pod = {"spec": {"containers": [{"resources": {"limits": {vendor.resource: "1", other.resource: "5"}}}]}}
    assert (count_gpus(node, vendor=vendor), count_asked_gpus(pod, vendor=vendor)) == (2, 1)
    taints = [{"key": one.resource, "effect": "NoSchedule"} for one in VENDORS]
    assert find_barrier({"spec": {"taints": taints}}, vendor) == f"taint {other.resource}"


@every_vendor
@pytest.mark.parametrize("mode", MODES)
def test_the_plugin_is_found_by_the_names_that_its_manifest_has(vendor: Vendor, mode: str) -> None:
    (made,) = device_plugin.daemon_set(declared(mode=mode), vendor)
    plugin, pod = vendor.plugin, made["spec"]["template"]
    assert (made["kind"], made["metadata"]["name"]) == ("DaemonSet", plugin.daemon_set)
    assert made["metadata"]["namespace"] == plugin.namespace
    assert plugin.labels.items() <= pod["metadata"]["labels"].items()
    selects = label_match(plugin.selector)
    assert selects
    assert selects({"metadata": {"labels": made["spec"]["selector"]["matchLabels"]}})
    assert not selects({"metadata": {"labels": {"name": "another"}}})
    assert plugin.has(pod["metadata"]["labels"])
    assert not plugin.has({"name": "another"})
    assert vendor.resource in [toleration["key"] for toleration in pod["spec"]["tolerations"]]
    assert pod["spec"].get("runtimeClassName") == vendor.runtime_class(mode)
    assert pod["spec"].get("nodeSelector") in (None, {vendor.label: "true"})
    if vendor.runtime_class(mode):  # where the handler is missing its pod cannot start
        assert pod["spec"]["nodeSelector"] == {vendor.label: "true"}


@every_vendor
@pytest.mark.parametrize("mode", MODES)
def test_there_is_a_runtime_class_where_pods_name_one(vendor: Vendor, mode: str) -> None:
    steps = device_plugin.runtime_class(declared(mode=mode), vendor)
    assert len(steps) == int(vendor.runtime_class(mode) is not None) == int(bool(vendor.runtime) and mode == MODES[0])
    if vendor.runtime:
        (made,) = render(vendor.runtime.manifest)
        assert (made["metadata"]["name"], made["handler"]) == (vendor.runtime.handler, vendor.runtime.handler)


@every_vendor
def test_the_newest_word_of_the_plugin_s_log_counts(vendor: Vendor) -> None:
    plugin = vendor.plugin
    for word in plugin.sees_none:
        assert plugin.is_blind(f"starting\n{word}\n")
        assert plugin.is_blind(f"{plugin.registered}\n{word}\n")
        assert not plugin.is_blind(f"{word}\n{plugin.registered}\n")
    assert not plugin.is_blind("starting\n")


@every_vendor
async def test_a_plugin_that_sees_no_gpu_is_named_by_node(vendor: Vendor) -> None:
    for log, blind in ((vendor.plugin.sees_none[0], True), (vendor.plugin.registered, False)):
        drift = await PluginRunning("runtime_class", vendor=vendor).check(cast("Kube", _PluginApi(vendor, log)))
        assert drift == (Drift("it sees no GPU on n1", "GPUs seen") if blind else None)


class _PluginApi:
    """Answers of the vendor's plugin alone, whose one pod has said this."""

    def __init__(self, vendor: Vendor, log: str) -> None:
        self.plugin, self.log = vendor.plugin, log

    async def get(self, _version: str, kind: str, name: str, namespace: str = "", **_: Any) -> Any:
        assert (kind, name, namespace) == ("DaemonSet", self.plugin.daemon_set, self.plugin.namespace)
        status = dict.fromkeys(
            ("desiredNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"), 1
        )
        return {
            "kind": kind,
            "metadata": {"name": name, "generation": 1},
            "spec": {},
            "status": {"observedGeneration": 1, **status},
        }

    async def list_(self, _version: str, kind: str, namespace: str = "", *, labels: str = "", **_: Any) -> Any:
        if kind != "Pod":  # no operator is there
            return []
        assert (kind, namespace, labels) == ("Pod", self.plugin.namespace, self.plugin.selector)
        return [{"metadata": {"name": "plugin-1"}, "spec": {"nodeName": "n1"}}]

    async def logs(self, namespace: str, name: str) -> str:
        assert (namespace, name) == (self.plugin.namespace, "plugin-1")
        return self.log


# --- the proof


@every_vendor
@pytest.mark.parametrize("mode", MODES)
def test_a_test_pod_asks_for_one_gpu_of_the_vendor(vendor: Vendor, mode: str) -> None:
    spec = pod_with_gpu(declared(mode=mode), "one", vendor=vendor)["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {vendor.resource: "1"}
    assert [one["key"] for one in spec["tolerations"]] == [vendor.resource, TAINT]
    assert spec.get("runtimeClassName") == vendor.runtime_class(mode)
    assert " ".join(vendor.probe.command) in spec["containers"][0]["command"][-1]
    without = pod_without(declared(mode=mode), "none", "n1", vendor=vendor)["spec"]["containers"][0]
    assert vendor.resource not in json.dumps(without)
    assert without.get("env") == ([{"name": vendor.variable, "value": "all"}] if vendor.variable else None)


@every_vendor
def test_a_pod_says_which_gpu_it_has_by_the_probe_or_by_its_device_node(vendor: Vendor) -> None:
    words = WORDS[vendor.name]
    head, ended = f"devices=\nnodes of n1: {words.device}\n", f"{vendor.sample.ended} 0\n"
    listed = read_log(f"{head}{words.of_one(1)}\ngpus-listed\n{words.passes}{ended}", vendor)
    assert listed
    assert (listed.devices, listed.passed) == ((words.identities[1],), True)
    unlisted = read_log(f"{head}sh: not found\ngpus-listed\nsomething failed\n{vendor.sample.ended} 1\n", vendor)
    assert unlisted
    assert (unlisted.devices, unlisted.passed) == ((f"n1:{words.device}",), False)
    assert count_seen_without(f"{words.device}\n{words.lists}gpus-listed\n", vendor) == len(words.identities)
    assert count_seen_without(f"{vendor.devices}\nsh: not found\ngpus-listed\n", vendor) == 0


async def proven(api: Api) -> Proof:
    count = len(api.words.identities)
    hosts = {"n1": HostGpuFacts(pci=count, driver=count, toolkit=True)}
    return await prove(cast("Kube", api), declared(), {"n1": count}, hosts, vendor=api.vendor)


@every_vendor
async def test_a_whole_proof_ends_well_and_leaves_nothing(vendor: Vendor) -> None:
    api = Api(vendor)
    proof = await proven(api)
    assert (proof.outcome, proof.verified, proof.compute, proof.without) == ("ok", 2, "passed", {"n1": 0})
    assert set(proof.devices.values()) == set(api.words.identities)
    assert api.objects == {}


@every_vendor
async def test_a_proof_tells_of_pods_that_share_a_gpu_or_see_one_that_they_did_not_ask_for(vendor: Vendor) -> None:
    shared = await proven(Api(vendor, lists=False))  # both pods show the same device node, and nothing else
    assert (shared.outcome, shared.verified) == ("failed", 0)
    assert "the same GPU was given to gpu-test-1 and gpu-test-2" in str(shared.error)
    assert shared.link
    assert vendor.plugin.selector in shared.link.fix
    assert (await proven(Api(vendor, shows=1))).without == {"n1": 1}


@every_vendor
def test_what_is_wrong_is_reported_in_the_words_of_the_vendor(vendor: Vendor) -> None:
    words, plugin = WORDS[vendor.name], PodSeen("plugin-1", "n1", "Running", log=vendor.plugin.sees_none[0])
    handler = vendor.runtime_class("runtime_class")
    for node, name, shown in (
        (NodeSeen("n1", 2, host=HostGpuFacts(pci=2, driver=0, driver_said=words.fails)), "driver", words.fails),
        (NodeSeen("n1", 2, host=HostGpuFacts(pci=2, driver=2), plugin=plugin), "plugin", "sees no GPU"),
        (NodeSeen("n1", 2, labelled=False), "plugin", f"no label {vendor.label}=true"),
    ):
        link = find_broken_link(Evidence("runtime_class", (node,), handler=handler), vendor)
        assert link.name == name
        assert shown in link.why
    pod = PodSeen("p", "n1", "Running", log=words.fails)
    assert find_broken_link(Evidence("runtime_class", pods=(pod,), handler=handler), vendor).name == "driver"
    assert mismatches([NodeSeen("n1", 2, 2, host=HostGpuFacts(driver=1))], vendor) == [
        f"n1: expected 2 GPUs, but {vendor.program} 1"
    ]


def test_nothing_of_nvidia_is_said_of_another_vendor() -> None:
    vendor, cluster = AMD, declared()
    objects = [pod_with_gpu(cluster, "a", vendor=vendor), pod_without(cluster, "b", "n1", vendor=vendor)]
    for pod in objects:  # the image is the cluster file's
        pod["spec"]["containers"][0].pop("image")
    texts = [
        *(json.dumps(obj) for obj in objects),
        script(compute=True, vendor=vendor),
        *(fix for _, _, _, fix in rules(vendor)),
        GpusAllocatable({}, vendor=vendor).vendor.full(),
        no_gpus(cluster, vendor).error.fix or "",  # type: ignore[union-attr] - GPUs are declared and none were found
        str(settings({"version": 3}, Wanted("pause", vendor.runtime, by_default=True))),
    ]
    assert [text for text in texts if "nvidia" in text.lower() or NVIDIA.pci_id in text or "CUDA" in text] == []


def test_the_product_builds_for_nvidia() -> None:
    assert VENDOR is NVIDIA


def test_nothing_of_nvidia_is_done_on_hosts_where_another_vendor_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = declared()
    spec = cluster.host("te2")
    for module in (nvidia_runtime, gpu_isolation, parts):
        monkeypatch.setattr(module, "VENDOR", AMD)
    assert nvidia_runtime.steps(cluster, spec, family_of("")) == []
    assert gpu_isolation.steps(cluster, None) == []
    looked = parts._steps(Run(cluster, "drift"), container_runtime, spec)
    assert any(isinstance(step, ContainerdConfigured) for step in looked)


# --- nothing else knows NVIDIA's names

OWN = {
    "shipway/gpu/nvidia/answers.py": "NVIDIA's answers",
    "shipway/gpu/figures/probe.py": "the program that measures NVIDIA's GPUs",
    "shipway/gpu/figures/floors.py": "what NVIDIA's GPUs are known to reach",
    "shipway/gpu/figures/rdma.py": "what network adapters need of NVIDIA's driver",
    "shipway/gpu/figures/faults.py": "what is said of NVIDIA's own diagnosis",
    "shipway/gpu/nvidia/classes.py": "the configuration of its device plugin",
    "shipway/gpu/nvidia/labels.py": "the labels of its feature discovery",
    "shipway/gpu/health/nvidia/rows.py": "what NVIDIA's GPUs tell of their health",
    "shipway/gpu/health/nvidia/fabric.py": "what NVIDIA's GPUs tell of their fabric",
    "shipway/gpu/health/nvidia/xids.py": "what NVIDIA's kernel module tells of errors",
    "shipway/gpu/health/nvidia/links.py": "what nvidia-smi counts of errors of NVLink",
    "shipway/steps/gpu/mig.py": "its mig-parted",
    "shipway/steps/gpu/toolkit.py": "NVIDIA's toolkit",
    "shipway/gpu/driver/generations.py": "which GPUs NVIDIA's driver drives",
    "shipway/gpu/driver/packages.py": "what its packages are called",
    "shipway/gpu/health/nvidia/report.py": "what its report says of a GPU, and what others write into it",
    "shipway/gpu/driver/imex.py": "its program that joins hosts, with files and settings",
    "shipway/steps/gpu/driver/choice.py": "what of its packages is asked for in a refusal",
    "shipway/steps/gpu/driver/holders.py": "which of its programs only watch GPUs",
    "shipway/steps/gpu/driver/module.py": "its modules and their options",
    "shipway/steps/gpu/driver/refusals.py": "what an installer of NVIDIA's leaves",
    "shipway/steps/gpu/driver/services.py": "its services",
    "tasks/stages/nvidia_runtime.py": "the stage that installs it",
    "manifests/device-plugin/daemonset.yaml": "NVIDIA's device plugin",
    "manifests/device-plugin/daemonset-cdi.yaml": "the same for gpu.mode cdi",
    "manifests/dra-driver/driver.yaml": "NVIDIA's driver of claims",
    "manifests/device-plugin/mps-control-daemon.yaml": "its daemon for MPS",
    "manifests/runtime-class/nvidia.yaml": "NVIDIA's RuntimeClass",
}
NAMES = ("nvidia.com/", "10de", "nvidia-smi", "nvidia-ctk", "NVIDIA_VISIBLE_DEVICES", "/dev/nvidia")
KNOWN_NAMES = {
    "shipway/known_failures/gpu.py": "the catalogue has the words of NVIDIA's programs, and its advice names them",
    "shipway/known_failures/network.py": "the catalogue has the scheduler's word for a node without a free GPU",
    "shipway/cluster/parts.py": "describes gpu.isolation to who writes a cluster file",
}
# Any text of code (no docstring, no comment) that has "nvidia" in it.
KNOWN_TEXTS = {
    **KNOWN_NAMES,
    "shipway/known_failures/runtime.py": "the catalogue's advice names the runtime",
    "shipway/cluster/parts.py": "descriptions and defaults of the keys gpu and device_plugin",
    "shipway/cluster/model.py": "description of the key device_plugin",
    "shipway/cluster/sources.py": "`nvidia` is a key of sources.apt in cluster files",
    "shipway/rules/versions.py": "the rule about that key",
}
STAGE = "nvidia_runtime"  # stages keep their names: reports and histories have them


def product() -> list[Path]:
    code = [path for room in ("shipway", "tasks", "flows") for path in (ROOT / room).rglob("*.py")]
    return sorted([*code, *(ROOT / "manifests").rglob("*.yaml")])


def texts_of(path: Path) -> list[str]:
    """Return the texts of code: no comments, no docstrings, and no names of stages."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.value for node in found if id(node) not in docs and node.value != STAGE]


def test_the_names_of_nvidia_stand_in_its_own_modules() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in product()
        if any(name in path.read_text(encoding="utf-8").replace("\\", "") for name in NAMES)
    }
    assert found - set(OWN) == set(KNOWN_NAMES)


def test_no_text_of_other_code_names_nvidia() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in product()
        if path.suffix == ".py" and any("nvidia" in text.lower() or "10de" in text for text in texts_of(path))
    }
    assert found - set(OWN) == set(KNOWN_TEXTS)
