"""Pods that hold GPUs of hosts that are emptied: whose they are up to the top, and what was decided of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from shipway.foreign.numbers import whole
from shipway.gpu.claims import see_claims
from shipway.gpu.holders import asked_devices
from shipway.gpu.pods import NAMESPACE
from shipway.kube.client import Kube
from shipway.kube.owners import controller_of, walk_up

Policy = Literal["wait", "checkpoint", "evict", "never"]
ANNOTATION = "shipway.dev/gpu-jobs"  # of a pod, one of its owners, or its namespace: one of these words
# Beside it: within how many seconds of its SIGTERM the pod has saved its work and ended. No other word than this one is
# taken for a promise, and none that is longer than a drain may take.
CHECKPOINT = "shipway.dev/checkpoint-seconds"
LONGEST_SAVE = 1500
GRACE_SECONDS = 30  # of a pod that says nothing (Kubernetes API reference, PodSpec)
TRIES = 6  # the backoffLimit of a Job that says nothing (Kubernetes API reference, JobSpec)
# Which pods are one piece of work to who schedules them, whoever owns each: Volcano, coscheduling of the
# scheduler-plugins, Kueue (in their sources KubeGroupNameAnnotationKey, PodGroupLabel, GroupNameLabel).
GROUPS = ("scheduling.k8s.io/group-name", "scheduling.x-k8s.io/pod-group", "kueue.x-k8s.io/pod-group-name")
KEEPERS = ("ReplicaSet", "ReplicationController")  # who starts a pod again whenever it ends, each for itself


@dataclass(frozen=True, slots=True)
class GpuJob:
    """A pod that holds GPUs: its node, the object that owns it at the top ("Job train/llm"), what was decided of it.

    `serves` says that it is a replica of what runs forever: nobody waits for its end, but until it may be moved. `note`
    says why it is waited for though it was to save its work, or within what time it does. `groups` are the PodGroups
    ("PodGroup train/llm") that it is a part of.
    """

    pod: str
    node: str
    holds: str
    owner: str
    policy: Policy
    serves: bool = False
    note: str = ""
    groups: tuple[str, ...] = ()

    @property
    def ends(self) -> bool:
        """Whether its end is waited for: no drain takes it away."""
        return self.policy == "wait" and not self.serves

    @property
    def said(self) -> str:
        """One line: the pod, what it holds, whose it is, what becomes of it."""
        whose = self.owner or ", ".join(self.groups)
        of = f" of {whose}" if whose else ", of nobody"
        what = "moved while another replica is Ready" if self.policy == "wait" and self.serves else self.policy
        return f"{self.pod}{of} ({self.holds}: {what}{f', {self.note}' if self.note else ''})"


async def find_jobs(on: Kube, default: Policy, node: str = "") -> list[GpuJob]:
    """Return every pod that holds GPUs, on all nodes or one, but for those of the proof. Raises the API's errors."""
    found, pods = [], await on.list_("v1", "Pod", fields=f"spec.nodeName={node}" if node else "")
    claims = await see_claims(on, pods)
    for pod in pods:
        meta, where = pod["metadata"], pod["spec"].get("nodeName", "")
        if not where or meta.get("namespace") == NAMESPACE or not (held := asked_devices(pod, claims)):
            continue
        chain = [pod, *await walk_up(on, pod)]
        top = chain[-1]
        owner = f"{top.get('kind')} {meta['namespace']}/{top['metadata']['name']}" if len(chain) > 1 else ""
        space = await on.get("v1", "Namespace", meta["namespace"])
        said = [*chain, *([space] if space else [])]
        policy, note = _decided(said) or default, ""
        if policy == "checkpoint":
            seconds = _promised(said)
            note = f"for {why}" if (why := _why_not_saved(chain, seconds)) else f"saves its work within {seconds} s"
            policy = "wait" if why else policy
        name = f"{meta['namespace']}/{meta['name']}"
        found.append(GpuJob(name, where, ", ".join(held), owner, policy, serves(pod), note, groups_of(pod)))
    return sorted(found, key=lambda one: (one.node, one.pod))


