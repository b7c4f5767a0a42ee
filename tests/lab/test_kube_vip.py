"""The address for clients outside by a real kube-vip: who has the Lease holds it, it moves, and no trace of it stays.

Its image is none of the lab's: SHIPWAY_LAB_KUBE_VIP names one that somebody has put into the mirror's registry.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from shipway.steps.vip.keepalived import OWN
from shipway.steps.vip.kube_vip import FOLDER, MANIFEST, POD
from tests.lab.conftest import Ran, Site
from tests.lab.outside_address import (
    declare,
    held_by,
    lose_its_holders_host,
    remove_a_member,
    told_of,
    trusted,
    wait_held_by,
)
from tests.lab.several_planes import ADMIN, PLANES, asked, changes, command, five, wait_ready

IMAGE = os.environ.get("SHIPWAY_LAB_KUBE_VIP", "")
WHY = "SHIPWAY_LAB_KUBE_VIP names no image of kube-vip that the lab's mirror has"
pytestmark = [pytest.mark.lab, pytest.mark.lab_long, pytest.mark.skipif(not IMAGE, reason=WHY)]
VIP, NEW = "172.30.12.200", "172.30.12.201"
holders, wait_held = partial(held_by, VIP), partial(wait_held_by, VIP)
by_kube_vip = partial(declare, by="kube-vip", image=IMAGE)
told_of_it = partial(told_of, (VIP, "kube-vip"))
# The Lease (5 s), a try a second, a client's second, a loaded machine.
MOST_SECONDS = 12.0
API_SERVER = "/etc/kubernetes/manifests/kube-apiserver.yaml"
RUNS, KILL = "pgrep -x kube-vip >/dev/null", "pkill -KILL -x kube-vip"
LEASE = f"kubectl --kubeconfig {ADMIN} -n kube-system get lease {POD} -o jsonpath='{{.spec.holderIdentity}}'"
NOTHING = f"[ ! -e {MANIFEST} ] && [ ! -e {FOLDER} ] && ! {RUNS} && ! ip -o -4 addr show | grep -q ' {VIP}/'"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three control planes and a worker, bare, in a lab of their own."""
    with five(tmp_path_factory.mktemp("kube-vip"), 12, ("w1",)) as made:
        by_kube_vip(made, address=VIP)
        yield made


@pytest.fixture(scope="module")
def made(site: Site) -> Ran:
    """The first run."""
    return site.run(seconds=1200)


def watched(site: Site, what: Callable[[], object], seconds: float = 10) -> tuple[float, int, list[list[str]]]:
    """Return the longest time without an answer, the answers, and who held the address while something was done."""
    looks = list[list[str]]()

    def watch() -> None:
        what()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            looks.append(holders(site))

    return *asked(site, watch, VIP), looks


def test_the_one_with_the_lease_holds_it_and_a_client_trusts_it(site: Site, made: Ran) -> None:
    assert made.code == 0, made.output
    holder = wait_held(site)
    assert site.on("cp1", LEASE) == holder
    for host in (*PLANES, "w1"):
        assert site.on(host, trusted(VIP)) == "200"
    kept = (site.folder / "controller" / "lab" / "kubeconfig").read_text()
    assert f"server: https://{VIP}:6443" in kept
    for host in PLANES:
        assert site.holds(host, f"{RUNS} && [ -e {MANIFEST} ] && [ ! -e {OWN.path} ]")
        assert site.holds(host, "[ -z \"$(ss -ltnH 'sport = :2112' | grep -v 127.0.0.1)\" ]")
    assert told_of_it(site) == []
    assert changes(site.run()) == []


def test_it_moves_when_its_holders_api_server_stops(site: Site, made: Ran) -> None:
    assert made.code == 0
    holder = wait_held(site)
    others = [name for name in PLANES if name != holder]
    gap, answers, looks = watched(site, lambda: site.on(holder, f"mv {API_SERVER} /root/"), 40)
    print(f"an API server stopped: longest gap {gap:.1f} s; {looks}")
    assert (answers > 20, gap < MOST_SECONDS) == (True, True)
    assert max(map(len, looks)) == 1
    assert wait_held(site) in others
    site.on(holder, f"mv /root/kube-apiserver.yaml {API_SERVER}")
    wait_ready(site, holder)
    now = wait_held(site)
    assert site.on(now, LEASE) == now
    assert told_of_it(site) == []


def test_one_that_is_killed_alone_is_started_anew_and_clients_go_on(site: Site, made: Ran) -> None:
    assert made.code == 0
    holder = wait_held(site)
    gap, answers, looks = watched(site, lambda: site.on(holder, KILL), 30)
    print(f"kube-vip killed: longest gap {gap:.1f} s; {looks}")
    assert (answers > 20, gap < MOST_SECONDS) == (True, True)
    now = wait_held(site)
    assert site.on(now, LEASE) == now
    for host in PLANES:
        site.on(host, f"for i in $(seq 60); do {RUNS} && exit 0; sleep 1; done; exit 1")


