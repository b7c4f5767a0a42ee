"""Ports of InfiniBand and RoCE: up where they ought to be, as fast as their equals, and without new errors.

What the kernel says is in its own form (drivers/infiniband/core/sysfs.c), not recorded: no such adapter was at hand.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.simulated.adapters import Adapter
from shipway.gpu.health.growth import CLOCKS, FIRST, Counted
from shipway.gpu.health.ports import (
    KNOWN_STATES,
    MOST,
    HostPorts,
    Port,
    PortHealth,
    growth_of,
    judge_ports,
    key_of,
    read_ports,
)

UP = Port("mlx5_0/1", "0000:50:00.0", "MT4129", "InfiniBand", "ACTIVE", "LinkUp", "400 Gb/sec (4X NDR)")
SECOND = replace(UP, name="mlx5_1/1")
DOWN = replace(UP, state="DOWN", phys="Polling", rate="10 Gb/sec (4X SDR)")


def one(*ports: Port, rails: tuple[str, ...] = (), **grew: dict[str, int] | None) -> HostPorts:
    """Return a host with these ports, whose counters (`mlx5_0`: port 1 of it) grew by so much."""
    told: dict[str, dict[str, int] | None] = {port.name: {} for port in ports}
    more = {f"{name}/1": more for name, more in grew.items()}
    return HostPorts({port.name: port for port in ports}, rails, {**told, **more})


def judged(host: HostPorts, *equals: HostPorts) -> list[PortHealth]:
    """Return the verdict on a host's ports beside those of its equals."""
    return judge_ports({"te1": host, **{f"te{number}": other for number, other in enumerate(equals, 2)}})["te1"]


def test_what_the_kernel_shows_is_read_with_the_adapters_slot_and_type() -> None:
    shown = Adapter("mlx5_0", counters={"symbol_error": 4}).write(0) + Adapter("mlx5_1", state="DOWN").write(1)
    ports, counts = read_ports(shown)
    assert ports["mlx5_0/1"] == UP
    assert (ports["mlx5_1/1"].state, ports["mlx5_1/1"].phys) == ("DOWN", "Polling")
    assert counts == {"mlx5_0/1": {"symbol_error": 4}, "mlx5_1/1": {}}
    assert PortHealth(UP).title == "InfiniBand mlx5_0/1 MT4129 in 0000:50:00.0"
    assert UP.gigabits == 400


@pytest.mark.parametrize("said", ["", "mlx5_0:4: ACTIVE", "a/ports/x/state:4: ACTIVE", "\0", "/ports/1/state:4: UP"])
def test_what_is_no_port_is_none(said: str) -> None:
    assert read_ports(said) == ({}, {})


def test_a_port_that_is_up_is_ok_and_one_alone_that_is_down_is_not_judged() -> None:
    assert [found.word for found in judged(one(UP))] == ["ok"]
    (found,) = judged(one(DOWN))
    assert (found.word, found.unjudged) == (
        "not judged",
        ("its state is DOWN (Polling), and nothing tells whether it ought to be up",),
    )


def test_a_declared_rail_is_up_and_there_and_as_fast_as_the_others() -> None:
    (found,) = judged(one(DOWN, rails=("mlx5_0/1",)))
    assert found.faults == ("its state is DOWN (Polling), and it is declared (rails)",)
    _, lost = judged(one(UP, rails=("mlx5_0/1", "mlx5_9/1")))
    assert (lost.title, lost.faults) == ("port mlx5_9/1", ("it is declared (rails), and is not there",))
    slow = replace(SECOND, rate="200 Gb/sec (4X HDR)")
    rails = ("mlx5_0/1", "mlx5_1/1")
    fast, found = judged(one(UP, slow, rails=rails))
    assert (fast.word, found.faults) == ("ok", ("200 Gb/s, and 400 on another rail of this host",))
    assert [each.word for each in judged(one(UP, slow))] == ["ok", "ok"]  # an adapter for storage may be slower


def test_equals_say_whether_a_port_ought_to_be_up_and_how_fast() -> None:
    both, cut = one(UP, SECOND), one(UP, replace(SECOND, state="DOWN", phys="Polling"))
    assert [found.word for found in judged(cut, both, both)] == ["ok", "sick"]
    assert [found.word for found in judged(cut, both)] == ["ok", "not judged"]  # one says nothing
    assert [found.word for found in judged(cut, cut, cut)] == ["ok", "ok"]  # nobody uses it
    assert [found.word for found in judged(cut, both, cut)] == ["ok", "not judged"]
    other = one(UP, replace(SECOND, adapter="MT4123"))
    assert [found.word for found in judged(cut, other, other)] == ["ok", "not judged"]  # other adapters are no equals
    slow = one(replace(UP, rate="200 Gb/sec (2X NDR)"), SECOND)
    first, _ = judged(slow, both, both)
    assert first.faults == ("200 Gb/s, and 400 on most hosts with the same adapters",)
    assert [found.word for found in judged(both, slow, slow)] == ["ok", "ok"]  # faster than its equals is no fault
    assert [found.word for found in judged(slow, both)] == ["ok", "ok"]


