"""Where an operator of the vendor's offers the GPUs, Shipway makes no second plugin, and proves what is offered."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import yaml

from shipway.converge import converge, wait_until
from shipway.edits.containerd import Wanted
from shipway.errors import Blocked, Refused
from shipway.facts.files import FileInfo, FileState
from shipway.gpu.counts import GpusAllocatable
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.owners import find_owner
from shipway.gpu.proof import prove
from shipway.os.families import family_of
from shipway.step import Drift, Impact, id_of
from shipway.steps.gpu.device_list import PluginPresent, needs_variable
from shipway.steps.gpu.plugin import PluginRunning
from shipway.steps.kubernetes.nodes import NodesReady
from shipway.steps.runtime.containerd import ContainerdConfigured
from shipway.steps.runtime.pause_image import DUMP
from shipway.steps.runtime.toolkit_owner import OneToolkit, UnlessOperators
from tasks import gates
from tasks.stages import device_plugin, nvidia_runtime
from tests.gpu.test_classes import declared as with_classes
from tests.gpu.test_proof import EXPECTED, NAMES, POD_NETWORK, declared, facts
from tests.places.facts import KnownFacts, said
from tests.places.kube import Place, gpu_host, place

OPERATOR = NVIDIA.operator
FILE = FileInfo("755", "root:root", 1, 1)
POLICY = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: clusterpolicies.nvidia.com}
spec:
  group: nvidia.com
  scope: Cluster
  names: {kind: ClusterPolicy, plural: clusterpolicies, singular: clusterpolicy, listKind: ClusterPolicyList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.SETTLE_SECONDS", 1.0)


def hosts() -> list[Any]:
    return [gpu_host(1, 0), gpu_host(2, 2), gpu_host(3, 2)]


async def operated(made: Place) -> None:
    """Bring what the operator would: RuntimeClass, and a plugin in a namespace and under labels of its own."""
    await made.kube.apply(yaml.safe_load(POD_NETWORK))
    await wait_until(NodesReady(NAMES), made.kube, seconds=30, every=0.05)
    labels = [step for host in made.cluster.hosts for step in gates.node_steps(made.cluster, host)]
    await converge([*labels, *device_plugin.runtime_class(made.cluster)], made.kube, Impact.WORKLOADS)
    await made.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gpu-operator"}})
    (mine,) = device_plugin.daemon_set(made.cluster)
    theirs = copy.deepcopy(mine)
    app = {"app": "nvidia-device-plugin-daemonset"}
    theirs["metadata"] = {"name": app["app"], "namespace": "gpu-operator", "labels": app}
    theirs["spec"]["selector"]["matchLabels"] = app
    theirs["spec"]["template"]["metadata"]["labels"] = app
    await made.kube.apply(theirs)
    await wait_until(GpusAllocatable(EXPECTED), made.kube, seconds=30, every=0.05)
    made.kube.forget()


async def test_an_operators_plugin_is_left_alone_and_what_it_offers_is_proven() -> None:
    async with place(hosts=hosts(), cluster=declared()) as made:
        await operated(made)
        assert await find_owner(made.kube) == "the GPU Operator's DaemonSet gpu-operator/nvidia-device-plugin-daemonset"
        results = await converge(device_plugin.steps(made.cluster), made.kube, Impact.WORKLOADS)
        assert {one.outcome for one in results} == {"ok"}
        assert await made.kube.get("apps/v1", "DaemonSet", NVIDIA.plugin.daemon_set, NVIDIA.plugin.namespace) is None
        assert await PluginRunning("runtime_class").check(made.kube) is None
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert (proof.outcome, proof.error, proof.verified) == ("ok", None, 4)


async def test_two_plugins_for_the_same_gpus_are_refused_by_name() -> None:
    async with place(hosts=hosts(), cluster=declared()) as made:
        await operated(made)
        await made.kube.apply(device_plugin.daemon_set(made.cluster)[0])
        made.kube.forget()
        step = next(one for one in device_plugin.steps(made.cluster) if isinstance(one, PluginPresent))
        with pytest.raises(Refused) as raised:
            await step.check(made.kube)
        assert raised.value.code == "SHW-656"
        for name in ("kube-system/nvidia-device-plugin-daemonset", "gpu-operator/nvidia-device-plugin-daemonset"):
            assert name in raised.value.message
        assert "delete daemonset nvidia-device-plugin-daemonset" in (raised.value.fix or "")


async def test_how_an_operators_toolkit_takes_a_request_is_left_to_it() -> None:
    async with place(hosts=hosts(), cluster=declared()) as made:
        await operated(made)
        assert "set there" in await needs_variable(made.kube, "te2")


async def test_a_class_beside_an_operator_is_refused() -> None:
    cluster = with_classes("turns")
    async with place(hosts=hosts(), cluster=declared()) as made:
        await operated(made)
        results = await converge(device_plugin.steps(cluster), made.kube, Impact.WORKLOADS)
        (refused,) = [one for one in results if one.outcome == "failed"]
        assert refused.error
        assert refused.error.code == "SHW-657"
        assert "GPU class turns is declared, and the GPUs are offered by the GPU Operator" in refused.error.message


@pytest.mark.parametrize(("spec", "owns"), [({}, True), ({"devicePlugin": {"enabled": False}}, False)])
async def test_an_operator_that_is_about_to_bring_a_plugin_owns_the_gpus(spec: dict[str, Any], *, owns: bool) -> None:
    async with place(hosts=hosts(), cluster=declared()) as made:
        await made.kube.apply(yaml.safe_load(POLICY))
        policy = {"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "cluster-policy"}}

        class Served:
            name = "the kind is served"

            async def check(self, on: Any) -> None:
                await on.apply({**policy, "spec": spec})

        await wait_until(Served(), made.kube, seconds=20, every=0.1)
        made.kube.forget()
        found = await find_owner(made.kube)
        assert found == ("the GPU Operator's ClusterPolicy cluster-policy" if owns else "")


async def test_no_operator_owns_nothing() -> None:
    async with place(hosts=hosts(), cluster=declared()) as made:
        assert await find_owner(made.kube) == ""


@pytest.mark.parametrize(("there", "program"), [(True, None), (False, "/usr/bin/nvidia-container-runtime")])
async def test_the_runtime_of_a_host_is_left_to_an_operator_that_put_its_own_there(
    *, there: bool, program: str
) -> None:
    assert OPERATOR
    dump = f"version = 2\n[plugins.x]\nBinaryName = '{OPERATOR.runtime}'\n"
    known: dict[Any, Any] = {DUMP: said(dump), FileState(OPERATOR.runtime): FILE if there else None}
    step: Any = ContainerdConfigured(Wanted("pause", NVIDIA.runtime))
    wanted = await step._wanted(KnownFacts(known))
    assert (wanted.runtime and wanted.runtime.program) == program


def served(*, theirs: bool, named: bool = True, ours: bool = False) -> Any:
    """Return a host on which containerd names an operator's runtime, and which programs are there."""
    assert OPERATOR
    assert NVIDIA.runtime
    dump = f"version = 2\n[plugins.x]\nBinaryName = '{OPERATOR.runtime}'\n" if named else "version = 2\n"
    known = {OPERATOR.runtime: theirs, NVIDIA.runtime.program: ours}
    return KnownFacts({DUMP: said(dump), **{FileState(path): FILE if there else None for path, there in known.items()}})


