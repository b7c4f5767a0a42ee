"""A work queue that a controller reacts through: the same key is worked on once, however often it was asked for."""

from __future__ import annotations

from collections.abc import Hashable

from lab.simulated.kube.world import World

# Wall seconds: below this, changes that come in a burst are better taken together, whatever the clock's factor says.
MIN_DELAY = 0.01
# Wall seconds that a look at all things of a kind is put off, for each of them: about thirty times what it takes.
_SECONDS_A_THING = 0.0003


class Controller:
    """Something that brings the store from what is to what should be, one key at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store
        self.pace = world.pace
        self.latencies = world.latencies
        self._due: set[Hashable] = set()

    def enqueue(self, key: Hashable, seconds: float | None = None, *, things: int = 0) -> None:
        """Work on a key after the controller's usual (or this) delay, in simulated seconds.

        `things` is how many the work looks at: the more, the later, so that a thousand changes make few looks.
        """
        if key not in self._due:
            self._due.add(key)
            delay = self.pace.scaled(self.latencies.controller if seconds is None else seconds)
            self.pace.after_exactly(max(MIN_DELAY, delay, things * _SECONDS_A_THING), self._work, key)

    def _work(self, key: Hashable) -> None:
        self._due.discard(key)
        self.reconcile(key)

    def reconcile(self, key: Hashable) -> None:
        """Bring one key in order."""
        raise NotImplementedError
