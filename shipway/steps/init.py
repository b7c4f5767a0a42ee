"""The control plane's initialisation: decided by what is there, never done twice, never at the cost of etcd's data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from shipway.cluster import Cluster
from shipway.cluster_parts import HostSpec
from shipway.errors import ApiUnavailable, Blocked, Permanent, Refused
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.packages import Package
from shipway.facts.services import UnitState
from shipway.foreign_numbers import whole
from shipway.host import AT_WORK, OPERATIONS, Command, Host
from shipway.kubeadm import as_yaml, init_documents
from shipway.step import Drift, Impact
from shipway.steps.evidence import collected
from shipway.steps.leftovers import clean

ADMIN = "/etc/kubernetes/admin.conf"
CNI = "/etc/cni/net.d"
STARTED = "/var/lib/shipway/init-started"
MANIFESTS = "/etc/kubernetes/manifests"
PKI = "/etc/kubernetes/pki"
# The static pods that kubeadm writes (its constants, GetStaticPodFilepath). Nothing else in that folder tells of an
# init or a join: the kubelet's package ships .kubelet-keep, and people put static pods of their own (kube-vip) there.
STATIC_PODS = ("etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml")
State = Literal["initialised", "bare", "resumable", "resettable", "down", "foreign", "at work"]
OPERATION = "kubeadm-init"
_PASSWD_FIELDS = 7  # passwd(5)


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


def static_pods(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the names in /etc/kubernetes/manifests that only kubeadm can have written."""
    return tuple(name for name in names if name in STATIC_PODS)


