"""The control socket of a lab process: one JSON request a line, one JSON answer; and the client that tests use."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

from lab.simulated.failures import Spec
from lab.simulated.lab import SimulatedLab

SOCKET = "control.sock"
KNOWN = ("fail", "drift", "cut", "plug", "reboot", "ran", "digest", "file", "unsimulated")
Answer = dict[str, Any]


class Control:
    """Listens in the lab's folder; whoever may use the folder may use the lab."""

    def __init__(self, lab: SimulatedLab) -> None:
        self._lab = lab
        self._server: asyncio.Server | None = None

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
            return {"ok": True, **self._done(asked.pop("do"), asked.pop("host", ""), asked)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}; known: {', '.join(KNOWN)}"}

    def _done(self, what: str, name: str, asked: dict[str, Any]) -> Answer:
        """Do what is asked of a host, and return what is to be shown. Raises KeyError for what is not known."""
        lab, hosts = self._lab, self._lab.hosts
        values = {key: str(value) for key, value in asked.items() if key != "kind"}
        match what:
            case "fail":
                lab.fail(Spec(name, asked["kind"], values))
            case "drift":
                lab.drift(name, asked["kind"], values)
            case "cut":
                lab.cut(name, refuse=bool(asked.get("refuse")), stall=bool(asked.get("stall")))
            case "plug":
                lab.plug(name)
            case "reboot":
                lab.reboot(name)
            case "ran":
                return {
                    "ran": [{"verb": one.verb, "words": one.words, "status": one.status} for one in hosts[name].ran]
                }
            case "digest":
                return {"digests": {one: hosts[one].digest() for one in (hosts if name in ("", "*") else [name])}}
            case "file":
                content = hosts[name].files.read(asked["path"])
                return {"text": None if content is None else content.decode(errors="replace")}
            case "unsimulated":
                return {"commands": {one: host.not_simulated for one, host in hosts.items() if host.not_simulated}}
            case _:
                raise KeyError(what)
        return {}


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
