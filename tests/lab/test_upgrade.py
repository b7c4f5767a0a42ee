"""On real hosts: to a newer patch and to the next minor, beside a GPU job, a budget, and a run that is killed.

Both versions are the source of 1.20.2 under other labels (lab/containers/labels.py): kubeadm's upgrade, its skew rules,
static pods, packages, kubelets and etcd are real, and nothing is new in them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.containers.lab import Lab
from lab.containers.labels import REPOSITORY, require_labels
from tests.lab.conftest import ROOT, STATE, Ran, Site
from tests.lab.faulting import meanwhile

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
PATCH, MINOR = "1.20.15", "1.21.0"
NAMES = ("cp1", "w1", "w2")
# A GPU job that ends when it is told to, and two replicas of which a budget keeps one.
GATE = "/run/lab-job"
WORK = """
apiVersion: batch/v1
kind: Job
metadata: {name: NAME}
spec:
  template:
    spec:
      restartPolicy: Never
      nodeName: NODE
      runtimeClassName: nvidia
      containers:
      - name: c
        image: docker.io/library/busybox:1
        command: [sh, -c, "until [ -e /gate/open ]; do sleep 1; done"]
        resources: {limits: {nvidia.com/gpu: 1}}
        volumeMounts: [{name: gate, mountPath: /gate}]
      volumes: [{name: gate, hostPath: {path: /run/lab-job, type: DirectoryOrCreate}}]
"""
GUARDED = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: guarded}
spec:
  replicas: 2
  selector: {matchLabels: {app: guarded}}
  template:
    metadata: {labels: {app: guarded}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: docker.io/library/busybox:1, command: [sleep, "86400"]}]
---
apiVersion: policy/v1beta1
kind: PodDisruptionBudget
metadata: {name: guarded}
spec: {minAvailable: 1, selector: {matchLabels: {app: guarded}}}
"""


