"""What a run that takes a host out was asked for, and what it has seen of that host."""

from __future__ import annotations

from dataclasses import dataclass, field

from shipway.ownership.evidence import Evidence


@dataclass
class Retirement:
    """A host that is removed from its cluster, or reset, or all of them; empty in every other run."""

    host: str = ""
    whole: bool = False  # all hosts are reset, and the cluster ends
    without: tuple[str, ...] = ()  # hosts that stay as they are then, a person said, for they do not answer
    dead: bool = False  # it does not answer any more, a person said
    evict_gpu_pods: bool = False
    to_replace: bool = False  # another machine takes its place, a person said: etcd may be even in number until then
    displaced: bool = False  # another machine is at its address by now: what answers there is not the host
    control_plane: bool = False  # it runs one, of several
    cluster_gone: bool = False  # the cluster it was of is no more, a person said
    declared: bool = True  # it stands in the cluster file
    evidence: dict[str, Evidence] = field(default_factory=dict)  # by host: what it shows of the cluster it belongs to
    begun: set[str] = field(default_factory=set)  # hosts on which a reset of ours has begun
    authorities: frozenset[str] = frozenset()  # of the cluster whose hosts are all reset
    left: list[str] = field(default_factory=list)  # what stays, for the report