def test_where_nothing_starts_it_anew_another_one_takes_over_and_the_address_left_behind_goes_with_the_kubelet(
    site: Site, made: Ran
) -> None:
    assert made.code == 0
    holder = wait_held(site)
    gap, answers, looks = watched(site, lambda: site.on(holder, f"systemctl stop kubelet; {KILL}"), 15)
    print(f"the kubelet stopped and kube-vip killed: longest gap {gap:.1f} s; {looks}")
    assert (answers > 20, gap < MOST_SECONDS) == (True, True)
    now = site.on(holder, LEASE)
    assert now != holder
    assert sorted(looks[-1]) == sorted([holder, now])  # who was killed could not let go
    assert any("is held by" in line for line in told_of_it(site))
    site.on(holder, "systemctl start kubelet")
    wait_ready(site, now)
    assert wait_held(site, *PLANES) == now
    assert told_of_it(site) == []


def test_it_moves_when_its_holders_host_is_gone_and_a_drift_pass_finds_it_held(site: Site, made: Ran) -> None:
    assert made.code == 0
    lose_its_holders_host(site, VIP, MOST_SECONDS)
    assert told_of_it(site) == []


def test_a_manifest_that_somebody_took_away_everywhere_is_told_of_and_put_back(site: Site, made: Ran) -> None:
    assert made.code == 0
    for host in PLANES:
        site.on(host, f"rm {MANIFEST}; for i in $(seq 60); do {RUNS} || exit 0; sleep 1; done; exit 1")
    told = told_of_it(site)
    assert f"cluster: one control plane holds the API's address for clients outside: {VIP} is held by none" in told
    assert sum("static pod" in line for line in told) == len(PLANES)
    command(site, "drift_repair", "--repair", "service")
    assert wait_held(site)
    assert told_of_it(site) == []


def test_from_one_way_to_the_other_goes_without_the_address_in_between(site: Site, made: Ran) -> None:
    assert made.code == 0
    declare(site, address=VIP)
    refused = site.run("--plan")
    assert {error["code"] for error in refused.report["errors"]} == {"SHW-843"}, refused.output
    declare(site)
    gone = site.run()
    assert gone.report["errors"] == [], gone.output
    for host in PLANES:
        assert site.holds(host, NOTHING)
    assert changes(site.run()) == []
    declare(site, address=VIP)
    came = site.run()
    assert came.report["errors"] == [], came.output
    assert wait_held(site)
    by_kube_vip(site, address=VIP)
    refused = site.run("--plan")
    assert {error["code"] for error in refused.report["errors"]} == {"SHW-843"}, refused.output
    declare(site)
    assert site.run().report["errors"] == []
    by_kube_vip(site, address=VIP)
    back = site.run()
    assert back.report["errors"] == [], back.output
    holder = wait_held(site)
    assert site.on(holder, LEASE) == holder
    assert site.on("w1", trusted(VIP)) == "200"
    assert changes(site.run()) == []


def test_three_become_one_and_the_address_has_one_holder_all_the_way(site: Site, made: Ran) -> None:
    assert made.code == 0
    holder = wait_held(site)
    stays, other = (name for name in PLANES if name != holder)
    by_kube_vip(site, stays, address=VIP)
    told = site.run()  # before they are removed: they hold it still
    assert (told.code, told.report["errors"]) == (0, []), told.output
    assert holders(site) == [holder]
    for leaving in (holder, other):
        remove_a_member(site, leaving, stays, VIP, MOST_SECONDS)
        assert site.holds(leaving, NOTHING)
    assert site.run().report["errors"] == []
    assert holders(site) == [stays]
    assert changes(site.run()) == []


def test_another_address_comes_once_the_certificates_are_good_for_it_and_goes(site: Site, made: Ran) -> None:
    assert made.code == 0
    (stays,) = holders(site)
    by_kube_vip(site, stays, address=NEW)
    refused = site.run("--plan")
    assert {error["code"] for error in refused.report["errors"]} == {"SHW-842"}, refused.output
    moved = command(site, "move_endpoint")
    assert moved.code == 0, moved.output
    came = site.run()
    assert came.report["errors"] == [], came.output
    assert (holders(site), held_by(NEW, site, stays)) == ([], [stays])
    assert site.on("w1", trusted(NEW)) == "200"
    assert changes(site.run()) == []
    declare(site, stays)
    gone = site.run()
    assert gone.report["errors"] == [], gone.output
    assert site.holds(stays, NOTHING)
    assert held_by(NEW, site) == []
    assert changes(site.run()) == []
