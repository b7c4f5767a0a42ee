"""GPUs by CDI: pods name no RuntimeClass, a containerd that cannot is refused first, and no change leaves a gap."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.converge import converge, wait_until
from shipway.errors import Blocked, Permanent
from shipway.facts.files import FileInfo, FileState
from shipway.gpu.counts import GpusAllocatable
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.gpu.pods import pod_with_gpu, pod_without
from shipway.gpu.proof import prove
from shipway.step import Impact
from shipway.steps.gpu.cdi import CdiPossible, CdiServed
from shipway.steps.gpu.device_list import PluginPresent, needs_variable
from shipway.steps.gpu.mig import GpusWhole
from shipway.steps.gpu.plugin import PluginRunning
from shipway.steps.gpu.plugin_mode import plugin_mode, proven_as
from shipway.steps.kubernetes.nodes import WorkloadRuns
from shipway.steps.runtime.pause_image import DUMP
from tasks.stages import device_plugin, nvidia_runtime, preflight
from tests.gpu.test_proof import EXPECTED, declared, facts, furnished
from tests.places.facts import DEBIAN, KnownFacts, said
from tests.places.kube import Place, gpu_host, place

PLUGIN, NAMESPACE = NVIDIA.plugin.daemon_set, NVIDIA.plugin.namespace
NEW = {"containerd_version": "2.1.9", "runtime_handlers": {"runc"}}
HOOK = {FileState(NVIDIA.hook): FileInfo("755", "root:root", 7344672, 1)}
DUMPED = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = %s\ncdi_spec_dirs = %s\n"
SERVED = DUMPED % ("true", "['/etc/cdi', '/var/run/cdi']")
OLD = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = true\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipway.gpu.proof.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("shipway.gpu.proof.SETTLE_SECONDS", 1.0)


def hosts(**changes: Any) -> list[Any]:
    return [gpu_host(1, 0), *(gpu_host(number, 2, **{**NEW, **changes}) for number in (2, 3))]


async def test_gpus_are_proven_on_hosts_that_have_no_runtime_of_the_vendors() -> None:
    async with place(hosts=hosts(), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await furnished(made)
        assert await made.kube.get("node.k8s.io/v1", "RuntimeClass", "nvidia") is None
        assert await PluginRunning("cdi").check(made.kube) is None
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert (proof.outcome, proof.error, proof.verified) == ("ok", None, 4)
        assert proof.without == {"te2": 0, "te3": 0}


async def test_a_containerd_that_knows_no_cdi_gives_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why it is refused first: the plugin registers, the node offers GPUs, and pods get none."""
    monkeypatch.setattr("shipway.gpu.proof.DECIDE_SECONDS", 1.0)
    async with place(hosts=hosts(containerd_version="1.7.27"), cluster=declared(mode="cdi"), version="v1.36.2") as made:
        await furnished(made)
        proof = await prove(made.kube, made.cluster, EXPECTED, facts())
        assert (proof.outcome, proof.verified) == ("failed", 0)


