"""What forbids an upgrade, each a check of its own: a plan lists all of them at once, and a run asks them again."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from shipway.backup.state import BackupsThere
from shipway.errors import ApiUnavailable, Blocked, Refused
from shipway.facts.certificates import CertificateIn
from shipway.facts.commands import Says
from shipway.facts.files import FileText, Listing
from shipway.foreign.numbers import whole
from shipway.gpu.counts import find_lacking
from shipway.host.session import Host
from shipway.kube.budgets import guarded_pods, list_budgets
from shipway.kube.client import Kube
from shipway.kube.drain import may_drain, movable
from shipway.kube.nodes import few, nodes_by_name
from shipway.kube.record import read_record
from shipway.kube.status import why_not_ready, why_pressed
from shipway.kubeadm.certificates import KUBELET_CLIENT, LEAFS
from shipway.rules.compatibility import minor_of, triple
from shipway.rules.upgrades import (
    EXPERIMENTAL_GONE,
    KUBEADM_LEAVES,
    REMOVED_FLAGS,
    REMOVED_GATES,
    REMOVED_OBJECTS,
    V1BETA3_GONE,
    etcd_floor,
    may_lag,
    newest_patch,
    next_minor,
    taken_away,
    why_not,
)
from shipway.step import Drift
from shipway.steps.kubernetes.etcd_members import SETTLE_SECONDS, Member, settled_members
from shipway.steps.kubernetes.running import DROP_INS, EXTRA_FILES, KUBEADM_FLAGS, flags_of, read_assignment
from shipway.steps.kubernetes.skew import version_of

GIB = 1 << 20  # of df's kibibytes
# More than twice what is fetched: the programs of a build of 1.36.2 are 0.4 GiB in a control plane's images and 0.2 GiB
# in the three packages, and for a while each lies there packed as well.
ROOM = {True: 2.0, False: 1.0}  # GiB, by whether the host is a control plane
PLACES = ("/var/lib/containerd", "/var/lib/kubelet", "/var/cache")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
# What Kubernetes' own controllers ask for while it is there: they watch every kind, and these have no later version in
# their group (kube-controller-manager's garbage collector). Nobody can tell from the count whether others do too.
ASKED_BY_ITSELF = ("extensions/v1beta1 ingresses ", "policy/v1beta1 podsecuritypolicies ")
CERTIFICATES = "`shipway certificates` renews it, and proves that it is served; then run again."


async def running_version(on: Kube) -> str:
    """Return what the API server that answers says that it is (1.36.2). Raises Blocked where it says nothing."""
    _, text = await on.raw("/version")
    found = version_of(text)
    if found is None:
        raise Blocked("the API does not say which version it is")
    return found


@dataclass(frozen=True)
class PathAllowed:
    """The version is the running one, a later patch of it, or one of the next minor."""

    wanted: str
    name: str = "the version can be reached in one step"

    async def check(self, on: Kube) -> Drift | None:
        """Compare with what answers. Raises Refused SHW-780, SHW-781."""
        have = await running_version(on)
        code, why = why_not(have, self.wanted)
        if why:
            fix = f"Set kubernetes.version to one of {next_minor(have)} first, upgrade, and go on from there."
            if code == "SHW-781":
                fix = f"Set kubernetes.version back to {have}, or restore a backup of before (docs/upgrade.md)."
            raise Refused(why, code=code, fix=fix)
        return None


@dataclass(frozen=True)
class ControlPlanesReady:
    """Every control plane is a Ready node, and short of nothing.

    A kubelet that is short of disk removes images that no container has yet: those that were fetched for an upgrade.
    """

    names: Collection[str]
    name: str = "every control plane is Ready"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for the nodes. Raises Refused SHW-784 naming each that is not."""
        nodes = await nodes_by_name(on)
        found = {name: why_not_ready(nodes.get(name)) or why_pressed(nodes[name]) for name in sorted(self.names)}
        wrong = {name: why for name, why in found.items() if why}
        if wrong:
            said = few([f"{name}: {why}" for name, why in wrong.items()])
            first = next(iter(wrong))
            fix = f"See `journalctl -u kubelet -n 50` on {first}; no control plane is touched while one is not well."
            raise Refused(f"not well: {said}", host=first, code="SHW-784", fix=fix)
        return None


