"""The stages of a restore: what must be so, what will be lost, the restore, and all that must look at the API anew."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shipway.backup.choice import NEWEST, Choice, Kind, Plane, choose_restore
from shipway.backup.kept import MANIFEST, LocalFolder, cannot_keep, read_manifest
from shipway.backup.script import ROOT, script_of
from shipway.backup.sealed import kept_as, parts_of
from shipway.backup.state import BackupState, BackupsThere, taken_at
from shipway.backup.store import Store
from shipway.cluster.model import node_ip
from shipway.converge import converge
from shipway.errors import Blocked, Refused, ShipwayError
from shipway.facts.files import FileText
from shipway.facts.services import UnitState
from shipway.gpu.claims import see_claims
from shipway.gpu.holders import asked_devices
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.status import called, made_at
from shipway.kubeadm.config import image_repository
from shipway.kubeadm.hardening import ENCRYPTION
from shipway.ownership.evidence import (
    ADMIN,
    AUTHORITY,
    MANIFESTS,
    STATIC_PODS,
    Evidence,
    authorities,
    evidence,
    evidence_of_files,
)
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.backup.brought import BackupBrought, BackupVerified
from shipway.steps.backup.kept import PART
from shipway.steps.backup.on_host import script_file
from shipway.steps.backup.possible import EtcdIsKubeadms, NoOtherBackup, RoomForBackup, ToolsCanBeHad
from shipway.steps.backup.restored import RESTORE_SECONDS, BackupRestored, BackupThere, KubeletStarted
from shipway.steps.backup.several import (
    OPERATIONS,
    BackupAdopted,
    ControlPlaneStarted,
    ControlPlaneStopped,
    DataAside,
    GoneForGood,
    QuorumLost,
)
from shipway.steps.kubernetes.local_pods import LocalPod, started_pods
from shipway.steps.kubernetes.retire import NodeDeleted, NothingOfNode
from shipway.steps.upgrade.fetched import ImagesPulled
from tasks.context import Run
from tasks.leading import adopt_endpoint, known
from tasks.ownership import judge, refusal
from tasks.waiting import by_api, hear_results

# What a cluster makes anew by itself, all the time.
PASSING_KINDS = frozenset({"Event", "Lease", "Endpoints", "EndpointSlice"})
SHOWN, UNTOLD = 20, 5
FETCHED = "from-s3"  # in the cluster's folder of this machine
_ENDPOINT = re.compile(r"^ *controlPlaneEndpoint: *([A-Za-z0-9.:\[\]-]+)$", re.MULTILINE)


async def _bring(run: Run, stage: str, host: str, steps: list[Check[Host]]) -> list[StepResult]:
    session = run.session(host)
    session.forget()
    return await converge(steps, session, run.allow, hear_results(run, stage, host))


def kept_here(run: Run) -> LocalFolder:
    """Return the folder of this machine in which the cluster's backups are kept."""
    if run.backup.stored:
        return LocalFolder(run.folder / FETCHED, run.cluster.name)
    return LocalFolder(Path(run.cluster.backup.keep_local or ""), run.cluster.name)


def _fetch(run: Run) -> list[str]:
    """Bring the backup that is restored from the object store to this machine, as it lies there; return its name.

    Raises Refused SHW-734 where the file names no store or no such backup is whole there, and as the store does.
    """
    if run.cluster.backup.s3 is None:
        fix = "Declare `backup: {s3: {bucket: ...}}` in the cluster file, or name a backup without `s3:`."
        raise Refused("the cluster file names no object store for backups", code="SHW-734", fix=fix)
    store, folder = Store(run.cluster.backup.s3, run.cluster.name), kept_here(run)
    names = store.names()
    name = next(iter(names), "") if run.backup.source == NEWEST else run.backup.source
    if name not in names:
        there = f"; it has {', '.join(names[:SHOWN])}" if names else ""
        fix = f"Name one that is whole in {store.where}, or one of a host (`shipway restore --plan`)."
        raise Refused(f"{store.where} has no whole backup {name or NEWEST}{there}", code="SHW-734", fix=fix)
    if folder.digest(name) != store.digest(name):
        folder.own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            store.fetch(name, folder)
        except OSError as error:
            raise cannot_keep(folder.path, error) from error
    run.backup.source = name
    return [name]


