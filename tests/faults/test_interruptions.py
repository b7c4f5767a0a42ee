"""Every exchange interrupted, on bare hosts and on a cluster: one run in which it fails, then a plain run.

After the plain run: outcome ok, the state of an undisturbed lab, nothing initialised twice, no token or lock left.
`make test-faults` takes one kind of failure an exchange, in turn; SHIPWAY_FAULTS=all takes every kind, and a part of a
kind's name (SHIPWAY_FAULTS="exit 1") all that have it.
"""

from __future__ import annotations

import asyncio
import os
import zlib

import pytest

from lab.simulated.lab import SimulatedLab
from tests.faults.kinds import Spoil, cut_while, exit_1_of_each, kinds_for
from tests.faults.left_over import resets
from tests.faults.plain import Key, Line, brought_up
from tests.faults.undisturbed import SECONDS, Known, fresh, whole

pytestmark = pytest.mark.faults
BARE_SHARDS, AGAIN_SHARDS = 48, 8
TRIES = 3  # a wait asks more or less often from run to run: an exchange that did not come is waited for again
NEVER = "the exchange never came"
ASKED = os.environ.get("SHIPWAY_FAULTS", "")
Case = tuple[Key, str, Spoil]


def cases(keys: list[Key], shard: int, shards: int) -> list[Case]:
    """Return the cases of a shard; te3 does what te2 does, so it is left out.

    Where an exchange belongs shows by itself: two processes may see exchanges in different orders, and none may be
    lost between them.
    """
    chosen = [key for key in keys if key[0] != "te3" and zlib.adler32(repr(key).encode()) % shards == shard]
    made = []
    for key in chosen:
        kinds = list(kinds_for(key[0]).items())
        turn = zlib.crc32(repr(key).encode()) % len(kinds)
        taken = [one for one in kinds if ASKED == "all" or ASKED in one[0]]  # all of them where nothing was asked
        whole_lot = ASKED or key[1].endswith(("leases", "leases/shipway"))  # a lock left behind keeps all out
        made += [(key, name, spoil) for name, spoil in (taken if whole_lot else kinds[turn : turn + 1])]
        if "systemd-run" in key[1] and not ASKED:  # what outlives its controller is met by the next run, every time
            made.append((key, "cut while", cut_while))
    return made


async def broken(lab: SimulatedLab, key: Key, spoil: Spoil, known: Known) -> list[str]:
    """Return what is wrong after a run in which this exchange failed, and a plain run; empty when nothing is."""
    line = Line(spoil, key)
    await brought_up(lab, line)
    return await whole(lab, known) or ([] if line.hit else [NEVER])


async def broken_bare(case: Case, known: Known) -> list[str]:
    """Interrupt a bootstrap of bare hosts; again where a wait asked less often, so that there was nothing to spoil."""
    faults = [NEVER]
    for _ in range(TRIES):
        if faults == [NEVER]:
            async with fresh() as lab:
                faults = await broken(lab, case[0], case[2], known)
    return faults


async def broken_again(lab: SimulatedLab, case: Case, known: Known) -> list[str]:
    """Interrupt a run on a cluster that is as wanted: nothing on it may be reset."""
    before = resets(lab)
    faults = await broken(lab, case[0], case[2], known)
    return faults + (["a host of a working cluster was reset"] if resets(lab) > before else [])


def heard(case: Case, faults: list[str], counts: dict[str, int]) -> list[str]:
    """Count a case; return its line where something is wrong."""
    key, kind, _ = case
    name = f"{'API' if key[0] == 'api' else 'host'}: {kind.partition(' of command')[0]}"
    counts[name] = counts.get(name, 0) + 1
    if faults == [NEVER]:
        counts["never came"] = counts.get("never came", 0) + 1
        return []
    return [f"{kind} at {key}: " + "; ".join(faults)] if faults else []


@pytest.mark.parametrize("shard", range(BARE_SHARDS))
def test_a_run_after_any_interruption_ends_as_if_there_had_been_none(
    known: Known, counted: dict[str, int], shard: int
) -> None:
    lines: list[str] = []
    for case in cases(known.bare, shard, BARE_SHARDS):
        try:
            faults = asyncio.run(asyncio.wait_for(broken_bare(case, known), SECONDS))
        except TimeoutError:
            faults = [f"not done after {SECONDS} s"]
        lines += heard(case, faults, counted)
    assert not lines, "\n".join(lines)


def harmless(known: Known, todo: list[Case], counted: dict[str, int]) -> None:
    """Take cases on a working cluster; where one does harm, the next go on with a lab of their own."""
    lines: list[str] = []

    async def on_one_lab() -> None:
        async with fresh() as lab:
            assert (await brought_up(lab, Line())).outcome == "ok"
            while todo:
                case = todo.pop(0)
                try:
                    faults = await asyncio.wait_for(broken_again(lab, case, known), SECONDS)
                except TimeoutError:
                    faults = [f"not done after {SECONDS} s"]
                lines.extend(heard(case, faults, counted))
                if faults not in ([], [NEVER]):
                    return

    while todo:
        asyncio.run(on_one_lab())
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("shard", range(AGAIN_SHARDS))
def test_an_interrupted_run_on_a_working_cluster_harms_nothing(
    known: Known, counted: dict[str, int], shard: int
) -> None:
    harmless(known, cases(known.again, shard, AGAIN_SHARDS), counted)


@pytest.mark.parametrize("shard", range(AGAIN_SHARDS))
def test_no_failed_look_at_a_working_cluster_is_taken_for_its_absence(
    known: Known, counted: dict[str, int], shard: int
) -> None:
    each = [
        (key, kind, spoil)
        for key, count in known.deciding.items()
        if key[0] != "te3"
        for kind, spoil in exit_1_of_each(count).items()
    ]
    harmless(known, [case for case in each if zlib.adler32(repr(case[:2]).encode()) % AGAIN_SHARDS == shard], counted)
