"""Static pods with the flags of hardening: started anew with a new manifest, and with the old one where that fails.

The old manifest lies in KEPT until the new pod is ready. Whoever finds it there, after a restart of the host in that
moment, decides by what is ready: `ManifestSettled`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.edits.static_pod import command_of, with_flags
from shipway.errors import Blocked, DeadlineExceeded, Permanent, Refused, ShipwayError
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.static_pods import StaticPodFlags, StaticPodsRunning
from shipway.foreign.yaml import read_yaml
from shipway.host.session import OPERATIONS as RUN
from shipway.host.session import Host
from shipway.known_failures.catalogue import failure
from shipway.kube.record import ASK
from shipway.kubeadm import hardening
from shipway.kubeadm.hardening import (
    ADMISSION,
    ADMISSION_FLAG,
    APISERVER,
    AUDIT_FLAGS,
    AUDIT_POLICY,
    ENCRYPTION,
    ENCRYPTION_FLAG,
    MOUNTS,
    PARTS,
    Mount,
)
from shipway.kubeadm.writes import ETC, MANIFESTS
from shipway.redact import tail
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.hardening.key import KeysThere, same_key
from shipway.steps.hardening.scripts import script
from shipway.steps.kubernetes.static_pods import (
    AWAY,
    BACK_OFF_SECONDS,
    GONE_SECONDS,
    OPERATION,
    POD_ENDS,
    READY_SECONDS,
    STAYS,
    ready_words,
)

KEPT = f"{ETC}/manifests-before-shipway"
SCRIPT = f"{RUN}/change-static-pod.sh"
BROKEN, DOWN = 43, 44  # how the script ends: the old manifest is back and ready, or back and not ready
SECONDS = 2 * (GONE_SECONDS + READY_SECONDS + 2 * BACK_OFF_SECONDS) + 120
CRASHES = 2  # so many ends of the new container are enough: nothing in its manifest will be otherwise the next time
RECORD = Says(
    (
        *("kubectl", f"--kubeconfig={ETC}/admin.conf", "--cache-dir=/var/lib/shipway/kubectl", "--request-timeout=10s"),
        *ASK,
    ),
    seconds=15,
)
# $1 the part, $2 its pod, $3 manifests, $4 where one is while its pod ends, $5 where the old one is kept until the new
# one is ready, $6 the new one ("" where a change that broke off is decided), $7 and $8 limits in seconds, $9 how many
# crashes are enough; then the command that ends with 0 once the pod is ready. However this ends, but for a SIGKILL, a
# manifest is in its place; names with a dot are none to the kubelet.
CHANGE = POD_ENDS + script("change")


@dataclass(frozen=True)
class ManifestSettled:
    """No old manifest is left from a change of a static pod that broke off before the new one was seen to be ready."""

    impact: ClassVar[Impact] = Impact.SERVICE
    node: str
    address: str
    api_port: int
    name: str = "no change of a static pod was broken off"

    async def check(self, on: Host) -> Drift | None:
        """List the folder of old ones."""
        left = await _left(on)
        return (
            Drift(f"{', '.join(left)}: the old manifest lies in {KEPT}", "the new one ready, or the old one back")
            if left
            else None
        )

    async def apply(self, on: Host) -> None:
        """Keep the new manifest where its pod is ready, else put the old one back; a change at work is waited for.

        Raises Permanent SHW-808 where neither is ready.
        """
        await on.settled(*(OPERATION.format(part) for part in PARTS), seconds=SECONDS)
        on.forget()
        for part in await _left(on):
            await change_manifest(
                on, part, f"{part}-{self.node}", "", ready_words(part, self.address, self.api_port, ""), settle=True
            )


async def _left(on: Host) -> list[str]:
    names = await on.read(Listing(KEPT))
    return [part for part in PARTS if f"{part}.yaml" in names]


@dataclass(frozen=True)
class Wanted:
    """What of hardening a static pod is to have: flags, mounts, and the files that it reads when it starts."""

    flags: Mapping[str, str]
    mounts: tuple[Mount, ...] = ()
    files: tuple[str, ...] = ()


def wanted_of(cluster: Cluster, part: str) -> Wanted:
    """Return what is declared of a static pod."""
    flags = hardening.flags(cluster).get(part, {})
    files = {AUDIT_FLAGS[0]: AUDIT_POLICY, ADMISSION_FLAG: ADMISSION, ENCRYPTION_FLAG: ENCRYPTION}
    mounts = hardening.mounts(cluster) if part == APISERVER else ()
    return Wanted(flags, mounts, tuple(path for flag, path in files.items() if flag in flags))


def new_manifest(part: str, text: str, wanted: Wanted, host: str = "") -> str:
    """Return a manifest as it is to be. Raises Refused where it has what is the site's own, or is no pod.

    SHW-800 audit, SHW-801 encryption at rest, SHW-802 admission, SHW-809 no static pod, SHW-810 for what cannot be
    switched off.
    """
    try:
        pod = read_yaml(text)
        have = flags_in(command_of(pod))
    except ValueError as error:
        fix = f"Look at {MANIFESTS}/{part}.yaml on the host: a bootstrap's plan names what else is wrong with it."
        raise Refused(f"{MANIFESTS}/{part}.yaml is no static pod", host=host, code="SHW-809", fix=fix) from error
    ours = {name for name, value in have.items() if hardening.owned(part, name, value)}
    if part == APISERVER:
        if AUDIT_FLAGS[0] in ours:
            ours |= set(AUDIT_FLAGS) & set(have)
        _refuse_foreign(have, ours, wanted, host)
        _refuse_mounts(pod, wanted, host)
    unwanted = ours - set(wanted.flags)
    if ENCRYPTION_FLAG in unwanted:
        message = "Secrets are encrypted at rest, and the cluster file says no more that they are: this is not undone"
        back = "Put `encryption_at_rest: true` back. To decrypt: kubernetes.io, `Decrypting Confidential Data`."
        raise Refused(message, host=host, code="SHW-810", fix=back)
    gone = [mount.name for mount in MOUNTS if mount not in wanted.mounts] if part == APISERVER else []
    return with_flags(text, wanted.flags, unwanted, wanted.mounts, gone)


def flags_in(words: list[str]) -> dict[str, str]:
    """Return the flags of a static pod's command by name."""
    pairs = (word[2:].partition("=") for word in words if word.startswith("--"))
    return {name: value if equals else "true" for name, equals, value in pairs}


