"""The maintenance window: whether it is open, and when it opens next."""

from __future__ import annotations

from datetime import datetime

from shipway.cluster.parts import Window
from shipway.cluster.window_rules import last_opening, openings


def local(now: datetime) -> datetime:
    """Return a time as the controller's local time without a zone: what a window's rules are written in."""
    return now.astimezone().replace(tzinfo=None) if now.tzinfo else now


def open_now(window: Window, now: datetime) -> bool:
    """Say whether the window is open at a time."""
    return last_opening(window.cron, window.rrule, local(now), window.minutes) is not None


def next_opening(window: Window, now: datetime) -> datetime | None:
    """Return when the window opens next, in local time without a zone; None where it never does again."""
    return next(openings(window.cron, window.rrule, local(now)), None)
