"""A worker is removed from a real cluster: a GPU job saves its work, the host is clean by an independent look."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from flows.remove import remove
from flows.reset import reset
from tasks.report import Report
from tests.lab.conftest import Site

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
HOST = "w2"
RULES = (
    "-A INPUT -s 192.0.2.7/32 -p tcp -m tcp --dport 8443 -j ACCEPT",
    "-N SITE-OWN",
    "-A SITE-OWN -j RETURN",
    "-A FORWARD -s 192.0.2.0/24 -j SITE-OWN",
)
SAVED = "iptables-save | grep -v '^#' | sed 's/\\[[0-9:]*\\]//'"
# What must print nothing: no line of it is Shipway's, so that a mistake in its own looks does not hide here.
CLEAN = {
    "processes": "ps -eo args= | grep -E '[k]ubelet|[k]ube-proxy|containerd-[s]him|/[p]ause|[l]ab-cni|[d]evice-plugin'",
    "ports": "ss -ltnH | awk '{print $4}' | grep -E ':(10250|10256|10248|10249)$'",
    "mounts": "grep -E '/var/lib/kubelet/|/k8s.io/|/netns/cni-' /proc/mounts",
    "links": "ip -o link | grep -vE ' (lo|eth0)[@:]'",
    "routes": "ip -4 route | grep '^10.244'",
    "network namespaces": "ls -A /run/netns 2>/dev/null",
    "chains": "iptables-save | grep -E 'KUBE-|CNI-|cali-'; ip6tables-save | grep -E 'KUBE-|CNI-|cali-'",
    "files": (
        "find /etc/kubernetes /var/lib/kubelet /etc/cni/net.d /var/lib/cni /var/lib/shipway /run/shipway /etc/shipway "
        "-type f ! -name '.*' 2>/dev/null; grep -rIl -i shipway /etc 2>/dev/null"
    ),
    "holds": "apt-mark showhold",
    "containers": "ctr -n k8s.io containers ls -q",
}


# A GPU job that saves its work when it is told to end, and goes on elsewhere.
SAVED_IN = "/run/lab-saved"
JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: saves}
spec:
  template:
    metadata: {annotations: {shipway.dev/gpu-jobs: checkpoint, shipway.dev/checkpoint-seconds: "20"}}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 60
      runtimeClassName: nvidia
      affinity:
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - {weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [w2]}]}}
      containers:
      - name: c
        image: docker.io/library/busybox:1
        command: [sh, -c, "trap 'sleep 5; date > /work/saved; exit 3' TERM; while :; do sleep 1; done"]
        resources: {limits: {nvidia.com/gpu: 1}}
        volumeMounts: [{name: work, mountPath: /work}]
      volumes: [{name: work, hostPath: {path: /run/lab-saved, type: DirectoryOrCreate}}]
"""
GUARD = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: left-over}
webhooks:
- name: left.over.example
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {namespace: default, name: nobody}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
"""


def apply(site: Site, text: str) -> None:
    """Apply manifests by kubectl."""
    site.on("cp1", f"cat > /tmp/retire.yaml <<'EOF'\n{text}\nEOF")
    site.kubectl("apply -f /tmp/retire.yaml")


def wait_for_job(site: Site, host: str) -> None:
    """Wait until the job's only pod runs on a host."""
    wanted, ends = f"{host} Running", time.monotonic() + 60
    line = "get pods -l job-name=saves -o jsonpath='{.items[*].spec.nodeName} {.items[*].status.phase}'"
    while (seen := site.kubectl(line)) != wanted:
        assert time.monotonic() < ends, f"{seen}, not {wanted}"
        time.sleep(1)


def run_flow(site: Site, flow: Any, *parameters: Any) -> Any:
    """Return what a flow ended with: its report, or its refusal."""

    async def fly() -> Any:
        state = await flow(str(site.folder / "cluster.yaml"), HOST, *parameters, return_state=True)
        return await state.aresult(raise_on_failure=False)

    return asyncio.run(fly())


def changes(report: Report) -> list[str]:
    """Return the steps that changed something."""
    return [row.step for stage in report.stages for row in stage.rows if row.outcome == "changed"]


@pytest.fixture(scope="module")
def site(drifting: Site) -> Site:
    """The cluster of all tests, with rules of the site's own on the host."""
    for rule in RULES:
        drifting.on(HOST, f"iptables {rule}")
    return drifting


def test_a_node_is_not_reset_and_a_plan_of_its_removal_changes_nothing(site: Site) -> None:
    files = "find /etc /var/lib/kubelet -xdev -type f -exec sha256sum {} + | sort"
    before = site.on(HOST, files), site.kubectl("get nodes -o name")
    refused = run_flow(site, reset, HOST, "reset")
    assert isinstance(refused, Report)
    assert (refused.outcome, [error.code for error in refused.errors]) == ("refused", ["SHW-702"])
    plan = run_flow(site, remove, "plan")
    assert plan.outcome == "planned", plan.errors
    would = [row.step for stage in plan.stages for row in stage.rows if row.outcome == "drifted"]
    assert f"node {HOST} is not in the cluster" in would
    assert "nothing of kubeadm's is left" in would
    assert (site.on(HOST, files), site.kubectl("get nodes -o name")) == before


def test_a_webhook_that_nobody_answers_for_holds_it_up(site: Site) -> None:
    apply(site, GUARD)
    try:
        refused = run_flow(site, remove, "plan")
    finally:
        site.kubectl("delete validatingwebhookconfiguration left-over")
    assert (refused.outcome, [error.code for error in refused.errors]) == ("refused", ["SHW-830"])
    assert "left-over/left.over.example" in refused.errors[0].cause


def test_a_removed_worker_leaves_nothing_in_the_cluster_or_on_its_host(site: Site) -> None:
    apply(site, JOB)
    wait_for_job(site, HOST)
    report = run_flow(site, remove, "remove")
    assert site.holds(HOST, f"[ -s {SAVED_IN}/saved ]"), "the job was given the time that it says it needs"
    wait_for_job(site, "w1")
    site.kubectl("delete job saves")
    assert report.outcome == "ok", report.errors
    assert HOST in report.warnings[0], "it still stands in the file"
    for what in ("node", "csinode", "lease -n kube-node-lease"):
        assert HOST not in site.kubectl(f"get {what} -o name")
    assert HOST not in site.kubectl("get csr -o jsonpath={.items[*].spec.username}").split(":")
    left = {what: site.on(HOST, f"{{ {script}; }} 2>/dev/null || true").strip() for what, script in CLEAN.items()}
    assert {what: said for what, said in left.items() if said} == {}
    assert site.holds(HOST, "! systemctl -q is-enabled kubelet")
    saved = site.on(HOST, SAVED)
    assert [rule for rule in RULES if not rule.startswith("-N") and rule not in saved] == []
    assert re.search(r"^:SITE-OWN", saved, re.MULTILINE)


def test_a_second_reset_changes_nothing_and_the_host_passes_preflight(site: Site) -> None:
    report = run_flow(site, reset, HOST, "reset")
    assert report.outcome == "ok", report.errors
    assert changes(report) == []
    assert {stage.outcome for stage in report.stages} == {"ok"}
    again = run_flow(site, remove, "remove")
    assert (again.outcome, changes(again)) == ("ok", [])


def test_a_bootstrap_joins_it_again_with_every_gpu_proven(site: Site) -> None:
    ran = site.run()
    assert ran.code == 0, ran.output
    assert ran.report["gpus"]["verified"] == 4
    for rule in reversed(RULES):
        site.on(HOST, f"iptables {rule.replace('-A ', '-D ', 1).replace('-N ', '-X ', 1)}")
