"""One entry of the catalogue of known failures."""

from __future__ import annotations

from dataclasses import dataclass

from shipway.errors import Lost


@dataclass(frozen=True, slots=True)
class Known:
    """One known failure; `pattern` is searched in its redacted output, `traps` are numbers of docs/traps.md.

    A named group of the pattern fills in its name in capitals: `(?P<package>...)` stands for PACKAGE in both sentences.

    `cause` and `fix` are sentences; `fix` names a command to type or a key of the cluster file. `retryable` says
    whether the same command may succeed later with nobody doing anything, and `lost` what did not answer.
    """

    code: str
    title: str
    pattern: str
    cause: str
    fix: str
    retryable: bool
    traps: tuple[int, ...] = ()
    lost: Lost = ""
