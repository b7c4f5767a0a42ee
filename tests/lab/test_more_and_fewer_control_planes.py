"""A cluster of one control plane grows to three beside a pod that holds a GPU, loses one for good, and shrinks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab.containers.cluster_file import content
from tests.lab.conftest import STATE, Ran, Site
from tests.lab.several_planes import (
    MOST_SECONDS,
    NAME,
    PLANES,
    WORKERS,
    asked,
    changes,
    command,
    five,
    hold,
    holds,
    members,
    nodes,
)
from tests.lab.test_retire import CLEAN

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
CLEAN_OF_CONTROL_PLANE = {
    "ports of a control plane": "ss -ltnH | awk '{print $4}' | grep -E ':(6443|2379|2380|2381|10257|10259)$'",
    "its processes": "ps -eo args= | grep -E '[k]ube-(apiserver|controller|scheduler)|[e]tcd --'",
    "its data": "ls -A /var/lib/etcd",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Five bare hosts in a lab of their own; the cluster file names one control plane at first."""
    with five(tmp_path_factory.mktemp("growing"), 2) as made:
        declare(made, "cp1")
        yield made


@pytest.fixture(scope="module")
def made(site: Site) -> Ran:
    """The first run."""
    return site.run(seconds=600)


@pytest.fixture(scope="module")
def holder(site: Site, made: Ran) -> str:
    """The pod that holds a GPU."""
    assert made.code == 0, made.output
    return hold(site, "cp1")


def declare(site: Site, *planes: str) -> None:
    """Write the cluster file with these control planes, and the workers."""
    rows = content(site.lab.plan, site.lab.state)["hosts"]
    site.cluster_file(hosts=[row for row in rows if row["name"] in (*planes, *WORKERS)])


def test_one_becomes_three_beside_a_pod_that_holds_a_gpu(site: Site, made: Ran, holder: str) -> None:
    assert made.code == 0
    declare(site, *PLANES)
    grown = site.run(seconds=900)
    print(f"1 -> 3 in {grown.seconds:.0f} s")
    assert grown.report["outcome"] == "drifted", grown.output  # beside the pod haproxy is not installed, and told of
    assert grown.report["errors"] == []
    withheld = [
        (stage["host"], row["step"])
        for stage in grown.report["stages"]
        for row in stage["rows"]
        if row["outcome"] == "drifted"
    ]
    assert withheld == [("w1", "haproxy is installed")]
    assert nodes(site, "cp3") == dict.fromkeys((*PLANES, *WORKERS), True)
    assert sorted(one["name"] for one in members(site, "cp2")) == list(PLANES)
    for host, addresses in (("w1", [f"172.30.2.{number}" for number in (11, 12, 13)]), ("w2", ["127.0.0.1"])):
        assert site.on(host, f"getent ahostsv4 {NAME} | cut -d' ' -f1 | sort -u").split() == addresses
    again = site.run()
    assert changes(again) == []
    assert holds(site, "cp2") == holder


def test_a_healthy_control_plane_is_not_removed_unasked_and_a_plan_names_all_that_would_be_done(
    site: Site, made: Ran
) -> None:
    assert made.code == 0
    refused = command(site, "remove", "cp3", "--plan")
    assert [error["code"] for error in refused.report["errors"]] == ["SHW-707"], refused.output
    before = site.on("cp3", STATE), members(site, "cp1"), nodes(site, "cp1")
    plan = command(site, "remove", "cp3", "--plan", "--to-replace")
    assert plan.report["outcome"] == "planned", plan.output
    would = {row["step"] for stage in plan.report["stages"] for row in stage["rows"] if row["outcome"] == "drifted"}
    assert {"cp3 is no member of etcd", "node cp3 is not in the cluster", "nothing of kubeadm's is left"} <= would
    assert (site.on("cp3", STATE), members(site, "cp1"), nodes(site, "cp1")) == before


def test_a_control_plane_whose_machine_is_gone_is_removed_and_another_one_takes_its_name(
    site: Site, made: Ran, holder: str
) -> None:
    assert made.code == 0
    site.lab.engine().docker("kill", "cp1")
    deadline = time.monotonic() + 120
    while nodes(site, "cp2")["cp1"]:
        assert time.monotonic() < deadline, "the cluster does not take cp1 for lost"
        time.sleep(2)
    alive = command(site, "remove", "cp2", "--to-replace", "--plan")
    assert [error["code"] for error in alive.report["errors"]] == ["SHW-707"], alive.output
    gone = command(site, "remove", "cp1", "--dead")
    assert gone.report["outcome"] == "ok", gone.output
    assert sorted(one["name"] for one in members(site, "cp2")) == ["cp2", "cp3"]
    assert "cp1" not in nodes(site, "cp2")
    site.lab.fresh("cp1")
    back = site.run(seconds=600)
    assert back.report["errors"] == [], back.output
    assert sorted(one["name"] for one in members(site, "cp1")) == list(PLANES)
    assert holds(site, "cp1") == holder


def test_three_become_one_and_a_client_on_a_worker_hardly_sees_it(site: Site, made: Ran, holder: str) -> None:
    assert made.code == 0
    declare(site, "cp1")
    for leaving, left in (("cp3", ["cp1", "cp2"]), ("cp2", ["cp1"])):
        ran: list[Ran] = []
        gap, answers = asked(site, lambda host=leaving, ran=ran: ran.append(command(site, "remove", host)))
        print(f"{leaving} removed in {ran[0].seconds:.0f} s")
        assert ran[0].report["outcome"] == "ok", ran[0].output
        assert answers > 20
        assert gap < MOST_SECONDS
        assert sorted(one["name"] for one in members(site, "cp1")) == left
        assert sorted(nodes(site, "cp1")) == [*left, *WORKERS]
        looks = {**CLEAN, **CLEAN_OF_CONTROL_PLANE}
        seen = {
            what: site.on(leaving, f"{{ {script}; }} 2>/dev/null || true").strip() for what, script in looks.items()
        }
        assert {what: said for what, said in seen.items() if said} == {}
    for host in WORKERS:
        assert site.on(host, f"getent ahostsv4 {NAME} | cut -d' ' -f1 | sort -u").split() == ["172.30.2.11"]
        assert site.holds(host, "[ ! -e /etc/systemd/system/shipway-api-proxy.service ]")
    assert site.run().report["outcome"] == "ok"
    again = site.run()
    assert again.code == 0, again.output
    assert changes(again) == []
    assert holds(site, "cp1") == holder
