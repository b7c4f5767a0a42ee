"""The catalogue of known failures: what their output looks like, cause, fix, and whether trying again helps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from shipway.errors import CommandFailed, ShipwayError
from shipway.known_failures import backups as catalogue_backups
from shipway.known_failures import gpu as catalogue_gpu
from shipway.known_failures import hosts as catalogue_hosts
from shipway.known_failures import kubeadm as catalogue_kubeadm
from shipway.known_failures import network as catalogue_network
from shipway.known_failures import runtime as catalogue_runtime
from shipway.known_failures.entry import Known
from shipway.redact import redact, tail
from shipway.script import Output

__all__ = ["KNOWN", "VAGUE", "Known", "diagnose", "explain", "failure"]


# Vague entries say that something died and not what: their code stays SHW-400, so that evidence is still looked for.
VAGUE: tuple[Known, ...] = catalogue_kubeadm.VAGUE
# The order matters where one output holds several texts: what names the cause stands before what names its effect.
KNOWN: tuple[Known, ...] = (
    *catalogue_backups.ENTRIES,
    *catalogue_hosts.ENTRIES,
    *catalogue_gpu.ENTRIES,
    *catalogue_runtime.ENTRIES,
    *catalogue_kubeadm.ENTRIES,
    *catalogue_network.ENTRIES,
    *catalogue_hosts.LAST,
)


# What programs say whether all is well or not; in front of the line that tells it only hides that.
_BESIDE = re.compile(
    r"W: Download is performed unsandboxed|\[init\] Using|To see the stack trace of this error|"
    r"\[preflight\] (?:Running|Reading|FYI|If you know|Pulling|This might|You can also)"
)


def diagnose(text: str) -> Known | None:
    """Return the first entry whose pattern is found in the text, its sentences filled in from there, or None."""
    for entry in KNOWN:
        if found := re.search(entry.pattern, text):
            named = {name.upper(): value for name, value in found.groupdict().items() if value}
            return replace(entry, cause=_fill(entry.cause, named), fix=_fill(entry.fix, named)) if named else entry
    return None


def explain(error: ShipwayError, text: str, form: str = "{cause} ({message})") -> None:
    """Let an error tell the cause that the catalogue knows for this text, beside its own message; else leave it."""
    if known := diagnose(text):
        message = form.format(cause=known.cause, message=error.message)
        error.explain(message, code=known.code, fix=known.fix, retry=known.retryable, lost=known.lost)


def _fill(sentence: str, named: Mapping[str, str]) -> str:
    """Return a sentence with each word in capitals that is a key (PACKAGE) put as its value.

    What a group of a pattern may take is held by the pattern to letters that are safe in a command: a fix is typed.
    """
    return re.sub(r"\b[A-Z]+\b", lambda word: named.get(word[0], word[0]), sentence)


def _telling(text: str) -> str:
    """Return the lines that tell something of the failure."""
    return "\n".join(line for line in text.splitlines() if not _BESIDE.match(line.strip()))


def failure(what: str, output: Output, *, host: str = "") -> CommandFailed:
    """Return the error of a command that failed: the catalogue's cause and fix where it knows the output."""
    text = redact(f"{output.stderr}\n{output.stdout}")
    known = diagnose(text) or next((entry for entry in VAGUE if re.search(entry.pattern, text)), None)
    said = tail(_telling(output.stderr)) or tail(_telling(output.stdout)) or "no output"
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
        lost=known.lost,
    )
