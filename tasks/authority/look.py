"""Before a CA is rotated: every host is looked at, all that forbids it is named at once, and where it stands is told.

Where a rotation stands is read from the hosts: from the folder of both CAs, and from whom each ca.crt trusts.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from shipway.backup.script import script_of
from shipway.cluster.model import node_ip
from shipway.converge import look_at_all
from shipway.errors import Refused, ShipwayError
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.kube.record import SYSTEM
from shipway.os.families import recognise
from shipway.step import Check, Impact, StepResult
from shipway.steps.authority.etcd import EtcdStacked, MembersKnown
from shipway.steps.authority.front_proxy import PUBLISHED, ExtensionsAvailable, FrontProxyTaken
from shipway.steps.authority.left import left_behind
from shipway.steps.authority.objects import Holder, bundles_of_others, holders_of_old, readers_of_files
from shipway.steps.authority.own_server import OwnServer
from shipway.steps.authority.pair import MAKES, STAMP, Pair, named, said, trusted_by, who
from shipway.steps.authority.possible import KeyThere, NoRotation, NotBesideGpuPods
from shipway.steps.authority.signing import FilesReadByUs, ReadByUs
from shipway.steps.authority.token_secrets import find_waiting, tokens_of_others
from shipway.steps.authority.tokens import KeysPublished, TokenSigned, TokensSignedByUs
from shipway.steps.authority.trust import KubeconfigTrusts
from shipway.steps.authority.which import CLUSTER_CA, ETCD_CA, FRONT_PROXY, SERVICE_ACCOUNTS, Which
from shipway.steps.endpoint.kubeconfigs import FILES
from shipway.steps.endpoint.possible import EveryNodeAnswers
from shipway.steps.hardening import manifest
from shipway.steps.kubernetes.kubelet_client import KubeletRotates
from shipway.steps.kubernetes.renewal import RENEWS, ClockRight
from shipway.steps.kubernetes.static_pods import OPERATIONS
from shipway.steps.maintain.pause import QuorumStays
from shipway.steps.upgrade.possible import BackupYoung
from shipway.survey.first_look import survey
from tasks import gates
from tasks.context import Run
from tasks.endpoint.look import running
from tasks.passes.authority import AuthoritySeen
from tasks.waiting import hear_results, wait_for
from tasks.workloads import OWN_NAMESPACES, find_busy

API_SECONDS = 180.0
SETTLE_SECONDS = manifest.SECONDS  # the longest of what a host may still do for a run that was killed
FRESH = timedelta(days=1)  # a CA of a rotation that is younger is what a second run wants
# Of the cluster's own parts; in two of these no pod runs, but up to 1.23 they have a ServiceAccount's Secret as well.
TOKEN_SPACES = OWN_NAMESPACES | {"kube-node-lease", "kube-public"}
DONE = "the {} was made anew"


async def look(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at a host: whether it has joined, whom it trusts, and what on it forbids a rotation.

    What a control plane still does for a run that was killed is waited for first: its parts start anew without us.
    """
    session, control = run.session(host), run.cluster.host(host) in run.cluster.control_planes
    session.forget()
    if control and run.allow is not Impact.NOTHING:
        await session.settled(*OPERATIONS, MAKES, RENEWS, seconds=SETTLE_SECONDS)
    run.seen.families[host] = await recognise(session)
    seen = run.seen.surveys[host] = await survey(session)
    if not seen.joined:
        return [StepResult("the host was looked at", "ok")]
    of = run.authority.of
    if control or of is CLUSTER_CA:  # workers know of no other
        old_one, _, new_one, _ = (FileText(f"{of.folder}/{name}") for name in of.files)
        text, name, old, new = await session.read(FileText(of.path), named(of), old_one, new_one)
        own = AuthoritySeen(tuple(trusted_by(text or "")), text or "", old or "", new or "", name.stdout.strip())
        run.authority.hosts[host] = own
    checks = _forbidding(of, control=control)
    results = [result for result in await look_at_all(checks, session) if isinstance(result.error, ShipwayError)]
    for result in results:
        hear_results(run, stage, host)(result)
    return results or [StepResult("nothing on the host forbids a rotation", "ok")]


def _forbidding(of: Which, *, control: bool) -> list[Check[Host]]:
    """Return what on a host may forbid the rotation of a CA."""
    checks: list[Check[Host]] = [ClockRight()]
    if of is CLUSTER_CA:
        checks += [ReadByUs(control), KubeletRotates(), *(KubeconfigTrusts(path, ()) for path in FILES)]
    elif control and of is SERVICE_ACCOUNTS:
        checks.append(TokensSignedByUs())
    elif control:
        checks += [EtcdStacked()] if of is ETCD_CA else []
        checks.append(FilesReadByUs(of))
    return [*checks, KeyThere(of), NoRotation(of)] if control else checks


