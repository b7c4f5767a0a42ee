"""What OpenSSH's sshd limits: sessions per connection, connections that have not logged in, and the time to log in.

Measured on OpenSSH 9.2p1 with its defaults, and as sshd_config(5) says: the eleventh session on a connection is refused
with the reason "connect failed" (2) and the words "open failed", and the connection lives; a forwarded connection is no
session; a connection above MaxStartups gets one line, "Exceeded MaxStartups", in place of the server's version.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

OPEN_FAILED = "open failed"
DROPPED = b"Exceeded MaxStartups\r\n"
_NAMES = ("MaxSessions", "MaxStartups", "LoginGraceTime")


@dataclass(frozen=True)
class SshLimits:
    """The settings of sshd_config(5), by default OpenSSH's own.

    `max_startups` is start, rate in percent and full: from `start` connections without a login a new one is dropped
    with that chance, which grows evenly to certainty at `full`. `login_seconds` are seconds of the wall clock.
    """

    max_sessions: int = 10
    max_startups: tuple[int, int, int] = (10, 30, 100)
    login_seconds: float = 120.0

    @classmethod
    def parse(cls, text: str) -> SshLimits:
        """Read `NAME=VALUE,...` with sshd_config's names. Raises ValueError that names what cannot be read."""
        limits = cls()
        for part in text.split(","):
            name, _, value = part.partition("=")
            if name not in _NAMES:
                raise ValueError(f"{name!r} is not one of sshd's limits: {', '.join(_NAMES)}")
            if name == "MaxSessions":
                limits = replace(limits, max_sessions=int(value))
            elif name == "LoginGraceTime":
                limits = replace(limits, login_seconds=float(value))
            else:
                limits = replace(limits, max_startups=_startups(value))
        return limits

    def drops(self, startups: int, dice: random.Random) -> bool:
        """Return whether a new connection is dropped while `startups` others have not logged in.

        The arithmetic is that of sshd's should_drop_connection: whole percents, compared with one of 0 to 99.
        """
        start, rate, full = self.max_startups
        if startups < start:
            return False
        if startups >= full or rate == 100:
            return True
        chance = (100 - rate) * (startups - start) // (full - start) + rate
        return dice.randrange(100) < chance


def _startups(value: str) -> tuple[int, int, int]:
    """Read `start:rate:full`, or one number: as many, then none (sshd_config(5))."""
    numbers = [int(part) for part in value.split(":")]
    if len(numbers) == 1:
        return numbers[0], 100, numbers[0]
    start, rate, full = numbers
    if not 0 < rate <= 100 or start > full:
        raise ValueError(f"MaxStartups={value} is not start:rate:full")
    return start, rate, full
