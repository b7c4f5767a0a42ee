"""The passes of drift repair: look at all hosts, repair them within the blast radius, then the cluster's objects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shipway.cluster_file import in_version
from shipway.errors import Refused, ShipwayError
from shipway.foreign.errors import describe_error
from shipway.kube.drain import find_left_cordoned, uncordon
from shipway.stage import StageName
from shipway.step import Impact
from shipway.steps.kubernetes.skew import VersionDeclared
from shipway.steps.upgrade.node import UPGRADING
from tasks.context import Run
from tasks.drift.counters import keep_counters, read_counters
from tasks.drift.history import History
from tasks.drift.look import between, judge_all_ports
from tasks.drift.parts import cluster_parts, host_parts
from tasks.drift.permission import Permission, explain_kept, find_kept, permission_now, permission_on, repairable
from tasks.drift.report import findings_of
from tasks.findings import Finding, count_by_action
from tasks.locking import new_lease, still_alone
from tasks.maintain.look import MAINTAINING
from tasks.ownership import disagreement, refusal
from tasks.run_stage import on
from tasks.stage_result import CLUSTER
from tasks.workloads import find_busy

if TYPE_CHECKING:
    from flows.approval import Approval

LOOKS_AT_ONCE = 50  # connections that are open at the same time; 1,000 hosts stay under a gigabyte with it
FILES_AT_ONCE = 20
WORSE_AT_MOST = 2  # repairs in a row that leave a host worse end the repairs of this pass
TREND = 48


async def look(run: Run) -> None:
    """Look at every host, one task each, then at the cluster.

    Where that runs another version than its file says, all is looked at once more by what runs: what a file of that
    version would be is no drift, and a repair that went by the file would be half an upgrade. Raises Refused where the
    file contradicts the hosts: a look by it would tell of another cluster, a repair change it.
    """
    await _look_once(run)
    version = next((f for f in run.drift.of_cluster if f.step == VersionDeclared("").name and not f.unseen), None)
    if version is None or run.drift.declared:
        return
    try:
        runs = in_version(run.cluster, version.have.removeprefix("v"))
    except Refused:
        return  # of a version that nothing is known of: the finding says so
    run.drift.declared, run.cluster = run.cluster.kubernetes.version, runs
    run.results = [one for one in run.results if one.stage not in (StageName.LOOK, StageName.LOOK_AT_CLUSTER)]
    run.drift.findings = {}
    await _look_once(run)


async def _look_once(run: Run) -> None:
    """Look at every host, then at the cluster."""
    gate = asyncio.Semaphore(LOOKS_AT_ONCE)
    run.drift.counted = read_counters(run.folder)

    async def one(name: str) -> None:
        async with gate:
            await on(StageName.LOOK, name)
            if not run.drift.findings.get(name):
                await run.hang_up(name)  # nothing to repair there

    async with asyncio.TaskGroup() as together:
        for host in run.hosts:
            together.create_task(one(host.name))
    try:
        faults = await disagreement(run)
    except ShipwayError as error:
        faults, run.seen.unowned = [], error  # the hosts' own drift is reported all the same; nothing is repaired
    if faults:
        raise refusal(faults)
    run.drift.across = [*between(list(run.seen.surveys.values())), *judge_all_ports(run)]
    await on(StageName.LOOK_AT_CLUSTER, CLUSTER)


async def repair_all(run: Run, path: str, approval: Approval | None) -> None:
    """Repair what is allowed and approved, keep what became of it, and judge what is left.

    Each host's turn begins with what is allowed then: the one before it may have taken an hour.
    """
    if approval is not None and not approval.approve:
        keep_history(run, path, f"not approved: {approval.comment or 'no comment'}")
        return
    await find_busy(run)
    await find_kept(run)
    allowed = permission_now(run)
    spared = set(approval.leave_out) if approval else set()
    for name in spared & {host.name for host in run.hosts}:
        left_out = _wanted(run, allowed, name)
        others = [one for one in run.drift.findings.get(name, ()) if one not in left_out]
        run.drift.findings[name] = [*others, *(one.became("held back", "left out in the approval") for one in left_out)]
    left, opened = await _open(run, allowed)
    chosen = {host.name: _wanted(run, allowed, host.name) for host in run.hosts if host.name not in spared}
    files = [name for name, some in chosen.items() if some and all(f.level is Impact.FILES for f in some)]
    drained = [name for name in chosen if _empties(run, allowed, name, left)]
    service = [name for name, some in chosen.items() if some and name not in (*files, *drained)]
    run.drift.files_only = set(files)
    await _together(files, FILES_AT_ONCE)
    run.drift.files_only = set()
    service += files  # a file that was put right may want a restart, which is a service's turn
    breaker = Breaker(run)

    async def in_turn(name: str) -> StageName | None:
        """Return the stage of a host whose turn it is; None where nothing may be done there now, or not yet."""
        if not any(one.action == "reported" and one.level for one in run.drift.findings.get(name, ())):
            return None
        now = await permission_on(run, name)
        await find_kept(run, name)
        if _empties(run, now, name, left):
            if name in drained:
                left.discard(name)
                return StageName.REPAIR_DRAINED
            drained.append(name)  # GPU pods came to it: after the others, one at a time
            return None
        return StageName.REPAIR if _wanted(run, now, name) else None

    await breaker.repair(service, run.cluster.repair.hosts_at_once, in_turn)
    if permission_now(run).now is Impact.WORKLOADS:  # pods that came in the middle of a turn are drained, as others are
        drained += [name for name in service if run.drift.release(name) and name not in drained]
    await breaker.repair(drained, 1, in_turn)
    for name in left:  # whose turn did not come
        await uncordon(await run.kube(), name)
    await _cluster(run, opened=opened or bool(left))
    keep_history(run, path, breaker.why)


def _wanted(run: Run, allowed: Permission, host: str) -> list[Finding]:
    most: dict[str, Impact] = {part.stage: part.most for part in host_parts(run, run.cluster.host(host))}
    own = run.drift.findings.get(host, ())
    open_ones = [f for f in own if f.action == "reported" and f.stage in most]
    return [f for f in open_ones if repairable(run, allowed, f, most[f.stage])]


def _empties(run: Run, allowed: Permission, host: str, left: Collection[str]) -> bool:
    """Say whether a host is drained for its repair: something asks for it, or a killed pass has `left` it closed."""
    asked = any(allowed.drains(run, one) for one in _wanted(run, allowed, host))
    return asked or (host in left and host not in run.drift.kept)


async def _together(hosts: Sequence[str], at_once: int) -> None:
    """Repair files on many hosts: nothing is restarted, so there is nothing to spread."""
    gate = asyncio.Semaphore(at_once)

    async def one(name: str) -> None:
        async with gate:
            await on(StageName.REPAIR, name)

    async with asyncio.TaskGroup() as together:
        for name in hosts:
            together.create_task(one(name))


class Breaker:
    """Repairs of services a few hosts at a time; two in a row that leave a host worse end them."""

    def __init__(self, run: Run) -> None:
        self._run, self._worse, self.why = run, 0, ""

    async def repair(
        self, hosts: Sequence[str], at_once: int, in_turn: Callable[[str], Awaitable[StageName | None]]
    ) -> None:
        """Repair hosts in order, so many at a time; `in_turn` says by which stage, or None, once it is their turn."""
        waiting = list(hosts)

        async def lane() -> None:
            while waiting and not self.why:
                name = waiting.pop(0)
                if not (stage := await in_turn(name)):
                    continue
                before = len(self._run.drift.findings.get(name, ()))
                stood = await on(stage, name)
                self._judge(name, before, stood=stood is not None)

        async with asyncio.TaskGroup() as together:
            for _ in range(at_once):
                together.create_task(lane())

    def _judge(self, name: str, before: int, *, stood: bool) -> None:
        after = [f for f in self._run.drift.findings.get(name, ()) if f.action != "repaired"]
        failed = any(f.action in ("failed", "came back") for f in after)
        worse = not stood or failed or len(after) > before
        self._worse = self._worse + 1 if worse else 0
        if self._worse >= WORSE_AT_MOST:
            self.why = f"stopped: {self._worse} repairs in a row left their host worse, the last one {name}"


async def _open(run: Run, allowed: Permission) -> tuple[set[str], bool]:
    """Open the nodes that a killed pass left cordoned; those of a run in waves are opened by it, once they are proven.

    Returns those that stay so until their own turn, and whether any was opened. Where this pass drains hosts and has
    still to repair one of them, its drain goes on: opened, it would get pods that are evicted again a moment later.
    """
    left, opened = set[str](), False
    still_alone(run)
    try:
        kube = await run.kube()
        await new_lease(run)
        kube.forget()
        for name, why in (await find_left_cordoned(kube)).items():
            if name not in {host.name for host in run.hosts} or why.startswith((UPGRADING, MAINTAINING)):
                continue
            if allowed.now is Impact.WORKLOADS and any(one.level > Impact.FILES for one in _wanted(run, allowed, name)):
                left.add(name)
            else:
                await uncordon(kube, name)
                opened = True
    except Refused:
        raise  # another run holds the cluster
    except ShipwayError as error:
        unknown = f"nodes that are left cordoned cannot be determined: {error.message}"
        run.view.show_wait(CLUSTER, StageName.REPAIR, unknown)
    return left, opened


async def _cluster(run: Run, *, opened: bool) -> None:
    """Repair objects, and see what the hosts' repairs did to the nodes, and that nodes were opened."""
    allowed = permission_now(run)
    most: dict[tuple[str, str], Impact] = {(part.host, part.stage): part.most for part in cluster_parts(run)}
    own = [f for f in run.drift.of_cluster if (f.host, f.stage) in most]
    # A restarted kubelet or containerd shows in its node a moment later: the pass ends when that is over.
    restarted = any(
        f.action == "repaired" and f.level > Impact.FILES for some in run.drift.findings.values() for f in some
    )
    if opened or restarted or (own and any(repairable(run, allowed, f, most[f.host, f.stage]) for f in own)):
        await on(StageName.REPAIR_CLUSTER, CLUSTER)