def test_a_link_that_is_up_for_the_adapter_and_not_for_the_network_is_not_up() -> None:
    (found,) = judged(one(replace(UP, state="INIT"), rails=("mlx5_0/1",)))
    assert found.faults == ("its state is INIT (LinkUp), and it is declared (rails)",)


@pytest.mark.parametrize(
    ("port", "word", "said"),
    [
        (replace(UP, phys="LinkErrorRecovery"), "sick", "its link is being recovered from errors right now"),
        (replace(UP, phys="Sleep"), "not judged", "it is ACTIVE while its physical state is Sleep"),
        (replace(UP, rate="fast"), "not judged", "its rate is told as fast"),
        (replace(UP, state="NEW"), "not judged", "its state is told as NEW"),
        (replace(UP, state=""), "not judged", "its state is told as nothing"),
    ],
)
def test_what_is_told_in_unknown_words_is_not_judged(port: Port, word: str, said: str) -> None:
    (found,) = judged(one(port, rails=("mlx5_0/1",)))
    assert (found.word, found.faults + found.unjudged) == (word, (said,))
    assert "NEW" not in KNOWN_STATES


def test_only_growth_of_errors_counts_and_as_much_as_is_known_to_matter() -> None:
    (first,) = judged(one(UP, mlx5_0=None))
    assert first.unjudged == (f"its error counters: {FIRST}",)
    for name, most in MOST.items():
        (well,), (ill,) = judged(one(UP, mlx5_0={name: most})), judged(one(UP, mlx5_0={name: most + 1}))
        assert (well.word, ill.faults) == ("ok", (f"since the last pass grew {name} by {most + 1}",))
    assert judged(one(DOWN, mlx5_0={"symbol_error": 99}))[0].word == "not judged"  # whoever uses it not has no errors


def test_a_port_that_went_down_since_the_last_pass_was_used_and_is_told_whatever_its_equals_show() -> None:
    """So it is on a host alone, and where the switch of all of them is lost."""
    alone = one(DOWN, mlx5_0={"link_downed": 1})
    said = ("its state is DOWN (Polling), and it went down since the last pass",)
    assert judged(alone)[0].faults == said
    assert judged(alone, alone, alone)[0].faults == said
    assert [found.word for found in judged(one(DOWN, mlx5_0={}))] == ["not judged"]


def test_a_port_that_tells_no_counters_is_not_called_free_of_errors() -> None:
    shown = "".join(line for line in Adapter("rxe0").write(0).splitlines(keepends=True) if "/counters/" not in line)
    ports, counts = read_ports(shown)
    assert (list(ports), counts) == (["rxe0/1"], {})
    (found,) = judged(HostPorts(ports))
    assert found.unjudged == ("its error counters are not told",)


def test_what_a_host_says_of_an_adapter_is_cut() -> None:
    ports, _ = read_ports(f"mlx5_0/hca_type:{'x' * 9999}\nmlx5_0/ports/1/link_layer:{'y' * 9999}\n")
    assert len(PortHealth(ports["mlx5_0/1"]).title) < 200


def test_growth_is_between_two_looks_at_the_same_counters() -> None:
    before = Counted(1000.0, 10.0, {"GPU-1": {"a": 5}, "GPU-2": {}})
    now = Counted(2000.0, 10.0, {"GPU-1": {"a": 7, "b": 1}, "GPU-2": {}, "GPU-3": {"a": 1}, "GPU-4": {}})
    assert now.since(before, "GPU-1") == {"a": 2, "b": 1}
    assert now.since(before, "GPU-2") == {}
    assert now.since(before, "GPU-3") is None  # swapped in between
    assert now.since(before, "GPU-4") == {}  # as well, and it has counted nothing yet
    assert now.since(None, "GPU-1") is None
    assert now.since(replace(before, at=2000.0), "GPU-1") is None
    assert replace(now, booted=1000.0 + CLOCKS + 1).since(before, "GPU-1") is None
    assert replace(now, booted=1000.0).since(before, "GPU-1") is not None
    assert Counted(2000.0, 10.0, {"GPU-1": {"a": 4}}).since(before, "GPU-1") is None  # they were set back
    ports = {"mlx5_0/1": UP, "mlx5_1/1": SECOND}
    counted = Counted(2000.0, 10.0, {key_of("mlx5_0/1"): {"link_downed": 1}})
    earlier = Counted(1000.0, 10.0, {key_of("mlx5_0/1"): {}})
    assert growth_of(ports, counted, earlier) == {"mlx5_0/1": {"link_downed": 1}}
