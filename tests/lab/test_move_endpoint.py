"""A cluster that was made with an address gets a name, beside a pod that holds a GPU, and grows by it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.containers.cluster_file import content
from lab.containers.kubernetes import chosen
from shipway.steps.endpoint.kubeconfigs import LOCAL_MODE
from tests.lab.conftest import ROOT, STATE, Ran, Site
from tests.lab.several_planes import ADMIN, NAME, PLANES, WORKERS, changes, command, five, hold, holds, members, nodes

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
OLD = "172.30.4.11"
VERB = "move_endpoint"
LOCAL = chosen().minor >= LOCAL_MODE[1]  # the kubelet of a control plane asks its own API server
# What names the API on a host, whoever wrote it; and in the cluster, but for kubeadm's list of API servers by host.
ON_HOST = "grep -hs server: /etc/kubernetes/*.conf /root/.kube/config /home/*/.kube/config | sort -u"
IN_CLUSTER = (
    f"k='kubectl --kubeconfig {ADMIN}'; "
    "$k -n kube-public get configmap cluster-info -o yaml | grep -o 'server: .*'; "
    "$k -n kube-system get configmap kube-proxy -o yaml | grep -o 'server: .*'; "
    "$k -n kube-system get configmap kubeadm-config -o yaml | grep -o 'controlPlaneEndpoint: .*'"
)
SHOWN = f"openssl s_client -connect {OLD}:6443 </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName"
TRUSTED = "curl -s -o /dev/null -w '%{http_code}' --cacert /etc/kubernetes/pki/ca.crt https://%s:6443/livez"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Five bare hosts in a lab of their own."""
    with five(tmp_path_factory.mktemp("moving"), 4) as made:
        yield made


def declare(site: Site, *planes: str, **kubernetes: Any) -> None:
    """Write the cluster file with these control planes, and the workers."""
    data = content(site.lab.plan, site.lab.state)
    hosts = [row for row in data["hosts"] if row["name"] in (*planes, *WORKERS)]
    site.cluster_file(hosts=hosts, kubernetes={**data.get("kubernetes", {}), **kubernetes})


@pytest.fixture(scope="module")
def made(site: Site) -> Ran:
    """A cluster as it was made before the API had a name: by the address of its control plane."""
    declare(site, "cp1", api_endpoint=OLD)
    return site.run(seconds=600)


@pytest.fixture(scope="module")
def holder(site: Site, made: Ran) -> str:
    """The pod that holds a GPU."""
    assert made.code == 0, made.output
    return hold(site, "cp1")


def test_a_cluster_with_an_address_keeps_it_and_a_plan_names_every_place(site: Site, holder: str) -> None:
    declare(site, "cp1")
    assert changes(site.run()) == []
    hosts = ("cp1", *WORKERS)
    before = {name: site.on(name, STATE) for name in hosts}, site.on("cp1", IN_CLUSTER)
    plan = command(site, VERB, "--plan")
    assert (plan.code, plan.report["outcome"]) == (0, "planned"), plan.output
    would = {
        (stage["host"], row["step"])
        for stage in plan.report["stages"]
        for row in stage["rows"]
        if row["outcome"] == "drifted"
    }
    name = f"{NAME}:6443"
    kubelets = {(host, f"/etc/kubernetes/kubelet.conf leads to {name}") for host in (hosts[1:] if LOCAL else hosts)}
    assert (
        kubelets
        | {
            ("cp1", "the API server's certificate is good for the API's name"),
            ("cp1", "kube-apiserver uses its current certificates"),
            ("cp1", f"/etc/kubernetes/admin.conf leads to {name}"),
            ("cluster", "kubeadm-config names the endpoint"),
            ("cluster", "cluster-info names the endpoint"),
            ("cluster", "kube-proxy's kubeconfig names the endpoint, and its pods read it"),
            ("w2", "the kubelet asks the API where its kubelet.conf leads"),
            *((host, "/etc/hosts names every host") for host in hosts),
        }
        <= would
    )
    assert ({name: site.on(name, STATE) for name in hosts}, site.on("cp1", IN_CLUSTER)) == before
    declare(site, *PLANES)
    refused = site.run("--plan")
    assert "SHW-762" in {error["code"] for error in refused.report["errors"]}
    declare(site, "cp1")
    assert holds(site, "cp1") == holder


