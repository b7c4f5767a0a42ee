"""Passes of the flow over the counters of NVLink and the network, on the SIMULATED lab: only their growth is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from shipway.gpu.health.growth import Counted
from tasks.drift.counters import FILE, keep_counters, read_counters
from tasks.drift.look import PORTS
from tests.drift.scene import Scene

pytestmark = pytest.mark.xdist_group("drift")
SOUND = "each GPU is sound"


def test_errors_of_links_are_told_in_the_pass_in_which_they_grew(scene: Scene) -> None:
    scene.drift("te2", "gpu", link=3, count=7)
    assert scene.passed("none").findings == ()  # nothing to compare with
    assert scene.passed("none").findings == ()
    scene.drift("te2", "gpu", link=3, count=9)
    report = scene.passed("none")
    (found,) = report.findings
    assert (found.host, found.step, found.action, found.impact) == ("te2", SOUND, "reported", "NOTHING")
    assert "NVLink errors: 2 more Replay Errors on Link 3 since the last pass, 0 min ago" in found.have
    assert all(host.round_trips <= 3 for host in report.hosts)
    assert scene.passed("none").findings == ()


def test_a_rail_that_is_down_or_went_down_since_the_last_pass_is_told(scene: Scene) -> None:
    data = yaml.safe_load(scene.file.read_text(encoding="utf-8"))
    file = scene.file.with_name("rails.yaml")
    data["hosts"][1]["rails"] = ["mlx5_0/1"]
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    (found,) = scene.passed("none", file).findings
    assert (found.host, found.step, found.impact) == ("te2", PORTS, "NOTHING")
    assert found.have == "port mlx5_0/1: it is declared (rails), and is not there"
    scene.drift("te2", "adapter", name="mlx5_0")
    assert scene.passed("none", file).findings == ()
    scene.drift("te2", "adapter", name="mlx5_0", link_downed=1)
    (found,) = scene.passed("none", file).findings
    assert found.have == "InfiniBand mlx5_0/1 MT4129 in 0000:50:00.0: since the last pass grew link_downed by 1"
    assert "cable, transceiver and switch port" in found.why
    scene.drift("te2", "adapter", name="mlx5_0", state="DOWN")
    (found,) = scene.passed("none", file).findings
    assert "its state is DOWN (Polling), and it is declared (rails)" in found.have
    assert scene.passed("none").findings == ()  # one of two hosts, and nothing declared: not judged
    scene.drift("te2", "adapter", name="mlx5_0", state="ACTIVE")


def test_the_record_of_counters_is_kept_by_host_and_begins_anew_where_it_cannot_be_read(tmp_path: Path) -> None:
    assert read_counters(tmp_path) == {}
    one, other = Counted(2.0, 1.0, {"GPU-1": {"Link 0: Replay Errors": 3}}), Counted(4.0, 1.0, {"GPU-2": {}})
    keep_counters(tmp_path, {}, {"te2": one, "te3": other})
    keep_counters(tmp_path, read_counters(tmp_path), {"te2": Counted(5.0, 1.0, {"GPU-1": {}}), "te3": Counted()})
    assert read_counters(tmp_path) == {"te2": Counted(5.0, 1.0, {"GPU-1": {}}), "te3": other}
    odd = ('{"te2": {"at": "x", "booted": 0, "of": {}}}', '{"te2": {"at": 1, "booted": 1, "of": []}}')
    for text in ("", "[]", "{", '{"te2": {}}', *odd):
        (tmp_path / FILE).write_text(text, encoding="utf-8")
        assert read_counters(tmp_path) == {}
