"""What forbids any run in waves, asked of the API: control planes, GPUs, budgets, webhooks, what a drain destroys."""

from __future__ import annotations

from shipway.kube.client import Kube
from shipway.step import Check
from shipway.steps.kubernetes.webhooks import WebhooksAnswer
from shipway.steps.upgrade.possible import BudgetsAllow, ControlPlanesReady, GpusThere, NothingLost
from tasks.context import Run
from tasks.retire.allowed import losable
from tasks.waves.hosts import OfHost, drained_at_once, is_drained, jobs_on


def shared_checks(run: Run, resumed: OfHost) -> list[Check[Kube]]:
    """Return what the API is asked before any run in waves; only hosts that are still to come can forbid anything.

    `resumed` says of a host whether an earlier run has begun with it: then pods are on their way, and what was begun
    is finished; its drain asks itself.
    """
    rows = [row.host for row in run.waves.order]
    fresh = [name for name in rows if not resumed(run, name)]
    drained = [name for name in rows if is_drained(run, name)]
    guarded = drained if len(fresh) == len(rows) else []
    whole = [one.name for one in run.cluster.control_planes if not resumed(run, one.name)]
    gpus = {
        name: count
        for name in fresh
        if name not in run.waves.mended and (count := run.provable(run.cluster.host(name)))
    }
    local = losable(run)
    return [
        ControlPlanesReady(whole),
        GpusThere(gpus),
        BudgetsAllow(guarded),
        WebhooksAnswer(run.waves.webhooks, drained_at_once(run) if guarded else ()),
        *(NothingLost(name, local, [job.pod for job in jobs_on(run, name) if job.ends]) for name in drained),
    ]
