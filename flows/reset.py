"""The reset of a host, or of all: what Kubernetes and a bootstrap brought is taken off. `python -m flows.reset`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.reset", run_name="__main__", alter_sys=True)

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.confirming import confirmed, one_or_all
from flows.retiring import hold, retiring
from flows.running import as_states, run_name, verdict
from flows.waves import all_of
from shipway.cluster_file import load_cluster
from shipway.stage import StageName
from shipway.step import Impact
from tasks.context import Run
from tasks.leading import lead_beside
from tasks.report import Report
from tasks.retire.place import place_all, place_host
from tasks.retire.work import give_up
from tasks.run_stage import on
from tasks.stage_result import CLUSTER


def reset_name() -> str:
    """Return the flow run's name: "reset w2 of te", "reset all of te (plan)"."""
    plan = "plan" if flow_run.parameters.get("mode") == "plan" else ""
    return run_name(f"reset {flow_run.parameters.get('host') or 'all'} of", plan)


@flow(name="reset", flow_run_name=reset_name, persist_result=False)
@as_states
async def reset(  # noqa: PLR0917 - a flow's parameters are the fields of its form
    cluster_file: str,
    host: str = "",
    confirm: str = "",
    mode: Literal["plan", "reset"] = "plan",
    cluster_gone: bool = False,  # noqa: FBT001, FBT002 - as above
    address: str = "",
    report_file: str | None = None,
    whole_cluster: bool = False,  # noqa: FBT001, FBT002
    without: Sequence[str] = (),
) -> State[Report]:
    """Take off a host, or all, what Kubernetes and a bootstrap brought; or (mode plan) say what would go.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        host: The host, by its name in the cluster file; empty for the whole cluster.
        confirm: The name once more, of the host or the cluster, typed by a person: what is on it is LOST.
        mode: plan changes nothing, needs no name, and lists what would go; reset does it.
        cluster_gone: The cluster that the host was of is gone for good, so nobody can say whether it is still a node.
        address: HOST or HOST:PORT of a host that the file does not name.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
        whole_cluster: Reset every host of the file: the cluster ends, and all that runs on it.
        without: Of the whole cluster, hosts that do not answer and stay as they are.
    """
    one_or_all(host, whole=whole_cluster)
    if mode == "reset":
        confirmed(load_cluster(Path(cluster_file)).name if whole_cluster else host, confirm)
    async with retiring(cluster_file, "reset", mode, report_file) as run:
        run.retirement.cluster_gone = cluster_gone
        if whole_cluster:
            place_all(run, without)
            await clear_all(run)
        else:
            await place_host(run, host, address)
            await lead_beside(run, host)
            await clear(run, host)
    return verdict(run)


async def clear(run: Run, host: str) -> None:
    """Run the stages in order; the host ends as one that passes preflight."""
    may = await hold(run, host, await on(StageName.MAY_RESET, host))
    done = await on(StageName.RESET_HOST, host, may)
    if done is not None and run.allow > Impact.NOTHING:
        await on(StageName.PREFLIGHT, host, done)
        if host == run.control.name:
            tell_end(run)


async def clear_all(run: Run) -> None:
    """Reset the workers at once, then the control planes one by one, the one that leads last.

    The control planes are not begun while a worker could not be reset: without them nobody could tell whose it is.
    """
    planes = [host.name for host in run.cluster.control_planes if host.name != run.control.name]
    workers = [name for name in to_reset(run) if name not in (*planes, run.control.name)]
    order = [name for name in (*planes, run.control.name) if name in to_reset(run)]
    before = await hold(run, order[-1], await on(StageName.MAY_RESET_ALL, CLUSTER))
    stand = dict(zip(workers, await all_of(StageName.RESET_HOST, workers, before), strict=True))
    for name in order:
        before = await on(StageName.RESET_HOST, name, before if all(stand.values()) else None)
        stand[name] = before is not None
    if run.allow > Impact.NOTHING:
        await all_of(StageName.PREFLIGHT, [name for name, done in stand.items() if done])
        if stand[order[-1]]:
            tell_end(run)


def to_reset(run: Run) -> list[str]:
    """Return the hosts that are reset with their cluster."""
    return [host.name for host in run.cluster.hosts if host.name not in run.retirement.without]


def tell_end(run: Run) -> None:
    """Move the cluster's kubeconfig aside, and keep for the report where it is."""
    if said := give_up(run):
        run.retirement.left.append(said)
