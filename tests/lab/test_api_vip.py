"""An address for clients outside: one control plane holds it, it moves when that one stops serving, and it may go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from shipway.steps.vip.keepalived import CONFIG, FOLDER, NOBODY, OWN, peers_in
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
from tests.lab.several_planes import PLANES, asked, changes, command, five, wait_ready

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
VIP, TAKEN = "172.30.5.200", "172.30.5.201"
# Two checks, three seconds without word of the one before (VRRP), a client's second, a loaded machine.
MOST_SECONDS = 9.0
# What a site runs in keepalived.service: a router of the same number, in the same network, heard by all.
SITES, SITES_FILE = "172.30.5.210", "/etc/keepalived/keepalived.conf"
SITES_TEXT = f"""vrrp_instance site {{
    interface eth0
    virtual_router_id 200
    priority 200
    virtual_ipaddress {{
        {SITES}/24
    }}
}}
"""
SITES_RUNS = (
    f"systemctl is-active -q keepalived && ip -o -4 addr show | grep -q ' {SITES}/' && "
    f"[ \"$(cat {SITES_FILE})\" = '{SITES_TEXT.strip()}' ]"
)
MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
holders, wait_held = partial(held_by, VIP), partial(wait_held_by, VIP)
told_of_it = partial(told_of, (VIP, "keepalived", OWN.service))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three control planes and a worker, bare, in a lab of their own."""
    with five(tmp_path_factory.mktemp("vip"), 5, ("w1",)) as made:
        declare(made, address=VIP)
        made.on("cp2", "mkdir /etc/keepalived")
        made.lab.exec("cp2", "tee", SITES_FILE, give=SITES_TEXT)
        yield made


@pytest.fixture(scope="module")
def made(site: Site) -> Ran:
    """The first run."""
    return site.run(seconds=900)


def test_one_holds_it_a_client_trusts_it_and_what_is_the_sites_is_untouched(site: Site, made: Ran) -> None:
    assert made.code == 0, made.output
    assert holders(site) == ["cp1"]  # it stood first in the file, and nobody took it from it
    for host in (*PLANES, "w1"):
        assert site.on(host, trusted(VIP)) == "200"
    kept = (site.folder / "controller" / "lab" / "kubeconfig").read_text()
    assert f"server: https://{VIP}:6443" in kept
    for host in PLANES:
        assert site.on(host, f"systemctl is-active {OWN.unit}").strip() == "active"
    for host in ("cp1", "cp3"):
        assert site.holds(host, f"! systemctl is-active -q keepalived && [ ! -e {SITES_FILE} ]")
    assert site.holds("cp2", SITES_RUNS)
    assert changes(site.run()) == []


def test_it_moves_when_its_holders_api_server_stops_and_stays_where_it_went(site: Site, made: Ran) -> None:
    assert made.code == 0
    holder = wait_held(site)
    gap, answers = asked(site, lambda: site.on(holder, f"mv {MANIFEST} /root/ && sleep 40"), VIP)
    print(f"an API server stopped: longest gap {gap:.1f} s")
    others = [name for name in PLANES if name != holder]
    assert (answers > 20, gap < MOST_SECONDS) == (True, True)
    assert wait_held(site) in others
    site.on(holder, f"mv /root/kube-apiserver.yaml {MANIFEST}")
    wait_ready(site, holder)
    now = wait_held(site)
    assert now in others
    time.sleep(10)
    assert holders(site) == [now]  # nobody takes it back


@pytest.mark.parametrize("killed", ["all of it", "the child that holds the address"])
def test_a_keepalived_that_is_killed_alone_leaves_the_address_to_another_one_and_no_two_hold_it(
    site: Site, made: Ran, killed: str
) -> None:
    assert made.code == 0
    holder, looks = wait_held(site), list[list[str]]()
    child = f"kill -9 $(cat /run/{OWN.service}/vrrp.pid)"
    kill = f"systemctl kill -s KILL {OWN.unit}" if killed == "all of it" else child

    def watch() -> None:
        site.on(holder, kill)
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            looks.append(holders(site))

    gap, answers = asked(site, watch, VIP)
    print(f"keepalived killed, {killed}: longest gap {gap:.1f} s; {looks}")
    assert (answers > 20, gap < MOST_SECONDS) == (True, True)
    assert max(map(len, looks)) == 1
    assert wait_held(site) != holder
    assert site.on(holder, f"systemctl is-active {OWN.unit}").strip() == "active"


