"""A running cluster is hardened: one that does not come up is put back, Secrets are encrypted in etcd, pods live on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest

from flows.backup import backup
from flows.harden import harden
from shipway.backup.script import ROOT
from shipway.kubeadm.hardening import AUDIT_LOG, ENCRYPTION
from shipway.steps.hardening.manifest import KEPT
from shipway.steps.kubernetes.static_pods import AWAY
from tasks.report import Report
from tests.lab.conftest import Site
from tests.lab.drifting import passed

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
PODS = "ctr -n k8s.io tasks ls | awk '$3 == \"RUNNING\" { print $1, $2 }' | sort"
MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
# How many Secrets lie in etcd by how they begin: another way than the product's, by the keys one after the other.
STORED = r"""
id=$(for c in $(ctr -n k8s.io containers ls -q 'labels."io.kubernetes.container.name"==etcd'); do
  ctr -n k8s.io tasks ls | awk -v c="$c" '$1 == c && $3 == "RUNNING" { print c }'; done)
pki=/etc/kubernetes/pki/etcd
number=0
etcdctl() { # each look has a name of its own, and leaves the list of keys alone
  number=$((number + 1))
  ctr -n k8s.io tasks exec --exec-id "look-$$-$number" "$id" etcdctl --endpoints=https://127.0.0.1:2379 \
    --cacert=$pki/ca.crt --cert=$pki/healthcheck-client.crt --key=$pki/healthcheck-client.key get "$@" </dev/null
}
keys=$(etcdctl /registry/secrets/ --prefix --keys-only)
for key in $keys; do
  number=$((number + 1))
  etcdctl "$key" --print-value-only | head -c 30 | tr -c '[:print:]' '.'; echo
