"""A step is one fact about a host or the cluster: something to check, maybe something to apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self, TypeGuard, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from shipway.errors import ShipwayError

T_contra = TypeVar("T_contra", contravariant=True)

Outcome = Literal["ok", "changed", "drifted", "unknown", "failed"]


class Impact(IntEnum):
    """What applying a step may disturb; a run is allowed a highest impact and never goes above it.

    A start is of what stands still: no running pod notices it, so a host with GPU pods is not denied it. It is above
    files, for a person may have stopped the service on purpose, and has then allowed no more than files.
    """

    NOTHING = 0
    FILES = 1
    START = 2
    SERVICE = 3
    WORKLOADS = 4

    @property
    def permission(self) -> str:
        """The least value of `repair.allow` and `--repair` that lets a step of this impact be applied."""
        return "service" if self is Impact.START else self.name.lower()


@dataclass(frozen=True, slots=True)
class Drift:
    """What is, and what should be: short, printable, free of secrets."""

    have: str
    want: str

    def __str__(self) -> str:
        return f"have {self.have}; want {self.want}"

    @classmethod
    def held(cls, have: str, want: str, why: str) -> Self:
        """Return a drift that says why it is not mended for now; "" for one that may be."""
        return cls(f"{have}; it stays so for now: {why}" if why else have, want)


@runtime_checkable
class Check(Protocol[T_contra]):
    """One thing that is looked at and never changed; `on` is a host session or the cluster API."""

    @property
    def name(self) -> str:
        """The fact as a sentence in the present tense: log line, artifact row and test id."""

    async def check(self, on: T_contra) -> Drift | None:
        """Return None when it is as wanted, else the drift; raise Blocked when it cannot be determined yet."""


@runtime_checkable
class Step(Check[T_contra], Protocol[T_contra]):
    """A check that can also bring about what it wants.

    One that says `together = True` changes a file that no step beside it touches: it is applied at the same time as
    those beside it that say so too. One that has `hold` tells there why it may not be applied for now: it is asked
    right before, and "" lets it go on. One after which a service is restarted names its unit in `restarts`.
    """

    impact: ClassVar[Impact]

    async def apply(self, on: T_contra) -> None:
        """Change what drifted; safe to repeat; raises a ShipwayError that names cause and next step."""


@cache
def _applies(kind: type) -> bool:
    return hasattr(kind, "apply")


def can_change(step: Check[T_contra]) -> TypeGuard[Step[T_contra]]:
    """Tell a step from what only looks; asked once a kind, for `isinstance` with a protocol costs as much as a look."""
    return _applies(type(step))


def restart_of(step: object) -> str:
    """Return the unit that is restarted when a step is applied, by itself or by what follows; "" for none."""
    return str(getattr(step, "restarts", ""))


# What tells apart two steps of one class on one host or cluster, whatever their sentences say.
SUBJECTS = ("path", "unit", "title", "key", "object_name", "workload", "packages", "objects")


def id_of(step: object) -> str:
    """Return what a step is about in a form that outlives its wording, for example `FileIs /etc/sysctl.d/k8s.conf`.

    It is the step's own `id`, or its class and the first of `SUBJECTS` that it has. Versions and values are not in it:
    what was repaired before a change of either is the same thing afterwards.
    """
    subject = next((said for name in SUBJECTS if (said := _subject(getattr(step, name, None)))), "")
    return str(getattr(step, "id", "")) or f"{type(step).__name__} {subject}".strip()


def _subject(value: object) -> str:
    """Return a subject as text: names joined, objects as kind and name, a source by its own name; "" for none."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        meta = value.get("metadata")
        return f"{value.get('kind')}/{meta.get('name')}" if isinstance(meta, Mapping) else "+".join(map(str, value))
    if isinstance(value, Sequence):
        return "+".join(_subject(one) for one in value[:4])
    return str(getattr(value, "name", ""))


@dataclass(frozen=True, slots=True)
class StepResult:
    """How one step of one host (or of the cluster) ended; `id` says what the step is about, whatever its sentence."""

    step: str
    outcome: Outcome
    impact: Impact = Impact.NOTHING
    drift: Drift | None = None
    error: ShipwayError | None = None
    seconds: float = 0.0
    restarts: str = ""  # the unit that is restarted where the step is applied
    id: str = ""
