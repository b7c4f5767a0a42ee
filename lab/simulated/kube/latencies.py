"""How long simulated things take, in seconds of a real cluster, and the one clock that scales and schedules them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Latencies:
    """Seconds of a real cluster; `factor` scales all of them (0.01 makes a minute 0.6 s), `jitter` spreads each.

    Defaults: the transcripts of a real lab cluster where they show a figure (40 s until a silent node is NotReady,
    12 s between sandbox attempts), upstream's defaults otherwise (10 s image-pull back-off, 300 s eviction).
    """

    factor: float = 1.0
    jitter: float = 0.2
    api_request: float = 0.002
    init: float = 24.5
    join: float = 8.0
    controller: float = 0.05
    scheduling: float = 0.02
    scheduling_retry: float = 1.0
    node_status: float = 1.0
    node_grace: float = 40.0
    eviction: float = 300.0
    sandbox: float = 0.6
    sandbox_retry: float = 12.0
    image_pull: float = 1.5
    image_retry: float = 10.0
    container_start: float = 0.3
    readiness: float = 0.8
    crash_backoff: float = 10.0
    pod_stop: float = 1.0
    network_ready: float = 2.0
    device_plugin: float = 1.0
    device_health: float = 4.0
    crd_established: float = 0.3
    calico_operator: float = 2.0
    namespace_deletion: float = 1.0

    @property
    def program(self) -> float:
        """Return the factor for what programs in containers do; never 0, or a `sleep 86400` would be over at once."""
        return max(self.factor, 0.001)


class Pace:
    """The clock of a simulated cluster: scaled, jittered, and it keeps what fails so that nothing is swallowed."""

    def __init__(self, latencies: Latencies, dice: random.Random) -> None:
        self.latencies = latencies
        self.dice = dice
        self.failures: list[BaseException] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._stopped = False

    def scaled(self, seconds: float) -> float:
        """Return the seconds of wall time that stand for `seconds` of a real cluster, jittered."""
        spread = 1.0 + self.latencies.jitter * (2.0 * self.dice.random() - 1.0)
        return max(0.0, seconds * self.latencies.factor * spread)

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> asyncio.TimerHandle:
        """Call `action` after `seconds` of simulated time; the handle cancels it."""
        return self.after_exactly(self.scaled(seconds), action, *arguments)

    def after_exactly(self, wall_seconds: float, action: Callable[..., None], *arguments: Any) -> asyncio.TimerHandle:
        """Call `action` after `wall_seconds` of wall time, neither scaled nor jittered."""
        handle: asyncio.TimerHandle

        def run() -> None:
            self._timers.discard(handle)
            self.guarded(action, *arguments)

        handle = asyncio.get_running_loop().call_later(wall_seconds, run)
        self._timers.add(handle)
        return handle

    def cancel(self, handle: asyncio.TimerHandle | None) -> None:
        """Cancel a timer that may have run already."""
        if handle is not None:
            handle.cancel()
            self._timers.discard(handle)

    def guarded(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action` now; an error of the simulation itself is logged and kept for `Cluster.close` to raise."""
        if self._stopped:
            return
        try:
            action(*arguments)
        except Exception as error:
            log.exception("SIMULATED cluster: %s failed", getattr(action, "__qualname__", action))
            self.failures.append(error)

    def stop(self) -> None:
        """Cancel every timer; nothing is called after this."""
        self._stopped = True
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()
