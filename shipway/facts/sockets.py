"""Who listens on which TCP port of a host, as ss tells it."""

from __future__ import annotations

from dataclasses import dataclass

from shipway.facts.commands import Says
from shipway.foreign.numbers import whole

LISTENING = Says(("ss", "-Hltnp"))
LOCAL = 3  # the column of the local address


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket; `owner` is its program, empty where ss does not name it."""

    address: str
    port: int
    owner: str


def listeners(said: str) -> list[Listener]:
    """Return the sockets of LISTENING's output; lines that are none are left out."""
    found = []
    for line in said.splitlines():
        fields = line.split()
        address, _, port = (fields[LOCAL] if len(fields) > LOCAL else "").rpartition(":")
        if (number := whole(port)) is not None:
            owner = line.split('(("', 1)[1].split('"', 1)[0] if '(("' in line else ""
            found.append(Listener(address, number, owner))
    return found
