"""How a run ended: its report, judged from what its stages found and did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shipway.cluster.parts import HostSpec
from shipway.errors import ErrorReport
from shipway.gpu.result import none_ready
from shipway.rules.solver import warnings_of
from shipway.stage import StageName
from tasks.context import Run
from tasks.report import NO_GPUS, HostRow, Report, RunOutcome, broken_off_by, row_of
from tasks.stage_result import CLUSTER, worst
from tasks.stages.gpu_driver import command as driver_command


def report_of(run: Run, *, broken_off: str = "") -> Report:
    """Return the report of a run; `broken_off` says what ended it before its time."""
    hosts = tuple(_host_row(run, host) for host in run.hosts)
    errors = _errors_of(run)
    if broken_off:
        errors.append(broken_off_by(broken_off))
    outcome: RunOutcome = "failed" if broken_off else _outcome(run, hosts, errors)
    warnings = [*warnings_of(run.cluster), *_limits(run), *run.warned, *(run.proof.notes if run.proof else ())]
    return Report(
        run.cluster.name,
        run.cluster.profile,
        run.reported_mode,
        outcome,
        round(time.monotonic() - run.started, 1),
        hosts,
        _gpus(run),
        tuple(warnings),
        tuple(dict.fromkeys(errors)),
        tuple(run.results),
    )


def _errors_of(run: Run) -> list[ErrorReport]:
    """Return the errors of all stages, without what the proof says again of a fault that an earlier stage has named.

    That no node with GPUs is Ready is such a thing, where each host that should be one has an error of its own.
    """
    earlier = [error for result in run.results if result.stage != StageName.GPU_PROOF for error in result.errors]
    named = {error.code for error in earlier}
    if run.away.keys() <= {error.host for error in earlier}:
        named.add(none_ready(run.away).code)
    return [
        error
        for result in run.results
        for error in result.errors
        if result.stage != StageName.GPU_PROOF or error.code not in named
    ]


def report_of_verb(run: Run, *, broken_off: str = "") -> Report:
    """Return the report of a run that is judged by its stages alone; it was refused where no host was admitted."""
    report = report_of(run, broken_off=broken_off)
    done = all(result.outcome in ("ok", "changed") for result in run.results)
    outcome: RunOutcome = "ok" if done else "partial"
    if broken_off or report.errors:
        outcome = "failed" if run.admitted or broken_off else "refused"
    elif run.mode == "plan":
        outcome = "planned"
    return replace(report, outcome=outcome)


def _host_row(run: Run, host: HostSpec) -> HostRow:
    """Return a host's row; an error that names the host counts, whichever stage reported it."""
    own = [result for result in run.results if result.host == host.name]
    named = any(error.host == host.name for result in run.results for error in result.errors)
    outcome = "failed" if named else worst([result.outcome for result in own])
    if outcome in ("ok", "changed") and run.mode == "bootstrap" and host.name not in run.ready:
        outcome = "unknown"
    role = "control_plane" if host in run.cluster.control_planes else "worker"
    return row_of(host.name, role, outcome, own, run.session(host.name).round_trips)


def _outcome(run: Run, hosts: Sequence[HostRow], errors: Sequence[ErrorReport]) -> RunOutcome:
    """Judge the run. Every host and every GPU: ok; some: partial; no control plane, host or GPU at all: failed."""
    if not run.admitted:  # a verification starts its test pods all the same: then something was done
        return "refused" if run.proof is None else "failed"
    if run.mode == "plan":
        return _foreseen(run, hosts) if errors else "planned"
    gate = any(result.stage == "control_plane_ready" and result.stands for result in run.results)
    well = [host for host in hosts if host.outcome in ("ok", "changed")]
    stand = [host for host in hosts if host.outcome in ("ok", "changed", "drifted")]
    gpus = sum(run.provable(host) for host in run.hosts if host.name in {row.name for row in stand})
    # Where running pods hold every GPU, what is withheld beside them is no failure, and nothing is left to prove with.
    proof = run.proof.outcome if run.proof else ""
    proven = proof == "all held" or (run.proof is not None and (run.proof.verified > 0 or not gpus))
    withheld = (
        not errors and len(stand) == len(hosts) and len(well) < len(hosts) and bool(run.seen.busy or run.seen.podded)
    )
    if not gate or not stand or not (proven or withheld):
        return "failed"
    if withheld:
        return "drifted"
    whole = len(well) == len(hosts) and not errors and proof not in ("", "failed", "all held")
    shared = all(result.outcome in ("ok", "changed") for result in run.results if result.host == CLUSTER)
    return "ok" if whole and shared else "partial"


