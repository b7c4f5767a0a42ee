"""A simulated lab for tests: hosts reached through the product's own SSH, stages converged by its own steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

from lab.simulated.host import SimulatedHost
from lab.simulated.lab import SimulatedLab
from lab.simulated.options import Options
from shipway.cluster_file import load_cluster
from shipway.converge import converge
from shipway.host.session import Host
from shipway.host.ssh import Pool
from shipway.step import Check, Impact, StepResult
from tasks.stages import (
    container_runtime,
    control_plane,
    join_worker,
    kubernetes_packages,
    nvidia_runtime,
    prepare_system,
)
from tests.places.facts import DEBIAN

PREPARATION: tuple[ModuleType, ...] = (prepare_system, container_runtime, nvidia_runtime, kubernetes_packages)


class Place:
    """A lab, its cluster file, and sessions on its hosts."""

    def __init__(self, lab: SimulatedLab, pool: Pool) -> None:
        self.lab = lab
        self.pool = pool
        self.cluster = load_cluster(lab.cluster_file)

    def session(self, name: str) -> Host:
        """Return the product's session on a host."""
        return self.pool.host(self.cluster.target(self.cluster.host(name)))

    def machine(self, name: str) -> SimulatedHost:
        """Return the simulated machine itself."""
        return self.lab.hosts[name]

    async def run(self, steps: Sequence[Check[Host]], name: str, allow: Impact = Impact.WORKLOADS) -> list[StepResult]:
        """Converge steps on a host."""
        host = self.session(name)
        host.forget()
        return await converge(steps, host, allow)

    async def prepare(self, *names: str, allow: Impact = Impact.WORKLOADS) -> list[StepResult]:
        """Converge all preparation stages on hosts, all at once; return every result."""

        async def one(name: str) -> list[StepResult]:
            spec = self.cluster.host(name)
            return [
                result
                for stage in PREPARATION
                for result in await self.run(stage.steps(self.cluster, spec, DEBIAN), name, allow)
            ]

        return [result for results in await asyncio.gather(*(one(name) for name in names)) for result in results]

    async def init(self, name: str = "te1") -> list[StepResult]:
        """Converge the control plane's stage."""
        return await self.run(control_plane.steps(self.cluster, self.cluster.host(name), DEBIAN), name)

    async def join(self, name: str, control: str = "te1") -> list[StepResult]:
        """Converge a worker's join."""
        steps = join_worker.steps(self.cluster, self.cluster.host(name), DEBIAN, self.session(control))
        return await self.run(steps, name)

    def ready(self) -> dict[str, bool]:
        """Return the simulated cluster's nodes and whether each is alive to it."""
        cluster = self.lab.link.cluster
        return {} if cluster is None else {name: cluster.world.alive(name) for name in cluster.world.hosts}


@asynccontextmanager
async def simulated_place(folder: Path, options: Options) -> AsyncIterator[Place]:
    """Yield a lab in this process; every command that it did not know fails the test that caused it."""
    async with SimulatedLab(folder, options) as lab:
        pool = Pool()
        try:
            yield Place(lab, pool)
        finally:
            await pool.close()


def outcomes(results: Sequence[StepResult]) -> set[str]:
    """Return the kinds of outcome."""
    return {result.outcome for result in results}


def failed(results: Sequence[StepResult]) -> list[str]:
    """Return what failed, in words."""
    return [str(result.error or result.drift) for result in results if result.outcome == "failed"]
