"""What keeps a run from changing a cluster freely: running GPU workloads, and another run on the same cluster."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from shipway.converge import Permit
from shipway.errors import Refused, ShipwayError
from shipway.gpu.evidence import taken_by_others
from shipway.gpu.pods import NAMESPACE
from shipway.kube.client import Kube
from shipway.kube.drain import movable
from shipway.locks.bare import claim_left, claimed
from shipway.locks.lease import held, holder
from shipway.retry import patiently
from shipway.step import Impact, Step, restarted_by
from shipway.steps.system.services import CONTAINERD
from tasks.context import Run
from tasks.stage_result import CLUSTER

BESIDE = "{count} pods run there, and repair.restart_beside_pods is not set"
# What Shipway itself brings, and Kubernetes: their pods are parts of the cluster, not what runs on it.
OWN_NAMESPACES = frozenset(
    {
        "kube-system",
        "tigera-operator",
        "calico-system",
        "calico-apiserver",
        "kubernetes-dashboard",
        NAMESPACE,
    }
)
ASK_SECONDS = 20.0  # an API server that restarts beside a repair is asked again for so long


async def find_busy(run: Run, only: str = "") -> None:
    """Keep which hosts (or of one host, whether it) may not be disturbed: their GPUs are held by pods of others.

    Costs nothing while the cluster does not exist. Where it does and its API cannot be asked, every worker that has
    joined counts as busy; the control plane's own host does not, or it could never be mended.
    """
    joined = [name for name, survey in run.surveys.items() if survey.joined and only in ("", name)]
    if not joined or run.allow is Impact.NOTHING:
        return
    busy, podded = {}, {}
    try:
        kube = await run.kube()
        kube.forget()
        held = await patiently(lambda: taken_by_others(kube, dict.fromkeys(joined, 1), node=only), seconds=ASK_SECONDS)
        busy = {name: f"{count} GPUs held by running pods" for name, count in held.items() if count}
        if not run.cluster.repair.restart_beside_pods:
            podded = {name: BESIDE.format(count=len(pods)) for name, pods in (await _pods(kube, joined, only)).items()}
    except ShipwayError as error:
        why = f"the API cannot tell which pods run ({error.message})"
        busy = {name: why for name in joined if name != run.control.name}
    run.busy = {**{name: why for name, why in run.busy.items() if name not in joined}, **busy}
    run.podded = {**{name: why for name, why in run.podded.items() if name not in joined}, **podded}


async def _pods(kube: Kube, joined: Collection[str], only: str) -> dict[str, list[str]]:
    """Return by node the running pods of users: no part of the cluster itself, and nothing that a drain would leave."""
    found: dict[str, list[str]] = {}
    for pod in await kube.list_("v1", "Pod", fields=f"spec.nodeName={only}" if only else ""):  # known by now
        node, meta = (pod.get("spec") or {}).get("nodeName", ""), pod["metadata"]
        if node in joined and meta.get("namespace") not in OWN_NAMESPACES and movable(pod):
            found.setdefault(node, []).append(str(meta.get("name")))
    return found


def beside_pods(run: Run, host: str, restarts: str, impact: Impact) -> str:
    """Return why what restarts a unit is not applied beside running pods; "" where nothing keeps from it.

    Only a restart of containerd is kept from. What disturbs workloads anyway is decided by its impact alone.
    """
    if host in run.cluster.repair.disturb or restarts != CONTAINERD or impact is not Impact.SERVICE:
        return ""
    return run.podded.get(host, "")


def undisturbed(run: Run, host: str) -> Permit:
    """Return what tells a step, right before it is applied, what it may disturb: GPU pods may have started meanwhile.

    A bootstrap is at work on other hosts, and on the packages of this one, for longer than a pod needs to come.
    """

    async def permit(step: Step[Any]) -> Impact:
        if step.impact > Impact.FILES:
            await find_busy(run, host)
        return (
            min(run.allowed(host), Impact.FILES)
            if beside_pods(run, host, restarted_by(step), step.impact)
            else run.allowed(host)
        )

    return permit


async def lease(run: Run) -> ShipwayError | None:
    """Hold the cluster until the run ends; return Refused where another run holds it, or what keeps from telling.

    A plan needs none. Two locks are looked at, and one of them is held before anything is changed:

    - the lease in the cluster, where its API answers;
    - the claim of the control plane's host, where there is no cluster yet, or its API does not answer: so a broken
      control plane is repaired, by one run at a time. The lease is taken as soon as the API is back (`new_lease`).

    A run that can have neither, for the control plane's host cannot be reached either, changes nothing.
    """
    if run.allow is Impact.NOTHING:
        return None
    exists = run.control.name not in run.surveys or any(survey.joined for survey in run.surveys.values())
    claim = not exists or await claim_left(run.session(run.control.name))
    kept_out = await _claimed(run) if claim else None
    if kept_out is not None or not exists:
        return kept_out
    try:
        await new_lease(run)
    except Refused as refused:
        return refused
    except ShipwayError as error:
        run.view.said(run.control.name, "preflight", f"the cluster's lease is not taken: {error.message}")
        return await _claimed(run)
    return None


async def new_lease(run: Run) -> None:
    """Hold the cluster's lease where the run does not yet: it began on bare hosts, or while the API was away.

    Whatever works through the API comes after this. Raises Refused SHW-102 where another run, begun on another machine,
    was first, and whatever else keeps from taking it: without the lease nothing is changed through the API.
    """
    if run.leased or run.allow is Impact.NOTHING:
        return

    def told(sentence: str) -> None:
        run.view.said(CLUSTER, "preflight", sentence)

    await run.until_end.enter_async_context(held(run.kube, _who(run), partial(_unsure, run), told))
    run.leased = True


def still_alone(run: Run) -> None:
    """Let a stage begin only while the run holds the cluster. Raises Refused with what was lost, and to whom.

    What is at work on a host when the lease is lost is not broken off: half of it would be worse than all of it.
    """
    if run.lost is not None:
        message = f"the run no longer holds the cluster, so it begins nothing more: {run.lost.message}"
        raise Refused(message, code=run.lost.code, fix=run.lost.fix)


async def _unsure(run: Run, error: ShipwayError | None) -> None:
    """Hear from the lease: somebody else has it; it was not renewed for long, so the host is claimed; it is renewed."""
    if isinstance(error, Refused):
        run.leased, run.lost = False, error
    else:
        run.lost = None if error is None else await _claimed(run)


async def _claimed(run: Run) -> ShipwayError | None:
    """Claim the control plane's host until the run ends; return what keeps from it."""
    if not run.claimed:
        try:
            await run.until_end.enter_async_context(claimed(run.session(run.control.name), _who(run)))
        except ShipwayError as error:
            return error
        run.claimed = True
    return None


def _who(run: Run) -> str:
    return holder(f"{run.mode} of {run.cluster.name}")
