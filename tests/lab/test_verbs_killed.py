"""Each verb's controller is killed (SIGKILL) at the end of every stage, a later one each time; the next run goes on.

A bootstrap has that in tests/faults, an upgrade, the CA's rotation and restores in tests of their own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.lab.conftest import ROOT, Site
from tests.lab.several_planes import ADMIN, bare_hosts, changes, command, drift, hold, holds, nodes
from tests.lab.test_certificates import SERVED, in_file, shorten, shown
from tests.lab.test_harden import HARDENING, STORED
from tests.lab.test_retire import CLEAN

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
HOSTS = ("cp1", "w1", "w2")
MOST = 40  # runs of one verb: none has so many stages on three hosts
# "  HOST  STAGE  OUTCOME in 0.3 s: ..." is written as a stage ends.
ENDED = re.compile(r"^\s*\S+\s+[a-z_]+\s+[a-z ]+ in [0-9.]+ s")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster of a control plane and two workers in a lab of its own, with a pod that holds a GPU of w1."""
    with bare_hosts(tmp_path_factory.mktemp("killed"), 8, HOSTS) as made:
        ran = made.run(seconds=900)
        assert ran.code == 0, ran.output
        hold(made, "cp1")
        yield made


def kill_after(site: Site, stages: int, verb: str, *words: str, ends: int = 0) -> bool:
    """Run a verb and kill it as that many stages have ended; say whether it ended before, with the status `ends`."""
    line = (sys.executable, "-u", "-m", f"flows.{verb}", str(site.folder / "cluster.yaml"), *words)
    env = {**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        line, cwd=ROOT, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        said, ended = [], 0
        try:
            for text in process.stdout:
                said.append(text)
                if ENDED.match(text) and (ended := ended + 1) == stages:
                    break
            else:
                assert process.wait(60) == ends, "".join(said)
                return True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        print(f"  killed after: {said[-1].strip()}")
    return False


def killed_on_the_way(site: Site, verb: str, *words: str, ends: int = 0) -> None:
    """Run a verb again and again, each time killed a stage later, until one run is over before its turn."""
    began = time.monotonic()
    for stages in range(1, MOST):
        if kill_after(site, stages, verb, *words, ends=ends):
            print(f"{verb}: killed {stages - 1} times, {time.monotonic() - began:.0f} s")
            assert stages > 2, "nothing was killed on the way"
            return
    pytest.fail(f"{verb} was not over after {MOST} stages")


def is_whole(site: Site, before: str) -> None:
    """Look at what every verb leaves: all nodes Ready and open, nothing to change, no drift, the pod as it was."""
    assert nodes(site, "cp1") == dict.fromkeys(HOSTS, True)
    again = site.run()
    assert (again.code, changes(again)) == (0, []), again.output
    left = drift(site)
    assert (left["findings"], left["errors"]) == ([], [])
    assert holds(site, "cp1") == before


def test_hardening(site: Site) -> None:
    before = holds(site, "cp1")
    site.on("cp1", f"kubectl --kubeconfig {ADMIN} create secret generic before --from-literal=a=b")
    site.cluster_file(hardening=HARDENING)
    killed_on_the_way(site, "harden", ends=2)  # no kubelet is started anew beside a pod that holds a GPU
    assert holds(site, "cp1") == before
    stored = site.on("cp1", STORED)
    assert "plain" not in stored
    assert stored.count("k8s:enc:secretbox") == 1, "one key, however often it was begun"
    site.on("cp1", f"kubectl --kubeconfig {ADMIN} delete pod holds-a-gpu --wait")
    assert command(site, "harden").code == 0
    is_whole(site, hold(site, "cp1"))


def test_the_renewal_of_certificates(site: Site) -> None:
    before = holds(site, "cp1")
    shorten(site, 10)
    killed_on_the_way(site, "certificates")
    for port, name in SERVED.items():
        serial, ends = in_file(site, "cp1", f"/etc/kubernetes/pki/{name}.crt")
        assert shown(site, port) == serial
        assert ends > time.time() + 30 * 86400
    is_whole(site, before)


def test_a_backup(site: Site) -> None:
    before = holds(site, "cp1")
    killed_on_the_way(site, "backup")
    left = site.on("cp1", "ps -ww -o args= -C etcd; ls /run/shipway /var/lib/shipway 2>/dev/null")
    assert left.count("/etc/kubernetes/pki") >= 1, left
    assert len([line for line in left.splitlines() if line.startswith("etcd --")]) == 1, left
    is_whole(site, before)


def test_the_removal_of_a_worker_and_its_way_back(site: Site) -> None:
    before = holds(site, "cp1")
    killed_on_the_way(site, "remove", "w2")
    assert nodes(site, "cp1") == {"cp1": True, "w1": True}
    assert {
        name: said
        for name, look in CLEAN.items()
        if (said := site.on("w2", f"{{ {look}; }} 2>/dev/null || true").strip())
    } == {}
    killed_on_the_way(site, "bootstrap")
    is_whole(site, before)
