"""A lab as the suite sees it: an ordinary cluster file, SSH, kubectl, and what befalls a host by other hands."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from shipway.cluster.model import node_ip
from shipway.cluster_file import load_cluster
from shipway.host.session import Host
from shipway.host.ssh import Connection, Pool, Roads
from shipway.script import Output, compose, split
from tests.conformance.case import API, Answer, Case
from tests.conformance.normalise import normalised
from tests.conformance.reduce import REDUCERS

ADMIN = "/etc/kubernetes/admin.conf"


class Place:
    """One lab; `values` fill holes in the story's words.

    `befall(host, what)` lets one of tests.conformance.befall.KINDS happen to a host.
    """

    def __init__(
        self, cluster_file: Path, folder: Path, befall: Callable[[str, str], Awaitable[None]], values: Mapping[str, str]
    ) -> None:
        self.cluster = load_cluster(cluster_file)
        self.folder = folder
        self.befall = befall
        self.values: dict[str, str] = dict(values)
        self.pool = Pool()
        roads = Roads()
        self._connections = {
            spec.name: Connection(self.cluster.target(spec), roads.connection) for spec in self.cluster.hosts
        }
        self.addresses = {node_ip(spec): spec.name for spec in self.cluster.hosts}
        self.values |= {name: address for address, name in self.addresses.items()}
        sources = self.cluster.sources.apt
        self.values |= {"packages": sources["kubernetes"].uri, "gpus": sources["nvidia"].uri}

    def host(self, name: str) -> Host:
        """Return a host's session, as the product uses it."""
        return self.pool.host(self.cluster.target(self.cluster.host(name)))

    def filled(self, words: Sequence[str]) -> list[str]:
        """Return the words with their holes `{cp1}`, `{token}` filled; a find's `{}` and the product's holes stay."""
        values = self.values | {name: f"{{{name}}}" for name in ("os", "codename", "arch", "release", "machine")}
        filled = [re.sub(r"(?<![$%])\{(\w+)\}", lambda hole: values[hole[1]], word) for word in words]
        return [put for word, put in zip(words, filled, strict=True) if put or not word]

    async def run(self, host: str, words: Sequence[str], *, seconds: float = 90, stdin: bytes = b"") -> Output:
        """Run a command as root over SSH, in the wire format of the product."""
        return (await self.script(host, [words], stdin=stdin, seconds=seconds))[0]

    async def script(
        self,
        host: str,
        commands: Sequence[Sequence[str]],
        *,
        after: Sequence[Sequence[str]] = (),
        seconds: float = 90,
        stdin: bytes = b"",
    ) -> list[Output]:
        """Run commands as root in one script, those after where all were well; return the outputs of those that ran."""
        lines, looks = ([self.filled(words) for words in each] for each in (commands, after))
        text, boundary = compose(lines, verb="d", after=looks)
        return split(boundary, *await self._connections[host].script(text, stdin=stdin, seconds=seconds))

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
        """Return the normalised answer to a case."""
        if asked.host == API:
            said = await self.kubectl(*self.filled(asked.words)[1:], seconds=asked.seconds)
        else:
            lines = (asked.words, *asked.then)
            outputs = await self.script(asked.host, lines, after=asked.after, seconds=asked.seconds, stdin=asked.feed)
            said = outputs[0] if len(asked.commands) == 1 else _joined(outputs)
        return Answer(said.status, self._plain(said.stdout, asked.reduce), self._plain(said.stderr, asked.reduce))

    def _plain(self, text: str, reduce: str) -> str:
        cut = REDUCERS[reduce](text) if text else ""
        names = {**self.addresses, str(self.folder): "folder"}
        names |= {self.values[name]: name for name in ("packages", "gpus")}
        return normalised(cut, names)

    async def fetch_kubeconfig(self) -> None:
        """Take the administrator's kubeconfig, mode 0600."""
        said = await self.run("cp1", ("cat", ADMIN))
        path = self.folder / "admin.conf"
        path.touch(mode=0o600)
        path.write_text(said.stdout, encoding="utf-8")

    async def until(self, look: Callable[[], Awaitable[str]], wanted: str, *, seconds: float) -> None:
        """Look again and again until the pattern is found; raises AssertionError with the last thing seen."""
        seen, pause = "", 0.05
        try:
            async with asyncio.timeout(seconds):
                while not re.search(wanted, seen := await look()):
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 0.3)
        except TimeoutError:
            message = f"{wanted!r} was not seen within {seconds} s; last seen: {seen[-1500:]}"
            raise AssertionError(message) from None

    async def close(self) -> None:
        """Close every connection."""
        await self.pool.close()
        for connection in self._connections.values():
            await connection.close()


def _joined(outputs: Sequence[Output]) -> Output:
    """Return a script's outputs as one: the last status, and each command's number, status and texts."""
    said, errors = (
        "\n".join(f"{number}: {text.rstrip()}" for number, text in enumerate(texts, 1))
        for texts in ([f"{one.status} {one.stdout}" for one in outputs], [one.stderr for one in outputs])
    )
    return Output(outputs[-1].status, said, errors)
