"""Backups on a real control plane: taken, restored to be believed, kept here; and a restore that is broken off."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows.backup import backup
from shipway.backup.script import PLACE, ROOT
from shipway.cluster_file import load_cluster
from tasks.report import Report
from tests.lab.conftest import ROOT as PROJECT
from tests.lab.conftest import Site
from tests.lab.drifting import passed

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
HELD = "/var/lib/shipway/restore"


@pytest.fixture(scope="module")
def backed(drifting: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The shared cluster, whose file declares backups."""
    declared = {"every_hours": 6, "keep": 5, "keep_local": str(tmp_path_factory.mktemp("kept"))}
    drifting.cluster_file(backup=declared)
    return drifting


def taken(site: Site, **given: Any) -> Report:
    """Return the report of a backup run."""

    async def fly() -> Report:
        state = await backup(str(site.folder / "cluster.yaml"), return_state=True, **given)
        report = await state.aresult(raise_on_failure=False)
        assert isinstance(report, Report), report
        return report

    return asyncio.run(fly())


def names(site: Site) -> list[str]:
    return site.on("cp1", f"ls {ROOT} 2>/dev/null || true").split()


def test_a_plan_of_a_backup_leaves_nothing_on_the_host(backed: Site) -> None:
    report = taken(backed, plan=True)
    assert report.outcome == "planned", report.errors
    assert names(backed) == []


def test_a_backup_is_verified_by_a_restore_and_kept_here(backed: Site) -> None:
    report = taken(backed)
    assert report.outcome == "ok", report.errors
    (name,) = names(backed)
    assert backed.on("cp1", f"find {ROOT} -perm /077") == ""
    assert "keys of" in backed.on("cp1", f"cat {ROOT}/{name}/verified")
    assert backed.on("cp1", "pgrep -cx etcd").strip() == "1", "the throw-away etcd is gone"
    assert "shipway-backup-canary" in backed.kubectl("-n kube-system get configmap shipway-backup-canary -o name")
    kept = load_cluster(backed.folder / "cluster.yaml").backup.keep_local
    (copy,) = Path(str(kept)).glob("lab/2*")
    assert (copy / "snapshot.db").stat().st_size == int(backed.on("cp1", f"stat -c %s {ROOT}/{name}/snapshot.db"))
    again = taken(backed, if_older_hours=1)
    assert (again.outcome, again.counted["changed"]) == ("ok", 0)


def test_the_timer_takes_one_without_prefect_and_drift_sees_an_old_one(backed: Site) -> None:
    assert backed.on("cp1", "systemctl is-enabled shipway-scheduled-backup.timer").strip() == "enabled"
    before = names(backed)
    backed.on("cp1", "systemctl start shipway-scheduled-backup.service")
    assert len(names(backed)) == len(before) + 1
    assert not [one for one in passed(backed, "none").findings if "backup" in one.step]
    for number, name in enumerate(names(backed), 1):
        backed.on("cp1", f"mv {ROOT}/{name} {ROOT}/2026010{number}T000000Z")
    found = {one.step: one for one in passed(backed, "none").findings}
    assert "hours old" in found["the newest verified backup is not too old"].have
    assert taken(backed).outcome == "ok"


def test_a_flipped_byte_is_refused_by_its_own_code(backed: Site) -> None:
    name = names(backed)[-1]
    copy = f"{ROOT}/20260105T000000Z"
    flip = f"cp -a {ROOT}/{name} {copy}; printf X | dd of={copy}/snapshot.db bs=1 seek=5000 conv=notrunc status=none"
    backed.on("cp1", flip)
    said = backed.on("cp1", f"bash {PLACE} verify {copy}; rm -rf {copy}; true")
    assert "shipway-backup[damaged]" in said


def test_a_restore_that_is_killed_is_ended_by_the_next_run(backed: Site) -> None:
    file, env = str(backed.folder / "cluster.yaml"), {**os.environ, "PREFECT_API_URL": backed.api, "NO_COLOR": "1"}
    # By a process that is gone: the lease that a backup holds is in it, and this process's own would still count.
    subprocess.run((sys.executable, "-m", "flows.backup", file), cwd=PROJECT, env=env, check=True, timeout=200)
    backed.kubectl("create configmap newer --from-literal=a=b")
    confirmed = (sys.executable, "-m", "flows.restore", file, "--from", "newest", "--confirm", "lab")
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(confirmed, cwd=PROJECT, env=env, stdout=quiet, stderr=quiet)
    ends = time.monotonic() + 120
    while not backed.holds("cp1", f"[ -f {HELD}/manifests/etcd.yaml ]"):
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    backed.on("cp1", "systemctl kill -s KILL shipway-restore.service; true")
    assert backed.holds("cp1", f"[ -f {HELD}/from ]")
    ran = subprocess.run(confirmed, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "newer" not in backed.kubectl("get configmaps -o name")
    assert not backed.holds("cp1", f"[ -e {HELD} ]")
    assert backed.on("cp1", "ls -d /var/lib/etcd/member.before-*").count("before") == 1
    assert passed(backed, "none").outcome == "ok"
