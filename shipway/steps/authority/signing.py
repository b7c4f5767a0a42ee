"""Who reads a CA, and from which file; the controller manager signs by the one that is meant while ca.crt holds two."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from shipway.edits.static_pod import command_of, with_flags
from shipway.errors import Blocked, Refused
from shipway.facts.files import FileState, FileText
from shipway.facts.static_pods import StaticPodFlags
from shipway.foreign.yaml import read_yaml
from shipway.host.session import OPERATIONS as RUN
from shipway.host.session import Host
from shipway.kubeadm.certificates import APISERVER, MANAGER
from shipway.kubeadm.writes import MANIFESTS
from shipway.ownership.evidence import AUTHORITY
from shipway.step import Drift, Impact
from shipway.steps.authority.pair import Pair, trusted_by, who
from shipway.steps.authority.which import CLUSTER_CA, Which
from shipway.steps.hardening.manifest import change_manifest, flags_in
from shipway.steps.kubernetes.health import kubelet_config
from shipway.steps.kubernetes.static_pods import ready_words

CERT_FLAG, KEY_FLAG, ROOT_FLAG, CLIENT_FLAG = (
    "cluster-signing-cert-file",
    "cluster-signing-key-file",
    "root-ca-file",
    "client-ca-file",
)
KUBELETS_FLAG = "kubelet-certificate-authority"  # of an API server that trusts not every kubelet
KEY, FOLDER = CLUSTER_CA.key, CLUSTER_CA.folder
PLACES = {(AUTHORITY, KEY), *((f"{FOLDER}/{role}.crt", f"{FOLDER}/{role}.key") for role in ("old", "new"))}


async def flags_of(on: Host, part: str) -> tuple[str, dict[str, str]]:
    """Return a static pod's manifest and its flags; raises Blocked where it is none."""
    text = await on.read(FileText(f"{MANIFESTS}/{part}.yaml"))
    try:
        return text or "", flags_in(command_of(read_yaml(text or "")))
    except ValueError as error:
        fix = "Run a bootstrap: it says what is lost."
        raise Blocked(f"{MANIFESTS}/{part}.yaml is no static pod", host=on.name, fix=fix) from error


@dataclass(frozen=True)
class ReadByUs:
    """Who trusts the CA reads kubeadm's own file: an API server, a controller manager, a kubelet."""

    control: bool
    name: str = "what trusts the CA reads kubeadm's file"

    async def check(self, on: Host) -> Drift | None:
        """Look at flags and the kubelet's configuration. Raises Refused SHW-852 naming each that is another."""
        files = {"the kubelet's clientCAFile": _client_file(await kubelet_config(on))}
        own: tuple[str, str] = (AUTHORITY, KEY)
        if self.control:
            (_, api), (_, manager) = await asyncio.gather(flags_of(on, APISERVER), flags_of(on, MANAGER))
            files[f"{APISERVER} --{CLIENT_FLAG}"] = api.get(CLIENT_FLAG, "")
            files[f"{APISERVER} --{KUBELETS_FLAG}"] = api.get(KUBELETS_FLAG, AUTHORITY)
            for flag in (CLIENT_FLAG, ROOT_FLAG):
                files[f"{MANAGER} --{flag}"] = manager.get(flag, AUTHORITY)
            own = (manager.get(CERT_FLAG, ""), manager.get(KEY_FLAG, ""))
            files |= {f"{MANAGER} --{flag}": manager[flag] for flag in manager if _of_one_signer(flag)}
        wrong = [f"{what}: {path or 'none'}" for what, path in files.items() if path != AUTHORITY]
        if own not in PLACES:
            wrong.append(f"{MANAGER} --{CERT_FLAG}: {own[0] or 'none'}")
        if wrong:
            fix = f"Let each read {AUTHORITY} (to sign: and {KEY}), as kubeadm writes it, then run again."
            message = f"the CA is read from elsewhere, and would be missed there: {'; '.join(wrong)}"
            raise Refused(message, host=on.name, code="SHW-852", fix=fix)
        return None