@dataclass
class Installs:
    """A step that is never as wanted, or cannot tell; what it was applied to is kept."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    error: Blocked | None = None
    name: str = "the toolkit is installed"
    done: list[Any] = field(default_factory=list)

    async def check(self, on: Any) -> Drift | None:  # noqa: ARG002 - a step's signature
        """Say that it is not."""
        if self.error:
            raise self.error
        return Drift("not installed", "installed")

    async def apply(self, on: Any) -> None:
        """Keep it."""
        self.done.append(on)


async def test_no_toolkit_is_installed_beside_an_operators() -> None:
    operated_host = served(theirs=True)
    for step in (Installs(), Installs(Blocked("NVIDIA's container toolkit is not installed yet"))):
        left = UnlessOperators(step)
        assert await left.check(operated_host) is None
        await left.apply(operated_host)
        assert step.done == []
        assert (left.name, left.impact, left.restarts) == (step.name, Impact.WORKLOADS, "")
    for host in (served(theirs=False), served(theirs=True, named=False)):
        step = Installs()
        assert await UnlessOperators(step).check(host)
        await UnlessOperators(step).apply(host)
        assert step.done == [host]
        with pytest.raises(Blocked):
            await UnlessOperators(Installs(Blocked("not yet"))).check(host)


async def test_two_toolkits_on_a_host_are_refused_by_name() -> None:
    assert OPERATOR
    for host in (served(theirs=True), served(theirs=False, ours=True), served(theirs=True, named=False, ours=True)):
        assert await OneToolkit().check(host) is None
    with pytest.raises(Refused) as raised:
        await OneToolkit().check(served(theirs=True, ours=True))
    assert raised.value.code == "SHW-642"
    assert OPERATOR.runtime in raised.value.message
    assert "libnvidia-container1" in (raised.value.fix or "")


def test_every_step_that_installs_or_holds_the_toolkit_is_left_to_an_operator() -> None:
    cluster = declared()
    steps = nvidia_runtime.steps(cluster, cluster.host("te2"), family_of(""))
    assert isinstance(steps[0], OneToolkit)
    bare = [type(step).__name__ for step in steps if not isinstance(step, UnlessOperators)]
    assert not {name for name in bare if "Package" in name or "Repository" in name or name == "ToolkitAccepts"}
    assert {id_of(step) for step in steps} >= {id_of(step.step) for step in steps if isinstance(step, UnlessOperators)}
