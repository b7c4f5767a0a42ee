"""What the tests of the API's address for clients outside share: the file that declares it, and who holds it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lab.containers.cluster_file import content
from tests.lab.conftest import Ran, Site
from tests.lab.several_planes import PLANES, asked, command, drift, members, wait_ready
from tests.lab.test_retire import CLEAN


def declare(site: Site, *planes: str, **vip: Any) -> None:
    """Write the cluster file with this address, or none, and with these control planes, or all."""
    written = content(site.lab.plan, site.lab.state)
    kubernetes = {**written.get("kubernetes", {}), **({"api_vip": vip} if vip else {})}
    hosts = [row for row in written["hosts"] if row["name"] in (*(planes or PLANES), "w1")]
    site.cluster_file(kubernetes=kubernetes, hosts=hosts)


def held_by(address: str, site: Site, *hosts: str) -> list[str]:
    """Return which hosts have the address on an interface."""
    return [host for host in hosts or PLANES if site.holds(host, f"ip -o -4 addr show | grep -q ' {address}/'")]


def wait_held_by(address: str, site: Site, *hosts: str) -> str:
    """Wait until one of the hosts has the address; return which."""
    deadline = time.monotonic() + 60
    while len(found := held_by(address, site, *hosts)) != 1:
        assert time.monotonic() < deadline, f"{address} is held by {found}"
        time.sleep(1)
    return found[0]


def trusted(address: str) -> str:
    """Return the shell line of a client that says the status with which the API's server at an address answers it."""
    return f"curl -s -o /dev/null -w '%{{http_code}}' --cacert /etc/kubernetes/pki/ca.crt https://{address}:6443/livez"


def told_of(words: Sequence[str], site: Site) -> list[str]:
    """Return what a pass that only looks finds that has one of these words."""
    findings = [f"{one['host']}: {one['step']}: {one['have']}" for one in drift(site)["findings"]]
    return [line for line in findings if any(word in line for word in words)]


def lose_its_holders_host(site: Site, address: str, most: float) -> None:
    """Kill the host and start it again: another one takes the address in so many seconds, and it stays there."""
    holder = wait_held_by(address, site)
    others = [name for name in PLANES if name != holder]
    gap, answers = asked(site, lambda: site.lab.engine().docker("kill", holder), address)
    print(f"the holder's host killed: longest gap {gap:.1f} s")
    assert (answers > 20, gap < most) == (True, True)
    now = wait_held_by(address, site, *others)
    site.lab.engine().docker("start", holder)
    wait_ready(site, now)
    wait_ready(site, holder)
    assert wait_held_by(address, site) == now


def remove_a_member(site: Site, leaving: str, stays: str, address: str, most: float) -> None:
    """Take a control plane out: clients wait at most so many seconds, and nothing is left on its host."""
    ran: list[Ran] = []
    gap, answers = asked(site, lambda: ran.append(command(site, "remove", leaving)), address)
    print(f"{leaving} removed: longest gap {gap:.1f} s")
    assert ran[0].report["outcome"] == "ok", ran[0].output
    assert (answers > 20, gap < most) == (True, True)
    assert leaving not in [one["name"] for one in members(site, stays)]
    left = {what: site.on(leaving, f"{{ {script}; }} 2>/dev/null || true") for what, script in CLEAN.items()}
    assert {what: said for what, said in left.items() if said.strip()} == {}
