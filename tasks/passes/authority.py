"""What a run that rotates the CA was asked for, and what it has seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from shipway.steps.authority.pair import Pair
from shipway.steps.authority.which import CLUSTER_CA, Which

Until = Literal["trust", "certificates", "end"]


@dataclass(frozen=True, slots=True)
class AuthoritySeen:
    """What a host showed of a CA: those in its ca.crt, its folder of two in PEM ("" for none), and its CA's name."""

    trusted: tuple[str, ...] = ()
    text: str = ""
    old: str = ""
    new: str = ""
    subject: str = ""


@dataclass
class AuthorityPass:
    """`of` is the CA that is replaced, `until` the stage that it rests after, `back` the way back.

    `despite_pods` goes on beside pods of others, `despite_tokens` beside Secrets of others with a token of the old key.

    `source` is the control plane that has both CAs, "" for none; `dropping` says that the last stage has begun, `made`
    that the CA is a rotation's of the last day. `stale` are workloads of others that read the old CA alone; of tokens,
    all that holds the run. `left` are the CAs of earlier rotations (PEM) that aggregated API servers are still told of:
    where there are any, a run takes them out and begins no rotation.
    """

    of: Which = CLUSTER_CA
    until: Until = "end"
    back: bool = False
    beside_gpu_pods: bool = False
    despite_pods: bool = False
    despite_tokens: bool = False
    hosts: dict[str, AuthoritySeen] = field(default_factory=dict)
    pair: Pair = field(default_factory=lambda: Pair(""))
    source: str = ""
    dropping: bool = False
    made: str = ""
    stale: tuple[str, ...] = ()
    left: tuple[str, ...] = field(default=(), repr=False)