def planes(run: Run) -> list[str]:
    """Return the control planes that have joined, the one that leads first."""
    names = [host.name for host in running(run).control_planes]
    return sorted(names, key=lambda name: name != run.control.name)


def server_of(run: Run, host: str) -> OwnServer:
    """Return a control plane's own API server."""
    return OwnServer(node_ip(run.cluster.host(host)), run.cluster.kubernetes.api_port)


def place(run: Run) -> None:
    """Keep where the rotation stands. Raises Refused SHW-853 for CAs of nobody, SHW-857 where there is no way back."""
    seen, own = run.authority.hosts, run.authority
    if run.control.name not in seen:
        raise Refused(f"{run.control.name} has joined no cluster", code="SHW-853", fix="Run a bootstrap first.")
    begun = {name: seen[name] for name in planes(run) if seen[name].old and seen[name].new}
    lead = seen[run.control.name]
    if begun:
        own.source, first = next(iter(begun.items()))
        own.pair = Pair(first.old, first.new, own.back, own.of)
        _refuse_other_pairs(begun, own.pair)
    else:
        if own.back:
            message = f"no rotation of {own.of.said} is under way, so there is no way back from one"
            raise Refused(message, host=run.control.name, code="SHW-857", fix="Leave --back away.")
        own.pair = Pair(lead.text, of=own.of)
        own.made = _made(lead.subject, own.of)
    known = {who(one) for one in own.pair.both if one}
    lost = {
        name: said(one.trusted)
        for name, one in seen.items()
        if not one.trusted or set(one.trusted) - known or (not begun and len(one.trusted) > 1)
    }
    if lost:
        names = few([f"{name} trusts {what}" for name, what in sorted(lost.items())])
        message = f"{names}; {own.of.said} is {said(sorted(known))}"
        fix = f"Leave in {own.of.path} of each host what the control plane's has, and nothing else; then run again."
        raise Refused(message, host=min(lost), code="SHW-853", fix=fix)
    _place_end(run)


def _place_end(run: Run) -> None:
    """Keep whether the last stage has begun: a control plane that trusts the wanted CA alone was told so by that."""
    own = run.authority
    alone = [name for name in planes(run) if own.source and len(own.hosts[name].trusted) == 1]
    left = {name: own.hosts[name].trusted[0] for name in alone}
    gone = [name for name, one in left.items() if one == who(own.pair.new)]
    if own.back and gone:
        noun = own.of.noun
        message = f"{few(gone)} trusts the new {noun} alone: the last stage has begun, and there is no way back from it"
        fix = f"Leave --back away: the rotation goes on to its end. Another one leads to a third {noun}."
        raise Refused(message, host=gone[0], code="SHW-857", fix=fix)
    own.dropping = any(one == who(own.pair.wanted) for one in left.values())


def _refuse_other_pairs(begun: dict[str, AuthoritySeen], pair: Pair) -> None:
    other = [name for name, one in begun.items() if (who(one.old), who(one.new)) != (who(pair.old), who(pair.new))]
    if other:
        noun = pair.of.noun
        message = f"{few(other)} has another pair of {noun}s than {next(iter(begun))}: two rotations were begun"
        where = f"{pair.of.folder} with the other away"
        fix = f"See which new {noun} any host trusts already ({pair.of.path}), and move {where}."
        raise Refused(message, host=other[0], code="SHW-853", fix=fix)


def _made(subject: str, of: Which = CLUSTER_CA) -> str:
    """Return when a rotation of the last day made the CA, by its name; "" for any other."""
    _, found, stamp = subject.rpartition(of.subject)
    try:
        when = datetime.strptime(stamp.strip(), STAMP).replace(tzinfo=UTC)
    except ValueError:
        return ""
    return f"{when:%Y-%m-%d %H:%M} UTC" if found and datetime.now(UTC) - when < FRESH else ""


async def may_rotate(run: Run, stage: str, host: str) -> list[StepResult]:
    """Find out where the rotation stands, and ask the cluster for all that forbids it, at once."""
    own, hear, placed = run.authority, hear_results(run, stage, host), list[StepResult]()
    try:
        place(run)
    except Refused as refused:
        placed.append(StepResult("the CAs of all hosts are those of one rotation", "failed", error=refused))
        hear(placed[0])
    if not placed and (nothing_else := await _done_already(run, stage, host)):
        return nothing_else
    kube = await run.kube()
    if own.source and run.allow is not Impact.NOTHING:  # a killed run may have begun to start it anew
        await wait_for(run, stage, gates.ApiAnswers(), kube, seconds=API_SECONDS)
    kube.forget()
    joined = [one.name for one in running(run).hosts]
    checks: list[Check[Kube]] = [gates.ApiAnswers(), gates.EtcdHealthy(), EveryNodeAnswers(joined, "the old CA alone")]
    if own.of is CLUSTER_CA:
        await find_busy(run)
        checks.append(NotBesideGpuPods(dict(run.seen.busy), own.beside_gpu_pods))
    if own.of is FRONT_PROXY and not own.source:  # later each control plane is asked for what was lost there
        checks.append(ExtensionsAvailable())
    on_control = look_at_all(_on_control(run), run.session(run.control.name), hear)
    results, others = await asyncio.gather(look_at_all(checks, kube, hear), on_control)
    if run.allow is Impact.NOTHING or not own.source:
        await _tell(run, kube)
    return [*placed, *results, *others]


