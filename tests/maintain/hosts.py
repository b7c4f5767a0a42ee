"""A host of a scene: what its commands answer, and a family of its own that says what a test wants said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shipway.errors import ConnectionLost
from shipway.facts.boot import Boot, BootIs
from shipway.facts.fact import Fact
from shipway.facts.packages import Pending
from shipway.host.session import Command
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.maintain.restart import IMAGES, SHIMS
from tests.places.facts import KnownFacts, said

BORN = 1_000_000.0
NOW = BORN + 3600


def boot(number: int = 1, kernel: str = "6.1.0-18-amd64", *, now: float = NOW) -> Boot:
    """Return the boot of a number; each is an hour old."""
    return Boot(f"boot-{number}", now - 3600, now, kernel)


class Update:
    """The step that brings what is pending."""

    impact = Impact.WORKLOADS
    name = "every package of the system is the newest offered"

    def __init__(self, family: Family) -> None:
        self.family = family

    async def check(self, on: object) -> Drift | None:
        """Tell what is pending."""
        del on
        return Drift(f"{len(self.family.waiting)} to come", "none") if self.family.waiting else None

    async def apply(self, on: Any) -> None:
        """Bring it; what restarts are asked for may follow."""
        on.done.append("update")
        self.family.waiting = []
        self.family.reasons += self.family.then


class Fine:
    """A step that is as wanted, or that drifts."""

    impact = Impact.FILES

    def __init__(self, name: str, drift: Drift | None = None) -> None:
        self.name, self.drift = name, drift

    async def check(self, on: object) -> Drift | None:
        """Tell so."""
        del on
        return self.drift

    async def apply(self, on: object) -> None:
        """Do nothing."""


class Family:
    """A family: `waiting` is pending, `reasons` ask for a restart until one comes, `then` after the update."""

    operation = "packages"

    def __init__(self) -> None:
        self.waiting: list[Pending] = []
        self.reasons: list[str] = []
        self.then: list[str] = []
        self.changed: dict[str, float] = {}
        self.worker = ""
        self.runtime: Drift | None = None

    def in_version(self, name: str, packages: Any, removable: Sequence[str] = ()) -> Fine:
        """Be in the version."""
        del packages, removable
        return Fine(name, self.runtime)

    def in_order(self, cluster: Any) -> Fine:
        """Be in order."""
        del cluster
        return Fine("packages are in order")

    def indexed(self) -> Fine:
        """Be young."""
        return Fine("the lists are young")

    def updates_fetched(self, scope: str, *, kernel: bool) -> Fine:
        """Be there."""
        del scope, kernel
        return Fine("the updates are fetched")

    def updated(self, scope: str, removable: Sequence[str] = (), *, kernel: bool) -> Update:
        """Return the step."""
        del scope, removable, kernel
        return Update(self)

    async def pending(self, on: object, scope: str, *, kernel: bool) -> list[Pending]:
        """Return what waits."""
        del on, scope, kernel
        return list(self.waiting)

    async def restart_reasons(self, on: object, since: float) -> list[str]:
        """Return why."""
        del on, since
        return list(self.reasons)

    async def changed_since(self, on: object, names: Sequence[str], since: float) -> list[str]:
        """Return what changed."""
        del on
        return [name for name in names if self.changed.get(name, 0) > since]

    async def at_work(self, on: object) -> str:
        """Return who."""
        del on
        return self.worker


class Restarting(KnownFacts):
    """A host that is in another boot once it was restarted and asked `away` times; `stays` never goes down."""

    name = "w1"

    def __init__(self, family: Family, facts: dict[Fact[Any], Any] | None = None, *, away: int = 0) -> None:
        quiet = {BootIs(): boot(), IMAGES: said("", 1), SHIMS: said("")}
        super().__init__({**quiet, **(facts or {})})
        self.family, self.away, self.stays, self.down, self.forgotten = family, away, False, -1, 0

    def forget(self) -> None:
        """Count it."""
        self.forgotten += 1

    async def read_all(self, facts: Sequence[Fact[Any]]) -> list[Any]:
        """Answer, unless it is down."""
        if self.down > 0:
            self.down -= 1
            raise ConnectionLost("the connection broke", host=self.name)
        return await super().read_all(facts)

    async def do(self, *commands: Command) -> list[Output]:
        """Restart where that is asked for; its answer is lost then."""
        outputs = await super().do(*commands)
        if any(command.words == ("systemctl", "reboot") for command in commands) and not self.stays:
            known = self.facts[BootIs()]
            self.facts[BootIs()] = boot(2, known.kernel, now=known.now + 3600)
            self.family.reasons = []
            self.down = self.away
            raise ConnectionLost("the connection broke while a command ran", host=self.name)
        return outputs
