"""Exchanges with one host: a script goes, one output per command comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shipway.errors import ConnectionLost, ShipwayError
from shipway.script import Output, compose, split

Words = Sequence[str]


class Shell(Protocol):
    """What carries a script to a host as root and brings back its output; `shipway.host.ssh` has the real one."""

    async def script(self, text: str, *, stdin: bytes | None = b"", seconds: float) -> tuple[str, str]:
        """Run the script under `sh`; return standard output and error; raises a ShipwayError when the link fails.

        `stdin` is None where nothing reads it: then not even its end is sent, which would cost packets.
        """

    async def forward(self, address: str, port: int) -> int:
        """Return a local port on loopback that leads to address:port as seen from the host."""


class Exchanges:
    """The scripts that are sent to one host; `count` is how many there were."""

    def __init__(self, name: str, shell: Shell) -> None:
        self.name, self.shell = name, shell
        self.count = 0

    async def send(
        self,
        commands: Sequence[Words],
        *,
        verb: str,
        seconds: float,
        stdin: bytes = b"",
        after: Sequence[Words] = (),
    ) -> list[Output]:
        """Send one script, return one output per command; a script cut short raises ConnectionLost.

        The outputs of `after` follow where all of them came.
        """
        text, boundary = compose(commands, verb=verb, after=after)
        self.count += 1
        try:
            given = None if verb == "r" else stdin  # what looks reads from /dev/null
            outputs = split(boundary, *await self.shell.script(text, stdin=given, seconds=seconds))
        except ShipwayError as error:
            raise error.at(host=self.name) from error.__cause__
        except ValueError as error:
            raise ConnectionLost(f"the host's answer cannot be read ({error})", host=self.name) from error
        complete = len(outputs) >= len(commands) or (verb == "d" and outputs and not outputs[-1].ok)
        if not complete:
            message = f"only {len(outputs)} of {len(commands)} commands answered"
            raise ConnectionLost(message, host=self.name)
        return outputs
