"""The removal of a host: drained, taken out of its cluster, and reset. `python -m flows.remove`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.remove", run_name="__main__", alter_sys=True)

from typing import Any, Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.retiring import hold, retiring
from flows.running import as_states, run_name, verdict
from flows.waves import all_of
from shipway.stage import StageName
from tasks.context import Run
from tasks.leading import lead_beside
from tasks.report import Report
from tasks.retire.place import place_host
from tasks.retire.work import tell_closed
from tasks.run_stage import on
from tasks.stage_result import CLUSTER


def remove_name() -> str:
    """Return the flow run's name: "remove w2 from te", "remove w2 from te (plan)"."""
    plan = "plan" if flow_run.parameters.get("mode") == "plan" else ""
    return run_name(f"remove {flow_run.parameters.get('host')} from", plan)


@flow(name="remove", flow_run_name=remove_name, persist_result=False)
@as_states
async def remove(  # noqa: PLR0917 - a flow's parameters are the fields of its form
    cluster_file: str,
    host: str,
    mode: Literal["plan", "remove"] = "plan",
    dead: bool = False,  # noqa: FBT001, FBT002 - as above
    evict_gpu_pods: bool = False,  # noqa: FBT001, FBT002
    address: str = "",
    report_file: str | None = None,
    to_replace: bool = False,  # noqa: FBT001, FBT002
) -> State[Report]:
    """Take a host out of its cluster: drain it, delete its node, reset it; or (mode plan) say what that means.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        host: The host, by its name in the cluster file or as a node of the cluster.
        mode: plan changes nothing, names every refusal and what would be done; remove does it.
        dead: The machine does not answer any more and is off for good; only its node and objects are removed.
        evict_gpu_pods: Pods that hold GPUs of the host may be broken off; disruption budgets are kept all the same.
        address: HOST or HOST:PORT of a host that the file does not name; by default its node's own address.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
        to_replace: Another machine takes a control plane's place right after: etcd may be even in number until then.
    """
    async with retiring(cluster_file, "remove", mode, report_file) as run:
        run.retirement.dead, run.retirement.evict_gpu_pods = dead, evict_gpu_pods
        run.retirement.to_replace = to_replace
        await place_host(run, host, address)
        await lead_beside(run, host)
        await remove_host(run, host)
    return verdict(run)


async def remove_host(run: Run, host: str) -> None:
    """Ask whether the host may go, hold the cluster, take it out, and tell what that leaves to a person."""
    may = await hold(run, host, await on(StageName.MAY_REMOVE, host))
    await take_out(run, host, may)
    if may is not None:
        tell_left(run, host)


async def take_out(run: Run, host: str, may: State[Any] | None) -> State[Any] | None:
    """Run the stages in order, each on the one before it; a host that is dead has only its node's and its member's.

    `may` is the state of what allows it, with the cluster held. Returns that of the last stage, None where one failed.
    """
    plane = run.retirement.control_plane
    before = await leave_api(run, host, may) if plane else may
    if not run.retirement.dead:
        before = await on(StageName.STOP_KUBELET, host, await on(StageName.DRAIN_NODE, host, before))
    if plane:
        before = await on(StageName.LEAVE_ETCD, CLUSTER, before)
    before = await on(StageName.DELETE_NODE, CLUSTER, before)
    if not run.retirement.dead:
        before = await on(StageName.RESET_HOST, host, before)
    if before is None:
        await tell_closed(run)
    return before


async def leave_api(run: Run, host: str, may: State[Any] | None) -> State[Any] | None:
    """Let every worker's way to the API lead past a control plane; return None where one could not be told."""
    if not run.cluster.api_name:
        then = ", and put the machine in that takes its place" if run.retirement.to_replace else ""
        said = f"{run.cluster.endpoint} is the site's: take {host} out of what stands behind it{then}"
        run.retirement.left.append(said)
        return may
    workers = [one.name for one in run.cluster.workers if one.name != host]
    return may if all(await all_of(StageName.LEAVE_API, workers, may)) else None


def tell_left(run: Run, host: str) -> None:
    """Keep for the report what a removal leaves to a person."""
    if run.retirement.declared:
        run.retirement.left.append(
            f"{host} still stands in {run.file}: take it out of the file, or the next bootstrap joins it again"
        )
    if run.retirement.dead:
        run.retirement.left.append(
            f"on {host} everything is as it was: should the machine come back, keep it off the network until "
            f"`shipway reset {run.file} {host}` has run there; its kubelet would start pods that run elsewhere by now"
        )
