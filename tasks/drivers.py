"""The driver of a host's GPUs in a bootstrap: installed on a host that has not joined, only looked at on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shipway.converge import converge
from shipway.step import Impact, StepResult
from shipway.steps.gpu.driver.module import why_restart_for
from shipway.steps.maintain.restart import RunsInstalled
from shipway.survey.first_look import survey
from tasks.context import Run
from tasks.locking import claim_again
from tasks.stages import gpu_driver
from tasks.waiting import hear_results, hear_waits, wait_for
from tasks.workloads import permit_undisturbed

RESTART = "the host runs the driver that is installed"
PROOF_SECONDS = 300.0  # a driver answers within that after a start, with eight GPUs too


def restart_step(run: Run, stage: str, host: str) -> RunsInstalled:
    """Return the step that restarts a host where its driver asks for it, and for nothing else."""
    family, cluster = run.family(host), run.cluster

    async def anew() -> None:
        await run.connect_anew(host)

    return RunsInstalled(
        family,
        "never",
        cluster.runtime.package,
        gpus=True,
        minutes=cluster.maintain.reboot_minutes,
        more=lambda on: why_restart_for(on, family),
        anew=anew,
        on_wait=hear_waits(run, stage, host),
        name=RESTART,
    )


async def install_driver(run: Run, stage: str, host: str) -> list[StepResult]:
    """Install the driver of a host that has not joined; of one in service say what its driver is, and hold it."""
    cluster, spec, session = run.cluster, run.cluster.host(host), run.session(host)
    session.forget()
    seen, family, hear = run.seen.surveys.get(host), run.family(host), hear_results(run, stage, host)
    if seen is None or seen.joined:
        steps = gpu_driver.declared(cluster, spec, family, run.file)
        return await converge(steps, session, min(run.allowed(host), Impact.FILES), hear)
    before, after = gpu_driver.before_restart(cluster, spec, family), gpu_driver.after_restart(cluster, spec, family)
    if not before:
        return []
    asked = [*gpu_driver.checks(cluster, spec, family), *before, restart_step(run, stage, host)]
    results = await converge(asked, session, run.allowed(host), hear, permit_undisturbed(run, host))
    if any(one.outcome == "failed" for one in results):
        return results
    if restarted(results):
        await claim_again(run, host)
    session.forget()
    results += await converge(after, session, run.allowed(host), hear, permit_undisturbed(run, host))
    if run.allow is Impact.NOTHING or any(one.outcome == "failed" for one in results):
        return results
    results += await prove_driver(run, stage, host)
    run.seen.surveys[host] = replace(await survey(session), notices=seen.notices, vouched=seen.vouched)
    return results


def restarted(results: Sequence[StepResult]) -> bool:
    """Say whether the host was restarted."""
    return results[-1].outcome == "changed"


async def prove_driver(run: Run, stage: str, host: str) -> list[StepResult]:
    """Wait until every GPU of a host answers its driver, and they are joined."""
    checks = gpu_driver.proof(run.cluster.host(host))
    session = run.session(host)
    return [await wait_for(run, stage, one, session, seconds=PROOF_SECONDS) for one in checks]
