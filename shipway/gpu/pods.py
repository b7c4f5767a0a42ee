"""The pods of the GPU proof: what they run, what their logs tell, and the checks that watch them."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.cluster.model import Cluster
from shipway.converge import wait_until
from shipway.errors import PostconditionFailed, Refused
from shipway.gpu.chosen import VENDOR
from shipway.gpu.seen import PodSeen
from shipway.gpu.vendor import Vendor
from shipway.kube.client import Kube, Object
from shipway.kube.drain import PROOFS, is_ours
from shipway.kube.manifests import render
from shipway.kube.pod_states import events_about, find_known, find_trouble
from shipway.kube.status import condition
from shipway.redact import keep_ends, redact
from shipway.step import Drift

NAMESPACE = PROOFS
EXTRA = "gpu-test-extra"
WITHOUT = "gpu-test-without"  # and a number: pods that ask for no GPU, one on each node
LISTED = "gpus-listed"
TEMPLATES = "gpus-"  # and a number: what claims of so many GPUs are made from
_CLAIM = "gpus"
SHOWN = 300  # characters of why a pod does not run
# The kubelet's word for a pod that the scheduler gave a GPU which the kubelet does not have at this moment.
TURNED_AWAY = "UnexpectedAdmissionError"
CLEAR_SECONDS = 120.0
# A kubelet turns pods away until its device plugin has registered with it again. A plugin that ended while the kubelet
# did not answer is started anew by it after 10, 20, then 40 s (the kubelet's back-off), and its driver takes seconds.
REGISTER_SECONDS = 120.0
_NODES = re.compile(r"^nodes of (\S+): (.*)$", re.MULTILINE)
_GIVEN = re.compile(r"^devices=(.*)$", re.MULTILINE)
_NO_DEVICE = frozenset({"", "all", "none", "void"})


def script(*, compute: bool, vendor: Vendor = VENDOR) -> str:
    """Return what a pod runs: say the GPU, compute where asked for, stay. Only sh, echo and sleep must be there."""
    given = f"${vendor.variable}" if vendor.variable else ""
    parts = [f'echo "devices={given}"', f'echo "nodes of $NODE_NAME:" {vendor.devices}']
    parts += [shlex.join(vendor.probe.command), f"echo {LISTED}"]
    parts += [vendor.sample.path, f'echo "{vendor.sample.ended} $?"'] if compute else []
    return "; ".join([*parts, "sleep 86400"])


def _environment(variables: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in variables.items()]


def pod_with_gpu(
    cluster: Cluster,
    name: str,
    avoid: Sequence[str] = (),
    *,
    resource: str = "",
    count: int = 1,
    vendor: Vendor = VENDOR,
) -> Object:
    """Return one pod that asks for GPUs (or for shares or parts of a `resource`), on any node but some to avoid.

    Where GPUs are claimed it has a claim, from a template that `apply_pods` makes. A requirement names one node: the
    API accepts no more in `matchFields` (Kubernetes, core validation).
    """
    resource = resource or _default(cluster, vendor)
    claimed = vendor.is_claimed(resource)
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in avoid]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    node = {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    return render(
        "verify/pod.yaml",
        name=name,
        namespace=NAMESPACE,
        image=cluster.gpu.verify_image,
        runtime_class=None if claimed else vendor.runtime_class(cluster.gpu.mode),
        command=["sh", "-c", script(compute=cluster.gpu.compute == "required", vendor=vendor)],
        environment=[*_environment(vendor.environment), node],
        resource=vendor.resource,
        claims=[{"name": _CLAIM, "resourceClaimTemplateName": f"{TEMPLATES}{count}"}] if claimed else None,
        resources={"claims": [{"name": _CLAIM}]} if claimed else {"limits": {resource: str(count)}},
        affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}} if avoid else None,
        seconds=4 * cluster.gpu.verify_seconds + 600,  # longer than any proof takes; then the GPUs are free again
    )[0]


def _default(cluster: Cluster, vendor: Vendor) -> str:
    """Return the name by which pods ask for GPUs in the declared mode."""
    return vendor.claims.driver if cluster.gpu.mode == "dra" and vendor.claims else vendor.resource


def pinned(pod: Object, node: str) -> Object:
    """Return a test pod for one node, which may be cordoned.

    It is given to the node itself; where it claims its GPU the scheduler gives it, as nobody else allocates claims.
    """
    spec = dict(pod["spec"])
    if not spec.get("resourceClaims"):
        return {**pod, "spec": {**spec, "nodeName": node}}
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    spec["tolerations"] = [{"operator": "Exists"}]
    return {**pod, "spec": spec}


async def apply_pods(on: Kube, pods: Iterable[Object], *, vendor: Vendor = VENDOR) -> None:
    """Make test pods, and before them what their claims are made from. Raises the API's errors."""
    pods = list(pods)
    asked = [claim["resourceClaimTemplateName"] for pod in pods for claim in pod["spec"].get("resourceClaims") or ()]
    device_class = vendor.claims.device_class if vendor.claims else ""
    for name in dict.fromkeys(asked):
        count = int(name.removeprefix(TEMPLATES))
        for template in render(
            "verify/claim.yaml", name=name, namespace=NAMESPACE, device_class=device_class, count=count
        ):
            await on.apply(template)
    await asyncio.gather(*map(on.apply, pods))


