"""On real hosts with running pods: a file that contradicts them is refused, and a lost kubelet.conf costs no pod."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.conftest import Site

pytestmark = pytest.mark.lab
NAMES = ("cp1", "w1", "w2")
# What a refused run may not change: names, the CA, kubeconfigs, packages, and which containers run since when.
STATE = (
    "cat /etc/hostname /etc/hosts; sha256sum /etc/kubernetes/*.conf /etc/kubernetes/pki/ca.crt; "
    "dpkg-query -W | sha256sum; "
    "ctr -n k8s.io tasks ls | grep RUNNING | awk '{print $1, $2}' | sort; "
    "journalctl --no-pager -q -u shipway-kubeadm-reset -u shipway-kubeadm-init -u shipway-kubeadm-join -o cat | wc -l"
)


def _state(site: Site) -> dict[str, str]:
    return {name: site.on(name, STATE) for name in NAMES}


def _kept(site: Site) -> str:
    (path,) = (site.folder / "controller").glob("*/kubeconfig")
    return path.read_text()


def _changed(site: Site, **over: Any) -> Path:
    """Write the cluster file with these values put over it."""
    path = site.cluster_file()
    data = yaml.safe_load(path.read_text())
    data["hosts"] = over.pop("hosts", data["hosts"])
    path.write_text(yaml.safe_dump({**data, **over}))
    return path


@pytest.fixture(scope="module")
def built(drifting: Site) -> Site:
    """A cluster of the three hosts, its pods running."""
    return drifting


def _hosts(site: Site) -> list[dict[str, Any]]:
    hosts: list[dict[str, Any]] = yaml.safe_load(site.cluster_file().read_text())["hosts"]
    return hosts


@pytest.mark.parametrize("case", ["swapped", "roles", "copied", "state_dir lost"])
def test_four_contradictions_are_four_refusals_and_no_pod_notices(built: Site, case: str) -> None:
    before, kubeconfig = _state(built), _kept(built)
    assert all(len(re.findall(r"^[0-9a-f]{64} \d+$", text, re.MULTILINE)) > 1 for text in before.values()), "pods run"
    plain = [{key: value for key, value in host.items() if key != "roles"} for host in _hosts(built)]
    swapped = [plain[1], plain[0], *plain[2:]]
    named = [{**host, "roles": ["control_plane" if host["name"] == "w2" else "worker"]} for host in plain]
    over: dict[str, Any] = {
        "swapped": {"hosts": swapped},
        "roles": {"hosts": named},
        "copied": {"name": "another"},
        "state_dir lost": {"hosts": swapped, "state_dir": str(built.folder / "lost")},
    }[case]
    _changed(built, **over)
    ran = built.run()
    built.cluster_file()
    assert (ran.code, ran.report["outcome"]) == (1, "refused")
    assert "cp1" in {error["host"] for error in ran.report["errors"]}
    assert {error["code"] for error in ran.report["errors"]} <= {"SHW-317", "SHW-319"}
    assert _state(built) == before
    assert _kept(built) == kubeconfig
    assert not list((built.folder / "lost").glob("*/kubeconfig"))


def test_a_lost_kubelet_conf_beside_running_pods_is_reported_and_the_advice_brings_it_back(built: Site) -> None:
    def running() -> str:
        return built.on("w1", "ctr -n k8s.io tasks ls | grep RUNNING | awk '{print $1, $2}' | sort")

    before = running()
    assert before
    built.on("w1", "mv /etc/kubernetes/kubelet.conf /root/lost.conf; systemctl stop kubelet")
    for _ in range(90):  # the API takes a node for Ready until its kubelet has been silent for 40 seconds
        if "NotReady" in built.kubectl("get node w1 --no-headers"):
            break
        time.sleep(1)
    ran = built.run()
    (error,) = [one for one in ran.report["errors"] if one["host"] == "w1"]
    assert (ran.code, error["code"], error["retryable"]) == (2, "SHW-323", False)
    assert running() == before
    assert built.holds("w1", "[ ! -e /etc/kubernetes/kubelet.conf ]")
    assert "kubeadm reset" not in built.on("w1", "journalctl --no-pager -q -u shipway-kubeadm-reset -o cat; true")
    read, make = re.findall(r"`((?:kubectl|kubeadm) [^`]*)`", error["fix"])
    built.on("cp1", read)
    made = built.on("cp1", f"{make} 2>/dev/null")
    built.lab.exec("w1", "sh", "-c", "umask 077; cat > /etc/kubernetes/kubelet.conf", give=made)
    built.on("w1", "systemctl restart kubelet")
    again = built.run()
    assert (again.code, again.report["outcome"]) == (0, "ok")
    assert running() == before
