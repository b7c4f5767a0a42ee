"""An upgrade of Kubernetes, one minor at a time: control planes, then workers in waves. `python -m flows.upgrade`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.upgrade", run_name="__main__", alter_sys=True)

from functools import partial
from typing import Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import Manner, as_states, run_name, running
from flows.waves import all_of, back_up, end, go_in_waves, go_through_workers, stop_at_window
from shipway.cluster.model import Cluster
from shipway.cluster_file import in_version
from shipway.stage import StageName
from tasks.context import Run
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER
from tasks.stages.listed import ADD_ONS, name_of
from tasks.upgrade.look import control_planes_in_order, kubelets_last, left_loose, waves_in_order
from tasks.waves.report import WaveReport, leave_waves, wave_report


def upgrade_name() -> str:
    """Return the flow run's name: "upgrade te", "upgrade te (plan)"."""
    return run_name("upgrade", "plan" if flow_run.parameters.get("mode") == "plan" else "")


@flow(name="upgrade", flow_run_name=upgrade_name, persist_result=False)
@as_states
async def upgrade(
    cluster_file: str,
    mode: Literal["plan", "upgrade"] = "plan",
    to: str = "",
    backup: bool = True,  # noqa: FBT001, FBT002 - a flow's parameters are the fields of its form
    report_file: str | None = None,
) -> State[Report]:
    """Bring a running cluster to the version of its cluster file, or (mode plan) say in which order.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        mode: plan changes nothing, names every refusal, and the order of the hosts; upgrade does it.
        to: Another version than the file's, as 1.36.2: a stop on the way there. Empty means the file's.
        backup: Take a verified backup of etcd first, unless one of the last hour is there; off: there must be one.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    plan = mode == "plan"
    manner = Manner(plan, wave_report, leave_waves, "upgrade", partial(declare, version=to))
    async with running(cluster_file, "plan" if plan else "upgrade", (), (), report_file, manner) as run:
        run.upgrade.backup = backup
        await go_in_waves(run, go)
    return end(run, tell)


def declare(cluster: Cluster, *, version: str) -> Cluster:
    """Return the cluster in the version that was asked for. Raises Refused for one that cannot be."""
    return in_version(cluster, version.strip().removeprefix("v")) if version.strip() else cluster


async def go(run: Run) -> None:
    """Go through the order; what fails ends it there, but for what a wave has begun with."""
    left = [row.host for row in run.upgrade.order]
    await all_of(StageName.UPGRADE_HELD, left_loose(run))
    if not left:
        await on(StageName.UPGRADE_ADDONS, CLUSTER)  # a killed run may have come no further than the hosts
        return
    if run.upgrade.backup and not await back_up(run):
        return
    if not all(await all_of(StageName.UPGRADE_FETCH, left)):
        return
    if not await go_through_control_planes(run):
        return
    if await on(StageName.UPGRADE_ADDONS, CLUSTER) is None:
        return
    for module in ADD_ONS:
        if await on(name_of(module), CLUSTER) is None:
            return
    await go_through_workers(run, waves_in_order(run))


async def go_through_control_planes(run: Run) -> bool:
    """Upgrade one control plane after the other, with its kubelet or before all of theirs; say whether all is well."""
    planes = control_planes_in_order(run)
    turns = [(StageName.UPGRADE_CONTROL_PLANE, host) for host in planes]
    turns += [(StageName.UPGRADE_KUBELET, host) for host in planes if kubelets_last(run)]
    for stage, host in turns:
        if stop_at_window(run) or await on(stage, host) is None:
            return False
    return True


def tell(run: Run, report: WaveReport) -> str:
    """Return what was to be done, and what changed."""
    version, changed = run.cluster.kubernetes.version, report.counted["changed"]
    return f"{len(report.order)} of {len(report.hosts)} hosts were to come to v{version}; {changed} steps changed"
