"""A name that a person types once more before something is lost; it imports nothing, so a wrong one ends at once."""

from __future__ import annotations

from shipway.errors import Refused


def confirmed(host: str, confirm: str) -> None:
    """Refuse a reset without the host's name typed. Raises Refused SHW-700."""
    if confirm != host:
        said = f"{confirm!r} was typed" if confirm else "nothing was typed"
        message = f"a reset of {host} asks for its name once more, and {said}"
        raise Refused(message, host=host, code="SHW-700", fix=f"Give `--confirm {host}`; --plan shows what would go.")
