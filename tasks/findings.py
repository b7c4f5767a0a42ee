"""Findings: what drift a pass found, what repairing it may disturb, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from shipway.gpu.health.growth import Counted
from shipway.gpu.health.model import GpuHealth, beside
from shipway.gpu.health.ports import PortHealth
from shipway.redact import redact
from shipway.step import Impact, StepResult, id_of
from shipway.survey.gpu_health import HealthLook
from tasks.causes import list_hosts, name_no_host

Action = Literal["reported", "held back", "repaired", "came back", "failed"]
# What is still wrong afterwards, worst first; the order of the table.
LEFT: tuple[Action, ...] = ("failed", "came back", "held back", "reported")
Key = tuple[str, str]


def key_of(host: str, step: object) -> Key:
    """Return the key that a finding of this step on a host has."""
    return host, id_of(step)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as declared. `impact` is what repairing it may disturb, NOTHING where no step can.

    `why` says what kept it from being repaired or looked at; `command` is what would do it. All texts are redacted.
    """

    host: str
    stage: str
    step: str
    have: str
    want: str
    impact: str
    action: Action = "reported"
    why: str = ""
    command: str = ""
    restarts: str = ""  # the unit that its repair restarts
    id: str = ""  # what the step is about, whatever its sentence says

    @property
    def key(self) -> Key:
        """Host and step: the same key in the next pass is the same thing, also where its sentence was reworded."""
        return self.host, self.id or self.step

    @property
    def unseen(self) -> bool:
        """Whether it could not be looked at: then nothing is known of what is wanted."""
        return not self.want

    @property
    def level(self) -> Impact:
        """The impact as a number to compare."""
        return Impact[self.impact]

    def became(self, action: Action, why: str = "", command: str = "") -> Finding:
        """Return the finding with what became of it."""
        return replace(self, action=action, why=redact(why) or self.why, command=command or self.command)


@dataclass
class DriftPass:
    """What one drift pass found, what it may change, and what became of it."""

    findings: dict[str, list[Finding]] = field(default_factory=dict)  # by host
    of_cluster: list[Finding] = field(default_factory=list)
    across: list[Finding] = field(default_factory=list)  # seen only by comparing hosts
    declared: str = ""  # the file's version, where all was looked at by another one, which runs
    allocatable: dict[str, int] = field(default_factory=dict)  # GPUs by host, as its Node says
    bad_figures: dict[str, dict[str, str]] = field(default_factory=dict)  # by host and UUID, as its Node says
    health: dict[str, HealthLook] = field(default_factory=dict)  # of the GPUs, by host
    counted: dict[str, Counted] = field(default_factory=dict)  # by host: the links' error counters at the last pass
    ports: dict[str, list[PortHealth]] = field(default_factory=dict)  # of InfiniBand and RoCE, by host
    approved: frozenset[tuple[str, ...]] | None = None  # what a person approved; None: nobody was asked
    files_only: set[str] = field(default_factory=set)  # hosts whose files are changed beside many others: no restart
    withheld: dict[Key, str] = field(default_factory=dict)  # why a host's step was not applied in its turn
    beside_pods: set[Key] = field(default_factory=set)  # those of them that only running pods kept from
    kept: dict[str, str] = field(default_factory=dict)  # by host: why it is not drained, its GPU jobs forbid it
    repaired: set[str] = field(default_factory=set)  # hosts
    # Of hosts on which something was repaired: since when their kubelet runs, in seconds since 1970 by their clock.
    kubelet_since: dict[str, int] = field(default_factory=dict)
    fights: list[str] = field(default_factory=list)  # what comes back after each repair
    trend: list[dict[str, Any]] = field(default_factory=list)  # earlier passes, for the report

    def gpus_of(self, host: str) -> tuple[GpuHealth, ...]:
        """Return what was made of a host's GPUs, beside those of the other hosts."""
        return beside(host, {name: look.gpus for name, look in self.health.items()})

    def release(self, host: str) -> bool:
        """Let what only running pods kept from on a host be tried again; return whether there was any."""
        keys = {key for key in self.beside_pods if key[0] == host}
        self.beside_pods -= keys
        for key in keys:
            self.withheld.pop(key, None)
        return bool(keys)


def find(host: str, stage: str, result: StepResult) -> Finding | None:
    """Return the finding of a step's result; None where all is as wanted."""
    if result.outcome in ("ok", "changed"):
        return None
    have, want = (result.drift.have, result.drift.want) if result.drift else ("cannot be determined", "")
    why = f"{result.error.message} Next: {result.error.fix}" if result.error else ""
    return Finding(
        *(host, stage, result.step, redact(have), redact(want), result.impact.name),
        why=redact(why),
        restarts=result.restarts,
        id=result.id,
    )


def distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Return each host's step once: two stages may ask for the same thing."""
    return list({finding.key: finding for finding in reversed(list(findings))}.values())[::-1]


def sort_left(findings: Sequence[Finding]) -> list[Finding]:
    """Return what is still not as declared, worst first."""
    return sorted((f for f in findings if f.action != "repaired"), key=lambda f: LEFT.index(f.action))


def count_by_action(findings: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings came to each end."""
    return {action: n for action in ("repaired", *LEFT) if (n := sum(f.action == action for f in findings))}


@dataclass(frozen=True, slots=True)
class Shared:
    """One finding that is the same on several hosts."""

    first: Finding
    hosts: tuple[str, ...]

    @property
    def who(self) -> str:
        """The hosts, compactly."""
        return list_hosts(self.hosts)


def group_findings(findings: Sequence[Finding]) -> list[Shared]:
    """Return findings that only differ in their host, and in its name where it is quoted, as one; in their order."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for f in findings:
        why = name_no_host(f.why, f.host)
        groups.setdefault((f.stage, f.step, f.have, f.want, f.impact, f.action, why), []).append(f)
    return [Shared(group[0], tuple(f.host for f in group)) for group in groups.values()]


def commands_of(findings: Sequence[Finding]) -> list[str]:
    """Return each command that would do what was left, once for all hosts to which it is alike."""
    groups: dict[str, list[Finding]] = {}
    for f in findings:
        if f.command:
            groups.setdefault(name_no_host(f.command, f.host), []).append(f)
    commands = []
    for group in groups.values():
        others = list_hosts(f.host for f in group if f.command != group[0].command)
        commands.append(group[0].command + (f"   (likewise for {others})" if others else ""))
    return commands
