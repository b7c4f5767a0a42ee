"""Whether the machine of the file may take a host's place: all that forbids it, beside what forbids the removal."""

from __future__ import annotations

from typing import Any

from shipway.cluster.model import node_ip
from shipway.converge import look_at_all
from shipway.errors import ErrorReport, Refused, ShipwayError
from shipway.facts.files import FileText
from shipway.kube.client import Kube
from shipway.kube.nodes import nodes_by_name
from shipway.ownership.evidence import Evidence
from shipway.step import Check, Drift, StepResult
from shipway.steps.kubernetes.etcd_members import member_of, members_of
from shipway.steps.reset.kubelet import RESETTING
from tasks.context import Run
from tasks.ownership import disagreement, refusal
from tasks.replace.sides import called_by_lead, find_machine_that_goes, is_half_reset, is_itself
from tasks.retire.allowed import Told, authorities_of
from tasks.waiting import hear_results


class PlaceInEtcd:
    """Once a control plane's member has left, another one may join: every other is whole, and they stay odd."""

    name = "etcd takes the member of another machine in its place"

    def __init__(self, run: Run, host: str) -> None:
        self._run, self._host = run, host

    async def check(self, on: object) -> Drift | None:
        """List the members. Raises Refused SHW-718."""
        del on
        run, lead = self._run, self._run.session(self._run.control.name)
        if run.control.name == self._host:
            raise _of_the_only_one(run)
        lead.forget()
        members = await members_of(lead)
        address = node_ip((run.replacement.old or run.cluster).host(self._host))
        own = member_of(members, self._host, address)
        others = [one for one in members if one is not own]
        if ill := [one.said for one in others if not one.whole]:
            message = f"no control plane joins beside members of etcd that are not healthy: {', '.join(ill)}"
            fix = (
                f"Mend those first. Where their machines are lost too: one `shipway bootstrap {run.file or 'FILE'}` "
                "with bare machines under all those names replaces them together."
            )
            raise Refused(message, host=self._host, code="SHW-718", fix=fix)
        if len(others) % 2:
            message = f"etcd would have {len(others) + 1} members with it, and bear no more losses than with one less"
            fix = f"Let all control planes of the file join first: `shipway bootstrap {run.file or 'FILE'}`."
            raise Refused(message, host=self._host, code="SHW-718", fix=fix)
        return None


def _of_the_only_one(run: Run) -> Refused:
    """Return the refusal for a control plane beside which no other one serves."""
    message = "no other control plane serves: with its machine the cluster's data go"
    fix = (
        f"Name three control planes in the file and run `shipway bootstrap {run.file or 'FILE'}`: then each of "
        "them can be replaced. Where the machine is lost already: `shipway restore`."
    )
    return Refused(message, host=run.control.name, code="SHW-718", fix=fix)


async def _api(run: Run, host: str, faults: list[ErrorReport]) -> Kube:
    """Return the API. Where it cannot be asked, raises first what the file and the hosts say of that."""
    try:
        return await run.kube()
    except ShipwayError:
        if faults:
            raise refusal(faults).at(host=faults[0].host) from None
        if run.control.name == host:
            raise _of_the_only_one(run) from None
        raise


async def may_replace(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look for all that forbids the machine of the file to take a host's place, and keep which machine goes for it.

    Asked again before anything is taken out, it must be the same one. Raises what keeps from asking the cluster.
    """
    asked = run.replacement
    run.retirement.displaced = False
    faults = await disagreement(run)
    kube = await _api(run, host, faults)
    kube.forget()
    node, ours = (await nodes_by_name(kube)).get(host), authorities_of(kube)
    survey, session = run.seen.surveys.get(host), run.session(host)
    seen, begun, resumes = survey.evidence if survey else None, False, False
    asked.itself = False
    if seen is not None:
        begun = await session.read(FileText(RESETTING)) is not None
        resumes = node is None and is_half_reset(seen, ours, begun=begun)
        asked.itself = resumes or is_itself(seen, host, ours)
    asked.known = await called_by_lead(run) == node_ip(run.cluster.host(host))
    asked.old = run.cluster if asked.itself and (asked.remake or resumes) else None
    unknown = None if asked.itself else await find_machine_that_goes(run, node, ours)
    checks: list[Check[Any]] = [
        Told("the file and the hosts agree", refusal(faults).at(host=faults[0].host) if faults else None),
        Told("the machine is bare, or the host's own", _of_machine(run, host, seen, begun=begun)),
        Told("what was asked for fits the machine", _of_options(run, host, exists=node is not None)),
        Told("the machine that goes is known", unknown or _of_change(run, host)),
    ]
    if host in {one.name for one in run.cluster.control_planes} and not stays(run):
        checks.append(PlaceInEtcd(run, host))
    return await look_at_all(checks, kube, hear_results(run, stage, host))


def _of_change(run: Run, host: str) -> Refused | None:
    """Return the refusal where another machine would go than the one by which this run was allowed."""
    before, now = run.replacement.agreed, run.replacement.old
    if before is None or (now is not None and now.host(host) == before.host(host)):
        return None
    was, is_ = (f"{node_ip(one.host(host))}" if one else "none" for one in (before, now))
    message = f"the machine that goes is another one than when this run began: {was} then, {is_} now"
    fix = "See `kubectl get node -o wide` for who has its place; then run again, and it is looked at anew."
    return Refused(message, host=host, code="SHW-718", fix=fix)


def stays(run: Run) -> bool:
    """Say whether the machine of the file has the host's place already, and keeps it."""
    return run.replacement.itself and run.replacement.old is None


def _of_machine(run: Run, host: str, seen: Evidence | None, *, begun: bool) -> Refused | None:
    """Return the refusal for a machine that is in use, or may be, by anybody but the host itself."""
    if seen is None or run.replacement.itself or (seen.bare and not begun):
        return None
    what = "a reset of it has begun" if begun else f"it is in use ({seen.standing}), of {seen.whose}"
    message = f"the machine at {run.cluster.host(host).address} is not bare: {what}"
    fix = (
        "Name a bare machine. What nobody needs there is taken off by `shipway reset`, with the file of its own "
        "cluster; no machine is emptied to take another's place."
    )
    return Refused(message, host=host, code="SHW-718", fix=fix)


def _of_options(run: Run, host: str, *, exists: bool) -> Refused | None:
    """Return the refusal for options by which another machine than this one was meant."""
    asked, where = run.replacement, run.cluster.host(host).address
    if asked.itself and asked.address:
        message = f"--address names the machine that goes, and the one of the file, at {where}, is {host} already"
        fix = "Leave --address away; to have another machine in its place write that one's address into the file."
        return Refused(message, host=host, code="SHW-718", fix=fix)
    if asked.remake and exists and not asked.itself and host in run.seen.surveys:
        message = f"--remake was asked for, and the machine at {where} is another one than the node {host}"
        return Refused(message, host=host, code="SHW-718", fix="Leave --remake away: then this one takes its place.")
    return None