def test_neither_plugin_nor_proof_names_a_runtime_class() -> None:
    cluster = declared(mode="cdi")
    (plugin,) = device_plugin.daemon_set(cluster)
    pods = [plugin["spec"]["template"], pod_with_gpu(cluster, "a"), pod_without(cluster, "b", "te2")]
    assert [pod["spec"].get("runtimeClassName") for pod in pods] == [None, None, None]
    spec = plugin["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert spec["containers"][0]["securityContext"]["privileged"] is True
    (asked,) = pods[2]["spec"]["containers"][0]["env"]
    assert asked == {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}
    assert device_plugin.runtime_class(cluster) == []


async def into_cdi(made: Place, why: str) -> list[Any]:
    async def unready(_: Any) -> str:
        return why

    after = declared(mode="cdi")
    made.kube.forget()
    results = await converge(device_plugin.steps(after, unready), made.kube, Impact.WORKLOADS)
    return results[:-1]  # the last is about classes


async def test_the_plugin_turns_to_cdi_only_when_every_host_can_and_back_beside_pods() -> None:
    both = {"runtime_handlers": {"runc", "nvidia"}}
    async with place(hosts=hosts(**both), cluster=declared(), version="v1.36.2") as made:
        await furnished(made)
        assert await plugin_mode(made.kube) == "runtime_class"
        (held,) = await into_cdi(made, "te3: containerd is 1.x")
        assert held.outcome == "drifted"
        assert held.drift
        assert held.drift.have.endswith("it stays so for now: te3: containerd is 1.x")
        (changed,) = await into_cdi(made, "")
        assert changed.outcome == "changed"
        assert await plugin_mode(made.kube) == "cdi"
        await wait_until(WorkloadRuns("DaemonSet", PLUGIN, NAMESPACE), made.kube, seconds=30, every=0.05)
        await wait_until(GpusAllocatable(EXPECTED), made.kube, seconds=30, every=0.05)
        made.kube.forget()
        assert await needs_variable(made.kube, "te2") == ""
        back = await converge(device_plugin.steps(made.cluster), made.kube, Impact.WORKLOADS)
        assert [one.outcome for one in back] == ["ok", "changed", "ok"]
        assert await plugin_mode(made.kube) == "runtime_class"


async def test_what_is_held_back_is_proven_in_the_way_that_the_plugin_goes() -> None:
    async with place(hosts=hosts(runtime_handlers={"runc", "nvidia"}), cluster=declared(), version="v1.36.2") as made:
        await furnished(made)
        made.kube.forget()
        cluster, notes = await proven_as(made.kube, declared(mode="cdi"))
        assert cluster.gpu.mode == "runtime_class"
        assert notes == ("proven with gpu.mode runtime_class: not every host is ready for cdi yet",)


# --- the hosts


async def test_a_containerd_with_cdi_is_as_wanted() -> None:
    host = KnownFacts({DUMP: said(SERVED), **HOOK})
    assert await CdiServed().check(cast("Any", host)) is None
    assert await CdiPossible().check(cast("Any", host)) is None


@pytest.mark.parametrize(
    ("dump", "more", "code", "words"),
    [
        (OLD, HOOK, "SHW-650", "containerd here is 1.x"),
        (DUMPED % ("false", "['/var/run/cdi']"), HOOK, "SHW-651", "enable_cdi = false"),
        (DUMPED % ("true", "['/etc/cdi']"), HOOK, "SHW-651", "cdi_spec_dirs has no /var/run/cdi"),
        (SERVED, {}, "SHW-651", "/usr/bin/nvidia-cdi-hook is not there"),
    ],
)
async def test_what_keeps_a_host_from_cdi_is_named(dump: str, more: dict[Any, Any], code: str, words: str) -> None:
    with pytest.raises(Permanent, match=words) as raised:
        await CdiServed().check(cast("Any", KnownFacts({DUMP: said(dump), **more})))
    assert raised.value.code == code
    assert raised.value.fix


async def test_a_driver_whose_program_is_a_link_is_told_of_before_nvidias_driver_of_claims_waits_for_it() -> None:
    claims = NVIDIA.claims
    assert claims
    program = {FileState(claims.looks_for[0]): FileInfo("0" * 64, "755", "root:root", 1)}
    served = {DUMP: said(SERVED)}
    step = CdiServed(mode="dra")
    assert await step.check(cast("Any", KnownFacts({**served, **program}))) is None
    with pytest.raises(Permanent, match=r"none of /usr/bin/nvidia-smi, .* is a file") as raised:
        await step.check(cast("Any", KnownFacts(served)))
    assert (raised.value.code, "Debian" in (raised.value.fix or "")) == ("SHW-659", True)
    assert await CdiServed().check(cast("Any", KnownFacts({**served, **HOOK}))) is None, "the plugin does not run it"


async def test_before_containerd_is_there_nothing_is_said_of_it() -> None:
    with pytest.raises(Blocked):
        await CdiServed().check(cast("Any", KnownFacts({DUMP: said("", 127), **HOOK})))
    assert await CdiPossible().check(cast("Any", KnownFacts({DUMP: said("", 127)}))) is None


@pytest.mark.parametrize("joined", [True, False])
async def test_an_old_containerd_is_refused_first_on_a_host_that_has_joined(
    monkeypatch: pytest.MonkeyPatch, *, joined: bool
) -> None:
    class Seen:
        pass

    async def survey(_: Any) -> Any:
        seen = Seen()
        seen.joined = joined  # type: ignore[attr-defined]
        return seen

    monkeypatch.setattr("shipway.steps.gpu.cdi.survey", survey)
    host = cast("Any", KnownFacts({DUMP: said(OLD)}))
    if not joined:  # its containerd is brought to the version that the file names
        assert await CdiPossible().check(host) is None
        return
    with pytest.raises(Permanent, match=r"containerd here is 1\.x") as raised:
        await CdiPossible().check(host)
    assert raised.value.code == "SHW-650"
    assert "`gpu.mode: runtime_class`" in (raised.value.fix or "")


def test_only_where_it_is_declared_and_only_of_hosts_with_gpus() -> None:
    cluster = declared(mode="cdi")

    def looks(of: Any, host: str) -> bool:
        return any(isinstance(one, CdiPossible) for one in preflight.checks(of, of.host(host), DEBIAN))

    assert [looks(cluster, "te2"), looks(cluster, "te1"), looks(declared(), "te2")] == [True, False, False]
    *_, served, whole = nvidia_runtime.steps(cluster, cluster.host("te2"), DEBIAN)
    assert (type(served), type(whole)) == (CdiServed, GpusWhole)
    assert any(isinstance(one, CdiServed) for one in device_plugin.list_needed(cluster, cluster.host("te2"), DEBIAN))
    assert isinstance(device_plugin.steps(cluster)[0], PluginPresent)
