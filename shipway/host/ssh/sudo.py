"""sudo's password: where it comes from, and the command line that takes it from standard input."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from shipway.errors import Refused
from shipway.host.target import Target
from shipway.script import READER

Secret = Callable[[str], Awaitable[str]]  # returns what a named Secret block holds

WITHOUT = f"sudo -n -- {READER}"
# -k: the password is asked for each time, whatever sudo remembers; -p '': no prompt among what is printed.
WITH = f"sudo -S -k -p '' -- {READER}"
ACCEPTED = 97  # READER's own status for an input without a script: sudo took the password and ran it
# What sudo prints (its exact words, or those of PAM for it) where the password is the reason.
WRONG = re.compile(
    r"^sudo(?:-rs)?: (?:\d+ incorrect password attempts?|no password was provided|.*[Aa]uthentication fail)|"
    r"^Sorry, try again\.",
    re.MULTILINE,
)


async def password(target: Target, secret: Secret | None) -> str:
    """Return sudo's password for a target, "" where none is named.

    Raises Refused for a file that is not there, empty, or readable by others than its owner.
    """
    if target.sudo_password_secret:
        if secret is None:
            message = f"Secret block {target.sudo_password_secret} cannot be read here"
            raise Refused(message, host=target.name, code="SHW-348", fix="Use ssh.sudo_password_file instead.")
        return _line(await secret(target.sudo_password_secret), f"Secret block {target.sudo_password_secret}", target)
    return _of_file(target) if target.sudo_password_file else ""


def _of_file(target: Target) -> str:
    """Return the password in a file. Raises Refused as `password`."""
    path = Path(target.sudo_password_file).expanduser()
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno())
            if mode.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                message = f"sudo_password_file {path} may be read by others (mode {stat.S_IMODE(mode.st_mode):o})"
                raise Refused(message, host=target.name, code="SHW-348", fix=f"Run `chmod 600 {path}`.")
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        message = f"sudo_password_file {path} cannot be read ({why})"
        fix = "Name a file of mode 0600 that holds the password alone."
        raise Refused(message, host=target.name, code="SHW-348", fix=fix) from error
    return _line(text, f"sudo_password_file {path}", target)


def _line(text: str, where: str, target: Target) -> str:
    """Return the one line that a password is; sudo reads no further than a line's end."""
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or "\n" in line or "\0" in line:
        message = f"{where} holds no password, which is one line"
        fix = "Put the password alone into it, on one line."
        raise Refused(message, host=target.name, code="SHW-348", fix=fix)
    return line
