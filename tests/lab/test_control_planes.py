"""Three control planes and two workers: made in one run, and the API outlives the loss of any one of the three.

One that is destroyed is replaced by a bare machine of its name; a pod that holds a GPU runs on all the while.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.containers.cluster_file import content
from lab.containers.lab import Lab
from lab.containers.model import plan
from tests.lab.conftest import ROOT, STATE, Ran, Site
from tests.lab.test_retire import CLEAN

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
PLANES, WORKERS = ("cp1", "cp2", "cp3"), ("w1", "w2")
NAME = "api.lab.internal"
ADMIN = "/etc/kubernetes/admin.conf"
# A client that connects anew five times a second, as nobody patient would: a second is all that an answer may take.
CLIENT = (
    "while :; do s=$(date +%s.%N); "
    f"c=$(curl -sk --max-time 1 -o /dev/null -w '%{{http_code}}' https://{NAME}:6443/readyz); "
    'echo "$s $c" >>/run/asked; sleep 0.2; done'
)
MOST_TO_REPLACE = 600.0  # seconds from a bare machine to a whole control plane
HOLDER = """
apiVersion: v1
kind: Pod
metadata: {name: holds-a-gpu}
spec:
  nodeName: w1
  runtimeClassName: nvidia
  containers:
  - name: c
    image: docker.io/library/busybox:1
    command: [sleep, "86400"]
    resources: {limits: {nvidia.com/gpu: 1}}
"""
CLEAN_OF_CONTROL_PLANE = {
    "ports of a control plane": "ss -ltnH | awk '{print $4}' | grep -E ':(6443|2379|2380|2381|10257|10259)$'",
    "its processes": "ps -eo args= | grep -E '[k]ube-(apiserver|controller|scheduler)|[e]tcd --'",
    "its data": "ls -A /var/lib/etcd",
}
SETTLE = 12.0  # seconds of asking on each side of what is done
MOST_SECONDS = 6.0  # a connection's limit, two checks and theirs, a second each, and what a loaded machine adds


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Five bare hosts in a lab of their own."""
    folder = tmp_path_factory.mktemp("control-planes")
    lab = Lab(folder / "lab")
    lab.up(plan(",".join((*PLANES, *WORKERS)), number=1))
    yield Site(lab, folder)
    if not os.environ.get("SHIPWAY_KEEP_LAB"):
        lab.down()


@pytest.fixture(scope="module")
def made(site: Site) -> Ran:
    """The first run."""
    ran = site.run(seconds=900)
    print(f"three control planes, two workers, {ran.report['gpus']['verified']} GPUs proven: {ran.seconds:.0f} s")
    return ran


@pytest.fixture(scope="module")
def holder(site: Site, made: Ran) -> str:
    """Return which container a pod with a GPU runs in, and how often it was started anew."""
    assert made.code == 0
    site.lab.exec("cp2", "sh", "-c", f"kubectl --kubeconfig {ADMIN} apply -f -", give=HOLDER)
    site.on("cp2", f"kubectl --kubeconfig {ADMIN} wait --for=condition=Ready pod/holds-a-gpu --timeout=90s")
    return holds(site, "cp2")


def holds(site: Site, host: str) -> str:
    """Return the pod's container and its restarts, by one control plane's own kubectl."""
    said = "{.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}"
    return site.on(host, f"kubectl --kubeconfig {ADMIN} get pod holds-a-gpu -o jsonpath='{said}'")


def changes(ran: Ran) -> list[str]:
    """Return what a run changed, on hosts and in the cluster."""
    rows = [(stage, row) for stage in ran.report["stages"] for row in stage["rows"]]
    return [f"{stage['host']}: {row['step']}" for stage, row in rows if row["outcome"] == "changed"]


def nodes(site: Site, host: str) -> dict[str, bool]:
    """Return each node and whether it is Ready, by one control plane's own kubectl."""
    said = site.on(host, f"kubectl --kubeconfig {ADMIN} get nodes --no-headers")
    return {line.split()[0]: line.split()[1] == "Ready" for line in said.splitlines()}


