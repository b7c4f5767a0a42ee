"""The rules that a maintenance window opens by: cron's five fields, or RFC 5545's recurrence."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError
from dateutil.rrule import rrulestr

# A recurrence without a start of its own begins here; INTERVAL counts from it (RFC 5545, DTSTART).
BEGINNING = datetime(2024, 1, 1)  # noqa: DTZ001 - local time, as the window is
PROBE = datetime(2025, 1, 1)  # noqa: DTZ001 - as above


def fault(cron: str | None, rrule: str | None) -> str:
    """Return what is wrong with a window's rules in a sentence; empty when one of them is given and is right."""
    if (cron is None) == (rrule is None):
        return "give either cron or rrule" if cron is None else "give cron or rrule, not both"
    try:
        next(openings(cron, rrule, PROBE))
    except StopIteration:
        return f"{cron or rrule} never opens"
    except (CronSimError, ValueError, TypeError, AttributeError, OverflowError) as error:
        return f"{'cron' if cron else 'rrule'} cannot be read: {error}"
    return ""


def openings(cron: str | None, rrule: str | None, after: datetime) -> Iterator[datetime]:
    """Yield the times of opening after a time, in order, in local time without a zone.

    Raises CronSimError or ValueError for a rule that cannot be read.
    """
    if cron:
        yield from CronSim(cron, after)
        return
    rule = rrulestr(rrule, dtstart=BEGINNING)
    at: datetime | None = after
    while at is not None and (at := rule.after(at)) is not None:
        yield at


def last_opening(cron: str | None, rrule: str | None, now: datetime, minutes: int) -> datetime | None:
    """Return the opening that is at most so many minutes ago; None where there is none."""
    since = now - timedelta(minutes=minutes)
    first = next(openings(cron, rrule, since), None)
    return first if first is not None and first <= now else None
