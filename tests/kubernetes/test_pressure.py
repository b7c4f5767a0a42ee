"""A node that is Ready and takes no pods all the same: its kubelet is short of something, or a taint has stayed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shipway.errors import Refused
from shipway.gpu.evidence import find_barrier
from shipway.kube.client import Kube
from shipway.kube.status import PRESSURES, why_pressed
from shipway.steps.kubernetes.health_cluster import LOOKS, NodeTaints, NodeUnpressed
from shipway.steps.kubernetes.nodes import NodesReady
from shipway.steps.upgrade.possible import ControlPlanesReady
from tests.retire.objects import Objects, node

FULL = "kubelet has disk pressure"


def pressed(name: str, *kinds: str, message: str = FULL) -> Any:
    """Return a Ready node whose kubelet is short of these, with the taint that Kubernetes gives it then."""
    one = node(name)
    one["status"]["conditions"] += [
        {"type": kind, "status": "True" if kind in kinds else "False", "message": message} for kind in PRESSURES
    ]
    keys = [kind.replace("Pressure", "-pressure").replace("kU", "k-u").lower() for kind in kinds]
    one["spec"]["taints"] = [{"key": f"node.kubernetes.io/{key}", "effect": "NoSchedule"} for key in keys]
    return one


def api(*nodes: Any) -> Kube:
    """Return an API with these nodes."""
    return cast("Kube", Objects(*nodes))


@pytest.mark.parametrize("kind", PRESSURES)
async def test_a_pass_tells_of_a_node_whose_kubelet_is_short_of_something_and_where_to_look(kind: str) -> None:
    on = api(pressed("w1", kind), pressed("w2"))
    drift = await NodeUnpressed("w1").check(on)
    assert drift is not None
    assert drift.have == f"{kind}: {FULL}"
    assert LOOKS[kind] in drift.want
    assert not any(look in drift.want for other, look in LOOKS.items() if other != kind)
    assert await NodeTaints("w1", control_plane=False).check(on) is None, "it is told once"
    assert await NodeUnpressed("w2").check(on) is None
    assert await NodeUnpressed("w3").check(on) is None, "one that never joined is told elsewhere"


def test_every_shortage_is_told_and_one_without_words_too() -> None:
    assert why_pressed(pressed("w1", "DiskPressure", "PIDPressure")) == f"DiskPressure: {FULL}; PIDPressure: {FULL}"
    assert why_pressed(pressed("w1", "DiskPressure", message="")) == "DiskPressure: it does not say more"
    assert why_pressed(None) == why_pressed({}) == ""


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("node.kubernetes.io/disk-pressure", True),
        ("node.kubernetes.io/memory-pressure", True),
        ("node.kubernetes.io/pid-pressure", True),
        ("node.kubernetes.io/network-unavailable", True),
        ("node.kubernetes.io/not-ready", False),
        ("node.kubernetes.io/unreachable", False),
        ("node.kubernetes.io/unschedulable", False),
    ],
)
def test_the_proof_sends_no_pod_where_kubernetes_lets_none_in(key: str, *, told: bool) -> None:
    """Readiness and a cordon are told by themselves, not by their taints again."""
    one = {"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}}
    assert find_barrier(one) == (f"taint {key}" if told else "")


@pytest.mark.parametrize("key", ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"])
async def test_a_node_is_waited_for_until_pods_may_come_to_it(key: str) -> None:
    """A controller manager that changed its leader took the taint off long after the kubelet was well."""
    late = node("w2")
    late["spec"]["taints"] = [{"key": key, "effect": "NoExecute"}]
    drift = await NodesReady(("w1", "w2")).check(api(node("w1"), late))
    assert drift is not None
    assert drift.have == f"1 of 2 ready; w2: Ready, and still tainted {key}"
    late["spec"]["taints"] = [{"key": "somebodys", "effect": "NoSchedule"}]
    assert await NodesReady(("w1", "w2")).check(api(node("w1"), late)) is None


async def test_no_upgrade_begins_on_a_control_plane_that_would_throw_fetched_images_away() -> None:
    on = api(node("cp1"), pressed("cp2", "DiskPressure"))
    assert await ControlPlanesReady(["cp1"]).check(on) is None
    with pytest.raises(Refused) as raised:
        await ControlPlanesReady(["cp1", "cp2"]).check(on)
    assert (raised.value.code, raised.value.host) == ("SHW-784", "cp2")
    assert f"cp2: DiskPressure: {FULL}" in raised.value.message
