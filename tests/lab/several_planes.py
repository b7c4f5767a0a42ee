"""What the tests of several control planes share: a lab of five hosts, a client that asks, a pod that holds a GPU."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lab.containers.lab import Lab
from lab.containers.model import plan
from tests.lab.conftest import ROOT, Ran, Site

PLANES, WORKERS = ("cp1", "cp2", "cp3"), ("w1", "w2")
NAME = "api.lab.internal"
ADMIN = "/etc/kubernetes/admin.conf"
# A client that connects anew five times a second, as nobody patient would: a second is all that an answer may take.
CLIENT = (
    "while :; do s=$(date +%s.%N); "
    f"c=$(curl -sk --max-time 1 -o /dev/null -w '%{{http_code}}' https://{NAME}:6443/readyz); "
    'echo "$s $c" >>/run/asked; sleep 0.2; done'
)
# Whether an etcd is there at all, from outside: it turns us away for want of a certificate, and that is an answer.
ETCD = (
    "while :; do s=$(date +%s.%N); c=0; curl -sk --max-time 3 -o /dev/null https://ADDRESS:2379/ || c=$?; "
    'echo "$s $c" >>/run/etcd-NAME; sleep 0.2; done'
)
AWAY = {"7", "28"}  # curl's status where nobody takes the connection, or nobody says a word for three seconds
HOLDER = """
apiVersion: v1
kind: Pod
metadata: {name: holds-a-gpu}
spec:
  nodeName: w1
  runtimeClassName: nvidia
  containers:
  - name: c
    image: docker.io/library/busybox:1
    command: [sleep, "86400"]
    resources: {limits: {nvidia.com/gpu: 1}}
"""
SETTLE = 12.0  # seconds of asking on each side of what is done
MOST_SECONDS = 6.0  # a connection's limit, two checks and theirs, a second each, and what a loaded machine adds


def five(folder: Path, number: int, workers: tuple[str, ...] = WORKERS) -> contextlib.AbstractContextManager[Site]:
    """Yield five bare hosts, or with fewer workers, in a lab of their own."""
    return bare_hosts(folder, number, (*PLANES, *workers))


@contextlib.contextmanager
def bare_hosts(folder: Path, number: int, names: tuple[str, ...]) -> Iterator[Site]:
    """Yield bare hosts of these names in a lab of their own; it is taken away, unless SHIPWAY_KEEP_LAB is set."""
    lab = Lab(folder / "lab")
    lab.up(plan(",".join(names), number=number))
    try:
        yield Site(lab, folder)
    finally:
        if not os.environ.get("SHIPWAY_KEEP_LAB"):
            lab.down()


def hold(site: Site, host: str) -> str:
    """Start a pod that holds a GPU of w1; return which container it runs in, and how often it was started anew."""
    site.lab.exec(host, "sh", "-c", f"kubectl --kubeconfig {ADMIN} apply -f -", give=HOLDER)
    site.on(host, f"kubectl --kubeconfig {ADMIN} wait --for=condition=Ready pod/holds-a-gpu --timeout=90s")
    return holds(site, host)


def holds(site: Site, host: str) -> str:
    """Return the pod's container and its restarts, by one control plane's own kubectl."""
    said = "{.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}"
    return site.on(host, f"kubectl --kubeconfig {ADMIN} get pod holds-a-gpu -o jsonpath='{said}'")


def changes(ran: Ran) -> list[str]:
    """Return what a run changed, on hosts and in the cluster."""
    rows = [(stage, row) for stage in ran.report["stages"] for row in stage["rows"]]
    return [f"{stage['host']}: {row['step']}" for stage, row in rows if row["outcome"] == "changed"]


def nodes(site: Site, host: str) -> dict[str, bool]:
    """Return each node and whether it is Ready, by one control plane's own kubectl."""
    said = site.on(host, f"kubectl --kubeconfig {ADMIN} get nodes --no-headers")
    return {line.split()[0]: line.split()[1] == "Ready" for line in said.splitlines()}


def members(site: Site, host: str) -> list[dict[str, Any]]:
    """Return etcd's members as a control plane's own etcd tells them."""
    pki = "/etc/kubernetes/pki/etcd"
    key = f"--cacert {pki}/ca.crt --cert {pki}/healthcheck-client.crt --key {pki}/healthcheck-client.key"
    text = site.on(host, f"curl -s {key} -d {{}} https://127.0.0.1:2379/v3/cluster/member/list")
    found: list[dict[str, Any]] = json.loads(text)["members"]
    return found


