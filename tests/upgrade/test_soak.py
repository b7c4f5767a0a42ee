"""What is seen while the first worker is watched: nodes, pods, GPUs; what stops the waves, and what does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.errors import Unreachable
from shipway.facts.services import UnitState
from shipway.gpu.chosen import VENDOR
from shipway.kube.client import Kube
from shipway.steps.upgrade.proof import NoGpuErrors
from tasks.waves import hosts, soak
from tests.kubernetes.test_pressure import FULL, pressed
from tests.places.facts import KnownFacts, said, unit
from tests.retire.objects import Object, node, pod
from tests.upgrade.test_flow import a_run
from tests.upgrade.test_work import Api

LOST = "NVRM: Xid (PCI:0000:41:00): 79, pid=7, name=python, GPU has fallen off the bus."
PROGRAM = "NVRM: Xid (PCI:0000:41:00): 13, pid=7, name=python, Graphics Exception"


class Watched:
    """A run that watches w1: what its API has, what the host says, and what happens at which second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *objects: Object, seconds: int = 600) -> None:
        self.run, self.clock = a_run(soak_seconds=seconds), 0.0
        self.api, self.events = Api(node("w1"), node("w2"), *objects), dict[float, Any]()
        self.host = KnownFacts({UnitState("kubelet.service"): unit()})
        self.host.forget = lambda: None  # type: ignore[method-assign]
        self.kernel("usb 1-1: new device")

        async def sleep(seconds: float) -> None:
            self.clock += seconds
            for at in [at for at in self.events if at <= self.clock]:
                self.events.pop(at)()

        async def kube() -> Any:
            return self.api

        monkeypatch.setattr(soak, "asyncio", SimpleNamespace(sleep=sleep))
        monkeypatch.setattr(soak, "time", SimpleNamespace(monotonic=lambda: self.clock))
        monkeypatch.setattr(self.run, "kube", kube)
        monkeypatch.setattr(self.run, "session", lambda _: self.host)

    def kernel(self, *lines: str) -> None:
        """Let the kernel have told this since the kubelet's start."""
        self.host.facts[NoGpuErrors(unit().active_since).messages] = said("\n".join(lines))

    async def look(self) -> str:
        """Return what the watch says."""
        return await soak.watch_workers(self.run, ("w1",))


def kept(name: str, on: str, *, of: str = "web", kind: str = "ReplicaSet", **status: Any) -> Object:
    """Return a pod of a service."""
    made = pod(name, on, owner=kind)
    made["metadata"]["ownerReferences"][0]["uid"] = of
    made["status"] |= status
    return made


def restarted(made: Object, count: int) -> None:
    made["status"]["containerStatuses"] = [{"name": "c", "restartCount": count}]


async def test_what_is_wrong_twice_in_a_row_counts_while_it_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = kept("x", "w1", containerStatuses=[{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}])
    one = Watched(monkeypatch, crashing)
    assert await one.look() == "crashing: default/x on w1"
    assert one.clock == 20.0
    one.api.objects = [node("w1", ready=False)]
    assert "not Ready: w1" in await one.look()
    one.api.objects = [pressed("w1", "DiskPressure"), pressed("w2", "PIDPressure")]
    assert await one.look() == f"short: w1: DiskPressure: {FULL}"
    one.clock, one.api.objects = 0.0, [node("w1"), {**crashing, "spec": {"nodeName": "w2"}}]
    assert await one.look() == ""
    assert one.clock == 600.0


@pytest.mark.parametrize(
    ("counts", "told"), [((7, 7), ""), ((7, 8), ""), ((7, 9), "restarted: default/x on w1 (c: 2 times)")]
)
async def test_a_pod_that_is_restarted_again_and_again_counts_by_what_is_new(
    monkeypatch: pytest.MonkeyPatch, counts: tuple[int, int], told: str
) -> None:
    made = kept("x", "w1")
    restarted(made, counts[0])
    one = Watched(monkeypatch, made)
    one.events[300] = lambda: restarted(made, counts[1])
    assert await one.look() == told


@pytest.mark.parametrize(
    ("late", "told"),
    [
        (kept("late", "", phase="Pending"), "Pending: default/late on no node for 70 s"),
        (kept("late", "w1", phase="Pending"), "Pending: default/late on w1 for 310 s"),
        (kept("late", "", kind="StatefulSet", phase="Pending"), "Pending: default/late on no node for 70 s"),
        (kept("late", "w2", phase="Pending"), ""),
        (kept("late", "", of="another", phase="Pending"), ""),
        (kept("late", "", phase="Running"), ""),
    ],
)
async def test_pods_that_ran_on_the_host_and_do_not_start_any_more_count(
    monkeypatch: pytest.MonkeyPatch, late: Object, told: str
) -> None:
    one = Watched(monkeypatch, late)
    one.run.waves.keepers = {"w1": frozenset({"web"}), "w2": frozenset({"another"})}
    assert (await one.look()).startswith(told)
    if not told:
        assert one.clock == 600.0
    one = Watched(monkeypatch, late)
    one.run.waves.keepers = {"w1": frozenset({"web"})}
    one.run.waves.pending = {"web": 1}
    assert await one.look() == "", "so it was before the host's turn"


async def test_a_pod_that_somebody_holds_back_or_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gated, ending, short = (kept(name, "", phase="Pending") for name in ("gated", "ending", "short"))
    gated["spec"]["schedulingGates"] = [{"name": "queue"}]
    ending["metadata"]["deletionTimestamp"] = "now"
    one = Watched(monkeypatch, gated, ending, short)
    one.run.waves.keepers = {"w1": frozenset({"web"})}
    one.events[50] = lambda: one.api.objects.remove(short)
    assert await one.look() == ""


async def test_who_keeps_pods_running_on_a_host_is_known_from_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [kept(kind, "w1", of=kind, kind=kind) for kind in ("ReplicaSet", "StatefulSet", "Job", "DaemonSet")]
    one = Watched(monkeypatch, *kinds, kept("waits", "", phase="Pending"))
    one.api.missing = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
    monkeypatch.setattr(hosts, "list_webhooks", nothing)
    never = lambda *_: False  # noqa: E731
    await hosts.learn_nodes(one.run, cast("Kube", one.api), reached=("w1",), done=never, resumed=never)
    assert one.run.waves.keepers == {"w1": frozenset({"ReplicaSet", "StatefulSet"})}
    assert one.run.waves.pending == {"web": 1}


async def nothing(_: object) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("lines", "told"), [((PROGRAM,), ""), ((PROGRAM, LOST), "errors of GPUs: w1: 0000:41:00.0: Xid 79")]
)
async def test_an_error_that_makes_a_gpu_unfit_counts_and_one_of_a_program_does_not(
    monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], told: str
) -> None:
    one = Watched(monkeypatch)
    one.events[100] = lambda: one.kernel(*lines)
    seen = await one.look()
    assert seen.startswith(told)
    assert (bool(seen), one.clock) == (bool(told), 110.0 if told else 600.0)


async def test_a_host_that_does_not_answer_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one, real, asked = Watched(monkeypatch), KnownFacts.read_all, list[float]()

    async def read_all(host: KnownFacts, facts: Any) -> list[Any]:
        asked.append(one.clock)
        if one.clock in away:
            raise Unreachable("no answer", host="w1")
        return await real(host, facts)

    monkeypatch.setattr(KnownFacts, "read_all", read_all)
    away = {100.0}
    assert await one.look() == ""
    one.clock, away = 0.0, {100.0, 110.0}
    assert await one.look() == "no answer"
    assert VENDOR.health is not None
