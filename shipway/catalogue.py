"""The catalogue of known failures: what their output looks like, their cause, the fix, and whether trying again helps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shipway.errors import CommandFailed
from shipway.redact import redact, tail
from shipway.script import Output


@dataclass(frozen=True, slots=True)
class Known:
    """One known failure; `traps` are numbers of the list of known traps in docs/traps.md."""

    code: str
    title: str
    pattern: str
    cause: str
    fix: str
    retryable: bool
    traps: tuple[int, ...] = ()


KNOWN: tuple[Known, ...] = ()


def diagnose(text: str) -> Known | None:
    """Give the first entry whose pattern is found in the text, or None."""
    return next((entry for entry in KNOWN if re.search(entry.pattern, text)), None)


def failure(what: str, output: Output, *, host: str = "") -> CommandFailed:
    """Give the error of a command that failed: the catalogue's cause and fix where it knows the output."""
    text = redact(f"{output.stderr}\n{output.stdout}")
    known = diagnose(text)
    said = tail(output.stderr) or tail(output.stdout) or "no output"
    message = f"`{what}` ended with exit status {output.status}: {said}"
    if known is None:
        return CommandFailed(message, exit_status=output.status, output=tail(text, 40), host=host)
    return CommandFailed(
        f"{known.cause} ({message})",
        exit_status=output.status,
        output=tail(text, 40),
        host=host,
        code=known.code,
        fix=known.fix,
        retry=known.retryable,
    )
