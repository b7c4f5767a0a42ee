"""Three control planes and two workers: made in one run, and the API outlives the loss of any one of the three."""

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

from lab.containers.lab import Lab
from lab.containers.model import plan
from tests.lab.conftest import ROOT, Ran, Site

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
PLANES, WORKERS = ("cp1", "cp2", "cp3"), ("w1", "w2")
NAME = "api.lab.internal"
# A client that connects anew five times a second, as nobody patient would: a second is all that an answer may take.
CLIENT = (
    "while :; do s=$(date +%s.%N); "
    f"c=$(curl -sk --max-time 1 -o /dev/null -w '%{{http_code}}' https://{NAME}:6443/readyz); "
    'echo "$s $c" >>/run/asked; sleep 0.2; done'
)
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
    return site.run()


def nodes(site: Site, host: str) -> dict[str, bool]:
    """Return each node and whether it is Ready, by one control plane's own kubectl."""
    said = site.on(host, "kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes --no-headers")
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
    assert [host["steps"]["changed"] for host in again.report["hosts"]] == [0] * 5


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
    names = site.on("cp2", "kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes -o name")
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


def wait_ready(site: Site, host: str) -> None:
    """Wait until a control plane's own API server is ready, and every node is."""
    ready = "curl -sk --max-time 2 https://127.0.0.1:6443/readyz"
    deadline = time.monotonic() + 120
    while site.on(host, f"{ready} || true").strip() != "ok" or not all(nodes(site, host).values()):
        assert time.monotonic() < deadline, f"{host} is not ready"
        time.sleep(1)


def drift(site: Site) -> dict[str, Any]:
    """Return the report of a pass that only looks."""
    report = Path(site.folder / "drift.json")
    report.unlink(missing_ok=True)
    words = ("-m", "flows.drift_repair", str(site.folder / "cluster.yaml"), "--repair", "none", "--report", str(report))
    env = {**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1"}
    ran = subprocess.run((sys.executable, *words), cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    print(ran.stdout, ran.stderr)
    found: dict[str, Any] = json.loads(report.read_text())
    return found
