"""Where and how to log in to a host: plain data, so that it can be a task's argument and a pool's key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One SSH destination; an empty key means the usual ones in ~/.ssh, `accept_new` takes the key of a new host."""

    name: str
    address: str
    port: int = 22
    user: str = "root"
    key: str = ""
    known_hosts: str = ""
    accept_new: bool = False
    jump: Target | None = None
    connect_seconds: float = 20.0