def forget_fetched(run: Run) -> None:
    """Remove from this machine what was fetched from the object store; what a restore may go on with stays."""
    if run.backup.stored and (run.allow is Impact.NOTHING or all(result.stands for result in run.results)):
        shutil.rmtree(run.folder / FETCHED, ignore_errors=True)


def kind_of(state: BackupState, seen: Evidence) -> Kind:
    """Return what a control plane's host is to a restore."""
    if seen.unfinished or (state.restoring and not state.runs):
        return "bare"
    if state.runs:
        return "runs"
    if seen.joining:
        return "joins"
    return "bare" if seen.bare else "part"


async def restore_possible(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - it chooses the host
    """Choose the host that gets the data, and look at what a restore needs, all at once.

    What a killed run has left at work on a host is waited for first.
    """
    names, script = [one.name for one in run.cluster.control_planes if one in run.hosts], script_of(run.cluster)
    for name in names:
        run.session(name).forget()
    if run.allow is not Impact.NOTHING:
        await asyncio.gather(*(run.session(name).settled(*OPERATIONS, seconds=RESTORE_SECONDS) for name in names))
    states = await asyncio.gather(*(run.session(name).read(BackupsThere(script)) for name in names))
    seen = known(run)
    planes = [
        Plane(name, kind_of(state, seen[name]), state, seen[name].unfinished)
        for name, state in zip(names, states, strict=True)
    ]
    kept = await asyncio.to_thread(_fetch, run) if run.backup.stored else []
    if run.cluster.backup.keep_local and not run.backup.stored:
        kept = await asyncio.to_thread(kept_here(run).names)
    run.backup.id = run.backup.id or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    choice = choose_restore(run.backup.source, planes, kept, run.backup.id)
    run.backup.choice, run.backup.source, run.backup.id = choice, choice.backup, choice.id
    await run.lead_by(choice.lead)
    checks: list[Check[Host]] = []
    if not choice.begun and not choice.bare:  # one that was broken off has taken the manifests out
        checks += [EtcdIsKubeadms(script), ToolsCanBeHad(script), RoomForBackup(script)]
    checks += [NoOtherBackup(script), BackupThere(script, choice.backup, tuple(kept))]
    if len(run.cluster.control_planes) > 1 and not choice.begun:
        checks.append(QuorumLost(tuple(run.session(one.name) for one in planes if one.kind != "bare")))
    checks += _gone(run, "" if choice.begun else run.cluster.endpoint)
    checks.append(BackupFits(run, choice))
    return await _bring(run, stage, choice.lead, checks)


def _gone(run: Run, api: str = "") -> list[Check[Host]]:
    """Return the check that what was called gone is gone for every host that was seen; none where nothing was."""
    gone = {name: node_ip(run.cluster.host(name)) for name in run.backup.gone}
    witnesses = tuple(run.session(name) for name in run.seen.surveys)
    return [GoneForGood(gone, witnesses, run.cluster.kubernetes.api_port, api)] if gone else []


@dataclass(frozen=True)
class BackupFits:
    """The backup is of the cluster that the hosts belong to; on a bare host also of the one that the file declares."""

    run: Run = field(repr=False, compare=False)
    choice: Choice
    name: str = "the backup is of this cluster"

    async def check(self, on: Host) -> Drift | None:
        """Compare its authority, and on a bare host all that a bootstrap compares, its version and its key.

        Raises Refused: SHW-734 for another cluster's or another version's, SHW-814 for a key that kubeadm would not
        use, and as a bootstrap for what contradicts the file.
        """
        text = await self._read(on, MANIFEST)
        if text is None:
            return None  # that it is not there is another check's affair
        manifest, run = read_manifest(text, self.run.cluster.name), self.run
        files = [f"files{one}" for one in (AUTHORITY, ADMIN, *(f"{MANIFESTS}/{name}" for name in STATIC_PODS[1:3]))]
        ca, admin, api, controllers = [await self._read(on, one) or "" for one in files]
        if not self.choice.bare:
            own = known(run)[on.name].authorities
            if own and not own & authorities(ca):
                message = f"{self.choice.backup} is of a cluster with another certificate authority"
                fix = "Name a backup of this cluster with `--from`, or the file of that one's cluster."
                raise Refused(message, code="SHW-734", fix=fix)
            return None
        version = str(manifest.get("kubelet", "")).rpartition(" v")[2]
        if version != run.cluster.kubernetes.version:
            message = (
                f"{self.choice.backup} is of Kubernetes {version or 'unknown'}, and the file declares "
                f"{run.cluster.kubernetes.version}: a bare host gets the version of the file"
            )
            fix = f"Write `kubernetes: {{version: {version}}}` into the file, restore, and upgrade after it."
            raise Refused(message, code="SHW-734", fix=fix)
        sealed = str(manifest.get("encryption", ""))
        if sealed and not (run.cluster.hardening.encryption_at_rest and sealed == ENCRYPTION):
            message = (
                f"Secrets in {self.choice.backup} are encrypted by a key in {sealed}, of which the file says nothing"
            )
            fix = (
                f"Declare `hardening: {{encryption_at_rest: true}}` where that is {ENCRYPTION}. An API server with a "
                "configuration of the site's own is restored by hand: see docs/backup.md."
            )
            raise Refused(message, code="SHW-814", fix=fix)
        lead = evidence_of_files(on.name, admin_conf=admin, manifests=f"{api}\n{controllers}", authority=ca)
        if recorded := _ENDPOINT.search(await self._read(on, "kubeadm-config.yaml") or ""):
            lead = replace(lead, endpoint=f"https://{recorded[1]}")  # people point admin.conf elsewhere
        if faults := judge(run, lead):
            raise refusal(faults)
        adopt_endpoint(run, {lead.host: lead})
        return None

    async def _read(self, on: Host, path: str) -> str | None:
        if not self.choice.brought:
            return await on.read(FileText(f"{ROOT}/{self.choice.backup}/{path}"))
        file = kept_as(kept_here(self.run).own / self.choice.backup, path)
        try:
            return b"".join(await asyncio.to_thread(list, parts_of(file, PART))).decode()
        except (OSError, UnicodeDecodeError):
            return None


def _parts(run: Run) -> list[str]:
    """Return what happens to the control planes' hosts, a sentence each."""
    choice = run.backup.choice
    if choice is None:
        return []
    said, backup = [], choice.backup
    if choice.bare:
        said.append(f"{choice.lead}, a bare host: prepared, given {backup} with its keys, and initialised from there")
    elif len(choice.kinds) > 1:
        said.append(f"{choice.lead} gets {backup}, as the only member of etcd at first")
    if runs := choice.others("runs"):
        said.append(f"{', '.join(runs)}: stopped, the data put aside there, the host reset and joined anew")
    if joins := choice.others("joins"):
        said.append(f"{', '.join(joins)}: joined anew, for its join broke off")
    if joined := choice.others("joined"):
        said.append(f"{', '.join(joined)}: joined already, by the restore that was broken off")
    if bare := choice.others("bare"):
        said.append(f"{', '.join(bare)}: prepared and joined")
    if part := choice.others("part"):
        said.append(f"{', '.join(part)}: part of a control plane is there, so a join refuses it and says what to do")
    if run.backup.gone:
        asked = ", ".join(run.seen.surveys)
        said.append(
            f"{', '.join(run.backup.gone)}: gone for good, as was said, and as {asked} saw; its node is deleted"
        )
    return said


async def restore_loses(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's work
    """Say what the restore will take away, as far as the API can say now: a warning each, and never a refusal."""
    name = "what the restore takes away is known"
    run.warned += _parts(run)
    if run.backup.choice is not None and run.backup.choice.done:
        return [StepResult(name, "ok")]  # what is newer now came after the restore
    taken = taken_at(run.backup.source)
    try:
        lines = await _losses(await run.kube(), taken)
    except ShipwayError as error:
        run.warned.append(f"what is newer than the backup cannot be told: the API does not answer ({error.message})")
        run.warned += await _ends(run, taken)
        return [StepResult(name, "ok")]
    run.warned += lines or ["nothing of what the API serves is newer than the backup"]
    return [StepResult(name, "ok")]


async def _losses(kube: Kube, taken: datetime) -> list[str]:
    """Return a line for each kind with objects that are newer than the backup; pods among them will be ended.

    All kinds that the API serves are listed, one after the other, but for those that a cluster makes anew all the time.
    """
    kube.forget()
    lines, untold = list[str](), list[str]()
    for version, kind in sorted(await kube.kinds(), key=lambda one: one[1] != "Pod"):
        if kind in PASSING_KINDS:
            continue
        try:
            newer = [one for one in await kube.list_(version, kind) if made_at(one["metadata"]) > taken]
        except ShipwayError as error:
            untold.append(f"{kind} ({error.message})")
            if len(untold) == UNTOLD:
                untold.append("the kinds after it, which were not asked for any more")
                break
            continue
        lines += _told(kind, await _named_pods(kube, newer) if kind == "Pod" else _names(newer))
        kube.forget()  # whole objects, which nobody reads again
    return lines + [f"what is newer cannot be told of {one}" for one in untold]


def _told(kind: str, newer: Sequence[str]) -> list[str]:
    fate = "will be ended by their kubelets" if kind == "Pod" else "will be gone"
    return [f"{len(newer)} {kind} newer than the backup {fate}: {_first(newer)}"] if newer else []


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _names(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    return [called(one["metadata"]) for one in objects]


async def _named_pods(kube: Kube, pods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the pods' names, those that hold GPUs first, with what they hold."""
    claims = await see_claims(kube, pods)
    held = {called(one["metadata"]): ", ".join(asked_devices(one, claims)) for one in pods}
    return [f"{name} ({what})" if what else name for name, what in sorted(held.items(), key=lambda one: not one[1])]


async def _ends(run: Run, taken: datetime) -> list[str]:
    """Return a line for each host with pods that will be ended: those that its kubelet began after the backup.

    The restored cluster does not know such a pod, or not on this host, so its kubelet ends it.
    """
    hosts = [one.host for one in known(run).values() if one.running]
    answers = await asyncio.gather(*(_ask_host(run, host) for host in hosts))
    lines = []
    for host, found in zip(hosts, answers, strict=True):
        if isinstance(found, ShipwayError):
            there = _first(known(run)[host].pods) or "unnamed"
            lines.append(
                f"{host}: which of its pods will be ended cannot be told ({found.message}); there are: {there}"
            )
        elif newer := [pod.said for pod in found if pod.since > taken]:
            lines.append(f"{host}: {len(newer)} pods began after the backup and will be ended: {_first(newer)}")
        else:
            lines.append(f"{host}: none of its {len(found)} pods began after the backup")
    return lines


async def _ask_host(run: Run, host: str) -> list[LocalPod] | ShipwayError:
    try:
        return await started_pods(run.session(host))
    except ShipwayError as error:
        return error


def _choice(run: Run) -> Choice:
    """Return what was chosen; raises Blocked before that."""
    if run.backup.choice is None:
        raise Blocked("no host was chosen that gets the data")
    return run.backup.choice


async def restore_bring(run: Run, stage: str, host: str) -> list[StepResult]:
    """Have the backup on the host that gets the data, verified there; a bare host gets etcd's image first."""
    choice, script, cluster = _choice(run), script_of(run.cluster), run.cluster
    steps: list[Check[Host]] = [script_file(cluster)]
    if choice.bare:
        steps.append(ImagesPulled(cluster.kubernetes.version, image_repository(cluster), control=True))
    if choice.brought:
        steps.append(BackupBrought(script, kept_here(run), choice.backup))
    return await _bring(run, stage, host, [*steps, BackupVerified(script, choice.backup)])


async def restore_stop(run: Run, stage: str, host: str) -> list[StepResult]:
    """Stop a control plane before the data of another time come to one of them."""
    choice, script = _choice(run), script_of(run.cluster)
    planes = tuple(run.session(name) for name in (choice.lead, *choice.others("runs")))
    stopped = ControlPlaneStopped(script, choice.backup, choice.id, choice.lead, planes)
    return await _bring(run, stage, host, [script_file(run.cluster), stopped])


async def restore_undo(run: Run, stage: str, host: str) -> list[StepResult]:
    """Start a control plane that was stopped for a restore that did not come about."""
    return await _bring(run, stage, host, [ControlPlaneStarted(script_of(run.cluster), _choice(run).id)])


async def restore_backup(run: Run, stage: str, host: str) -> list[StepResult]:
    """Restore, once what every kubelet runs now was noted; a second attempt of this run sees what the first one did."""
    choice, script = _choice(run), script_of(run.cluster)
    if run.allow is not Impact.NOTHING:
        state = await run.session(host).read(BackupsThere(script))
        await _note_kubelets(run, state.restored_at if state.restored_by == choice.id else None)
    steps: list[Check[Host]] = [script_file(run.cluster), *_gone(run)]
    if choice.bare:
        steps.append(BackupAdopted(script, choice.backup, choice.id, run.cluster.host(host)))
    else:
        steps.append(BackupRestored(script, choice.backup, choice.id))
    results = await _bring(run, stage, host, steps)
    if any(result.outcome == "changed" for result in results):
        await run.reconnect()
    await _look_anew(run, host)
    return results


async def _look_anew(run: Run, host: str) -> None:
    """Keep what a host shows now of whose it is: later stages go by that."""
    session = run.session(host)
    session.forget()
    run.seen.surveys[host] = replace(run.seen.surveys[host], evidence=await evidence(session))


async def restore_aside(run: Run, stage: str, host: str) -> list[StepResult]:
    """Put the data of a control plane aside that is to join the restored one; what the host shows is looked at anew."""
    choice = _choice(run)
    results = await _bring(run, stage, host, [DataAside(script_of(run.cluster), choice.backup, choice.id)])
    await _look_anew(run, host)
    return results


async def forget_nodes(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's work
    """Delete the nodes of control planes that are not there, or join anew: kubeadm joins none whose node is Ready."""
    seen = known(run)
    others = [one.name for one in run.cluster.control_planes if one.name != run.control.name]
    steps: list[Check[Kube]] = []
    for name in others:
        if name not in seen or not seen[name].whole:
            steps += [NodeDeleted(name), NothingOfNode(name)]
    return await by_api(run, stage, steps)


async def _note_kubelets(run: Run, restored: datetime | None) -> None:
    """Keep which start of each kubelet was before the restore; a host that does not answer is told of later.

    One that was started since a restore which is gone on with is not restarted again: a GPU plugin that has just
    registered would have to do so anew, and the proof would find no GPU meanwhile.
    """

    async def note(name: str) -> None:
        info = await run.session(name).read(UnitState("kubelet.service"))
        since = restored is not None and info.active_since >= restored.timestamp()
        run.backup.kubelets.setdefault(name, "after it" if since else info.invocation)

    await asyncio.gather(*(note(spec.name) for spec in run.cluster.hosts), return_exceptions=True)


async def restart_kubelet(run: Run, stage: str, host: str) -> list[StepResult]:
    """Restart the kubelet of a host, unless it was started after the restore."""
    return await _bring(run, stage, host, [KubeletStarted(run.backup.kubelets.get(host, ""))])
