"""A pod that asks for no GPU sees none, and no order of changes leaves a pod that asks for one without."""

from __future__ import annotations

import tomllib
from typing import Any, cast

import pytest

from shipway.converge import converge, wait_until
from shipway.errors import Blocked, Permanent
from shipway.facts.fact import Fact
from shipway.facts.files import FileText
from shipway.gpu.counts import GpusAllocatable, count_gpus
from shipway.gpu.nvidia.answers import MOUNTS, NVIDIA, VARIABLE
from shipway.gpu.proof import Proof, prove
from shipway.host.session import Host
from shipway.kube.client import Object
from shipway.kube.pod_states import find_trouble
from shipway.step import Drift, Impact
from shipway.steps.gpu.device_list import PluginPresent, makes_mounts, needs_variable, plugin_spares_variable
from shipway.steps.gpu.toolkit import CONFIG, EFFECTIVE, ToolkitAccepts, toolkit_accepts
from shipway.steps.kubernetes.nodes import WorkloadRuns
from tasks.stage_result import StageResult
from tasks.stages import device_plugin
from tasks.stages.verify import isolation
from tests.gpu.test_proof import EXPECTED, declared, facts, furnished
from tests.places.facts import KnownFacts, said
from tests.places.kube import Place, gpu_host, place

PLUGIN, NAMESPACE = NVIDIA.plugin.daemon_set, NVIDIA.plugin.namespace

# As toolkit 1.20 prints it: what is left at its default is a comment (recorded on a host with two H200).
DEFAULT = (
    f"#{MOUNTS} = false\n#{VARIABLE} = true\ndisable-require = false\n\n[nvidia-container-runtime]\nmode = 'auto'\n"
)
OWN = "# ours, do not touch\ndisable-require = false\n\n[nvidia-container-runtime] # keep\nmode = 'cdi'\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.SETTLE_SECONDS", 1.0)


class Toolkit(KnownFacts):
    """A host with a toolkit, whose answers are given; it keeps what is written."""

    def __init__(self, answers: dict[Fact[Any], Any]) -> None:
        super().__init__(answers)
        self.text = ""

    async def write(self, path: str, content: bytes, **more: Any) -> None:
        """Keep the text."""
        assert path == CONFIG
        assert more["mode"] == "644"
        self.text = content.decode()


def toolkit(**answers: Any) -> Host:
    return cast("Host", Toolkit({EFFECTIVE: said(answers.get("says", DEFAULT), answers.get("status", 0))}))


async def test_what_counts_is_asked_of_the_toolkit_itself() -> None:
    assert [await toolkit_accepts(toolkit(), key) for key in (MOUNTS, VARIABLE)] == [False, True]
    strict = toolkit(says=f"{MOUNTS} = true\n{VARIABLE} = false\n")
    assert [await toolkit_accepts(strict, key) for key in (MOUNTS, VARIABLE)] == [True, False]
    with pytest.raises(Blocked):
        await toolkit_accepts(toolkit(status=127), MOUNTS)
    for broken in (toolkit(says="mode = ", status=0), toolkit(says="unable to create config", status=1)):
        with pytest.raises(Permanent, match="cannot read its configuration") as caught:
            await toolkit_accepts(broken, MOUNTS)
        assert caught.value.code == "SHW-618"


@pytest.mark.parametrize("text", [None, OWN])
async def test_one_key_is_set_and_every_other_byte_stays(text: str | None) -> None:
    host = Toolkit({EFFECTIVE: said(DEFAULT), FileText(CONFIG): text})
    step = ToolkitAccepts(VARIABLE, accepts=False, name="closed")
    drift = await step.check(cast("Host", host))
    assert drift == Drift(f"{VARIABLE} = true", "false")
    await step.apply(cast("Host", host))
    assert tomllib.loads(host.text) == {**tomllib.loads(text or ""), VARIABLE: False}
    assert all(line in host.text.splitlines() for line in (text or "").splitlines())


async def test_what_is_held_is_reported_with_its_reason_and_not_done() -> None:
    async def why(name: str) -> str:
        assert name
        return "pods run"

    host = Toolkit({EFFECTIVE: said(DEFAULT)})
    host.name = "te2"
    step = ToolkitAccepts(VARIABLE, accepts=False, name="closed", why_not=why)
    (result,) = await converge([step], cast("Any", host), Impact.WORKLOADS)
    assert (result.outcome, host.text) == ("drifted", "")
    assert result.drift
    assert result.drift.have == f"{VARIABLE} = true; it stays so for now: pods run"


# --- the order, on a cluster that runs


