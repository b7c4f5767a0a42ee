"""Machines take the places of others: a worker's beside a pod that holds a GPU elsewhere, a living control plane's."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab.containers.cluster_file import content
from tests.lab.conftest import STATE, Ran, Site
from tests.lab.several_planes import (
    ADMIN,
    MOST_SECONDS,
    PLANES,
    WORKERS,
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
from tests.lab.test_more_and_fewer_control_planes import CLEAN_OF_CONTROL_PLANE
from tests.lab.test_retire import CLEAN
from tests.lab.test_verbs_killed import killed_on_the_way

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
SPARE, SPARE_PLANE = "x1", "cp4"  # machines that no file names at first
WHOLE = dict.fromkeys((*PLANES, *WORKERS), True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Seven bare machines in a lab of their own; the cluster file names five hosts."""
    with bare_hosts(tmp_path_factory.mktemp("replacing"), 9, (*PLANES, *WORKERS, SPARE, SPARE_PLANE)) as made:
        declare(made)
        yield made


@pytest.fixture(scope="module")
def holder(site: Site) -> str:
    """The cluster is made, and a pod holds a GPU of w1: which container it is."""
    made = site.run(seconds=1200)
    assert made.code == 0, made.output
    return hold(site, "cp1")


def declare(site: Site, **at: str) -> None:
    """Write the cluster file; some hosts have the machine of another name."""
    rows = content(site.lab.plan, site.lab.state)["hosts"]
    places = {row["name"]: row["address"] for row in rows}
    site.cluster_file(
        hosts=[
            {**row, "address": places[at.get(row["name"], row["name"])]}
            for row in rows
            if row["name"] in (*PLANES, *WORKERS)
        ]
    )


def address(site: Site, node: str) -> str:
    """Return a node's address."""
    said = '{.status.addresses[?(@.type=="InternalIP")].address}'
    return site.on("cp1", f"kubectl --kubeconfig {ADMIN} get node {node} -o jsonpath='{said}'").strip()


def left(site: Site, machine: str, **more: str) -> dict[str, str]:
    """Return what a look that is not Shipway's finds of Kubernetes on a machine."""
    looks = {**CLEAN, **more}
    seen = {what: site.on(machine, f"{{ {script}; }} 2>/dev/null || true").strip() for what, script in looks.items()}
    return {what: said for what, said in seen.items() if said}


def is_whole(site: Site, holder: str, asks: str = "cp1") -> None:
    """Look at the cluster: every node Ready, nothing to change, no drift, the pod in the same container."""
    assert nodes(site, asks) == WHOLE
    again = site.run(seconds=600)
    assert changes(again) == [], again.output
    found = drift(site)
    assert (found["findings"], found["errors"]) == ([], [])
    assert holds(site, asks) == holder


def test_a_plan_names_both_halves_and_changes_nothing(site: Site, holder: str) -> None:
    declare(site, w2=SPARE)
    before = site.on("w2", STATE), site.on(SPARE, STATE), nodes(site, "cp1")
    plan = command(site, "replace", "w2", "--plan")
    assert plan.report["outcome"] == "planned", plan.output
    would = {row["step"] for stage in plan.report["stages"] for row in stage["rows"] if row["outcome"] == "drifted"}
    assert {
        "kubelet, kubeadm and kubectl are installed",
        "node w2 takes no new pods",
        "node w2 is not in the cluster",
        "nothing of kubeadm's is left",
    } <= would
    assert (site.on("w2", STATE), site.on(SPARE, STATE), nodes(site, "cp1")) == before
    assert holds(site, "cp1") == holder


def test_a_machine_of_the_cluster_takes_no_others_place(site: Site, holder: str) -> None:
    rows = content(site.lab.plan, site.lab.state)["hosts"]
    places = {row["name"]: row["address"] for row in rows}
    named = [row for row in rows if row["name"] in (*PLANES, "w2")]
    site.cluster_file(hosts=[{**row, "address": places["w1" if row["name"] == "w2" else row["name"]]} for row in named])
    refused = command(site, "replace", "w2")
    assert (refused.code, changes(refused)) == (1, [])
    assert {"SHW-321", "SHW-718"} <= {error["code"] for error in refused.report["errors"]}
    assert nodes(site, "cp1") == WHOLE
    assert holds(site, "cp1") == holder


def test_a_living_worker_is_replaced_beside_a_pod_that_holds_a_gpu_elsewhere(site: Site, holder: str) -> None:
    declare(site, w2=SPARE)
    ran = command(site, "replace", "w2")
    print(f"a worker replaced in {ran.seconds:.0f} s")
    assert ran.code == 0, ran.output
    assert ran.report["gpus"]["verified"] >= 2, "those of the machine that came, and free ones of others"
    assert address(site, "w2") == site.lab.plan.host(SPARE).address
    assert left(site, "w2") == {}
    for host in (*PLANES, "w1"):
        assert site.on(host, "getent ahostsv4 w2 | cut -d' ' -f1 | sort -u").split() == [address(site, "w2")]
    again = command(site, "replace", "w2")
    assert (again.code, changes(again)) == (0, []), again.output
    is_whole(site, holder)


def test_the_same_machine_is_made_anew(site: Site, holder: str) -> None:
    ran = command(site, "replace", "w2", "--remake")
    print(f"a worker made anew in {ran.seconds:.0f} s")
    assert ran.code == 0, ran.output
    assert {"nothing of kubeadm's is left", "the node has joined"} <= {
        row["step"] for stage in ran.report["stages"] for row in stage["rows"] if row["outcome"] == "changed"
    }
    is_whole(site, holder)


def test_a_living_control_plane_of_three_is_replaced_and_a_client_hardly_sees_it(site: Site, holder: str) -> None:
    declare(site, w2=SPARE, cp2=SPARE_PLANE)
    ran: list[Ran] = []
    gap, answers = asked(site, lambda: ran.append(command(site, "replace", "cp2")))
    print(f"a control plane replaced in {ran[0].seconds:.0f} s")
    assert ran[0].code == 0, ran[0].output
    assert answers > 20
    assert gap < MOST_SECONDS
    assert sorted(one["name"] for one in members(site, "cp1")) == list(PLANES)
    assert address(site, "cp2") == site.lab.plan.host(SPARE_PLANE).address
    assert left(site, "cp2", **CLEAN_OF_CONTROL_PLANE) == {}
    assert address(site, "cp2") in site.on("w1", "cat /var/lib/shipway/api-proxy/haproxy.cfg")
    is_whole(site, holder)


def test_a_machine_that_was_installed_anew_behind_its_address_needs_a_persons_word(site: Site, holder: str) -> None:
    site.lab.fresh(SPARE)
    deadline = time.monotonic() + 120
    while nodes(site, "cp1")["w2"]:
        assert time.monotonic() < deadline, "the cluster does not take w2 for lost"
        time.sleep(2)
    refused = command(site, "replace", "w2")
    assert {"SHW-719", "SHW-710"} <= {error["code"] for error in refused.report["errors"]}, refused.output
    assert (refused.code, changes(refused)) == (1, [])
    ran = command(site, "replace", "w2", "--dead")
    assert ran.code == 0, ran.output
    is_whole(site, holder)


def test_a_run_that_is_killed_at_every_stage_goes_on_and_leaves_no_machine_behind(site: Site, holder: str) -> None:
    declare(site, cp2=SPARE_PLANE)  # w2's own machine again, which is clean
    killed_on_the_way(site, "replace", "w2")
    assert address(site, "w2") == site.lab.plan.host("w2").address
    assert left(site, SPARE) == {}
    is_whole(site, holder)
