"""What ~/.ssh/config says of a host, for whatever the cluster file leaves open; nothing else reads that file."""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass, replace
from pathlib import Path

import asyncssh
from asyncssh.config import SSHClientConfig

from shipway.errors import Refused
from shipway.foreign.errors import describe_error
from shipway.host.ssh.known_hosts import EVERYWHERE, SSH_PORT
from shipway.host.target import Target

_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?P<address>\[[^\]]+\]|[^:@]+)(?::(?P<port>\d+))?/?")


@dataclass(frozen=True, slots=True)
class Way:
    """Where a connection leads once the SSH configuration had its say, and with what."""

    target: Target
    known_hosts: tuple[str, ...]
    keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    only: bool = False
    """Whether keys of the agent other than those named stay out of it (IdentitiesOnly)."""
    agent: str | None = None
    """The agent's socket where the configuration names one; None: SSH_AUTH_SOCK."""
    alias: str = ""
    """The name under which known_hosts has the host (HostKeyAlias)."""
    command: str = ""
    """The program whose standard input and output are the connection (ProxyCommand)."""

    @property
    def where(self) -> str:
        """user@address:port, for messages."""
        return f"{self.target.user}@{self.target.address}:{self.target.port}"


def way(target: Target) -> Way:
    """Return where a target leads. Raises Refused, with file and line, where the SSH configuration cannot be read.

    What the cluster file says wins; what is in `Target.open` it does not say (ssh_config(5) has the rest).
    """
    own: tuple[str, ...] = (target.known_hosts or "~/.ssh/known_hosts",)
    keys: tuple[str, ...] = (target.key,) if target.key else ()
    everywhere = (EVERYWHERE,) if "known_hosts" in target.open else ()
    path = Path(target.config).expanduser() if target.config else None
    if path is None or not path.exists():
        return Way(target, (*own, *everywhere), keys, only=bool(keys))
    said = _ask(path, target)
    given: dict[str, object] = {"address": str(said.get("Hostname") or target.address)}
    if "user" in target.open and said.get("User"):
        given["user"] = str(said.get("User"))
    if "port" in target.open and said.get("Port"):
        given["port"] = int(str(said.get("Port")))
    if "key" in target.open:
        keys = tuple(str(one) for one in _list(said.get("IdentityFile")))
    if "known_hosts" in target.open and (files := _list(said.get("UserKnownHostsFile"))):
        own = tuple(str(one) for one in files)
    command = ""
    if "jump" in target.open and target.jump is None:
        if (through := str(said.get("ProxyJump") or "none")) != "none":
            given["jump"] = _jump(through, target)
        elif (proxy := said.get("ProxyCommand")) and str(proxy) != "none":
            command = str(proxy)
    agent = said.get("IdentityAgent")
    return Way(
        replace(target, **given),  # type: ignore[arg-type]
        (*own, *everywhere),
        keys,
        tuple(str(one) for one in _list(said.get("CertificateFile"))),
        only=bool(said.get("IdentitiesOnly")) or bool(target.key),
        agent=str(agent) if agent else None,
        alias=str(said.get("HostKeyAlias") or ""),
        command=command,
    )


def _ask(path: Path, target: Target) -> SSHClientConfig:
    """Return what the file says of an address, and of the user and port that the cluster file names."""
    user = () if "user" in target.open else target.user
    port = () if "port" in target.open else target.port
    try:
        said = SSHClientConfig.load(
            None, [str(path)], *(False, False, False), getpass.getuser(), user, target.address, port
        )
    except (asyncssh.ConfigParseError, OSError, UnicodeDecodeError, ValueError) as error:
        message = f"the SSH configuration {path} cannot be read ({describe_error(error)})"
        fix = "Correct the line that is named, or set ssh.config to another file in the cluster file."
        raise Refused(message, host=target.name, code="SHW-348", fix=fix) from error
    if not isinstance(said, SSHClientConfig):
        raise TypeError(type(said))
    return said


def _jump(text: str, target: Target) -> Target:
    """Return the last of the jump hosts of a ProxyJump, which is reached through those before it."""
    jump: Target | None = None
    for one in text.split(","):
        found = _JUMP.fullmatch(one.strip())
        if found is None:
            message = f"ProxyJump {text} of {target.config} is no [user@]host[:port]"
            raise Refused(message, host=target.name, code="SHW-348")
        left = [name for name in ("user", "port") if not found[name]]
        jump = Target(
            f"{target.name} (jump host)",
            found["address"].strip("[]"),
            int(found["port"] or SSH_PORT),
            found["user"] or getpass.getuser(),  # as ssh does
            known_hosts=target.known_hosts,
            accept_new=target.accept_new,
            jump=jump,
            connect_seconds=target.connect_seconds,
            config=target.config,
            open=(*left, "key", *(("jump",) if jump is None else ()), *(set(target.open) & {"known_hosts"})),
        )
    return jump  # type: ignore[return-value] # split() gives at least one


def _list(value: object) -> list[object]:
    return [one for one in value if one] if isinstance(value, list | tuple) else [value] if value else []
