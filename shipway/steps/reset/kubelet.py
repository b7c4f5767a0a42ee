"""The kubelet, what kubeadm made, and the containers of pods: off the host, in that order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.errors import PostconditionFailed
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.services import UnitState
from shipway.host.session import AT_WORK, Command, Host
from shipway.known_failures.catalogue import failure
from shipway.kubeadm.hardening import FOLDER
from shipway.kubeadm.writes import ETC
from shipway.os.family import Family
from shipway.ownership.evidence import (
    ADMIN,
    BOOTSTRAP,
    ETCD,
    FLAGS,
    KUBELET_CONF,
    MANIFESTS,
    PKI,
    PODS,
    certificates_of,
    running_pods,
    static_pods,
)
from shipway.step import Drift, Impact
from shipway.steps.hardening.manifest import KEPT as CHANGED
from shipway.steps.kubernetes.renewal import KEPT
from shipway.steps.kubernetes.static_pods import AWAY

KUBELET = UnitState("kubelet.service")
KUBECONFIGS = (
    *(KUBELET_CONF, BOOTSTRAP, ADMIN),
    *("/etc/kubernetes/controller-manager.conf", "/etc/kubernetes/scheduler.conf", "/etc/kubernetes/super-admin.conf"),
)
KUBELET_FOLDER = "/var/lib/kubelet"
# What kubeadm and the kubelet write there: kubeadm's own reset empties the folder, so a failure left what is left.
KUBELET_FILES = (FLAGS, *(f"{KUBELET_FOLDER}/{name}" for name in ("config.yaml", "instance-config.yaml")))
ETCD_MANIFEST = "etcd.yaml"
# Manifests that a restart or a change was broken off with, and what hardening gave the API server, its key too.
OWN = (AWAY, CHANGED, FOLDER)
# Says that a reset of ours has begun, and whether kubeadm's etcd was there: nothing else tells so once it is half done.
RESETTING = "/var/lib/shipway/reset-started"
RESET_SECONDS = 600
SHOWN = 6
# The namespaces of containerd in which shims run, whoever made them: the record after -namespace on a command line.
SHIMS = Says(("sh", "-c", "grep -hszx -A1 -e -namespace /proc/[0-9]*/cmdline | tr '\\0' '\\n'; exit 0"))
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
OWN_NAMESPACE = "k8s.io"
Still = Callable[[], Awaitable[None]]


async def still_allowed() -> None:
    """Let a host be reset whenever it is asked for."""


def foreign_namespaces(said: str) -> tuple[str, ...]:
    """Return containerd's namespaces, other than that of Kubernetes, in which containers run; docker's is `moby`."""
    names = {line for line in said.split("\n") if _NAMESPACE.fullmatch(line)}
    return tuple(sorted(names - {OWN_NAMESPACE}))


def few(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


@dataclass(frozen=True)
class KubeletOff:
    """The kubelet does not run, and does not start with the host.

    To disable it lets systemd read its unit files anew, which takes the device rights from running GPU containers
    (nvidia-container-toolkit#48): beside containers of others it is only stopped.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    still: Still = field(default=still_allowed, compare=False, repr=False)
    name: str = "the kubelet is stopped and disabled"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd; a host without a kubelet is as wanted."""
        info, shims = await on.read(KUBELET, SHIMS)
        have = [info.active] if info.active in AT_WORK else []
        if info.enabled == "enabled" and not foreign_namespaces(shims.stdout):
            have.append(info.enabled)
        return Drift(", ".join(have), "stopped and disabled") if have else None

    async def apply(self, on: Host) -> None:
        """Stop it, and disable it where no container of others runs."""
        await self.still()
        beside = foreign_namespaces((await on.read(SHIMS)).stdout)
        off = [] if beside else [Command(("systemctl", "disable", "--quiet", "kubelet"))]
        await on.do(Command(("systemctl", "stop", "kubelet"), seconds=180), *off)


@dataclass(frozen=True)
class NodeUndone:
    """Nothing that kubeadm made is left: kubeconfigs, certificates, static pods, the kubelet's files, its etcd's data.

    etcd's data goes only where kubeadm's own manifest stands beside it: any other is somebody else's, and stays.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    family: Family = field(compare=False, repr=False)
    socket: str
    still: Still = field(default=still_allowed, compare=False, repr=False)
    name: str = "nothing of kubeadm's is left"

    async def _left(self, on: Host) -> list[str]:
        configs, others, (static, pki, etcd, marker), beside = await asyncio.gather(
            on.read_all([FileState(path) for path in KUBECONFIGS]),
            on.read_all([FileState(path) for path in KUBELET_FILES]),
            on.read(Listing(MANIFESTS), Listing(PKI), Listing(ETCD), FileText(RESETTING)),
            on.read(Listing(ETC)),
        )
        left = [path for path, info in zip(KUBECONFIGS, configs, strict=True) if info]
        left += [f"{MANIFESTS}/{name}" for name in static_pods(static)]
        left += [PKI] if certificates_of(pki) else []
        left += [path for path, info in zip(KUBELET_FILES, others, strict=True) if info]
        left += [path for name in beside if (path := f"{ETC}/{name}") in OWN or name.startswith(KEPT)]
        ours = ETCD_MANIFEST in static or "etcd" in (marker or "")
        return left + ([ETCD] if etcd and ours else [])

    async def check(self, on: Host) -> Drift | None:
        """Look for each of them."""
        left = await self._left(on)
        return Drift(f"there: {few(left)}", "none of it (`kubeadm reset`)") if left else None

    async def apply(self, on: Host) -> None:
        """Run `kubeadm reset`, and remove what it leaves of these.

        A reset, join or init of an earlier run that is still at work is waited for. Raises CommandFailed where kubeadm
        fails; where it is not installed any more only the files are removed.
        """
        await on.settled("kubeadm-init", "kubeadm-join", "kubeadm-reset", seconds=RESET_SECONDS)
        await self.still()
        kubeadm, static, marker = await on.read(self.family.package("kubeadm"), Listing(MANIFESTS), FileText(RESETTING))
        if marker is None:
            await on.write(RESETTING, b"etcd\n" if ETCD_MANIFEST in static else b"node\n", mode="600")
        if kubeadm is not None:
            words = ("kubeadm", "reset", "-f", "--cri-socket", self.socket)
            output = await on.operate("kubeadm-reset", words, seconds=RESET_SECONDS)
            if not output.ok:
                raise failure("kubeadm reset", output, host=on.name)
        on.forget()
        if left := await self._left(on):
            await on.do(Command(("rm", "-rf", "--one-file-system", "--", *left)))


# Containers that the kubelet had made carry a label of containerd's CRI; others in the namespace are somebody's own.
MADE_BY_CRI = 'labels."io.cri-containerd.kind"'
_CTR = f"ctr --connect-timeout 5s --namespace {OWN_NAMESPACE}"
CONTAINERS = Says((*_CTR.split(), "containers", "ls", "-q", MADE_BY_CRI))
# $0 is containerd's filter; a container without a task has none to delete.
DELETE = (
    f'for c in $({_CTR} containers ls -q "$0"); do '
    f'{_CTR} tasks delete --force "$c" >/dev/null 2>&1; {_CTR} containers delete "$c"; done'
)
NO_PROGRAM = (126, 127)


@dataclass(frozen=True)
class ContainersGone:
    """No container that the kubelet made is left; `kubeadm reset` removes them, and passes over what it cannot."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    still: Still = field(default=still_allowed, compare=False, repr=False)
    name: str = "no container of a pod is left"

    async def check(self, on: Host) -> Drift | None:
        """Ask containerd; where it cannot be asked, the kernel tells whether any runs."""
        listed, ran, containerd = await on.read(CONTAINERS, PODS, UnitState("containerd.service"))
        found = listed.stdout.split() if listed.ok else []
        if found:
            return Drift(f"{len(found)} containers", "none")
        if not listed.ok and running_pods(ran, on.name):
            if listed.status not in NO_PROGRAM and containerd.active not in AT_WORK:
                return Drift("containers run, and containerd does not", "none")
            raise PostconditionFailed(
                "containers of pods run, and containerd cannot be asked for them",
                host=on.name,
                fix=f"See `systemctl status containerd` on {on.name}; then run again.",
            )
        return None

    async def apply(self, on: Host) -> None:
        """Delete each, its processes first; containerd is started where it stands still."""
        await self.still()
        if (await on.read(UnitState("containerd.service"))).active not in AT_WORK:
            await on.do(Command(("systemctl", "start", "containerd"), seconds=120))
        await on.succeed("containers-gone", ("sh", "-c", DELETE, MADE_BY_CRI), seconds=RESET_SECONDS)


MOUNTS = FileText("/proc/mounts")


def mounts_below(text: str, folder: str) -> list[str]:
    """Return the mount points below a folder, the deepest first; its own is none of them.

    The kernel writes a blank in a name by its number in octal (proc(5)).
    """
    fields = [line.split(" ") for line in text.splitlines()]
    points = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), one[1]) for one in fields if len(one) > 1]
    return [point for point in reversed(points) if point.startswith(f"{folder}/")]


@dataclass(frozen=True)
class NothingMounted:
    """Nothing is mounted below the kubelet's folder: what is removed there would be removed from a volume."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    name: str = f"nothing is mounted below {KUBELET_FOLDER}"

    async def check(self, on: Host) -> Drift | None:
        """Read the mounts."""
        text = await on.read(MOUNTS)
        points = mounts_below(text or "", KUBELET_FOLDER)
        return Drift(few(points), "none") if points else None

    async def apply(self, on: Host) -> None:
        """Unmount each; one that is busy is taken out of the tree, and goes when its last user does."""
        text = await on.read(MOUNTS)
        points = mounts_below(text or "", KUBELET_FOLDER)
        script = 'for p; do umount -- "$p" || umount -l -- "$p" || exit; done'
        await on.succeed("unmount", ("sh", "-c", script, "sh", *points), seconds=300)


# Mounts are asked for in the very process that removes: a volume that came back since the look is not emptied.
EMPTY = (
    f"! grep -q ' {KUBELET_FOLDER}/' /proc/mounts || {{ echo 'a volume is mounted there' >&2; exit 75; }}; "
    f"find {KUBELET_FOLDER} -xdev -mindepth 1 -delete"
)


@dataclass(frozen=True)
class KubeletFolderEmpty:
    """The kubelet's folder holds nothing; the folder itself may be a disk of its own."""

    impact: ClassVar[Impact] = Impact.WORKLOADS
    name: str = f"{KUBELET_FOLDER} is empty"

    async def check(self, on: Host) -> Drift | None:
        """List it."""
        names = await on.read(Listing(KUBELET_FOLDER))
        return Drift(few(list(names)), "empty") if names else None

    async def apply(self, on: Host) -> None:
        """Remove what is in it, unless something is mounted below it."""
        await on.succeed("kubelet-folder", ("sh", "-c", EMPTY), seconds=300)
