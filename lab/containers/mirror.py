"""The site's mirror out of order: requests for packages answered with an HTTP status, a registry that is down."""

from __future__ import annotations

from dataclasses import dataclass

from lab.containers.commands import LabError, wait_until
from lab.containers.engine import Engine
from lab.containers.hosts import MIRROR

ASIDE = "8000"  # where the mirror answers with a status while requests for port 80 are led there
PID = "/run/answers.pid"
LOG = "/run/answers.log"
# What a proxy or content network in front of a source says: a status and a line of text for every request.
ANSWERS = """
import http.server, os, pathlib, sys
status, port, pid, log = int(sys.argv[1]), int(sys.argv[2]), *map(pathlib.Path, sys.argv[3:])
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with log.open("a") as file:
            file.write(f"{self.client_address[0]} {self.headers.get('User-Agent')} {self.path}\\n")
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_HEAD = do_GET
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", port), Answers)
log.write_text("")
pid.write_text(str(os.getpid()))
server.serve_forever()
"""


@dataclass(frozen=True)
class Mirror:
    """The container that serves a lab's packages and images."""

    engine: Engine

    def _run(self, *words: str) -> str:
        return self.engine.docker("exec", MIRROR, *words)

    def _lead(self, what: str) -> None:
        """Add (-I) or remove (-D) the rule that leads requests for packages aside."""
        rule = ("PREROUTING", "-p", "tcp", "--dport", "80", "-j", "REDIRECT", "--to-ports", ASIDE)
        # The container itself may not change its rules: this one command of it may.
        self.engine.docker("exec", "--privileged", MIRROR, "iptables", "-w", "-t", "nat", what, *rule)

    def answer(self, status: int) -> None:
        """Answer every request for packages with an HTTP status."""
        self.serve()
        words = ("python3", "-c", ANSWERS, str(status), ASIDE, PID, LOG)
        self.engine.docker("exec", "--detach", MIRROR, *words)
        wait_until("the mirror's other server answers", self._look, seconds=10, every=0.1)
        self._lead("-I")

    def asked(self) -> list[str]:
        """Return who asked for what since the mirror answers so: lines of address, program and path."""
        return self._run("cat", LOG).splitlines()

    def _look(self) -> str | None:
        return None if self._run("sh", "-c", f"[ ! -s {PID} ] || echo yes") else "not started yet"

    def serve(self) -> None:
        """Serve packages again."""
        if self._look() is None:
            self._lead("-D")
            self._run("sh", "-c", f"kill $(cat {PID}); rm {PID}")

    def images(self, *, up: bool) -> None:
        """Stop the registry, or start it again; raises LabError where it does not come up."""
        if not up:
            self._run("sh", "-c", "kill $(pidof docker-registry)")
        elif not self._run("sh", "-c", "pidof docker-registry || true"):
            words = ("/srv/tools/docker-registry", "serve", "/srv/tools/registry.yml")
            self.engine.docker("exec", "--detach", MIRROR, *words)
            wait_until("the registry answers", self._registry, seconds=15, every=0.1)

    def _registry(self) -> str | None:
        try:
            self._run("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5000")
        except LabError as error:
            return str(error)
        return None
