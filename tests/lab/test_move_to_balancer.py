"""A cluster of three control planes is moved to a load balancer of the site's beside a pod with a GPU, and back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.containers.cluster_file import content
from lab.containers.kubernetes import chosen
from shipway.steps.endpoint.kubeconfigs import LOCAL_MODE
from tests.lab.conftest import ROOT, STATE, Ran, Site
from tests.lab.several_planes import ADMIN, NAME, PLANES, WORKERS, changes, drift, five, hold, holds, nodes
from tests.lab.test_move_endpoint import IN_CLUSTER, ON_HOST, SHOWN

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
NUMBER, PORT, LB = 6, 7443, "lb.lab.example"
VERB = "move_endpoint"
EXTERNAL = {"kind": "external", "name": LB, "port": PORT}
LOCAL = chosen().minor >= LOCAL_MODE[1]  # the kubelet of a control plane asks its own API server
HOSTS = (*PLANES, *WORKERS)
PROXY = "/etc/systemd/system/shipway-api-proxy.service"
KUBELET = "the kubelet asks the API where its kubelet.conf leads"
NAMES_GONE, PROXY_GONE = "/etc/hosts has no name of an endpoint before", "nothing is left of the proxy to the API"
# The site's own haproxy, on a worker whose package Shipway installed; it passes TCP on, and asks each for /readyz.
BALANCER = f"""
defaults
  mode tcp
  timeout connect 1s
  timeout client 10m
  timeout server 10m
frontend api
  bind *:{PORT}
  default_backend planes
backend planes
  balance roundrobin
  option httpchk GET /readyz
  http-check expect rstatus ^(200|401|403)$
  default-server check check-ssl verify none inter 1s fastinter 500ms fall 2 rise 2 on-marked-down shutdown-sessions
"""
ASKED = f"ss -Htnp state established | grep kubelet | grep -oE '[0-9.]+:({PORT}|6443)' | sort | uniq -c"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Five bare hosts in a lab of their own."""
    with five(tmp_path_factory.mktemp("balanced"), NUMBER) as made:
        yield made


def declare(site: Site, **kubernetes: Any) -> None:
    """Write the cluster file, with these keys about Kubernetes."""
    data = content(site.lab.plan, site.lab.state)
    site.cluster_file(kubernetes={**data.get("kubernetes", {}), **kubernetes})


def balance(site: Site, *planes: str) -> None:
    """Start the site's balancer on w2, or start it anew with other servers."""
    servers = "".join(f"  server {name} {site.lab.plan.host(name).address}:6443\n" for name in planes)
    site.lab.exec("w2", "sh", "-c", "cat >/etc/site-balancer.cfg", give=BALANCER + servers)
    run = "systemd-run --quiet --collect --unit=site-balancer /usr/sbin/haproxy -db -f /etc/site-balancer.cfg"
    site.on("w2", f"systemctl stop site-balancer 2>/dev/null; {run}")
    time.sleep(4)


def name_balancer(site: Site) -> None:
    """Let every host know the balancer's name by a line of the site's."""
    line = f"{site.lab.plan.host('w2').address} {LB}"
    for host in HOSTS:
        site.on(host, f"text=$(cat /etc/hosts); printf '%s\\n%s\\n' '{line}' \"$text\" >/etc/hosts")


def words(site: Site, *more: str, known: bool = True) -> tuple[str, ...]:
    """Return the command line of the move, on a machine that knows the balancer's name, or does not.

    The machine's own /etc/hosts stays as it is: a copy lies over it, for this command alone.
    """
    command = (sys.executable, "-m", f"flows.{VERB}", str(site.folder / "cluster.yaml"), *more)
    if not known:
        return command
    copy = site.folder / "hosts"
    copy.write_text(f"{Path('/etc/hosts').read_text()}\n{site.lab.plan.host('w2').address} {LB}\n")
    over = 'mount --bind "$0" /etc/hosts && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", over, str(copy), *command)