def _foreseen(run: Run, hosts: Sequence[HostRow]) -> RunOutcome:
    """Return how a run would end that finds what this plan found: without its control plane or any host, it fails."""
    lost = {host.name for host in hosts if host.outcome == "failed"}
    gate = any(
        r.stage in (StageName.CONTROL_PLANE, StageName.CONTROL_PLANE_READY) and not r.stands for r in run.results
    )
    return "failed" if gate or run.control.name in lost or len(lost) == len(hosts) else "partial"


def _gpus(run: Run) -> dict[str, Any]:
    """Return the part about GPUs: those expected of all hosts of the run, and what the proof showed."""
    expected = sum(run.provable(host) for host in run.hosts)
    if run.proof is None:
        offered = any(result.stage == StageName.GPUS_ALLOCATABLE and result.stands for result in run.results)
        return {**NO_GPUS, "expected": expected, "allocatable": expected if offered else 0}
    shown = run.proof.as_dict()
    shown |= {"figures": run.figures.as_dict()} if run.figures.level != "quick" else {}
    return {**shown, "expected": max(expected, int(shown["expected"]))}


def _withheld(run: Run) -> list[str]:
    """Tell each step that was not applied beside running pods, with the command that does it on a drained host."""
    rows = {
        (result.host, row.step): (row, result.stage)
        for result in run.results
        if result.host in run.seen.busy or result.host in run.seen.podded or result.stage == StageName.GPU_DRIVER
        for row in result.rows
        if row.outcome == "drifted"
    }
    file = run.file or "FILE"
    how = f"on a drained host: `python -m flows.drift_repair {file} --repair workloads --host"
    again = f"when those pods are gone the same command does it, or with them: `python -m flows.move_endpoint {file}"
    ways: dict[str, str] = {
        StageName.ENDPOINT_KUBECONFIGS: f"{again} --beside-gpu-pods`",
        StageName.ENDPOINT_OLD_WAY: f"{again} --beside-gpu-pods`",
        StageName.GPU_DRIVER: f"host by host, drained and proven: `{driver_command(run.file)}`",
    }
    return [
        f"{host}: withheld: {step} (have {row.have}; want {row.want}); " + ways.get(stage, f"{how} {host}`")
        for (host, step), (row, stage) in rows.items()
    ]


def _limits(run: Run) -> list[str]:
    """Tell of hosts on which nothing was changed that could disturb GPU workloads, what waits there, and idle GPUs."""
    busy = [
        f"{host}: nothing that runs is restarted while GPU workloads run there: {why}"
        for host, why in run.seen.busy.items()
        if not (run.endpoint.beside_gpu_pods or run.authority.beside_gpu_pods)
    ]
    busy += [
        f"{host}: containerd is not restarted: {why}"
        for host, why in run.seen.podded.items()
        if host not in run.seen.busy
    ]
    busy += _withheld(run) if run.mode != "plan" else []
    idle = [host for host in run.hosts if run.gpus_of(host) and not run.provable(host)]
    how = "pods are kept off the control plane (kubernetes.schedule_on_control_plane)"
    notices = [f"{name}: {text}" for name, survey in run.seen.surveys.items() for text in survey.notices]
    return [*busy, *notices, *(f"{host.name}: its {run.gpus_of(host)} GPUs are not used: {how}" for host in idle)]
