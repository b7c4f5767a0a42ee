"""Whoever watches a command, and may leave: a run goes on where its pipe, terminal or session is gone.

`python -m flows.bootstrap FILE | head`, a closed terminal (SIGHUP, then EIO on every write), a standard output that was
closed from the start, a full disk behind `> log`: none of them ends a run on hosts. SIGTERM and Ctrl-C end it in order.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import sys
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 160  # of lines where no terminal says how wide it is
# What a write says when nobody is left to read: a pipe without reader, a terminal that is gone, a full disk.
GONE = frozenset({errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EBADF, errno.ECONNRESET})


class Audience:
    """A text stream that goes on in silence once nobody can read it any more."""

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream or io.StringIO()
        self.gone = stream is None

    def write(self, text: str) -> int:
        """Write text; return its length, also where nobody is left to read it. Raises OSError for other faults."""
        return self._try(lambda: self._stream.write(text), len(text))

    def flush(self) -> None:
        """Pass on what was written. Raises as `write`."""
        self._try(self._flush, 0)

    def _flush(self) -> int:
        self._stream.flush()
        return 0

    def _try(self, act: Any, otherwise: int) -> int:
        if self.gone:
            return otherwise
        try:
            return int(act())
        except OSError as error:
            if error.errno not in GONE:
                raise
        except ValueError:  # the stream itself was closed
            pass
        self.gone = True
        # Whoever else writes there (a library, the interpreter at its end) shall not fail either.
        with contextlib.suppress(OSError, ValueError):
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, self._stream.fileno())
            os.close(silence)
        return otherwise

    def __getattr__(self, name: str) -> Any:
        """Return everything else as the stream has it: encoding, isatty, fileno."""
        return getattr(self._stream, name)


def open_console() -> Console:
    """Return the console of a command, which outlives its audience from now on."""
    from rich.console import Console  # noqa: PLC0415 - a command says its first line before

    outlive_audience()
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def outlive_audience() -> None:
    """Let the command go on where nobody reads what it says any more; SIGTERM ends it in order.

    A standard stream that was closed at the start is None in Python, and the next file or socket takes its number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        setattr(sys, name, stream if isinstance(stream, Audience) else Audience(stream))
    # A line of a log that cannot be sent or written is no news of the run; the standard library, and Prefect with it
    # ("--- Error logging to API ---"), would print that on standard error instead (logging, raiseExceptions).
    logging.raiseExceptions = False
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_by_exception()


def end_by_exception() -> None:
    """Let SIGTERM raise KeyboardInterrupt in the main thread, as Ctrl-C does: what is open is closed in order."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
