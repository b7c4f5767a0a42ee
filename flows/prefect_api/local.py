"""A Prefect API of a local run's own: started in the background, its settings tuned, drained before it ends.

The server that Prefect itself starts where none is set is ended at once with the run, and loses most of its history.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from uuid import UUID

from flows.prefect_api import given as given_api
from flows.prefect_api.settings import setting
from shipway.errors import DeadlineExceeded, Refused
from shipway.foreign.errors import describe_error
from shipway.redact import redact

# The recorder of task runs writes them one by one by default: batches cost a quarter of the CPU (measured), and the
# run's end is not kept waiting for a backlog. What nobody watches in a local run is off, and so is what would schedule
# or sweep up runs of deployments: that is for a server which lives longer than one run, and costs a third of an idle
# API.
TUNED = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
}
# The terminal shows the run by itself; the lines stay in Prefect's history. At ERROR it would print tracebacks twice.
# On a terminal Prefect's client would also tell its makers of a first use: a run talks to its hosts and to nobody else.
# What its own threads say of a server that is away (each event that it could not send, with its content) is no news of
# the run: that the history has gaps is said at its end.
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "DO_NOT_TRACK": "1",
}
COMMAND = (sys.executable, "-m", "flows.prefect_api.process")
START_SECONDS = 600.0  # half a minute as a rule; 180 were too few on a full machine, and its end is seen at once
DRAIN_SECONDS = 60.0
REST_SECONDS = 10.0  # for what a refused run has left to send: a few lines
SEE_ABOVE = "Read its message above; set PREFECT_API_URL to use a server that runs."
STILL_SECONDS = 1.5  # longer than the recorder keeps a batch
FINAL = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]


def given_url() -> str:
    """Return the API that is set for Prefect, in whatever place; empty where none is."""
    return setting("PREFECT_API_URL")


class LocalApi:
    """The API for one run: the one that is set, else a process of our own; import nothing of Prefect before `start`."""

    def __init__(self) -> None:
        self.url = given_url()
        self._process: subprocess.Popen[bytes] | None = None
        self._drained = False
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # to loopback, past every proxy

    @property
    def own(self) -> bool:
        """Whether it is a process of this run."""
        return self._process is not None

    @property
    def waited_for(self) -> str:
        """What is waited for, in words, until it answers."""
        return (
            "starting Prefect's API (its first start creates its database)"
            if self.own
            else f"{self._shown} answers; loading Prefect"
        )

    @property
    def _shown(self) -> str:
        return f"Prefect's API at {redact(self.url)}"

    def __enter__(self) -> Self:
        """Start it where none is set, without waiting; from now on the environment names it, past any proxy.

        Raises Refused where one is set that a run cannot use.
        """
        given_api.keep_loopback_direct(os.environ)
        os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
        if self.url:
            given_api.check(self.url)
        else:
            self._process = self._started()
            port = self._process.stdout.readline().strip().decode() if self._process.stdout else ""
            if not port.isdigit():
                self.__exit__(None, None, None)
                raise Refused("Prefect's API process did not start", code="SHW-104", fix=SEE_ABOVE)
            self.url = os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        return self

    def _started(self) -> subprocess.Popen[bytes]:
        """Start the process in a session of its own: Ctrl-C must not reach it before the run is recorded."""
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        environment = {**os.environ, **TUNED, "PYTHONPATH": paths}
        pipe: int = subprocess.PIPE
        return subprocess.Popen(COMMAND, env=environment, stdin=pipe, stdout=pipe, start_new_session=True)

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Wait until our own answers (one that is set did). Raises DeadlineExceeded, or Refused when it ended."""
        if not self.own:
            return
        ends, last = time.monotonic() + seconds, "no answer"
        while time.monotonic() < ends:
            if self._process is not None and self._process.poll() is not None:
                message = f"Prefect's API process ended with exit status {self._process.returncode}"
                raise Refused(message, code="SHW-104", fix=SEE_ABOVE)
            try:
                with self._direct.open(f"{self.url}/health", timeout=10):
                    return
            except OSError as error:
                last = describe_error(error)
            time.sleep(0.1)
        fix = "Run again; if it is so again, start one by `prefect server start` and set PREFECT_API_URL to it."
        raise DeadlineExceeded(f"{self._shown} is not ready after {seconds:.0f} s: {last}", fix=fix)

    def drain(self, flow_runs: Sequence[UUID], expected: int, seconds: float = DRAIN_SECONDS) -> str:
        """Wait until every task run is recorded in a final state; return "" or what is missing.

        An API that lives on after the run needs no waiting for.
        """
        if not self.own or not flow_runs:
            return ""
        from prefect.events.worker import EventsWorker  # noqa: PLC0415 - only now is Prefect surely imported
        from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

        EventsWorker.drain_all(timeout=seconds)
        APILogWorker.drain_all(timeout=seconds)
        ends, seen, since = time.monotonic() + seconds, (-1, -1), time.monotonic()
        while time.monotonic() < ends:
            now = self._counted(flow_runs)
            if now != seen:
                seen, since = now, time.monotonic()
            recorded, final = now
            # What was broken off may have begun task runs that nobody counted: so it must also have come to rest.
            if recorded == final >= expected and time.monotonic() - since >= STILL_SECONDS:
                self._drained = True
                return ""
            time.sleep(0.2)
        return f"only {seen[1]} of {max(expected, seen[0])} task runs are recorded in a final state"

    def _counted(self, flow_runs: Sequence[UUID]) -> tuple[int, int]:
        """Return how many task runs of these flow runs are recorded, and how many of them in a final state."""
        about: dict[str, Any] = {"flow_runs": {"id": {"any_": [str(one) for one in flow_runs]}}}
        final = {**about, "task_runs": {"state": {"type": {"any_": FINAL}}}}
        return self._post("/task_runs/count", about), self._post("/task_runs/count", final)

    def _post(self, path: str, body: dict[str, Any]) -> int:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)  # noqa: S310 - an HTTP URL by construction
        with self._direct.open(request, timeout=30) as answer:
            return int(json.load(answer))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End our own process in order: it records what it was sent, then ends because its input closes.

        Where all is recorded there is nothing to wait for: its services take ten seconds and more to stop.
        """
        if self._process is None:
            return
        if not self._drained and self._process.poll() is None:
            _send_rest()
        _close(self._process.stdin)
        try:
            self._process.wait(1 if self._drained else 15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        _close(self._process.stdout)
        os.environ.pop("PREFECT_API_URL", None)


def _send_rest(seconds: float = REST_SECONDS) -> None:
    """Let Prefect's threads send the lines and events that they hold: a refusal ends a run before they did.

    Without that they find no API when the interpreter ends, and say so on standard error below the refusal.
    """
    for module, worker in (("prefect.events.worker", "EventsWorker"), ("prefect.logging.handlers", "APILogWorker")):
        if (known := sys.modules.get(module)) is not None:  # else nothing of Prefect ran
            getattr(known, worker).drain_all(timeout=seconds)


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        stream.close()
