"""One run at a time on a cluster: the lease in it, and the claim of its control plane's host while there is none."""

from __future__ import annotations

from functools import partial

from shipway.errors import Refused, ShipwayError
from shipway.locks.bare import claim, claim_anew, claim_left
from shipway.locks.lease import hold, holder
from shipway.stage import StageName
from shipway.step import Impact
from tasks.context import Run
from tasks.stage_result import CLUSTER


async def lease(run: Run) -> ShipwayError | None:
    """Hold the cluster until the run ends; return Refused where another run holds it, or what keeps from telling.

    A plan needs none. Two locks are looked at, and one of them is held before anything is changed:

    - the lease in the cluster, where its API answers;
    - the claim of the control plane's host, where there is no cluster yet, or its API does not answer: so a broken
      control plane is repaired, by one run at a time. The lease is taken as soon as the API is back (`new_lease`).

    A run that can have neither, for the control plane's host cannot be reached either, changes nothing.
    """
    if run.allow is Impact.NOTHING:
        return None
    exists = run.control.name not in run.seen.surveys or any(survey.joined for survey in run.seen.surveys.values())
    claim = not exists or await claim_left(run.session(run.control.name))
    kept_out = await _claim(run) if claim else None
    if kept_out is not None or not exists:
        return kept_out
    try:
        await new_lease(run)
    except Refused as refused:
        return refused
    except ShipwayError as error:
        run.view.show_wait(run.control.name, StageName.PREFLIGHT, f"the cluster's lease is not taken: {error.message}")
        return await _claim(run)
    return None


async def claim_host(run: Run) -> ShipwayError | None:
    """Hold the control plane's host until the run ends, and not the lease; return what keeps from it.

    For a run that replaces the cluster's data, and the lease with them: no renewal must find another holder's there.
    That nobody else holds the lease is asked first, where an API answers; `new_lease` takes it when the data are back.
    """
    if run.allow is Impact.NOTHING:
        return None
    try:
        async with hold(run.kube, _who(run)):
            return await _claim(run)
    except Refused as refused:
        return refused
    except ShipwayError:
        return await _claim(run)


async def new_lease(run: Run) -> None:
    """Hold the cluster's lease where the run does not yet: it began on bare hosts, or while the API was away.

    Whatever works through the API comes after this. Raises Refused SHW-102 where another run, begun on another machine,
    was first, and whatever else keeps from taking it: without the lease nothing is changed through the API.
    """
    if run.locks.leased or run.allow is Impact.NOTHING:
        return

    def show(sentence: str) -> None:
        run.view.show_wait(CLUSTER, StageName.PREFLIGHT, sentence)

    await run.locks.until_end.enter_async_context(hold(run.kube, _who(run), partial(_unsure, run), show))
    run.locks.leased = True


def still_alone(run: Run) -> None:
    """Let a stage begin only while the run holds the cluster. Raises Refused with what was lost, and to whom.

    What is at work on a host when the lease is lost is not broken off: half of it would be worse than all of it.
    """
    if run.locks.lost is not None:
        message = f"the run no longer holds the cluster, so it begins nothing more: {run.locks.lost.message}"
        raise Refused(message, code=run.locks.lost.code, fix=run.locks.lost.fix)


async def _unsure(run: Run, error: ShipwayError | None) -> None:
    """Hear from the lease: somebody else has it; it was not renewed for long, so the host is claimed; it is renewed."""
    if isinstance(error, Refused):
        run.locks.leased, run.locks.lost = False, error
    else:
        run.locks.lost = None if error is None else await _claim(run)


async def lease_or_host(run: Run, host: str) -> ShipwayError | None:
    """Hold the cluster as `lease` does; where it is gone for good, hold the host that is reset alone."""
    kept_out = await lease(run)
    if kept_out is None or isinstance(kept_out, Refused) or not run.retirement.cluster_gone:
        return kept_out
    return await _claim(run, host)


async def _claim(run: Run, host: str = "") -> ShipwayError | None:
    """Claim a host, or that of the control plane, until the run ends; return what keeps from it."""
    if not run.locks.claimed:
        try:
            session = run.session(host or run.control.name)
            await run.locks.until_end.enter_async_context(claim(session, _who(run)))
        except ShipwayError as error:
            return error
        run.locks.claimed = True
    return None


async def claim_again(run: Run, host: str) -> None:
    """Hold the control plane's host again after its restart, where the run held it: the claim ends with a boot."""
    if run.locks.claimed and host == run.control.name:
        await claim_anew(run.session(host), _who(run))


def _who(run: Run) -> str:
    return holder(f"{run.kind} of {run.cluster.name}")
