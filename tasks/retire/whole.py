"""Whether all hosts of a cluster may be reset, which ends it: what they show, what its API says, and what ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shipway.converge import look_at_all
from shipway.errors import Refused, ShipwayError, Unreachable
from shipway.gpu.claims import see_claims
from shipway.gpu.holders import asked_devices, gpu_holders
from shipway.kube.access import read_authorities
from shipway.kube.client import Kube
from shipway.kube.drain import movable
from shipway.kube.nodes import few, nodes_by_name
from shipway.ownership.evidence import Evidence
from shipway.ownership.leading import endpoints_of
from shipway.step import StepResult
from shipway.steps.kubernetes.may_go import count_etcd, raise_for_other
from tasks.context import Run
from tasks.retire.allowed import (
    AGAIN,
    Known,
    Told,
    authorities_of,
    ends_pods,
    look_again,
    look_at,
    refuse_copy,
)
from tasks.stage_result import CLUSTER
from tasks.waiting import hear_results
from tasks.workloads import OWN_NAMESPACES

ANSWERS, OF_CLUSTER = "agrees with what was asked for", "is of this cluster, or of none"
NO_OTHERS = "no node is left without a control plane"


async def may_reset_all(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at all hosts and the API for all that forbids to end the cluster; keep for the report what would end."""
    names = [one.name for one in run.cluster.hosts]
    answers = await asyncio.gather(*(_look(run, name) for name in names))
    silence = {name: _silence(run, name, said) for name, said in zip(names, answers, strict=True)}
    kube, other = None, None
    try:
        kube = await run.kube()
        kube.forget()
        await Known(run).check(kube)
        left = await _left_alone(run, kube)
        run.retirement.left += await _ends(kube)
    except Refused as refused:
        other, left = refused, None
    except ShipwayError as error:
        kube, left = None, _unsure(run, error)
        for one in _seen(run):
            run.retirement.left += await ends_pods(run, one.host)
    mixed = _agree(run, kube)
    copies = {one.host: await _copy(run, one) for one in _seen(run)} if kube else {}
    checks = [
        *(Told(f"SSH of {name} {ANSWERS}", why) for name, why in silence.items()),
        Told(Known.name, other),
        *(Told(f"{one.host} {OF_CLUSTER}", mixed or _of_other(run, one) or copies.get(one.host)) for one in _seen(run)),
        Told(NO_OTHERS, left),
    ]
    return await look_at_all(checks, run.session(run.control.name), hear_results(run, stage, host))


def _seen(run: Run) -> Sequence[Evidence]:
    return tuple(run.retirement.evidence.values())


async def _look(run: Run, host: str) -> ShipwayError | None:
    """Look at a host, and keep what was seen; return what keeps from it."""
    try:
        return await look_at(run, host)
    except ShipwayError as error:
        return error


def _silence(run: Run, host: str, said: ShipwayError | None) -> ShipwayError | None:
    """Return what forbids it in how a host answered: it is silent and not left out, or left out and not silent."""
    if host not in run.retirement.without:
        if not isinstance(said, Unreachable):
            return said
        fix = (
            f"Mend that, then run again. Where the rest is to be reset all the same: `--without {host}`; what is on it "
            "stays, and its pods may run on."
        )
        return Refused(f"the host does not answer SSH: {said.message}", host=host, code="SHW-715", fix=fix)
    if isinstance(said, Unreachable):
        return None
    message = f"--without {host} was asked for, and the host answers SSH{f' ({said.message})' if said else ''}"
    return Refused(message, host=host, code="SHW-716", fix="Leave --without away: then it is reset like the others.")


async def _left_alone(run: Run, kube: Kube) -> Refused | None:
    """Return the refusal for nodes, or members of etcd, that the file does not name: nobody could drain them then."""
    nodes, members = await asyncio.gather(nodes_by_name(kube), count_etcd(kube))
    declared = {one.name for one in run.cluster.hosts}
    if not (more := sorted({*nodes, *members} - declared)):
        return None
    message = f"nodes that the file does not name would be left without a control plane: {few(more)}"
    fix = f"Name them in the file, to reset them as well, or first `shipway remove {run.file or 'FILE'} {more[0]}`."
    return Refused(message, host=CLUSTER, code="SHW-707", fix=fix)


