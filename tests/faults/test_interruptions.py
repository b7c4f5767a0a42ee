"""Every exchange of a bootstrap interrupted: one run in which that very exchange fails, then a plain second one.

After the second run: outcome ok, the state of an undisturbed lab, nothing initialised twice, no token left behind.
`make test-faults` takes one kind of failure an exchange, in turn; with SHIPWAY_FAULTS=all it takes every kind.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.simulated.lab import SimulatedLab
from lab.simulated.options import Options
from tests.faults.end_state import differences, end_state
from tests.faults.kinds import Spoil, kinds_for
from tests.faults.plain import Key, Line, brought_up, installed

pytestmark = pytest.mark.faults
SHARDS = 48
CASE_SECONDS = 180
NEVER = "the exchange never came"
OPTIONS = Options(hosts=3, scale=0.01)
ALL = os.environ.get("SHIPWAY_FAULTS") == "all"


async def undisturbed() -> tuple[list[Key], dict[str, object]]:
    """Give every exchange of an undisturbed bootstrap, and the state that it and a second run leave."""
    with tempfile.TemporaryDirectory() as folder:
        async with SimulatedLab(Path(folder), OPTIONS) as lab:
            line = Line()
            assert (await brought_up(lab, line)).outcome == "ok"
            assert (await brought_up(lab, Line())).outcome == "ok"
            return line.seen, end_state(lab)


@pytest.fixture(scope="module")
def known() -> Iterator[tuple[list[Key], dict[str, object]]]:
    with pytest.MonkeyPatch.context() as patch:
        installed(patch)
        yield asyncio.run(undisturbed())


def cases(keys: list[Key], shard: int) -> list[tuple[Key, str, Spoil]]:
    """Give the cases of a shard; te3 does what te2 does, so it is left out."""
    chosen = [key for key in keys if key[0] != "te3"][shard::SHARDS]
    made = []
    for key in chosen:
        kinds = list(kinds_for(key[0]).items())
        turn = zlib.crc32(repr(key).encode()) % len(kinds)
        made += [(key, name, spoil) for name, spoil in (kinds if ALL else kinds[turn : turn + 1])]
    return made


async def broken(key: Key, spoil: Spoil, want: dict[str, object]) -> list[str]:
    """Give what is wrong after a run in which this exchange failed, and a plain run; empty when nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        async with SimulatedLab(Path(folder), OPTIONS) as lab:
            line = Line(spoil, key)
            first = await brought_up(lab, line)
            inits = [one for one in lab.hosts["te1"].ran if "kubeadm init" in " ".join(one.words)]
            second = await brought_up(lab, Line())
            if not line.hit:  # a wait asked less often this time: there was nothing to spoil
                return [NEVER]
            faults = []
            if second.outcome != "ok":
                faults += [f"second run {second.outcome} (first {first.outcome})"]
                faults += [f"{error.host}: {error.step}: {error.cause}" for error in second.errors][:3]
            again = [one for one in lab.hosts["te1"].ran if "kubeadm init" in " ".join(one.words)]
            if len(again) > len(inits) and first.outcome in ("ok", "partial"):
                faults.append("initialised twice")
            return faults + differences(want, end_state(lab))[:6]


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_run_after_any_interruption_ends_as_if_there_had_been_none(
    known: tuple[list[Key], dict[str, object]], shard: int
) -> None:
    keys, want = known
    told: list[str] = []
    counts: Counter[str] = Counter()
    for key, kind, spoil in cases(keys, shard):
        counts[kind] += 1
        try:
            faults = asyncio.run(asyncio.wait_for(broken(key, spoil, want), CASE_SECONDS))
        except TimeoutError:
            faults = [f"not done after {CASE_SECONDS} s"]
        if faults == [NEVER]:
            counts["never came"] += 1
        elif faults:
            told.append(f"{kind} at {key}: " + "; ".join(faults))
    print(f"shard {shard}: {sum(counts.values())} cases: {dict(counts)}")
    assert not told, "\n".join(told)
