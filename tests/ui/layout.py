"""The services of deployments/compose.yaml by hand: its own commands, settings and health checks, on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.ui.stores import LOOPBACK, Stores, ended, free_port, process, stores

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deployments" / "compose.yaml").read_text(encoding="utf-8"))[
    "services"
]
SERVER_PACKAGES = ROOT / ".venv" / "server"  # what deployments/requirements-server.txt names, apart from the lock
UP_SECONDS = 180.0


@dataclass
class Layout:
    """Everything the compose file starts, running; `folder` holds logs, secrets, cluster files and homes."""

    folder: Path
    stores: Stores
    port: int = field(default_factory=free_port)
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    health: dict[str, int] = field(default_factory=dict)
    until_end: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        """The UI's address."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def clusters(self) -> Path:
        """The workers' folder of cluster files."""
        return self.folder / "clusters"

    def log(self, name: str) -> Path:
        """Where a service writes."""
        return self.folder / f"{name}.log"

    def holders(self, run: str) -> list[str]:
        """Return the workers that took a run: another one that asked at once writes of it too, and that it did not."""
        by = {name: self.log(name).read_text(encoding="utf-8", errors="replace") for name in self.workers}
        return [
            name for name, text in by.items() if run in text and f"Aborted submission of flow run '{run}'" not in text
        ]

    def here(self, text: str) -> str:
        """Return a text of the compose file with this machine's addresses in place of its network's names."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")
        text = text.replace("/run/secrets", str(self.folder / "secrets"))
        text = text.replace("redis:6379", f"{LOOPBACK}:{self.stores.redis_port}").replace(
            "api:4200", f"{LOOPBACK}:4200"
        )
        text = re.sub(r"\b4200\b", str(self.port), text)
        whole = {"redis": LOOPBACK, "6379": str(self.stores.redis_port), "0.0.0.0": LOOPBACK}  # noqa: S104 - replaced
        return whole.get(text, text)

    def environment(self, service: str, **more: str) -> dict[str, str]:
        """Return a service's environment: what the compose file sets, and no other setting of Prefect's."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SHIPWAY_"))}
        said = {name: self.here(str(value)) for name, value in COMPOSE[service].get("environment", {}).items()}
        home = self.folder / "homes" / service
        paths = os.pathsep.join((str(ROOT), str(SERVER_PACKAGES)))
        place = {"PREFECT_HOME": str(home), "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}"
        return {**own, **said, **place, "PATH": path, **more}

    def words(self, service: str) -> list[str]:
        """Return a service's command, with the entry point that reads the database's address from its secret."""
        one = COMPOSE[service]
        return [self.here(word) for word in (*one.get("entrypoint", ()), *one["command"])]

    def run(self, service: str) -> str:
        """Run a service that ends; return what it said. Raises CalledProcessError."""
        done = subprocess.run(
            self.words(service), env=self.environment(service), cwd=ROOT, check=False, capture_output=True, text=True
        )
        self.log(service).write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode:
            raise RuntimeError(f"{service} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
        return done.stdout

    def start(self, service: str) -> subprocess.Popen[bytes]:
        """Start a service that stays."""
        made = process(self.words(service), self.log(service), env=self.environment(service), cwd=ROOT)
        return self.until_end.enter_context(made)

    def start_worker(self, name: str, limit: str = "") -> None:
        """Start one more worker, as `--scale worker=N` does; a `limit` stands in place of the compose file's."""
        self.health[name] = free_port()
        more = {
            "SHIPWAY_CLUSTERS": str(self.clusters),
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.health[name]),
            "PREFECT_HOME": str(self.folder / "homes" / name),
        }
        words = [*self.words("worker"), "--name", name]
        if limit:
            words[words.index("--limit") + 1] = limit
        made = process(words, self.log(name), env=self.environment("worker", **more), cwd=ROOT)
        self.workers[name] = self.until_end.enter_context(made)

    def end_worker(self, name: str, how: int = signal.SIGTERM) -> None:
        """End a worker, and what runs under it."""
        ended(self.workers.pop(name), how)

    def healthy(self, service: str, seconds: float = UP_SECONDS) -> None:
        """Wait until the compose file's own health check of a service (or of the worker of that name) succeeds."""
        kind = service if service in COMPOSE else "worker"
        words = [self.here(word) for word in COMPOSE[kind]["healthcheck"]["test"][1:]]
        words = [word.replace(":8080", f":{self.health.get(service)}") for word in words]
        ends, worker = time.monotonic() + seconds, self.workers.get(service)
        while (done := subprocess.run(words, env=self.environment(kind), check=False, capture_output=True)).returncode:
            if time.monotonic() > ends or (worker and worker.poll() is not None):
                said = self.log(service).read_text(encoding="utf-8", errors="replace")[-1500:]
                raise TimeoutError(f"{service} is not healthy after {seconds:.0f} s: {done.stderr[-300:]!r}\n{said}")
            time.sleep(1)

    def command(self, *words: str) -> str:
        """Run a command of ours or Prefect's against the API, from the project's folder; return what it said."""
        env = self.environment("deploy")
        done = subprocess.run(words, env=env, cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return what Prefect's API answers: to a GET, or with a body to a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api{path}", data, {"content-type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
            text = answer.read()
        return json.loads(text) if text else None


@contextmanager
def laid_out(folder: Path, workers: tuple[str, ...] = ("worker-1", "worker-2")) -> Iterator[Layout]:
    """Yield the layout, healthy, with its deployments; it ends with everything it started."""
    with stores() as own, ExitStack() as until_end:
        made = Layout(folder, own, until_end=until_end)
        for name in ("clusters", "homes", "secrets"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "secrets" / "database_url").write_text(own.database_url, encoding="utf-8")
        made.run("migrate")
        made.start("api")
        made.start("services")
        made.healthy("api")
        made.healthy("services")
        made.run("deploy")
        for name in workers:
            made.start_worker(name)
        for name in workers:
            made.healthy(name)
        yield made