@dataclass(frozen=True)
class KubeletsFit:
    """No kubelet is newer than the API server, and none would be too far behind the new one."""

    wanted: str
    name: str = "every kubelet may stay with the new API server"

    async def check(self, on: Kube) -> Drift | None:
        """Read what each node's kubelet says that it is. Raises Refused SHW-785."""
        have, lag = await running_version(on), may_lag(self.wanted)
        wrong = []
        for name, node in sorted((await nodes_by_name(on)).items()):
            kubelet = kubelet_of(node)
            if not kubelet:
                continue
            if minor_of(kubelet)[1] < minor_of(self.wanted)[1] - lag:
                wrong.append(f"{name} has v{kubelet}, more than {lag} minors behind v{self.wanted}")
            elif triple(kubelet) > triple(have) and triple(kubelet) > triple(self.wanted):
                wrong.append(f"{name} has v{kubelet}, newer than the API server's v{have}")
        if wrong:
            fix = "Bring these nodes to the running version first (`shipway upgrade` with that one), or remove them."
            raise Refused(f"kubelets do not fit: {few(wrong)}", code="SHW-785", fix=fix)
        return None


def kubelet_of(node: Mapping[str, Any]) -> str:
    """Return what a node's kubelet says that it is (1.36.2); empty where it has not said it."""
    info = (node.get("status") or {}).get("nodeInfo") or {}
    said = str(info.get("kubeletVersion", "")).removeprefix("v")
    try:
        return ".".join(map(str, triple(said)))
    except ValueError:
        return ""


@dataclass(frozen=True)
class BudgetsAllow:
    """No disruption budget forbids every eviction of a pod that a drain of these nodes would move."""

    nodes: Collection[str]
    name: str = "disruption budgets allow the drains"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for the budgets that allow no disruption now, and for their pods. Raises Refused SHW-786 with each."""
        listed = await list_budgets(on)
        budgets = [one for one in listed if not (one.get("status") or {}).get("disruptionsAllowed")]
        guarded = await asyncio.gather(*(guarded_pods(on, one, self.nodes) for one in budgets))
        wrong = [
            f"{one['metadata']['namespace']}/{one['metadata']['name']} keeps {_placed(pods)}"
            for one, pods in zip(budgets, guarded, strict=True)
            if pods
        ]
        if wrong:
            fix = "Let their owners run one replica more, or change the budget (`kubectl get pdb -A`); then run again."
            raise Refused(f"budgets allow no eviction: {'; '.join(wrong)}", code="SHW-786", fix=fix)
        return None


def _placed(pods: Sequence[Mapping[str, Any]]) -> str:
    return few(sorted(f"{pod['metadata']['name']} on {pod['spec']['nodeName']}" for pod in pods))


@dataclass(frozen=True)
class NothingLost:
    """A drain of a node destroys nothing: no pod that nothing would start again, none whose emptyDir is not to be lost.

    `besides` are pods (namespace/name) whose end is waited for before that.
    """

    node: str
    local_data: Collection[str] | None = ()
    besides: Collection[str] = ()

    @property
    def name(self) -> str:
        """The node."""
        return f"the pods on node {self.node} may be moved"

    async def check(self, on: Kube) -> Drift | None:
        """Ask as the drain does. Raises Refused SHW-337."""
        if self.node in await nodes_by_name(on):
            try:
                await may_drain(on, self.node, local_data=self.local_data, besides=self.besides)
            except Refused as error:
                error.fix = (
                    "Let their owners end them, or delete them yourself, then run again; where every emptyDir may be "
                    "lost, set repair.delete_emptydir_data: true."
                )
                raise
        return None


@dataclass(frozen=True)
class RecordReadable:
    """kubeadm's record of the cluster holds nothing that the new kubeadm refuses to read."""

    wanted: str
    name: str = "the new kubeadm can read the cluster's record"

    async def check(self, on: Kube) -> Drift | None:
        """Look at feature gates and API version of kubeadm-config. Raises Refused SHW-792."""
        record = await read_record(on)
        gone = taken_away(REMOVED_GATES, self.wanted)
        gates = [f"{name} (gone since 1.{gone[name][1]})" for name in record.get("featureGates") or {} if name in gone]
        edit = "`kubectl -n kube-system edit configmap kubeadm-config`"
        if gates:
            fix = f"Take them out of ClusterConfiguration.featureGates ({edit}), then run again."
            raise Refused(f"kubeadm-config has feature gates: {', '.join(gates)}", code="SHW-792", fix=fix)
        if minor_of(self.wanted) >= V1BETA3_GONE and str(record.get("apiVersion")) == "kubeadm.k8s.io/v1beta3":
            fix = "Let the installed kubeadm write it anew: `kubeadm config migrate`, `init phase upload-config`."
            message = "kubeadm-config is of v1beta3, which kubeadm 1.37 cannot read any more"
            raise Refused(message, code="SHW-792", fix=fix)
        experimental = [name for name in _etcd_flags(record) if name.startswith("experimental-")]
        if minor_of(self.wanted) >= EXPERIMENTAL_GONE and experimental:
            fix = f"Give them their names without it in etcd.local.extraArgs ({edit}), then run again."
            message = f"kubeadm-config gives etcd {', '.join(experimental)}, and the new etcd does not start with that"
            raise Refused(message, code="SHW-792", fix=fix)
        return None


