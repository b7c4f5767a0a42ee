"""A running cluster's endpoint is moved to a name, ours or a load balancer's. `python -m flows.move_endpoint`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.move_endpoint", run_name="__main__", alter_sys=True)

from typing import Any, Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import Manner, as_states, end_by_steps, run_name, running
from flows.waves import all_of, may_change
from shipway.stage import StageName
from tasks.context import Run
from tasks.endpoint import look
from tasks.judging import report_of_verb
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER


def move_endpoint_name() -> str:
    """Return the flow run's name: "move-endpoint of te", "move-endpoint of te (plan)"."""
    return run_name("move-endpoint of", "plan" if flow_run.parameters.get("mode") == "plan" else "")


@flow(name="move-endpoint", flow_run_name=move_endpoint_name, persist_result=False)
@as_states
async def move_endpoint(
    cluster_file: str,
    mode: Literal["move", "plan"] = "move",
    beside_gpu_pods: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are the fields of its form
    report_file: str | None = None,
) -> State[Report]:
    """Move a running cluster's endpoint to the name of its cluster file, and prove that no place kept the old one.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        mode: plan changes nothing, names every refusal, and what would be changed where; move does it.
        beside_gpu_pods: Restart kubelets where pods hold GPUs as well; without it they ask the old address on.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    plan = mode == "plan"
    manner = Manner(only_looks=plan, report=report_of_verb, kind="move-endpoint")
    async with running(cluster_file, "plan" if plan else "move-endpoint", (), (), report_file, manner) as run:
        run.endpoint.beside_gpu_pods = beside_gpu_pods
        if await may_begin(run):
            await move(run)
    return end_by_steps(run)


async def may_begin(run: Run) -> bool:
    """Look at every host and the cluster, so that all refusals are named before anything is changed; take the lock."""
    return await may_change(run, StageName.ENDPOINT_LOOK, StageName.ENDPOINT_POSSIBLE, look.contradicted)


async def move(run: Run) -> None:
    """Certificates first, then every host's way, then what is read by others; what does not succeed ends it.

    Until every host has asked the API by its name nothing names it, and a run that ends there has changed no way. The
    way that the endpoint before had goes last, once no place names it.
    """
    joined = look.running(run)
    planes, workers = [host.name for host in joined.control_planes], [host.name for host in joined.workers]
    for host in planes:
        if await on(StageName.ENDPOINT_CERTIFICATE, host) is None:
            return
    if not all(await all_of(StageName.ENDPOINT_WAY, [*planes, *workers])):
        return
    state = await on(StageName.ENDPOINT_RECORD, CLUSTER)
    if not await in_turn(StageName.ENDPOINT_KUBECONFIGS, planes, workers, state):
        return
    state = await on(StageName.ENDPOINT_KUBE_PROXY, CLUSTER, state)
    if run.mode != "plan":
        state = await on(StageName.ENDPOINT_PROOF, CLUSTER, state)
    await in_turn(StageName.ENDPOINT_OLD_WAY, planes, workers, state)


async def in_turn(stage: StageName, planes: list[str], workers: list[str], after: State[Any] | None) -> bool:
    """Run a stage on control planes one at a time, on one worker alone, then on all others; say whether all succeeded.

    What is wrong with one worker is wrong with all.
    """
    for host in (*planes, *workers[:1]):
        after = await on(stage, host, after)
    return after is not None and all(await all_of(stage, workers[1:], after))
