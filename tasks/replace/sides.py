"""The machine that goes and the one that comes have one name: a run is about one of them at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.edits.lines import read_block
from shipway.errors import Refused, ShipwayError
from shipway.facts.files import FileText
from shipway.foreign.errors import describe_error
from shipway.kube.access import save_secret
from shipway.kube.client import Object
from shipway.ownership.evidence import Evidence, evidence
from shipway.steps.reset.kubelet import RESETTING
from shipway.steps.system.names import HOSTS
from tasks.context import Run
from tasks.retire.place import host_at, internal_address


@contextmanager
def machine_that_goes(run: Run) -> Iterator[None]:
    """Let the run be about the machine that goes, for as long as this lasts. Raises LookupError where none has to."""
    new, old = run.cluster, run.replacement.old
    if old is None:
        raise LookupError("no machine has to go")
    _turn(run, old)
    try:
        yield
    finally:
        _turn(run, new)


def _turn(run: Run, cluster: Cluster) -> None:
    """Take this cluster for the run's, and what was seen of its machine."""
    host, (survey, family) = run.retirement.host, run.replacement.aside
    run.replacement.aside = (run.seen.surveys.pop(host, None), run.seen.families.pop(host, None))
    run.cluster = cluster
    if survey is not None:
        run.seen.surveys[host] = survey
    if family is not None:
        run.seen.families[host] = family


def is_itself(seen: Evidence, host: str, ours: frozenset[str]) -> bool:
    """Say whether a machine is the host's own by what it shows: its node, or a join of it that is under way.

    `ours` are the authorities of the cluster that answers.
    """
    joins = seen.joining or seen.standing == "join broke off"
    return bool(seen.authorities & ours) and (seen.node == host or (joins and not seen.node))


def is_half_reset(seen: Evidence, ours: frozenset[str], *, begun: bool) -> bool:
    """Say whether a reset of ours has begun on a machine that shows no other cluster."""
    return begun and (not seen.authorities or bool(seen.authorities & ours))


async def find_machine_that_goes(run: Run, node: Object | None, ours: frozenset[str]) -> Refused | None:
    """Keep which machine goes for the one of the file, which is another; return what keeps from telling.

    It is at the address that was given, else at its node's own. Where the node is gone, for a run was broken off, its
    address is what that run has kept, else what the leading control plane calls it by; what answers there counts only
    where it shows that it is the host still. Raises Refused SHW-701 for an address that is none.
    """
    host, asked = run.retirement.host, run.replacement
    spec, own = run.cluster.host(host), internal_address(node)
    where = asked.address or own
    if not where:
        left, node_own = _kept(run) or ("" if asked.known else await called_by_lead(run), "")
        there, asked.where = _at(spec, left, node_own or left) if left else spec, left
        other = run.cluster.target(there) != run.cluster.target(spec)
        asked.old = await _still_there(run, _with(run.cluster, there), ours) if other else None
        return None
    there, asked.where = _at(spec, where, own), where
    if run.cluster.target(there) == run.cluster.target(spec) or (not asked.address and own == node_ip(spec)):
        if host not in run.seen.surveys:
            return None  # what is at that address was not seen, and is an error already
        there, run.retirement.displaced = _at(spec, spec.address, own), True
    asked.old = _with(run.cluster, there)
    if node is not None and not run.retirement.displaced:
        looked = await _look(run)
        run.retirement.displaced = not isinstance(looked, ShipwayError) and _is_another(*looked, host, ours)
    if not run.retirement.displaced or (run.retirement.dead and not asked.address):
        return None
    message = f"another machine is at {where}, where the node {host} is: the node's own cannot be drained there"
    fix = (
        "Where that one is off for good, or was installed anew: --dead. Where it is at another address by now: "
        "--address."
    )
    if asked.address:
        message = f"the machine at {where}, which --address names, is not the one of the node {host}"
        fix = f"Correct --address, or leave it away: then it is looked for at {own or 'the address of before'}."
    return Refused(message, host=host, code="SHW-719", fix=fix)


def _note(run: Run) -> Path:
    return run.folder / f"replaced-{run.retirement.host}"


