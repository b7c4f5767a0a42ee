"""Bare hosts become a cluster whose GPUs are proven, a second run changes nothing, and no secret is left anywhere."""

from __future__ import annotations

import re
import sqlite3

import pytest

from tests.lab.conftest import Ran, Site

pytestmark = pytest.mark.lab
TOKEN = re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b")
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture(scope="module")
def site(whole: Site) -> Site:
    """The hosts that the tests of drift go on with."""
    return whole


def _started(site: Site) -> dict[str, str]:
    script = "systemctl show -p ActiveEnterTimestampMonotonic containerd kubelet"
    return {name: site.on(name, script) for name in ("cp1", "w1", "w2")}


def test_a_plan_on_bare_hosts_changes_nothing_and_says_what_would_change(
    planned: tuple[dict[str, str], dict[str, str], Ran],
) -> None:
    before, after, ran = planned
    assert ran.code == 0
    assert before == after
    assert ran.report["mode"] == "plan"
    steps = [host["steps"] for host in ran.report["hosts"]]
    assert all(one["drifted"] > 0 and one["changed"] == 0 for one in steps)
    assert all(one["unknown"] > 0 for one in steps)
    assert "containerd is installed" in ran.output


def test_bare_hosts_become_a_cluster_with_every_gpu_verified(first: Ran, site: Site) -> None:
    assert first.code == 0
    assert first.report["outcome"] == "ok"
    assert first.report["gpus"]["expected"] == 4
    assert first.report["gpus"]["allocatable"] == 4
    assert first.report["gpus"]["verified"] == 4
    assert len(set(first.report["gpus"]["devices"])) == 4
    nodes = site.kubectl("get nodes --no-headers").split("\n")
    assert sum(" Ready " in re.sub(r"\s+", " ", line) for line in nodes) == 3


def test_a_second_run_changes_nothing_and_looks_once_a_stage(first: Ran, site: Site) -> None:
    assert first.code == 0
    before = _started(site)
    again = site.run()
    assert again.code == 0
    for host in again.report["hosts"]:
        assert host["steps"]["changed"] == 0, host
        assert host["steps"]["drifted"] == host["steps"]["failed"] == 0, host
        assert host["round_trips"] <= 7, host  # six stages, and the CA that joins compare with
    for stage in again.report["stages"]:
        assert stage["round_trips"] <= 1, stage
    assert _started(site) == before


def test_every_task_run_is_recorded_in_a_final_state(first: Ran, site: Site) -> None:
    assert first.code == 0
    with sqlite3.connect(site.folder / "prefect" / "prefect.db") as database:
        states = dict(database.execute("select state_type, count(*) from task_run group by state_type").fetchall())
    assert sum(states.values()) >= 3 * (6 + 5)  # three runs so far, at least five stages a host each
    assert set(states) <= set(FINAL), states


def test_no_secret_is_in_the_database_the_output_or_the_report(first: Ran, site: Site) -> None:
    secrets = _secrets(site)
    assert len(secrets) > 3
    places = [path for path in (site.folder / "prefect").rglob("*") if path.is_file()]
    places.append(site.folder / "report.json")
    for path in places:
        data = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in data, f"a secret stands in {path}"
    assert not any(secret in first.output for secret in secrets)


def _secrets(site: Site) -> list[str]:
    """Return what must appear nowhere: key material of the kubeconfig and the CA, and every token still known."""
    conf = site.on("cp1", "cat /etc/kubernetes/admin.conf")
    keys = re.findall(r"client-key-data: (\S{80})", conf)
    lines = [site.on("cp1", f"sed -n 3p /etc/kubernetes/pki/{name}.key").strip() for name in ("ca", "sa", "etcd/ca")]
    tokens = TOKEN.findall(site.on("cp1", "kubeadm token list"))
    journal = re.findall(
        r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", site.on("cp1", "journalctl --no-pager -u 'shipway-*' -o cat")
    )
    assert not journal, "a bootstrap token is in the journal"
    return [*keys, *lines, *tokens]


def test_join_tokens_are_deleted_and_files_with_secrets_are_private(first: Ran, site: Site) -> None:
    assert first.code == 0
    assert "join of" not in site.on("cp1", "kubeadm token list")
    assert site.on("w1", "ls /run/shipway").strip() == ""
    kubeconfigs = list((site.folder / "controller").rglob("kubeconfig"))
    assert [oct(path.stat().st_mode & 0o777) for path in kubeconfigs] == ["0o600"]
