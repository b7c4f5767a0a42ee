"""Certificates: look at all of them, renew what ends soon, prove what is served. `python -m flows.certificates`."""

from __future__ import annotations

if __name__ == "__main__":  # first of all, as in flows.bootstrap
    import runpy

    runpy.run_module("flows.cli.certificates", run_name="__main__", alter_sys=True)

import asyncio
from typing import Literal

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import Manner, as_states, final_state, run_name, running
from shipway.errors import Refused
from shipway.kubeadm.certificates import WITHIN_DAYS
from shipway.stage import StageName
from shipway.steps.kubernetes.serving_requests import is_declared
from tasks.certificates.report import CertificatesReport, certificates_report, leave_certificates
from tasks.certificates.stages import etcd_expired
from tasks.context import Run
from tasks.locking import lease
from tasks.ownership import disagreement, refusal
from tasks.report import Report
from tasks.run_stage import on
from tasks.stage_result import CLUSTER, causes, report_redacted

LOOKS_AT_ONCE = 50  # as a drift pass
LONGEST_DAYS = 3650  # kubeadm's CAs live that long, and nothing that they sign lives longer


def certificates_name() -> str:
    """Return the flow run's name: "certificates of te", "certificates of te (plan)"."""
    return run_name("certificates of", "plan" if flow_run.parameters.get("mode") == "plan" else "")


@flow(name="certificates", flow_run_name=certificates_name, persist_result=False)
@as_states
async def certificates(  # noqa: PLR0917 - the fields of its form, in their order
    cluster_file: str,
    mode: Literal["renew", "plan"] = "renew",
    within: int = WITHIN_DAYS,
    everything: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are the fields of its form
    hosts: tuple[str, ...] = (),
    report_file: str | None = None,
) -> State[Report]:
    """Renew what ends soon of the control planes' certificates, one control plane at a time; prove what is served.

    Args:
        cluster_file: Path of the cluster file; in a deployment its name in the worker's folder, for example te.yaml.
        mode: plan changes nothing and says what would be renewed and started anew; renew does it.
        within: Renew where a certificate ends within so many days.
        everything: Renew every certificate, whenever it ends; as after a key was seen by somebody.
        hosts: Only these hosts, as the cluster file names them; none given means all.
        report_file: Where the worker writes the report as JSON; none by default, the run has it as an artifact.
    """
    check_days(within)
    plan = mode == "plan"
    manner = Manner(plan, certificates_report, leave_certificates, "certificates")
    async with running(cluster_file, "plan" if plan else "bootstrap", hosts, (), report_file, manner) as run:
        run.certificates.within, run.certificates.everything = within, everything
        await look(run)
        if not plan:
            await take(run)
            await renew(run)
        if is_declared(run.cluster):
            await on(StageName.SERVING_REQUESTS, CLUSTER)
    return end(run)


def check_days(within: int) -> None:
    """Let a number of days pass that can be meant. Raises Refused SHW-740."""
    if not 0 < within <= LONGEST_DAYS:
        message = f"`within` is a number of days from 1 to {LONGEST_DAYS}, and not {within}"
        raise Refused(message, code="SHW-740", fix="Name another one (`--within DAYS`), or leave it out: 90.")


async def look(run: Run) -> None:
    """Look at all hosts. Raises Refused where the file contradicts them."""
    gate = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def one(host: str) -> None:
        async with gate:
            await on(StageName.CERTIFICATES, host)

    await asyncio.gather(*(one(host.name) for host in run.hosts))
    if faults := await disagreement(run):
        raise refusal(faults)


async def take(run: Run) -> None:
    """Take the cluster's lock. Raises Refused where another run has it, or where a control plane cannot be renewed."""
    if refused := [error for some in run.certificates.refusals.values() for error in some]:
        raise refusal([report_redacted(error) for error in refused])
    error = await lease(run)
    if error is not None:
        raise error if isinstance(error, Refused) else Refused(error.message, code=error.code, fix=error.fix)


async def renew(run: Run) -> None:
    """Renew one control plane after the other, each ready before the next; then the kubelets that were cut off.

    What serves no more is mended before the next one is touched.
    """
    joined = [host for host in run.hosts if (seen := run.seen.surveys.get(host.name)) and seen.joined]
    planes = [host.name for host in joined if host in run.cluster.control_planes]
    turns = [(StageName.RENEW_FILES, plane) for plane in planes if etcd_expired(run, planes)]
    for stage, plane in [*turns, *((StageName.RENEW_CERTIFICATES, plane) for plane in planes)]:
        if not await on(stage, plane):
            return
    for host in joined:
        if host.name in run.certificates.kubelets:
            await on(StageName.KUBELET_CERTIFICATES, host.name)


def end(run: Run) -> State[Report]:
    """Return the flow run's final state: completed where all is as wanted (or planned), else failed by its outcome."""
    report = run.report
    if not isinstance(report, CertificatesReport):
        raise TypeError("the run left no report")
    lives = [row.days for row in report.certificates if row.ends]
    soonest = f", the first to end in {min(lives):.0f} days" if lives else ""
    changed = report.counted["changed"]
    said = f"{len(report.certificates)} certificates on {len(report.hosts)} hosts{soonest}; {changed} steps changed"
    why = f"{causes(report.errors)}; " if report.errors else ""
    return final_state(report, f"{report.outcome}: {why}{said}")