def members(site: Site, host: str) -> list[dict[str, Any]]:
    """Return etcd's members as a control plane's own etcd tells them."""
    pki = "/etc/kubernetes/pki/etcd"
    key = f"--cacert {pki}/ca.crt --cert {pki}/healthcheck-client.crt --key {pki}/healthcheck-client.key"
    text = site.on(host, f"curl -s {key} -d {{}} https://127.0.0.1:2379/v3/cluster/member/list")
    found: list[dict[str, Any]] = json.loads(text)["members"]
    return found


def asked(site: Site, what: Callable[[], object]) -> tuple[float, int]:
    """Return the longest time without an answer while something is done, in seconds, and the number of answers."""
    site.on("w1", f"rm -f /run/asked; systemd-run --quiet --collect --unit=lab-client sh -c {shlex.quote(CLIENT)}")
    time.sleep(2)
    what()
    time.sleep(SETTLE)
    site.on("w1", "systemctl stop lab-client || true")
    rows = [line.split() for line in site.on("w1", "cat /run/asked").splitlines()]
    good = [float(row[0]) for row in rows if row[1:] == ["200"]]
    gaps = [after - before for before, after in itertools.pairwise(good)]
    last = float(rows[-1][0]) - good[-1]
    print(f"{len(rows)} questions, {len(good)} answers, longest gap {max(*gaps, last):.1f} s")
    return max(*gaps, last), len(good)


def test_three_control_planes_and_two_workers_are_made_in_one_run_and_every_gpu_is_proven(
    site: Site, made: Ran
) -> None:
    assert made.code == 0, made.output
    assert nodes(site, "cp3") == dict.fromkeys((*PLANES, *WORKERS), True)
    assert (made.report["gpus"]["expected"], made.report["gpus"]["verified"]) == (4, 4)
    found = members(site, "cp2")
    assert sorted(one["name"] for one in found) == list(PLANES)
    assert not any(one.get("isLearner") for one in found)


def test_the_name_leads_to_each_hosts_own_way_and_no_key_was_left_in_the_cluster(site: Site, made: Ran) -> None:
    assert made.code == 0
    for number, host in enumerate(PLANES, 11):
        assert site.on(host, f"getent ahostsv4 {NAME} | cut -d' ' -f1 | sort -u").split() == [f"172.30.1.{number}"]
        assert site.holds(host, "[ ! -e /var/lib/shipway/control-plane-join-started ]")
    for host in WORKERS:
        assert site.on(host, f"getent ahostsv4 {NAME} | cut -d' ' -f1 | sort -u").split() == ["127.0.0.1"]
        assert site.holds(host, "systemctl is-active -q shipway-api-proxy")
    secrets = site.kubectl("-n kube-system get secrets -o name")
    assert "kubeadm-certs" not in secrets
    assert "bootstrap-token" not in site.kubectl("-n kube-system get secrets -o jsonpath='{..description}'")


def test_a_second_run_changes_nothing(site: Site, made: Ran) -> None:
    assert made.code == 0
    again = site.run()
    assert again.code == 0, again.output
    assert changes(again) == []


def test_a_client_on_a_worker_hardly_sees_that_an_api_server_stops(site: Site, made: Ran) -> None:
    assert made.code == 0
    manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
    gap, answers = asked(site, lambda: site.on("cp2", f"mv {manifest} /root/"))
    site.on("cp2", f"mv /root/kube-apiserver.yaml {manifest}")
    assert answers > 20
    assert gap < MOST_SECONDS


def test_the_loss_of_a_whole_control_plane_host_costs_seconds_and_the_others_lead(site: Site, made: Ran) -> None:
    assert made.code == 0
    wait_ready(site, "cp2")
    gap, answers = asked(site, lambda: site.lab.engine().docker("kill", "cp1"))
    assert answers > 20
    assert gap < MOST_SECONDS
    names = site.on("cp2", f"kubectl --kubeconfig {ADMIN} get nodes -o name")
    assert "node/cp1" in names
    report = drift(site)
    assert [error["host"] for error in report["errors"]] == ["cp1"]
    assert [row["have"] for row in report["findings"]] == ["cp1 (not healthy)"]
    site.lab.engine().docker("start", "cp1")
    site.lab.hosts().plug(site.lab.plan.host("cp1"))
    site.lab.hosts().wait(site.lab.plan.host("cp1"))
    wait_ready(site, "cp1")


