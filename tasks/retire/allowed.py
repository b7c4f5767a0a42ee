"""Whether a host may be removed or reset: every refusal at once, and the ones that are asked again at the act."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from shipway.cluster.model import node_ip
from shipway.converge import look_at_all
from shipway.errors import Refused, ShipwayError, Unreachable
from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.gpu.health.quarantine import read_quarantine
from shipway.host.session import Host
from shipway.kube.access import parse_admin_conf, read_authorities
from shipway.kube.client import Kube, Object
from shipway.kube.drain import PROOFS, cordon_note, movable
from shipway.kube.nodes import few, nodes_by_name
from shipway.kube.status import why_not_ready
from shipway.kube.webhooks import list_webhooks
from shipway.os.families import recognise
from shipway.ownership.evidence import (
    AUTHORITY,
    KUBECONFIGS,
    KUBELET_CONF,
    Evidence,
    address_of,
    authorities,
    evidence,
    read_servers,
)
from shipway.ownership.leading import endpoints_of
from shipway.step import Check, Drift, StepResult
from shipway.steps.authority.possible import NoRotation
from shipway.steps.kubernetes.etcd_members import OWN, find_member, health, member_of, members_of, says_healthy
from shipway.steps.kubernetes.local_pods import started_pods
from shipway.steps.kubernetes.may_go import (
    ControlPlaneMayGo,
    ElsewhereToGo,
    HostAway,
    NodeLost,
    NoGpuPods,
    NoLocalVolume,
    OfThisCluster,
    PodsMayLeave,
    count_etcd,
    raise_for_other,
    runs_control_plane,
)
from shipway.steps.kubernetes.webhooks import WebhooksAnswer, warn_of
from shipway.steps.reset.kubelet import RESETTING
from shipway.survey.first_look import survey
from tasks.backup.before import BackupBefore
from tasks.context import Run
from tasks.retire.place import internal_address
from tasks.retire.ways import OthersKeepWay
from tasks.stages import dashboard
from tasks.waiting import hear_results
from tasks.workloads import OWN_NAMESPACES

# The facts that let a host be reset: each refusal says in its step which one is not so.
OF_CLUSTER = "the host is of this cluster, or of none"
NO_NODE = "the host is no node of the cluster"
NO_OTHERS = "no other node rests on the host"
NO_PODS = "no pod of a user runs there"
AGAIN = "Bring the API of the cluster back, then run again: whether the host is still a node of it must be known."


def losable(run: Run) -> Sequence[str] | None:
    """Return the namespaces whose pods may lose their emptyDir volumes; None means all."""
    return None if run.cluster.repair.delete_emptydir_data else (dashboard.NAMESPACE,)


def fewer_wanted(run: Run) -> bool:
    """Say whether etcd may be left with an even number of members, or one.

    So it is where the file does not name the host as a control plane any more, or another machine takes its place.
    """
    planes = {one.name for one in run.cluster.control_planes}
    return run.retirement.to_replace or run.retirement.host not in planes


async def look_at(run: Run, host: str) -> ShipwayError | None:
    """Look at a host, and keep what was seen; return what keeps from reaching it, where that is only the network.

    Raises what shows that something answers there: a wrong key, a refused login, a failed look.
    """
    session = run.session(host)
    session.forget()
    try:
        run.seen.families[host] = await recognise(session)
        seen, begun = await asyncio.gather(survey(session), session.read(FileText(RESETTING)))
    except Unreachable as error:
        return error
    run.seen.surveys[host] = seen
    if seen.evidence is not None:
        keep_evidence(run, seen.evidence, begun=begun is not None)
    return None


def keep_evidence(run: Run, seen: Evidence, *, begun: bool) -> None:
    """Keep what a host shows; a reset that was seen to have begun there has begun, though its mark is gone by now."""
    run.retirement.evidence[seen.host] = seen
    if begun:
        run.retirement.begun.add(seen.host)


def authorities_of(kube: Kube) -> frozenset[str]:
    """Return the authorities of the cluster that answers."""
    return authorities(parse_admin_conf(kube.admin_conf).ca)


class NoneRotated:
    """No CA is rotated: beside two of them no control plane joins, and one that leaves for another would be missing."""

    name = NoRotation.name

    def __init__(self, lead: Host) -> None:
        self._lead = lead

    async def check(self, on: object) -> Drift | None:
        """Ask the control plane that leads, anew. Raises Refused SHW-856."""
        del on
        self._lead.forget()
        return await NoRotation().check(self._lead)


class Known:
    """The cluster that answers is the one that this machine knows by its name."""

    name = "the cluster is the one that this machine knows by this name"

    def __init__(self, run: Run) -> None:
        self._run = run

    async def check(self, on: Kube) -> Drift | None:
        """Compare its authority with that of the kept kubeconfig, where one is kept. Raises Refused SHW-706."""
        kept = read_authorities(self._run.folder / "kubeconfig")
        if kept and not kept & authorities_of(on):
            fix = "Correct the control plane's host in the file, or give the two clusters different names."
            message = f"another cluster answers than the one that this machine knows as {self._run.cluster.name}"
            raise Refused(message, host=self._run.control.name, code="SHW-706", step=self.name, fix=fix)
        return None


async def may_remove(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look for all that forbids to remove a node; raises what keeps from asking the cluster."""
    asked = run.retirement
    kube = await run.kube()
    kube.forget()
    answers, said = not asked.displaced, "another machine is at its address" if asked.displaced else ""
    try:
        if answers and (away := await look_at(run, host)) is not None:
            answers, said = False, away.message
    except ShipwayError as error:
        if not asked.dead:
            raise
        said = error.message
    seen = asked.evidence.get(host)
    checks: list[Check[Any]] = [Known(run), HostAway(host, asked.dead, answers, said)]
    node = (await nodes_by_name(kube)).get(host)
    if asked.dead:
        checks.append(NodeLost(host))
    elif seen is not None:
        checks.append(OfThisCluster(seen, authorities_of(kube), endpoints_of(run.cluster), host in asked.begun))
        checks.append(Told("the machine is the node's own", _of_another(run, host, node, seen)))
        if node is None:
            checks.append(NoneHeldUnknown(run, host))
    if node is not None and (kept := read_quarantine(node)) is not None:
        asked.left.append(
            f"{host} is kept from pods since {kept.since} ({kept.why}), and that mark goes with its node: should this "
            f"machine join again, `shipway verify {run.file or 'FILE'} --level full` measures its GPUs"
        )
    standing = seen.standing if seen else ""
    asked.control_plane = await runs_control_plane(kube, host, standing)
    lead = run.session(run.control.name) if run.control.name != host else None
    address = node_ip(run.cluster.host(host))
    checks += [ControlPlaneMayGo(host, standing, lead, address, fewer_wanted(run), asked.dead), NoLocalVolume(host)]
    if asked.control_plane and lead is not None:
        besides = (host,) if asked.dead else ()
        checks.append(BackupBefore(run, f"{host} leaves etcd", besides=besides))
        checks += [NoneRotated(lead)] if asked.to_replace else []
    checks += [OthersKeepWay(run, host)] if asked.control_plane and lead is not None and not asked.dead else []
    if not asked.dead:
        hooks, drained = await list_webhooks(kube), await _open_drains(kube, host)
        asked.left += warn_of(hooks, drained)
        checks += [ElsewhereToGo(host), PodsMayLeave(host, losable(run)), WebhooksAnswer(hooks, drained)]
        checks += [] if asked.evict_gpu_pods else [NoGpuPods(host)]
    return await look_at_all(checks, kube, hear_results(run, stage, host))


