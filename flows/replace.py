"""Another machine in a host's place: the one goes as in a removal, the other joins as in a bootstrap.

`python -m flows.replace`.
"""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.replace", run_name="__main__", alter_sys=True)

from typing import Any, Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.bootstrap import join_prepared, prepare_after, run_imex
from flows.remove import take_out
from flows.retiring import hold
from flows.running import Manner, as_states, run_name, running, verdict
from flows.verify_gpus import verify
from flows.waves import all_of
from shipway.cluster.model import node_ip
from shipway.stage import StageName
from tasks.artifacts import leave
from tasks.context import Run
from tasks.leading import lead_beside
from tasks.replace.allowed import stays
from tasks.replace.report import replace_report
from tasks.replace.sides import forget_old, keep_old, machine_that_goes, tell_not_reset
from tasks.report import Report
from tasks.retire.report import OF_NODE
from tasks.run_stage import on
from tasks.stage_result import CLUSTER
from tasks.stages.listed import preparation_of
from tasks.workloads import find_busy


def replace_name() -> str:
    """Return the flow run's name: "replace w2 of te", "replace w2 of te (plan)"."""
    plan = "plan" if flow_run.parameters.get("mode") == "plan" else ""
    return run_name(f"replace {flow_run.parameters.get('host')} of", plan)


