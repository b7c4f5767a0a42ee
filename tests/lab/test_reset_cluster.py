"""A whole cluster is reset, and killed twice on the way: hosts clean by an independent look, and a cluster anew."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.lab.conftest import ROOT, STATE, Ran, Site
from tests.lab.faulting import hosts
from tests.lab.test_retire import CLEAN, RULES, SAVED

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
HOSTS = ("cp1", "w1")
BEGUN = "[ -e /var/lib/shipway/reset-started ]"
LOOKS = {
    **CLEAN,
    "links": "ip -o link | grep -vE ' (lo|eth[01])[@:]'",  # a host that was cut off has its link under a new name
    "ports": "ss -ltnH | awk '{print $4}' | grep -E ':(6443|2379|2380|2381|10250|10256|10248|10249|10257|10259)$'",
    "etcd": "ls -A /var/lib/etcd 2>/dev/null",
    "units": "systemctl list-unit-files --no-legend | grep -i shipway; systemctl is-enabled -q kubelet && echo kubelet",
}


def start(site: Site, *words: str) -> subprocess.Popen[str]:
    """Start a reset of all hosts as a user would."""
    return subprocess.Popen(
        (sys.executable, "-m", "flows.reset", str(site.folder / "cluster.yaml"), "--cluster", *words),
        cwd=ROOT,
        env={**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(site: Site, *words: str) -> Ran:
    """Run a reset of all hosts to its end."""
    started = time.monotonic()
    process = start(site, *words)
    output, _ = process.communicate(timeout=420)
    print(f"\n$ flows.reset --cluster {' '.join(words)}: exit {process.returncode}\n{output}")
    return Ran(process.returncode, output, time.monotonic() - started)


def kill_once_begun(site: Site, host: str) -> None:
    """Start a reset, and kill its process as soon as kubeadm's part of it has begun on a host."""
    process = start(site, "--confirm", "lab")
    deadline = time.monotonic() + 240
    try:
        while not site.holds(host, BEGUN):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        print(process.communicate()[0][-1500:])


@pytest.fixture(scope="module")
def joined(site: Site) -> Site:
    """A control plane and a worker, a pod of a user, and rules of the site's own on both."""
    hosts(site, *HOSTS)
    assert site.run().code == 0
    for host in HOSTS:
        for rule in RULES:
            site.on(host, f"iptables {rule}")
    site.kubectl("create deployment theirs --image=docker.io/library/busybox:1 -- sleep 86400")
    site.kubectl("rollout status deployment theirs --timeout=60s")
    return site


def test_a_plan_names_what_ends_and_changes_nothing_and_the_name_is_asked_for(joined: Site) -> None:
    before = {host: joined.on(host, STATE) for host in HOSTS}, joined.kubectl("get nodes,pods -A -o name")
    plan = run(joined, "--plan")
    assert plan.code == 0
    assert "ends 1 other pods of users: default/theirs-" in plan.output
    assert run(joined, "--confirm", "other").code == 1
    assert ({host: joined.on(host, STATE) for host in HOSTS}, joined.kubectl("get nodes,pods -A -o name")) == before


def test_a_host_that_does_not_answer_holds_it_up_before_anything_is_changed(joined: Site) -> None:
    joined.lab.cut("w1")
    try:
        refused = run(joined, "--confirm", "lab")
    finally:
        joined.lab.plug("w1")
    assert refused.code == 1
    assert "SHW-715" in refused.output
    assert "--without w1" in refused.output
    assert len(joined.kubectl("get nodes --no-headers").splitlines()) == len(HOSTS)


def test_a_reset_that_is_killed_on_either_host_is_ended_by_the_next_and_leaves_nothing(joined: Site) -> None:
    for host in reversed(HOSTS):
        kill_once_begun(joined, host)
    ended = run(joined, "--confirm", "lab")
    assert ended.code == 0
    assert list((joined.folder / "controller").glob("*/kubeconfig")) == []
    for host in HOSTS:
        left = {what: joined.on(host, f"{{ {script}; }} 2>/dev/null || true").strip() for what, script in LOOKS.items()}
        assert {what: said for what, said in left.items() if said} == {}
        saved = joined.on(host, SAVED)
        assert [rule for rule in RULES if not rule.startswith("-N") and rule not in saved] == []


def test_a_second_reset_changes_nothing_and_a_bootstrap_makes_a_cluster_anew(joined: Site) -> None:
    before = {host: joined.on(host, STATE) for host in HOSTS}
    again = run(joined, "--confirm", "lab")
    assert again.code == 0
    assert " changed" not in again.output.partition("host role")[0]
    assert {host: joined.on(host, STATE) for host in HOSTS} == before
    assert joined.run().code == 0
    for host in HOSTS:
        for rule in reversed(RULES):
            joined.on(host, f"iptables {rule.replace('-A ', '-D ', 1).replace('-N ', '-X ', 1)}")
