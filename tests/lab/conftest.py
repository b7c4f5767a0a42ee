"""One container lab for the whole run; each test asks for the hosts it needs, bare or bootstrapped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.containers.cluster_file import content
from lab.containers.lab import Lab
from lab.containers.model import LabHost, LabPlan
from tests.places.prefect import api_in

# What a plan may not change: files, packages, units, kernel settings.
STATE = (
    "{ find /etc /usr/lib/systemd /lib/systemd /var/lib/shipway /run/shipway -xdev -type f -exec sha256sum {} + ; "
    "dpkg-query -W; systemctl list-unit-files --no-pager; systemctl list-units --all --no-pager --plain | "
    "cut -d' ' -f1; "
    "sysctl -a 2>/dev/null | grep -E 'bridge-nf|ip_forward|inotify'; } 2>/dev/null | "
    "grep -vE 'session-|user-|run-' | sort"
)
ROOT = Path(__file__).parents[2]
HOSTS = (
    LabHost("cp1", "172.30.0.11", 0, "control_plane"),
    LabHost("w1", "172.30.0.12", 2, "worker"),
    LabHost("w2", "172.30.0.13", 2, "worker"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that share one cluster come first, one file after the other; the rest makes the hosts bare again.

    Hardening is the last of the first: what it encrypts is not decrypted again.
    """

    def when(item: pytest.Item) -> tuple[bool, bool]:
        shares = "whole" in getattr(item, "fixturenames", ())
        return "tests/lab/" in item.nodeid and not shares, "tests/lab/test_harden.py" in item.nodeid

    items.sort(key=when)


@dataclass
class Ran:
    """How a command of ours ended; `report` is what `--report` wrote."""

    code: int
    output: str
    seconds: float
    report: dict[str, Any] = field(default_factory=dict)

    def host(self, name: str) -> dict[str, Any]:
        """Return a host's part of the report."""
        return next(host for host in self.report["hosts"] if host["name"] == name)


@dataclass
class Site:
    """The lab, a cluster file and a Prefect home of its own."""

    lab: Lab
    folder: Path
    api: str = ""  # of a Prefect server; without one each run has its own, as on a command line

    def cluster_file(self, **changes: Any) -> Path:
        """Write a cluster file with these sections replaced; return its path."""
        path = self.folder / "cluster.yaml"
        data = content(self.lab.plan, self.lab.state, **changes) | {"state_dir": str(self.folder / "controller")}
        path.write_text(yaml.safe_dump(data))
        return path

    def start(self, *words: str, report: Path | None = None) -> subprocess.Popen[str]:
        """Start a bootstrap as a user would."""
        path = self.folder / "cluster.yaml"
        if not path.exists():
            self.cluster_file()
        extra = ("--report", str(report)) if report else ()
        env = {**os.environ, "PREFECT_HOME": str(self.folder / "prefect"), "NO_COLOR": "1"}
        env.pop("PREFECT_API_URL", None)
        if self.api:
            env["PREFECT_API_URL"] = self.api
        return subprocess.Popen(
            (sys.executable, "-m", "flows.bootstrap", str(path), *extra, *words),
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, seconds: float = 420) -> Ran:
        """Run a bootstrap to its end; the test fails when it takes longer than `seconds`."""
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        started = time.monotonic()
        process = self.start(*words, report=report)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        took = time.monotonic() - started
        print(f"\n$ flows.bootstrap {' '.join(words)}: exit {process.returncode}, {took:.1f} s\n{output}")
        found = json.loads(report.read_text()) if report.exists() else {}
        return Ran(process.returncode, output, took, found)

    def kill_when(self, happened: Callable[[], bool], *, seconds: float = 240) -> str:
        """Start a bootstrap and SIGKILL the controlling process as soon as something has happened; give its output."""
        process = self.start()
        deadline = time.monotonic() + seconds
        try:
            while not happened():
                assert process.poll() is None, f"ended before it was killed: {process.communicate()[0]}"
                assert time.monotonic() < deadline, "what was waited for did not happen"
                time.sleep(0.2)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        return output

    def fresh(self, *hosts: str) -> None:
        """Make hosts bare again (all without names), and with the control plane's give the cluster up on this machine.

        A kubeconfig that is kept of a cluster whose control plane is gone has a bootstrap refused (SHW-318).
        """
        self.lab.fresh(*hosts)
        if not hosts or "cp1" in hosts:
            for kept in (self.folder / "controller").glob("*/kubeconfig"):
                kept.unlink()

    def on(self, host: str, script: str) -> str:
        """Return the output of a shell line that runs as root on a host."""
        return self.lab.exec(host, "sh", "-c", script)

    def holds(self, host: str, test: str) -> bool:
        """Tell whether a shell test is true on a host."""
        return self.on(host, f"if {test}; then echo yes; else echo no; fi").strip() == "yes"

    def kubectl(self, line: str) -> str:
        """Return what kubectl on the control plane says."""
        return self.on("cp1", f"kubectl --kubeconfig /etc/kubernetes/admin.conf {line}")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    one = Lab()
    one.up(LabPlan(HOSTS))
    yield one
    if not os.environ.get("SHIPWAY_KEEP_LAB"):
        one.down()


@pytest.fixture(scope="session")
def whole(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Bare hosts that the first tests make a cluster of, and the tests of drift find as one."""
    lab.fresh()
    return Site(lab, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def planned(whole: Site) -> tuple[dict[str, str], dict[str, str], Ran]:
    """State before, state after, and the plan on bare hosts; it comes first of all."""
    before = {name: whole.on(name, STATE) for name in ("cp1", "w1", "w2")}
    ran = whole.run("--plan")
    return before, {name: whole.on(name, STATE) for name in before}, ran


@pytest.fixture(scope="session")
def first(whole: Site, planned: object) -> Ran:
    """The bootstrap of the bare hosts, by a command line with an API of its own."""
    assert planned
    return whole.run()


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the API of one Prefect server for all that comes after: to start one takes 8 to 25 s."""
    with api_in(tmp_path_factory.mktemp("prefect")) as place:
        yield place.api.url


@pytest.fixture(scope="session")
def drifting(whole: Site, first: Ran, prefect_server: str) -> Site:
    """A bootstrapped cluster that things drift on."""
    assert first.code == 0
    whole.cluster_file()
    whole.api = prefect_server
    return whole


@pytest.fixture(scope="module")
def site(lab: Lab, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Bare hosts, a fresh controller."""
    lab.fresh()
    return Site(lab, tmp_path_factory.mktemp("site"), prefect_server)