def _unsure(run: Run, error: ShipwayError) -> Refused | None:
    """Return what forbids it where the API does not answer; nothing where it cannot, for a reset of ours has begun.

    It has where a control plane has its mark, or where only one host is left that has joined, and that is a control
    plane. Where no host has joined there is no cluster.
    """
    planes = {one.name for one in run.cluster.control_planes}
    joined = {one.host for one in _seen(run) if one.joined}
    last = len(joined) == 1 and joined <= planes and not run.retirement.without
    if run.retirement.cluster_gone or not joined or last or planes & run.retirement.begun:
        return None
    message = f"whether the cluster has other nodes than those of the file cannot be determined: {error.message}"
    fix = f"{AGAIN} Where that cluster is gone for good: --cluster-gone."
    return Refused(message, host=CLUSTER, code="SHW-711", fix=fix)


def _agree(run: Run, kube: Kube | None) -> Refused | None:
    """Keep the authorities of the cluster that ends; refuse where nobody tells them and its hosts have several."""
    shown = {one.host: one.authorities for one in _seen(run) if one.authorities}
    ours = authorities_of(kube) if kube else read_authorities(run.folder / "kubeconfig") or frozenset()
    if not ours and shown:
        ours = frozenset.intersection(*shown.values())
    run.retirement.authorities = ours
    if shown and not ours:
        message = f"the hosts belong to several clusters: {few([one.whose for one in _seen(run) if one.authorities])}"
        fix = "Name each in the file of its own cluster, and run the same there: none is emptied unasked."
        return Refused(message, host=CLUSTER, code="SHW-706", fix=fix)
    return None


def _of_other(run: Run, seen: Evidence) -> Refused | None:
    """Return the refusal for a host that is not of the cluster that ends."""
    asked = run.retirement
    try:
        raise_for_other(seen, asked.authorities, endpoints_of(run.cluster), begun=seen.host in asked.begun)
    except Refused as refused:
        return refused
    return None


async def _copy(run: Run, seen: Evidence) -> Refused | None:
    """Return the refusal for a control plane of a copy of the cluster; one that is half reset has left etcd."""
    half = seen.host in run.retirement.begun or seen.host == run.control.name
    return None if half or seen.standing != "control plane" else await refuse_copy(run, seen.host)


async def _ends(kube: Kube) -> list[str]:
    """Return a sentence for each thing of users that ends with the cluster, or that nobody knows of any more."""
    pods = [one for one in await kube.list_("v1", "Pod") if one["spec"].get("nodeName")]
    claims = await see_claims(kube, pods)
    on = dict.fromkeys(one["spec"]["nodeName"] for one in pods if asked_devices(one, claims))
    said = [f"ends a pod that holds GPUs of {node}: {held}" for node in on for held in await gpu_holders(kube, node)]
    names = sorted(
        f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        for one in pods
        if movable(one) and one["metadata"]["namespace"] not in OWN_NAMESPACES and not asked_devices(one, claims)
    )
    said += [f"ends {len(names)} other pods of users: {few(names)}"] if names else []
    volumes = sorted(
        one["metadata"]["name"]
        for one in await kube.list_("v1", "PersistentVolume")
        if (one.get("status") or {}).get("phase") == "Bound"
    )
    if volumes:
        said.append(
            f"{len(volumes)} bound volumes stay where their data are, and no cluster knows them: {few(volumes)}"
        )
    return said


async def refuse_reset_of_all(run: Run, host: str) -> None:
    """Ask again, right before something is taken away from a host. Raises Refused with the first that forbids it.

    An API that does not answer any more forbids nothing: the other control planes may be reset by now.
    """
    seen = await look_again(run, host)
    if (refused := _of_other(run, seen)) is not None:
        raise refused
    if seen.standing != "control plane":
        return
    try:
        kube = await run.kube()
        kube.forget()
        left = await _left_alone(run, kube) or await _copy(run, seen)
    except ShipwayError:
        return
    if left is not None:
        raise left
