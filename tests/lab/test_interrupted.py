"""A controller killed at any stage, a host cut off, an init broken in the middle: the next run completes it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.lab.conftest import Site

pytestmark = pytest.mark.lab
CA = "sha256sum /etc/kubernetes/pki/ca.crt"


def test_a_controller_killed_at_five_stages_is_followed_by_a_run_that_ends_ok(site: Site) -> None:
    """Each kill leaves what it leaves; the run after it goes on from there until it is killed at the next stage."""
    moments = {
        "prepare_system": ("w1", "[ -e /etc/sysctl.d/k8s.conf ]"),
        "container_runtime": ("w1", "[ -e /etc/containerd/config.toml ]"),
        "kubernetes_packages": ("w1", "[ -e /usr/bin/kubelet ]"),
        "control_plane": ("cp1", "[ -e /etc/kubernetes/manifests/etcd.yaml ]"),
        "join_worker": ("w1", "[ -e /run/shipway/kubeadm-join.yaml ]"),
    }
    authority, site = "", replace(site, api="")  # each run has an API of its own, which is killed as well
    for stage, (host, test) in moments.items():
        output = site.kill_when(lambda host=host, test=test: site.holds(host, test))  # type: ignore[misc]
        print(f"killed during {stage}:\n{output[-600:]}")
        if stage == "join_worker":
            authority = site.on("cp1", CA)
    ran = site.run()
    assert ran.code == 0
    assert ran.report["outcome"] == "ok"
    assert site.on("cp1", CA) == authority, "the control plane was initialised twice"
    starts = site.on("cp1", "journalctl --no-pager -u shipway-kubeadm-init -o cat | grep -c Started || true")
    assert int(starts) == 1


def test_a_host_that_is_cut_off_is_named_and_the_others_are_verified(site: Site) -> None:
    site.fresh("w1", "w2")
    site.kubectl("delete node w1 w2 --ignore-not-found")
    site.lab.cut("w2")
    partial = site.run()
    assert partial.code == 2
    assert partial.report["outcome"] == "partial"
    assert partial.host("w2")["outcome"] == "failed"
    fault = next(error for error in partial.report["errors"] if error["host"] == "w2")
    assert "172.30.0.13" in fault["cause"]
    assert fault["fix"]
    assert partial.report["gpus"]["verified"] == 2
    site.lab.plug("w2")


def test_a_host_cut_off_in_the_middle_of_its_preparation_is_completed_by_the_next_run(site: Site) -> None:
    """The host of the test before it, still bare."""
    report = site.folder / "report.json"
    process = site.start(report=report)
    try:
        while not site.holds("w2", "[ -e /etc/containerd/config.toml ]"):
            assert process.poll() is None
        site.lab.cut("w2")
        output, _ = process.communicate(timeout=400)
    finally:
        site.lab.plug("w2")
    assert process.returncode == 2, output
    assert re.search(r"w2.*(connect|connection|answer)", output)
    whole = site.run()
    assert whole.code == 0
    assert whole.report["gpus"]["verified"] == 4


def test_an_init_broken_in_the_middle_is_completed_without_losing_etcd(site: Site) -> None:
    site.fresh()
    process = site.start()
    try:
        while not site.holds("cp1", "[ -d /var/lib/etcd/member ]"):
            assert process.poll() is None
        site.on("cp1", "systemctl kill --signal=KILL shipway-kubeadm-init")
        process.communicate(timeout=400)
    finally:
        process.kill()
    authority = site.on("cp1", CA)
    ran = site.run()
    assert ran.code == 0
    assert site.on("cp1", CA) == authority


def test_etcd_data_of_something_unknown_is_never_touched_unasked(site: Site) -> None:
    site.fresh()  # a bare control plane beside joined workers would be refused before anything is looked at there
    site.on("cp1", "mkdir -p /var/lib/etcd/member && echo precious > /var/lib/etcd/member/data")
    refused = site.run()
    assert refused.code in (1, 3)
    assert "--reset cp1" in refused.output
    assert site.on("cp1", "cat /var/lib/etcd/member/data").strip() == "precious"