async def refuse_held_unknown(run: Run, host: str) -> None:
    """Refuse to end pods that hold devices of a host which is no node: the cluster knows nothing of them.

    Somebody deleted the node, or the cluster came back from a backup that is older than it; its pods work on. Raises
    Refused SHW-703, and what keeps from asking the host.
    """
    if run.retirement.evict_gpu_pods:
        return
    session = run.session(host)
    session.forget()
    pods = [one for one in await started_pods(session) if not one.name.startswith(f"{PROOFS}/")]
    if held := [one.said for one in pods if one.devices]:
        message = f"{host} is no node of the cluster, and pods that run there hold devices: {few(held)}"
        fix = "Wait for their end, or restart its kubelet, which registers the node again; else --evict-gpu-pods."
        raise Refused(message, host=host, code="SHW-703", fix=fix)


class NoneHeldUnknown:
    """No pod of which the cluster does not know holds devices of the host."""

    name = "no pod that the cluster does not know holds devices"

    def __init__(self, run: Run, host: str) -> None:
        self._run, self._host = run, host

    async def check(self, on: object) -> Drift | None:
        """Ask the host, where pods run there. Raises Refused SHW-703."""
        del on
        seen = self._run.retirement.evidence.get(self._host)
        if seen is not None and seen.running:
            await refuse_held_unknown(self._run, self._host)
        return None


