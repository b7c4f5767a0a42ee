"""A long command as a transient unit of the host's systemd: how it is started, and what its end says."""

from __future__ import annotations

from collections.abc import Sequence

from shipway.errors import Stopped, Transient
from shipway.facts.fact import Words
from shipway.script import Output

OPERATIONS = "/run/shipway"
# systemd-run says "Main processes terminated with: code=exited/status=0" (since systemd 233, where it is not quiet).
EXITED, KILLED = "code=exited", "code=killed"


def start_unit(unit: str, words: Sequence[str], seconds: int) -> list[Words]:
    """Return the commands that run `words` as a unit for at most so many seconds, and bring back what it said.

    In the place of a variable in braces systemd would put one of its own (systemd.service, "Command lines"), so its
    dollar is doubled.
    """
    log = f"{OPERATIONS}/{unit.removeprefix('shipway-')}.log"
    run = (
        *("systemd-run", "--collect", "--wait", f"--unit={unit}"),
        *("-p", f"RuntimeMaxSec={seconds}", "-p", f"StandardOutput=append:{log}"),
        *("-p", f"StandardError=append:{log}", "-p", "UMask=0077"),
        *("--setenv=LC_ALL=C", "--setenv=DEBIAN_FRONTEND=noninteractive", "--setenv=NEEDRESTART_MODE=l"),
        *("--setenv=HOME=/root", "--"),
        *(word.replace("${", "$${") for word in words),
    )
    prepare: list[Words] = [("install", "-d", "-m", "700", OPERATIONS), ("rm", "-f", log)]
    return [*prepare, run, ("cat", log), ("rm", "-f", log), ("systemctl", "is-system-running")]


def read_end(unit: str, outputs: Sequence[Output], *, host: str) -> Output:
    """Return the exit status and joined output of the unit, from the outputs of its commands.

    Raises Transient (SHW-205) where another run started it at the same moment, and Stopped where it was ended from
    outside or its end was not seen. systemd takes SIGTERM for a clean end (systemd.service, SuccessExitStatus), and
    systemd-run ends with 0 as well when it loses systemd ("Failed to query unit state: Connection reset by peer"): a
    host that shuts down does both, one that hung for a minute the latter.
    """
    _, _, ran, said, _, system = outputs
    if not ran.ok and "already" in ran.stderr and unit in ran.stderr:
        raise Transient(f"another run started {unit} at the same moment", host=host, code="SHW-205")
    down = system.stdout.strip() == "stopping"
    if EXITED not in ran.stderr if ran.ok else down:
        if down or KILLED in ran.stderr:
            raise Stopped(
                f"{unit} was stopped before it was done: the host shuts down, or somebody stopped it", host=host
            )
        raise Stopped(f"the end of {unit} was not seen: the host hung, or lost touch with its systemd", host=host)
    return Output(ran.status, said.stdout, ran.stderr if "Failed to" in ran.stderr else "")
