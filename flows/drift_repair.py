"""Drift repair: look at everything, repair what is allowed, look again. `python -m flows.drift_repair`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.drift_repair", run_name="__main__", alter_sys=True)

from pathlib import Path
from typing import Literal

from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.approval import ask_approval
from flows.drift_passes import explain, keep_counts, keep_history, look, repair_all
from flows.running import Manner, as_states, run_name, running
from shipway.cluster_file import load_cluster
from shipway.errors import Refused
from shipway.step import Impact
from tasks.context import Run
from tasks.drift.artifacts import leave_drift
from tasks.drift.permission import find_kept
from tasks.drift.report import DriftReport, drift_report, summarise
from tasks.locking import lease
from tasks.workloads import find_busy

Allow = Literal["declared", "none", "files", "service", "workloads"]
LEVELS: dict[Allow, Impact] = {
    "none": Impact.NOTHING,
    "files": Impact.FILES,
    "service": Impact.SERVICE,
    "workloads": Impact.WORKLOADS,
}


def drift_name() -> str:
    """Return the flow run's name: "drift of te", "drift of te (repair none)"."""
    repair = str(flow_run.parameters.get("repair", "declared"))
    return run_name("drift of", "" if repair == "declared" else f"repair {repair}")


@flow(name="drift-repair", flow_run_name=drift_name, persist_result=False)
@as_states
async def drift_repair(
    cluster_file: str,
    repair: Allow = "declared",
    hosts: tuple[str, ...] = (),
    ask: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are the fields of its form
    report_file: str | None = None,
) -> State[DriftReport]:
    """Find what drifted from the cluster file, repair what is allowed without disturbing a workload, look again.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        repair: Highest impact of a repair: declared is what the cluster file says, none only looks, files restarts
            nothing, service may restart containerd or the kubelet where no GPU pod runs, workloads drains hosts.
        hosts: Only these hosts, as the cluster file names them; none given means all, and what the hosts share.
        ask: Pause for an approval in the UI before anything is repaired, also where the cluster file does not ask so.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    return _end(await _pass(cluster_file, repair, hosts, ask=ask, report_file=report_file))


async def _pass(
    cluster_file: str, repair: Allow, hosts: tuple[str, ...], *, ask: bool, report_file: str | None
) -> DriftReport:
    """Return the report of a pass; raises Refused as `running` does, and where another run holds the lease."""
    declared = load_cluster(Path(cluster_file)).repair
    allow = LEVELS[declared.allow if repair == "declared" else repair]
    manner = Manner(allow is Impact.NOTHING, drift_report, leave_drift)
    async with running(cluster_file, "drift", hosts, (), report_file, manner) as run:
        await look(run)
        if allow > Impact.NOTHING and run.seen.surveys:
            await _repair(run, allow, cluster_file, ask=ask or declared.ask)
        else:
            explain(run, cluster_file)
        keep_counts(run)
    report = run.report
    if not isinstance(report, DriftReport):
        raise TypeError("the pass left no report")
    return report


async def _repair(run: Run, allow: Impact, path: str, *, ask: bool) -> None:
    """Repair under the cluster's lease, as far as is allowed now and approved."""
    run.allow = allow
    await find_busy(run)
    await find_kept(run)
    if run.seen.unowned is not None:
        keep_history(run, path, f"whose the hosts are cannot be determined: {run.seen.unowned.message}")
        return
    error = await lease(run)
    if isinstance(error, Refused):
        raise error
    if error is not None:
        keep_history(run, path, f"no lock of the cluster can be had: {error.message}")
        return
    await repair_all(run, path, await ask_approval(run, path) if ask else None)


def _end(report: DriftReport) -> State[DriftReport]:
    """Return the flow run's final state: completed where nothing is left, else failed under the outcome's name."""
    if report.outcome == "ok":
        return Completed(message=summarise(report), data=report)
    return Failed(name=report.outcome.capitalize(), message=summarise(report), data=report)
