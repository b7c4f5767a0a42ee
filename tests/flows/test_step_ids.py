"""What a step is about has a name that outlives its wording: two facts never share one, and no version is in it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, cast

import pytest

from shipway.cluster.profiles import profile_names
from shipway.cluster_file import parse_cluster
from shipway.step import StepResult, id_of
from tasks.context import Run
from tasks.drift.parts import cluster_parts, host_parts
from tasks.findings import find
from tests.places.kube import cluster_of

HOSTS = [
    {"name": "te1", "address": "10.9.0.11", "gpus": 0},
    {"name": "te2", "address": "10.9.0.12", "gpus": 2},
]


def steps_of(run: Run) -> list[tuple[str, str, object]]:
    """Return host, sentence and step of everything that a drift pass looks at."""
    run.session = cast("Any", lambda name: name)  # type: ignore[method-assign]
    parts: list[Any] = [part for host in run.cluster.hosts for part in host_parts(run, host)]
    return [(part.host, step.name, step) for part in (*parts, *cluster_parts(run)) for step in part.steps]


@pytest.mark.parametrize("profile", [name for name in profile_names() if name != "lab"])
def test_two_facts_of_a_host_never_share_an_id(profile: str) -> None:
    text = f"name: te\nprofile: {profile}\nhosts:\n" + "".join(
        f"- {{name: {host['name']}, address: {host['address']}, gpus: {host['gpus']}}}\n" for host in HOSTS
    )
    sentences = defaultdict[tuple[str, str], set[str]](set)
    for host, sentence, step in steps_of(Run(parse_cluster(text), "drift")):
        sentences[host, id_of(step)].add(sentence)
    assert len(sentences) > 60
    assert {key: said for key, said in sentences.items() if len(said) > 1} == {}


def test_a_version_that_changes_changes_no_id() -> None:
    def ids(containerd: str) -> list[str]:
        cluster = cluster_of(("te1", "te2"), hosts=HOSTS, runtime={"version": containerd})
        return [id_of(step) for _, _, step in steps_of(Run(cluster, "drift"))]

    assert ids("1.7.27") == ids("1.7.28")


def test_a_sentence_that_is_reworded_is_the_same_finding() -> None:
    before, after = (
        find("te1", "prepare_system", StepResult(name, "drifted", id="SwapOff")) for name in ("swap is off", "no swap")
    )
    assert before
    assert after
    assert before.key == after.key == ("te1", "SwapOff")
