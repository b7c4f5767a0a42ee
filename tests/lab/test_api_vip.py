"""An address for clients outside: one control plane holds it, it moves when that one stops serving, and it may go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.containers.cluster_file import content
from shipway.steps.system.api_vip import CONFIG, OWN, TRIES
from tests.lab.conftest import Ran, Site
from tests.lab.several_planes import PLANES, WORKERS, asked, changes, command, drift, five, wait_ready

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
VIP, TAKEN = "172.30.5.200", "172.30.5.201"
MOST_SECONDS = (
    9.0  # two checks, three seconds without word of the one before (VRRP), a client's second, a loaded machine
)
MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
TRUSTED = f"curl -s -o /dev/null -w '%{{http_code}}' --cacert /etc/kubernetes/pki/ca.crt https://{VIP}:6443/livez"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Five bare hosts in a lab of their own."""
    made = five(tmp_path_factory.mktemp("vip"), 5)
    declare(made, address=VIP)
    yield made
    if not os.environ.get("SHIPWAY_KEEP_LAB"):
        made.lab.down()


def declare(site: Site, **vip: Any) -> None:
    """Write the cluster file with this address, or none."""
    kubernetes = content(site.lab.plan, site.lab.state).get("kubernetes", {})
    site.cluster_file(kubernetes={**kubernetes, **({"api_vip": vip} if vip else {})})


@pytest.fixture(scope="module")
def made(site: Site) -> Ran:
    """The first run."""
    return site.run(seconds=900)


def holders(site: Site, *hosts: str) -> list[str]:
    """Return which hosts have the address on an interface."""
    return [host for host in hosts or PLANES if site.holds(host, f"ip -o -4 addr show | grep -q ' {VIP}/'")]


def wait_held(site: Site, *hosts: str) -> str:
    """Wait until one of the hosts has the address; return which."""
    deadline = time.monotonic() + 60
    while len(found := holders(site, *hosts)) != 1:
        assert time.monotonic() < deadline, f"{VIP} is held by {found}"
        time.sleep(1)
    return found[0]


def test_one_holds_it_a_client_trusts_it_and_what_is_the_sites_is_untouched(site: Site, made: Ran) -> None:
    assert made.code == 0, made.output
    assert holders(site) == ["cp1"]  # it stood first in the file, and nobody took it from it
    for host in (*PLANES, *WORKERS):
        assert site.on(host, TRUSTED) == "200"
    kept = (site.folder / "controller" / "lab" / "kubeconfig").read_text()
    assert f"server: https://{VIP}:6443" in kept
    for host in PLANES:
        assert site.on(host, "systemctl is-active keepalived; systemctl is-active " + OWN.unit).split()[-1] == "active"
        assert site.holds(host, "! systemctl is-active -q keepalived && [ ! -e /etc/keepalived/keepalived.conf ]")
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


def test_it_moves_when_its_holders_host_is_gone_and_a_drift_pass_finds_it_held(site: Site, made: Ran) -> None:
    assert made.code == 0
    holder = wait_held(site)
    others = [name for name in PLANES if name != holder]
    gap, answers = asked(site, lambda: site.lab.engine().docker("kill", holder), VIP)
    print(f"the holder's host killed: longest gap {gap:.1f} s")
    assert (answers > 20, gap < MOST_SECONDS) == (True, True)
    now = wait_held(site, *others)
    site.lab.engine().docker("start", holder)
    wait_ready(site, now)
    wait_ready(site, holder)
    assert wait_held(site) == now
    findings = [f"{one['host']}: {one['step']}: {one['have']}" for one in drift(site)["findings"]]
    assert [line for line in findings if VIP in line or "keepalived" in line] == []
    for host in PLANES:
        site.on(host, f"systemctl stop {OWN.unit}")
    told = [f"{one['host']}: {one['step']}: {one['have']}" for one in drift(site)["findings"]]
    assert f"cluster: one control plane holds the API's address for clients outside: {VIP} is held by none" in told
    assert sum(OWN.service in line for line in told) == len(PLANES)
    command(site, "drift_repair", "--repair", "service")
    assert wait_held(site)
    assert TRIES > 0


def test_an_address_that_somebody_has_or_that_lies_elsewhere_is_refused_and_one_that_is_given_up_goes(
    site: Site, made: Ran
) -> None:
    assert made.code == 0
    site.on("w2", f"ip addr add {TAKEN}/24 dev eth0")
    for address, code in ((TAKEN, "SHW-790"), ("10.99.0.9", "SHW-791")):
        declare(site, address=address)
        refused = site.run("--plan")
        assert code in {error["code"] for error in refused.report["errors"]}, refused.output
    declare(site)
    gone = site.run()
    assert gone.report["errors"] == [], gone.output
    for host in PLANES:
        assert site.holds(host, f"[ ! -e {OWN.path} ] && [ ! -e {CONFIG} ]")
    assert holders(site) == []
    assert changes(site.run()) == []
