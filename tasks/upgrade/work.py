"""The stages of an upgrade that change something: fetched everywhere first, control planes, add-ons, workers."""

from __future__ import annotations

from shipway.cluster.model import node_ip
from shipway.converge import look_at_all
from shipway.edits.containerd import CONFIG
from shipway.errors import Blocked
from shipway.host.session import Command, Host
from shipway.kubeadm.config import image_repository
from shipway.step import Check, Impact, StepResult
from shipway.steps.kubernetes.kubeadm_objects import JoinsGetDeclared
from shipway.steps.kubernetes.static_pods import ManifestsBack
from shipway.steps.kubernetes.user_kubeconfig import UserHasKubeconfig
from shipway.steps.runtime.containerd import ContainerdLoaded, CriAnswers
from shipway.steps.runtime.pause_image import SandboxImageAgrees
from shipway.steps.upgrade.control_plane import ControlPlaneRuns, OwnApi, ProxyRuns
from shipway.steps.upgrade.fetched import BESIDE, ImagesPulled, list_images
from shipway.steps.upgrade.node import UPGRADING, KubeletRunsVersion
from shipway.steps.upgrade.possible import EtcdFits
from tasks import gates
from tasks.certificates.stages import KEPT, keep_renewed
from tasks.context import Run
from tasks.drift.parts import kubelet_declared
from tasks.stages.kubernetes_packages import PROGRAMS
from tasks.upgrade.look import asks_elsewhere, control_planes_in_order, kubelets_last
from tasks.waiting import by_api, hear_results, wait_for
from tasks.waves.hosts import is_control, is_drained
from tasks.waves.turn import bring, empty, failed, prove_and_open, prove_by_pod, say_closed

API_SECONDS = 180.0


def fetch_steps(run: Run, host: str) -> list[Check[Host]]:
    """Return what brings packages, the new kubeadm and images to a host, and changes nothing that runs."""
    cluster, family, version = run.cluster, run.family(host), run.cluster.kubernetes.version
    packages = dict.fromkeys(PROGRAMS, version)
    return [
        family.in_order(cluster),
        family.repository("kubernetes", cluster),
        family.fetched(f"packages of Kubernetes {version} are fetched", packages),
        family.beside("kubeadm", version, BESIDE),
        ImagesPulled(version, image_repository(cluster), is_control(run, host)),
    ]


async def fetch(run: Run, stage: str, host: str) -> list[StepResult]:
    """Fetch all that the upgrade installs and starts on a host."""
    return await bring(run, stage, run.session(host), fetch_steps(run, host))


async def hold(run: Run, stage: str, host: str) -> list[StepResult]:
    """Hold the packages of a host that is done: a run that was killed between their installing and that left them so.

    A package's own script starts the new kubelet, so nothing else tells such a host from one that is whole.
    """
    return await bring(run, stage, run.session(host), [run.family(host).held(PROGRAMS)])


def _kubelet_steps(run: Run, host: str, *, by_kubeadm: bool) -> list[Check[Host]]:
    """Return the steps of a host's kubelet, after its API server: packages held as before, containerd that agrees."""
    cluster, family, version = run.cluster, run.family(host), run.cluster.kubernetes.version
    packages = family.in_version(
        f"kubelet and kubectl are {version}",
        {"kubelet": version, "kubectl": version},
        cluster.system.may_remove,
    )
    apis = () if by_kubeadm else _apis(run, host)
    return [
        KubeletRunsVersion(version, packages, family.held(PROGRAMS), cluster, apis, by_kubeadm=by_kubeadm),
        family.held(PROGRAMS),
        SandboxImageAgrees(list_images(version, image_repository(cluster))),
        ContainerdLoaded("containerd", (CONFIG,)),
        CriAnswers(),
    ]


def _apis(run: Run, host: str) -> tuple[OwnApi, ...]:
    """Return the API servers that may answer the kubelet of a control plane's host."""
    cluster, own = run.cluster, run.cluster.host(host)
    planes = cluster.control_planes if asks_elsewhere(run, own) else (own,)
    return tuple(OwnApi(node_ip(plane), cluster.kubernetes.api_port) for plane in planes)


def _kubeadm_steps(run: Run, host: str) -> list[Check[Host]]:
    cluster, family, version = run.cluster, run.family(host), run.cluster.kubernetes.version
    named, removable = f"kubeadm is {version}", cluster.system.may_remove
    return [family.in_order(cluster), family.in_version(named, {"kubeadm": version}, removable)]


