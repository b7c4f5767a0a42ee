"""Hardening of a running cluster, one control plane after the other. `python -m flows.harden`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.harden", run_name="__main__", alter_sys=True)

import asyncio
from typing import Any, Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import Manner, as_states, end_by_steps, run_name, running
from shipway.cluster.parts import HostSpec
from shipway.errors import Refused
from shipway.stage import StageName
from tasks.context import Run
from tasks.judging import report_of_verb
from tasks.locking import lease
from tasks.ownership import disagreement, keep
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER, fail_by

LOOKS_AT_ONCE = 50  # as a drift pass


def harden_name() -> str:
    """Return the flow run's name: "harden te", "harden te (plan)"."""
    return run_name("harden", "plan" if flow_run.parameters.get("mode") == "plan" else "")


@flow(name="harden", flow_run_name=harden_name, persist_result=False)
@as_states
async def harden(
    cluster_file: str,
    mode: Literal["harden", "plan"] = "harden",
    report_file: str | None = None,
) -> State[Report]:
    """Bring what `hardening` of a cluster file declares to a running cluster, and prove it; run again to resume.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        mode: plan changes nothing and says what would be changed and what keeps from it; harden does it.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    plan = mode == "plan"
    manner = Manner(only_looks=plan, report=report_of_verb, kind="harden")
    async with running(cluster_file, "plan" if plan else "harden", (), (), report_file, manner) as run:
        if await may_begin(run):
            await close(run)
    return end_by_steps(run)


async def may_begin(run: Run) -> bool:
    """Look at every host and at what would be refused, all of it before anything is changed; then take the lock."""
    gate = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def look(host: HostSpec) -> State[Any] | None:
        async with gate:
            return await on(StageName.PREFLIGHT, host.name)

    names = [host.name for host in run.hosts]
    looks = dict(zip(names, await asyncio.gather(*(look(host) for host in run.hosts)), strict=True))
    if keep(run, await disagreement(run)):
        return False
    planes = run.cluster.control_planes
    bare = [host.name for host in planes if (seen := run.seen.surveys.get(host.name)) and not seen.joined]
    if bare:
        message = f"{', '.join(bare)} runs no control plane yet: a bootstrap makes it, with what `hardening` declares"
        error = Refused(message, host=bare[0], code="SHW-813", fix="Run `shipway bootstrap FILE`.")
        run.results.append(fail_by(error, bare[0], StageName.MAY_HARDEN))
        return False
    possible = [await on(StageName.MAY_HARDEN, host.name, looks[host.name]) for host in planes]
    if None in possible:  # one that lacks the key, or was not asked, could read nothing of what the others encrypt
        return False
    if (kept_out := await lease(run)) is not None:
        run.results.append(fail_by(kept_out, run.control.name, StageName.MAY_HARDEN))
        return False
    run.admitted |= {host.name for host in run.hosts}
    return True


async def close(run: Run) -> None:
    """Bring files everywhere, then each control plane, kubeadm's record, Secrets, and the kubelets one by one.

    What does not succeed ends the run: the next control plane is not touched while one does not serve.
    """
    state: State[Any] | None = None
    for host in run.cluster.control_planes:
        state = await on(StageName.HARDEN_FILES, host.name)
        if state is None:
            return
    for host in run.cluster.control_planes:
        state = await on(StageName.HARDEN_CONTROL_PLANE, host.name, state)
        if state is None:
            return
    recorded = await on(StageName.HARDEN_RECORD, CLUSTER, state)
    if run.cluster.hardening.encryption_at_rest:
        await on(StageName.SEAL_SECRETS, run.control.name, recorded)
    for host in run.hosts:  # one at a time; a kubelet that does not come back keeps the others as they are
        seen = run.seen.surveys.get(host.name)
        if seen is not None and seen.joined and await on(StageName.HARDEN_HOST, host.name, recorded) is None:
            return