def pod_without(cluster: Cluster, name: str, node: str, *, vendor: Vendor = VENDOR) -> Object:
    """Return a pod of one node that asks Kubernetes for no GPU, and the vendor's toolkit for all, by its variable.

    It says what it sees: device nodes, by the shell itself, and the probe's list; what mounts that may leave it out.
    """
    return render(
        "verify/pod-without.yaml",
        name=name,
        namespace=NAMESPACE,
        node=node,
        image=cluster.gpu.verify_image,
        runtime_class=vendor.runtime_class(cluster.gpu.mode),
        script=f"echo {vendor.devices}; {shlex.join(vendor.probe.command)}; echo {LISTED}; sleep 86400",
        environment=_environment({vendor.variable: "all"}) if vendor.variable else None,
        seconds=cluster.gpu.verify_seconds + 600,
    )[0]


def count_seen_without(log: str, vendor: Vendor = VENDOR) -> int | None:
    """Return how many GPUs a pod saw that asked for none; None before it has said so."""
    if LISTED not in log:
        return None
    return max(len(set(vendor.device.findall(log))), len(set(vendor.held.findall(log))))


@dataclass(frozen=True)
class WithoutSpoke:
    """Every pod that asks for no GPU has said how many it sees; what they said is in `heard`, by pod."""

    names: Sequence[str] = field(hash=False)
    heard: dict[str, int] = field(default_factory=dict, hash=False)
    name: str = "every pod that asks for no GPU has said what it sees"
    vendor: Vendor = VENDOR

    async def check(self, on: Kube) -> Drift | None:
        """Read the logs of those that have not said it yet."""
        silent = [name for name in self.names if name not in self.heard]
        logs = await asyncio.gather(*(on.logs(NAMESPACE, name) for name in silent))
        found = {name: count_seen_without(log, self.vendor) for name, log in zip(silent, logs, strict=True)}
        self.heard.update({name: count for name, count in found.items() if count is not None})
        left = [name for name in silent if name not in self.heard]
        return Drift(f"{len(left)} of {len(self.names)} silent", "all have reported") if left else None


@dataclass(frozen=True, slots=True)
class Said:
    """What a pod's log tells: the GPUs it was given, how the sample ended (None: it has not), and on which node."""

    devices: tuple[str, ...]
    passed: bool | None = None
    node: str = field(default="", compare=False)


def read_log(log: str, vendor: Vendor = VENDOR) -> Said | None:
    """Return what a log tells so far; None before the pod has said which GPU it has.

    What the probe lists inside the pod counts; without it, the vendor's variable as the kubelet set it; where that
    names none (NVIDIA's toolkit 1.20 makes it "void", a plugin that makes mounts a path), the host's device nodes.
    """
    given = _GIVEN.search(log)
    if given is None or LISTED not in log:
        return None
    words = [word.strip() for word in given[1].split(",")]
    named = [word for word in words if word not in _NO_DEVICE and not word.startswith("/")]
    nodes = _NODES.search(log)
    there = [f"{nodes[1]}:{name}" for name in vendor.device.findall(nodes[2])] if nodes else []
    parts = vendor.listed_parts.findall(log) if vendor.listed_parts else []  # the probe tells its whole GPU beside it
    devices = parts or vendor.held.findall(log) or named or there
    passed = vendor.sample.passed in log if vendor.sample.ended in log else None
    return Said(tuple(dict.fromkeys(devices)), passed, nodes[1] if nodes else "")