def test_afterwards_nothing_is_to_be_changed(site: Site, made: Ran) -> None:
    assert made.code == 0
    deadline = time.monotonic() + 60
    while (left := drift(site)["findings"]) and time.monotonic() < deadline:
        time.sleep(2)
    assert left == []


def test_a_control_plane_that_is_destroyed_is_replaced_by_a_bare_machine_without_a_snapshot(
    site: Site, made: Ran, holder: str
) -> None:
    assert made.code == 0
    runs: list[Ran] = []

    def destroy_and_replace() -> None:
        began = time.monotonic()
        site.lab.fresh("cp1")
        runs.append(site.run(seconds=MOST_TO_REPLACE))
        print(f"replaced {time.monotonic() - began:.0f} s after its destruction began, run {runs[0].seconds:.0f} s")

    gap, answers = asked(site, destroy_and_replace)
    assert runs[0].code == 0, runs[0].output
    assert answers > 20
    assert gap < MOST_SECONDS
    assert nodes(site, "cp1") == dict.fromkeys((*PLANES, *WORKERS), True)
    assert sorted(one["name"] for one in members(site, "cp1")) == list(PLANES)
    assert holds(site, "cp1") == holder


def test_a_second_run_after_the_replacement_changes_nothing(site: Site, made: Ran, holder: str) -> None:
    assert made.code == 0
    again = site.run()
    assert again.code == 0, again.output
    assert changes(again) == []
    assert holds(site, "cp3") == holder


def fewer(site: Site, *planes: str) -> None:
    """Write the cluster file with these control planes, and the workers."""
    rows = content(site.lab.plan, site.lab.state)["hosts"]
    site.cluster_file(hosts=[row for row in rows if row["name"] in (*planes, *WORKERS)])


def test_a_healthy_control_plane_is_not_removed_unasked_and_a_plan_names_all_that_would_be_done(
    site: Site, made: Ran
) -> None:
    assert made.code == 0
    refused = command(site, "remove", "cp3", "--plan")
    assert [error["code"] for error in refused.report["errors"]] == ["SHW-707"], refused.output
    before = site.on("cp3", STATE), members(site, "cp1"), nodes(site, "cp1")
    plan = command(site, "remove", "cp3", "--plan", "--to-replace")
    assert plan.report["outcome"] == "planned", plan.output
    would = {row["step"] for stage in plan.report["stages"] for row in stage["rows"] if row["outcome"] == "drifted"}
    assert {"cp3 is no member of etcd", "node cp3 is not in the cluster", "nothing of kubeadm's is left"} <= would
    assert (site.on("cp3", STATE), members(site, "cp1"), nodes(site, "cp1")) == before


def test_three_become_one_and_a_client_on_a_worker_hardly_sees_it(site: Site, made: Ran, holder: str) -> None:
    assert made.code == 0
    fewer(site, "cp1")
    for leaving, left in (("cp3", ["cp1", "cp2"]), ("cp2", ["cp1"])):
        ran: list[Ran] = []
        gap, answers = asked(site, lambda host=leaving, ran=ran: ran.append(command(site, "remove", host)))
        print(f"{leaving} removed in {ran[0].seconds:.0f} s")
        assert ran[0].report["outcome"] == "ok", ran[0].output
        assert answers > 20
        assert gap < MOST_SECONDS
        assert sorted(one["name"] for one in members(site, "cp1")) == left
        assert sorted(nodes(site, "cp1")) == [*left, *WORKERS]
        looks = {**CLEAN, **CLEAN_OF_CONTROL_PLANE}
        seen = {
            what: site.on(leaving, f"{{ {script}; }} 2>/dev/null || true").strip() for what, script in looks.items()
        }
        assert {what: said for what, said in seen.items() if said} == {}
    for host in WORKERS:
        assert site.on(host, f"getent ahostsv4 {NAME} | cut -d' ' -f1 | sort -u").split() == ["172.30.1.11"]
        assert site.holds(host, "[ ! -e /etc/systemd/system/shipway-api-proxy.service ]")
    again = site.run()
    assert again.code == 0, again.output
    assert changes(again) == []
    assert holds(site, "cp1") == holder