def asked(site: Site, what: Callable[[], object], host: str = NAME) -> tuple[float, int]:
    """Return the longest time without an answer while something is done, in seconds, and the number of answers."""
    client = shlex.quote(CLIENT.replace(NAME, host))
    site.on("w1", f"rm -f /run/asked; systemd-run --quiet --collect --unit=lab-client sh -c {client}")
    try:
        time.sleep(2)
        what()
        time.sleep(SETTLE)
    finally:
        site.on("w1", "systemctl stop lab-client || true")
    rows = [line.split() for line in site.on("w1", "cat /run/asked").splitlines()]
    good = [float(row[0]) for row in rows if row[1:] == ["200"]]
    gaps = [after - before for before, after in itertools.pairwise(good)]
    last = float(rows[-1][0]) - good[-1]
    print(f"{len(rows)} questions, {len(good)} answers, longest gap {max(*gaps, last):.1f} s")
    return max(*gaps, last), len(good)


@contextlib.contextmanager
def etcds_watched(site: Site) -> Iterator[dict[str, list[tuple[float, float]]]]:
    """Yield by control plane when its etcd was away (begin and end, in seconds), as w1 sees it; full at the end."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name in PLANES:
        probe = ETCD.replace("ADDRESS", site.lab.plan.host(name).address).replace("NAME", name)
        site.on("w1", f"rm -f /run/etcd-{name}; systemd-run -q --collect --unit=lab-{name} sh -c {shlex.quote(probe)}")
    try:
        yield found
    finally:
        for name in PLANES:
            site.on("w1", f"systemctl stop lab-{name} || true")
            rows = [line.split() for line in site.on("w1", f"cat /run/etcd-{name}").splitlines()]
            found[name] = when_away([(float(row[0]), row[1] in AWAY) for row in rows if len(row) > 1])
            print(f"etcd of {name} away: {', '.join(f'{end - begin:.1f} s' for begin, end in found[name]) or 'never'}")


def when_away(rows: list[tuple[float, bool]]) -> list[tuple[float, float]]:
    """Return when something was away, of the times at which it was asked and whether it was."""
    runs = [(away, [when for when, _ in group]) for away, group in itertools.groupby(rows, key=lambda row: row[1])]
    ends = [times[0] for _, times in runs[1:]] + [rows[-1][0]] if rows else []
    return [(times[0], end) for (away, times), end in zip(runs, ends, strict=True) if away]


def together(away: dict[str, list[tuple[float, float]]]) -> list[tuple[str, str]]:
    """Return the pairs of control planes whose etcds were away at one moment."""
    return [
        (one, other)
        for one, other in itertools.combinations(away, 2)
        for (begin, end), (began, ended) in itertools.product(away[one], away[other])
        if max(begin, began) < min(end, ended)
    ]


def wait_ready(site: Site, host: str) -> None:
    """Wait until a control plane's own API server is ready, and every node is."""
    ready = "curl -sk --max-time 2 https://127.0.0.1:6443/readyz"
    deadline = time.monotonic() + 120
    while site.on(host, f"{ready} || true").strip() != "ok" or not all(nodes(site, host).values()):
        assert time.monotonic() < deadline, f"{host} is not ready"
        time.sleep(1)


def drift(site: Site) -> dict[str, Any]:
    """Return the report of a pass that only looks."""
    return command(site, "drift_repair", "--repair", "none").report


def command(site: Site, verb: str, *words: str) -> Ran:
    """Run another verb on the cluster file to its end."""
    report = Path(site.folder / f"{verb}.json")
    report.unlink(missing_ok=True)
    line = (sys.executable, "-m", f"flows.{verb}", str(site.folder / "cluster.yaml"), *words, "--report", str(report))
    env = {**os.environ, "PREFECT_HOME": str(site.folder / "prefect"), "NO_COLOR": "1"}
    began = time.monotonic()
    ran = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    print(f"\n$ flows.{verb} {' '.join(words)}: exit {ran.returncode}, {took:.1f} s\n{ran.stdout}{ran.stderr}")
    return Ran(ran.returncode, ran.stdout + ran.stderr, took, json.loads(report.read_text()) if report.exists() else {})
