"""Whether the hosts of a run are those of its cluster file: asked before anything is changed, of late hosts again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shipway.cluster.parts import HostSpec
from shipway.errors import ErrorReport, Refused
from shipway.kube.access import read_authorities
from shipway.ownership.contradictions import contradictions
from shipway.ownership.evidence import Evidence, evidence
from shipway.retry import patiently
from shipway.stage import StageName
from tasks.causes import group_errors
from tasks.context import Run
from tasks.leading import adopt_endpoint, ask_endpoint, choose, known
from tasks.stage_result import StageResult


async def disagreement(run: Run) -> list[ErrorReport]:
    """Return every contradiction between the cluster file and the hosts, those of the run and the control plane's.

    A run about some hosts asks the control plane's host as well, and where that holds no control plane all others: a
    cluster may be there already. Raises what keeps from asking the control plane's host: without its answer nobody can
    tell whose the hosts are.
    """
    await choose(run)
    seen = known(run)
    if run.only and run.control.name not in seen:
        seen[run.control.name] = await patiently(lambda: _ask(run, run.control))
    first = seen.get(run.control.name)
    if run.only and first is not None and first.standing != "control plane":
        rest = [host for host in run.cluster.hosts if host.name not in seen]
        answers = await asyncio.gather(*(_ask(run, host) for host in rest), return_exceptions=True)
        seen |= {one.host: one for one in answers if isinstance(one, Evidence)}
    run.seen.elsewhere = tuple(one for name, one in seen.items() if name not in run.seen.surveys)
    await ask_endpoint(run)
    faults = judge(run)
    adopt_endpoint(run, known(run))
    return faults


def keep(run: Run, faults: Sequence[ErrorReport]) -> bool:
    """Keep contradictions as what their hosts' preflights failed by; return whether there are any."""
    run.results += [StageResult(fault.host, StageName.PREFLIGHT, "failed", errors=(fault,)) for fault in faults]
    return bool(faults)


def judge(run: Run, *will_be: Evidence) -> list[ErrorReport]:
    """Return the contradictions by all that is known now, and by what hosts will show; asks nobody."""
    seen = {**known(run), **{one.host: one for one in will_be}}
    kept = read_authorities(run.folder / "kubeconfig")
    return contradictions(run.cluster, list(seen.values()), kept=kept, reset=run.reset)


def refusal(faults: list[ErrorReport]) -> Refused:
    """Return one refusal that names them all, each host and cause once, with the first one's code."""
    causes = group_errors(faults)
    said = "; ".join(dict.fromkeys(f"{one.who}: {one.cause}" for one in causes))
    fix = " ".join(dict.fromkeys(one.fix for one in causes))
    return Refused(f"nothing was changed: {said}", code=faults[0].code, fix=fix)


async def _ask(run: Run, host: HostSpec) -> Evidence:
    return await evidence(run.session(host.name))
