"""Approvals of repairs and waves: the flow run pauses, a form in Prefect's UI shows the plan and takes the answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import apause_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from pydantic import Field

from shipway.step import Impact
from tasks.context import Run
from tasks.drift.parts import cluster_parts, host_parts
from tasks.drift.permission import Permission, entry_of, permission_now, repairable
from tasks.drift.report import findings_of
from tasks.findings import Finding

APPROVAL_SECONDS = 3600  # the lock of the cluster is held meanwhile: without an answer, the next pass asks again
# Prefect's own time-out lets the run end only as Failed ("never resumed"): ours comes first, and answers as people do.
GRACE_SECONDS = 300
AGAIN_SECONDS = 2.0
POLL_SECONDS = 2
SHOWN = 60
Answer = TypeVar("Answer", bound=RunInput)


class Approval(RunInput):
    """The form."""

    approve: bool = Field(default=False, title="Repair", description="On: repair what is listed. Off: change nothing.")
    leave_out: list[str] = Field(
        default_factory=list, title="Leave out", description="Hosts that are not touched this time."
    )
    comment: str = Field(default="", title="Comment", description="Kept in the log of this run.")


def find_repairable(run: Run, allowed: Permission) -> list[Finding]:
    """Return the findings that this pass would repair."""
    most: dict[tuple[str, str], Impact] = {(part.host, part.stage): part.most for part in cluster_parts(run)}
    for host in run.hosts:
        most |= {(part.host, part.stage): part.most for part in host_parts(run, host)}
    return [
        finding
        for finding in findings_of(run)
        if (finding.host, finding.stage) in most
        and repairable(run, allowed, finding, most[finding.host, finding.stage])
    ]


async def ask_approval(run: Run, path: str) -> Approval | None:
    """Show the plan and wait for the answer; no answer within an hour is a no.

    Gives None where there is nothing to approve. What was approved is kept in the run: nothing else is repaired, and
    that only as far as is allowed when its turn comes.
    """
    plan = find_repairable(run, permission_now(run))
    if not plan:
        return None
    form = Approval.with_initial_data(description=describe_plan(plan, path))
    answer = await _ask(run, form, Approval(approve=False, comment=_unanswered()))
    if answer.approve:
        run.drift.approved = frozenset(entry_of(finding) for finding in plan if finding.host not in answer.leave_out)
    get_run_logger().info("repair %s: %s", "approved" if answer.approve else "refused", answer.comment or "no comment")
    return answer


def _unanswered() -> str:
    return f"no answer within {APPROVAL_SECONDS // 60} minutes"


async def _ask(run: Run, form: type[Answer], no: Answer) -> Answer:
    """Pause this flow run with a form; returns the answer, `no` where nobody gave one in time."""
    async with _silence_is(no, run.flow_runs[0]):
        try:
            return await apause_flow_run(
                wait_for_input=form, timeout=APPROVAL_SECONDS + GRACE_SECONDS, poll_interval=POLL_SECONDS
            )
        except FlowPauseTimeout:
            return no


@asynccontextmanager
async def _silence_is(no: RunInput, flow_run: UUID) -> AsyncIterator[None]:
    """Answer the form ourselves where nobody does in time; what keeps from it is logged, and it is tried again."""

    async def answer() -> None:
        await asyncio.sleep(APPROVAL_SECONDS)
        while why := await _answer(no, flow_run):  # it has not paused yet, or the API is away: until this is cancelled
            get_run_logger().warning("the approval could not be closed: %s", why)
            await asyncio.sleep(AGAIN_SECONDS)

    answering = asyncio.create_task(answer())
    try:
        yield
    finally:
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering


async def _answer(no: RunInput, flow_run: UUID) -> str:
    """Answer the form; return why that was not taken, empty where it was."""
    try:
        async with get_client() as client:
            said = await client.resume_flow_run(flow_run, run_input=no.model_dump(exclude={"metadata"}))
    except Exception as error:  # noqa: BLE001 - whatever it is, Prefect's API may be back at the next try
        return str(error) or type(error).__name__
    return "" if said.status is SetStateStatus.ACCEPT else str(getattr(said.details, "reason", "") or said.status.value)


class WaveApproval(RunInput):
    """The form between the waves of an upgrade."""

    approve: bool = Field(default=False, title="Go on", description="On: begin this wave. Off: begin no further host.")
    comment: str = Field(default="", title="Comment", description="Kept in the log of this run.")


async def ask_wave(run: Run, description: str) -> bool:
    """Show what comes next and wait for the answer; no answer within an hour is a no."""
    form = WaveApproval.with_initial_data(description=description)
    answer = await _ask(run, form, WaveApproval(approve=False, comment=_unanswered()))
    said = "approved" if answer.approve else "refused"
    get_run_logger().info("the next wave was %s: %s", said, answer.comment or "no comment")
    return answer.approve


def describe_plan(plan: list[Finding], path: str) -> str:
    """Return the plan as Markdown for the form."""
    lines = [f"# Repair of {path}", "", f"{len(plan)} things drifted and would be repaired:", ""]
    lines += [f"- **{f.host}**: {f.step} ({f.impact.lower()}): {f.have} → {f.want}" for f in plan[:SHOWN]]
    more = [f"- and {len(plan) - SHOWN} more"] if len(plan) > SHOWN else []
    return "\n".join([*lines, *more])
