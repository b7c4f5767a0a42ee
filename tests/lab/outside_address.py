"""What the tests of the API's address for clients outside share: the file that declares it, and who holds it."""

from __future__ import annotations

import time
from typing import Any

from lab.containers.cluster_file import content
from tests.lab.conftest import Site
from tests.lab.several_planes import PLANES


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
