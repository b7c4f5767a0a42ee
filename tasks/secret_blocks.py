"""The Secret blocks of Prefect that a cluster file names, loaded once before a run asks for them."""

from __future__ import annotations

from prefect.blocks.system import Secret

from shipway import secret_place
from shipway.cluster import Cluster
from shipway.errors import Refused
from shipway.solver_files import secret_places


async def load_blocks(cluster: Cluster) -> None:
    """Load every Secret block that the file names; raises Refused (SHW-352) for one that is not there."""
    for place in secret_places(cluster):
        if not (name := secret_place.block_of(place)):
            continue
        try:
            block: Secret[str] = await Secret.aload(name)
        except ValueError as error:  # Prefect's word for a block that it does not have
            fix = f"Make it in Prefect's UI (Blocks, Secret), named {name}; or name a file of mode 0600."
            raise Refused(f"there is no Secret block {name}", code=secret_place.CODE, fix=fix) from error
        secret_place.keep(name, str(block.get()))