def _decided(chain: Iterable[Mapping[str, Any]]) -> Policy | None:
    """Return what the nearest of them says by its annotation; a word that means nothing is none."""
    for one in chain:
        said = str((one["metadata"].get("annotations") or {}).get(ANNOTATION, "")).strip()
        if said in get_args(Policy):
            return cast("Policy", said)
    return None


def _promised(chain: Iterable[Mapping[str, Any]]) -> int | None:
    """Return within how many seconds the nearest of them says that work is saved; None where it is no number."""
    notes = ((one["metadata"].get("annotations") or {}).get(CHECKPOINT) for one in chain)
    return next((whole(str(note)) for note in notes if note is not None), None)


def _why_not_saved(chain: Sequence[Mapping[str, Any]], seconds: int | None) -> str:
    """Return why a pod, the first of the chain, is not told to save its work and end; "" where it may be."""
    pod, above = chain[0], chain[1] if len(chain) > 1 else {}
    grace = pod["spec"].get("terminationGracePeriodSeconds", GRACE_SECONDS)
    if not seconds:
        return f"nothing says how long it takes to save its work ({CHECKPOINT})"
    if seconds > LONGEST_SAVE:
        return f"it takes {seconds} s to save its work, and a drain gives it {LONGEST_SAVE} s at most"
    if grace < seconds:
        return f"it takes {seconds} s to save its work, and is killed after {grace} s (terminationGracePeriodSeconds)"
    if not controller_of(pod):
        return "nothing would start it again"
    if above.get("kind") == "Job" and not _bears_one_more(above):
        return f"its Job {above['metadata']['name']} would have failed with it (backoffLimit)"
    return ""


def _bears_one_more(job: Mapping[str, Any]) -> bool:
    """Say whether a Job goes on where one more of its pods ends early."""
    spec, failed = job.get("spec") or {}, (job.get("status") or {}).get("failed") or 0
    rules = (spec.get("podFailurePolicy") or {}).get("rules") or ()
    return any(rule.get("action") == "Ignore" for rule in rules) or failed < spec.get("backoffLimit", TRIES)


async def given_up(on: Kube, node: str) -> frozenset[str]:
    """Return the pods that hold GPUs of a node and whose owners let them go: evicted, or told to save their work."""
    return frozenset(job.pod for job in await find_jobs(on, "never", node) if job.policy in ("evict", "checkpoint"))


def serves(pod: Mapping[str, Any]) -> bool:
    """Say whether a pod is one of equal replicas that run forever; a StatefulSet's may be parts of one work."""
    return controller_of(pod).get("kind") in KEEPERS


def groups_of(pod: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the groups that a pod is scheduled with."""
    meta = pod["metadata"]
    said = {**(meta.get("annotations") or {}), **(meta.get("labels") or {})}
    return tuple(sorted({f"PodGroup {meta['namespace']}/{said[key]}" for key in GROUPS if said.get(key)}))


def gangs(jobs: Iterable[GpuJob]) -> list[frozenset[str]]:
    """Return the sets of nodes that the pods of one owner, or of one PodGroup, span.

    Who loses one of these pods loses the work on all of them. Replicas of a service are no gang, whatever group they
    are in (Volcano makes one for each ReplicaSet): while one is moved the others answer.
    """
    spanned: dict[str, set[str]] = {}
    for job in jobs:
        for one in () if job.serves else (job.owner, *job.groups):
            if one:
                spanned.setdefault(one, set()).add(job.node)
    joined: list[set[str]] = []
    for nodes in spanned.values():
        touching = [one for one in joined if one & nodes]
        joined = [one for one in joined if not one & nodes] + [nodes.union(*touching)]
    return [frozenset(one) for one in joined if len(one) > 1]
