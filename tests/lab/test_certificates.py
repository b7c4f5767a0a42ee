"""On real hosts: certificates that end soon are renewed and served, and nothing beside the control plane notices."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
import yaml

from flows.certificates import certificates
from shipway.facts.certificates import CertificateAt, CertificateIn
from shipway.kube.access import ADMIN_CONF
from shipway.kubeadm.certificates import LEAFS
from shipway.script import Output
from shipway.steps.kubernetes.static_pods import AWAY
from tasks.certificates.report import CertificatesReport
from tests.lab.conftest import Site

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
SERVED = {2379: "etcd/server", 2380: "etcd/peer", 6443: "apiserver"}
PIDS = "systemctl show -p MainPID --value kubelet containerd"
PODS = "ctr -n k8s.io tasks ls | awk '$3 == \"RUNNING\" { print $1, $2 }' | sort"
# Which container of the control plane runs, by its process: only those four may be others afterwards.
PARTS = (
    "ps -ww -o pid= -o args= -C etcd,kube-apiserver,kube-controller,kube-scheduler | grep /etc/kubernetes | "
    "awk '{ print $2, $1 }' | sort"
)
# $1 days: every certificate of kubeadm's on a control plane, signed anew by its CA for its own key, to end so soon.
SHORTEN = r"""
set -e
cd /etc/kubernetes
again() {
  openssl x509 -x509toreq -copy_extensions copyall -in "$1" -signkey "$2" -out /tmp/again.csr
  openssl x509 -req -copy_extensions copyall -days "$days" -in /tmp/again.csr -CA "pki/$3.crt" -CAkey "pki/$3.key" \
    -CAcreateserial -CAserial /tmp/again.srl -out /tmp/again.crt
  cat /tmp/again.crt > "$1"
}
days=$1
for one in apiserver:ca apiserver-kubelet-client:ca apiserver-etcd-client:etcd/ca front-proxy-client:front-proxy-ca \
  etcd/server:etcd/ca etcd/peer:etcd/ca etcd/healthcheck-client:etcd/ca; do
  again "pki/${one%%:*}.crt" "pki/${one%%:*}.key" "${one#*:}"
done
for conf in admin.conf super-admin.conf controller-manager.conf scheduler.conf; do
  [ -f $conf ] || continue
  for half in certificate key; do sed -n "s/^ *client-$half-data: *//p" $conf | base64 -d > /tmp/again.$half; done
  again /tmp/again.certificate /tmp/again.key ca
  sed -i "s|client-certificate-data:.*|client-certificate-data: $(base64 -w0 /tmp/again.certificate)|" $conf
done
rm -f /tmp/again.*
"""


def _fly(site: Site, mode: Literal["renew", "plan"] = "renew", **more: Any) -> CertificatesReport:
    """Return the report of a run in this process."""

    async def fly() -> CertificatesReport:
        state = await certificates(str(site.folder / "cluster.yaml"), mode, **more, return_state=True)
        report = await state.aresult(raise_on_failure=False)
        assert isinstance(report, CertificatesReport), report
        return report

    report = asyncio.run(fly())
    print(report.seconds, report.outcome, dict(report.counted), *report.errors, sep="\n  ")
    return report


def _changed(report: CertificatesReport) -> list[tuple[str, str]]:
    return [(stage.host, row.step) for stage in report.stages for row in stage.rows if row.outcome == "changed"]


def in_file(site: Site, host: str, path: str) -> tuple[str, float]:
    """Return the serial number and the end of a certificate in a file."""
    info = CertificateIn(path).parse(Output(0, site.lab.exec(host, *CertificateIn(path).words()), ""))
    assert info is not None
    return info.serial, info.ends


def shown(site: Site, port: int, host: str = "cp1") -> str:
    """Return the serial number of the certificate that a control plane's port shows."""
    fact = CertificateAt(site.lab.plan.host(host).address, port)
    info = fact.parse(Output(0, site.lab.exec(host, *fact.words()), ""))
    assert info is not None
    return info.serial


def shorten(site: Site, days: int, host: str = "cp1") -> None:
    """Let every certificate of kubeadm's on a control plane end in so many days."""
    site.lab.exec(host, "bash", "-c", f"( {SHORTEN} ) 2>/dev/null", "bash", str(days))


def test_certificates_that_end_in_ten_days_are_renewed_and_served_and_only_the_control_plane_is_restarted(
    drifting: Site,
) -> None:
    shorten(drifting, 10)
    names = [host.name for host in drifting.lab.plan.hosts]
    pods, pids = ({name: drifting.on(name, look) for name in names} for look in (PODS, PIDS))
    parts = drifting.on("cp1", PARTS)
    short = {leaf.name: in_file(drifting, "cp1", leaf.path) for leaf in LEAFS if leaf.name != "super-admin.conf"}

    plan = _fly(drifting, "plan")
    assert plan.outcome == "planned"
    (row,) = [row for stage in plan.stages for row in stage.rows if row.step == "certificates are valid for 90 days"]
    assert row.outcome == "drifted"
    assert all(f"{name} in 10 days" in row.have for name in short)
    assert drifting.on("cp1", PARTS) == parts

    report = _fly(drifting)
    assert report.outcome == "ok"
    files = {name: in_file(drifting, "cp1", leaf.path) for leaf in LEAFS if (name := leaf.name) in short}
    assert [name for name in files if files[name][0] == short[name][0] or files[name][1] < short[name][1] + 86400] == []
    assert {port: shown(drifting, port) for port in SERVED} == {p: files[name][0] for p, name in SERVED.items()}
    assert not set(drifting.on("cp1", PARTS).splitlines()) & set(parts.splitlines())
    assert len(drifting.on("cp1", PARTS).splitlines()) == len(parts.splitlines()) == 4
    assert {name: drifting.on(name, PIDS) for name in names} == pids
    assert {name: drifting.on(name, PODS) for name in names[1:]} == {name: pods[name] for name in names[1:]}
    gone = set(pods["cp1"].splitlines()) - set(drifting.on("cp1", PODS).splitlines())
    assert 4 <= len(gone) <= 8  # four containers, and the sandboxes of those that did not start anew by themselves
    assert all(one.finding == "" for one in report.certificates if one.renewed_by == "kubeadm")

    assert drifting.kubectl("get nodes --no-headers").count(" Ready") == len(names)
    assert drifting.on("cp1", "su ops -c 'kubectl get nodes --no-headers'").count(" Ready") == len(names)
    (kept,) = (drifting.folder / "controller").glob("*/kubeconfig")
    here, there = (yaml.safe_load(text) for text in (kept.read_text(), drifting.on("cp1", f"cat {ADMIN_CONF}")))
    assert here["users"] == there["users"]  # the server is another: this machine does not know the API's name
    kept_beside = drifting.on("cp1", "stat -c '%a %U' /etc/kubernetes/before-renewal-*").splitlines()
    assert set(kept_beside) == {"700 root"}
    assert drifting.holds("cp1", f"[ ! -e {AWAY} ]")

    again = _fly(drifting)
    assert (again.outcome, _changed(again)) == ("ok", [])