def environment(site: Site) -> dict[str, str]:
    """Return what a command of ours runs with."""
    return {**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1"}


def move(site: Site, *more: str, known: bool = True) -> Ran:
    """Run the move to its end."""
    report = site.folder / "move.json"
    report.unlink(missing_ok=True)
    line = words(site, *more, "--report", str(report), known=known)
    began = time.monotonic()
    ran = subprocess.run(line, cwd=ROOT, env=environment(site), capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    print(f"\n$ flows.{VERB} {' '.join(more)}: exit {ran.returncode}, {took:.1f} s\n{ran.stdout}{ran.stderr}")
    return Ran(ran.returncode, ran.stdout + ran.stderr, took, json.loads(report.read_text()) if report.exists() else {})


def codes(ran: Ran) -> set[tuple[str, str]]:
    """Return who was refused by which code."""
    return {(error["host"], error["code"]) for error in ran.report["errors"]}


def drifted(ran: Ran) -> set[tuple[str, str]]:
    """Return what would be changed, or was withheld, by host."""
    return {
        (stage["host"], row["step"])
        for stage in ran.report["stages"]
        for row in stage["rows"]
        if row["outcome"] == "drifted"
    }


@pytest.fixture(scope="module")
def holder(site: Site) -> str:
    """A cluster by a name of ours, and a pod on w1 that holds a GPU."""
    declare(site)
    made = site.run(seconds=900)
    assert made.code == 0, made.output
    for host in WORKERS:
        assert site.holds(host, f"[ -e {PROXY} ]")
    return hold(site, "cp1")


def test_every_refusal_is_told_at_once_and_a_plan_names_every_place(site: Site, holder: str) -> None:
    declare(site, api_endpoint=EXTERNAL)
    bootstrap = site.run("--plan")
    assert "SHW-319" in {error["code"] for error in bootstrap.report["errors"]}
    assert "move-endpoint" in bootstrap.output
    before = {name: site.on(name, ON_HOST) for name in HOSTS}, site.on("cp1", IN_CLUSTER)
    unknown = move(site, "--plan", known=False)
    assert (unknown.code, unknown.report["outcome"]) == (1, "refused"), unknown.output
    assert codes(unknown) == {(who, "SHW-844") for who in (*HOSTS, "this machine")}
    name_balancer(site)
    silent = move(site, "--plan")
    assert codes(silent) == {(who, "SHW-845") for who in (*HOSTS, "this machine")}
    balance(site, "cp1", "cp2")
    lacking = move(site)  # not only a plan is refused
    assert {code for _, code in codes(lacking)} == {"SHW-847"}
    assert "cp3" in lacking.output
    declare(site, api_endpoint={"kind": "external", "name": NAME})
    assert "SHW-775" in {code for _, code in codes(move(site, "--plan"))}
    declare(site, api_endpoint=EXTERNAL)
    balance(site, *PLANES)
    assert ({name: site.on(name, ON_HOST) for name in HOSTS}, site.on("cp1", IN_CLUSTER)) == before
    states = {name: site.on(name, STATE) for name in HOSTS}
    plan = move(site, "--plan")
    assert (plan.code, plan.report["outcome"]) == (0, "planned"), plan.output
    place = f"{LB}:{PORT}"
    assert {
        *((name, "the API server's certificate is good for the API's name") for name in PLANES),
        *((name, f"/etc/kubernetes/admin.conf leads to {place}") for name in PLANES),
        *((name, f"/etc/kubernetes/kubelet.conf leads to {place}") for name in (WORKERS if LOCAL else HOSTS)),
        *((name, NAMES_GONE) for name in HOSTS),
        *((name, PROXY_GONE) for name in WORKERS),
        ("w2", KUBELET),
        ("cluster", "kubeadm-config names the endpoint"),
        ("cluster", "cluster-info names the endpoint"),
        ("cluster", "kube-proxy's kubeconfig names the endpoint, and its pods read it"),
    } <= drifted(plan)
    assert {name: site.on(name, STATE) for name in HOSTS} == states
    assert site.on("cp1", IN_CLUSTER) == before[1]
    assert holds(site, "cp1") == holder


def test_a_killed_move_goes_on_and_only_what_is_asked_by_stays(site: Site, holder: str) -> None:
    kill_when_recorded(site)
    ran = move(site)
    assert ran.report["errors"] == [], ran.output
    assert (ran.code, ran.report["outcome"]) == (2, "partial")
    assert {one for one in drifted(ran) if one[0] != "cluster"} == {
        ("w1", KUBELET),
        ("w1", NAMES_GONE),
        ("w1", PROXY_GONE),
    }
    assert site.holds("w1", f"[ -e {PROXY} ] && grep -qw {NAME} /etc/hosts")
    assert all(nodes(site, "cp1").values())
    again = site.run()  # nor does another run take them from under the kubelet
    assert changes(again) == []
    assert site.holds("w1", f"[ -e {PROXY} ] && grep -qw {NAME} /etc/hosts")
    assert holds(site, "cp1") == holder
    whole = move(site, "--beside-gpu-pods")
    assert (whole.code, whole.report["outcome"]) == (0, "ok"), whole.output
    assert sorted(changes(whole)) == sorted(f"w1: {step}" for step in (KUBELET, NAMES_GONE, PROXY_GONE))
    assert holds(site, "cp1") == holder


def kill_when_recorded(site: Site) -> None:
    """Start the move and SIGKILL it as soon as kubeadm's record names the balancer."""
    process = subprocess.Popen(words(site, "--quiet"), cwd=ROOT, env=environment(site), start_new_session=True)
    deadline = time.monotonic() + 480
    try:
        while f"controlPlaneEndpoint: {LB}" not in site.on("cp1", f"{IN_CLUSTER} || true"):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_no_place_keeps_the_name_and_nothing_of_ours_is_left_on_the_way(site: Site, holder: str) -> None:
    place = f"https://{LB}:{PORT}"
    for host in HOSTS:
        own = {f"https://{site.lab.plan.host(host).address}:6443"} if host in PLANES else set()
        assert set(site.on(host, ON_HOST).split()) - {"server:"} == {place, *own}
        assert site.holds(host, f"! grep -qw {NAME} /etc/hosts")
        assert site.holds(host, f"grep -qw {LB} /etc/hosts")
    for host in WORKERS:
        assert site.holds(host, f"[ ! -e {PROXY} ] && [ ! -e /var/lib/shipway/api-proxy ]")
        assert f":{PORT}" in site.on(host, ASKED)
        assert ":6443" not in site.on(host, ASKED)
    assert site.holds("w2", "systemctl is-active -q site-balancer && [ -e /etc/site-balancer.cfg ]")
    assert NAME not in site.on("cp1", IN_CLUSTER)
    assert site.on("cp1", IN_CLUSTER).count(LB) == 3
    for host in PLANES:
        shown = site.on(host, SHOWN.replace("172.30.4.11", site.lab.plan.host(host).address))
        assert all(f"DNS:{name}" in shown for name in (LB, NAME, "localhost", "kubernetes"))
    kept = (site.folder / "controller" / "lab" / "kubeconfig").read_text()
    assert f"server: {place}" in kept
    again = move(site)
    assert (again.code, changes(again)) == (0, [])
    assert changes(site.run()) == []
    assert [one for one in drift(site)["findings"] if "hosts" in one["step"] or "proxy" in one["step"]] == []
    site.on("cp1", f"kubectl --kubeconfig {ADMIN} get --raw /readyz")
    assert holds(site, "cp1") == holder


def test_the_way_back_to_a_name_of_ours_needs_no_balancer_any_more(site: Site, holder: str) -> None:
    declare(site)
    back = move(site, "--beside-gpu-pods", known=False)
    assert back.report["errors"] == [], back.output
    site.on("w2", "systemctl stop site-balancer")
    time.sleep(60)  # a node is called NotReady after 40 s without a status
    assert nodes(site, "cp1") == dict.fromkeys(HOSTS, True)
    assert site.on("cp1", IN_CLUSTER).count(NAME) == 3
    for host in HOSTS:
        assert LB not in site.on(host, ON_HOST)
        assert site.holds(host, f"grep -qw {NAME} /etc/hosts")
        assert site.holds(host, f"grep -qw {LB} /etc/hosts")  # the site's own line
    assert site.holds("w2", f"[ -e {PROXY} ] && systemctl is-active -q shipway-api-proxy")
    again = move(site, known=False)
    assert (again.report["errors"], changes(again)) == ([], [])
    assert holds(site, "cp1") == holder
