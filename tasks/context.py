"""The run that tasks work for: its cluster, its permission, its connections; found by context, never an argument.

Prefect stores arguments and results, and a stored connection is neither data nor alive after a retry. So tasks take
names, and find what lives here; a run's contents are born in `open_run` and end with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast
from uuid import UUID

from shipway.backup.choice import Choice
from shipway.backup.state import Backup
from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.errors import Refused, ShipwayError
from shipway.facts.files import FileText
from shipway.gpu.proof import Proof
from shipway.host.session import Host
from shipway.host.ssh import Pool
from shipway.kube.access import ADMIN_CONF
from shipway.kube.client import Kube
from shipway.os.families import family_of
from shipway.os.family import Family
from shipway.ownership.evidence import Evidence
from shipway.retry import patiently
from shipway.step import Impact, StepResult
from shipway.survey.first_look import Survey
from tasks.findings import DriftPass
from tasks.passes.authority import AuthorityPass
from tasks.passes.certificates import CertificatePass
from tasks.passes.endpoint import EndpointPass
from tasks.passes.figures import FiguresPass
from tasks.passes.maintain import MaintainPass
from tasks.passes.replacement import Replacement
from tasks.passes.retirement import Retirement
from tasks.passes.upgrade import UpgradePass
from tasks.passes.waves import WavePass
from tasks.report import Report
from tasks.secret_blocks import secret
from tasks.stage_result import NOT_TRIED, Mode, StageResult, StepRow


class View(Protocol):
    """What hears of a run's progress, and shows it."""

    def begin_stage(self, host: str, stage: str) -> None:
        """A stage starts on a host."""

    def show_step(self, host: str, stage: str, result: StepResult) -> None:
        """A step of it is known."""

    def show_wait(self, host: str, stage: str, sentence: str) -> None:
        """A wait saw something new."""

    def end_stage(self, result: StageResult) -> None:
        """The stage is over."""

    def begin_run(self, run: Run) -> None:
        """A run begins."""


class Unseen:
    """The view of a run that nobody watches."""

    def begin_stage(self, host: str, stage: str) -> None:
        """Show nothing."""

    def show_step(self, host: str, stage: str, result: StepResult) -> None:
        """Show nothing."""

    def show_wait(self, host: str, stage: str, sentence: str) -> None:
        """Show nothing."""

    def end_stage(self, result: StageResult) -> None:
        """Show nothing."""

    def begin_run(self, run: Run) -> None:
        """Show nothing."""


VIEW: ContextVar[View] = ContextVar("VIEW")
# Hears of the run that a flow opens: whoever started the flow needs it at its end, and a view only shows.
ON_OPEN: ContextVar[Callable[[Run], None]] = ContextVar("ON_OPEN")
_RUN: ContextVar[Run] = ContextVar("_RUN")


@dataclass
class SeenHosts:
    """What a run has seen of its hosts."""

    surveys: dict[str, Survey] = field(default_factory=dict)
    families: dict[str, Family] = field(default_factory=dict)  # from the first look at each
    elsewhere: tuple[Evidence, ...] = ()  # of hosts that the run is not about
    unowned: ShipwayError | None = None  # what keeps from telling whose the hosts are
    busy: dict[str, str] = field(default_factory=dict)  # by host: why its workloads may not be disturbed
    podded: dict[str, str] = field(default_factory=dict)  # by host: the pods beside which containerd is not restarted

    @property
    def gpu_parts(self) -> dict[str, int]:
        """Return by host how many parts of GPUs its driver lists."""
        return {name: survey.driver_parts for name, survey in self.surveys.items()}


@dataclass
class Locks:
    """What a run holds until it ends, so that no other run changes its cluster."""

    until_end: AsyncExitStack = field(default_factory=AsyncExitStack)
    leased: bool = False  # the lease in the cluster is held
    claimed: bool = False  # the claim of the control plane's host is held
    lost: ShipwayError | None = None  # what took both away: no stage begins any more