def _on_control(run: Run) -> list[Check[Host]]:
    """Return what a control plane is asked; what proves a rotation at its end is asked where none has begun."""
    own, server, found = run.authority, server_of(run, run.control.name), list[Check[Host]]()
    if not own.source:
        found.append(BackupYoung(script_of(run.cluster), fix=BACKUP))
        found += [FrontProxyTaken(server)] if own.of is FRONT_PROXY else []
    if not own.source and own.of is SERVICE_ACCOUNTS:
        found += [KeysPublished((own.pair.old,), server), TokenSigned(own.pair.old, server)]
    if own.of is ETCD_CA:
        hosts = [run.cluster.host(name) for name in planes(run)]
        found.append(MembersKnown([one.name for one in hosts], [node_ip(one) for one in hosts]))
        found += [] if own.source else [QuorumStays()]
    return found


async def find_left(run: Run) -> tuple[str, ...]:
    """Return the CAs of earlier rotations that are still published, by a new look at all that tells it."""
    kube, sessions = await run.kube(), [run.session(name) for name in planes(run)]
    for one in (kube, *sessions):
        one.forget()
    return await left_behind(kube, sessions, run.authority.of)


async def _done_already(run: Run, stage: str, host: str) -> list[StepResult]:
    """Return what there is to say where no rotation is to begin: an earlier one left a CA, or is younger than a day.

    What is left is taken out by the last stage. Results that failed forbid that.
    """
    own, hear = run.authority, hear_results(run, stage, host)
    if own.source:
        return []
    if own.of.told:
        kube, own.left = await run.kube(), await find_left(run)
        if own.left:
            what = f"{SYSTEM}/{PUBLISHED} holds {said(map(who, own.left))}, which no control plane has any more"
            run.warned.append(f"{what}: this run takes it out, and does nothing else; one after it begins a rotation")
            reached = EveryNodeAnswers([one.name for one in running(run).hosts], "that CA")
            return await look_at_all([gates.ApiAnswers(), reached], kube, hear)
    if not own.made:
        return []
    noun = own.of.noun
    result = StepResult(f"{DONE.format(noun)} {own.made}: another rotation needs a {noun} that is a day old", "ok")
    hear(result)
    return [result]


BACKUP = "Run `shipway backup FILE` first: keys that are lost are in a backup or nowhere."


async def _tell(run: Run, kube: Kube) -> None:
    """Warn of what is not ours and trusts the old CA: pods that read it once, bundles of webhooks and APIs.

    Of another CA than the cluster's, of the pods that read kubeadm's files of it; of tokens, of what keeps some.
    """
    own = run.authority
    try:
        if own.of is SERVICE_ACCOUNTS:
            await _tell_tokens(run, kube)
            return
        if own.of is not CLUSTER_CA:
            if mounting := await readers_of_files(kube, own.of.path):
                run.warned.append(f"these pods read {own.of.path}, and are their owners' to restart: {few(mounting)}")
            return
        pods, bundles = await asyncio.gather(holders_of_old(kube, whenever=True), bundles_of_others(kube, own.pair.old))
    except ShipwayError as error:
        run.warned.append(f"who else trusts the old CA could not be asked: {error.message}")
        return
    if others := stale_of(pods):
        run.warned.append(f"these pods read the CA when they started, and are their owners' to restart: {few(others)}")
    if bundles:
        run.warned.append(f"these trust the old CA, and are their owners' to change before the end: {few(bundles)}")


async def _tell_tokens(run: Run, kube: Kube) -> None:
    tokens, waiting = await asyncio.gather(tokens_of_others(kube, run.authority.pair, TOKEN_SPACES), find_waiting(kube))
    if tokens:
        run.warned.append(f"these Secrets hold a token of the old key, which ends with it: {few(tokens)}")
    if waiting and not waiting.over:
        many, when = len(waiting.pods), f"{waiting.until:%Y-%m-%d %H:%M} UTC"
        run.warned.append(f"the last stage waits for the tokens of {many} pods: if all signed by now, until {when}")


def stale_of(pods: list[Holder]) -> list[str]:
    """Return the workloads of others among pods, and those of ours that no workload makes anew."""
    return sorted({one.said for one in pods if one.namespace not in OWN_NAMESPACES or not one.kind})
