"""The stages of hardening: refusals, files, control planes, kubeadm's record, Secrets, kubelets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shipway.converge import converge, look_at_all
from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.host.session import Host
from shipway.kube.access import ADMIN_CONF
from shipway.kubeadm import hardening
from shipway.step import Check, Drift, Impact, StepResult
from shipway.steps.hardening.listed import files_of, modes, pods_of, sealed
from shipway.steps.hardening.record import HardeningRecorded
from shipway.steps.kubernetes.health import KubeletConfigured, KubeletLoaded
from shipway.steps.kubernetes.health_cluster import NodeReady
from shipway.steps.kubernetes.kubeadm_objects import JoinsGetDeclared, KubeletRuns
from shipway.steps.kubernetes.static_pods import ManifestsBack
from tasks import gates
from tasks.certificates.stages import permit_alone
from tasks.context import Run
from tasks.drift.parts import kubelet_wanted, peers_of
from tasks.locking import new_lease
from tasks.stages.prepare_system import kernel_steps
from tasks.waiting import by_api, hear_results, wait_for
from tasks.workloads import find_busy, permit_undisturbed

API_SECONDS, NODE_SECONDS = 180.0, 180.0
SHOWN = 12  # warnings of PodSecurity that are told
# Which pods of each namespace would not be made again, as the API server itself says of a label that is not set.
VIOLATIONS = (
    *("kubectl", f"--kubeconfig={ADMIN_CONF}", "--cache-dir=/var/lib/shipway/kubectl", "--request-timeout=60s"),
    *("label", "--dry-run=server", "--overwrite", "namespace", "--all"),
)


def kubelet_of(run: Run) -> list[Check[Host]]:
    """Return the steps of a host's kubelet, and of the kernel settings without which it would not start."""
    kernel = kernel_steps(run.cluster)
    if not run.cluster.hardening.kubelet.enabled:
        return []
    return [*kernel, KubeletConfigured(kubelet_wanted(run)), KubeletLoaded()]


async def may_harden(run: Run, stage: str, host: str) -> list[StepResult]:
    """Look at all of a control plane at once, so that every refusal is named before anything is changed."""
    session, spec = run.session(host), run.cluster.host(host)
    session.forget()
    peers = peers_of(run, host)
    steps: list[Check[Host]] = [*files_of(run.cluster, peers), *pods_of(run.cluster, spec, peers)]
    results = await look_at_all(steps, session)
    await _foresee(run, session)
    refused = [result for result in results if isinstance(result.error, Refused)]
    for result in refused:
        hear_results(run, stage, host)(result)
    return refused or [StepResult("the control plane may be hardened", "ok")]


async def _foresee(run: Run, session: Host) -> None:
    """Warn of pods that PodSecurity would refuse when they are made again: those that run now go on."""
    wanted = run.cluster.hardening.pod_security
    if not wanted.enabled or wanted.enforce == "privileged" or session.name != run.control.name:
        return
    words = (*VIOLATIONS, f"pod-security.kubernetes.io/enforce={wanted.enforce}")
    said = await session.read(Says(words, seconds=70))
    found = [line.removeprefix("Warning: ") for line in said.stderr.splitlines() if line.startswith("Warning:")]
    lines = [line for line in found if not line.startswith("would violate") or ":" in line]
    run.warned += [f"PodSecurity: {line}" for line in lines[:SHOWN]]
    if len(lines) > SHOWN:
        run.warned.append(f"PodSecurity: and {len(lines) - SHOWN} lines more")


async def _bring(run: Run, stage: str, host: str, steps: Sequence[Check[Host]]) -> list[StepResult]:
    session = run.session(host)
    session.forget()
    allow = min(run.allow, Impact.SERVICE)
    return await converge(steps, session, allow, hear_results(run, stage, host), permit_alone(run))


async def harden_files(run: Run, stage: str, host: str) -> list[StepResult]:
    """Bring the files of a control plane, and the key; nothing reads them yet."""
    return await _bring(run, stage, host, files_of(run.cluster, peers_of(run, host)))


async def harden_control_plane(run: Run, stage: str, host: str) -> list[StepResult]:
    """Start a control plane's pods anew with what is declared, and wait until its API and etcd are well."""
    spec = run.cluster.host(host)
    results = await _bring(
        run, stage, host, [ManifestsBack(), *pods_of(run.cluster, spec, peers_of(run, host)), *modes(run.cluster)]
    )
    if run.allow is Impact.NOTHING or any(result.outcome == "failed" for result in results):
        return results
    await run.reconnect()
    kube = await run.kube()
    kube.forget()
    for check in (gates.ApiAnswers(), gates.EtcdHealthy()):
        results.append(await wait_for(run, stage, check, kube, seconds=API_SECONDS))
    await new_lease(run)
    return results


async def harden_record(run: Run, stage: str, host: str) -> list[StepResult]:  # noqa: ARG001 - a stage's signature
    """Let kubeadm's records name what is declared: hosts that join, and upgrades, go by them."""
    joins = JoinsGetDeclared(run.cluster.kubernetes.minor, kubelet_wanted(run))
    declared = [joins] if run.cluster.hardening.kubelet.enabled else []
    return await by_api(run, stage, [HardeningRecorded(run.cluster), *declared])


async def seal_secrets(run: Run, stage: str, host: str) -> list[StepResult]:
    """Write every Secret again, and look at all of them in etcd."""
    return await _bring(run, stage, host, sealed(run.cluster, run.cluster.host(host), peers_of(run, host)))


def foresee_restart(results: list[StepResult]) -> list[StepResult]:
    """Return a plan's results with the restart of a kubelet whose configuration would change: it has not yet."""
    name = KubeletConfigured({}).name
    if not any(result.step == name and result.outcome == "drifted" for result in results):
        return results
    then = Drift("runs the configuration of now", "started after it changed")
    return [
        replace(result, outcome="drifted", drift=then) if result.step == KubeletLoaded().name else result
        for result in results
    ]


async def harden_host(run: Run, stage: str, host: str) -> list[StepResult]:
    """Bring a host's kubelet to what is declared, and wait until it is Ready and runs with it.

    Beside GPU workloads no kubelet is restarted, as in a drift repair.
    """
    session = run.session(host)
    session.forget()
    await find_busy(run, host)
    allow = min(run.allowed(host), Impact.SERVICE)
    control = run.cluster.host(host) in run.cluster.control_planes
    steps = [*kubelet_of(run), *([] if control else modes(run.cluster))]
    results = await converge(steps, session, allow, hear_results(run, stage, host), permit_undisturbed(run, host))
    if run.allow is Impact.NOTHING:
        return foresee_restart(results)
    if any(result.outcome == "changed" and result.restarts for result in results):
        kube = await run.kube()
        results.append(await wait_for(run, stage, NodeReady(host), kube, seconds=NODE_SECONDS))
        runs = KubeletRuns(host, hardening.kubelet_fields(run.cluster))
        results.append(await wait_for(run, stage, runs, kube, seconds=NODE_SECONDS))
    return results
