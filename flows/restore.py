"""A restore: the data of a single control plane, from one of its verified backups. `python -m flows.restore`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.restore", run_name="__main__", alter_sys=True)

import asyncio
from pathlib import Path

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import Manner, as_states, final_state, run_name, running
from flows.verify_gpus import verify
from shipway.cluster_file import load_cluster
from shipway.errors import Refused
from shipway.stage import StageName
from tasks.context import Run
from tasks.judging import report_of_verb
from tasks.locking import claim_host
from tasks.ownership import disagreement, keep
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER, causes, fail_by


def restore_name() -> str:
    """Return the flow run's name: "restore of te", "restore of te (plan)"."""
    return run_name("restore of", "plan" if flow_run.parameters.get("plan") else "")


@flow(name="restore", flow_run_name=restore_name, persist_result=False)
@as_states
async def restore(
    cluster_file: str,
    backup: str,
    confirm: str = "",
    plan: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are the fields of its form
    report_file: str | None = None,
) -> State[Report]:
    """Put a verified backup in the place of the cluster's data; what is newer than it is LOST.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        backup: Name of a verified backup on the control plane's host, for example 20261129T013000Z, or newest.
        confirm: The cluster's name, typed: what is newer than the backup is lost, and its pods are ended.
        plan: Change nothing, and say what would be lost and what keeps from it.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    cluster = load_cluster(Path(cluster_file))
    if not plan and confirm != cluster.name:
        message = (
            f"a restore loses all that is newer than its backup, so it needs the cluster's name typed: {cluster.name}"
        )
        fix = f"See what would be lost with `--plan`; then run again with `--confirm {cluster.name}`."
        raise Refused(message, code="SHW-733", fix=fix)
    manner = Manner(only_looks=plan, report=report_of_verb, kind="restore")
    async with running(cluster_file, "plan" if plan else "restore", (), (), report_file, manner) as run:
        run.backup.source = Path(backup).name
        await bring_back(run, run.control.name)
    return end(run)


async def bring_back(run: Run, host: str) -> None:
    """Run the stages of a restore, in order."""
    looks = await asyncio.gather(*(on(StageName.PREFLIGHT, one.name) for one in run.hosts))
    look = looks[[one.name for one in run.hosts].index(host)]
    if look is None or keep(run, await disagreement(run)):
        return
    possible = await on(StageName.RESTORE_POSSIBLE, host, look)
    if possible is None:
        return
    known = await on(StageName.RESTORE_LOSES, CLUSTER, possible)
    if (kept_out := await claim_host(run)) is not None:
        run.results.append(fail_by(kept_out, host, StageName.RESTORE_POSSIBLE))
        return
    run.admitted |= {one.name for one, state in zip(run.hosts, looks, strict=True) if state is not None}
    restored = await on(StageName.RESTORE_BACKUP, host, known)
    if run.mode == "plan":
        return
    ready = await on(StageName.CONTROL_PLANE_READY, CLUSTER, restored)
    there = sorted(run.admitted)
    kubelets = await asyncio.gather(*(on(StageName.RESTART_KUBELET, name, ready) for name in there))
    if await on(StageName.START_WATCHERS, CLUSTER, ready) is None:
        return
    run.ready |= {name for name, state in zip(there, kubelets, strict=True) if state is not None}
    if run.ready:
        await verify(run)


def end(run: Run) -> State[Report]:
    """Return the flow run's final state: completed where the backup is in its place, else failed with the causes."""
    report = run.report or report_of_verb(run)
    said = f"backup {run.backup.source}; {run.proof_said}"
    message = f"{report.outcome}: {causes(report.errors) if report.errors else said}"
    return final_state(report, message)