def _etcd_flags(record: Mapping[str, Any]) -> list[str]:
    """Return the flags that kubeadm's record adds to etcd's: a list since v1beta4, by name before."""
    args = ((record.get("etcd") or {}).get("local") or {}).get("extraArgs") or ()
    return [str(one["name"]) if isinstance(one, Mapping) and "name" in one else str(one) for one in args]


@dataclass(frozen=True)
class NoneLeftBehind:
    """No object is stored in an API version that the new version cannot read."""

    wanted: str
    name: str = "the new version can read every object"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for one object of each kind of those versions. Raises Refused SHW-832."""
        found = []
        for version in taken_away(REMOVED_OBJECTS, self.wanted):
            status, text = await on.raw(f"/apis/{version}")
            served = _listed(text, "resources") if status == HTTPStatus.OK else []
            for kind in [one["name"] for one in served if "list" in one.get("verbs", ())]:
                _, answer = await on.raw(f"/apis/{version}/{kind}?limit=1")
                found += [f"{kind} of {version}" for _ in _listed(answer, "items")[:1]]
        if found:
            fix = (
                f"Delete them (`kubectl get {found[0].split()[0]} -A`), or let their controller do so; then run again."
            )
            raise Refused(f"v{self.wanted} cannot read what is stored: {few(found)}", code="SHW-832", fix=fix)
        return None


def _listed(text: str, key: str) -> list[dict[str, Any]]:
    """Return the objects that an answer of the API lists. Raises Blocked for what is no such answer."""
    try:
        found = json.loads(text)
        return [one for one in found.get(key) or () if isinstance(one, dict)]
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise Blocked("the API's answer about its objects cannot be read") from None


@dataclass(frozen=True)
class NobodyAsksRemoved:
    """No client has asked for an API that the new version does not have, but for Kubernetes' own controllers."""

    wanted: str
    asked: Collection[str]
    name: str = "clients ask for nothing that the new version does not have"

    async def check(self, on: Kube) -> Drift | None:
        """Judge what was asked for. Raises Refused SHW-833."""
        del on
        clients = [one for one in self.asked if not one.startswith(ASKED_BY_ITSELF)]
        if clients:
            fix = (
                "Bring these clients to a later API first (the audit log says who they are), and restart the API "
                "server: it counts from its start. To go on all the same: `upgrade.despite: [removed_apis]` in the "
                "cluster file."
            )
            raise Refused(f"clients ask for what v{self.wanted} does not have: {few(clients)}", code="SHW-833", fix=fix)
        return None


@dataclass(frozen=True)
class NewestPatchFirst:
    """The next minor is reached from the newest patch of the one that runs: it has the fixes that the step relies on.

    `offers` tells which versions of kubeadm the host's package manager knows; it uses no network.
    """

    have: str
    wanted: str
    offers: Callable[[Host], Awaitable[Collection[str]]] = field(repr=False)
    name: str = "the next minor is reached from the newest patch of the one that runs"

    async def check(self, on: Host) -> Drift | None:
        """Ask the host's package manager. Raises Refused SHW-834."""
        if minor_of(self.have) == minor_of(self.wanted):
            return None
        if newest := newest_patch(self.have, await self.offers(on)):
            fix = (
                f"`shipway upgrade --to {newest}` first, then run again; to go on without it: "
                "`upgrade.despite: [older_patch]` in the cluster file."
            )
            message = (
                f"v{self.have} is not the newest patch of its minor, {newest} is: from there v{self.wanted} is safer"
            )
            raise Refused(message, host=on.name, code="SHW-834", fix=fix)
        return None


