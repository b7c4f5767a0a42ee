"""The control plane's initialisation: decided by what is there, never done twice, never at the cost of etcd's data."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar, Literal

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.errors import ApiUnavailable, Blocked, Refused, Transient
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.services import UnitState
from shipway.host.session import AT_WORK, OPERATIONS, Command, Host
from shipway.kubeadm.config import as_yaml, init_documents
from shipway.os.family import Family
from shipway.ownership.evidence import (
    ADMIN,
    CLIENT_FOLDER,
    ETCD,
    MANIFESTS,
    PKI,
    PODS,
    STARTED,
    certificates_of,
    has_client,
    running_pods,
    static_pods,
)
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.evidence import collect_evidence
from shipway.steps.kubernetes.reset import reset

State = Literal["initialised", "bare", "resumable", "resettable", "down", "foreign", "at work"]
OPERATION = "kubeadm-init"


@dataclass(frozen=True, slots=True)
class Seen:
    """What tells how far an initialisation came."""

    admin: bool
    etcd_data: bool
    manifests: bool
    certificates: bool
    ready: bool
    started_by: str | None
    at_work: bool = False
    complete: bool = False  # every certificate that a control plane needs
    client: bool = False  # the kubelet has a client certificate
    running: bool = False  # pods run


def decide(seen: Seen, cluster: str) -> State:
    """Return the state: only `bare`, `resumable` and `resettable` may be acted on.

    `resumable`: our own init broke off, and etcd may hold data or the kubelet has run: kubeadm's phases reuse what is
    there and are run again. `resettable`: our own init broke off before anything ran, so a reset loses nothing
    (kubeadm#2353). `down`: an initialised control plane that does not answer; `foreign`: something that no init of ours
    left, or that has run: a reset is not for us to decide. `at work`: the init of an interrupted run goes on by itself,
    so what is there is half written: wait, look again.
    """
    if seen.at_work:
        return "at work"
    begun = seen.admin or seen.manifests or seen.certificates
    ran = seen.etcd_data or seen.client or seen.running
    if seen.started_by is not None and (ran or begun):
        ours = seen.started_by == cluster
        if ran:
            return "resumable" if ours and seen.complete else "foreign"
        return "resettable" if ours else "foreign"
    if seen.admin and seen.etcd_data:
        return "initialised" if seen.ready else "down"
    return "foreign" if ran or begun else "bare"


@dataclass(frozen=True)
class ControlPlaneInitialised:
    """The control plane is initialised and its API is ready."""

    traps: ClassVar[tuple[int, ...]] = (34, 37, 38, 39, 40)
    impact: ClassVar[Impact] = Impact.WORKLOADS
    cluster: Cluster
    host: HostSpec
    family: Family
    reset: bool = False
    name: str = "the control plane is initialised"

    async def _look(self, on: Host) -> Seen:
        local = f"https://127.0.0.1:{self.cluster.kubernetes.api_port}/readyz"
        (
            (admin, started, installed),
            (manifests, etcd, certificates),
            (ready, unit),
            (clients, pods),
        ) = await asyncio.gather(
            on.read(FileState(ADMIN), FileText(STARTED), self.family.package("kubeadm")),
            on.read(Listing(MANIFESTS), Listing(ETCD), Listing(PKI)),
            on.read(Says(("curl", "-sk", "--max-time", "8", local)), UnitState(f"shipway-{OPERATION}.service")),
            on.read(CLIENT_FOLDER, PODS),
        )
        if installed is None:
            raise Blocked("kubeadm is not installed yet", host=on.name)
        return Seen(
            admin=admin is not None,
            etcd_data=bool(etcd),
            manifests=bool(static_pods(manifests)),
            certificates=bool(certificates_of(certificates)),
            ready=ready.stdout.strip() == "ok",
            started_by=started.strip() if started is not None else None,
            at_work=unit.active in AT_WORK,
            complete={"ca.crt", "ca.key", "sa.key", "sa.pub", "etcd"} <= set(certificates),
            client=has_client(clients),
            running=running_pods(pods, on.name),
        )

    async def check(self, on: Host) -> Drift | None:
        """Tell the state; refuse what a person must decide."""
        seen = await self._look(on)
        state = decide(seen, self.cluster.name)
        if state == "initialised":
            return None
        if state == "down":
            raise ApiUnavailable("the control plane is initialised, but its API is not ready", host=on.name)
        if state == "foreign" and not (self.reset and _may_be_reset(seen)):
            raise self._refusal(seen, on.name)
        return Drift(f"{state} host", "initialised, API ready")

    async def apply(self, on: Host) -> None:
        """Initialise, or go on with an initialisation that broke off; one still at work is waited for first."""
        await on.settled(OPERATION, "kubeadm-reset", seconds=self.cluster.kubernetes.init_seconds)
        seen = await self._look(on)
        state = decide(seen, self.cluster.name)
        if state in ("initialised", "down", "at work"):
            raise Transient("the host has another state than a moment ago, so look again", host=on.name, code="SHW-205")
        if state == "foreign" and not self.reset:
            raise self._refusal(seen, on.name)
        if state in ("resettable", "foreign"):
            await reset(on)
        config = f"{OPERATIONS}/kubeadm-init.yaml"
        await on.write(config, as_yaml(init_documents(self.cluster, self.host)).encode(), mode="600")
        await on.write(STARTED, f"{self.cluster.name}\n".encode(), mode="600")
        words = ["kubeadm", "init", "--config", config, "--skip-token-print"]
        if state == "resumable":
            words.append(f"--ignore-preflight-errors={','.join(await self._ignored(on))}")
        limit = self.cluster.kubernetes.init_seconds
        output = await on.operate(OPERATION, words, seconds=limit, marker=STARTED)
        if not output.ok:
            raise await collect_evidence(on, "kubeadm init", output)
        await on.do(Command(("rm", "-f", config)))

    def _refusal(self, seen: Seen, host: str) -> Refused:
        """Name what is there that is never deleted unasked."""
        signs = {
            "etcd data": seen.etcd_data,
            "running pods": seen.running,
            "a client certificate of a kubelet": seen.client,
            "admin.conf": seen.admin,
            "static pods of a control plane": seen.manifests,
            "certificates": seen.certificates,
        }
        there = ", ".join(name for name, is_there in signs.items() if is_there)
        message = f"{there}: no interrupted run of this cluster left that, so it is never deleted unasked"
        if _may_be_reset(seen):
            fix = f"If it may be lost, run again with `--reset {host}`; else restore that cluster."
            return Refused(message, host=host, code="SHW-101", fix=fix)
        fix = (
            f"See what it belongs to: `sudo grep server: /etc/kubernetes/*.conf` on {host}. Nothing is reset beside it."
        )
        return Refused(message, host=host, code="SHW-325", fix=fix)

    async def _ignored(self, on: Host) -> list[str]:
        """Name the preflight errors that an interrupted init of our own must give: its files and ports are in use."""
        manifests = static_pods(await on.read(Listing(MANIFESTS)))
        ports = (self.cluster.kubernetes.api_port, 10250, 10257, 10259, 2379, 2380)
        names = [f"FileAvailable--etc-kubernetes-manifests-{name}" for name in manifests]
        return [*names, *(f"Port-{port}" for port in ports), "DirAvailable--var-lib-etcd"]


def _may_be_reset(seen: Seen) -> bool:
    """Say whether a typed consent is enough: where pods run, or a kubelet has joined, it never is."""
    return not (seen.running or seen.client)