@flow(name="replace", flow_run_name=replace_name, persist_result=False)
@as_states
async def replace(  # noqa: PLR0917 - a flow's parameters are the fields of its form
    cluster_file: str,
    host: str,
    mode: Literal["plan", "replace"] = "plan",
    dead: bool = False,  # noqa: FBT001, FBT002 - as above
    evict_gpu_pods: bool = False,  # noqa: FBT001, FBT002
    remake: bool = False,  # noqa: FBT001, FBT002
    address: str = "",
    report_file: str | None = None,
) -> State[Report]:
    """Let the machine of the cluster file take a host's place; or (mode plan) say what that means.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        host: The host, by its name in the cluster file, which has the address of the machine that comes.
        mode: plan changes nothing, names every refusal of both halves and what would be done; replace does it.
        dead: The machine that goes does not answer any more and is off for good; only its node and objects are removed.
        evict_gpu_pods: Pods that hold GPUs of the host may be broken off; disruption budgets are kept all the same.
        remake: The machine that goes is the one of the file: it is taken out, reset, and joined anew.
        address: HOST or HOST:PORT of the machine that goes; by default its node's own address.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    plan = mode == "plan"
    manner = Manner(plan, replace_report, leave, "replace")
    async with running(cluster_file, "plan" if plan else "bootstrap", (host,), (), report_file, manner) as run:
        run.retirement.host, run.retirement.dead, run.retirement.evict_gpu_pods = host, dead, evict_gpu_pods
        run.retirement.to_replace = True
        run.replacement.remake, run.replacement.address = remake, address
        await lead_beside(run, host)
        await exchange(run, host)
    return verdict(run)


async def exchange(run: Run, host: str) -> None:
    """Look at both machines; prepare the one that comes, let the other go, join, and prove.

    A machine that is made anew is prepared once it is reset, any other one before: so the host is away only briefly.
    """
    asked = run.replacement
    own, goes = await agree(run, host)
    if own is None:
        return
    if not asked.itself and (own := await prepare_after(run, run.cluster.host(host), own)) is None:
        return
    if asked.old is not None:
        gone = await let_go(run, host, goes)
        if gone is None or (asked.itself and run.mode == "plan"):
            tell_gone(run, host)
            return
        if asked.itself:
            own = await on(StageName.PREFLIGHT, host, gone)
            await find_busy(run)  # what ran there has left, and keeps nothing from the machine that is bare now
    if asked.itself:
        own = await prepare_after(run, run.cluster.host(host), own)
    await join_prepared(run, run.cluster.host(host), own)
    if host not in run.ready:
        tell_gone(run, host)
        return
    await tell_others(run, host)
    await run_imex(run)
    await verify(run, close=True)


async def agree(run: Run, host: str) -> tuple[State[Any] | None, State[Any] | None]:
    """Look at both machines and the cluster, and hold it where nothing forbids to go on.

    What a join asks of the cluster is asked now: a host that is out must be able to come back. Returns the states of
    the machine that comes and of the one that goes, None where something forbids it.
    """
    asked = run.replacement
    own, may = await on(StageName.PREFLIGHT, host), await on(StageName.MAY_REPLACE, host)
    goes = may
    if asked.old is not None:
        with machine_that_goes(run):
            goes = await on(StageName.MAY_REMOVE, host)
    if own is None or may is None or await hold(run, host, goes) is None:
        return None, None
    asked.agreed = asked.old
    if await on(StageName.CONTROL_PLANE_READY, CLUSTER, may) is None:
        return None, None
    tell_what(run, host)
    run.admitted.add(host)
    await find_busy(run)
    return own, goes


async def let_go(run: Run, host: str, goes: State[Any] | None) -> State[Any] | None:
    """Take the machine that goes out; all that forbids it is asked again where the other was prepared meanwhile.

    Returns the state of the last stage, None where one failed.
    """
    again = not run.replacement.itself and run.mode != "plan"
    if again and await on(StageName.MAY_REPLACE, host) is None:
        return None
    with machine_that_goes(run):
        may = await on(StageName.MAY_REMOVE, host) if again else goes
        if may is not None and run.mode != "plan":
            keep_old(run)
        gone = await take_out(run, host, may)
    if gone is not None and run.mode != "plan":
        forget_old(run)
    return gone


async def tell_others(run: Run, host: str) -> None:
    """Let all other hosts know the address where it is a new one; the leading control plane last, as a mark of it.

    Of a control plane they learn in any case: their proxies were loaded without it when it left.
    """
    planes = {one.name for one in run.cluster.control_planes}
    if run.replacement.known and host not in planes:
        return
    lead = run.control.name
    others = [one.name for one in run.cluster.hosts if one.name not in (host, lead)]
    if all(await all_of(StageName.LEARN_ADDRESS, others)):
        await on(StageName.LEARN_ADDRESS, lead)
    if run.cluster.api_vip and not run.cluster.kube_vip_image and host in planes:  # keepalived's have its address
        said = f"the other control planes learn of {host}'s new address, for {run.cluster.api_vip}, by a bootstrap"
        run.retirement.left.append(f"{said}: `shipway bootstrap {run.file}`")
    if run.cluster.gpu.driver.imex == "host" and run.gpus_of(run.cluster.host(host)):
        said = f"where NVLink joins {host}'s GPUs to other hosts', their IMEX learns of its new address by a bootstrap"
        run.retirement.left.append(f"{said}, once no pod holds a GPU there: `shipway bootstrap {run.file}`")


def tell_what(run: Run, host: str) -> None:
    """Keep for the report which machine goes, and which one comes."""
    asked, left, comes = run.replacement, run.retirement.left, run.cluster.host(host).address
    if asked.old is None:
        tell_not_reset(run)
        said = f"{host}: {comes} joins, and no machine has to go for it"
        if stays(run):
            said = (
                f"{host}: {comes} is {host} already, and nothing is taken out. For another machine write its address "
                "into the file; to take out this very one, reset it and join it anew: --remake"
            )
        left.insert(0, said)
        return
    there = asked.old.host(host)
    goes = f"{there.address} is drained, taken out and reset"
    if run.retirement.dead:
        goes = f"the node of {node_ip(there)} is deleted, and its machine, which is gone, stays as it is"
        left.append(
            f"should the machine come back that was {host} at {node_ip(there)}: install it anew before it is on the "
            "network, for its kubelet would start pods that run elsewhere by now"
        )
    if asked.itself:
        stages = ", ".join(preparation_of(run.cluster, run.gpus_of(run.cluster.host(host))))
        left.insert(0, f"{host}: {goes}; then it is prepared anew ({stages}), joins, and its GPUs are proven")
    else:
        left.insert(0, f"{host}: {comes} is prepared; {goes}; then {comes} joins as {host}, and its GPUs are proven")


def tell_gone(run: Run, host: str) -> None:
    """Keep for the report that the host is out and nothing has its place yet."""
    if any(one.stage in OF_NODE and one.outcome == "changed" for one in run.results):
        left = f"{host} is out of the cluster and nothing has its place, in etcd neither where it was a member"
        run.retirement.left.append(f"{left}: the same command goes on")
