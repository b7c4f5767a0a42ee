"""Checks of a host that is part of a cluster: certificates, disks, and the kubelet's configuration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.edits.yaml import with_values
from shipway.errors import Blocked, Permanent
from shipway.facts.certificates import NO_PROGRAM, expires
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.facts.services import UnitState
from shipway.foreign.numbers import whole
from shipway.foreign.yaml import read_yaml
from shipway.host.session import Host
from shipway.kubeadm.values import differences, spell
from shipway.step import Drift, Impact
from shipway.steps.system.loaded import is_loaded, restart

DAY = 86400.0
# kubeadm's leaf certificates live a year and are renewed by an upgrade or `kubeadm certs renew` (kubeadm: certificate
# management). The kubelet renews its own at 70 to 90 % of its life, so 30 days left there mean that it cannot.
EXPIRY_DAYS = 30
FULL_PERCENT = 85  # the kubelet evicts pods at 85 % of the image file system (eviction signals: imagefs.available<15%)
DISKS = ("/", "/var/lib/containerd", "/var/lib/kubelet")
KUBELET_CERTIFICATE = "/var/lib/kubelet/pki/kubelet-client-current.pem"
PKI = "/etc/kubernetes/pki"
CONTROL_PLANE_CERTIFICATES = tuple(
    f"{PKI}/{name}.crt"
    for name in (
        "apiserver",
        "apiserver-etcd-client",
        "apiserver-kubelet-client",
        "ca",
        "etcd/ca",
        "etcd/healthcheck-client",
        "etcd/peer",
        "etcd/server",
        "front-proxy-ca",
        "front-proxy-client",
    )
)
KUBELET_CONFIG = "/var/lib/kubelet/config.yaml"
KUBELET_FILES = (KUBELET_CONFIG, "/var/lib/kubelet/kubeadm-flags.env")
REMAKE = "Make it anew there with `kubeadm upgrade node phase kubelet-config`, then restart the kubelet."
# kubernetes.io, "Troubleshooting kubeadm": kubelet client certificate rotation fails.
ANEW = (
    "a client certificate of the kubelet's own: on the control plane `kubeadm kubeconfig user --org system:nodes "
    "--client-name system:node:NODE`, put what it prints into /etc/kubernetes/kubelet.conf of this host, restart the "
    "kubelet there; pods go on"
)


@dataclass(frozen=True)
class CertificatesValid:
    """No certificate of this host expires within 30 days; only the dates leave the host."""

    paths: tuple[str, ...]
    name: str = "certificates are valid for 30 days and more"

    async def check(self, on: Host) -> Drift | None:
        """Ask openssl for the dates; kubeadm made every one of them, so one that is gone is reported as well."""
        command = ("openssl", "x509", "-noout", "-enddate", "-in")
        answers = await on.read_all([Says((*command, path)) for path in self.paths])
        if answers and answers[0].status == NO_PROGRAM:
            raise Blocked("no openssl there", host=on.name, fix=f"Install openssl on {on.name}.")
        now, soon, gone = time.time(), [], []
        for path, answer in zip(self.paths, answers, strict=True):
            when = expires(answer.stdout) if answer.ok else None
            short = path.removeprefix(f"{PKI}/")
            if when is None:
                gone.append(short)
            elif when - now < EXPIRY_DAYS * DAY:
                days = (when - now) / DAY
                soon.append(f"{short} {f'in {days:.0f} days' if days > 0 else 'has expired'}")
        if not soon and not gone:
            return None
        have = [f"expires: {', '.join(soon)}"] * bool(soon) + [f"cannot be read: {', '.join(gone)}"] * bool(gone)
        lost = KUBELET_CERTIFICATE in (*gone, *(one.split(" in ")[0] for one in soon))
        want = f"{EXPIRY_DAYS} days left (`python -m flows.certificates FILE` renews them and proves what is served)"
        return Drift("; ".join(have), ANEW if lost else want)


@dataclass(frozen=True)
class DiskRoomLeft:
    """No file system that pods and images live on is nearly full."""

    name: str = "disks have room"

    async def check(self, on: Host) -> Drift | None:
        """Ask df; paths on one file system count once."""
        said = (await on.read(Says(("df", "-P", *DISKS)))).stdout
        full = {}
        for line in said.splitlines()[1:]:
            fields = line.split()
            percent = fields[4].removesuffix("%") if len(fields) > 5 else ""  # noqa: PLR2004 - df -P has six columns
            if (whole(percent) or 0) > FULL_PERCENT:
                full[fields[5]] = f"{fields[5]} {percent} % full"
        want = f"at most {FULL_PERCENT} % (the kubelet evicts pods above)"
        return Drift(", ".join(full.values()), want) if full else None


async def kubelet_config(on: Host) -> dict[str, Any]:
    """Return the kubelet's configuration; raises Blocked where none is there that could be changed without a loss."""
    text = await on.read(FileText(KUBELET_CONFIG))
    if text is None:
        raise Blocked("the host has not joined yet", host=on.name)
    try:
        config = read_yaml(text)
    except ValueError:
        config = None
    if not isinstance(config, dict) or "kind" not in config:
        raise Blocked(f"{KUBELET_CONFIG} is no kubelet configuration", host=on.name, fix=REMAKE)
    return config


