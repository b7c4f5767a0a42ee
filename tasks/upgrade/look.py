"""The looks of an upgrade: what each host runs, what forbids to go on, and the order in which hosts would come."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from shipway.backup.script import script_of
from shipway.cluster.model import node_ip
from shipway.cluster.parts import HostSpec
from shipway.converge import look_at_all
from shipway.errors import Refused
from shipway.facts.versions import ProgramVersion, StaticPodImages, tag_of
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.nodes import few
from shipway.kubeadm.writes import MANIFESTS
from shipway.os.families import recognise
from shipway.os.family import Family
from shipway.rules.upgrades import etcd_floor
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.authority.possible import NoRotation
from shipway.steps.endpoint.kubeconfigs import LOOPBACK
from shipway.steps.upgrade.control_plane import OPERATION, SECONDS
from shipway.steps.upgrade.possible import (
    BackupYoung,
    EtcdFits,
    FlagsKnown,
    KubeletsFit,
    NewestPatchFirst,
    NobodyAsksRemoved,
    NoneLeftBehind,
    NothingExpired,
    PathAllowed,
    RecordReadable,
    RoomThere,
    requested_gone,
    running_version,
)
from shipway.survey.first_look import survey
from tasks.context import Run
from tasks.leading import known
from tasks.passes.upgrade import HostVersions
from tasks.passes.waves import OrderRow
from tasks.stages.kubernetes_packages import PROGRAMS
from tasks.waiting import hear_results
from tasks.waves.forbids import shared_checks
from tasks.waves.hosts import (
    control_planes_left,
    decided,
    is_control,
    is_drained,
    jobs_on,
    learn_nodes,
    notes_on_skipped,
    notes_on_waves,
    places,
    waves_left,
)


def is_done(run: Run, host: str) -> bool:
    """Say whether a host was all of the version when it was looked at, and is not held closed by us."""
    seen = run.upgrade
    versions, version = seen.hosts.get(host), run.cluster.kubernetes.version
    return (
        versions is not None
        and versions.runs(version, seen.kubelets.get(host, ""))
        and seen.cordons.get(host) != "ours"
    )


def left_loose(run: Run) -> list[str]:
    """Return the hosts that are done, and whose packages are not held: a run was killed between the two."""
    seen = run.upgrade.hosts
    return [host.name for host in run.hosts if is_done(run, host.name) and not seen[host.name].held]


async def look_at_versions(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at a host, and keep what it runs; raises what keeps from reaching it.

    An upgrade of a killed run that its host still works at is waited for first.
    """
    session, control = run.session(host), is_control(run, host)
    session.forget()
    if run.allow is not Impact.NOTHING:
        await session.settled(OPERATION, seconds=SECONDS)
    run.seen.families[host] = await recognise(session)
    version = run.cluster.kubernetes.version
    seen, kept = await asyncio.gather(survey(session), _versions(session, run.family(host)))
    run.seen.surveys[host], run.upgrade.hosts[host] = seen, kept
    if not seen.joined:
        if control:
            fix = "Run a bootstrap first: an upgrade goes on with a control plane that is whole."
            raise Refused(
                "it is a control plane by the file, and has joined no cluster", host=host, code="SHW-784", fix=fix
            )
        run.upgrade.skipped[host] = "it has not joined the cluster: a bootstrap joins it in the new version"
        return [StepResult("the host has joined a cluster", "unknown", drift=Drift("not joined", "joined"))]
    checks: list[Check[Host]] = [NothingExpired(control), FlagsKnown(version)]
    if not kept.runs(version, version):
        checks.insert(0, RoomThere(control))
    return decided(await look_at_all(checks, session, hear_results(run, stage, host)))


async def _versions(session: Host, family: Family) -> HostVersions:
    (kubeadm, program, images), loose = await asyncio.gather(
        session.read(ProgramVersion("kubeadm"), ProgramVersion("kubelet"), StaticPodImages(MANIFESTS)),
        family.held(PROGRAMS).check(session),
    )
    kubeadms = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
    static = tuple((name, tag_of(image)) for name, image in sorted(images.items()) if name in kubeadms)
    return HostVersions(kubeadm, program, static, held=loose is None)


