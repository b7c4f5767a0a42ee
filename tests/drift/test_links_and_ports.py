"""Passes of the flow over the counters of NVLink and the network, on the SIMULATED lab: only their growth is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from shipway.gpu.health.growth import Counted
from shipway.gpu.health.ports import Port
from shipway.survey.first_look import Survey
from shipway.survey.gpu_health import HealthLook
from tasks.context import Run
from tasks.drift.counters import FILE, keep_counters, read_counters
from tasks.drift.look import PORTS, judge_all_ports
from tests.drift.scene import Scene
from tests.places.kube import cluster_of

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


def test_what_a_host_says_of_its_ports_steers_no_terminal_and_tells_no_secret(tmp_path: Path) -> None:
    run = Run(cluster_of(["te1"], state_dir=str(tmp_path)), "drift")
    hostile = Port("mlx5_0/1", adapter="\x1b[2J token: abcdef.0123456789abcdef", state="DOWN", layer="\u202e")
    run.seen.surveys["te1"] = Survey("te1", True, 1, 1, "", True, "te1", "te1", 0.0)  # noqa: FBT003
    run.drift.health["te1"] = HealthLook(
        ports={"mlx5_0/1": hostile}, counted=Counted(2.0, 1.0, {"port mlx5_0/1": {"link_downed": 1}})
    )
    run.drift.counted["te1"] = Counted(1.0, 1.0, {"port mlx5_0/1": {}})
    (found,) = judge_all_ports(run)
    assert "went down" in found.have
    assert not {"\x1b", "\u202e"} & set(found.have)
    assert "0123456789abcdef" not in found.have


def test_a_record_that_could_not_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        keep_counters(tmp_path, {}, {"te2": Counted(2.0, 1.0, {"GPU-2": {}})})
    assert list(tmp_path.iterdir()) == []


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
