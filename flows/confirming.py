"""What a person says before something is lost; it imports nothing, so a wrong word ends at once."""

from __future__ import annotations

from shipway.errors import Refused


def one_or_all(host: str, *, whole: bool) -> None:
    """Refuse a reset of no host, or of one and of all. Raises Refused SHW-701."""
    if bool(host) == whole:
        message = "a reset is of one host or of the whole cluster"
        raise Refused(message, code="SHW-701", fix="Give the host's name, or --cluster, and not both.")


def confirmed(name: str, confirm: str) -> None:
    """Refuse a reset without the name typed of the host, or of the cluster. Raises Refused SHW-700."""
    if confirm != name:
        said = f"{confirm!r} was typed" if confirm else "nothing was typed"
        message = f"a reset of {name} asks for its name once more, and {said}"
        raise Refused(message, host=name, code="SHW-700", fix=f"Give `--confirm {name}`; --plan shows what would go.")


def confirmed_rotation(name: str, confirm: str) -> None:
    """Refuse a rotation of the CA without the cluster's name typed. Raises Refused SHW-850."""
    if confirm != name:
        said = f"{confirm!r} was typed" if confirm else "nothing was typed"
        message = f"a rotation of the CA of {name} asks for the cluster's name once more, and {said}"
        raise Refused(message, code="SHW-850", fix=f"Give `--confirm {name}`; --plan shows what would be changed.")
