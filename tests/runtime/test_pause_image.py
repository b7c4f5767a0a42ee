"""The pause image: kubeadm is asked as soon as it can be, and the table for the time before agrees with its answers."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from lab.simulated.options import Options
from shipway.edits.containerd import CONFIG, UnreadableError, parse_config, sandbox_of, with_sandbox
from shipway.edits.toml import NotEditableError
from shipway.errors import Blocked, Permanent
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.kubeadm import config as kubeadm
from shipway.kubeadm.config import PAUSE
from shipway.rules.compatibility import NEWEST_KUBERNETES, OLDEST_KUBERNETES
from shipway.script import Output
from shipway.step import Impact
from shipway.steps.runtime.pause_image import DUMP, SandboxImageAgrees, pause_image, wanted_images
from tests.places.facts import KnownFacts, said
from tests.places.simulated import failed, outcomes, simulated_place

# What real kubeadm answered to `config images list`, a file a version.
RECORDED = sorted((Path(__file__).parents[1] / "recorded" / "kubeadm-images").glob("*.txt"))
IMAGES = wanted_images("1.36.2", "registry.k8s.io")


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_table_agrees_with_what_kubeadm_answered(path: Path) -> None:
    minor = int(path.stem.split(".")[1])
    named = pause_image(said(path.read_text(encoding="utf-8")))
    assert named is not None
    assert named.rpartition(":")[2] == PAUSE[minor]


def test_answers_are_recorded_and_every_minor_has_a_row() -> None:
    assert {path.stem for path in RECORDED} >= {"1.20.2", "1.36.2"}
    assert set(PAUSE) == set(range(OLDEST_KUBERNETES[1], NEWEST_KUBERNETES[1] + 1))


@pytest.mark.parametrize(
    ("listed", "image"),
    [
        (said("k/kube-proxy:v1.36.2\nk/pause:3.10.2\nk/etcd:3.6.8-0\n"), "k/pause:3.10.2"),
        (said("registry.example:5000/a/b/pause:3.10.2\n"), "registry.example:5000/a/b/pause:3.10.2"),
        (said("pause:3.2\n"), "pause:3.2"),
        (said("registry.example/pause:5/kube-proxy:v1.36.2\nregistry.example/pause-more:1\n"), None),
        (Output(0, "", "W1128 could not fetch a version: k/pause:3.9\n"), None),
        (Output(1, "k/pause:3.9\n", "error: no"), None),
        (Output(127, "", "timeout: failed to run command 'kubeadm'"), None),
    ],
)
def test_the_pause_image_is_read_from_kubeadms_own_list(listed: Output, image: str | None) -> None:
    assert pause_image(listed) == image


V2 = """# written by the site
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "k/pause:3.9" # ours
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
    runtime_type = "io.containerd.kata.v2"
"""
V3 = """version = 3
root = '/data/containerd'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'k/pause:3.9'
"""


@pytest.mark.parametrize("text", [V2, V3, V3.replace("version = 3", "version = 4")])
def test_one_line_is_changed_and_the_rest_stays_byte_for_byte(text: str) -> None:
    changed = with_sandbox(text, "m:5000/pause:3.10.2")
    assert sandbox_of(changed) == "m:5000/pause:3.10.2"
    before, after = text.splitlines(), changed.splitlines()
    assert [one for one, two in zip(before, after, strict=True) if one != two] == [
        line for line in before if "pause:3.9" in line
    ]


@pytest.mark.parametrize(
    "text",
    [
        "version = 3\nroot = '/data'\n",
        "version = 2\n[plugins.'a.b']\nsandbox_image = 'no/cri'\n",
        "version = 2\nplugins = {'io.containerd.grpc.v1.cri' = {sandbox_image = 'k/pause:1'}}\n",
    ],
)
def test_where_no_line_can_be_replaced_all_values_are_kept(text: str) -> None:
    before, after = parse_config(text), parse_config(with_sandbox(text, "k/pause:2"))
    assert sandbox_of(with_sandbox(text, "k/pause:2")) == "k/pause:2"
    assert {key: value for key, value in after.items() if key != "plugins"} == {
        key: value for key, value in before.items() if key != "plugins"
    }
    assert before.get("plugins", {}).get("a.b") == after["plugins"].get("a.b")


@pytest.mark.parametrize("text", ["version = 1\n", "not toml", "version = 2\nplugins = 1\n"])
def test_what_is_no_configuration_of_a_known_layout_is_not_edited(text: str) -> None:
    with pytest.raises((UnreadableError, NotEditableError)):
        with_sandbox(text, "k/pause:2")


async def test_the_step_waits_for_both_programs_and_refuses_an_answer_without_a_pause_image() -> None:
    step = SandboxImageAgrees(IMAGES)
    with pytest.raises(Blocked, match="kubeadm is not installed"):
        await step.check(cast("Host", KnownFacts({DUMP: said(V3)})))
    listed = said("registry.k8s.io/pause:3.10.2\n")
    with pytest.raises(Blocked, match="containerd"):
        await step.check(cast("Host", KnownFacts({IMAGES: listed})))
    with pytest.raises(Permanent, match="does not name a pause image") as refused:
        await step.check(cast("Host", KnownFacts({IMAGES: Output(1, "", "unknown flag"), DUMP: said(V3)})))
    assert refused.value.code == "SHW-462"
    host = KnownFacts({IMAGES: listed, DUMP: said(V3), FileText(CONFIG): V3})
    drift = await step.check(cast("Host", host))
    assert drift is not None
    await step.apply(cast("Host", host))
    assert host.written == {CONFIG: V3.replace("'k/pause:3.9'", '"registry.k8s.io/pause:3.10.2"')}
    host.facts[DUMP] = said(host.written[CONFIG])
    assert await step.check(cast("Host", host)) is None


@pytest.mark.parametrize("minor", [31, 36])
async def test_a_bare_host_passes_whatever_our_table_says_and_a_second_run_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minor: int
) -> None:
    """The table was wrong for 1.36, and no host could pass; the simulated kubeadm had the same wrong table."""
    monkeypatch.setattr(kubeadm, "PAUSE", dict.fromkeys(PAUSE, "0.0.1"))
    profile = {31: "seed", 36: "current"}[minor]
    async with simulated_place(tmp_path, Options(hosts=1, scale=0.0, profile=profile)) as place:
        plan = await place.prepare("te1", allow=Impact.NOTHING)
        assert "failed" not in outcomes(plan)
        assert failed(await place.prepare("te1")) == []
        image = sandbox_of(place.machine("te1").files.text(CONFIG))
        assert image.startswith("registry.k8s.io/pause:3.10")
        assert "nvidia" in place.machine("te1").files.text(CONFIG), "the runtime of the stage before stays"
        assert outcomes(await place.prepare("te1")) == {"ok"}
        assert failed(await place.init()) == []
