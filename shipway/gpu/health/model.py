"""What is made of one GPU's health: ok, sick with an answer to it, or not judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from shipway.facts.commands import Says, Watched

# From the mildest on. What is the application's, and what must be looked at by a person, keeps no pod away by itself.
Answer = Literal["application", "look closer", "reset", "restart", "replace"]
ANSWERS: tuple[Answer, ...] = ("application", "look closer", "reset", "restart", "replace")
UNFIT: tuple[Answer, ...] = ("reset", "restart", "replace")  # pods on such a GPU fail, now or soon
# Rows that may ask for one of these, and that every GPU tells which has them: without them nobody knows that it is fit.
LOG_ROW, REPORT_ROW = "the kernel's log", "the driver's report"
GRAVE = (LOG_ROW, REPORT_ROW, "ECC,", "ECC Errors,", "Retired Pages,", "Remapped Rows", "fabric")
ADVICE: dict[Answer, str] = {
    "application": "the program that ran there is at fault, not the GPU: see its log",
    "look closer": "compare it with its equals under load, and its slot, cables and cooling",
    "reset": "drain the node, then reset the GPU or restart the host, and `shipway verify FILE --level full`",
    "restart": "drain the node, restart the host, and `shipway verify FILE --level full`",
    "replace": "drain the node and have the GPU replaced: its memory has no spare rows, or errors that come again",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a GPU; `at` is when the kernel last told it, None for what is so now.

    In seconds since the host's boot as its log has it, and since 1970 once a look has made them that.
    """

    row: str
    said: str
    answer: Answer
    at: float | None = None

    def __str__(self) -> str:
        return f"{self.row}: {self.said}" if self.said else self.row


@dataclass(frozen=True, slots=True)
class GpuHealth:
    """One GPU of a host: who it is, its faults, and which rows could not be judged, as `row: why`.

    `uuid` is "" for one that the driver does not tell of (it fell off the bus) and for a switch beside the GPUs; `slot`
    is "" for one that is expected and that nothing shows. `joined` counts its active NVLinks where it has any, `ahead`
    is its host's clock minus ours, in seconds.
    """

    uuid: str
    serial: str
    slot: str
    product: str
    faults: tuple[Fault, ...] = ()
    unjudged: tuple[str, ...] = ()
    joined: int | None = None
    ahead: float = 0.0

    @property
    def unseen(self) -> tuple[str, ...]:
        """The rows that were not judged, and that might have asked for a reset or more."""
        return tuple(row for row in self.unjudged if row.startswith(GRAVE))

    @property
    def word(self) -> Literal["ok", "sick", "not judged"]:
        """The verdict: the application's faults make no GPU sick."""
        if any(fault.answer != "application" for fault in self.faults):
            return "sick"
        return "not judged" if self.unjudged else "ok"

    @property
    def answer(self) -> Answer | None:
        """The gravest answer to its faults; None where it has none."""
        return max((fault.answer for fault in self.faults), key=ANSWERS.index, default=None)

    @property
    def title(self) -> str:
        """Who it is, for people: product, UUID, serial number, slot."""
        named = " ".join(word for word in (self.product, self.uuid) if word) or "a GPU that does not answer"
        serial = f", serial {self.serial}" if self.serial else ""
        return f"{named} in {self.slot}{serial}" if self.slot else f"{named}{serial}"

    @property
    def why(self) -> str:
        """What is wrong with it, the gravest first."""
        grave = sorted(self.faults, key=lambda fault: -ANSWERS.index(fault.answer))
        return "; ".join(str(fault) for fault in grave if fault.answer != "application")


@dataclass(frozen=True)
class HealthReport:
    """How a vendor's GPUs are asked: three commands, and `judge(report, links, log)`, which takes what they said.

    It gives every GPU that the report or the kernel's log names; links and log are None where they could not be read.
    `errors` tells the links' error counters, which `count` reads by GPU; `judge_growth` takes by how much a GPU's grew
    in so many seconds. `serials` reads the log for the serial numbers, by slot, of GPUs that may not answer any more.
    `capabilities` has what labels tell and the report does not, a line for each GPU; `whole` all
    that the driver knows, for the evidence.
    """

    report: Watched
    links: Watched
    log: Says
    judge: Callable[[str, str | None, str | None], list[GpuHealth]]
    errors: Watched
    capabilities: Watched
    whole: Watched
    count: Callable[[str], Mapping[str, Mapping[str, int]]]
    judge_growth: Callable[[Mapping[str, int], float], tuple[list[Fault], list[str]]]
    serials: Callable[[str], Mapping[str, str]]


def sick(gpus: Iterable[GpuHealth]) -> list[GpuHealth]:
    """Return the sick ones, the gravest first."""
    return sorted(
        (one for one in gpus if one.word == "sick"), key=lambda one: -ANSWERS.index(one.answer or "application")
    )


def beside(name: str, hosts: Mapping[str, Sequence[GpuHealth]]) -> tuple[GpuHealth, ...]:
    """Return a host's GPUs, judged by those of other hosts as well: one without any active link, as most equals have.

    Most is more than half of two other hosts or more with the same product. Where no link of a host is active, its own
    GPUs are no measure.
    """

    def seen(gpu: GpuHealth) -> GpuHealth:
        others = [
            max((one.joined or 0 for one in gpus if one.product == gpu.product), default=None)
            for host, gpus in hosts.items()
            if host != name
        ]
        told = [count for count in others if count is not None]
        most = max(told, default=0)
        if gpu.joined != 0 or len(told) < 2 or 2 * sum(map(bool, told)) <= len(told):  # noqa: PLR2004 - as said above
            return gpu
        lone = Fault("NVLink", f"none of its links is active, {most} on its equals of other hosts", "look closer")
        return replace(gpu, faults=(*gpu.faults, lone))

    return tuple(map(seen, hosts.get(name, ())))
