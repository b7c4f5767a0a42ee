"""The bootstrap: from machines that answer SSH to a cluster whose GPUs are proven. `python -m flows.bootstrap`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all: the command line starts Prefect's API, and imports Prefect meanwhile
    import runpy

    runpy.run_module("flows.cli.bootstrap", run_name="__main__", alter_sys=True)

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.admission import Admission
from flows.running import as_states, run_name, running, verdict
from flows.verify_gpus import verify
from shipway.cluster.parts import HostSpec
from shipway.stage import StageName
from tasks.context import Run
from tasks.leading import left_out, order_of_joins
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER, fail_by
from tasks.stages.listed import add_ons_of, preparation_of

Ready = asyncio.Task[State[Any] | None]


def bootstrap_name() -> str:
    """Return the flow run's name: "bootstrap te", "bootstrap te (plan)"."""
    return run_name("bootstrap", "plan" if flow_run.parameters.get("mode") == "plan" else "")


@flow(name="bootstrap", flow_run_name=bootstrap_name, persist_result=False)
@as_states
async def bootstrap(
    cluster_file: str,
    mode: Literal["bootstrap", "plan"] = "bootstrap",
    hosts: tuple[str, ...] = (),
    reset: tuple[str, ...] = (),
    report_file: str | None = None,
) -> State[Report]:
    """Bring up the cluster of a cluster file, or (mode plan) say what that would change; run again to resume.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        mode: plan changes nothing and says what would be changed; bootstrap changes it.
        hosts: Only these hosts, as the cluster file names them; none given means all.
        reset: Hosts whose unknown etcd data may be LOST; none, unless a person decided so.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    async with running(cluster_file, mode, hosts, reset, report_file) as run:
        await bring_up(run)
        if run.ready:
            await verify(run, close=True)
    return verdict(run)


async def bring_up(run: Run) -> None:
    """Run every stage up to the verification, each as soon as what it builds on is there."""
    async with asyncio.TaskGroup() as together:
        admission = Admission(run, together)
        ready = together.create_task(control_plane(run, admission))
        together.create_task(first_node(run, ready))
        together.create_task(further_control_planes(run, admission, ready))
        together.create_task(add_ons(run, ready))
        for host in run.hosts:
            if host not in run.cluster.control_planes:
                together.create_task(worker(run, host, admission, ready))
    await run_imex(run)


async def run_imex(run: Run) -> None:
    """Have hosts run IMEX where the file says so: each has the others in its list, so all have their driver by now."""
    if run.cluster.gpu.driver.imex == "host":
        ready = [host.name for host in run.hosts if host.name in run.ready and run.gpus_of(host)]
        await asyncio.gather(*(on(StageName.GPU_IMEX, name) for name in ready))


async def prepare(run: Run, host: HostSpec, admission: Admission) -> State[Any] | None:
    """Prepare one host, whatever the others do."""
    return await prepare_after(run, host, await admission.of(host.name))


async def prepare_after(run: Run, host: HostSpec, state: State[Any] | None) -> State[Any] | None:
    """Prepare a host that may be changed."""
    for stage in preparation_of(run.cluster, run.gpus_of(host)):
        state = await on(stage, host.name, state)
    return state


async def control_plane(run: Run, admission: Admission) -> State[Any] | None:
    """Initialise the first control plane as soon as its own host is prepared, and wait until it answers."""
    await admission.contradicted()  # from then on it is known which of them leads
    host = run.control
    if host not in run.hosts:  # a run about other hosts only asks the control plane
        return await on(StageName.CONTROL_PLANE_READY, CLUSTER)
    own = await on(StageName.CONTROL_PLANE, host.name, await prepare(run, host, admission))
    return await on(StageName.CONTROL_PLANE_READY, CLUSTER, own)


async def first_node(run: Run, ready: Ready) -> None:
    """Set labels and taints of the control plane's own node."""
    state = await ready
    if run.control in run.hosts:
        await set_node(run, run.control, state)


async def further_control_planes(run: Run, admission: Admission, ready: Ready) -> None:
    """Join the other control planes one at a time, each once etcd and the API server of the one before it are ready."""
    await admission.contradicted()
    others = [host for host in run.hosts if host in run.cluster.control_planes and host != run.control]
    states = await asyncio.gather(*(prepare(run, host, admission) for host in others))
    own = dict(zip((host.name for host in others), states, strict=True))
    await join_in_order(run, own, await ready)


async def join_in_order(run: Run, own: Mapping[str, State[Any] | None], before: State[Any] | None) -> None:
    """Join control planes one at a time; `own` are the states of their hosts, None of one that is not prepared."""
    order, last = order_of_joins(run, [run.cluster.host(name) for name, state in own.items() if state is not None])
    for host in order:
        before = await on(StageName.JOIN_CONTROL_PLANE, host.name, own[host.name], before)
        await set_node(run, host, before)
    if last is not None:
        run.results.append(fail_by(left_out(run, last), last.name, StageName.JOIN_CONTROL_PLANE))


async def worker(run: Run, host: HostSpec, admission: Admission, ready: Ready) -> None:
    """Join a worker as soon as both it and the control plane are ready."""
    await join_worker(run, host, await prepare(run, host, admission), await ready)


async def join_worker(run: Run, host: HostSpec, own: State[Any] | None, control: State[Any] | None) -> None:
    """Join a worker that is prepared; `own` is the state of that, `control` the control plane's."""
    async with run.joining:
        joined = await on(StageName.JOIN_WORKER, host.name, own, control)
    await set_node(run, host, joined)


async def join_prepared(run: Run, host: HostSpec, own: State[Any] | None) -> None:
    """Join one host that is prepared to the cluster that answers."""
    control = await on(StageName.CONTROL_PLANE_READY, CLUSTER, own)
    if host in run.cluster.control_planes:
        await join_in_order(run, {host.name: own}, control)
    else:
        await join_worker(run, host, own, control)


async def set_node(run: Run, host: HostSpec, joined: State[Any] | None) -> None:
    """Set labels and taints of a node; then it is one of those that are verified."""
    if await on(StageName.NODE_SETTINGS, host.name, joined):
        run.ready.add(host.name)


async def add_ons(run: Run, ready: Ready) -> None:
    """Bring the pod network, then what runs on it, while workers join."""
    if run.only:
        return  # a run about some hosts leaves what all share as it is
    network = await on(StageName.POD_NETWORK, CLUSTER, await ready)
    await asyncio.gather(*(on(stage, CLUSTER, network) for stage in add_ons_of(run.cluster)))
