"""A restore: the data of one or several control planes, from a verified backup. `python -m flows.restore`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.restore", run_name="__main__", alter_sys=True)

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import State, flow
from prefect.runtime import flow_run

from flows.bootstrap import join_in_order, prepare_after, set_node
from flows.running import Manner, as_states, final_state, run_name, running
from flows.verify_gpus import verify
from shipway.backup.choice import Choice, read_source
from shipway.cluster.model import Cluster
from shipway.cluster_file import load_cluster
from shipway.errors import ErrorReport, Refused
from shipway.stage import StageName
from tasks.backup.restores import forget_fetched
from tasks.context import Run
from tasks.judging import report_of_verb
from tasks.leading import known as known_of
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
async def restore(  # noqa: PLR0917 - a flow's parameters are the fields of its form
    cluster_file: str,
    backup: str,
    confirm: str = "",
    plan: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are the fields of its form
    gone: tuple[str, ...] = (),
    report_file: str | None = None,
) -> State[Report]:
    """Put a verified backup in the place of the cluster's data; what is newer than it is LOST.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        backup: Name of a verified backup, on a control plane's host or kept by the worker, or newest; s3:NAME or
            s3:newest is one of the object store.
        confirm: The cluster's name, typed: what is newer than the backup is lost, and its pods are ended.
        plan: Change nothing, and say what would be lost and what keeps from it.
        gone: Control planes whose machines are gone for good; etcd on one that is not would go on with the old data.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    cluster = load_cluster(Path(cluster_file))
    if not plan and confirm != cluster.name:
        message = (
            f"a restore loses all that is newer than its backup, so it needs the cluster's name typed: {cluster.name}"
        )
        fix = f"See what would be lost with `--plan`; then run again with `--confirm {cluster.name}`."
        raise Refused(message, code="SHW-733", fix=fix)
    only = _without(cluster, gone)
    manner = Manner(only_looks=plan, report=report_of_verb, kind="restore")
    async with running(cluster_file, "plan" if plan else "restore", only, (), report_file, manner) as run:
        run.backup.source, run.backup.stored = read_source(backup)
        run.backup.gone = tuple(gone)
        try:
            await bring_back(run)
        finally:
            forget_fetched(run)
    return end(run)


def _without(cluster: Cluster, gone: Sequence[str]) -> tuple[str, ...]:
    """Return the hosts that a restore is about, () for all. Raises Refused where others than these are gone."""
    planes = [one.name for one in cluster.control_planes]
    if wrong := [name for name in gone if name not in planes]:
        message = f"{', '.join(wrong)}: no control plane of the file, and only those can be gone here"
        raise Refused(f"{message}; it has {', '.join(planes)}", code="SHW-100")
    if gone and len(set(gone)) == len(planes):
        fix = "Install a machine anew under the name of one of them; then run again without it in `--gone`."
        raise Refused("every control plane is gone, so there is no host to restore to", code="SHW-753", fix=fix)
    return tuple(one.name for one in cluster.hosts if one.name not in gone) if gone else ()


async def bring_back(run: Run) -> None:
    """Run the stages of a restore, in order: look at all, choose, bring, stop all, restore one, join the others."""
    states = await asyncio.gather(*(on(StageName.PREFLIGHT, one.name) for one in run.hosts))
    looks = {one.name: state for one, state in zip(run.hosts, states, strict=True)}
    if not all_seen(run, looks) or keep(run, await contradicting(run)):
        return
    possible = await on(StageName.RESTORE_POSSIBLE, run.control.name, looks[run.control.name])
    choice = run.backup.choice
    if possible is None or choice is None:
        return
    lead = choice.lead
    known = await on(StageName.RESTORE_LOSES, CLUSTER, possible)
    if (kept_out := await claim_host(run)) is not None:
        run.results.append(fail_by(kept_out, lead, StageName.RESTORE_POSSIBLE))
        return
    run.admitted |= {name for name, state in looks.items() if state is not None}
    bare = [*([lead] if choice.bare else []), *choice.others("bare")]
    ready = await asyncio.gather(*(prepare_after(run, run.cluster.host(name), known) for name in bare))
    prepared = dict(zip(bare, ready, strict=True))
    brought = await on(StageName.RESTORE_BRING, lead, prepared.get(lead, known))
    restored = await put_in_place(run, choice, brought)
    if run.mode == "plan":
        for name in choice.others("runs"):
            await on(StageName.RESTORE_ASIDE, name, restored)
        return
    if restored is not None and known_of(run)[lead].unfinished:
        restored = await on(StageName.CONTROL_PLANE, lead, restored)
    api = await on(StageName.CONTROL_PLANE_READY, CLUSTER, restored)
    await come_back(run, choice, prepared, api)