_LEAVE = "Shipway leaves it as it is: take the part out of `hardening` in the cluster file, or take yours out first."


def _refuse_foreign(have: Mapping[str, str], ours: set[str], wanted: Wanted, host: str) -> None:
    for code, what, names in (
        ("SHW-800", "audit log", AUDIT_FLAGS),
        ("SHW-802", "admission configuration", (ADMISSION_FLAG,)),
        ("SHW-801", "encryption at rest", (ENCRYPTION_FLAG,)),
    ):
        theirs = [name for name in names if name in have and name not in ours]
        if theirs and set(names) & set(wanted.flags):
            said = ", ".join(f"--{name}={have[name]}" for name in theirs)
            message = f"the API server has the site's own {what} ({said})"
            raise Refused(message, host=host, code=code, fix=_LEAVE)


def _refuse_mounts(pod: Any, wanted: Wanted, host: str) -> None:
    """Refuse a mount of somebody else's at a path of ours: a pod with two mounts at one path is never started."""
    (container,) = pod["spec"]["containers"]
    names = {mount.path: mount.name for mount in wanted.mounts}
    for one in container.get("volumeMounts") or ():
        path = str(one.get("mountPath", "")).rstrip("/")
        if path in names and one.get("name") != names[path]:
            message = f"the API server has a mount of the site's own at {path} (volume {one.get('name')})"
            raise Refused(message, host=host, code="SHW-800", fix=_LEAVE)


