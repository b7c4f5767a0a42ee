"""Maintenance of the hosts' systems, packages and restarts, one after the other, then in waves: `flows.maintain`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.maintain", run_name="__main__", alter_sys=True)

from typing import Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import Manner, as_states, run_name, running
from flows.waves import all_of, back_up, end, go_in_waves, go_through_workers, stop_at_window
from shipway.stage import StageName
from tasks.context import Run
from tasks.maintain.look import control_planes_in_order, refuse_undeclared, wants_backup, waves_in_order
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER
from tasks.waves.report import WaveReport, leave_waves, wave_report


def maintain_name() -> str:
    """Return the flow run's name: "maintenance te", "maintenance te (plan)"."""
    return run_name("maintenance", "plan" if flow_run.parameters.get("mode") == "plan" else "")


@flow(name="maintain", flow_run_name=maintain_name, persist_result=False)
@as_states
async def maintain(
    cluster_file: str,
    mode: Literal["plan", "maintain"] = "plan",
    backup: bool = True,  # noqa: FBT001, FBT002 - a flow's parameters are the fields of its form
    report_file: str | None = None,
    driver: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are the fields of its form
) -> State[Report]:
    """Bring the systems of a cluster's hosts up to date and restart what asks for it, or (mode plan) say what would be.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        mode: plan changes nothing, names every refusal, and what becomes of each host; maintain does it.
        backup: Take a verified backup of etcd first where a control plane may be restarted, unless one of the last
            hour is there; off: there must be one.
        driver: Change the GPUs' driver to the declared one, and nothing else of the systems.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    plan = mode == "plan"
    manner = Manner(plan, wave_report, leave_waves, "maintain")
    async with running(cluster_file, "plan" if plan else "maintain", (), (), report_file, manner) as run:
        run.maintenance.backup, run.maintenance.driver = backup, driver
        if driver:
            refuse_undeclared(run)
        await go_in_waves(run, go)
    return end(run, tell)


async def go(run: Run) -> None:
    """Go through the order; what fails ends it there, but for what a wave has begun with."""
    seen = run.maintenance
    if run.cluster.maintain.packages != "none" and not seen.driver and not await fetched(run):
        return
    if not seen.order or (seen.backup and wants_backup(run) and not await back_up(run)):
        return
    for host in control_planes_in_order(run):
        if stop_at_window(run) or await on(StageName.MAINTAIN_CONTROL_PLANE, host) is None:
            return
    await go_through_workers(run, waves_in_order(run))


async def fetched(run: Run) -> bool:
    """Fetch lists and updates on every host, and ask again what forbids it where another order came of that."""
    seen = run.maintenance
    known = dict(seen.hosts)
    names = [name for name in seen.hosts if name not in seen.skipped]
    if not all(await all_of(StageName.MAINTAIN_FETCH, names)):
        return False
    return seen.hosts == known or await on(StageName.MAINTAIN_POSSIBLE, CLUSTER) is not None


def tell(_run: Run, report: WaveReport) -> str:
    """Return what was to be done, and what changed."""
    done = f"{len(report.order)} of {len(report.hosts)} hosts had something to be done"
    return f"{done}; {report.counted['changed']} steps changed"