def describe_pod(pod: Object, events: Sequence[str] = (), log: str = "") -> PodSeen:
    """Return a pod as a piece of evidence, free of secrets."""
    status = pod.get("status") or {}
    return PodSeen(
        name=pod["metadata"]["name"],
        node=(pod.get("spec") or {}).get("nodeName", ""),
        phase=status.get("phase", ""),
        why=redact(find_trouble(pod, events)),
        events=tuple(redact(event) for event in events[-8:]),
        log=redact(log[-4000:]),
    )


class TurnedAway(PostconditionFailed):
    """The kubelet refused pods because its device plugin was not registered with it; `pods` names them."""

    def __init__(self, message: str, pods: Sequence[str]) -> None:
        super().__init__(message)
        self.pods = tuple(pods)


async def find_space(on: Kube) -> Object | None:
    """Return the namespace of the proofs, None where it is not there. Raises Refused where somebody else made it."""
    space = await on.get("v1", "Namespace", NAMESPACE)
    if space is not None and not is_ours(space):
        fix = f"Rename or delete it: the GPU proof needs the namespace {NAMESPACE} for itself."
        raise Refused(f"namespace {NAMESPACE} was not made by Shipway", fix=fix)
    return space


async def _pods(on: Kube) -> dict[str, Object]:
    return {pod["metadata"]["name"]: pod for pod in await on.list_("v1", "Pod", NAMESPACE)}


@dataclass(frozen=True)
class AllRun:
    """All pods of the proof are Running in one and the same look, so no GPU was used twice in turn."""

    traps: ClassVar[tuple[int, ...]] = (46, 47)
    names: Sequence[str] = field(hash=False)
    name: str = "all test pods run at once"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for the pods and their events; raises PostconditionFailed for a pod that will never run.

        Raises TurnedAway where all that keeps pods is a kubelet that had no GPU to give them.
        """
        pods, listed = await asyncio.gather(_pods(on), on.list_("v1", "Event", NAMESPACE))
        refused = [
            name for name in self.names if ((pods.get(name) or {}).get("status") or {}).get("reason") == TURNED_AWAY
        ]
        running = [name for name in self.names if _phase(pods.get(name)) == "Running"]
        if len(running) == len(self.names):
            return None
        waiting = {}
        for name in (name for name in self.names if name not in running):
            events = events_about(pods[name], listed) if name in pods else []
            waiting[name] = find_trouble(pods[name], events) if name in pods else "gone"
            over = _phase(pods.get(name)) in ("Failed", "Succeeded") or find_known(pods.get(name) or {}, events)
            if over and name not in refused:
                raise PostconditionFailed(f"{name} does not run: {waiting[name] or _phase(pods.get(name))}")
        if refused:
            raise TurnedAway(f"{refused[0]} does not run: {waiting[refused[0]]}", refused)
        name, why = next(((name, why) for name, why in waiting.items() if why), (next(iter(waiting)), "starting"))
        return Drift(
            f"{len(running)} of {len(self.names)} running; {name}: {keep_ends(why, SHOWN)}",
            f"{len(self.names)} running",
        )


@dataclass(frozen=True)
class AllDecided:
    """Every pod of the proof runs, or has said why it does not."""

    names: Sequence[str] = field(hash=False)
    name: str = "every test pod runs or says why not"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for the pods and their events."""
        pods, listed = await asyncio.gather(_pods(on), on.list_("v1", "Event", NAMESPACE))
        waiting = [name for name in self.names if _phase(pods.get(name)) == "Pending"]
        starting = [name for name in waiting if not find_trouble(pods[name], events_about(pods[name], listed))]
        return Drift(f"{len(starting)} are starting: {', '.join(starting[:3])}", "none") if starting else None


def _phase(pod: Object | None) -> str:
    return str((pod.get("status") or {}).get("phase", "")) if pod else ""