@dataclass(frozen=True)
class GpusThere:
    """Every node offers the GPUs that are expected of it: one that lost some cannot be proven afterwards."""

    expected: Mapping[str, int] = field(hash=False)
    name: str = "every node that has its turn offers its GPUs"

    async def check(self, on: Kube) -> Drift | None:
        """Compare allocatable GPUs. Raises Refused SHW-790; a node that is not there or not Ready is not asked."""
        nodes = await nodes_by_name(on)
        lacking = await find_lacking(on, self.expected)
        wrong = [said for name, said in lacking.items() if name in nodes and not why_not_ready(nodes[name])]
        if wrong:
            fix = "`shipway verify` names the broken link; mend it, or declare the host's `gpus` as they are."
            raise Refused(f"GPUs are missing before it begins: {few(wrong)}", code="SHW-790", fix=fix)
        return None


@dataclass(frozen=True)
class EtcdFits:
    """Every member of etcd is well, within so many seconds, and new enough for the etcd that the new minor brings."""

    have: str
    wanted: str
    seconds: float = SETTLE_SECONDS
    name: str = "every member of etcd is healthy and new enough"

    async def check(self, on: Host) -> Drift | None:
        """Ask etcd on this host. Raises Refused SHW-782 (not well), SHW-783 (too old)."""
        fix = (
            f"See etcd on the host of that member (`tail -n 20 /var/log/pods/kube-system_etcd-*/etcd/*.log`), and "
            f"`journalctl -u kubelet`; asked on {on.name}."
        )
        try:
            members = await settled_members(on, seconds=self.seconds)
        except ApiUnavailable as error:
            raise Refused(error.message, host=on.name, code="SHW-782", fix=fix) from error
        if ill := [said for one in members if (said := _ill(one))]:
            raise Refused(f"etcd is not whole: {few(ill)}", host=on.name, code="SHW-782", fix=fix)
        floor = etcd_floor(self.have, self.wanted)
        old = [f"{one.name} runs {one.version}" for one in members if floor and triple(one.version) < floor]
        if floor and old:
            least = ".".join(map(str, floor))
            fix = (
                f"Upgrade to the newest patch of 1.{minor_of(self.have)[1]} first; where its kubeadm brings an older "
                f"etcd, set etcd.local.imageTag to {least}-0 in kubeadm-config and run `kubeadm upgrade apply` with "
                "the version that runs."
            )
            message = f"v{self.wanted} brings etcd's next minor, which is safe from {least} on: {few(old)}"
            raise Refused(message, host=on.name, code="SHW-783", fix=fix)
        return None


def _ill(member: Member) -> str:
    unknown = " (which etcd it runs is not known)" if member.whole else ""
    return "" if member.whole and member.version else f"{member.said}{unknown}"


@dataclass(frozen=True)
class RoomThere:
    """The disks have room for packages and images."""

    control: bool
    name: str = "the disks have room for packages and images"

    async def check(self, on: Host) -> Drift | None:
        """Ask df(1). Raises Refused SHW-787."""
        said = await on.read(Says(("df", "-Pk", *PLACES)))
        free = {
            fields[5]: kib / GIB
            for line in said.stdout.splitlines()[1:]
            if len(fields := line.split()) > 5 and (kib := whole(fields[3])) is not None  # noqa: PLR2004 - df -P
        }
        least = ROOM[self.control]
        short = [f"{place}: {room:.1f} GiB free" for place, room in sorted(free.items()) if room < least]
        if short:
            fix = f"Make room on {on.name} (`crictl rmi --prune`, `journalctl --vacuum-size=200M`): {least:.0f} GiB."
            raise Refused(f"too little room: {', '.join(short)}", host=on.name, code="SHW-787", fix=fix)
        return None


@dataclass(frozen=True)
class NothingExpired:
    """No certificate that the upgrade works with has ended."""

    control: bool
    name: str = "no certificate has expired"

    async def check(self, on: Host) -> Drift | None:
        """Ask openssl for the ends. Raises Refused SHW-788."""
        paths = {KUBELET_CLIENT: "the kubelet's client certificate"}
        paths |= {leaf.path: leaf.name for leaf in LEAFS} if self.control else {}
        infos = await on.read_all([CertificateIn(path) for path in paths])
        ended = [
            name
            for name, info in zip(paths.values(), infos, strict=True)
            if info is not None and info.serial and info.ends <= time.time()
        ]
        if ended:
            raise Refused(f"has expired: {', '.join(ended)}", host=on.name, code="SHW-788", fix=CERTIFICATES)
        return None