@dataclass
class BackupRun:
    """What a backup run knows: the host's backups when it began, the age that is young enough, and the newest one."""

    known: frozenset[str] | None = None
    hours: int = 0
    newest: Backup | None = None
    source: str = ""  # of a restore: the name of the backup
    stored: bool = False  # of a restore: that one comes from the object store
    choice: Choice | None = None  # of a restore: which host gets the data, once that was looked at
    id: str = ""  # of a restore: what hosts know it by
    gone: tuple[str, ...] = ()  # of a restore: control planes whose machines are gone for good, as a person said
    kubelets: dict[str, str] = field(default_factory=dict)  # by host: which start of it was before the restore


# The highest impact of a run whose mode is here: of a drift pass, until it says itself what it may do.
HIGHEST: dict[Mode, Impact] = {
    "plan": Impact.NOTHING,
    "drift": Impact.NOTHING,
    "backup": Impact.SERVICE,
    "move-endpoint": Impact.SERVICE,
    "rotate-ca": Impact.SERVICE,
    "harden": Impact.SERVICE,
}


class Run:
    """One run on one cluster, for as long as it lasts."""

    def __init__(self, cluster: Cluster, mode: Mode, only: Sequence[str] = (), reset: Sequence[str] = ()) -> None:
        unknown = [name for name in (*only, *reset) if name not in {host.name for host in cluster.hosts}]
        if unknown:
            known = ", ".join(host.name for host in cluster.hosts)
            raise Refused(f"{', '.join(unknown)}: no such host in the cluster file; it has {known}", code="SHW-100")
        self.cluster, self.mode, self.only, self.reset = cluster, mode, tuple(only), tuple(reset)
        self.file = ""  # of the cluster, as the flow was given it: for the commands that errors and warnings name
        self.kind: str = mode  # what the run is called: a verification is one that changes nothing
        self.allow = HIGHEST.get(mode, Impact.WORKLOADS)
        self.view = VIEW.get(Unseen())
        self.started = time.monotonic()
        self.results: list[StageResult] = []
        self.seen = SeenHosts()
        self.drift = DriftPass()
        self.figures = FiguresPass()
        self.retirement = Retirement()
        self.replacement = Replacement()
        self.backup = BackupRun()
        self.certificates = CertificatePass()
        self.endpoint = EndpointPass()
        self.authority = AuthorityPass()
        self.upgrade = UpgradePass()
        self.maintenance = MaintainPass()
        self.locks = Locks()
        self.task_runs: list[UUID] = []
        self.flow_runs: list[UUID] = []
        self.admitted: set[str] = set()
        self.ready: set[str] = set()
        self.proof: Proof | None = None
        self.report: Report | None = None
        self.warned: list[str] = []  # what went wrong on this machine beside the work: for the report
        self.changed: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.last_said: dict[str, str] = {}
        self.gone: set[str] = set()  # hosts that were waited for in vain
        self.lead = ""  # the control plane that answers for the cluster, once it was looked for
        self.joining = asyncio.Semaphore(cluster.kubernetes.joins_at_once)
        self._pool = Pool(secret)
        self._kube: Kube | None = None
        self._connecting = asyncio.Lock()

    @property
    def hosts(self) -> tuple[HostSpec, ...]:
        """The hosts this run is about: all, or those named by --host."""
        return tuple(host for host in self.cluster.hosts if not self.only or host.name in self.only)

    @property
    def control(self) -> HostSpec:
        """The control plane that a run asks, and that others join; the first of the file until one was chosen."""
        return self.cluster.host(self.lead) if self.lead else self.cluster.control_planes[0]

    @property
    def reported_mode(self) -> Mode:
        """The mode as a report names it: by its kind where a run of another kind works as a bootstrap does."""
        return cast("Mode", self.kind) if self.mode == "bootstrap" else self.mode

    @property
    def waves(self) -> WavePass:
        """What a run knows that goes through the hosts in waves."""
        return self.maintenance if self.kind == self.maintenance.command else self.upgrade

    def session(self, name: str) -> Host:
        """Return the session of a host; one connection per host for the whole run."""
        return self._pool.host(self.cluster.target(self.cluster.host(name)))

    def family(self, host: str) -> Family:
        """Return the family of a host's operating system; the first one there is of a host that nobody looked at."""
        return self.seen.families.get(host) or family_of("")

    def gpus_of(self, host: HostSpec) -> int:
        """Return how many GPUs a host is expected to have: as declared, else what PCI showed."""
        if host.gpus != "auto":
            return host.gpus
        survey = self.seen.surveys.get(host.name)
        return survey.gpus if survey else 0

    def provable(self, host: HostSpec) -> int:
        """Return how many of its GPUs pods can get: none on a control plane that keeps ordinary pods away."""
        kept_away = host in self.cluster.control_planes and not self.cluster.schedules_on_control_plane
        return 0 if kept_away else self.gpus_of(host)

    @property
    def away(self) -> dict[str, int]:
        """How many GPUs pods could get of each host whose node is not Ready."""
        return {spec.name: gpus for spec in self.hosts if spec.name not in self.ready and (gpus := self.provable(spec))}

    def allowed(self, host: str) -> Impact:
        """Return the highest impact a step may have on a host: less where GPU workloads run than on others."""
        return min(self.allow, Impact.START) if host in self.seen.busy else self.allow

    @property
    def proof_said(self) -> str:
        """One line on the GPU proof."""
        if self.proof is None:
            return "no GPU was proven"
        what = "places on GPUs" if self.proof.shared else "GPUs"
        return f"{self.proof.verified} of {self.proof.expected} {what} verified ({self.proof.outcome})"

    def skip(self, host: str, stage: str) -> None:
        """Keep that a stage was not run, for what it builds on did not succeed."""
        self.results.append(StageResult(host, stage, "unknown", (StepRow(stage, "unknown", why=NOT_TRIED),)))

    async def kube(self) -> Kube:
        """Return the cluster's API, connected when first asked for.

        Raises Blocked while the control plane is not initialised, and the SSH errors of reaching its host.
        """
        async with self._connecting:
            if self._kube is None:
                control = self.session(self.control.name)
                self._kube = await patiently(lambda: Kube.connect(control, self.cluster))
            return self._kube

    async def reconnect(self) -> None:
        """Drop the API's connection where the control plane was made anew since: it has another authority now."""
        async with self._connecting:
            if self._kube is None:
                return
            current = await self.session(self.control.name).read(FileText(ADMIN_CONF))
            if current != self._kube.admin_conf:
                old, self._kube = self._kube, None
                await old.close()

    async def lead_by(self, host: str) -> None:
        """Let this control plane answer for the cluster from now on; what was connected leads to another one."""
        async with self._connecting:
            if host != self.control.name and self._kube is not None:
                old, self._kube = self._kube, None
                await old.close()
            self.lead = host

    @property
    def folder(self) -> Path:
        """The controller's folder of this cluster: lock, kubeconfig, tokens."""
        return Path(self.cluster.state_dir).expanduser() / self.cluster.name

    async def hang_up(self, name: str) -> None:
        """End the connection of a host that is done with; the control plane's leads to the API and stays."""
        if name != self.control.name:
            await self.connect_anew(name)

    async def connect_anew(self, name: str) -> None:
        """Drop the connection of a host that was restarted, whichever it is: the next use makes a new one."""
        await self._pool.hang_up(self.cluster.target(self.cluster.host(name)))

    async def close(self) -> None:
        """End what is held and every connection."""
        await self.locks.until_end.aclose()
        if self._kube is not None:
            await self._kube.close()
        await self._pool.close()


@asynccontextmanager
async def open_run(run: Run) -> AsyncIterator[Run]:
    """Make the run the current one, and close its connections at the end."""
    token = _RUN.set(run)
    try:
        yield run
    finally:
        _RUN.reset(token)
        await run.close()


def current() -> Run:
    """Return the run that this task works for; raises LookupError outside one."""
    return _RUN.get()