done | sed 's/^k8s\.\..*/plain/' | sort | uniq -c
"""
HARDENING: dict[str, Any] = {
    "audit": {"enabled": True, "max_backups": 2, "max_size_mib": 5},
    # The kernel's settings are the machine's: the lab may not set them.
    "kubelet": {"enabled": True, "protect_kernel_defaults": False},
    "control_plane": True,
    "encryption_at_rest": True,
}


def _fly(site: Site, mode: Literal["harden", "plan"] = "harden") -> Report:
    """Return the report of a run in this process."""

    async def fly() -> Report:
        state = await harden(str(site.folder / "cluster.yaml"), mode, return_state=True)
        report = await state.aresult(raise_on_failure=False)
        assert isinstance(report, Report), report
        return report

    report = asyncio.run(fly())
    print(report.seconds, report.outcome, dict(report.counted), *report.errors, *report.warnings, sep="\n  ")
    return report


def _changed(report: Report) -> list[str]:
    return [f"{stage.host}: {row.step}" for stage in report.stages for row in stage.rows if row.outcome == "changed"]


def _state(site: Site) -> dict[str, str]:
    look = "sha256sum /etc/kubernetes/manifests/* /var/lib/kubelet/config.yaml 2>/dev/null; ls -A /etc/kubernetes"
    return {host.name: site.on(host.name, look) for host in site.lab.plan.hosts}


@pytest.fixture(scope="module")
def running(drifting: Site) -> Site:
    """A running cluster with a Secret in plain."""
    drifting.kubectl("create secret generic before --from-literal=a=never-in-an-audit-log")
    return drifting


def test_an_api_server_that_does_not_come_up_is_put_back_and_says_why(running: Site, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Everything}]\n")
    running.cluster_file(hardening={"audit": {"enabled": True, "policy": str(policy)}})
    before = running.on("cp1", f"cat {MANIFEST}")
    pods = running.on("w1", PODS)
    report = _fly(running)
    assert report.outcome == "failed"
    (error,) = report.errors
    assert error.code == "SHW-808"
    assert "Everything" in error.cause
    assert running.on("cp1", f"cat {MANIFEST}") == before
    assert running.holds("cp1", f"[ ! -e {KEPT} ] && [ ! -e {AWAY} ]")
    assert running.kubectl("get --raw /readyz") == "ok"
    assert "audit" not in running.kubectl("-n kube-system get configmap kubeadm-config -o yaml")
    assert running.on("w1", PODS) == pods


def test_a_running_cluster_is_hardened_and_proven_and_a_second_run_changes_nothing(running: Site) -> None:
    running.cluster_file(hardening=HARDENING)
    before, names = _state(running), [host.name for host in running.lab.plan.hosts]
    assert "plain" in running.on("cp1", STORED)
    plan = _fly(running, "plan")
    assert plan.outcome == "planned"
    assert _state(running) == before
    foreseen = {row.step for stage in plan.stages for row in stage.rows if row.outcome == "drifted"}
    pods = {name: running.on(name, PODS) for name in names[1:]}

    report = _fly(running)
    assert report.outcome == "ok"
    done = {line.partition(": ")[2] for line in _changed(report)}
    assert done == foreseen
    stored = running.on("cp1", STORED)
    print(stored)
    assert "plain" not in stored
    assert "k8s:enc:secretbox:v1:shipway1:" in stored
    assert {name: running.on(name, PODS) for name in names[1:]} == pods
    flags = running.on("cp1", "ps -ww -o args= -C kube-apiserver,kube-controller,kube-scheduler")
    assert flags.count("--profiling=false") == 3
    assert running.on("cp1", f"stat -c '%a %U' {ENCRYPTION}").strip() == "600 root"
    assert running.kubectl("get secret before -o jsonpath={.data.a}") != ""
    running.kubectl("create secret generic after --from-literal=a=never-in-an-audit-log")
    log = running.on("cp1", f"cat {AUDIT_LOG}")
    assert '"resource":"secrets"' in log
    assert "never-in-an-audit-log" not in log
    assert "bmV2ZXItaW4tYW4tYXVkaXQtbG9n" not in log
    assert "tlsCipherSuites" in running.kubectl("get --raw /api/v1/nodes/w1/proxy/configz")
    record = running.kubectl("-n kube-system get configmap kubeadm-config -o yaml")
    assert "encryption-provider-config" in record

    again = _fly(running)
    assert (again.outcome, _changed(again)) == ("ok", [])
    found = [f"{one.host} {one.step}: {one.have}" for one in passed(running, "none").findings]
    assert found == []


def test_what_went_away_is_found_and_brought_back_by_a_repair(running: Site) -> None:
    running.cluster_file(hardening=HARDENING)
    running.on("cp1", f"sed -i '/--audit-log-path/d' {MANIFEST} && chmod 644 {ENCRYPTION}")
    asyncio.run(asyncio.sleep(3))  # the kubelet starts the API server anew by itself
    repaired = {one.step for one in passed(running, "service").findings if one.action == "repaired"}
    assert "kube-apiserver runs with what hardening declares" in repaired
    assert "the key of encryption at rest is there" in repaired
    assert running.on("cp1", f"grep -c -- --audit-log-path {MANIFEST}").strip() == "1"


def test_a_backup_carries_the_key_and_is_not_restored_without_it(running: Site) -> None:
    running.cluster_file(hardening=HARDENING)

    async def fly() -> Report:
        state = await backup(str(running.folder / "cluster.yaml"), return_state=True)
        found: Report = await state.aresult(raise_on_failure=False)
        print(state.message)
        assert "with the key of encryption at rest" in str(state.message)
        return found

    assert asyncio.run(fly()).outcome == "ok"
    name = running.on("cp1", f"ls {ROOT}").split()[-1]
    assert running.holds("cp1", f"cmp -s {ROOT}/{name}/files{ENCRYPTION} {ENCRYPTION}")
    assert running.on("cp1", f"stat -c %a {ROOT}/{name}/files{ENCRYPTION}").strip() == "600"
    refuse = f"mv {ENCRYPTION} /root/key; bash /var/lib/shipway/backup/host.sh restore {ROOT}/{name}; "
    said = running.on("cp1", f"{refuse} mv /root/key {ENCRYPTION}")
    assert "shipway-backup[no-key]" in said
    running.on("cp1", f"mv {ENCRYPTION} /root/key")
    plan = _fly(running, "plan")
    running.on("cp1", f"mv /root/key {ENCRYPTION}")
    assert [error.code for error in plan.errors] == ["SHW-805"]
    assert f"{ROOT}/{name}/files{ENCRYPTION}" in plan.errors[0].fix
