"""One moving line on a terminal, a line every few seconds elsewhere, so that nobody waits in silence.

It uses the standard library only: it runs while nothing else is imported, or even installed.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

TICK_SECONDS = 0.5  # of the line on a terminal
LINE_SECONDS = 5.0  # between two lines where no terminal is


class Ticker:
    """Say `text`, and how long it has been so, until the block ends; `text` may be changed meanwhile."""

    def __init__(self, text: str, *, quiet: bool = False) -> None:
        self.text = text
        self._quiet = quiet
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Self:
        """Begin to say it."""
        if not self._quiet:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """Stop, and leave the line of a terminal empty."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _show(self) -> None:
        moving = sys.stdout.isatty()
        try:
            while not self._ended.wait(TICK_SECONDS if moving else LINE_SECONDS):
                line = f"{self.text}: {time.monotonic() - self._began:.0f} s"
                sys.stdout.write(f"\r\033[K{line}" if moving else f"{line}\n")
                sys.stdout.flush()
            if moving:
                sys.stdout.write("\r\033[K")
                sys.stdout.flush()
        except (OSError, ValueError):
            return  # nobody reads any more: the work goes on without being watched