async def look_at_possible(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look for all that forbids the upgrade, at once, and keep the order in which hosts would come."""
    kube = await run.kube()
    kube.forget()
    await _learn(run, kube)
    make_order(run)
    checks = _checks(run)
    hear = hear_results(run, stage, host)
    results, etcd = await asyncio.gather(look_at_all(checks, kube, hear), _on_control(run, stage))
    return decided([*results, *etcd])


async def _on_control(run: Run, stage: str) -> list[StepResult]:
    """Return what etcd and the backups say, asked on a control plane's host."""
    session = run.session(run.control.name)
    seen, version = run.upgrade, run.cluster.kubernetes.version
    checks: list[Check[Host]] = [EtcdFits(seen.oldest(), version), NoRotation()]
    if "older_patch" not in run.cluster.upgrade.despite and not seen.begun:
        checks.append(NewestPatchFirst(seen.have, version, partial(_offers, run)))
    if not seen.backup and seen.order:
        checks.append(BackupYoung(script_of(run.cluster)))
    return await look_at_all(checks, session, hear_results(run, stage, session.name))


async def _offers(run: Run, on: Host) -> Collection[str]:
    """Return the versions of kubeadm that a host's package manager knows."""
    return (await run.family(on.name).offered(on, ["kubeadm"])).get("kubeadm", ())


async def _learn(run: Run, kube: Kube) -> None:
    """Keep what the API tells of versions, cordons, pods and GPU jobs."""
    seen = run.upgrade
    seen.have = await running_version(kube)
    await learn_nodes(run, kube, reached=seen.hosts, done=is_done, resumed=_resumed)
    _, metrics = await kube.raw("/metrics")
    seen.gone = requested_gone(metrics, run.cluster.kubernetes.version)


def _resumed(run: Run, host: str) -> bool:
    """Say whether an earlier run has begun with a host, and not ended: it comes before all others."""
    versions = run.upgrade.hosts.get(host)
    begun = versions is not None and versions.begun(run.cluster.kubernetes.version)
    return not is_done(run, host) and (begun or run.upgrade.cordons.get(host) == "ours")


def control_planes_in_order(run: Run) -> list[str]:
    """Return the control planes that are left, one that was begun first."""
    return control_planes_left(run, is_done, _resumed)


def asks_elsewhere(run: Run, plane: HostSpec) -> str:
    """Return where a control plane's kubelet.conf leads to, where any of several API servers may answer; "" else.

    Below 1.33 kubeadm points it to the endpoint: a name of ours is the host's own API server there, and a site's load
    balancer is not.
    """
    seen = known(run).get(plane.name)
    asked = urlsplit(seen.server).hostname if seen and len(run.cluster.control_planes) > 1 else None
    return "" if asked in (None, node_ip(plane), run.cluster.api_name, *LOOPBACK) else str(asked)


def kubelets_last(run: Run) -> bool:
    """Say whether the control planes' kubelets come after the last API server: an older one might answer them."""
    return any(asks_elsewhere(run, plane) for plane in run.cluster.control_planes)


def waves_in_order(run: Run) -> list[tuple[str, ...]]:
    """Return the waves of workers that are left."""
    return waves_left(run, is_done, _resumed)


def make_order(run: Run) -> None:
    """Keep the order, and what a person should know before it begins."""
    seen, version = run.upgrade, run.cluster.kubernetes.version
    controls = control_planes_in_order(run)
    waves = waves_in_order(run)
    seen.order = [_row(run, name, place) for name, place in places(controls, waves)]
    if not seen.order:
        return
    notes = [f"v{seen.oldest()} to v{version}"]
    if controls:
        notes.append(_no_return(run, controls))
        ways = dict.fromkeys(way for plane in run.cluster.control_planes if (way := asks_elsewhere(run, plane)))
        if ways:
            notes.append(
                f"the control planes' kubelets come after the last API server: they ask by {', '.join(ways)}, where "
                "an older one might answer"
            )
    notes += notes_on_waves(run, waves)
    if seen.gone:
        notes.append(f"clients still ask for APIs that v{version} does not have: {few(seen.gone)}")
    seen.notes = notes + notes_on_skipped(run)


def _row(run: Run, name: str, wave: str) -> OrderRow:
    seen = run.upgrade
    pods = seen.pods.get(name, 0) if is_drained(run, name) else 0
    jobs = tuple(job.said for job in jobs_on(run, name))
    return OrderRow(name, wave, seen.kubelets.get(name, ""), run.cluster.kubernetes.version, pods, jobs)


def _no_return(run: Run, controls: Sequence[str]) -> str:
    """Say where the point of no return is: the last control plane, whose etcd raises the cluster's version with it."""
    floor = etcd_floor(run.upgrade.oldest(), run.cluster.kubernetes.version)
    why = " (it brings etcd's next minor)" if floor else ""
    return (
        f"the point of no return is {controls[-1]}, the last control plane{why}: before it the others serve as they "
        "did, after it only a backup of before leads back (docs/upgrade.md)"
    )


def _checks(run: Run) -> list[Check[Kube]]:
    """Return what the API is asked."""
    version = run.cluster.kubernetes.version
    own: list[Check[Kube]] = [PathAllowed(version), OneVersion(run), KubeletsFit(version), RecordReadable(version)]
    own.append(NoneLeftBehind(version))
    if "removed_apis" not in run.cluster.upgrade.despite:
        own.append(NobodyAsksRemoved(version, run.upgrade.gone))
    return own + shared_checks(run, _resumed)


class OneVersion:
    """The control planes run one version, or the new one: who mixed others decides how to go on."""

    name = "the control planes run one version, or the new one"

    def __init__(self, run: Run) -> None:
        self._run = run

    async def check(self, on: Any) -> Drift | None:
        """Compare the manifests that were seen. Raises Refused SHW-793."""
        del on
        wanted = f"v{self._run.cluster.kubernetes.version}"
        seen = self._run.upgrade.hosts
        tags = {
            name: sorted({tag for part, tag in versions.static if part != "etcd"} - {wanted})
            for name, versions in seen.items()
            if is_control(self._run, name)
        }
        others = sorted({tag for found in tags.values() for tag in found})
        if len(others) > 1:
            said = "; ".join(f"{name}: {', '.join(found)}" for name, found in sorted(tags.items()) if found)
            fix = "Bring them to one version first: `shipway upgrade` with the newest of these."
            raise Refused(f"control planes run different versions: {said}", code="SHW-793", fix=fix)
        return None
