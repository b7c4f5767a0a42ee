"""Which control plane a run asks, and by which endpoint the cluster is reached: found on the hosts as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shipway.cluster.parts import HostSpec
from shipway.errors import Permanent, Refused, ShipwayError
from shipway.facts.commands import Says
from shipway.kube.record import read_record
from shipway.ownership.evidence import Evidence, address_of, evidence
from shipway.ownership.leading import as_running, choose_lead
from shipway.retry import patiently
from tasks.context import Run


async def choose(run: Run, *, everyone: bool = False) -> None:
    """Choose the control plane that the run asks: a whole one whose API is ready, whichever stands first in the file.

    Those that the run does not look at itself are asked, with `everyone` all of them; one that does not answer is not
    chosen where another one is whole. With a single control plane there is nothing to choose.
    """
    planes = run.cluster.control_planes
    if len(planes) == 1 or run.lead:
        return
    seen = known(run)
    asked = [host for host in planes if host.name not in seen and (everyone or host not in run.hosts)]
    answers = await asyncio.gather(*(_ask(run, host) for host in asked), return_exceptions=True)
    for host, answer in zip(asked, answers, strict=True):
        if isinstance(answer, Evidence):
            seen[host.name] = answer
            run.seen.elsewhere = (*(one for one in run.seen.elsewhere if one.host != host.name), answer)
        elif isinstance(answer, ShipwayError):
            continue
        else:
            raise answer
    whole = [host for host in planes if host.name in seen and seen[host.name].whole]
    ready = await asyncio.gather(*(_is_ready(run, host) for host in whole))
    run.lead = choose_lead(run.cluster, seen, [host.name for host, yes in zip(whole, ready, strict=True) if yes]).name


async def lead_beside(run: Run, host: str) -> bool:
    """Let another control plane answer for the cluster than the host that leaves it; say whether there is one."""
    if run.control.name != host:
        return True
    seen = known(run)
    others = [one for one in run.cluster.control_planes if one.name != host]
    whole = [one for one in others if one.name in seen and seen[one.name].whole]
    ready = await asyncio.gather(*(_is_ready(run, one) for one in whole))
    serving = [one.name for one, yes in zip(whole, ready, strict=True) if yes]
    run.lead = next(iter(serving), run.lead)
    return bool(serving)


def known(run: Run) -> dict[str, Evidence]:
    """Return by host what is known of whose it is."""
    surveyed = {name: one.evidence for name, one in run.seen.surveys.items() if one.evidence is not None}
    return {**{one.host: one for one in run.seen.elsewhere}, **surveyed}


async def ask_endpoint(run: Run) -> None:
    """Let the cluster say by which endpoint it is reached, where its lead's admin.conf names another than the file.

    People point that one file elsewhere (https://127.0.0.1:6443); kubeadm's record is what every node joined by. Where
    the record cannot be had, the file's word stands.
    """
    lead = known(run).get(run.control.name)
    if lead is None or not lead.whole or address_of(lead.endpoint) == run.cluster.endpoint.lower():
        return
    try:
        recorded = (await read_record(await run.kube())).get("controlPlaneEndpoint")
    except ShipwayError:
        return
    if not recorded:
        return
    told = replace(lead, endpoint=f"https://{recorded}")
    if (survey := run.seen.surveys.get(lead.host)) is not None:
        run.seen.surveys[lead.host] = replace(survey, evidence=told)
    else:
        run.seen.elsewhere = tuple(told if one.host == lead.host else one for one in run.seen.elsewhere)


def adopt_endpoint(run: Run, seen: Mapping[str, Evidence]) -> None:
    """Take the endpoint that the running cluster has where the file leaves it open."""
    lead = seen.get(run.control.name)
    if lead is not None and lead.endpoint:
        run.cluster = as_running(run.cluster, lead.endpoint)


def refuse_second_cluster(run: Run, host: str) -> None:
    """Let the first control plane be initialised only where every other one was seen to hold none. Raises Refused.

    A cluster may be on a host that does not answer: a second one of its name would be made beside it.
    """
    if len(run.cluster.control_planes) == 1:
        return
    seen = known(run)
    unseen = [one.name for one in run.cluster.control_planes if one.name not in (host, *seen)]
    own = seen.get(host)
    if unseen and not (own is not None and own.standing == "control plane"):
        message = (
            f"{host} holds no control plane, and {', '.join(unseen)} did not answer: whether the cluster is there "
            "cannot be determined, so none is initialised"
        )
        fix = f"Bring {unseen[0]} back, or take it out of the file where that machine is gone for good; then run again."
        raise Refused(message, host=host, code="SHW-761", fix=fix)


async def _ask(run: Run, host: HostSpec) -> Evidence:
    return await patiently(lambda: evidence(run.session(host.name)))


async def _is_ready(run: Run, host: HostSpec) -> bool:
    url = f"https://127.0.0.1:{run.cluster.kubernetes.api_port}/readyz"
    try:
        said = await run.session(host.name).read(Says(("curl", "-sk", "--noproxy", "*", "--max-time", "8", url)))
    except ShipwayError:
        return False
    return said.stdout.strip() == "ok"


def order_of_joins(run: Run, prepared: Sequence[HostSpec]) -> tuple[list[HostSpec], HostSpec | None]:
    """Return the control planes to join in order, and the one that is left out so that etcd's members stay odd.

    Those that have joined come first: to look at them again changes nothing. Two members bear the loss of none, as four
    bear that of one: then the last one is worse than none.
    """
    seen = known(run)
    joined = [host for host in prepared if host.name in seen and seen[host.name].whole]
    others = [host for host in run.cluster.control_planes if host not in prepared and host != run.control]
    members = 1 + len(joined) + sum(host.name in seen and seen[host.name].whole for host in others)
    new = [host for host in prepared if host not in joined]
    if new and (members + len(new)) % 2 == 0:
        return [*joined, *new[:-1]], new[-1]
    return [*joined, *new], None


def left_out(run: Run, host: HostSpec) -> ShipwayError:
    """Return why a control plane that is prepared does not join."""
    missing = [one.name for one in run.cluster.control_planes if one.name not in run.admitted and one.name != host.name]
    message = "it is not joined: etcd would have an even number of members, and bear no more losses than without it"
    what = f"{', '.join(missing)} is not there" if missing else "see what failed on the others"
    fix = f"Bring the other control planes up ({what}), then run again: both join then."
    return Permanent(message, host=host.name, code="SHW-764", fix=fix)
