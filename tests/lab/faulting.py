"""A fault in the middle of a bootstrap: something is waited for and then broken; what the run said is kept."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.containers.cluster_file import content
from lab.containers.commands import LabError
from tests.lab.conftest import Ran, Site
from tests.project.real_faults_page import keep


def hosts(site: Site, *names: str) -> Path:
    """Write a cluster file of these hosts alone, without GPUs: the faults are about hosts, and runs are shorter."""
    rows = content(site.lab.plan, site.lab.state)["hosts"]
    return site.cluster_file(hosts=[{**row, "gpus": 0} for row in rows if row["name"] in names])


def bare(site: Site, *names: str) -> None:
    """Make workers bare hosts again that the cluster does not know."""
    site.fresh(*names)
    site.kubectl(f"delete node {' '.join(names)} --ignore-not-found")


@contextmanager
def meanwhile(when: Callable[[], bool], act: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as something else is so, while the body runs; fails where that never came."""
    over = threading.Event()

    def watch() -> bool:
        while not over.is_set():
            if _so(when):
                act()
                return True
            time.sleep(0.1)
        return False

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            over.set()
        assert watching.result(), "the moment to break something never came"


def _so(when: Callable[[], bool]) -> bool:
    """Tell whether it is so; a host that is just being started says no."""
    try:
        return when()
    except LabError:
        return False


def held(site: Site, host: str, file: str, seconds: int) -> None:
    """Let another program of the host hold a lock file for so long, as unattended-upgrades does."""
    script = f"import fcntl, time; f = open('{file}', 'a'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep({seconds})"
    site.lab.exec(host, "systemd-run", "--quiet", "--collect", "--unit=other-apt", "python3", "-c", script)


def progress(host: str, stage: str, text: str) -> str:
    """Return how a progress line of the run begins."""
    return f"{host:<12} {stage:<20} {text}"


def tries(ran: Ran, host: str, stage: str) -> int:
    """Count how often a stage failed on a host."""
    return len(re.findall(rf"^{host} +{stage} +failed in", ran.output, re.MULTILINE))


def changes(ran: Ran) -> list[str]:
    """Return what the report says of each step that changed something, as a progress line would."""
    return [
        progress(stage["host"], stage["stage"], f"changed: {row['step']} (was {row['have']}; want {row['want']})")
        for stage in ran.report["stages"]
        for row in stage["rows"]
        if row["outcome"] == "changed"
    ]


def summary(ran: Ran, lines: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return how a run ended: its errors as the report has them, and the lines that hold one of the texts."""
    stages = {(error["host"], error["step"]): stage for stage in ran.report["stages"] for error in stage["errors"]}
    errors = []
    for error in ran.report["errors"]:
        stage = stages.get((error["host"], error["step"]))
        times = tries(ran, stage["host"], stage["stage"]) if stage else 0
        errors.append({**error, "tries": times})
    all_lines = [*ran.output.splitlines(), *changes(ran)]
    shown = [line for line in all_lines if any(text in line for text in lines)]
    heard = [re.sub(r" {2,}", "  ", line) for line in dict.fromkeys(shown)]
    outcome = {"outcome": ran.report["outcome"], "exit": ran.code, "seconds": round(ran.seconds)}
    return {**outcome, "errors": errors, "lines": heard}


def first(fault: str, ran: Ran, happened: str, lines: tuple[str, ...] = ()) -> None:
    """Keep a fault's run; `happened` says what was done (or was not) before what happens next."""
    keep(fault, first=summary(ran, lines), next=happened)


def then(fault: str, ran: Ran) -> None:
    """Keep the plain run after a fault's."""
    keep(fault, then=summary(ran))


def error_of(ran: Ran, host: str) -> dict[str, Any]:
    """Return the first error of a host; fails where it has none."""
    found = [error for error in ran.report["errors"] if error["host"] == host]
    assert found, ran.report["errors"]
    return found[0]


def ready(site: Site, *names: str) -> bool:
    """Tell whether all these nodes are Ready."""
    shown = site.kubectl(f"get nodes {' '.join(names)} --no-headers").splitlines()
    return len(shown) == len(names) and all(line.split()[1] == "Ready" for line in shown)
