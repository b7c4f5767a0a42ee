"""A backup of the control plane's etcd: taken, verified by restoring it, and kept. `python -m flows.backup`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.backup", run_name="__main__", alter_sys=True)

from pathlib import Path

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import Manner, as_states, final_state, run_name, running
from shipway.cluster_file import load_cluster
from shipway.stage import StageName
from tasks.context import Run
from tasks.judging import report_of_verb
from tasks.locking import lease
from tasks.ownership import disagreement, keep
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import causes, fail_by


def backup_name() -> str:
    """Return the flow run's name: "backup te", "backup te (plan)"."""
    return run_name("backup", "plan" if flow_run.parameters.get("plan") else "")


@flow(name="backup", flow_run_name=backup_name, persist_result=False)
@as_states
async def backup(
    cluster_file: str,
    plan: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are the fields of its form
    if_older_hours: int = 0,
    report_file: str | None = None,
) -> State[Report]:
    """Take a backup of etcd on the control plane's host, and restore it into a throw-away etcd to believe it.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        plan: Change nothing, and say what would be done and what keeps from it.
        if_older_hours: Take one only where the newest verified backup is older than so many hours; 0 takes one anyway.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    only = (load_cluster(Path(cluster_file)).control_planes[0].name,)
    manner = Manner(only_looks=plan, report=report_of_verb, kind="backup")
    async with running(cluster_file, "plan" if plan else "backup", only, (), report_file, manner) as run:
        run.backup.hours = if_older_hours
        run.only = (run.control.name,)  # of several control planes the one that was found to be whole
        await back_up(run, run.control.name)
    return end(run)


async def back_up(run: Run, host: str) -> None:
    """Run the stages of a backup, in order."""
    look = await on(StageName.PREFLIGHT, host)
    if look is None or keep(run, await disagreement(run)):
        return
    possible = await on(StageName.BACKUP_POSSIBLE, host, look)
    if possible is None:
        return
    if (kept_out := await lease(run)) is not None:
        run.results.append(fail_by(kept_out, host, StageName.BACKUP_POSSIBLE))
        return
    run.admitted.add(host)
    taken = await on(StageName.TAKE_BACKUP, host, await on(StageName.BACKUP_FILES, host, possible))
    if run.cluster.backup.copied:
        await on(StageName.KEEP_BACKUP, host, taken)


def end(run: Run) -> State[Report]:
    """Return the flow run's final state: completed under what was taken, else failed under the outcome's name."""
    report = run.report or report_of_verb(run)
    newest = run.backup.newest
    said = f"newest verified backup: {newest.said}" if newest else "no verified backup"
    message = f"{report.outcome}: {causes(report.errors) if report.errors else said}"
    return final_state(report, message)