def keep_old(run: Run) -> None:
    """Write down where the machine is that goes, until it is reset: once its node is gone nothing else is sure to tell.

    What a drift pass repairs names the new machine on every host. Raises Refused SHW-341 where it cannot be written.
    """
    host, asked = run.retirement.host, run.replacement
    if asked.old is None or asked.itself or run.retirement.dead:
        return
    try:
        save_secret(_note(run), f"{asked.where} {node_ip(asked.old.host(host))}\n")
    except OSError as error:
        message = f"where the machine is that goes cannot be written down: {describe_error(error)}"
        fix = "Make room there, or correct `state_dir`, then run again."
        raise Refused(message, host=host, code="SHW-341", fix=fix) from error


def forget_old(run: Run) -> None:
    """Remove that note, for the machine is reset; one that stays is believed only with what the machine shows."""
    with contextlib.suppress(OSError):
        _note(run).unlink(missing_ok=True)


def tell_not_reset(run: Run) -> None:
    """Keep for the report that the machine which had the host's place before was not reset, where a note says so."""
    if kept := _kept(run):
        was = f"the machine at {kept[0]} was {run.retirement.host} before and was not reset"
        run.retirement.left.append(
            f"{was}: keys of the cluster are on it, and its kubelet would start pods; install it anew before it is on "
            f"the network, then remove {_note(run)}"
        )


def _kept(run: Run) -> tuple[str, str] | None:
    """Return the address of the machine that went, and its node's, as a run that was broken off has kept them."""
    try:
        where, own = _note(run).read_text(encoding="utf-8").split()
        return where, str(IPv4Address(own))
    except (OSError, ValueError):
        return None


def _is_another(seen: Evidence, begun: bool, host: str, ours: frozenset[str]) -> bool:  # noqa: FBT001 - as it was looked at
    """Say whether a machine shows that it is not the one of a node; what cannot be told is the removal's to refuse."""
    bare = seen.bare and not begun
    return bare or seen.node not in ("", host) or (bool(seen.authorities) and not seen.authorities & ours)


async def _look(run: Run) -> tuple[Evidence, bool] | ShipwayError:
    """Return what the machine that goes shows, and whether a reset has begun there; or what keeps from looking."""
    try:
        with machine_that_goes(run):
            session = run.session(run.retirement.host)
            session.forget()
            return await evidence(session), await session.read(FileText(RESETTING)) is not None
    except ShipwayError as error:
        return error


def _at(spec: HostSpec, where: str, own: str) -> HostSpec:
    """Return a host of the file as it is at HOST or HOST:PORT; `own` is its node's address, "" where nobody knows it.

    Raises Refused SHW-701 for what is no address.
    """
    there = host_at(spec.name, where, spec)
    return there.model_copy(update={"node_ip": IPv4Address(own)}) if own else there


def _with(cluster: Cluster, there: HostSpec) -> Cluster:
    """Return the cluster with another machine in the place of its host of that name."""
    hosts = tuple(there if one.name == there.name else one for one in cluster.hosts)
    return cluster.model_copy(update={"hosts": hosts})


async def called_by_lead(run: Run) -> str:
    """Return the address by which the leading control plane's /etc/hosts calls the host, as ours; "" for none."""
    session = run.session(run.control.name)
    session.forget()
    text = await session.read(FileText(HOSTS))
    try:
        return str(IPv4Address(read_block(text or "").get(run.retirement.host, "")))
    except ValueError:
        return ""


async def _still_there(run: Run, cluster: Cluster, ours: frozenset[str]) -> Cluster | None:
    """Return the cluster where a machine there shows that it is the host still, else None; any other is told of."""
    host, run.replacement.old = run.retirement.host, cluster
    address, looked = node_ip(cluster.host(host)), await _look(run)
    if isinstance(looked, ShipwayError):
        said = f"the machine at {address} that was {host} before was not looked at, nor reset: {looked.message}"
        run.retirement.left.append(said)
        return None
    seen, begun = looked
    if is_itself(seen, host, ours) or is_half_reset(seen, ours, begun=begun):
        return cluster
    if run.mode != "plan":
        forget_old(run)
    if seen.standing != "nothing":
        run.retirement.left.append(f"the machine at {address} is not {host} any more, and stays as it is: {seen.whose}")
    return None