@pytest.fixture(scope="module")
def site(lab: Lab, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A bootstrapped cluster of its own: what is upgraded here is no cluster for other tests."""
    require_labels(lab.cache)
    lab.fresh()
    made = Site(lab, tmp_path_factory.mktemp("upgrade"), prefect_server)
    write(made, "1.20.2")
    ran = made.run()
    assert ran.code == 0, ran.output
    apply(made, GUARDED)
    made.kubectl("rollout status deployment guarded --timeout=60s")
    return made


def write(site: Site, version: str, **upgrade: Any) -> None:
    """Write the cluster file in a version; its repository is the one of its minor."""
    path = site.cluster_file(upgrade={"soak_seconds": 2, **upgrade})
    data = yaml.safe_load(path.read_text())
    data["kubernetes"] = {**data.get("kubernetes", {}), "version": version}
    data["sources"]["apt"]["kubernetes"]["uri"] = site.lab.plan.apt_url(REPOSITORY)
    path.write_text(yaml.safe_dump(data))


def apply(site: Site, text: str) -> None:
    """Apply manifests by kubectl."""
    site.on("cp1", f"cat > /tmp/work.yaml <<'EOF'\n{text}\nEOF")
    site.kubectl("apply -f /tmp/work.yaml")


def start(site: Site, verb: str, *words: str) -> subprocess.Popen[str]:
    """Start a verb as a person would."""
    env = {**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1", "PREFECT_API_URL": site.api}
    return subprocess.Popen(
        (sys.executable, "-m", f"flows.{verb}", str(site.folder / "cluster.yaml"), *words),
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(site: Site, verb: str, *words: str, seconds: float = 900) -> Ran:
    """Run a verb to its end."""
    report, began = site.folder / "upgrade.json", time.monotonic()
    report.unlink(missing_ok=True)
    process = start(site, verb, "--report", str(report), *words)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    took = time.monotonic() - began
    print(f"\n$ {verb} {' '.join(words)}: exit {process.returncode}, {took:.1f} s\n{output}")
    return Ran(process.returncode, output, took, json.loads(report.read_text()) if report.exists() else {})


def kill_when(site: Site, happened: Callable[[], bool], *, verb: str = "upgrade", seconds: float = 400) -> None:
    """Start a verb, and SIGKILL its controller as soon as something has happened."""
    process, ends = start(site, verb), time.monotonic() + seconds
    try:
        while not happened():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < ends, "what was waited for did not happen"
            time.sleep(0.3)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def rows(ran: Ran, outcome: str) -> set[tuple[str, str]]:
    """Return host and step of what a report says of an outcome."""
    return {
        (stage["host"], row["step"])
        for stage in ran.report["stages"]
        for row in stage["rows"]
        if row["outcome"] == outcome
    }


def nodes(site: Site) -> dict[str, tuple[str, bool]]:
    """Return by node what its kubelet says that it is, and whether it takes pods."""
    listed = json.loads(site.kubectl("get nodes -o json"))["items"]
    return {
        one["metadata"]["name"]: (one["status"]["nodeInfo"]["kubeletVersion"], not one["spec"].get("unschedulable"))
        for one in listed
    }


@contextlib.contextmanager
def watched(site: Site) -> Iterator[list[int]]:
    """Yield how many guarded pods were ready at each look, two a second, while the API answered."""
    seen, over = list[int](), threading.Event()

    def look() -> None:
        while not over.is_set():
            with contextlib.suppress(Exception):
                seen.append(int(site.kubectl("get deployment guarded -o jsonpath={.status.availableReplicas}") or 0))
            over.wait(0.5)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def served(site: Site) -> str:
    """Return what the API server says that it is."""
    version: str = json.loads(site.kubectl("get --raw /version"))["gitVersion"]
    return version


def test_a_file_of_another_version_is_a_finding_and_bootstrap_and_repair_change_nothing(site: Site) -> None:
    write(site, MINOR)
    before = {name: site.on(name, STATE) for name in NAMES}
    refused = site.run()
    assert refused.code == 1
    assert "shipway upgrade" in refused.output
    drift = run(site, "drift_repair", "--repair", "files")
    found = [one for one in drift.report["findings"] if "version" in one["step"]]
    assert [(one["have"], one["action"]) for one in found] == [("v1.20.2", "reported")]
    assert "shipway upgrade" in found[0]["want"]
    assert [one for one in drift.report["findings"] if one["action"] == "repaired"] == []
    assert {name: site.on(name, STATE) for name in NAMES} == before


def test_a_skipped_minor_a_way_back_and_a_budget_without_room_are_refused_at_once(site: Site) -> None:
    site.kubectl('patch pdb guarded -p \'{"spec":{"minAvailable":2}}\'')
    ran = run(site, "upgrade", "--plan", "--to", "1.22.0")
    site.kubectl('patch pdb guarded -p \'{"spec":{"minAvailable":1}}\'')
    assert (ran.code, ran.report["outcome"]) == (1, "refused")
    assert {"SHW-780", "SHW-786"} <= {error["code"] for error in ran.report["errors"]}
    back = run(site, "upgrade", "--to", "1.20.1")
    assert {"SHW-781"} <= {error["code"] for error in back.report["errors"]}
    assert served(site) == "v1.20.2"


def run_job(site: Site, name: str, node: str) -> None:
    """Start a GPU job on a node, which ends when the gate of that host is opened."""
    site.on(node, f"rm -f {GATE}/open")
    apply(site, WORK.replace("NAME", name).replace("NODE", node))
    site.kubectl(f"wait --for=condition=ready pod -l job-name={name} --timeout=90s")


def job(site: Site, name: str) -> tuple[str, str, str]:
    """Return how many pods of a job are active, succeeded and failed."""
    status = "{.status.active},{.status.succeeded},{.status.failed}"
    active, succeeded, failed = site.kubectl(f"get job {name} -o jsonpath='{status}'").split(",")
    return active, succeeded, failed


def is_closed(site: Site, name: str) -> bool:
    """Tell whether a node takes no pods, by an API that answers."""
    with contextlib.suppress(Exception):
        return not nodes(site)[name][1]
    return False


def pods_on(site: Site, node: str) -> set[str]:
    """Return the users' pods on a node, each with its UID and how often its containers were started again."""
    each = "{range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].restartCount}{'\\n'}{end}"
    return set(site.kubectl(f'get pods --field-selector spec.nodeName={node} -o jsonpath="{each}"').splitlines())


@pytest.fixture(scope="module")
def planned(site: Site) -> Ran:
    """The plan of the way to the patch, beside a GPU job on w2; nothing of a host is another one afterwards."""
    write(site, PATCH)
    run_job(site, "train", "w2")
    before = {name: site.on(name, STATE) for name in NAMES}
    plan = run(site, "upgrade", "--plan")
    assert {name: site.on(name, STATE) for name in NAMES} == before
    return plan


@pytest.fixture(scope="module")
def stopped(site: Site, planned: Ran) -> tuple[Ran, set[str]]:
    """The upgrade whose first worker goes bad, by a flag that ends its kubelet; and the pods of w2 before it."""
    assert planned.code == 0
    there = pods_on(site, "w2")
    site.on("w1", "echo KUBELET_EXTRA_ARGS=--no-such-flag > /etc/default/kubelet")
    return run(site, "upgrade"), there


def test_the_plan_names_the_order_and_the_job(planned: Ran) -> None:
    assert (planned.code, planned.report["outcome"]) == (0, "planned")
    assert [(row["host"], row["wave"]) for row in planned.report["order"]] == [
        ("cp1", "control plane 1"),
        ("w1", "first alone"),
        ("w2", "wave 1"),
    ]
    assert "Job default/train" in planned.report["order"][2]["jobs"][0]


def test_a_first_worker_that_goes_bad_stops_the_rest_which_is_untouched(
    site: Site, stopped: tuple[Ran, set[str]]
) -> None:
    ran, there = stopped
    assert (ran.code, ran.report["outcome"]) == (2, "partial")
    codes = {error["code"] for error in ran.report["errors"]}
    assert {"SHW-796", "SHW-797"} <= codes
    assert "no-such-flag" in ran.output, "the kubelet's last words are told"
    assert nodes(site) == {"cp1": (f"v{PATCH}", True), "w1": ("v1.20.2", False), "w2": ("v1.20.2", True)}
    assert there <= pods_on(site, "w2")
    versions = site.on("w2", "kubeadm version -o short; kubelet --version")
    assert versions.split() == ["v1.20.2", "Kubernetes", "v1.20.2"]
    assert job(site, "train") == ("1", "", "")


def test_to_a_newer_patch_as_planned_beside_a_job_that_is_waited_for_and_a_budget(
    site: Site, planned: Ran, stopped: tuple[Ran, set[str]]
) -> None:
    site.on("w1", "rm /etc/default/kubelet")  # it is mended, and the upgrade goes on
    seen: list[tuple[str, str, str]] = []

    def end_late() -> None:
        for _ in range(8):  # longer than a look at the jobs takes, and the next one
            seen.append(job(site, "train"))
            time.sleep(1)
        site.on("w2", f"touch {GATE}/open")

    with watched(site) as ready, meanwhile(lambda: is_closed(site, "w2"), end_late):
        ran = run(site, "upgrade")
    assert ran.code == 0, ran.output
    assert nodes(site) == dict.fromkeys(NAMES, (f"v{PATCH}", True))
    assert served(site) == f"v{PATCH}"
    assert seen == [("1", "", "")] * 8, "its host was closed, and it ran on"
    assert job(site, "train") == ("", "1", ""), "one pod of it ran, to its end"
    assert len(ready) > 20, "the API answered"
    assert min(ready) >= 1, "the budget was kept"
    foreseen, unknown = rows(planned, "drifted"), rows(planned, "unknown")
    changed = rows(stopped[0], "changed") | rows(ran, "changed")
    assert changed <= foreseen | unknown, "nothing happened that the plan did not say"
    tried = changed | rows(stopped[0], "failed")  # systemd starts w1's kubelet again by itself once the flag is gone
    late = {step for step in foreseen - tried if "is drained" not in step[1] and "GPU job" not in step[1]}
    assert late == set(), "all that the plan said happened"
    assert site.kubectl("get pods -n shipway-verify -o name").strip() == ""

    again = run(site, "upgrade")
    assert (again.code, rows(again, "changed")) == (0, set())
    boot = site.run()
    assert boot.code == 0, boot.output
    assert rows(boot, "changed") == set()


def test_to_the_next_minor_by_a_run_that_is_killed_in_every_phase(site: Site) -> None:
    write(site, MINOR)
    run_job(site, "long", "w2")
    newer, older = f"v{MINOR}", served(site)
    backups = site.on("cp1", "ls /var/lib/shipway/backups")

    def on_host(name: str, test: str) -> Callable[[], bool]:
        def holds() -> bool:
            with contextlib.suppress(Exception):
                return site.holds(name, test)
            return False

        return holds

    def proof() -> bool:
        with contextlib.suppress(Exception):
            return "gpu-test-w1" in site.kubectl("get pods -n shipway-verify -o name")
        return False

    kill_when(site, on_host("w1", "[ -x /var/lib/shipway/upgrade/kubeadm ]"))  # while all is fetched
    assert served(site) == older
    assert nodes(site) == dict.fromkeys(NAMES, (older, True))
    kill_when(site, on_host("cp1", "systemctl is-active -q shipway-kubeadm-upgrade"))  # kubeadm works on by itself
    kill_when(site, on_host("cp1", f"kubelet --version | grep -q {newer}"))  # installed, perhaps not yet restarted
    kill_when(site, lambda: is_closed(site, "w1"))  # its drain
    assert nodes(site)["w1"] == (older, False)
    kill_when(site, on_host("w1", f"kubeadm version -o short | grep -q {newer}"))
    kill_when(site, on_host("w1", f"kubelet --version | grep -q {newer}"))
    kill_when(site, proof)
    assert nodes(site)["w1"] == (newer, False)
    kill_when(site, lambda: is_closed(site, "w2"))  # while it waits for the job
    assert nodes(site) == {"cp1": (newer, True), "w1": (newer, True), "w2": (older, False)}
    assert job(site, "long") == ("1", "", "")
    site.on("w2", f"touch {GATE}/open")
    ran = run(site, "upgrade")
    assert ran.code == 0, ran.output
    assert job(site, "long") == ("", "1", "")
    assert nodes(site) == dict.fromkeys(NAMES, (newer, True))
    assert served(site) == newer
    assert len(site.on("cp1", "ls /var/lib/shipway/backups").split()) - len(backups.split()) <= 1, "one was enough"
    holds = {name: site.on(name, "apt-mark showhold").split() for name in NAMES}
    assert all({"kubelet", "kubeadm", "kubectl"} <= set(found) for found in holds.values())
    again = run(site, "upgrade")
    assert (again.code, rows(again, "changed")) == (0, set())
    drift = run(site, "drift_repair", "--repair", "none")
    assert [one for one in drift.report["findings"] if "is not cordoned" in one["step"]] == []
    print([(one["host"], one["step"], one["have"], one["want"]) for one in drift.report["findings"]])


def test_the_backup_that_leads_back_is_there(site: Site) -> None:
    listed = site.on("cp1", "ls /var/lib/shipway/backups")
    assert listed.strip(), "an upgrade takes one before it changes anything"
    assert Path(site.folder / "upgrade.json").exists()
