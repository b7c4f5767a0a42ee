"""A long run of every step and parser on hosts that answer anything; SHIPWAY_FUZZ says how many hosts (2,000)."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipway.script import Output
from tests.places.fuzz_host import OUTPUTS, everything_on, hurried

pytestmark = pytest.mark.faults
PARTS = 8
EXAMPLES = int(os.environ.get("SHIPWAY_FUZZ", "2000")) // PARTS


@pytest.mark.parametrize("part", range(PARTS))
def test_every_step_on_hosts_that_answer_anything(part: int) -> None:
    counted: Counter[str] = Counter()
    began = time.monotonic()

    @given(st.lists(OUTPUTS, min_size=1, max_size=8), st.booleans())
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
    def hosts(outputs: list[Output], cut: bool) -> None:  # noqa: FBT001 - drawn
        with hurried():
            counted.update(asyncio.run(everything_on(outputs, cut=cut)))
        counted["hosts"] += 1

    hosts()
    number, commands = counted.pop("hosts"), counted.pop("commands")
    seconds = time.monotonic() - began
    looks = counted.total()
    print(f"fuzz part {part}: {number} hosts, {looks} looks and changes, {commands} commands, {seconds:.0f} s")
    print(dict(counted))
    assert number >= EXAMPLES