def _machine_id(node: Object | None) -> str:
    """Return the machine id that a node's kubelet told; "" for none."""
    return str((((node or {}).get("status") or {}).get("nodeInfo") or {}).get("machineID") or "")


def _of_another(run: Run, host: str, node: Object | None, seen: Evidence) -> Refused | None:
    """Return the refusal where a node is in the cluster, and the machine that was reached is not seen to be its own.

    So it is with one that holds nothing of a cluster: its node's kubelet runs elsewhere, and would go on there. A host
    on which somebody has undone Kubernetes by hand is known by its machine id, which its kubelet had told.
    """
    if node is None or not seen.bare or host in run.retirement.begun:
        return None
    survey, told, own = run.seen.surveys.get(host), _machine_id(node), internal_address(node)
    at = run.cluster.target(run.cluster.host(host)).address
    if told and survey is not None and survey.machine_id == told:
        return None
    if not told and at == own and why_not_ready(node):
        return None
    message = f"the machine at {at} holds no node, and the node {host} (at {own or 'an unknown address'}) is another's"
    fix = (
        f"Correct the address of {host} (in the file, or --address). Where the machine of the file is to have its "
        f"place: `shipway replace {run.file or 'FILE'} {host}`."
    )
    return Refused(message, host=host, code="SHW-706", fix=fix)


async def _open_drains(kube: Kube, host: str) -> list[list[str]]:
    """Return the drains that are to come: none where the host is no node, or a run that was killed has begun its."""
    node = (await nodes_by_name(kube)).get(host)
    return [[host]] if node is not None and not cordon_note(node) else []


class Told:
    """One thing that was looked at, as a check that raises what was found."""

    def __init__(self, name: str, error: ShipwayError | None) -> None:
        self.name, self._error = name, error

    async def check(self, on: object) -> Drift | None:
        """Raise what was found."""
        del on
        if self._error is not None:
            raise self._error
        return None


