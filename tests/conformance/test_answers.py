"""Every lab gives the recorded real answers: the simulated one here, the containers where they can run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from lab.containers.lab import Lab
from lab.containers.model import plan
from lab.simulated.lab import SimulatedLab
from lab.simulated.options import Options
from tests.conformance.befall import on_containers, on_simulated
from tests.conformance.case import API, Answer
from tests.conformance.places import Place
from tests.conformance.play import load, play
from tests.conformance.programs import PARTLY, recorded
from tests.conformance.releases import OLD, RELEASES, Release
from tests.simulated.test_kube_support import kubectl_path

RECORDED = {release: load(release) for release in RELEASES.values()}
SIMULATED = [
    # The story of a release is reported once, so by one worker.
    pytest.param(release, one.name, id=f"{release.version}: {one.name}", marks=pytest.mark.xdist_group(release.version))
    for release in RELEASES.values()
    for one in release.cases()
]
NAMES = [one.name for one in OLD.cases()]
LAB_NUMBER = 9  # beside a lab that a person may have up


async def _simulated(folder: Path, release: Release) -> dict[str, Answer]:
    options = Options(
        names=("cp1", "w1", "w2"),
        gpus=2,
        control_plane_gpus=0,
        profile=release.profile,
        system="debian-12",
        scale=0.005,
        swap=False,
        cluster=dict(release.cluster),
    )
    async with SimulatedLab(folder, options) as lab:
        lab.drift("*", "image-missing", {"image": "/nosuch/"})
        lab.drift("*", "cgroup", {"version": str(release.cgroup)})
        place = Place(lab.cluster_file, folder, on_simulated(lab), release.values())
        try:
            return await play(place, release, slow=True)
        finally:
            await place.close()


@cache
def _played(release: Release, folder: Path) -> dict[str, Answer]:
    """Play the story of a release once on the simulated lab."""
    return asyncio.run(_simulated(folder, release))


@pytest.fixture
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Release], dict[str, Answer]]:
    """Return what plays the story of a release on the simulated lab, once."""
    kubectl_path()
    base = tmp_path_factory.getbasetemp()

    def play_once(release: Release) -> dict[str, Answer]:
        folder = base / f"simulated-{release.version}"
        folder.mkdir(exist_ok=True)
        return _played(release, folder)

    return play_once


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Answer]]:
    """Play the scenes once on a container lab of its own."""
    state = tmp_path_factory.mktemp("containers")
    lab = Lab(state)
    lab.up(plan("cp1,w1,w2", number=LAB_NUMBER))

    async def run() -> dict[str, Answer]:
        place = Place(state / "cluster.yaml", state, on_containers(lab), OLD.values())
        try:
            return await play(place, OLD, slow=False)
        finally:
            await place.close()

    try:
        yield asyncio.run(run())
    finally:
        lab.down()


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_every_case_is_recorded_and_every_recording_is_a_case(release: Release) -> None:
    names = [one.name for one in release.cases()]
    assert sorted(RECORDED[release]) == sorted(set(names))
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("release", "name"), SIMULATED)
def test_the_simulated_lab_answers_as_the_real_one(
    release: Release, name: str, simulated: Callable[[Release], dict[str, Answer]]
) -> None:
    assert simulated(release)[name] == RECORDED[release][name]


@pytest.mark.lab
@pytest.mark.parametrize("name", [one.name for one in OLD.cases(slow=False)])
def test_the_container_lab_answers_as_recorded(name: str, containers: dict[str, Answer]) -> None:
    assert containers[name] == RECORDED[OLD][name]


def test_a_changed_answer_is_seen() -> None:
    """The comparison is not blind: texts, statuses and outputs that differ are different answers."""
    some: Callable[..., Answer] = Answer
    assert some(0, "a", "") != some(0, "b", "")
    assert some(0, "a", "") != some(1, "a", "")
    assert all(
        answer.stdout or answer.stderr or answer.status is not None
        for recorded in RECORDED.values()
        for answer in recorded.values()
    )


def test_what_is_said_to_be_recorded_in_part_is_recorded() -> None:
    assert (
        sorted({name for name in PARTLY if not any(one.split(" ")[0] == name or one == name for one in recorded())})
        == []
    )


def test_cases_of_the_api_are_there() -> None:
    assert sum(one.host == API for one in OLD.cases()) > 20
