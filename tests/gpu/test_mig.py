"""GPUs are divided by mig-parted alone, on a host where nobody computes; what is not so yet is never called done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from shipway.converge import converge
from shipway.errors import Blocked, CommandFailed, Permanent
from shipway.facts.commands import Watched
from shipway.facts.fact import Fact
from shipway.facts.files import FileText
from shipway.facts.services import UnitState
from shipway.gpu.nvidia.answers import REPORT
from shipway.step import Impact
from shipway.steps.gpu.mig import (
    CLIENTS,
    HOOKS,
    LAYOUTS,
    MARK,
    REFRESH,
    GpusDivided,
    GpusWhole,
    MigPossible,
    why_restart_for_mode,
)
from shipway.steps.gpu.mig import WHOLE as UNDIVIDED
from tasks.stages import nvidia_runtime, preflight
from tests.gpu.test_classes import CLASSES, declared
from tests.places.facts import DEBIAN, KnownFacts, said, unit

# Printed by a host with two H200 (2026-11-28): MIG is Disabled on both. The other words are changed in it, not seen.
WHOLE = (Path(__file__).parents[2] / "lab" / "h200-nvidia-smi-q.txt").read_text(encoding="utf-8")
STEP = GpusDivided("all-1g.18gb")


def asserts(layout: str) -> Watched:
    return Watched(("nvidia-mig-parted", "assert", "-f", LAYOUTS, "-c", layout), seconds=60)


ASSERT = asserts("all-1g.18gb")
OTHERWISE = (
    'time="2026-11-30T10:20:00Z" level=fatal msg="Assertion failure: selected configuration not currently applied"'
)


def modes(current: str, pending: str) -> str:
    lines, row = [], ""
    for line in WHOLE.splitlines():
        row = line.strip() if " : " not in line else row
        name = line.split(" : ")[0].strip()
        value = {"Current": current, "Pending": pending}.get(name) if row == "MIG Mode" else None
        lines.append(f"{line.partition(' : ')[0]} : {value}" if value else line)
    return "\n".join(lines)


class Divided(KnownFacts):
    """A host whose mig-parted does what it is told, or leaves a mode for the next restart."""

    def __init__(self, facts: dict[Fact[Any], Any], after: dict[Fact[Any], Any], fails: str = "") -> None:
        super().__init__(facts)
        self.after, self.fails = after, fails

    async def do(self, *commands: Any) -> list[Any]:
        """Keep what is done, and answer as after it."""
        self.facts.update(self.after)
        done = await super().do(*commands)
        if self.fails and " apply " in self.done[-1]:
            raise CommandFailed(self.fails, exit_status=1, output=self.fails)
        return done

    def forget(self) -> None:
        """Know nothing that is kept."""


def host(
    *,
    asserted: Any,
    report: str = WHOLE,
    after: str = "",
    clients: str = "",
    clients_status: int = 0,
    refresh: bool = True,
    fails: str = "",
) -> Divided:
    facts = {ASSERT: asserted, REPORT: said(report), CLIENTS: said(clients, clients_status)}
    facts |= {UnitState(REFRESH): unit()} if refresh else {}
    done = {ASSERT: said("applied")} if after == modes("Enabled", "Enabled") else {}
    return Divided(facts, {**done, REPORT: said(after or report)}, fails)


async def test_gpus_are_divided_with_the_hooks_and_the_cdi_file_is_written_anew() -> None:
    on = host(asserted=said(OTHERWISE, 1), after=modes("Enabled", "Enabled"))
    (result,) = await converge([STEP], cast("Any", on), Impact.WORKLOADS)
    assert result.outcome == "changed"
    assert on.done == [
        f"nvidia-mig-parted apply -f {LAYOUTS} -c all-1g.18gb -k {HOOKS}",
        f"systemctl start {REFRESH}",
    ]
    assert on.written == {MARK: "all-1g.18gb\n"}


async def test_what_is_divided_so_stays_and_a_service_that_is_not_there_is_not_started() -> None:
    assert await STEP.check(cast("Any", host(asserted=said("applied")))) is None
    on = host(asserted=said(OTHERWISE, 1), after=modes("Enabled", "Enabled"), refresh=False)
    await STEP.apply(cast("Any", on))
    assert len(on.done) == 1


async def test_nothing_is_divided_beside_a_process_or_where_workloads_may_not_be_disturbed() -> None:
    on = host(asserted=said(OTHERWISE, 1), clients="4711, python3\n4712, python3\n")
    assert await STEP.hold(cast("Any", on)) == "2 processes compute there (4711, python3)"
    (held,) = await converge([STEP], cast("Any", on), Impact.WORKLOADS)
    free = host(asserted=said(OTHERWISE, 1), clients="No running processes found\n")
    assert await STEP.hold(cast("Any", free)) == ""
    (withheld,) = await converge([STEP], cast("Any", free), Impact.SERVICE)
    silent = host(asserted=said(OTHERWISE, 1), clients="Unable to determine the device handle", clients_status=15)
    assert "cannot be told what computes there (status 15: Unable to" in await STEP.hold(cast("Any", silent))
    (untold,) = await converge([STEP], cast("Any", silent), Impact.WORKLOADS)
    assert (untold.outcome, silent.done) == ("drifted", []), "who cannot be asked is not nobody"
    assert [held.outcome, withheld.outcome] == ["drifted", "drifted"]
    assert [on.done, free.done] == [[], []]


async def test_a_mode_that_waits_for_a_restart_is_not_done() -> None:
    pending = modes("Disabled", "Enabled")
    # mig-parted tries a reset of its own, and ends with its failure (NVIDIA's apply/mode.go)
    on = host(asserted=said(OTHERWISE, 1), after=pending, fails="error resetting all GPUs: exit status 3")
    with pytest.raises(Blocked, match="changes with the next restart") as raised:
        await STEP.apply(cast("Any", on))
    assert "`shipway maintain FILE`, which drains it first" in (raised.value.fix or "")
    drift = await STEP.check(cast("Any", host(asserted=said(OTHERWISE, 1), report=pending)))
    assert drift
    assert drift.have == "the mode Enabled waits for a restart of the host"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said("", 127), "nvidia-mig-parted is not there"),
        (
            # as two H200 said it, the warning included
            said(
                "2026/11/30 10:33:13 WARNING: unable to detect IOMMU FD for [0000:00:07.0 open /sys/x]: %!v(MISSING)\n"
                'time="2026-11-30T10:33:13Z" level=fatal msg="Error selecting MIG config: selected mig-config '
                'not present: all-1g.18gb"',
                1,
            ),
            "does not take all-1g.18gb: Error selecting MIG config: selected mig-config not present: all-1g.18gb ",
        ),
        # the package makes it at the next boot, and not when it is installed
        (
            said("Error parsing config file: read error: open /etc/nvidia-mig-manager/config.yaml: no such file", 1),
            "there is no /etc/nvidia-mig-manager/config.yaml",
        ),
    ],
)
async def test_a_program_or_a_layout_that_is_not_there_is_named(answer: Any, words: str) -> None:
    with pytest.raises(Permanent, match=words) as raised:
        await STEP.check(cast("Any", host(asserted=answer)))
    assert raised.value.code == "SHW-655"


async def test_another_failure_of_mig_parted_is_said_as_it_is() -> None:
    fault = "error setting MIGConfig: error attempting multiple config orderings: all orderings failed"
    on = host(asserted=said(OTHERWISE, 1), after=modes("Enabled", "Enabled"), fails=fault)
    with pytest.raises(CommandFailed, match="all orderings failed"):
        await STEP.apply(cast("Any", on))


async def test_a_driver_that_does_not_answer_is_no_difference() -> None:
    """To mig-parted every fault is one: it says the same of an NVML that does not load."""
    on = host(asserted=said(OTHERWISE, 1))
    on.facts[REPORT] = said("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9)
    with pytest.raises(Blocked, match="does not tell how the GPUs are divided"):
        await STEP.check(cast("Any", on))


async def test_what_shipway_has_divided_is_made_whole_again_and_nothing_else() -> None:
    untouched = Divided({asserts(UNDIVIDED): said(OTHERWISE, 1), REPORT: said(modes("Enabled", "Enabled"))}, {})
    (result,) = await converge([GpusWhole()], cast("Any", untouched), Impact.WORKLOADS)
    assert (result.outcome, untouched.done) == ("ok", []), "somebody else has divided them"
    whole = {asserts(UNDIVIDED): said("applied"), REPORT: said(WHOLE), FileText(MARK): None}
    facts: dict[Fact[Any], Any] = {asserts(UNDIVIDED): said(OTHERWISE, 1), REPORT: said(modes("Enabled", "Enabled"))}
    on = Divided({**facts, CLIENTS: said(""), FileText(MARK): "all-1g.18gb\n"}, {})
    drift = await GpusWhole().check(cast("Any", on))
    assert drift
    assert drift.have == "otherwise (MIG is Enabled)"
    on.after = cast("Any", whole)
    (result,) = await converge([GpusWhole()], cast("Any", on), Impact.WORKLOADS)
    assert (result.outcome, on.written) == ("changed", {})
    assert on.done == [f"nvidia-mig-parted apply -f {LAYOUTS} -c {UNDIVIDED} -k {HOOKS}", f"rm -f -- {MARK}"]


async def test_gpus_that_are_whole_by_hand_are_not_divided_again_at_the_next_boot() -> None:
    facts: dict[Fact[Any], Any] = {asserts(UNDIVIDED): said("applied"), FileText(MARK): "all-1g.18gb\n"}
    drift = await GpusWhole().check(cast("Any", Divided(facts, {})))
    assert drift
    assert drift.have == "whole, and all-1g.18gb would be applied again at the next boot"


async def test_gpus_without_mig_are_refused_first() -> None:
    assert await MigPossible().check(cast("Any", KnownFacts({REPORT: said(WHOLE)}))) is None
    assert await MigPossible().check(cast("Any", KnownFacts({REPORT: said("NVIDIA-SMI has failed", 9)}))) is None
    with pytest.raises(Permanent, match="2 of 2 GPUs have no MIG") as raised:
        await MigPossible().check(cast("Any", KnownFacts({REPORT: said(modes("N/A", "N/A"))})))
    assert raised.value.code == "SHW-654"
    with pytest.raises(Permanent, match="2 of 2 GPUs have no MIG"):  # mig-parted would say that it has divided them
        await STEP.check(cast("Any", host(asserted=said(OTHERWISE, 1), report=modes("N/A", "N/A"))))


def test_only_hosts_of_such_a_class_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLASSES, "parts", {"sharing": "mig-single", "mig": "all-1g.18gb"})
    cluster = declared("parts", mode="cdi")

    def of(name: str) -> tuple[bool, bool, bool]:
        steps = nvidia_runtime.steps(cluster, cluster.host(name), DEBIAN)
        checks = preflight.checks(cluster, cluster.host(name), DEBIAN)
        return STEP in steps, GpusWhole() in steps, any(isinstance(one, MigPossible) for one in checks)

    assert [of("te2"), of("te3"), of("te1")] == [(True, False, True), (False, True, False), (False, True, False)]
    as_they_are = declared("parts", mode="cdi").gpu.classes["parts"].model_copy(update={"mig": None})
    assert nvidia_runtime.divided_as(as_they_are) == [], "as somebody has divided them"


@pytest.mark.parametrize(
    ("step", "mark", "now", "later", "restarts"),
    [
        (STEP, "all-1g.18gb\n", "Disabled", "Enabled", True),
        (STEP, None, "Disabled", "Enabled", False),  # somebody else has asked for it
        (STEP, "all-3g.71gb\n", "Disabled", "Enabled", False),  # the declared one was not applied yet
        (STEP, "all-1g.18gb\n", "Enabled", "Disabled", False),  # nobody of ours wants it whole
        (STEP, "all-1g.18gb\n", "Enabled", "Enabled", False),
        (STEP, "all-1g.18gb\n", "N/A", "Enabled", False),
        (STEP, "all-1g.18gb\n", "Disabled", "N/A", False),
        (GpusWhole(), "all-1g.18gb\n", "Enabled", "Disabled", True),
        (GpusWhole(), "all-1g.18gb\n", "Disabled", "Enabled", False),
        (GpusWhole(), None, "Enabled", "Disabled", False),
    ],
)
async def test_a_pending_mode_is_a_reason_to_restart_where_shipway_asked_for_it_and_the_file_still_does(
    step: GpusDivided, mark: str | None, now: str, later: str, *, restarts: bool
) -> None:
    on = cast("Any", KnownFacts({FileText(MARK): mark, REPORT: said(modes(now, later))}))
    assert await why_restart_for_mode(on, step) == ([f"MIG is pending on 2 GPUs ({later})"] if restarts else [])
    silent = cast("Any", KnownFacts({FileText(MARK): mark, REPORT: said("No devices were found", 6)}))
    assert await why_restart_for_mode(silent, step) == []


async def test_what_a_program_writes_into_the_report_says_nothing_of_mig() -> None:
    named = (Path(__file__).with_name("recorded") / "h200-nvidia-smi-q-named.txt").read_text(encoding="utf-8")
    with pytest.raises(Blocked, match="does not tell how"):
        await STEP.check(cast("Any", host(asserted=said(OTHERWISE, 1), report=named)))
    assert await MigPossible().check(cast("Any", host(asserted=said("applied"), report=named))) is None
    pending = said(named.replace("Disabled", "Enabled", 1))
    on = cast("Any", KnownFacts({FileText(MARK): "all-1g.18gb\n", REPORT: pending}))
    assert await why_restart_for_mode(on, STEP) == []
