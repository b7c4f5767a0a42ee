"""The look of a drift pass: everything about a host in one task and a round trip or two, then the cluster's objects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shipway.cluster.parts import HostSpec
from shipway.converge import look_at_all
from shipway.errors import ErrorReport
from shipway.gpu.evidence import collect
from shipway.gpu.figures.mark import read_bad
from shipway.gpu.health.ports import HostPorts, growth_of, judge_ports
from shipway.gpu.links import find_broken_link
from shipway.gpu.offers import count_places
from shipway.gpu.seen import HostGpuFacts
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.nodes import few, nodes_by_name
from shipway.os.families import recognise
from shipway.redact import redact
from shipway.stage import JOINED_BY, StageName
from shipway.step import Impact, StepResult
from shipway.survey.first_look import Survey, survey
from shipway.survey.gpu_health import HealthLook, look_at_health, with_growth, with_missing
from tasks.context import Run
from tasks.drift.parts import OF_GPUS, Part, cluster_parts, host_parts, plain_runtime
from tasks.findings import Finding, distinct, find
from tasks.gates import GpusAllocatable
from tasks.stage_result import CLUSTER
from tasks.stages.preflight import compare
from tasks.waiting import hear_results

GPUS = GpusAllocatable({}).name
PORTS = "each InfiniBand or RoCE port is sound"
SOUND = "up at the rate of its equals, without new errors of its link"
NEXT = "Next: look at cable, transceiver and switch port (`rdma link`, `ibstat`), then at the adapter."


async def look_at_host(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at all of a host at once; raises what keeps from reaching it."""
    session = run.session(host)
    session.forget()
    run.seen.families[host] = await recognise(session)
    parts, spec = host_parts(run, run.cluster.host(host)), run.cluster.host(host)
    looks = [asyncio.ensure_future(look_at_all(part.steps, session)) for part in parts]
    # What keeps from these keeps from all: one script carries them together.
    seen, health = await asyncio.gather(survey(session), _health_of(session, spec))
    run.seen.surveys[host] = seen
    run.drift.health[host] = with_growth(with_missing(health, seen, run.gpus_of(spec)), run.drift.counted.get(host))
    pairs = list(zip(parts, await asyncio.gather(*looks), strict=True))
    if spec.gpus == "auto" and not run.gpus_of(spec):
        plain = plain_runtime(run, spec)  # what it asks is known by now, but for containerd's configuration
        pairs = [pair for pair in pairs if pair[0].stage not in (*OF_GPUS, plain.stage)]
        pairs.insert(1, (plain, await look_at_all(plain.steps, session)))
    kept = _keep(pairs, seen)
    run.drift.findings[host] = distinct(
        finding for part, results in kept for result in results if (finding := find(host, part.stage, result))
    )
    results = [result for _, results in kept for result in results]
    for result in results:
        hear_results(run, stage, host)(result)
    return results


async def _health_of(session: Host, spec: HostSpec) -> HealthLook:
    """Return what a host's GPUs tell of their health; nothing of one that is declared without any."""
    return await look_at_health(session) if spec.gpus != 0 else HealthLook()


def judge_all_ports(run: Run) -> list[Finding]:
    """Judge the ports of all hosts that were looked at, each beside its equals, and return what is wrong with them."""
    hosts: dict[str, HostPorts] = {}
    for spec in run.hosts:
        look = run.drift.health.get(spec.name)
        if look is not None and run.gpus_of(spec):
            grew = growth_of(look.ports, look.counted, run.drift.counted.get(spec.name))
            hosts[spec.name] = HostPorts(look.ports, run.cluster.rails_of(spec), grew)
    run.drift.ports = judge_ports(hosts)
    found = []
    for name, ports in run.drift.ports.items():
        if ill := [f"{one.title}: {'; '.join(one.faults)}" for one in ports if one.word == "sick"]:
            found.append(
                Finding(name, StageName.HEALTH, PORTS, redact(few(ill)), SOUND, "NOTHING", why=NEXT, id="PortsSound")
            )
    return found


def _keep(pairs: list[tuple[Part[Host], list[StepResult]]], seen: Survey) -> list[tuple[Part[Host], list[StepResult]]]:
    """Leave of a host that never joined only that: a bootstrap brings about all the rest."""
    if seen.joined:
        return pairs
    joining = [(part, results) for part, results in pairs if part.stage in JOINED_BY]
    return [(part, [one for one in results if one.impact is Impact.WORKLOADS]) for part, results in joining]


async def look_at_cluster(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at nodes and objects; raises what keeps from reaching the API."""
    kube = await run.kube()
    kube.forget()
    nodes = await nodes_by_name(kube)
    run.drift.allocatable = await count_places(kube)
    run.drift.bad_figures = {name: read_bad(node) for name, node in nodes.items()}
    run.drift.of_cluster, results = await _objects(run, kube)
    for result in results:
        hear_results(run, stage, host)(result)
    return results


async def _objects(run: Run, kube: Kube) -> tuple[list[Finding], list[StepResult]]:
    parts = cluster_parts(run)
    looked = await asyncio.gather(*(look_at_all(part.steps, kube) for part in parts))
    pairs = [(part, results) for part, results in zip(parts, looked, strict=True) if _has_joined(run, part)]
    made = [find(part.host, part.stage, result) for part, results in pairs for result in results]
    findings = [await _with_link(run, kube, finding) for finding in made if finding]
    return distinct(findings), [result for _, results in pairs for result in results]


def _has_joined(run: Run, part: Part[Kube]) -> bool:
    """Say whether the part is worth telling: a host that could not be reached, or never joined, has said so itself."""
    seen = run.seen.surveys.get(part.host)
    return part.host == CLUSTER or (seen is not None and seen.joined)


async def _with_link(run: Run, kube: Kube, finding: Finding) -> Finding:
    """Return a finding about missing GPUs with the link that broke: GPU, driver, toolkit, runtime, plugin, kubelet."""
    if finding.step != GPUS:
        return finding
    spec, seen = run.cluster.host(finding.host), run.seen.surveys[finding.host]
    facts = HostGpuFacts(seen.gpus, seen.driver_gpus, seen.driver_said, seen.toolkit, parts=seen.driver_parts)
    evidence, _ = await collect(kube, run.cluster, {spec.name: run.provable(spec)}, {spec.name: facts}, "")
    link = find_broken_link(evidence)
    return finding.became("reported", f"{link.name}: {link.why} [{link.code}] Next: {link.fix}")


def between(surveys: Sequence[Survey]) -> list[Finding]:
    """Return what only shows when hosts are compared: clocks apart, clones."""
    return [_finding(fault) for fault in compare(list(surveys))]


def _finding(fault: ErrorReport) -> Finding:
    cause, fix = redact(fault.cause), redact(fault.fix)
    return Finding(fault.host, StageName.HEALTH, fault.step, cause, "", "NOTHING", why=f"Next: {fix}")
