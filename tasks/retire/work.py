"""The stages that take a host out: drained, its kubelet stopped, its node deleted, the host reset."""

from __future__ import annotations

from functools import partial

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import Proxy
from shipway.converge import converge
from shipway.errors import Refused, ShipwayError
from shipway.etcd.quorum import least
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Host
from shipway.kube.access import read_authorities
from shipway.kube.client import Kube
from shipway.kube.drain import cordon_note, uncordon
from shipway.kube.nodes import nodes_by_name
from shipway.kube.status import why_not_ready
from shipway.kubeadm.config import cri_socket
from shipway.os.families import recognise
from shipway.stage import StageName
from shipway.step import Check, Impact, StepResult
from shipway.steps.gpu.cdi import SpecificationsGone
from shipway.steps.gpu.mig import GpusWhole
from shipway.steps.kubernetes.etcd_leave import MemberGone
from shipway.steps.kubernetes.etcd_members import members_of
from shipway.steps.kubernetes.kube_proxy_hosts import KubeProxyKnowsApi
from shipway.steps.kubernetes.retire import (
    NodeClosed,
    NodeDeleted,
    NodeDrained,
    NothingOfNode,
    VolumesDetached,
    may_leave,
    refuse_in_use,
)
from shipway.steps.reset import files
from shipway.steps.reset.kubelet import (
    ContainersGone,
    KubeletFolderEmpty,
    KubeletOff,
    NodeUndone,
    NothingMounted,
    Still,
)
from shipway.steps.reset.network import CniGone, LinksGone, NamespacesGone, RulesGone
from shipway.steps.reset.runtime import ContainerdAsBefore
from shipway.steps.system.api_proxy import OWN
from shipway.steps.system.kernel import NFT
from shipway.steps.system.own_service import OwnGone
from shipway.steps.vip.kube_vip import KubeVipGone
from tasks.context import Run
from tasks.kubeconfig import LeadsToOneThatStays
from tasks.retire.allowed import fewer_wanted, losable, refuse_held_unknown, refuse_reset
from tasks.retire.whole import refuse_reset_of_all
from tasks.stages import container_runtime, kubernetes_packages, prepare_system
from tasks.waiting import by_api, hear_results, hear_waits

DRAIN_SECONDS = 1800.0


async def leave_api(run: Run, stage: str, host: str) -> list[StepResult]:
    """Let a worker's way to the API lead past the control plane that leaves; beside GPU pods nothing is installed."""
    session, leaving = run.session(host), run.retirement.host
    session.forget()
    family = run.seen.families[host] = await recognise(session)
    past = without(run.cluster, leaving)
    named = run.cluster if run.retirement.declared else past
    way = prepare_system.way_to_api(past, past.host(host), family, named)
    hear = hear_results(run, stage, host)
    results = await converge(way, session, min(run.allow, Impact.START), hear)
    after: list[Check[Host]] = [KubeProxyKnowsApi(past.api_name), *([] if past.proxies_api else [OwnGone(OWN)])]
    if any(result.outcome == "failed" for result in results):
        return results
    return results + await converge(after, session, min(run.allow, Impact.SERVICE), hear)


def without(cluster: Cluster, host: str) -> Cluster:
    """Return a cluster as it is once a host has left it."""
    return cluster.model_copy(update={"hosts": tuple(one for one in cluster.hosts if one.name != host)})


async def leave_etcd(run: Run, stage: str, host: str) -> list[StepResult]:
    """Take the member of etcd out, through the control plane that leads."""
    session, leaving = run.session(run.control.name), run.cluster.host(run.retirement.host)
    session.forget()
    step = MemberGone(leaving.name, node_ip(leaving), fewer_wanted(run))
    results = await converge([step], session, run.allow, hear_results(run, stage, host))
    if any(result.outcome == "changed" for result in results):
        left = len(await members_of(session))
        then = "remove the others that the file does not name as well"
        if run.retirement.declared:
            then = f"`shipway replace {run.file or 'FILE'} {leaving.name}` lets another machine take its place"
        if left % 2 == 0 and run.kind != "replace":  # which says so where nothing comes in its place
            bears = left - least(left)
            run.retirement.left.append(f"etcd has {left} members now, and bears the loss of {bears}: {then}")
    if any(result.outcome == "failed" for result in results):
        return results
    return results + await by_api(run, stage, [LeadsToOneThatStays(run)], host)


async def drain_node(run: Run, stage: str, host: str) -> list[StepResult]:
    """Close the node, evict its pods as budgets allow, and wait until no volume is attached to it."""
    asked = run.retirement
    drained = NodeDrained(host, DRAIN_SECONDS, losable(run), asked.evict_gpu_pods, hear_waits(run, stage, host))
    steps: list[Check[Kube]] = [NodeClosed(host), drained, VolumesDetached(host)]
    results = await by_api(run, stage, steps, host)
    refused = any(result.step == drained.name and result.outcome == "failed" for result in results)
    if refused and run.allow is not Impact.NOTHING:
        await uncordon(await run.kube(), host)  # pods that came after the cordon may forbid it in the step's own look
    return results