async def edit_kubelet_config(on: Host, wanted: Mapping[str, Any]) -> None:
    """Set fields in the kubelet's file, keep every other byte, its mode and owner; raises as `kubelet_config`."""
    await kubelet_config(on)
    text, info = await on.read(FileText(KUBELET_CONFIG), FileState(KUBELET_CONFIG))
    mode, owner = (info.mode, info.owner) if info else ("644", "root:root")
    await on.write(KUBELET_CONFIG, with_values(text or "", wanted).encode(), mode=mode, owner=owner)


@dataclass(frozen=True)
class KubeletConfigured:
    """The kubelet's file says what the cluster file declares; kubeadm owns the rest of it."""

    impact: ClassVar[Impact] = Impact.FILES
    traps: ClassVar[tuple[int, ...]] = (17,)
    wanted: Mapping[str, Any] = field(hash=False)
    name: str = "the kubelet's configuration says what is declared"

    async def check(self, on: Host) -> Drift | None:
        """Compare the fields that are declared, by what they mean: 5m is 5m0s."""
        wrong = list(differences(await kubelet_config(on), self.wanted))
        return Drift(spell(wrong, wanted=False), spell(wrong, wanted=True)) if wrong else None

    async def apply(self, on: Host) -> None:
        """Set the declared fields that differ, keep every other byte."""
        await edit_kubelet_config(on, self.wanted)


@dataclass(frozen=True)
class KubeletDeclared:
    """The kubelet of a host that joined long ago says what is declared now: a bootstrap changes it on no host."""

    wanted: Mapping[str, Any] = field(hash=False)
    name: str = "the kubelet was given what is declared"

    async def check(self, on: Host) -> Drift | None:
        """Compare. Raises Permanent SHW-339 with the way to bring it about, one host at a time."""
        wrong = list(differences(await kubelet_config(on), self.wanted))
        if wrong:
            message = f"the kubelet has {spell(wrong, wanted=False)}, declared is {spell(wrong, wanted=True)}"
            fix = "Run `python -m flows.drift_repair FILE`: it changes the kubelets' configuration host by host."
            raise Permanent(message, host=on.name, code="SHW-339", fix=fix)
        return None


@dataclass(frozen=True)
class KubeletLoaded:
    """The kubelet was started after its files last changed.

    kubeadm writes them and starts the kubelet within the same second, so that second counts as after.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    restarts: ClassVar[str] = "kubelet"
    name: str = "kubelet runs its current configuration"

    async def check(self, on: Host) -> Drift | None:
        """Compare what was loaded at its last start with what the files hold."""
        info, loaded = await asyncio.gather(
            on.read(UnitState("kubelet.service")), is_loaded(on, "kubelet", KUBELET_FILES, same_second=True)
        )
        if info.active != "active" or loaded:
            return None  # a kubelet that does not run is the affair of "kubelet runs"
        return Drift("started before its configuration changed", "started after")

    async def apply(self, on: Host) -> None:
        """Restart it, and keep what it loaded; running containers go on without it."""
        await restart(on, "kubelet", KUBELET_FILES)