def test_it_moves_when_its_holders_host_is_gone_and_a_drift_pass_finds_it_held(site: Site, made: Ran) -> None:
    assert made.code == 0
    lose_its_holders_host(site, VIP, MOST_SECONDS)
    assert told_of_it(site) == []
    for host in PLANES:
        site.on(host, f"systemctl stop {OWN.unit}")
    told = told_of_it(site)
    assert f"cluster: one control plane holds the API's address for clients outside: {VIP} is held by none" in told
    assert sum(OWN.service in line for line in told) == len(PLANES)
    command(site, "drift_repair", "--repair", "service")
    assert wait_held(site)


def test_an_address_that_somebody_has_or_that_lies_elsewhere_is_refused(site: Site, made: Ran) -> None:
    assert made.code == 0
    site.on("w1", f"ip addr add {TAKEN}/24 dev eth0")
    for address, code in ((TAKEN, "SHW-840"), ("192.0.2.9", "SHW-841")):
        declare(site, address=address)
        refused = site.run("--plan")
        assert code in {error["code"] for error in refused.report["errors"]}, refused.output
    site.on("w1", f"ip addr del {TAKEN}/24 dev eth0")
    declare(site, address=VIP)


def test_three_become_one_and_the_address_has_one_holder_all_the_way(site: Site, made: Ran) -> None:
    assert made.code == 0
    holder = wait_held(site)
    stays, other = (name for name in PLANES if name != holder)
    declare(site, stays, address=VIP)
    told = site.run()  # before they are removed: they are members still, and hold it
    assert (told.code, told.report["errors"]) == (0, []), told.output
    assert holders(site) == [holder]
    assert len(peers_in(site.on(stays, f"cat {CONFIG}"))) == len(PLANES) - 1
    for leaving in (holder, other):
        remove_a_member(site, leaving, stays, VIP, MOST_SECONDS)
        assert site.holds(leaving, f"! ps -eo args= | grep -q '[s]hipway-api-vip' && [ ! -e {FOLDER} ]")
    assert site.run().report["errors"] == []
    assert peers_in(site.on(stays, f"cat {CONFIG}")) == [NOBODY]
    assert holders(site) == [stays]
    assert changes(site.run()) == []


def test_another_address_comes_once_the_certificates_are_good_for_it(site: Site, made: Ran) -> None:
    assert made.code == 0
    (stays,) = holders(site)
    declare(site, stays, address=TAKEN)  # nobody has it any more
    refused = site.run("--plan")
    assert {error["code"] for error in refused.report["errors"]} == {"SHW-842"}, refused.output
    moved = command(site, "move_endpoint")
    assert moved.code == 0, moved.output
    came = site.run()
    assert came.report["errors"] == [], came.output
    assert holders(site) == []
    assert site.on("w1", trusted(TAKEN)) == "200"
    assert changes(site.run()) == []


def test_an_address_that_is_given_up_goes(site: Site, made: Ran) -> None:
    assert made.code == 0
    (stays,) = (name for name in PLANES if site.holds(name, f"[ -e {OWN.path} ]"))
    declare(site, stays)
    gone = site.run()
    assert gone.report["errors"] == [], gone.output
    assert site.holds(stays, f"[ ! -e {OWN.path} ] && [ ! -e {FOLDER} ]")
    for host in PLANES:
        assert site.holds(host, f"! ip -o -4 addr show | grep -qE ' ({VIP}|{TAKEN})/'")
    assert changes(site.run()) == []
    assert site.holds("cp2", SITES_RUNS)
