"""Three control planes lost for good: their machines destroyed, and restored from the copy that this machine keeps.

Then their hosts live and the data of two are gone: one gets the backup, and the others join it anew, also after a kill.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import ROOT as PROJECT
from tests.lab.conftest import Ran, Site
from tests.lab.several_planes import PLANES, command, drift, five, hold, holds, members, nodes

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
ALL = (*PLANES, "w1")
HELD = "/var/lib/shipway/restore"
NEWER = "create configmap newer --from-literal=a=b"
NEWER_POD = "run newer-pod --image=docker.io/library/busybox:1 --restart=Never -- sleep 86401"
CONFIRMED = ("--from", "newest", "--confirm", "lab")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three control planes and a worker in a lab of their own, whose file keeps backups on this machine."""
    folder = tmp_path_factory.mktemp("total-loss")
    with five(folder, 3, ("w1",)) as made:
        made.cluster_file(backup={"keep_local": str(folder / "kept")})
        yield made


@pytest.fixture(scope="module")
def made(site: Site) -> Ran:
    """The cluster."""
    ran = site.run(seconds=900)
    assert ran.code == 0, ran.output
    return ran


@pytest.fixture(scope="module")
def holder(site: Site, made: Ran) -> str:
    """A pod that holds a GPU, from before the backup."""
    assert made.code == 0
    return hold(site, "cp1")


@pytest.fixture(scope="module")
def backed(site: Site, holder: str) -> Path:
    """A backup, kept here; a ConfigMap and a pod are newer than it."""
    assert holder
    site.kubectl("create configmap older --from-literal=a=b")
    ran = command(site, "backup")
    assert ran.code == 0, ran.output
    (kept,) = (site.folder / "kept" / "lab").iterdir()
    site.kubectl(NEWER)
    site.kubectl(NEWER_POD)
    site.kubectl("wait --for=condition=Ready pod/newer-pod --timeout=90s")
    return kept


@pytest.fixture(scope="module")
def destroyed(site: Site, backed: Path) -> Path:
    """All three control planes, replaced by bare machines of their names."""
    site.lab.fresh(*PLANES)
    return backed


def told(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a pass found; a GPU that a pod holds may wait for its proof after the plugin was started anew."""
    return [one for one in report["findings"] if one["id"] != "GpusProvenLater"] + list(report["errors"])


def whole(site: Site, holder: str) -> None:
    """The cluster is the one of before the backup, on three healthy members, and the GPU's holder never stopped."""
    assert nodes(site, "cp2") == dict.fromkeys(ALL, True)
    assert sorted(one["name"] for one in members(site, "cp3")) == list(PLANES)
    found = site.kubectl("get configmaps,pods -o name")
    assert "configmap/older" in found
    assert "newer" not in found
    assert holds(site, "cp1") == holder
    ends = time.monotonic() + 60
    while (left := told(drift(site))) and time.monotonic() < ends:
        time.sleep(2)
    assert left == []


def test_nothing_is_restored_while_the_quorum_stands(site: Site, backed: Path) -> None:
    assert backed
    ran = command(site, "restore", *CONFIRMED)
    assert (ran.code, [error["code"] for error in ran.report["errors"]]) == (1, ["SHW-752"])
    assert "newer" in site.kubectl("get configmaps -o name")


def test_the_plan_of_three_bare_hosts_names_what_will_be_and_changes_nothing(site: Site, destroyed: Path) -> None:
    ran = command(site, "restore", "--plan")
    assert (ran.code, ran.report["outcome"]) == (0, "planned"), ran.output
    said = " ".join(ran.report["warnings"])
    assert f"cp1, a bare host: prepared, given {destroyed.name}" in said
    assert "cp2, cp3: prepared and joined" in said
    assert "cannot be told: the API does not answer" in said
    (on_w1,) = (line for line in ran.report["warnings"] if line.startswith("w1: "))
    print(on_w1)
    assert "began after the backup and will be ended" in on_w1
    assert "default/newer-pod" in on_w1, "what the restore ends is named beforehand, though no API tells it"
    assert "nvidia.com/gpu" not in on_w1, "the GPU's holder is older than the backup, and stays"
    for host in PLANES:
        assert site.holds(host, "[ ! -e /etc/kubernetes ] && [ ! -e /var/lib/shipway ]"), host


def test_three_control_planes_that_were_destroyed_are_restored(site: Site, destroyed: Path, holder: str) -> None:
    assert destroyed
    ran = command(site, "restore", *CONFIRMED)
    assert ran.code == 0, ran.output
    print(f"three destroyed, restored: {ran.seconds:.0f} s")
    whole(site, holder)
    assert not site.holds("w1", "pgrep -fx 'sleep 86401' >/dev/null"), "a pod that the restored cluster does not know"


def test_two_whose_data_are_lost_join_the_third_that_was_restored_also_after_a_kill(
    site: Site, destroyed: Path, holder: str
) -> None:
    """Their databases are made unreadable: one that is empty would join again, for etcd still names it a member."""
    assert destroyed
    assert command(site, "backup").code == 0
    site.kubectl(NEWER)
    for host in ("cp2", "cp3"):
        site.on(host, "mv /etc/kubernetes/manifests/etcd.yaml /root/")
    wait_no_etcd(site, "cp2", "cp3")
    for host in ("cp2", "cp3"):
        site.on(host, "echo garbage >/var/lib/etcd/member/snap/db; mv /root/etcd.yaml /etc/kubernetes/manifests/")
    time.sleep(10)
    words = (sys.executable, "-m", "flows.restore", str(site.folder / "cluster.yaml"), *CONFIRMED)
    env = {**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1"}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=PROJECT, env=env, stdout=quiet, stderr=quiet, start_new_session=True)
    ends = time.monotonic() + 300
    while not site.holds("cp1", f"[ -f {HELD}/restored ]"):
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    site.on("cp1", "systemctl kill -s KILL shipway-restore.service; true")
    ran = command(site, "restore", *CONFIRMED)
    assert ran.code == 0, ran.output
    print(f"ended after the kill: {ran.seconds:.0f} s")
    whole(site, holder)
    for host in ("cp2", "cp3"):
        assert site.on(host, "cat /var/lib/etcd-before-*/member/snap/db").strip() == "garbage"
        assert not site.holds(host, f"[ -e {HELD} ]")
    assert site.on("cp1", "ls -d /var/lib/etcd/member.before-*").count("before") == 1


def wait_no_etcd(site: Site, *hosts: str) -> None:
    """Wait until no etcd runs on these hosts."""
    ends = time.monotonic() + 120
    while any(site.holds(host, "pgrep -x etcd >/dev/null") for host in hosts):
        assert time.monotonic() < ends
        time.sleep(1)
