"""A CA of the cluster is replaced by a new one, in stages that can each be rested at. `python -m flows.rotate_ca`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.rotate_ca", run_name="__main__", alter_sys=True)

from pathlib import Path
from typing import Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.confirming import confirmed_rotation
from flows.running import Manner, as_states, end_by_steps, run_name, running
from flows.waves import all_of, may_change
from shipway.cluster_file import load_cluster
from shipway.stage import StageName
from shipway.steps.authority.which import ALL, CLUSTER_CA, ETCD_CA, SERVICE_ACCOUNTS, Of
from tasks.authority.look import planes
from tasks.context import Run
from tasks.endpoint import look
from tasks.judging import report_of_verb
from tasks.ownership import disagreement
from tasks.passes.authority import Until
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER


def rotate_ca_name() -> str:
    """Return the flow run's name: "rotate-ca of te", "rotate-ca of te (plan)", "rotate-ca of te (etcd)"."""
    of = flow_run.parameters.get("of", "cluster")
    words = ["" if of == "cluster" else of, "plan" if flow_run.parameters.get("mode") == "plan" else ""]
    return run_name("rotate-ca of", ", ".join(filter(None, words)))


@flow(name="rotate-ca", flow_run_name=rotate_ca_name, persist_result=False)
@as_states
async def rotate_ca(  # noqa: PLR0917 - a flow's parameters are the fields of its form
    cluster_file: str,
    confirm: str = "",
    mode: Literal["plan", "rotate"] = "plan",
    until: Until = "end",
    back: bool = False,  # noqa: FBT001, FBT002 - as above
    beside_gpu_pods: bool = False,  # noqa: FBT001, FBT002
    despite_pods: bool = False,  # noqa: FBT001, FBT002
    of: Of = "cluster",
    despite_tokens: bool = False,  # noqa: FBT001, FBT002
    report_file: str | None = None,
) -> State[Report]:
    """Replace a CA of the cluster by a new one, or (mode plan) say what forbids it and what would be changed where.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        confirm: The cluster's name once more, typed by a person.
        mode: plan changes nothing and needs no name; rotate does it, or goes on with what was begun.
        until: Rest once both are trusted (trust), once nothing is signed by the old one (certificates).
        back: Go back to the old CA; possible until the first host trusts the new one alone.
        beside_gpu_pods: Restart kubelets where pods hold GPUs as well; pods go on. Of the cluster's CA alone.
        despite_pods: Go on though pods of others have read the old CA alone, and will not reach the API any more.
        of: Which CA: that of the cluster, of etcd, or of the front proxy; or the key that signs tokens.
        despite_tokens: Go on though Secrets of others hold tokens of the old key, which end with it.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    plan = mode == "plan"
    if not plan:
        confirmed_rotation(load_cluster(Path(cluster_file)).name, confirm)
    manner = Manner(only_looks=plan, report=report_of_verb, kind="rotate-ca")
    async with running(cluster_file, "plan" if plan else "rotate-ca", (), (), report_file, manner) as run:
        own = run.authority
        own.of = ALL[of]
        own.until, own.back, own.beside_gpu_pods, own.despite_pods = until, back, beside_gpu_pods, despite_pods
        own.despite_tokens = despite_tokens
        if await may_begin(run):
            await go(run)
    return end_by_steps(run)


async def may_begin(run: Run) -> bool:
    """Look at every host and the cluster, so that all refusals are named before anything is changed; take the lock."""
    return await may_change(run, StageName.AUTHORITY_LOOK, StageName.AUTHORITY_POSSIBLE, disagreement)


async def go(run: Run) -> None:
    """Rotate it, or take out what an earlier rotation left; one that was made anew within a day is as wanted."""
    if run.authority.left:
        await on(StageName.AUTHORITY_ALONE, CLUSTER)
    elif not run.authority.made:
        await rotate(run)


async def rotate(run: Run) -> None:
    """Go from stage to stage; what does not succeed ends it, and both CAs are trusted where that was reached."""
    own, first = run.authority, planes(run)
    first.sort(key=lambda name: name != own.source)
    if not await one_by_one(StageName.AUTHORITY_MADE, first):
        return
    if not own.dropping and not await renew(run):
        return
    if run.mode == "plan" or await on(StageName.AUTHORITY_PROOF, CLUSTER) is not None:
        await drop(run)


async def renew(run: Run) -> bool:
    """Let every host trust both CAs, then have all signed by the wanted one; say whether the other one may go."""
    own = run.authority
    trusted = await everywhere(run, StageName.AUTHORITY_TRUSTED)
    if own.of is SERVICE_ACCOUNTS:
        return trusted and await renew_tokens(run)
    if not trusted or not await told(run, StageName.AUTHORITY_TOLD):
        return False
    if own.until == "trust" or (own.stale and not own.despite_pods):
        return False
    if not await one_by_one(StageName.AUTHORITY_SIGNS, planes(run)):
        return False
    kubelets = own.of is not CLUSTER_CA or await everywhere(run, StageName.AUTHORITY_KUBELETS)
    return kubelets and own.until != "certificates"


async def renew_tokens(run: Run) -> bool:
    """Have tokens signed by the wanted key, then those that are kept; say whether the other one may go."""
    own = run.authority
    if own.until == "trust" or not await one_by_one(StageName.AUTHORITY_SIGNS, planes(run)):
        return False
    told_all = await on(StageName.AUTHORITY_TOLD, CLUSTER) is not None
    return told_all and not own.stale and own.until != "certificates"


async def drop(run: Run) -> None:
    """Let every host trust the wanted CA alone; the folder of both goes last, for it says that this has begun."""
    done = await everywhere(run, StageName.AUTHORITY_DROPPED)
    if done and await told(run, StageName.AUTHORITY_ALONE):
        await one_by_one(StageName.AUTHORITY_KEPT, list(reversed(planes(run))))


async def told(run: Run, stage: StageName) -> bool:
    """Run a stage of what the cluster is told of the CA; of etcd's it is told nothing."""
    return run.authority.of is ETCD_CA or await on(stage, CLUSTER) is not None


async def everywhere(run: Run, stage: StageName) -> bool:
    """Run a stage on the control planes one by one, on one worker alone, then on all others at once.

    Workers know of the cluster's CA alone.
    """
    control = planes(run)
    if run.authority.of is not CLUSTER_CA:
        return await one_by_one(stage, control)
    workers = [host.name for host in look.running(run).hosts if host.name not in control]
    return await one_by_one(stage, [*control, *workers[:1]]) and all(await all_of(stage, workers[1:]))


async def one_by_one(stage: StageName, hosts: list[str]) -> bool:
    """Run a stage on one host after the other, until one does not succeed; say whether all did."""
    for host in hosts:
        if await on(stage, host) is None:
            return False
    return True