async def tell_closed(run: Run) -> None:
    """Keep for the report that a node which was drained stays closed, for something after its drain has failed."""
    if run.allow is Impact.NOTHING or not any(one.stage == StageName.DRAIN_NODE and one.stands for one in run.results):
        return
    host = run.retirement.host
    try:
        kube = await run.kube()
        kube.forget()
        node = (await nodes_by_name(kube)).get(host)
        said = f"node {host} stays closed: {note}" if node and (note := cordon_note(node)) else ""
    except ShipwayError as error:
        said = f"whether node {host} stays closed cannot be told: {error.message}"
    if said:
        run.retirement.left.append(f"{said}; the same command goes on, `kubectl uncordon {host}` opens it")


async def stop_kubelet(run: Run, stage: str, host: str) -> list[StepResult]:
    """Stop the kubelet of a drained node: one that runs on would register the node again."""
    session = run.session(host)
    session.forget()
    step = KubeletOff(partial(_still_drained, run, host))
    return await converge([step], session, run.allow, hear_results(run, stage, host))


async def _still_drained(run: Run, host: str) -> None:
    """Refuse to go on with a node that pods came to since it was drained. Raises Refused SHW-714, SHW-703."""
    kube = await run.kube()
    kube.forget()
    if host in await nodes_by_name(kube):
        await may_leave(kube, host, local_data=losable(run), evict_gpu_pods=run.retirement.evict_gpu_pods)
        await refuse_in_use(kube, host)
    else:
        await refuse_held_unknown(run, host)


async def delete_node(run: Run, stage: str, host: str) -> list[StepResult]:
    """Delete the node, and what is left under its name."""
    name = run.retirement.host
    still = partial(_still_lost, run, name) if run.retirement.dead else partial(_still_drained, run, name)
    return await by_api(run, stage, [NodeDeleted(name, still), NothingOfNode(name)], host)


async def _still_lost(run: Run, host: str) -> None:
    """Refuse to delete a node that came back since. Raises Refused SHW-709."""
    kube = await run.kube()
    kube.forget()
    node = (await nodes_by_name(kube)).get(host)
    if node is not None and not why_not_ready(node):
        message = "the node is Ready again: its kubelet answers the cluster"
        raise Refused(message, host=host, code="SHW-709", fix="Leave --dead away: then it is drained and reset.")


def reset_steps(run: Run, host: str, still: Still) -> list[Check[Host]]:
    """Return all that is taken off a host, in order; `still` is asked right before anything that ends containers."""
    cluster, family, asked = run.cluster, run.family(host), run.retirement
    seen = asked.evidence[host].authorities if host in asked.evidence else frozenset()
    known = seen or read_authorities(run.folder / "kubeconfig") or frozenset()
    wanted = [container_runtime.wanted_config(cluster, runtime) for runtime in dict.fromkeys((None, VENDOR.runtime))]
    packages = (cluster.runtime.package, *VENDOR.toolkit_packages, *kubernetes_packages.PROGRAMS)
    return [
        KubeletOff(still),
        files.UnitsGone(),
        files.UserWithoutCluster(cluster.target(cluster.host(host)).user, known),
        NodeUndone(family, cri_socket(cluster.kubernetes.minor), still),
        ContainersGone(still),
        KubeVipGone(),
        NothingMounted(),
        KubeletFolderEmpty(),
        SpecificationsGone(),
        GpusWhole(),
        CniGone(),
        NamespacesGone(),
        LinksGone(cluster.kubernetes.pod_network),
        RulesGone(),
        *files.of_runtime(),
        ContainerdAsBefore(tuple(wanted), container_runtime.images(cluster)),
        *files.of_system((*prepare_system.MODULES, *NFT), prepare_system.BRIDGED),
        family.proxy(cluster.model_copy(update={"proxy": Proxy()})),
        *family.taken_back(packages),
        files.OwnFoldersGone(),
    ]


async def reset_host(run: Run, stage: str, host: str) -> list[StepResult]:
    """Take off the host what Kubernetes and a bootstrap brought; whether that may be is asked again on the way."""
    session = run.session(host)
    session.forget()
    still = refuse_reset_of_all if run.retirement.whole else refuse_reset
    steps = reset_steps(run, host, partial(still, run, host))
    return await converge(steps, session, run.allow, hear_results(run, stage, host))


def give_up(run: Run) -> str:
    """Move the kubeconfig of a cluster that is no more aside; return a sentence for the report, "" for none."""
    kept = run.folder / "kubeconfig"
    if not kept.exists():
        return ""
    aside = kept.with_name("kubeconfig.before-reset")
    try:
        kept.replace(aside)
    except OSError as error:
        return f"the kubeconfig of the cluster that is no more was not moved aside ({error}): {kept}"
    return f"the kubeconfig of the cluster that is no more is {aside} now"