@dataclass(frozen=True)
class AllSpoke:
    """Every pod has said which GPU it has, and has computed where that is asked for; what they said is in `heard`."""

    traps: ClassVar[tuple[int, ...]] = (31, 46)
    names: Sequence[str] = field(hash=False)
    compute: bool
    heard: dict[str, Said] = field(default_factory=dict, hash=False)
    name: str = "every test pod has said which GPU it has"
    vendor: Vendor = VENDOR

    async def check(self, on: Kube) -> Drift | None:
        """Read the logs of those that have not said all yet."""
        asked = [name for name in self.names if not self._done(self.heard.get(name))]
        logs = await asyncio.gather(*(on.logs(NAMESPACE, name) for name in asked))
        found = {name: read_log(log, self.vendor) for name, log in zip(asked, logs, strict=True)}
        self.heard.update({name: words for name, words in found.items() if words})
        silent = [name for name in self.names if not self._done(self.heard.get(name))]
        if not silent:
            return None
        what = "its GPU" if silent[0] not in self.heard else f"the result of the {self.vendor.sample.name}"
        have = f"{len(silent)} of {len(self.names)} silent; {silent[0]} has not reported {what}"
        return Drift(have, "all have reported")

    def _done(self, words: Said | None) -> bool:
        return words is not None and (words.passed is not None or not self.compute)


@dataclass(frozen=True)
class ExtraWaits:
    """One pod more than there are GPUs stays Pending, for the lack of a GPU and nothing else."""

    traps: ClassVar[tuple[int, ...]] = (46,)
    vendor: Vendor = VENDOR
    pod: str = EXTRA
    resource: str = ""

    @property
    def full(self) -> str:
        """What the scheduler says where nothing of the resource is left."""
        return self.vendor.full(self.resource)

    @property
    def name(self) -> str:
        """What the scheduler is to say."""
        return f"a further pod stays Pending: {self.full}"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for the scheduler's word; raises PostconditionFailed when it found a GPU."""
        pod = await on.get("v1", "Pod", self.pod, NAMESPACE)
        scheduled = condition(pod or {}, "PodScheduled")
        if scheduled.get("status") == "True" or (pod and pod["spec"].get("nodeName")):
            node = pod["spec"].get("nodeName") if pod else ""
            raise PostconditionFailed(f"the further pod was given a GPU on {node}: there are more GPUs than counted")
        message = str(scheduled.get("message", ""))
        if scheduled.get("status") == "False" and re.search(rf"{re.escape(self.full)}(?![\w./-]*\w)", message):
            return None
        return Drift(message or "the scheduler has not said anything", self.full)


@dataclass(frozen=True)
class NoPods:
    """No pod of a proof is left, or none of these."""

    names: Sequence[str] = field(default=(), hash=False)
    name: str = f"no test pod is left in {NAMESPACE}"

    async def check(self, on: Kube) -> Drift | None:
        """Count them."""
        pods = [name for name in await _pods(on) if not self.names or name in self.names]
        return Drift(f"{len(pods)} are still ending", "none") if pods else None


@dataclass(frozen=True)
class PodsGone:
    """Nothing of a proof is left: its namespace is gone with all that was in it."""

    name: str = f"nothing of an earlier proof is left in {NAMESPACE}"

    async def check(self, on: Kube) -> Drift | None:
        """Look for the namespace."""
        if await on.get("v1", "Namespace", NAMESPACE) is None:
            return None
        pods = await on.list_("v1", "Pod", NAMESPACE)
        return Drift(f"namespace {NAMESPACE} with {len(pods)} pods is still being deleted", "gone")


async def run_together(
    kube: Kube,
    pods: Mapping[str, Object],
    on_wait: Callable[[str], None],
    *,
    seconds: float,
    every: float,
    vendor: Vendor = VENDOR,
) -> None:
    """Wait until test pods that were applied all run at once; one that its kubelet turned away is made anew for a time.

    `seconds` bounds each wait, `REGISTER_SECONDS` how long pods are made anew. Raises as `AllRun`, and
    DeadlineExceeded.
    """
    registered = time.monotonic() + min(REGISTER_SECONDS, seconds)
    while True:
        try:
            return await wait_until(AllRun(list(pods)), kube, seconds=seconds, every=every, on_wait=on_wait)
        except TurnedAway as refused:
            if time.monotonic() > registered:
                raise
            on_wait(f"{refused.message}; made anew, as its device plugin may be registering again")
            await asyncio.gather(*(kube.delete("v1", "Pod", name, NAMESPACE, grace=1) for name in refused.pods))
            await wait_until(NoPods(refused.pods), kube, seconds=CLEAR_SECONDS, every=every, on_wait=on_wait)
            await asyncio.sleep(2 * every)
            await apply_pods(kube, [pods[name] for name in refused.pods], vendor=vendor)
