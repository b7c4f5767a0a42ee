"""A mode of MIG that waits for a restart: the host is drained and restarted for it, with no plugin there meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from shipway.errors import Blocked
from shipway.facts.boot import BootIs
from shipway.facts.files import FileText
from shipway.gpu.nvidia.answers import REPORT
from shipway.steps.gpu.classes import NodeClass
from shipway.steps.gpu.mig import CLIENTS, MARK, GpusWhole
from tasks.maintain import look, work
from tests.gpu.test_mig import OTHERWISE, UNDIVIDED, asserts, modes
from tests.maintain.test_work import RESTART, Killed, Scene, a_run, codes, outcome_of
from tests.places.facts import said

PENDING = "MIG is pending on 2 GPUs (Disabled)"
WHOLE = GpusWhole().name


class Divided(Scene):
    """A host whose GPUs are whole again once it was restarted, and what becomes of the plugin on its node."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Any, *, held: str = "", mark: bool = True) -> None:
        super().__init__(monkeypatch, run)
        self.family.waiting = []
        self.order: list[str] = []
        facts = self.host.facts
        facts[FileText(MARK)] = "all-1g.18gb\n" if mark else None
        facts[REPORT], facts[CLIENTS] = said(modes("Enabled", "Disabled")), said("")
        facts[asserts(UNDIVIDED)] = said(OTHERWISE, 1)
        real = self.host.do

        async def do(*commands: Any) -> list[Any]:
            for command in commands:
                self.order.append(" ".join(command.words[:2]))
                if command.words[:2] == ("systemctl", "reboot"):
                    facts[REPORT], facts[asserts(UNDIVIDED)] = said(modes("Disabled", "Disabled")), said("applied")
                if command.words[:1] == ("rm",):
                    facts[FileText(MARK)] = None
            return await real(*commands)

        async def leave(_node: NodeClass, _kube: Any) -> str | None:
            if held:
                raise Blocked(held)
            self.order.append("plugin away")
            return "parts"

        async def back(_node: NodeClass, _kube: Any, earlier: str | None, *, as_declared: bool) -> None:
            self.order.append(f"plugin back {'as declared' if as_declared else earlier}")

        async def answers(*_: Any) -> list[Any]:
            return []

        monkeypatch.setattr(self.host, "do", do)
        monkeypatch.setattr(NodeClass, "leave", leave)
        monkeypatch.setattr(NodeClass, "come_back", back)
        monkeypatch.setattr(work, "prove_driver", answers)

    async def read(self) -> Any:
        """Return what a run sees of it, and keep it."""
        state = self.run.maintenance.hosts["w1"] = await look.read_system(self.run, "w1")
        return state


def acts(order: Sequence[str]) -> list[str]:
    """Return what was done to the host's GPUs and its plugin, in order."""
    return [one for one in order if one.startswith(("plugin", "systemctl reboot", "nvidia-mig-parted apply", "rm"))]


async def test_a_host_is_drained_and_restarted_for_it_and_comes_back_as_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Divided(monkeypatch, a_run())
    state = await scene.read()
    assert (state.reasons, state.mode, state.needs) == ((PENDING,), True, True)
    results = await scene.turn()
    assert codes(results) == []
    assert acts(scene.order) == [
        *("plugin away", "systemctl reboot", "nvidia-mig-parted apply", "rm -f"),
        "plugin back as declared",
    ]
    assert (outcome_of(results, RESTART), outcome_of(results, WHOLE)) == ("changed", "changed")
    assert (scene.proven, scene.closed) == (["w1 closed"], False)
    assert (await scene.read()).needs is False


async def test_one_that_nobody_of_ours_asked_for_restarts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await Divided(monkeypatch, a_run(), mark=False).read()).needs is False
    assert (await Divided(monkeypatch, a_run(reboot="never")).read()).needs is False


async def test_where_a_pod_holds_a_gpu_the_host_is_not_restarted_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Divided(monkeypatch, a_run(), held="its GPUs stay as they are: pod x holds one")
    await scene.read()
    results = await scene.turn()
    assert acts(scene.order) == []
    assert (outcome_of(results, WHOLE), scene.closed) == ("unknown", False)
    scene.family.reasons = ["the system asks for it"]
    await scene.read()
    await scene.turn()
    assert acts(scene.order) == ["systemctl reboot"], "for another reason it is"


async def test_a_restart_that_is_refused_gives_the_plugin_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Divided(monkeypatch, a_run())
    await scene.read()
    scene.family.worker = "apt-get (12)"
    results = await scene.turn()
    assert codes(results) == ["SHW-822"]
    assert acts(scene.order) == ["plugin away", "plugin back parts"]
    assert not scene.closed, "it works as it did"


async def test_a_mode_that_the_restart_did_not_bring_keeps_the_node_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Divided(monkeypatch, a_run())
    await scene.read()
    real = scene.host.do

    async def stays(*commands: Any) -> list[Any]:
        done = await real(*commands)
        scene.host.facts[REPORT] = said(modes("Enabled", "Disabled"))
        scene.host.facts[asserts(UNDIVIDED)] = said(OTHERWISE, 1)
        return done

    monkeypatch.setattr(scene.host, "do", stays)
    results = await scene.turn()
    assert "SHW-796" in codes(results)
    assert acts(scene.order)[-1] == "plugin back parts"
    assert scene.closed


async def test_a_run_that_is_killed_meanwhile_gives_the_plugin_back(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Divided(monkeypatch, a_run())
    await scene.read()

    async def killed(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(work, "prove_driver", killed)
    with pytest.raises(Killed):
        await scene.turn()
    assert acts(scene.order)[-1] == "plugin back parts"


async def test_a_plan_tells_the_reason_and_takes_no_plugin_away(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Divided(monkeypatch, a_run("plan"))
    await scene.read()
    results = await scene.turn()
    (one,) = (one for one in results if one.step == RESTART)
    assert one.drift is not None
    assert one.drift.have == PENDING
    assert acts(scene.order) == []
    assert scene.host.facts[BootIs()] is not None
