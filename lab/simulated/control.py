"""The control socket of a lab process: one JSON request a line, one JSON answer; and the client that tests use."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.simulated.failures import Spec
from lab.simulated.lab import SimulatedLab

SOCKET = "control.sock"
Answer = dict[str, Any]


class Control:
    """Listens in the lab's folder; whoever may use the folder may use the lab."""

    def __init__(self, lab: SimulatedLab) -> None:
        self._lab = lab
        self._server: asyncio.Server | None = None
        self._actions: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "fail": self._fail,
            "drift": self._drift,
            "cut": self._cut,
            "plug": self._plug,
            "reboot": self._reboot,
            "ran": self._ran,
            "digest": self._digest,
            "file": self._file,
            "unsimulated": self._unsimulated,
        }

    async def start(self) -> None:
        """Listen. A path too long for a socket's address is refused with OSError."""
        path = self._lab.folder / SOCKET
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path)
        path.chmod(0o600)

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(json.dumps(self._answer(line)).encode() + b"\n")
            await writer.drain()
        writer.close()

    def _answer(self, line: bytes) -> Answer:
        try:
            asked = json.loads(line)
            action = self._actions[asked.pop("do")]
            return {"ok": True, **action(asked)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            known = ", ".join(self._actions)
            return {"ok": False, "error": f"{type(error).__name__}: {error}; known: {known}"}

    def _fail(self, asked: dict[str, Any]) -> Answer:
        values = {key: str(value) for key, value in asked.items() if key not in ("host", "kind")}
        self._lab.fail(Spec(asked["host"], asked["kind"], values))
        return {}

    def _drift(self, asked: dict[str, Any]) -> Answer:
        values = {key: str(value) for key, value in asked.items() if key not in ("host", "kind")}
        self._lab.drift(asked["host"], asked["kind"], values)
        return {}

    def _cut(self, asked: dict[str, Any]) -> Answer:
        self._lab.cut(asked["host"], refuse=bool(asked.get("refuse")), stall=bool(asked.get("stall")))
        return {}

    def _plug(self, asked: dict[str, Any]) -> Answer:
        self._lab.plug(asked["host"])
        return {}

    def _reboot(self, asked: dict[str, Any]) -> Answer:
        self._lab.reboot(asked["host"])
        return {}

    def _ran(self, asked: dict[str, Any]) -> Answer:
        ran = self._lab.hosts[asked["host"]].ran
        return {"ran": [{"verb": one.verb, "words": list(one.words), "status": one.status} for one in ran]}

    def _digest(self, asked: dict[str, Any]) -> Answer:
        names = [asked["host"]] if asked.get("host", "*") != "*" else list(self._lab.hosts)
        return {"digests": {name: self._lab.hosts[name].digest() for name in names}}

    def _file(self, asked: dict[str, Any]) -> Answer:
        content = self._lab.hosts[asked["host"]].files.read(asked["path"])
        return {"text": None if content is None else content.decode(errors="replace")}

    def _unsimulated(self, asked: dict[str, Any]) -> Answer:
        return {"commands": {name: host.not_simulated for name, host in self._lab.hosts.items() if host.not_simulated}}


def ask(folder: Path, **request: Any) -> Answer:
    """Send one request to the lab of that folder; raises RuntimeError with the lab's reason where it refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(20)
        link.connect(str(folder / SOCKET))
        link.sendall(json.dumps(request).encode() + b"\n")
        with link.makefile("rb") as stream:
            answer: Answer = json.loads(stream.readline())
    if not answer.get("ok"):
        raise RuntimeError(f"SIMULATED lab: {answer.get('error')}")
    return answer
