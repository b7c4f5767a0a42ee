"""Solver rules about backups: all Secrets and keys of a cluster are in them."""

from __future__ import annotations

from collections.abc import Iterator

from shipway.cluster.faults import Fault
from shipway.cluster.model import Cluster

PLACE = ("backup", "s3")


def in_clear(cluster: Cluster) -> Iterator[Fault]:
    """What leaves the machines is encrypted by age, or a person has said in the file that it is not."""
    store = cluster.backup.s3
    if store is None or cluster.backup.encrypt_to:
        return
    if not store.clear_text:
        message = (
            "backups hold all Secrets and keys of the cluster: name public keys in `encrypt_to`, or say "
            "`s3: {clear_text: true}` where the bucket may hold them in clear"
        )
        yield Fault(PLACE, message, (("backup", "encrypt_to"),))
    elif (store.endpoint or "").startswith("http://"):
        message = "is not encrypted, and neither are the backups: use https://, or name public keys in `encrypt_to`"
        yield Fault((*PLACE, "endpoint"), message)