def test_one_becomes_three_beside_a_pod_that_holds_a_gpu(site: Site, made: Ran, holder: str) -> None:
    assert made.code == 0
    fewer(site, *PLANES)
    grown = site.run(seconds=900)
    print(f"1 -> 3 in {grown.seconds:.0f} s; {changes(grown)}")
    assert grown.report["outcome"] == "drifted", grown.output  # no proxy is brought beside the pod: it is told of
    assert grown.report["errors"] == []
    assert nodes(site, "cp3") == dict.fromkeys((*PLANES, *WORKERS), True)
    assert sorted(one["name"] for one in members(site, "cp2")) == list(PLANES)
    for host, addresses in (("w1", [f"172.30.1.{number}" for number in (11, 12, 13)]), ("w2", ["127.0.0.1"])):
        assert site.on(host, f"getent ahostsv4 {NAME} | cut -d' ' -f1 | sort -u").split() == addresses
    again = site.run()
    assert changes(again) == []
    assert holds(site, "cp2") == holder


def test_a_control_plane_whose_machine_is_gone_is_removed_and_another_one_takes_its_name(
    site: Site, made: Ran, holder: str
) -> None:
    assert made.code == 0
    site.lab.engine().docker("kill", "cp1")
    deadline = time.monotonic() + 120
    while nodes(site, "cp2")["cp1"]:
        assert time.monotonic() < deadline, "the cluster does not take cp1 for lost"
        time.sleep(2)
    alive = command(site, "remove", "cp2", "--to-replace", "--plan")
    assert [error["code"] for error in alive.report["errors"]] == ["SHW-707"], alive.output
    gone = command(site, "remove", "cp1", "--dead")
    assert gone.report["outcome"] == "ok", gone.output
    assert sorted(one["name"] for one in members(site, "cp2")) == ["cp2", "cp3"]
    assert "cp1" not in nodes(site, "cp2")
    site.lab.fresh("cp1")
    back = site.run(seconds=MOST_TO_REPLACE)
    assert back.report["errors"] == [], back.output
    assert sorted(one["name"] for one in members(site, "cp1")) == list(PLANES)
    assert holds(site, "cp1") == holder


def wait_ready(site: Site, host: str) -> None:
    """Wait until a control plane's own API server is ready, and every node is."""
    ready = "curl -sk --max-time 2 https://127.0.0.1:6443/readyz"
    deadline = time.monotonic() + 120
    while site.on(host, f"{ready} || true").strip() != "ok" or not all(nodes(site, host).values()):
        assert time.monotonic() < deadline, f"{host} is not ready"
        time.sleep(1)


def drift(site: Site) -> dict[str, Any]:
    """Return the report of a pass that only looks."""
    return command(site, "drift_repair", "--repair", "none").report


def command(site: Site, verb: str, *words: str) -> Ran:
    """Run another verb on the cluster file to its end."""
    report = Path(site.folder / f"{verb}.json")
    report.unlink(missing_ok=True)
    line = (sys.executable, "-m", f"flows.{verb}", str(site.folder / "cluster.yaml"), *words, "--report", str(report))
    env = {**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1"}
    began = time.monotonic()
    ran = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    print(f"\n$ flows.{verb} {' '.join(words)}: exit {ran.returncode}, {took:.1f} s\n{ran.stdout}{ran.stderr}")
    return Ran(ran.returncode, ran.stdout + ran.stderr, took, json.loads(report.read_text()) if report.exists() else {})
