"""Which nodes share their GPUs otherwise than declared for now, and which pods keep them so.

A run that waits for GPUs asks before it waits: what pods hold back does not come while they run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from shipway.cluster.model import Cluster
from shipway.gpu.chosen import VENDOR
from shipway.gpu.classes import CONFIG, OURS, config_text, digest_of, label_of
from shipway.gpu.offers import amounts_of
from shipway.gpu.owners import find_owner
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import nodes_by_name
from shipway.step import Drift, Impact, StepResult
from shipway.steps.gpu.classes import NodeClass, class_of, who_holds


async def plugins_of(on: Kube, gpu_class: str) -> dict[str, Object]:
    """Return the DaemonSets of a class by name. Raises the errors of the API."""
    found = await on.list_("apps/v1", "DaemonSet", VENDOR.plugin.namespace, labels=f"{OURS}={gpu_class}")
    return {one["metadata"]["name"]: one for one in found}


def runs_for(daemon_set: Object) -> str:
    """Return which configuration the pods of a class's DaemonSet were made for; "" where it does not tell."""
    return str((daemon_set["spec"]["template"]["metadata"].get("annotations") or {}).get(CONFIG, ""))


def _has_gpus(node: Object, declared: int | str) -> bool:
    """Say whether a node has GPUs: where the file leaves it open, by what the run that joined it saw, or by its own."""
    if declared != "auto":
        return bool(declared)
    return VENDOR.label in (node["metadata"].get("labels") or {}) or any(amounts_of(node, "capacity").values())


async def find_held(on: Kube, cluster: Cluster, undivided: Mapping[str, str] | None = None) -> dict[str, StepResult]:
    """Return by node what of its class of GPUs is not as declared: which class it is to be of, and who holds it back.

    Asked after all that changes classes has been tried, or by a run that changes none: either way nothing of it comes
    by waiting. `undivided` says by node why its GPUs are not divided as its class has it, where that was looked at.
    Empty where somebody else's plugin offers the GPUs. Raises the errors of the API.
    """
    classes = VENDOR.plugin.classes
    if classes is None or await find_owner(on):
        return {}
    nodes = await nodes_by_name(on)
    steps = [
        NodeClass(host.name, wanted, unready=(undivided or {}).get(host.name, ""))
        for host in cluster.hosts
        if (node := nodes.get(host.name)) is not None
        and _has_gpus(node, host.gpus)
        and class_of(node) != (wanted := label_of(cluster, host.name))
    ]
    # All at once: each looks anew, and looks that wait for the same list share the next one.
    drifts = await asyncio.gather(*(step.check(on) for step in steps))
    found = {
        step.node: StepResult(step.name, "drifted", Impact.SERVICE, drift, id=step.id)
        for step, drift in zip(steps, drifts, strict=True)
        if drift
    }
    for name, shared in cluster.gpu_classes.items():
        digest = digest_of(config_text(shared, classes))
        older = [one for one in (await plugins_of(on, name)).values() if runs_for(one) not in ("", digest)]
        members = [node for node, one in nodes.items() if class_of(one) == name and node not in found]
        if older and members:
            who = await who_holds(on, members)
            have = f"{older[0]['metadata']['name']} runs with an earlier one"
            drift = Drift.held(have, "the one that is declared", who)
            step_name = f"GPU class {name} has its declared configuration"
            found |= {node: StepResult(f"{step_name} on {node}", "drifted", Impact.SERVICE, drift) for node in members}
    return found