def certificates_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the names in /etc/kubernetes/pki that hold certificates or keys: a folder or a mark is none."""
    return tuple(name for name in names if name.endswith((".crt", ".key", ".pub")) and not name.startswith("."))


def decide(seen: Seen, cluster: str) -> State:
    """Give the state: only `bare`, `resumable` and `resettable` may be acted on.

    `resumable`: our own init broke off and etcd may hold data: kubeadm's phases reuse what is there and are run again.
    `resettable`: something was begun and no etcd data exists, so a reset loses nothing (kubeadm#2353).
    `down`: an initialised control plane that does not answer; `foreign`: etcd data of something unknown.
    `at work`: the init of an interrupted run goes on by itself, so what is there is half written: wait, look again.
    """
    if seen.at_work:
        return "at work"
    if seen.started_by is not None and seen.etcd_data:
        return "resumable" if seen.started_by == cluster and seen.certificates else "foreign"
    if seen.admin and seen.etcd_data:
        return "initialised" if seen.ready else "down"
    if seen.etcd_data:
        return "foreign"
    return "resettable" if seen.admin or seen.manifests or seen.certificates else "bare"


@dataclass(frozen=True)
class ControlPlaneInitialised:
    """The control plane is initialised and its API is ready."""

    traps: ClassVar[tuple[int, ...]] = (34, 37, 38, 39, 40)
    impact: ClassVar[Impact] = Impact.WORKLOADS
    cluster: Cluster
    host: HostSpec
    reset: bool = False
    name: str = "the control plane is initialised"

    async def _look(self, on: Host) -> Seen:
        local = f"https://127.0.0.1:{self.cluster.kubernetes.api_port}/readyz"
        (admin, started, installed), (manifests, etcd, certificates), (ready, unit) = await asyncio.gather(
            on.read(FileState(ADMIN), FileText(STARTED), Package("kubeadm")),
            on.read(Listing(MANIFESTS), Listing("/var/lib/etcd/member"), Listing(PKI)),
            on.read(Says(("curl", "-sk", "--max-time", "8", local)), UnitState(f"shipway-{OPERATION}.service")),
        )
        if installed is None:
            raise Blocked("kubeadm is not installed yet", host=on.name)
        complete = {"ca.crt", "ca.key", "sa.key", "sa.pub", "etcd"} <= set(certificates)
        return Seen(
            admin=admin is not None,
            etcd_data=bool(etcd),
            manifests=bool(static_pods(manifests)),
            certificates=complete if etcd else bool(certificates_of(certificates)),
            ready=ready.stdout.strip() == "ok",
            started_by=started.strip() if started is not None else None,
            at_work=unit.active in AT_WORK,
        )

    async def check(self, on: Host) -> Drift | None:
        """Tell the state; refuse what a person must decide."""
        state = decide(await self._look(on), self.cluster.name)
        if state == "initialised":
            return None
        if state == "down":
            raise ApiUnavailable("the control plane is initialised, but its API is not ready", host=on.name)
        if state == "foreign" and not self.reset:
            message = "etcd data is there that no interrupted run of this cluster made; it is never deleted unasked"
            fix = f"If it may be lost, run again with `--reset {on.name}`; else restore that cluster."
            raise Refused(message, host=on.name, code="SHW-101", fix=fix)
        return Drift(f"{state} host", "initialised, API ready")

    async def apply(self, on: Host, drift: Drift) -> None:  # noqa: ARG002 - the state is looked at anew
        """Initialise, or go on with an initialisation that broke off; one still at work is waited for first."""
        await on.settled(OPERATION, "kubeadm-reset", seconds=self.cluster.kubernetes.init_seconds)
        state = decide(await self._look(on), self.cluster.name)
        if state == "resettable" or (state == "foreign" and self.reset):
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
            raise await collected(on, "kubeadm init", output)
        await on.do(Command(("rm", "-f", config)))

    async def _ignored(self, on: Host) -> list[str]:
        """Name the preflight errors that an interrupted init of our own must give: its files and ports are in use."""
        manifests = static_pods(await on.read(Listing(MANIFESTS)))
        ports = (self.cluster.kubernetes.api_port, 10250, 10257, 10259, 2379, 2380)
        names = [f"FileAvailable--etc-kubernetes-manifests-{name}" for name in manifests]
        return [*names, *(f"Port-{port}" for port in ports), "DirAvailable--var-lib-etcd"]


async def reset(on: Host) -> None:
    """Undo kubeadm's work on a host; CNI files are removed but their folder stays (containerd watches it)."""
    await on.succeed("kubeadm-reset", ("kubeadm", "reset", "-f"), seconds=300)
    # A dot file there is a package's mark (kubernetes-cni's .kubernetes-cni-keep), no configuration of a network.
    files = [f"{CNI}/{name}" for name in await on.read(Listing(CNI)) if not name.startswith(".")]
    await on.do(Command(("rm", "-rf", "--", STARTED, *files)))
    await clean(on)


@dataclass(frozen=True)
class UserHasKubeconfig:
    """The login user on the control plane has the admin kubeconfig, private and its own."""

    impact: ClassVar[Impact] = Impact.FILES
    user: str

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.user} has the admin kubeconfig"

    @property
    def _usual(self) -> str:
        return "/root" if self.user == "root" else f"/home/{self.user}"

    async def _place(self, on: Host) -> tuple[str, str]:
        """Give the file's path in the user's home, and the number of the user's own group, as the host knows them."""
        known = await on.read(Says(("getent", "passwd", self.user)))
        fields = known.stdout.strip().split(":")
        if len(fields) < _PASSWD_FIELDS or not fields[5].startswith("/") or whole(fields[3]) is None:
            fix = f"See `getent passwd {self.user}` on it: `ssh.user` needs a home and a group there."
            message = f"the host knows no user {self.user} with a home"
            raise Permanent(message, host=on.name, code="SHW-316", fix=fix)
        return f"{fields[5]}/.kube/config", fields[3]

    async def check(self, on: Host) -> Drift | None:
        """Compare digests, mode and owner; the content stays on the host. An unusual home costs a second look."""
        (admin, _), (path, _) = await asyncio.gather(
            on.read(FileState(ADMIN), FileState(f"{self._usual}/.kube/config")), self._place(on)
        )
        if admin is None:
            raise Blocked("the control plane is not initialised yet", host=on.name)
        own = await on.read(FileState(path))
        if own and own.sha256 == admin.sha256 and own.mode == "600" and own.owner.startswith(f"{self.user}:"):
            return None
        return Drift("another one" if own else "none", f"{path}, mode 600")

    async def apply(self, on: Host, drift: Drift) -> None:  # noqa: ARG002 - it is copied whole
        """Copy it on the host."""
        path, group = await self._place(on)
        folder = path.rsplit("/", 1)[0]
        await on.do(
            Command(("install", "-d", "-m", "700", "-o", self.user, "-g", group, "--", folder)),
            Command(("install", "-m", "600", "-o", self.user, "-g", group, "--", ADMIN, path)),
        )
