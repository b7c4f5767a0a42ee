"""What a run that goes through the hosts in waves was asked for, and what it has seen: an upgrade, a maintenance."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from shipway.errors import ErrorReport
from shipway.gpu.jobs import GpuJob
from shipway.kube.webhooks import Webhook
from shipway.stage import StageName

Cordon = Literal["", "ours", "another's"]


@dataclass(frozen=True, slots=True)
class OrderRow:
    """One host of the order in which a run goes: what it has now, in which wave it comes, what its drain means.

    `pods` is how many pods of users would leave, `jobs` the pods that hold its GPUs with what was decided of each.
    """

    host: str
    wave: str
    have: str
    want: str
    pods: int = 0
    jobs: tuple[str, ...] = ()


@dataclass
class WavePass:
    """`backup` says whether the run takes one itself; `kubelets` is what each node says that its kubelet is.

    `cordons` is who closed a node, `skipped` why a host is left out, `stopped` why the run went no further, `begun`
    whether this run or an earlier one has begun with a host, `changed` whether this run was about to change something.
    A kind of run says what it and its command are called, and which of the stages are its own: `look` of a host,
    `possible` of the cluster, `worker`. Of hosts of one of the `kinds` the first goes alone; of those `mended` GPUs may
    be missing before it, for that is what the run mends. `closes_all` says whether hosts are closed that need not be
    drained, too.
    `keepers` are by node who keeps pods running there, `pending` by keeper how many pods it could not start before.
    Replicas of services leave one host at a time, under `moving`; nothing has left the `whole`, which are closed.
    """

    verb: ClassVar[str]
    command: ClassVar[str]
    look: ClassVar[StageName]
    possible: ClassVar[StageName]
    worker: ClassVar[StageName]
    closes_all: ClassVar[bool] = False
    backup: bool = True
    kinds: dict[str, str] = field(default_factory=dict)
    mended: set[str] = field(default_factory=set)
    kubelets: dict[str, str] = field(default_factory=dict)
    cordons: dict[str, Cordon] = field(default_factory=dict)
    pods: dict[str, int] = field(default_factory=dict)
    keepers: dict[str, frozenset[str]] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    jobs: list[GpuJob] = field(default_factory=list)
    webhooks: list[Webhook] = field(default_factory=list)
    order: list[OrderRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    stopped: ErrorReport | None = None
    begun: bool = False
    changed: bool = False
    proving: asyncio.Lock = field(default_factory=asyncio.Lock)
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)
    whole: set[str] = field(default_factory=set)

    def said(self, row: OrderRow) -> str:
        """Return in few words what becomes of a host."""
        return f"gets {row.want}"