def test_a_killed_move_goes_on_and_no_place_keeps_the_old_endpoint(site: Site, made: Ran, holder: str) -> None:
    assert made.code == 0
    kill_when_recorded(site)
    half = site.on("w2", ON_HOST)
    began = time.monotonic()
    ran = command(site, VERB)
    print(f"moved after a kill in {time.monotonic() - began:.0f} s; w2 had {half}")
    assert ran.report["errors"] == [], ran.output
    withheld = {
        (stage["host"], row["step"])
        for stage in ran.report["stages"]
        for row in stage["rows"]
        if row["outcome"] == "drifted" and stage["host"] != "cluster"
    }
    assert withheld == {("w1", "the kubelet asks the API where its kubelet.conf leads")}
    assert (ran.code, ran.report["outcome"]) == (2, "partial")
    assert holds(site, "cp1") == holder
    whole = command(site, VERB, "--beside-gpu-pods")
    assert (whole.code, whole.report["outcome"]) == (0, "ok"), whole.output
    assert changes(whole) == ["w1: the kubelet asks the API where its kubelet.conf leads"]
    assert holds(site, "cp1") == holder
    for host in WORKERS:
        assert site.on(host, ON_HOST).split() == ["server:", f"https://{NAME}:6443"]
    own = {f"https://{NAME}:6443", f"https://{OLD}:6443"}  # the second: controller manager and scheduler ask their own
    assert set(site.on("cp1", ON_HOST).split()) - {"server:"} == own
    local = ["controller-manager", *(["kubelet"] if LOCAL else []), "scheduler"]
    files = [f"/etc/kubernetes/{name}.conf" for name in local]
    assert site.on("cp1", "grep -ls " + OLD + " /etc/kubernetes/*.conf").split() == files
    kept = (site.folder / "controller" / "lab" / "kubeconfig").read_text()
    assert f"tls-server-name: {NAME}" in kept
    assert OLD not in site.on("cp1", IN_CLUSTER)
    assert site.on("cp1", IN_CLUSTER).count(NAME) == 3
    names = site.on("cp1", SHOWN)
    assert all(f"DNS:{name}" in names for name in (NAME, "localhost", "kubernetes"))
    assert all(f"IP Address:{address}" in names for address in (OLD, "127.0.0.1"))
    assert site.on("cp1", TRUSTED.replace("%s", OLD)) == "200"  # whoever kept the old address is answered on
    assert all(nodes(site, "cp1").values())
    again = command(site, VERB)
    assert (again.code, changes(again)) == (0, [])
    assert site.run().report["outcome"] in ("ok", "partial")
    assert changes(site.run()) == []


def kill_when_recorded(site: Site) -> None:
    """Start the move and SIGKILL it as soon as kubeadm's record names the new endpoint."""
    words = (sys.executable, "-m", f"flows.{VERB}", str(site.folder / "cluster.yaml"), "--quiet")
    env = {**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1"}
    process = subprocess.Popen(words, cwd=ROOT, env=env, start_new_session=True)
    deadline = time.monotonic() + 240
    try:
        while f"controlPlaneEndpoint: {NAME}" not in site.on("cp1", f"{IN_CLUSTER} || true"):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_then_it_grows_to_three_beside_the_pod(site: Site, made: Ran, holder: str) -> None:
    assert made.code == 0
    declare(site, *PLANES)
    grown = site.run(seconds=900)
    print(f"1 -> 3 in {grown.seconds:.0f} s")
    assert grown.report["errors"] == [], grown.output
    assert sorted(one["name"] for one in members(site, "cp2")) == list(PLANES)
    assert nodes(site, "cp3") == dict.fromkeys((*PLANES, *WORKERS), True)
    assert holds(site, "cp2") == holder
    last = command(site, VERB)
    assert (last.report["errors"], changes(last)) == ([], [])