def explain(run: Run, path: str, held: str = "") -> None:
    """Add to every finding that is left its reason (`held`: why nothing is repaired) and the repairing command."""
    allowed = permission_now(run)
    for name, findings in run.drift.findings.items():
        run.drift.findings[name] = _hold(run, allowed, findings, path, held)
    run.drift.of_cluster = _hold(run, allowed, run.drift.of_cluster, path, held)


def keep_history(run: Run, path: str, held: str = "") -> None:
    """Explain what is left, and add the pass to the history."""
    explain(run, path, held)
    findings = findings_of(run)
    history, now = History(run.folder / "history.json"), datetime.now(UTC)
    try:
        # What only followed from a repair (GPUs that are offered again) is nothing that Shipway set.
        mended = [f.key for f in findings if f.action == "repaired" and f.level > Impact.NOTHING]
        history.keep(count_by_action(findings), mended, now)
    except OSError as error:  # a full or read-only disk of this machine changes nothing about the hosts
        run.warned.append(f"the history of repairs was not written: {describe_error(error)}")
    fights = history.fights(now)
    looked_at = {(done.host, row.id): row.step for done in run.results for row in done.rows if row.id}
    sentences = {**looked_at, **{finding.key: finding.step for finding in findings}}
    run.drift.fights = [
        f"{key[0]}: {sentences.get(key, key[1])}: repaired {count} times within a day: something else owns that setting"
        for key, count in fights.items()
    ]
    run.drift.trend = history.trend(TREND)


def keep_counts(run: Run) -> None:
    """Keep what the links' error counters say now, for the next pass, which may only look as well."""
    try:
        keep_counters(run.folder, run.drift.counted, {name: seen.counted for name, seen in run.drift.health.items()})
    except OSError as error:
        run.warned.append(f"the error counters of links were not written down: {describe_error(error)}")


def _hold(run: Run, allowed: Permission, findings: Sequence[Finding], path: str, held: str) -> list[Finding]:
    """Judge what nothing was done about."""
    judged_now = explain_kept(run, allowed, [f for f in findings if f.action == "reported"], path)
    done = [f for f in findings if f.action != "reported"]
    kept = [f.became("held back", held) if held and f.level and not f.command else f for f in judged_now]
    return [*done, *kept]
