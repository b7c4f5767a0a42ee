"""What Secret blocks of Prefect hold, for what the cluster file names one for."""

from __future__ import annotations

from typing import Any

from shipway.errors import Refused


async def secret(name: str) -> str:
    """Return what the Secret block of that name holds. Raises Refused where there is none."""
    from prefect.blocks.system import Secret  # noqa: PLC0415 - it takes its time, and few clusters name a block

    try:
        block: Any = await Secret.aload(name)
    except ValueError as error:
        fix = f"Make it: in Prefect's UI under Blocks, or `Secret(value=...).save({name!r})` in Python."
        raise Refused(f"Prefect has no Secret block {name}", code="SHW-348", fix=fix) from error
    return str(block.get())