@dataclass(frozen=True)
class FlagsKnown:
    """Nobody has given the kubelet a flag with which the new one does not start."""

    wanted: str
    name: str = "the new kubelet knows every flag that people added"

    async def check(self, on: Host) -> Drift | None:
        """Read extra arguments, drop-ins, and of kubeadm's own what it leaves there. Raises Refused SHW-791."""
        folder = DROP_INS.format("kubelet")
        names = [name for name in await on.read(Listing(folder)) if name != "10-kubeadm.conf"]
        paths = [*EXTRA_FILES, *(f"{folder}/{name}" for name in names), KUBEADM_FLAGS]
        texts = await on.read_all([FileText(path) for path in paths])
        gone, found = taken_away(REMOVED_FLAGS, self.wanted), []
        for path, text in zip(paths, texts, strict=True):
            flags = flags_of(_extra_words(text or ""))
            here = {name for name in gone if path != KUBEADM_FLAGS or gone[name] >= KUBEADM_LEAVES}
            found += [f"--{name} in {path} (gone since 1.{gone[name][1]})" for name in flags if name in here]
        if found:
            fix = f"Take it out there on {on.name}; what was gone before 1.37 kubeadm cleans in {KUBEADM_FLAGS} itself."
            raise Refused(f"the new kubelet would not start: {', '.join(found)}", host=on.name, code="SHW-791", fix=fix)
        return None


def _extra_words(text: str) -> list[str]:
    """Return the words that a file adds to the kubelet's command line, by an environment file or a unit's line."""
    lines = [read_assignment(text, name) for name in ("KUBELET_EXTRA_ARGS", "KUBELET_KUBEADM_ARGS")]
    for line in text.splitlines():
        key, _, value = line.strip().partition("=")
        if key in ("Environment", "ExecStart"):
            lines.append(value.strip().strip('"').removeprefix("KUBELET_EXTRA_ARGS="))
    words: list[str] = []
    for line in lines:
        try:
            words += shlex.split(line)
        except ValueError:
            words += line.split()
    return words


@dataclass(frozen=True)
class BackupYoung:
    """There is a verified backup of the last hour: for a run that takes none itself."""

    script: str = field(repr=False)
    hours: float = 1.0
    fix: str = "Run `shipway backup` first, or let the run take one (leave --no-backup away)."
    name: str = "a verified backup of the last hour is there"

    async def check(self, on: Host) -> Drift | None:
        """Ask the host. Raises Refused SHW-789."""
        state = await on.read(BackupsThere(self.script))
        newest = state.newest
        age = newest.hours_before(state.now) if newest else None
        if age is None or age > self.hours:
            said = "there is no verified backup" if age is None else f"the newest verified backup is {age:.1f} h old"
            raise Refused(said, host=on.name, code="SHW-789", fix=self.fix)
        return None


def requested_gone(metrics: str, wanted: str) -> list[str]:
    """Return the deprecated APIs that clients asked for since the API server started, and that a version has no more.

    By `apiserver_requested_deprecated_apis` (Kubernetes documentation, "Deprecated API Migration Guide").
    """
    found = set()
    for line in metrics.splitlines():
        labels = dict(_LABEL.findall(line)) if line.startswith("apiserver_requested_deprecated_apis{") else {}
        gone = labels.get("removed_release", "")
        if gone.count(".") == 1 and gone.replace(".", "").isdigit() and minor_of(gone) <= minor_of(wanted):
            group = "/".join(one for one in (labels.get("group", ""), labels.get("version", "")) if one)
            found.add(f"{group} {labels.get('resource', '')} (gone since {gone})")
    return sorted(found)


def pods_by_node(pods: Sequence[Mapping[str, Any]], own: Collection[str]) -> dict[str, int]:
    """Return how many pods of users a drain of each node would move."""
    found: dict[str, int] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node and movable(dict(pod)) and pod["metadata"].get("namespace") not in own:
            found[node] = found.get(node, 0) + 1
    return found
