"""Which hosts a run may not disturb: those whose GPUs, or whose pods, are at work for somebody."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from shipway.converge import Permit
from shipway.errors import ShipwayError
from shipway.gpu.evidence import count_taken
from shipway.gpu.pods import NAMESPACE
from shipway.kube.client import Kube
from shipway.kube.drain import movable
from shipway.retry import patiently
from shipway.step import Impact, Step, restart_of
from shipway.steps.system.services import CONTAINERD
from tasks.context import Run

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
    joined counts as busy; the control plane's own host does not, or it could never be mended. A host that holds no node
    any more is busy no more.
    """
    looked = {name: survey.joined for name, survey in run.seen.surveys.items() if only in ("", name)}
    joined = [name for name, yes in looked.items() if yes]
    for known in (run.seen.busy, run.seen.podded):
        for name in looked.keys() - joined:  # it was reset since its pods were counted
            known.pop(name, None)
    if not joined or (run.allow is Impact.NOTHING and run.mode != "plan"):  # a plan says what a run would withhold
        return
    busy, podded = {}, {}
    try:
        kube = await run.kube()
        kube.forget()
        held = await patiently(lambda: count_taken(kube, dict.fromkeys(joined, 1), node=only), seconds=ASK_SECONDS)
        busy = {name: f"{count} GPUs held by running pods" for name, count in held.items() if count}
        if not run.cluster.repair.restart_beside_pods:
            podded = {name: BESIDE.format(count=len(pods)) for name, pods in (await _pods(kube, joined, only)).items()}
    except ShipwayError as error:
        why = f"the API cannot tell which pods run ({error.message})"
        busy = {name: why for name in joined if name != run.control.name}
    run.seen.busy = {**{name: why for name, why in run.seen.busy.items() if name not in joined}, **busy}
    run.seen.podded = {**{name: why for name, why in run.seen.podded.items() if name not in joined}, **podded}


async def _pods(kube: Kube, joined: Collection[str], only: str) -> dict[str, list[str]]:
    """Return by node the running pods of users: no part of the cluster itself, and nothing that a drain would leave."""
    found: dict[str, list[str]] = {}
    for pod in await kube.list_("v1", "Pod", fields=f"spec.nodeName={only}" if only else ""):  # known by now
        node, meta = pod["spec"].get("nodeName", ""), pod["metadata"]
        if node in joined and meta.get("namespace") not in OWN_NAMESPACES and movable(pod):
            found.setdefault(node, []).append(str(meta.get("name")))
    return found


def beside_pods(run: Run, host: str, restarts: str, impact: Impact) -> str:
    """Return why what restarts a unit is not applied beside running pods; "" where nothing keeps from it.

    Only a restart of containerd is kept from. What disturbs workloads anyway is decided by its impact alone.
    """
    if host in run.cluster.repair.disturb or restarts != CONTAINERD or impact is not Impact.SERVICE:
        return ""
    return run.seen.podded.get(host, "")


def permit_undisturbed(run: Run, host: str) -> Permit:
    """Return what tells a step, right before it is applied, what it may disturb: GPU pods may have started meanwhile.

    A bootstrap is at work on other hosts, and on the packages of this one, for longer than a pod needs to come.
    """

    async def permit(step: Step[Any]) -> Impact:
        if step.impact > Impact.START:
            await find_busy(run, host)
        return (
            min(run.allowed(host), Impact.START)
            if beside_pods(run, host, restart_of(step), step.impact)
            else run.allowed(host)
        )

    return permit
