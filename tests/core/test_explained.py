"""What a check saw, or a wait saw last, is reported with the catalogue's code, cause and fix where that knows it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from shipway.errors import DeadlineExceeded
from shipway.place import Place
from shipway.step import Drift, Impact, StepResult
from tasks.stage_result import BY_HAND, errors_of, fault
from tasks.waiting import wait_for


@pytest.mark.parametrize(
    ("have", "code", "fix"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "SHW-453", "dkms status"),
        ("1 of 3 ready; calico-node-x: BIRD is not ready: BGP not established with 10.0.0.2", "SHW-494", "TCP 179"),
        ("2 CPU", "SHW-300", BY_HAND),
    ],
)
def test_a_check_that_nothing_can_apply_has_the_catalogues_next_step(have: str, code: str, fix: str) -> None:
    result = StepResult("a fact", "drifted", drift=Drift(have, "otherwise"))
    error = fault("te1", result)
    assert error.code == code
    assert fix in error.fix
    assert have in error.message
    assert [row.code for row in errors_of("te1", [result], Impact.WORKLOADS)] == [code]
    assert errors_of("te1", [result], Impact.NOTHING) == ()


class Never:
    """A check that never comes true."""

    name = "every node is Ready"

    def __init__(self, have: str) -> None:
        self._have = have

    async def check(self, _: object) -> Drift:
        """Return the same drift at every look."""
        return Drift(self._have, "Ready")


class Cluster(Place):
    """A cluster that is only named."""

    name = "cluster"


def run_of() -> Any:
    view = SimpleNamespace(show_step=lambda *_: None, show_wait=lambda *_: None)
    return SimpleNamespace(view=view, last_said={})


@pytest.mark.parametrize(
    ("have", "code", "retry"),
    [
        ("te2: 0/4 nodes are available: 1 Insufficient nvidia.com/gpu", "SHW-498", False),
        ("1 of 2 ready; te2: CNI not initialised", DeadlineExceeded.default_code, True),
    ],
)
async def test_a_wait_that_runs_out_is_explained_by_what_was_seen_last(have: str, code: str, *, retry: bool) -> None:
    on = Cluster()
    result = await wait_for(run_of(), "nodes_ready", cast("Any", Never(have)), cast("Any", on), seconds=0.1)
    assert result.outcome == "failed"
    assert result.error is not None
    assert (result.error.code, result.error.may_retry) == (code, retry)
    assert have in result.error.message
    assert result.error.step == "every node is Ready"