@dataclass(frozen=True)
class FilesReadByUs:
    """What trusts or shows etcd's or the front proxy's CA on a control plane reads kubeadm's own files."""

    of: Which
    name: str = "what trusts the CA reads kubeadm's file"

    async def check(self, on: Host) -> Drift | None:
        """Look at flags. Raises Refused SHW-852 naming each that is another."""
        parts = sorted({part for part, _, _ in self.of.flags})
        found = dict(zip(parts, await asyncio.gather(*(flags_of(on, part) for part in parts)), strict=True))
        wrong = [
            f"{part} --{flag}: {have or 'none'}"
            for part, flag, path in self.of.flags
            if (have := found[part][1].get(flag, path if part == MANAGER else "")) != path
        ]
        if wrong:
            fix = "Let each read what kubeadm writes there (`kubeadm init phase` of that part), then run again."
            message = f"{self.of.said} is read from elsewhere, and would be missed there: {'; '.join(wrong)}"
            raise Refused(message, host=on.name, code="SHW-852", fix=fix)
        return None


def _client_file(config: dict[str, object]) -> str:
    found: object = config
    for key in ("authentication", "x509", "clientCAFile"):
        found = found.get(key) if isinstance(found, dict) else None
    return str(found or "")


def _of_one_signer(flag: str) -> bool:
    """Say whether a flag names a pair for one kind of request alone (--cluster-signing-kubelet-client-cert-file)."""
    return flag.startswith("cluster-signing-") and flag.endswith("-file") and flag not in (CERT_FLAG, KEY_FLAG)


@dataclass(frozen=True)
class ManagerSigns:
    """The controller manager was started with the pair that it is to sign with.

    With `keeps` that is the one by which ca.crt begins, from its folder: ca.crt itself holds two, and with that it
    would not start. With `over` it is kubeadm's own again. Where it is not ready, the old manifest is put back.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    pair: Pair
    node: str
    address: str
    api_port: int
    keeps: bool = False
    over: bool = False
    name: str = "the controller manager signs with the CA that is wanted"

    async def _want(self, on: Host) -> dict[str, str]:
        if self.over:
            return {CERT_FLAG: AUTHORITY, KEY_FLAG: KEY}
        role = self.pair.role()
        if self.keeps:
            text = await on.read(FileText(AUTHORITY))
            first = next(iter(trusted_by(text or "")), "")
            role = "new" if self.pair.new and first == who(self.pair.new) else "old"
        return {CERT_FLAG: f"{FOLDER}/{role}.crt", KEY_FLAG: f"{FOLDER}/{role}.key"}

    async def check(self, on: Host) -> Drift | None:
        """Compare the manifest and what runs."""
        want = await self._want(on)
        (_, have), running = await asyncio.gather(flags_of(on, MANAGER), on.read(StaticPodFlags(MANAGER)))
        shown = f"--{CERT_FLAG}={want[CERT_FLAG]}"
        for what, flags in (("its manifest has", have), ("runs with", running)):
            if flags is None:
                return Drift("does not run", shown)
            if any(flags.get(flag) != path for flag, path in want.items()):
                return Drift(f"{what} --{CERT_FLAG}={flags.get(CERT_FLAG, 'none')}", shown)
        return None

    async def apply(self, on: Host) -> None:
        """Start it anew with its new manifest. Raises as `change_manifest`."""
        text, _ = await flags_of(on, MANAGER)
        info = await on.read(FileState(f"{MANIFESTS}/{MANAGER}.yaml"))
        new, edited = f"{RUN}/{MANAGER}.yaml", with_flags(text, await self._want(on))
        await on.write(new, edited.encode(), mode=info.mode if info else "600")
        ready = ready_words(MANAGER, self.address, self.api_port, edited)
        await change_manifest(on, MANAGER, f"{MANAGER}-{self.node}", new, ready)