@dataclass(frozen=True)
class ManifestHardened:
    """A static pod runs with the flags of hardening that are declared, and with none of them that is not.

    Its manifest keeps every other byte. With `again` it is only brought back where kubeadm's record of the cluster has
    it already: to bring it to a cluster for the first time is for `shipway harden`, one control plane after the other.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    part: str
    node: str
    address: str
    api_port: int
    wanted: Wanted = field(compare=False)
    peers: tuple[Host, ...] = field(default=(), compare=False)
    again: bool = False

    @property
    def id(self) -> str:
        """What the step is about."""
        return f"ManifestHardened {self.part}"

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.part} runs with what hardening declares"

    async def _manifest(self, on: Host) -> str:
        text = await on.read(FileText(f"{MANIFESTS}/{self.part}.yaml"))
        if text is None:
            fix = "Run a bootstrap: it says what is lost."
            raise Blocked(f"no {MANIFESTS}/{self.part}.yaml", host=on.name, fix=fix)
        return text

    async def check(self, on: Host) -> Drift | None:
        """Compare the manifest, the running flags, and the age of the process with its files. Raises Refused."""
        text, (running, started), files = await asyncio.gather(
            self._manifest(on),
            on.read(StaticPodFlags(self.part), StaticPodsRunning()),
            on.read_all([FileState(path) for path in self.wanted.files]),
        )
        edited = new_manifest(self.part, text, self.wanted, on.name)
        want = ", ".join(f"--{name}={value}" for name, value in self.wanted.flags.items()) or "kubeadm's flags alone"
        want += " (`shipway harden FILE` brings it)" if self.again else ""
        if edited != text:
            have, now = flags_in(command_of(read_yaml(text))), flags_in(command_of(read_yaml(edited)))
            other = [f"no --{name}" for name in now if name not in have]
            other += [f"--{name}={value}" for name, value in have.items() if now.get(name) != value]
            return Drift("its manifest has " + (", ".join(other) or "other mounts"), want)
        if running is None:
            return Drift("does not run", want)
        stale = [name for name, value in self.wanted.flags.items() if running.get(name) != value]
        if stale:
            return Drift("runs without " + ", ".join(f"--{name}" for name in stale), want)
        since = started.since.get(self.part, started.now) + 1  # equal seconds count as after
        late = [
            path
            for path, info in zip(self.wanted.files, files, strict=True)
            if info and since < info.changed <= started.now
        ]
        return Drift(f"started before {', '.join(late)} changed", f"started after; {want}") if late else None

    async def hold(self, on: Host) -> str:
        """Return why it is not brought by a repair: the cluster never had it, as far as kubeadm's record tells."""
        if not self.again:
            return ""
        said = await on.read(RECORD)
        known = said.stdout if said.ok else ""
        lacking = [name for name in self.wanted.flags if name not in known]
        return "`shipway harden` has not brought it yet, or the API cannot tell" if lacking else ""

    async def apply(self, on: Host) -> None:
        """Start the pod anew with its new manifest; where that is not ready, put the old one back and say why.

        Raises Permanent SHW-808, DeadlineExceeded SHW-744 where the old pod does not end, Blocked where another control
        plane could not read what this one would encrypt, or a file that the pod reads is not there.
        """
        text = await self._manifest(on)
        edited = new_manifest(self.part, text, self.wanted, on.name)
        files, keys = await asyncio.gather(
            on.read_all([FileState(path) for path in self.wanted.files]), on.read(KeysThere())
        )
        lost = [path for path, info in zip(self.wanted.files, files, strict=True) if info is None]
        if lost:  # a hostPath that is not there keeps the API server from ever coming back
            message = f"{', '.join(lost)} is not there, and the API server would not start without it"
            raise Blocked(message, host=on.name, fix="Run `shipway harden FILE`: it brings the files first.")
        if ENCRYPTION_FLAG in self.wanted.flags:
            others = await asyncio.gather(*(peer.read(KeysThere()) for peer in self.peers))
            same_key(on.name, keys, list(zip((peer.name for peer in self.peers), others, strict=True)))
        new = f"{RUN}/{self.part}.yaml"
        info = await on.read(FileState(f"{MANIFESTS}/{self.part}.yaml"))
        await on.write(new, edited.encode(), mode=info.mode if info else "600")
        ready = ready_words(self.part, self.address, self.api_port, edited)
        await change_manifest(on, self.part, f"{self.part}-{self.node}", new, ready)


async def change_manifest(
    on: Host, part: str, pod: str, new: str, ready: tuple[str, ...], *, settle: bool = False
) -> None:
    """Run the script that changes a manifest, or (`settle`) decides one that broke off. Raises as `_broken`."""
    limits = (str(GONE_SECONDS), str(READY_SECONDS), str(CRASHES))
    await on.write(SCRIPT, CHANGE.encode(), mode="700")
    words = ("bash", SCRIPT, part, pod, MANIFESTS, AWAY, KEPT, new, *limits, *ready)
    output = await on.operate(OPERATION.format(part), words, seconds=SECONDS)
    if not output.ok and not (settle and output.status == BROKEN):  # the old one back is one way to settle it
        raise _broken(part, output, on.name)


def _broken(part: str, output: Output, host: str) -> ShipwayError:
    said = tail(output.stdout, 4)
    log = f"/var/log/pods/kube-system_{part}-*/*/*.log"
    if output.status == STAYS:
        fix = f"See `ctr -n k8s.io tasks ls` and `journalctl -u kubelet -n 50` on {host}, then run again."
        return DeadlineExceeded(f"the old {part} does not end: {said}", host=host, code="SHW-744", fix=fix)
    if output.status == BROKEN:
        fix = "Correct what it says (a policy of your own, a file it names), then run again; no other host was touched."
        message = f"{part} does not come up with its new manifest, so the old one is back and serves: {said}"
        return Permanent(message, host=host, code="SHW-808", fix=fix)
    if output.status == DOWN:
        fix = f"On {host}: `tail -n 20 {log}`. The manifest is the old one again; no other host was touched."
        message = f"{part} does not come up with its new manifest, and not with its old one, which is back: {said}"
        return Permanent(message, host=host, code="SHW-812", fix=fix)
    return failure(f"change of {part}", output, host=host)


def control_plane_steps(
    cluster: Cluster, spec: HostSpec, peers: tuple[Host, ...] = (), *, again: bool = False
) -> list[ManifestHardened]:
    """Return the steps of a control plane's static pods, in the order in which each needs the one before."""
    address, port = node_ip(spec), cluster.kubernetes.api_port
    return [
        ManifestHardened(part, spec.name, address, port, wanted_of(cluster, part), peers, again)
        for part in PARTS
        if not again or hardening.flags(cluster).get(part)
    ]
