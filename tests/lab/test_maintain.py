"""On real hosts: a package in two versions, a real restart, a worker that is taken out, and a run that is killed.

The package is the lab's own, offered by each worker to itself; apt, dpkg, systemd, sshd, kubelets and restarts are
real. The hosts are containers: they have no kernel of their own, and a restart is a new start of the container.
"""

from __future__ import annotations

import contextlib
import time

import pytest

from lab.containers.lab import Lab
from shipway.steps.upgrade.proof import STEP
from tests.lab.conftest import STATE, Site
from tests.lab.test_upgrade import is_closed, kill_when, nodes, rows, run

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
NAMES, WORKERS = ("cp1", "w1", "w2"), ("w1", "w2")
# $1 the version; w2 asks for a restart after it, as a kernel's package does.
OFFER = r"""
set -eu
work=$(mktemp -d); mkdir -p "$work/lab-tool/DEBIAN" /opt/lab-packages
printf 'Package: lab-tool\nVersion: %s\nArchitecture: all\nMaintainer: lab <lab@localhost>\n' "$1" \
  > "$work/lab-tool/DEBIAN/control"
echo 'Description: the lab' >> "$work/lab-tool/DEBIAN/control"
printf '#!/bin/sh\n[ "$(hostname)" != w2 ] || echo lab-tool | tee /run/reboot-required.pkgs > /run/reboot-required\n' \
  > "$work/lab-tool/DEBIAN/postinst"
chmod 755 "$work/lab-tool/DEBIAN/postinst"
dpkg-deb --build "$work/lab-tool" /opt/lab-packages/lab-tool.deb > /dev/null
cd /opt/lab-packages
{ dpkg-deb --field lab-tool.deb
  printf 'Filename: ./lab-tool.deb\nSize: %s\nSHA256: ' "$(stat -c %s lab-tool.deb)"
  sha256sum lab-tool.deb | cut -d' ' -f1
} > Packages
echo 'deb [trusted=yes] file:/opt/lab-packages ./' > /etc/apt/sources.list.d/lab.list
apt-get -q update > /dev/null
"""
BOOT = "cut -d' ' -f22 /proc/1/stat"  # when the first process was started, of a host whose init has a plain name


@pytest.fixture(scope="module")
def site(lab: Lab, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A bootstrapped cluster whose workers have the package's first version, and are offered the second."""
    lab.fresh()
    made = Site(lab, tmp_path_factory.mktemp("maintain"), prefect_server)
    made.cluster_file(upgrade={"soak_seconds": 2}, maintain={"reboot_minutes": 5})
    ran = made.run()
    assert ran.code == 0, ran.output
    for name in WORKERS:
        offer(made, name, "1.0")
        made.on(name, "apt-get -q -y install lab-tool > /dev/null; rm -f /run/reboot-required*")
        offer(made, name, "2.0")
    return made


def offer(site: Site, name: str, version: str) -> None:
    """Let a host offer itself a version of the package."""
    site.on(name, f"cat > /tmp/offer.sh <<'EOF'\n{OFFER}\nEOF\nsh /tmp/offer.sh {version}")


def tool(site: Site, name: str) -> str:
    """Return the version of the package on a host."""
    return site.on(name, "dpkg-query -W -f '${Version}' lab-tool").strip()


def boots(site: Site) -> dict[str, str]:
    """Return by host which boot it is in."""
    return {name: site.on(name, BOOT).strip() for name in NAMES}


def open_nodes(site: Site) -> list[str]:
    """Return the nodes that take pods."""
    return sorted(name for name, (_, is_open) in nodes(site).items() if is_open)


def test_the_plan_says_what_becomes_of_whom_and_changes_nothing(site: Site) -> None:
    before = {name: site.on(name, STATE) for name in NAMES}
    ran = run(site, "maintain", "--plan")
    assert (ran.code, ran.report["outcome"]) == (0, "planned")
    assert {name: site.on(name, STATE) for name in NAMES} == before
    found = [(row["host"], row["wave"], row["want"]) for row in ran.report["order"]]
    assert found == [("w1", "first alone", "1 package"), ("w2", "wave 1", "1 package")], "nothing is to be done on cp1"


def test_a_kernel_without_the_gpus_module_is_refused_and_nothing_changes(site: Site) -> None:
    site.on("w1", "mkdir -p /boot; touch /boot/vmlinuz-99.0.0-lab")
    try:
        ran = run(site, "maintain")
    finally:
        site.on("w1", "rm /boot/vmlinuz-99.0.0-lab")
    assert (ran.code, ran.report["outcome"]) == (1, "refused")
    assert {error["code"] for error in ran.report["errors"]} == {"SHW-820"}
    assert [tool(site, name) for name in WORKERS] == ["1.0", "1.0"]
    assert open_nodes(site) == list(NAMES)


def test_a_host_that_somebody_closed_is_left_alone_and_named(site: Site) -> None:
    site.kubectl("cordon w2")
    before, was = boots(site), site.on("w2", "dpkg-query -W")
    try:
        ran = run(site, "maintain")
    finally:
        site.kubectl("uncordon w2")
    assert (ran.code, ran.report["outcome"]) == (2, "partial")
    assert any("w2 is left out: somebody else closed its node" in one for one in ran.report["warnings"])
    assert [tool(site, name) for name in WORKERS] == ["2.0", "1.0"]
    assert site.on("w2", "dpkg-query -W") == was
    assert boots(site) == before, "nothing asked w1 for a restart"


def test_a_worker_is_updated_restarted_proven_and_opened(site: Site) -> None:
    before = boots(site)
    ran = run(site, "maintain")
    assert ran.code == 0, ran.output
    after = boots(site)
    assert {name for name in NAMES if after[name] != before[name]} == {"w2"}
    assert tool(site, "w2") == "2.0"
    assert open_nodes(site) == list(NAMES)
    assert {host for host, _ in rows(ran, "changed")} == {"w2"}
    assert ("w2", STEP) in rows(ran, "ok")
    assert not site.holds("w2", "[ -e /run/reboot-required ]")
    again = run(site, "maintain")
    assert (again.code, rows(again, "changed"), again.report["order"]) == (0, set(), [])
    holds = site.on("w2", "apt-mark showhold").split()
    assert {"kubelet", "kubeadm", "kubectl"} <= set(holds)
    boot = site.run()
    assert (boot.code, rows(boot, "changed")) == (0, set())


def test_a_run_that_is_killed_goes_on_and_restarts_nothing_twice(site: Site) -> None:
    for name in WORKERS:
        offer(site, name, "3.0")
    before = boots(site)["w2"]

    def restarted() -> bool:
        with contextlib.suppress(Exception):
            return site.on("w2", BOOT).strip() != before
        return False

    kill_when(site, lambda: is_closed(site, "w1"), verb="maintain", seconds=300)
    assert nodes(site)["w1"][1] is False
    kill_when(site, restarted, verb="maintain", seconds=300)
    assert nodes(site)["w2"][1] is False
    mine, ends = boots(site)["w2"], time.monotonic() + 90
    while not site.holds("w2", "systemctl is-active -q ssh"):
        assert time.monotonic() < ends
        time.sleep(0.5)
    ran = run(site, "maintain")
    assert ran.code == 0, ran.output
    assert boots(site)["w2"] == mine, "restarted once"
    assert [tool(site, name) for name in WORKERS] == ["3.0", "3.0"]
    assert open_nodes(site) == list(NAMES)