async def put_in_place(run: Run, choice: Choice, brought: State[Any] | None) -> State[Any] | None:
    """Restore the backup on the host that was chosen; of several control planes all are stopped before.

    Where that does not come about, and no data were changed, what was stopped is started again.
    """
    runs = choice.others("runs")
    first = [] if choice.bare or not runs else [choice.lead]
    stopped = await asyncio.gather(*(on(StageName.RESTORE_STOP, name, brought) for name in (*first, *runs)))
    restored = await on(StageName.RESTORE_BACKUP, choice.lead, brought, *stopped)
    if restored is None and brought is not None and runs and run.mode != "plan":
        undone = await on(StageName.RESTORE_UNDO, choice.lead)
        await asyncio.gather(*(on(StageName.RESTORE_UNDO, name, undone) for name in runs))
    return restored


async def come_back(
    run: Run, choice: Choice, prepared: Mapping[str, State[Any] | None], api: State[Any] | None
) -> None:
    """Join the other control planes, let all that looks at the API look anew, and prove the GPUs."""
    runs = choice.others("runs")
    aside = dict(
        zip(runs, await asyncio.gather(*(on(StageName.RESTORE_ASIDE, name, api) for name in runs)), strict=True)
    )
    joins = dict.fromkeys(choice.others("joins"), api)
    others = [*aside, *joins, *choice.others("part")]
    nodes = [one.name for one in run.hosts if one.name not in others and known_of(run)[one.name].joined]
    kubelets = await asyncio.gather(*(on(StageName.RESTART_KUBELET, name, api) for name in nodes))
    if len(choice.kinds) > 1 or run.backup.gone:
        own = {name: state for name, state in {**prepared, **aside, **joins}.items() if name != choice.lead}
        await join_in_order(run, own, await on(StageName.FORGET_NODES, CLUSTER, api))
    if choice.bare:
        await set_node(run, run.control, api)
    if await on(StageName.START_WATCHERS, CLUSTER, api) is None:
        return
    run.ready |= {name for name, state in zip(nodes, kubelets, strict=True) if state is not None}
    if run.ready:
        await verify(run)


def all_seen(run: Run, looks: Mapping[str, State[Any] | None]) -> bool:
    """Say whether every control plane was seen that is not gone, and none that is; what is wrong becomes an error each.

    etcd on a host that nobody sees may go on with the old data: with a restored one beside it there are two clusters.
    """
    planes = [one.name for one in run.cluster.control_planes]
    for name in (name for name in planes if len(planes) > 1 and name in looks and looks[name] is None):
        message = "it was not seen, and a member of etcd that goes on there would make two clusters of one"
        fix = f"Bring {name} back. Where that machine is gone for good, or lies switched off: `--gone {name}`."
        run.results.append(fail_by(Refused(message, code="SHW-753", fix=fix), name, StageName.RESTORE_POSSIBLE))
    for name in (name for name in run.backup.gone if name in known_of(run)):
        message = "it was called gone, and it answers"
        fix = f"Leave `--gone {name}` away: its part is stopped, and it joins anew."
        run.results.append(fail_by(Refused(message, code="SHW-754", fix=fix), name, StageName.RESTORE_POSSIBLE))
    return not any(result.stage == StageName.RESTORE_POSSIBLE for result in run.results) and any(
        looks.get(name) is not None for name in planes
    )


async def contradicting(run: Run) -> list[ErrorReport]:
    """Return what contradicts the cluster file, but for a control plane that is gone: that is what a restore is for."""
    return [fault for fault in await disagreement(run) if fault.code != "SHW-318"]


def end(run: Run) -> State[Report]:
    """Return the flow run's final state: completed where the backup is in its place, else failed with the causes."""
    report = run.report or report_of_verb(run)
    said = f"backup {run.backup.source}; {run.proof_said}"
    message = f"{report.outcome}: {causes(report.errors) if report.errors else said}"
    return final_state(report, message)
