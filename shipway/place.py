"""A place that steps look at and change: a host, or the API of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self


class Place:
    """What a step's `check` and `apply` are given. A place that shares answers between looks overrides all of it."""

    name: str = ""

    def forget(self) -> None:
        """Drop what is known, so that the next look is a real one."""

    def seen_by(self, step: object) -> Self:
        """Return the place for one look of a step: what is read through it is what that step looks at."""
        del step
        return self

    @contextmanager
    def changing(self, about: Sequence[object]) -> Iterator[Self]:
        """Yield the place for one change; afterwards nothing is known that was not seen after that change.

        `about` are the steps that will be looked at next, so that their look can ride with the change.
        """
        del about
        try:
            yield self
        finally:
            self.forget()
