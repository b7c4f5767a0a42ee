"""The private keys that a connection offers: files, an agent's, and those whose passphrase a person is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import asyncssh

from shipway.errors import Refused
from shipway.host.ssh.config import Way

USUAL = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")  # in ~/.ssh, as ssh(1) tries them
TRIES = 3
_ASKED: dict[tuple[str, int], str] = {}  # passphrases, by key file and when it changed: a person is asked once
_asking = threading.Lock()  # not asyncio's: runs of several clusters have event loops of their own


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered: keys, the agent's socket ("" for none), and which of its keys (None: all)."""

    keys: tuple[asyncssh.SSHKey, ...]
    certificates: tuple[str, ...]
    agent: str
    identities: tuple[bytes, ...] | None


async def offer(way: Way, host: str) -> Offer:
    """Return what to offer on this way.

    Raises Refused: a named key that cannot be read, or one with a passphrase that is in no agent while nobody can be
    asked for it.
    """
    agent = _agent(way)
    files = [_file(name) for name in way.keys] or _usual()
    keys: list[asyncssh.SSHKey] = []
    locked: list[str] = []
    for file in files:
        try:
            keys.append(_read(file))
        except (ValueError, OSError) as error:
            if isinstance(error, ValueError) and "assphrase" in str(error):
                locked.append(file)
            elif way.keys and not _may_pass_over(way, file, error):
                raise _unreadable(file, error, host) from error
    public = [one for one in map(_public, files) if one is not None]
    held = await _hold(agent) if locked else []
    for file in locked:
        if _public(file) in held:
            continue
        if key := await asyncio.to_thread(_unlock, file):
            keys.append(key)
        elif way.keys and not keys and not held:
            raise Refused(
                f"SSH key {file} has a passphrase, no agent holds it, and there is no terminal to ask at",
                host=host,
                code="SHW-350",
                fix=f"Run `ssh-add {file}` first (with SSH_AUTH_SOCK set for this program), or name a key without one.",
            )
    only = tuple(public) if way.only and len(public) == len(files) else None
    return Offer(tuple(keys), way.certificates, agent, only)


def _may_pass_over(way: Way, file: str, error: Exception) -> bool:
    """Tell whether ssh(1) goes on without this file: it is not there, or only says which key of the agent to use."""
    if isinstance(error, FileNotFoundError):
        return not way.target.key  # the cluster file means it
    with contextlib.suppress(ValueError, OSError):
        asyncssh.read_public_key(file)
        return True
    return False


def _file(name: str) -> str:
    return str(Path(name).expanduser())


def _usual() -> list[str]:
    return [str(path) for name in USUAL if (path := Path("~/.ssh", name).expanduser()).is_file()]


def _agent(way: Way) -> str:
    """Return the socket of the agent that is asked for keys, "" for none."""
    named = way.agent if way.agent is not None else os.environ.get("SSH_AUTH_SOCK", "")
    return "" if named == "none" else _file(named) if named else ""


def _read(file: str) -> asyncssh.SSHKey:
    """Return a private key; raises OSError or ValueError, which says so where a passphrase is missing."""
    at = (file, Path(file).stat().st_mtime_ns)
    return _key(*at, _ASKED.get(at))


@lru_cache(maxsize=64)
def _key(file: str, changed: int, passphrase: str | None) -> asyncssh.SSHKey:  # noqa: ARG001 - part of the cache key
    """Read a key once, not once per connection: a passphrase is made slow on purpose."""
    return asyncssh.read_private_key(file, passphrase)


def _unreadable(file: str, error: Exception, host: str) -> Refused:
    why = error.strerror if isinstance(error, OSError) else str(error)
    fix = "Name a private key that you may read as ssh.key in the cluster file (OpenSSH, PKCS#1 or PKCS#8)."
    return Refused(f"SSH key {file} cannot be read ({why})", host=host, code="SHW-348", fix=fix)


def _public(file: str) -> bytes | None:
    """Return the public half of a key file, from the file beside it where need be; None where there is none."""
    try:
        return _read(file).public_data
    except (ValueError, OSError):
        for name in (f"{file}.pub", file):
            with contextlib.suppress(ValueError, OSError):
                return asyncssh.read_public_key(name).public_data
        return None


async def _hold(agent: str) -> list[bytes]:
    """Return the public halves of what an agent holds; none where it does not answer."""
    if not agent:
        return []
    found: Sequence[Any] = ()
    with contextlib.suppress(OSError, ValueError, asyncssh.Error):
        async with asyncio.timeout(5), asyncssh.connect_agent(agent) as client:
            found = await client.get_keys()
    return [key.public_data for key in found]


def _unlock(file: str) -> asyncssh.SSHKey | None:
    """Return a key whose passphrase a person typed, asked for once per process; None where nobody can be asked."""
    with _asking:
        at = (file, Path(file).stat().st_mtime_ns)
        for left in reversed(range(TRIES)):
            typed = _ASKED.get(at)
            if typed is None:
                if not (sys.stdin and sys.stdin.isatty()):
                    return None
                typed = getpass.getpass(f"Passphrase of SSH key {file}: ")
            try:
                key = _key(*at, typed)
            except ValueError as error:
                if not left:
                    message = f"the passphrase of SSH key {file} was wrong {TRIES} times"
                    fix = f"Run `ssh-add {file}`, then run again."
                    raise Refused(message, code="SHW-350", fix=fix) from error
            else:
                _ASKED[at] = typed
                return key
    return None