def old_form(obj: Object) -> Object:
    """Return the plugin as it was before: it hands GPUs out by the variable."""
    spec = obj["spec"]["template"]["spec"]
    container = spec["containers"][0]
    container["env"] = [one for one in container["env"] if one["name"] != "DEVICE_LIST_STRATEGY"]
    container["volumeMounts"] = [one for one in container["volumeMounts"] if one["name"] != "all-gpus"]
    spec["volumes"] = [one for one in spec["volumes"] if one["name"] != "all-gpus"]
    return obj


class Toolkits:
    """The settings of all hosts' toolkits, which a test changes."""

    def __init__(self) -> None:
        self.mounts, self.variable = False, True

    def __call__(self) -> tuple[bool, bool]:
        """Return them as a simulated host is asked for them."""
        return self.mounts, self.variable


def hosts(toolkits: Toolkits) -> list[Any]:
    return [gpu_host(1, 0), *(gpu_host(number, 2, toolkit_takes=toolkits) for number in (2, 3))]


async def running_old(made: Place) -> None:
    await furnished(made, gpus=False)
    (obj,) = device_plugin.daemon_set(made.cluster)
    await made.kube.delete("apps/v1", "DaemonSet", PLUGIN, NAMESPACE)
    await made.kube.apply(old_form(obj))
    await wait_until(WorkloadRuns("DaemonSet", PLUGIN, NAMESPACE), made.kube, seconds=30, every=0.05)
    await wait_until(GpusAllocatable(EXPECTED), made.kube, seconds=30, every=0.05)


class PodSays:
    """A pod of a user runs, and its log has a text."""

    name = "a pod says"

    def __init__(self, pod: str, text: str) -> None:
        self.pod, self.text = pod, text

    async def check(self, on: Any) -> Drift | None:
        """Read the log."""
        log = await on.logs("default", self.pod)
        pod = await on.get("v1", "Pod", self.pod, "default")
        return None if self.text in log else Drift(f"{log}{find_trouble(pod or {})}", self.text)


