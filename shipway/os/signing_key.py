"""A repository's signing key: its fingerprints, when it expires, and whether it is the pinned one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pysequoia import Cert


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The certificates of a key file; `expires` in seconds since 1970, 0 when the longest lived never does."""

    armored: str
    fingerprints: tuple[str, ...]
    expires: int

    def trouble(self, pinned: str | None, *, now: float) -> str:
        """Return what is wrong with it ("" when nothing is): another key, or expired at `now` (seconds since 1970)."""
        if pinned and pinned not in self.fingerprints:
            return f"its fingerprint is {', '.join(self.fingerprints)}, not the pinned {pinned}"
        if self.expires and self.expires < now:
            return f"it expired on {datetime.fromtimestamp(self.expires, UTC):%Y-%m-%d}"
        return ""


def read_key(data: bytes, pinned: str | None = None) -> SigningKey:
    """Read an OpenPGP key file, armored or binary; raises ValueError when it is none.

    Of a file with several certificates only the pinned one is kept: apt trusts each that its keyring holds, and whoever
    serves the file could have put one of his own beside it.
    """
    try:
        certificates = Cert.split_bytes(data)
    except Exception as error:  # the library raises bare Exceptions
        raise ValueError(f"not an OpenPGP key: {error}") from error
    if not certificates:
        raise ValueError("no OpenPGP key in it")
    certificates = [one for one in certificates if one.fingerprint.upper() == pinned] or certificates
    ends = [one.expiration for one in certificates if one.expiration]
    expires = max(int(end.timestamp()) for end in ends) if len(ends) == len(certificates) else 0
    armored = "".join(str(one) for one in certificates)
    return SigningKey(armored, tuple(one.fingerprint.upper() for one in certificates), expires)
