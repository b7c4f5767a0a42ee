"""Spans of time as kubectl's columns write them: 38s, 2m5s, 26m, 3h, 2d."""

from __future__ import annotations

from datetime import UTC, datetime

from .objects import parsed_time

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 31_536_000


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def human(seconds: int) -> str:
    """Return a span in at most two units, rounded as kubectl does (apimachinery's duration.HumanDuration)."""
    seconds = max(0, seconds)
    minutes, hours, days = seconds // _MINUTE, seconds // _HOUR, seconds // _DAY
    steps = (
        (2 * _MINUTE, f"{seconds}s"),
        (10 * _MINUTE, _pair(minutes, "m", seconds % _MINUTE, "s")),
        (3 * _HOUR, f"{minutes}m"),
        (8 * _HOUR, _pair(hours, "h", minutes % 60, "m")),
        (48 * _HOUR, f"{hours}h"),
        (8 * _DAY, _pair(days, "d", hours % 24, "h")),
        (2 * _YEAR, f"{days}d"),
    )
    return next((text for limit, text in steps if seconds < limit), _pair(seconds // _YEAR, "y", days % 365, "d"))


def since(text: str | None) -> str:
    """Return how long ago a time stamp of the API was."""
    if not text:
        return "<unknown>"
    return human(int((datetime.now(UTC) - parsed_time(text)).total_seconds()))
