"""A lab as the suite sees it: an ordinary cluster file, SSH, kubectl, and the one thing that no SSH can do (swap)."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from shipway.cluster import Cluster, node_ip
from shipway.host import Host
from shipway.script import Output, compose, split
from shipway.ssh import Connection, Pool
from tests.conformance.case import API, Answer, Case
from tests.conformance.normalise import normalised
from tests.conformance.reduce import REDUCERS

ADMIN = "/etc/kubernetes/admin.conf"


class Place:
    """One lab; `swap(host, on)` shows or hides swap on a host."""

    def __init__(self, cluster_file: Path, folder: Path, swap: Callable[[str, bool], Awaitable[None]]) -> None:
        self.cluster = Cluster.load(cluster_file)
        self.folder = folder
        self.swap = swap
        self.values: dict[str, str] = {}
        self.pool = Pool()
        gate = asyncio.Semaphore(8)
        self._connections = {spec.name: Connection(self.cluster.target(spec), gate) for spec in self.cluster.hosts}
        self.addresses = {node_ip(spec): spec.name for spec in self.cluster.hosts}
        self.values |= {name: address for address, name in self.addresses.items()}

    def host(self, name: str) -> Host:
        """Give a host's session, as the product uses it."""
        return self.pool.host(self.cluster.target(self.cluster.host(name)))

    def filled(self, words: Sequence[str]) -> list[str]:
        """Give the words with their holes `{cp1}`, `{token}` filled; a find's own `{}` stays."""
        return [re.sub(r"(?<![$%])\{(\w+)\}", lambda hole: self.values[hole[1]], word) for word in words]

    async def run(self, host: str, words: Sequence[str], *, seconds: float = 90, stdin: bytes = b"") -> Output:
        """Run a command as root over SSH, in the wire format of the product."""
        text, boundary = compose([self.filled(words)], verb="d")
        return split(boundary, *await self._connections[host].script(text, stdin=stdin, seconds=seconds))[0]

    async def kubectl(self, *words: str, seconds: float = 60) -> Output:
        """Run the real kubectl of this machine against the cluster."""
        program = shutil.which("kubectl") or "kubectl"
        flags = (f"--kubeconfig={self.folder / 'admin.conf'}", f"--cache-dir={self.folder / 'cache'}")
        process = await asyncio.create_subprocess_exec(
            program, *flags, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(), seconds)
        return Output(process.returncode or 0, out.decode(), err.decode())

    async def answer(self, asked: Case) -> Answer:
        """Give the normalised answer to a case."""
        words = self.filled(asked.words)
        if asked.host == API:
            said = await self.kubectl(*words[1:], seconds=asked.seconds)
        else:
            said = await self.run(asked.host, words, seconds=asked.seconds)
        return Answer(said.status, self._plain(said.stdout, asked.reduce), self._plain(said.stderr, asked.reduce))

    def _plain(self, text: str, reduce: str) -> str:
        cut = REDUCERS[reduce](text) if text else ""
        names = {**self.addresses, str(self.folder): "folder"}
        return normalised(cut, names)

    async def fetch_kubeconfig(self) -> None:
        """Take the administrator's kubeconfig, mode 0600."""
        said = await self.run("cp1", ("cat", ADMIN))
        path = self.folder / "admin.conf"
        path.touch(mode=0o600)
        path.write_text(said.stdout, encoding="utf-8")

    async def until(self, look: Callable[[], Awaitable[str]], wanted: str, *, seconds: float) -> None:
        """Look again and again until the pattern is found; raises AssertionError with the last thing seen."""
        seen = ""
        try:
            async with asyncio.timeout(seconds):
                while not re.search(wanted, seen):
                    seen = await look()
                    await asyncio.sleep(0.3)
        except TimeoutError:
            message = f"{wanted!r} was not seen within {seconds} s; last seen: {seen[-1500:]}"
            raise AssertionError(message) from None

    async def close(self) -> None:
        """Close every connection."""
        await self.pool.close()
        for connection in self._connections.values():
            await connection.close()