async def user_pod(made: Place, name: str, node: str) -> None:
    image = "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0"
    script = 'echo "devices=$NVIDIA_VISIBLE_DEVICES"; nvidia-smi -L; echo listed; sleep 86400'
    container = {"name": "c", "image": image, "command": ["sh", "-c", script]}
    container |= {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    spec = {"runtimeClassName": "nvidia", "nodeName": node, "restartPolicy": "Always", "containers": [container]}
    meta = {"name": name, "namespace": "default"}
    await made.kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


async def test_why_the_order_is_needed_a_plugin_that_makes_mounts_beside_a_toolkit_that_takes_none() -> None:
    """Both strategies together are no way out: the variable then holds the path of the mounts."""
    toolkits = Toolkits()
    async with place(hosts=hosts(toolkits), cluster=declared()) as made:
        toolkits.mounts = True
        await furnished(made)
        toolkits.mounts = False
        await user_pod(made, "late", "te2")

        class Refused(PodSays):
            async def check(self, on: Any) -> Drift | None:
                pod = await on.get("v1", "Pod", self.pod, "default")
                why = find_trouble(pod or {}, await on.events_of(pod))
                return None if self.text in why else Drift(why, self.text)

        await wait_until(Refused("late", "unresolvable CDI devices"), made.kube, seconds=20, every=0.05)


async def test_the_plugin_changes_its_way_only_when_every_toolkit_accepts_it() -> None:
    toolkits, asked = Toolkits(), list[list[str]]()
    async with place(hosts=hosts(toolkits), cluster=declared()) as made:
        await running_old(made)

        async def unready(names: Any) -> str:
            asked.append(sorted(names))
            return "" if toolkits.mounts else "te3: not yet"

        steps = device_plugin.steps(made.cluster, unready)
        results = {result.step: result for result in await converge(steps, made.kube, Impact.WORKLOADS)}
        held = results[next(step.name for step in steps if isinstance(step, PluginPresent))]
        assert held.outcome == "drifted"
        assert held.drift
        assert held.drift.have.endswith("it stays so for now: te3: not yet")
        assert not await plugin_spares_variable(made.kube)
        assert {tuple(names) for names in asked} == {("te2", "te3")}
        toolkits.mounts = True
        made.kube.forget()
        assert [one.outcome for one in await converge(steps, made.kube, Impact.WORKLOADS)][-2] == "changed"
        assert await plugin_spares_variable(made.kube)


async def test_a_host_is_closed_only_when_no_pod_on_it_was_given_gpus_by_the_variable() -> None:
    toolkits = Toolkits()
    async with place(hosts=hosts(toolkits), cluster=declared()) as made:
        await running_old(made)
        await user_pod(made, "training", "te2")
        await wait_until(PodSays("training", "UUID: GPU-00000002"), made.kube, seconds=20, every=0.05)
        assert "does not hand GPUs out by mounts yet" in await needs_variable(made.kube, "te2")
        toolkits.mounts = True
        await made.kube.apply(device_plugin.daemon_set(made.cluster)[0])
        await wait_until(
            WorkloadRuns("DaemonSet", PLUGIN, NAMESPACE),
            made.kube,
            seconds=30,
            every=0.05,
        )
        await wait_until(GpusAllocatable(EXPECTED), made.kube, seconds=30, every=0.05)
        made.kube.forget()
        assert "default/training may have been given GPUs by the variable" in await needs_variable(made.kube, "te2")
        assert await needs_variable(made.kube, "te3") == ""
        # What it is held open for: the kubelet gives a container that starts again what it gave it at first.
        toolkits.variable = False
        made.simulated.rebooted("te2")
        await wait_until(PodSays("training", "nvidia-smi: not found"), made.kube, seconds=20, every=0.05)
        await made.kube.delete("v1", "Pod", "training", "default", grace=0)
        made.kube.forget()
        assert await needs_variable(made.kube, "te3") == ""


def test_what_hands_gpus_out_by_mounts_is_recognised_by_its_environment() -> None:
    (obj,) = device_plugin.daemon_set(declared())
    spec = obj["spec"]["template"]["spec"]
    assert makes_mounts(spec)
    assert not makes_mounts(old_form(obj)["spec"]["template"]["spec"])
    (again,) = device_plugin.daemon_set(declared())
    (mount,) = [
        m for m in again["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] if m["name"] == "all-gpus"
    ]
    assert mount["mountPath"] == "/var/run/nvidia-container-devices/all"


# --- the proof


async def proof_with(toolkits: Toolkits, **gpu: Any) -> Proof:
    async with place(hosts=hosts(toolkits), cluster=declared(**gpu)) as made:
        await furnished(made)
        return await prove(made.kube, made.cluster, EXPECTED, facts())


class Ran:
    """What the verdict needs of a run."""

    def __init__(self, kept: str, *results: Any) -> None:
        self.cluster, self.results = declared(isolation=kept), list(results)


@pytest.mark.parametrize("mode", ["strict", "off"])
async def test_the_proof_sees_what_a_pod_sees_that_asks_for_none(mode: str) -> None:
    toolkits = Toolkits()
    toolkits.mounts, toolkits.variable = True, True
    leaking = await proof_with(toolkits, isolation=mode)
    assert (leaking.outcome, dict(leaking.without)) == ("ok", {"te2": 2, "te3": 2})
    results = isolation(cast("Any", Ran(mode)), leaking.without)
    if mode == "off":
        assert results == []
        assert "gpu.isolation is off: a pod that asks for no GPU sees those of its host: te2, te3" in leaking.notes
        return
    assert [(one.outcome, one.error.code if one.error else "") for one in results] == [("failed", "SHW-617")] * 2
    toolkits.variable = False
    closed = await proof_with(toolkits)
    assert (closed.outcome, dict(closed.without), closed.notes) == ("ok", {"te2": 0, "te3": 0}, ())
    assert [one.outcome for one in isolation(cast("Any", Ran(mode)), closed.without)] == ["ok"]
    assert isolation(cast("Any", Ran(mode)), {"te2": 0, "te3": None}) == []  # not judged is not passed
    held = StageResult("te2", "gpu_isolation", "drifted")
    assert isolation(cast("Any", Ran(mode, held)), {"te2": 2, "te3": 0}) == []  # reported by its own stage


async def test_nvml_that_does_not_load_under_the_plugin_is_named_in_seconds() -> None:
    toolkits = Toolkits()
    toolkits.mounts = True
    made_of = [gpu_host(1, 0), gpu_host(2, 2, nvml_fault="ERROR_LIBRARY_NOT_FOUND"), gpu_host(3, 2)]
    async with place(hosts=made_of, cluster=declared()) as made:
        await furnished(made, gpus=False)
        with pytest.raises(Exception, match="te2") as caught:
            await wait_until(
                WorkloadRuns("DaemonSet", PLUGIN, NAMESPACE),
                made.kube,
                seconds=20,
                every=0.05,
            )
        assert getattr(caught.value, "code", "") == "SHW-614"
        node = await made.kube.get("v1", "Node", "te2")
        assert count_gpus(node or {}) == 0
