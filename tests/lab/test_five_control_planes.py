"""Five control planes and a worker: made in one run, two lost at once and replaced, and five become three."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.containers.cluster_file import content
from tests.lab.conftest import Ran, Site
from tests.lab.several_planes import (
    MOST_SECONDS,
    asked,
    bare_hosts,
    changes,
    command,
    drift,
    hold,
    holds,
    members,
    nodes,
)

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
PLANES = ("cp1", "cp2", "cp3", "cp4", "cp5")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Six bare hosts in a lab of their own."""
    with bare_hosts(tmp_path_factory.mktemp("five"), 6, (*PLANES, "w1")) as made:
        yield made


@pytest.fixture(scope="module")
def made(site: Site) -> Ran:
    """The first run."""
    ran = site.run(seconds=1500)
    print(f"five control planes, a worker, {ran.report['gpus']['verified']} GPUs proven: {ran.seconds:.0f} s")
    return ran


@pytest.fixture(scope="module")
def holder(site: Site, made: Ran) -> str:
    """The pod that holds a GPU."""
    assert made.code == 0, made.output
    return hold(site, "cp3")


def test_five_are_made_in_one_run_and_a_second_one_changes_nothing(site: Site, made: Ran) -> None:
    assert made.code == 0, made.output
    assert nodes(site, "cp5") == dict.fromkeys((*PLANES, "w1"), True)
    found = members(site, "cp3")
    assert sorted(one["name"] for one in found) == list(PLANES)
    assert not any(one.get("isLearner") for one in found)
    again = site.run()
    assert again.code == 0, again.output
    assert changes(again) == []


def test_two_that_are_lost_at_once_cost_seconds_and_the_other_three_are_kept_together(
    site: Site, made: Ran, holder: str
) -> None:
    assert made.code == 0
    docker = site.lab.engine().docker
    gap, answers = asked(site, lambda: [docker("kill", host) for host in ("cp1", "cp2")])
    assert answers > 20
    assert gap < MOST_SECONDS
    assert sorted(error["host"] for error in drift(site)["errors"]) == ["cp1", "cp2"]
    refused = command(site, "remove", "cp4", "--to-replace", "--plan")
    assert "SHW-707" in [error["code"] for error in refused.report["errors"]], refused.output
    assert holds(site, "cp3") == holder


def test_the_two_are_replaced_by_bare_machines_in_one_run_without_a_snapshot(
    site: Site, made: Ran, holder: str
) -> None:
    assert made.code == 0
    for host in ("cp1", "cp2"):
        site.lab.fresh(host)
    back = site.run(seconds=1500)
    print(f"two of five replaced in {back.seconds:.0f} s")
    assert back.code == 0, back.output
    assert sorted(one["name"] for one in members(site, "cp1")) == list(PLANES)
    assert nodes(site, "cp2") == dict.fromkeys((*PLANES, "w1"), True)
    assert holds(site, "cp3") == holder


def test_five_become_three_and_a_client_on_a_worker_hardly_sees_it(site: Site, made: Ran, holder: str) -> None:
    assert made.code == 0
    rows = content(site.lab.plan, site.lab.state)["hosts"]
    site.cluster_file(hosts=[row for row in rows if row["name"] in (*PLANES[2:], "w1")])
    for leaving, left in (("cp1", list(PLANES[1:])), ("cp2", list(PLANES[2:]))):
        ran: list[Ran] = []

        def leave(host: str = leaving, ran: list[Ran] = ran) -> None:
            ran.append(command(site, "remove", host))

        gap, answers = asked(site, leave)
        assert ran[0].report["outcome"] == "ok", ran[0].output
        assert answers > 20
        assert gap < MOST_SECONDS
        assert sorted(one["name"] for one in members(site, "cp4")) == left
    assert nodes(site, "cp4") == dict.fromkeys((*PLANES[2:], "w1"), True)
    assert site.run().report["errors"] == []
    again = site.run()
    assert changes(again) == []
    assert holds(site, "cp4") == holder