async def may_reset(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look for all that forbids to reset a host; raises what keeps from reaching it."""
    if (away := await look_at(run, host)) is not None:
        raise away
    found = await reset_refusals(run, host)
    names = (Known.name, OF_CLUSTER, NO_NODE, NO_OTHERS, NO_PODS)
    checks = [Told(name, next((one for one in found if one.step == name), None)) for name in names]
    if not found:
        run.retirement.left += await ends_pods(run, host)
    return await look_at_all(checks, run.session(host), hear_results(run, stage, host))


async def ends_pods(run: Run, host: str) -> list[str]:
    """Return a sentence with the pods of users that end with a reset of the host, those that hold devices first."""
    seen = run.retirement.evidence[host]
    if not seen.running:
        return []
    try:
        pods = {one.name: one.said for one in await started_pods(run.session(host))}
    except ShipwayError:
        pods = dict(zip(seen.pods, seen.pods, strict=True))
    named = [text for name, text in pods.items() if name.partition("/")[0] not in OWN_NAMESPACES]
    return [f"ends pods on {host}: {few(named)}"] if named else []


async def reset_refusals(run: Run, host: str) -> list[ShipwayError]:
    """Return all that forbids to reset a host that was looked at."""
    seen, begun = run.retirement.evidence.get(host), host in run.retirement.begun
    if seen is None:
        raise Refused("the host was not looked at", host=host)
    kube: Kube | None = None
    unknown: ShipwayError | None = None
    try:
        kube = await run.kube()
        kube.forget()
        await Known(run).check(kube)
        nodes = await nodes_by_name(kube)
    except Refused as refused:
        return [refused.at(step=OF_CLUSTER)]  # its own step where it has one
    except ShipwayError as error:
        kube, unknown, nodes = None, error, {}
    ours = authorities_of(kube) if kube else read_authorities(run.folder / "kubeconfig") or frozenset()
    try:
        raise_for_other(seen, ours, endpoints_of(run.cluster), begun=begun)
    except Refused as refused:
        return [refused.at(step=OF_CLUSTER)]
    if kube is None and begun:
        return []  # what it was is half gone: a reset that was allowed goes on
    if kube is not None and host != run.control.name:
        return await _beside_lead(run, host, seen, nodes)
    if kube is None and seen.standing != "control plane":
        return await _without_cluster(run, host, seen, unknown) if unknown is not None else []
    return await _of_control_plane(run, host, kube, sorted(nodes))


async def _beside_lead(run: Run, host: str, seen: Evidence, nodes: Mapping[str, Object]) -> list[ShipwayError]:
    """Return what forbids to reset a host beside the control plane that answers: it is a node, or etcd's member.

    A machine that was only prepared to take a node's place is not that node, which is another's by its machine id.
    """
    survey, told = run.seen.surveys.get(host), _machine_id(nodes.get(host))
    prepared = seen.bare and bool(told) and survey is not None and survey.machine_id not in ("", told)
    if {host, seen.node} & set(nodes) and not prepared:
        name = seen.node if seen.node in nodes else host
        fix = f"`shipway remove {run.file or 'FILE'} {name}` drains it, takes it out of the cluster, and resets it."
        return [Refused(f"it is a node of the cluster: {name}", host=host, code="SHW-702", step=NO_NODE, fix=fix)]
    return await _of_one_that_left(run, host) if seen.standing == "control plane" else []


async def _of_one_that_left(run: Run, host: str) -> list[ShipwayError]:
    """Return what forbids to reset a control plane beside others, whose node is deleted: etcd still has its member."""
    members = await members_of(run.session(run.control.name))
    try:
        member = member_of(members, host, node_ip(run.cluster.host(host)))
    except Refused as refused:
        return [refused.at(step=NO_OTHERS)]
    if member:
        fix = f"`shipway remove {run.file or 'FILE'} {host}` takes it out of etcd where the others bear that."
        message = f"it is a member of etcd: {member.said}"
        return [Refused(message, host=host, code="SHW-707", step=NO_OTHERS, fix=fix)]
    return [copy] if (copy := await refuse_copy(run, host)) else []


async def refuse_copy(run: Run, host: str) -> Refused | None:
    """Return the refusal for a control plane with an etcd that serves, and that the cluster's etcd does not know.

    It is of another cluster, though the authority is the same: as a copy of this one is that was restored elsewhere.
    """
    members, own = await asyncio.gather(members_of(run.session(run.control.name)), run.session(host).read(health(OWN)))
    if find_member(members, node_ip(run.cluster.host(host))) or not says_healthy(own.stdout):
        return None
    fix = "Name it as the control plane in the file of its cluster, and run the same there."
    message = "it runs an etcd that serves, and the cluster's etcd has no such member: it is of another cluster"
    return Refused(message, host=host, code="SHW-706", step=OF_CLUSTER, fix=fix)


async def _of_control_plane(run: Run, host: str, kube: Kube | None, nodes: Sequence[str]) -> list[ShipwayError]:
    """Return what forbids to end a cluster with its control plane: other nodes and members, and pods of users."""
    if host not in {one.name for one in run.cluster.control_planes}:
        fix = "Name it as the control plane in the file of its cluster, and run the same there."
        message = "it runs a control plane, and the file names another"
        return [Refused(message, host=host, code="SHW-706", step=OF_CLUSTER, fix=fix)]
    if kube is None:
        return await _others_by_ssh(run, host)
    found: list[ShipwayError] = []
    members = await count_etcd(kube)
    others = [name for name in nodes if name != host]
    if others or set(members) - {host}:
        more = sorted(set(members) - {host})
        what = f"nodes {few(others)}" if others else f"members of etcd on {few(more)}"
        message = f"it runs the control plane of a cluster that has {what}"
        fix = "Remove those first (`shipway remove`): without their control plane nobody can drain them."
        found.append(Refused(message, host=host, code="SHW-707", step=NO_OTHERS, fix=fix))
    pods = [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in await kube.list_("v1", "Pod", fields=f"spec.nodeName={host}")
        if movable(pod) and pod["metadata"]["namespace"] not in OWN_NAMESPACES
    ]
    if pods:
        fix = "End them first (`kubectl delete` what owns them): a reset ends whatever runs, and its data."
        found.append(
            Refused(f"pods of users run there: {few(sorted(pods))}", host=host, code="SHW-712", step=NO_PODS, fix=fix)
        )
    return found


async def _others_by_ssh(run: Run, host: str) -> list[ShipwayError]:
    """Return what forbids it where the API does not answer: other hosts of the file that have joined, or are silent."""
    others = [one for one in run.cluster.hosts if one.name != host]
    answers = await asyncio.gather(*(evidence(run.session(one.name)) for one in others), return_exceptions=True)
    joined = [one.host for one in answers if isinstance(one, Evidence) and one.joined]
    silent = [other.name for other, one in zip(others, answers, strict=True) if isinstance(one, BaseException)]
    if joined:
        message = f"it runs the control plane of a cluster that {few(joined)} have joined, and its API does not answer"
        fix = f"{AGAIN} Or reset those first, with --cluster-gone where nobody needs what runs there."
        return [Refused(message, host=host, code="SHW-707", step=NO_OTHERS, fix=fix)]
    if silent and not run.retirement.cluster_gone:
        message = f"its API does not answer, nor do {few(silent)}: whether they are nodes cannot be determined"
        fix = f"{AGAIN} Where that cluster is gone for good: --cluster-gone."
        return [Refused(message, host=host, code="SHW-711", step=NO_NODE, fix=fix)]
    return []


async def _without_cluster(run: Run, host: str, seen: Evidence, unknown: ShipwayError) -> list[ShipwayError]:
    """Return what forbids to reset a worker whose cluster does not answer; nothing where there is none any more."""
    if not seen.joined and seen.bare:
        return []
    if server := await _serves(run.session(host)):
        message = (
            f"its cluster is not gone: {server} answers the host with that cluster's authority, and not this machine"
        )
        fix = f"Mend this machine's way to it; `shipway remove {run.file or 'FILE'} {host}` drains the host then."
        return [Refused(message, host=host, code="SHW-711", step=NO_NODE, fix=fix)]
    if run.retirement.cluster_gone:
        return []
    why = unknown.message
    if address_of(seen.server) not in endpoints_of(run.cluster):
        why = f"its kubelet asks {seen.server or 'nobody knows whom'}, and no control plane of the file"
    else:
        try:
            planes = [await evidence(run.session(one.name)) for one in run.cluster.control_planes if one.name != host]
        except ShipwayError as error:
            why = error.message
        else:
            if planes and all(one.standing == "nothing" for one in planes):
                run.retirement.cluster_gone = True  # its control planes' hosts are bare: nobody is left to be asked
                return []
    message = f"whether it is a node of a cluster cannot be determined: {why}"
    fix = f"{AGAIN} Where that cluster is gone for good: --cluster-gone."
    return [Refused(message, host=host, code="SHW-711", step=NO_NODE, fix=fix)]


async def _serves(on: Host) -> str:
    """Return the API server that the host's kubelet asks, where it answers; "" where it does not, or none is named.

    A certificate that has run out, on either side, is an answer too.
    """
    server = read_servers((await on.read(KUBECONFIGS)).stdout).get(KUBELET_CONF, "")
    if not address_of(server):
        return ""
    words = ("curl", "-sS", "--noproxy", "*", "--max-time", "8", "-o", "/dev/null", "--cacert", AUTHORITY)
    answer = await on.read(Says((*words, f"{server}/livez")))
    return server if answer.ok or "expired" in answer.stderr else ""


async def look_again(run: Run, host: str) -> Evidence:
    """Return what a host shows now, and keep it."""
    session = run.session(host)
    session.forget()
    seen = await evidence(session)
    keep_evidence(run, seen, begun=await session.read(FileText(RESETTING)) is not None)
    return seen


async def refuse_reset(run: Run, host: str) -> None:
    """Ask again, right before something is taken away. Raises Refused with the first that forbids it."""
    await look_again(run, host)
    if found := await reset_refusals(run, host):
        raise found[0]
