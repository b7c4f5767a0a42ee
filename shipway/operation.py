"""A long command as a transient unit of the host's systemd: how it is started, and what its end says."""

from __future__ import annotations

from collections.abc import Sequence

from shipway.errors import Transient
from shipway.facts.fact import Words
from shipway.script import Output

OPERATIONS = "/run/shipway"
STOPPED = "SHW-211"
# systemd-run says "Main processes terminated with: code=killed/status=TERM" (since systemd 233, where it is not quiet).
KILLED = "code=killed"


def started(unit: str, words: Sequence[str], seconds: int) -> list[Words]:
    """Give the commands that run `words` as a unit for at most so many seconds, and bring back what it said."""
    log = f"{OPERATIONS}/{unit.removeprefix('shipway-')}.log"
    run = (
        *("systemd-run", "--collect", "--wait", f"--unit={unit}"),
        *("-p", f"RuntimeMaxSec={seconds}", "-p", f"StandardOutput=append:{log}"),
        *("-p", f"StandardError=append:{log}", "-p", "UMask=0077"),
        *("--setenv=LC_ALL=C", "--setenv=DEBIAN_FRONTEND=noninteractive", "--setenv=NEEDRESTART_MODE=l"),
        *("--setenv=HOME=/root", "--", *words),
    )
    prepare: list[Words] = [("install", "-d", "-m", "700", OPERATIONS), ("rm", "-f", log)]
    return [*prepare, run, ("cat", log), ("rm", "-f", log), ("systemctl", "is-system-running")]


def ended(unit: str, outputs: Sequence[Output], *, host: str) -> Output:
    """Give the exit status and joined output of the unit, from the outputs of its commands.

    Raises Transient: SHW-205 where another run started it at the same moment, SHW-211 where it was stopped from
    outside. systemd takes that for success (systemd.service, SuccessExitStatus: SIGTERM is a clean end), and whoever
    restarts a host in the middle of an operation does it.
    """
    _, _, ran, said, _, system = outputs
    if not ran.ok and "already" in ran.stderr and unit in ran.stderr:
        raise Transient(f"another run started {unit} at the same moment", host=host, code="SHW-205")
    if KILLED in ran.stderr if ran.ok else system.stdout.strip() == "stopping":
        message = f"{unit} was stopped before it was done: the host shuts down, or somebody stopped it"
        raise Transient(message, host=host, code=STOPPED, fix="Run again: the step looks at what is half done first.")
    return Output(ran.status, said.stdout, ran.stderr if "Failed to" in ran.stderr else "")
