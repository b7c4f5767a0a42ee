"""The Secret blocks of Prefect that a cluster file names, loaded once before a run asks for them."""

from __future__ import annotations

from typing import Any

from shipway.cluster import secrets as secret_place
from shipway.cluster.model import Cluster
from shipway.errors import Refused
from shipway.rules.files import secret_places


async def secret(name: str) -> str:
    """Return what the Secret block of that name holds; raises Refused (SHW-352) where there is none.

    Prefect is asked once: from then on the value is kept in this process.
    """
    if (known := secret_place.read_block(name)) is not None:
        return known
    from prefect.blocks.system import Secret  # noqa: PLC0415 - it takes its time, and few clusters name a block

    try:
        block: Any = await Secret.aload(name)
    except ValueError as error:  # Prefect's word for a block that it does not have
        fix = f"Make it in Prefect's UI (Blocks, Secret), named {name}; or name a file of mode 0600."
        raise Refused(f"there is no Secret block {name}", code=secret_place.CODE, fix=fix) from error
    secret_place.keep(name, str(block.get()))
    return str(block.get())


async def load_blocks(cluster: Cluster) -> None:
    """Load every Secret block that the file names; raises Refused (SHW-352) for one that is not there."""
    named = [secret_place.block_of(place) for place in secret_places(cluster)]
    for name in dict.fromkeys([*named, cluster.ssh.sudo_password_secret]):
        if name:
            await secret(name)
