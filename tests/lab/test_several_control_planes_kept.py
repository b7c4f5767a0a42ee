"""Three control planes and a worker are kept: certificates that end soon, restarts, and an upgrade that is killed.

One GPU job runs in one container through all of it, and ends by itself. All the while a client on the worker asks the
API by its name five times a second, and each etcd is asked whether it is there: no two are ever away at once. Both
versions are one source under two labels, as in test_upgrade.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import pytest

from lab.containers.labels import require_labels
from shipway.kubeadm.certificates import LEAFS
from tests.lab.conftest import Ran, Site
from tests.lab.faulting import meanwhile
from tests.lab.several_planes import (
    MOST_SECONDS,
    PLANES,
    asked,
    bare_hosts,
    changes,
    etcds_watched,
    members,
    together,
)
from tests.lab.test_certificates import PIDS, SERVED, in_file, shorten, shown
from tests.lab.test_maintain import BOOT
from tests.lab.test_upgrade import GATE, PATCH, is_closed, job, kill_when, nodes, rows, run, run_job, write

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
NAMES = (*PLANES, "w1")
OLD = "1.20.2"
MARK = "/run/reboot-required"
JOB = "train"


@pytest.fixture(scope="module")
def site(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster of three control planes and a worker, in a lab of its own, with a GPU job that nobody tells to end."""
    with bare_hosts(tmp_path_factory.mktemp("kept"), 7, NAMES) as made:
        made.api = prefect_server
        require_labels(made.lab.cache)
        write(made, OLD)
        ran = made.run(seconds=1200)
        assert ran.code == 0, ran.output
        print(f"three control planes and a worker: {ran.seconds:.0f} s")
        run_job(made, JOB, "w1")
        yield made


def pod(site: Site) -> str:
    """Return the job's pods: UID, container, and how often it was started anew."""
    each = "{.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}"
    return site.kubectl(f"get pods -l job-name={JOB} -o jsonpath='{{range .items[*]}}{each};{{end}}'")


def own_api(site: Site, host: str) -> str:
    """Return what a control plane's own API server says that it is; empty where it says nothing."""
    with contextlib.suppress(Exception):
        version: str = json.loads(site.on(host, "curl -sk --max-time 2 https://127.0.0.1:6443/version"))["gitVersion"]
        return version
    return ""


def kubelet(site: Site, host: str) -> str:
    """Return the version of the kubelet that is installed on a host."""
    return site.on(host, "kubelet --version").split()[-1]


def whole(site: Site) -> bool:
    """Tell whether every control plane's etcd is a member, and every node takes pods."""
    found = members(site, "cp3")
    voters = sorted(one["name"] for one in found if not one.get("isLearner"))
    return voters == list(PLANES) and all(is_open for _, is_open in nodes(site).values())


def test_certificates_of_three_control_planes_are_renewed_and_served_one_after_the_other(site: Site) -> None:
    for host in PLANES:
        shorten(site, 10, host)
    before, pids = pod(site), {name: site.on(name, PIDS) for name in NAMES}
    leafs = [leaf for leaf in LEAFS if leaf.name != "super-admin.conf"]
    short = {(host, leaf.name): in_file(site, host, leaf.path) for host in PLANES for leaf in leafs}
    ran: list[Ran] = []
    with etcds_watched(site) as away:
        gap, answers = asked(site, lambda: ran.append(run(site, "certificates", seconds=1500)))
    assert ran[0].code == 0, ran[0].output
    files = {(host, leaf.name): in_file(site, host, leaf.path) for host in PLANES for leaf in leafs}
    assert [at for at in files if files[at][0] == short[at][0] or files[at][1] < short[at][1] + 86400] == []
    served = {(host, name): shown(site, port, host) for host in PLANES for port, name in SERVED.items()}
    assert served == {at: files[at][0] for at in served}
    assert all(away.values()), "each etcd was started anew"
    assert together(away) == []
    assert answers > 20
    assert gap < MOST_SECONDS
    assert {name: site.on(name, PIDS) for name in NAMES} == pids
    assert pod(site) == before
    assert whole(site)
    again = run(site, "certificates")
    assert (again.code, rows(again, "changed")) == (0, set())


def test_three_control_planes_are_restarted_one_after_the_other_and_each_once(site: Site) -> None:
    for host in PLANES:
        site.on(host, f"touch {MARK}")
    before, boots = pod(site), {name: site.on(name, BOOT) for name in NAMES}
    ran: list[Ran] = []
    with etcds_watched(site) as away:
        gap, answers = asked(site, lambda: ran.append(run(site, "maintain", seconds=1800)))
    assert ran[0].code == 0, ran[0].output
    assert [row["host"] for row in ran[0].report["order"]] == list(PLANES)
    after = {name: site.on(name, BOOT) for name in NAMES}
    assert [name for name in NAMES if after[name] != boots[name]] == list(PLANES)
    assert all(away.values()), "each etcd was away with its host"
    assert together(away) == []
    assert answers > 20
    assert gap < MOST_SECONDS
    assert pod(site) == before
    assert whole(site)
    again = run(site, "maintain")
    assert (again.code, rows(again, "changed"), again.report["order"]) == (0, set(), [])
    assert {name: site.on(name, BOOT) for name in NAMES} == after


def test_an_upgrade_that_is_killed_between_an_api_server_and_its_kubelet_goes_on_there(site: Site) -> None:
    write(site, PATCH)
    new, old, before = f"v{PATCH}", f"v{OLD}", pod(site)
    plan = run(site, "upgrade", "--plan")
    assert [row["host"] for row in plan.report["order"]] == list(NAMES)
    ran, seen = list[Ran](), list[str]()

    def upgrade() -> None:
        kill_when(site, lambda: own_api(site, "cp2") == new and kubelet(site, "cp2") == old, seconds=1500)
        assert {name: have for name, (have, _) in nodes(site).items()} == {
            "cp1": new,
            "cp2": old,
            "cp3": old,
            "w1": old,
        }
        assert kubelet(site, "cp2") == old
        assert [own_api(site, host) for host in PLANES] == [new, new, old]
        ran.append(run(site, "upgrade", seconds=2400))

    def end_late() -> None:
        for _ in range(8):  # longer than a look at the jobs takes, and the next one
            seen.append(pod(site))
            time.sleep(1)
        site.on("w1", f"touch {GATE}/open")

    with etcds_watched(site) as away, meanwhile(lambda: is_closed(site, "w1"), end_late):
        gap, answers = asked(site, upgrade)
    assert ran[0].code == 0, ran[0].output
    assert [row["host"] for row in ran[0].report["order"]] == ["cp2", "cp3", "w1"]
    assert nodes(site) == dict.fromkeys(NAMES, (new, True))
    assert [own_api(site, host) for host in PLANES] == [new] * 3
    assert set(seen) == {before}, "its host was closed, and it ran on"
    assert job(site, JOB) == ("", "1", ""), "one pod of it ran, to its end"
    assert together(away) == []
    assert answers > 20
    assert gap < MOST_SECONDS
    assert whole(site)


def test_afterwards_nothing_is_to_be_changed(site: Site) -> None:
    again = run(site, "upgrade")
    assert (again.code, rows(again, "changed")) == (0, set())
    boot = site.run()
    assert boot.code == 0, boot.output
    assert changes(boot) == []