async def upgrade_control_plane(run: Run, stage: str, host: str) -> list[StepResult]:
    """Upgrade a control plane, then the kubelet of its host; it is ready before the next one is begun.

    Where kubelets come last, this one is left to `upgrade_kubelet`, and the host is not emptied for its API server.
    """
    if kubelets_last(run):
        return await _bring_api(run, stage, host)
    results = await _empty(run, stage, host) if is_drained(run, host) else []
    if failed(results):
        return results
    results += await _bring_api(run, stage, host)
    return say_closed(run, host, results) if failed(results) else results + await _bring_kubelet(run, stage, host)


async def upgrade_kubelet(run: Run, stage: str, host: str) -> list[StepResult]:
    """Upgrade the kubelet of a control plane's host, once every API server that may answer it is new."""
    results = await _empty(run, stage, host) if is_drained(run, host) else []
    return results if failed(results) else results + await _bring_kubelet(run, stage, host)


async def _bring_api(run: Run, stage: str, host: str) -> list[StepResult]:
    """Let kubeadm upgrade a control plane, and wait until its API and etcd are well.

    Its etcd stands still for a moment, so whether all others are well is asked once more right before.
    """
    session, spec, version = run.session(host), run.cluster.host(host), run.cluster.kubernetes.version
    steps: list[Check[Host]] = [
        ManifestsBack(),
        EtcdFits(run.upgrade.oldest(), version),
        *_kubeadm_steps(run, host),
        ControlPlaneRuns(version, run.cluster, spec),
    ]
    results = await bring(run, stage, session, steps)
    own = UserHasKubeconfig(run.cluster.target(spec).user)
    if failed(results):
        return results
    if run.allow is Impact.NOTHING:
        if results[-1].outcome == "drifted":
            renewed = Blocked("kubeadm renews the control plane's certificates with its upgrade", host=host)
            results += [StepResult(name, "unknown", error=renewed) for name in (own.name, KEPT)]
        return results
    await run.reconnect()  # kubeadm has renewed the administrator's certificate with all others
    results.append(await keep_renewed(run))
    kube = await run.kube()
    results += [
        await wait_for(run, stage, one, kube, seconds=API_SECONDS) for one in (gates.ApiAnswers(), gates.EtcdHealthy())
    ]
    hear = hear_results(run, stage, host)
    results += await look_at_all([EtcdFits(version, version, API_SECONDS)], session, hear)
    return results if failed(results) else results + await bring(run, stage, session, [own])


async def _bring_kubelet(run: Run, stage: str, host: str) -> list[StepResult]:
    """Upgrade the kubelet of a control plane's host, prove the host, open it."""
    results = await bring(run, stage, run.session(host), _kubelet_steps(run, host, by_kubeadm=False))
    return say_closed(run, host, results) if failed(results) else results + await _prove_and_open(run, stage, host)


async def upgrade_addons(run: Run, stage: str, host: str) -> list[StepResult]:
    """Bring what kubeadm runs in the cluster to the version, once every control plane has it, and what joins get."""
    del host
    session = run.session(run.control.name)
    proxy = ProxyRuns(run.cluster.kubernetes.version, run.cluster, run.control)
    if run.allow is Impact.NOTHING and control_planes_in_order(run):
        return [StepResult(proxy.name, "unknown", error=Blocked("kubeadm brings them with the last control plane"))]
    results = await bring(run, stage, session, [proxy])
    if failed(results):
        return results
    joins = JoinsGetDeclared(run.cluster.kubernetes.minor, kubelet_declared(run))
    results += await by_api(run, stage, [joins])
    if any(one.outcome == "changed" for one in results) and not failed(results):
        results.append(await prove_by_pod(run, stage, run.control.name))  # CoreDNS is another one
    return results


async def upgrade_worker(run: Run, stage: str, host: str) -> list[StepResult]:
    """Empty a worker, upgrade it, prove it, open it; one that cannot be emptied is opened again, unchanged.

    One that is not proven stays closed, and the error says so: what was begun there is gone on with by the next run.
    """
    results = await _empty(run, stage, host)
    if failed(results):
        return results
    steps = [*_kubeadm_steps(run, host), *_kubelet_steps(run, host, by_kubeadm=True)]
    results += await bring(run, stage, run.session(host), steps)
    if failed(results):
        return say_closed(run, host, results)
    return results + await _prove_and_open(run, stage, host)


async def _empty(run: Run, stage: str, host: str) -> list[StepResult]:
    version = run.cluster.kubernetes.version
    begun = run.upgrade.hosts[host].begun(version)
    return await empty(run, stage, host, f"{UPGRADING} {version} by Shipway", begun=begun)


async def _prove_and_open(run: Run, stage: str, host: str) -> list[StepResult]:
    """Prove and open a host; the new kubeadm beside the old one is needed no more then."""
    results = await prove_and_open(run, stage, host, run.cluster.kubernetes.version)
    if run.allow is not Impact.NOTHING and not failed(results):
        await run.session(host).do(Command(("rm", "-f", BESIDE)))
    return results
