"""Where and how to log in to a host: plain data, so that it can be a task's argument and a pool's key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One SSH destination; an empty key means the usual ones in ~/.ssh, `accept_new` takes the key of a new host.

    `config` is an SSH configuration file, asked for the fields named in `open`: what the cluster file does not say.
    sudo's password is named and never held: a file, or a Secret block.
    """

    name: str
    address: str
    port: int = 22
    user: str = "root"
    key: str = ""
    known_hosts: str = ""
    accept_new: bool = False
    jump: Target | None = None
    connect_seconds: float = 20.0
    config: str = ""
    open: tuple[str, ...] = ()
    sudo_password_file: str = ""
    sudo_password_secret: str = ""
