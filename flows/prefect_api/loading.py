"""Prefect's modules are read without looking for garbage among them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without the garbage collector, and keep it from what was imported for good.

    What is imported is no garbage: to look for some takes up to a seventh of a start (measured on Prefect 3.8), and
    each full collection of the run after it would go through all of it again.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
