"""The GPU proof of one host that takes no other pods yet: a pod for each of its GPUs really runs, each with its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from shipway.cluster.model import Cluster
from shipway.converge import wait_until
from shipway.errors import Blocked, PostconditionFailed, ShipwayError
from shipway.facts.commands import Says
from shipway.gpu.chosen import VENDOR
from shipway.gpu.offers import see_offers
from shipway.gpu.pods import (
    CLEAR_SECONDS,
    NAMESPACE,
    AllSpoke,
    NoPods,
    PodsGone,
    Said,
    apply_pods,
    find_space,
    pinned,
    pod_with_gpu,
    run_together,
)
from shipway.gpu.proof import make_space
from shipway.gpu.proven import keep_proven, see_marks
from shipway.gpu.result import same_gpus
from shipway.host.session import Host
from shipway.kube.client import Kube, Object
from shipway.kube.manifests import render
from shipway.kube.pod_states import find_trouble
from shipway.redact import tail
from shipway.step import Drift

REACHES = "a pod there is answered by DNS and the API"
STEP = "a pod for each of its GPUs runs, each with its own, and one is answered by DNS and the API"
# What the first test pod does before all else, by whatever its image has; a node that has just come back is given time.
REACH = """for n in 1 2 3 4 5 6 7 8 9 10; do
  if command -v getent; then getent hosts {name} && dns=answers || dns=silent
  elif command -v nslookup; then nslookup -type=a {name} && dns=answers || dns=silent
  else dns=untold; fi
  where=$KUBERNETES_SERVICE_HOST/$KUBERNETES_SERVICE_PORT
  if command -v bash; then bash -c ": < /dev/tcp/$where" && api=answers || api=silent
  elif command -v nc; then nc -w 5 "${{where%/*}}" "${{where#*/}}" < /dev/null && api=answers || api=silent
  else api=untold; fi
  case "$dns $api" in *silent*) sleep 2;; *) break;; esac
done >/dev/null 2>&1
echo "DNS $dns, API $api"
"""
NO_IMAGE = "the image of the test pods cannot be had"
IMAGE_AWAY = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
_REACHED = re.compile(r"^DNS (\w+), API (\w+)$", re.MULTILINE)


async def prove_host(
    kube: Kube, cluster: Cluster, node: str, count: int, on_wait: Callable[[str], None] = lambda _: None
) -> None:
    """Run a test pod for each GPU of a node, all at once, and take them away again.

    They are given to the node itself, not to the scheduler, which sends none to a closed one (`pinned`). Raises
    PostconditionFailed SHW-796 where one does not run, two have the same GPU, or the cluster's DNS or API does not
    answer from there; what they are is then left to be seen.
    """
    offer = (await see_offers(kube, {node: count}, thorough=True))[node]
    asked = [resource for resource, number in offer.asks(count).items() for _ in range(number)]
    asks = {f"gpu-test-{node}-{number}": resource for number, resource in enumerate(asked, 1)}
    names = list(asks)
    heard: dict[str, Said] = {}
    compute = cluster.gpu.compute == "required"
    limit = cluster.gpu.verify_seconds
    await _clear(kube, names, on_wait)
    marks = await see_marks(kube, [node])
    await make_space(kube)
    pods = {name: _pod(cluster, name, node, asks[name], reaches=name == names[0]) for name in names}
    await apply_pods(kube, pods.values())
    try:
        await run_together(kube, pods, on_wait, seconds=limit, every=1.0)
        await wait_until(AllSpoke(names, compute, heard), kube, seconds=limit, every=1.0, on_wait=on_wait)
    except ShipwayError as error:
        raise _failed(node, error.message) from error
    faults = same_gpus(heard, {node: offer.replicas})
    faults += [
        f"{VENDOR.sample.name} failed in {name}" for name, said in heard.items() if compute and said.passed is False
    ]
    kube.forget()
    faults += _unreached(await kube.logs(NAMESPACE, names[0]), on_wait)
    if faults:
        raise _failed(node, "; ".join(faults))
    await keep_proven(kube, marks, {node: [said.devices[0] for said in heard.values()]}, passed=True)
    await _clear(kube, names, on_wait)


def _failed(node: str, why: str) -> PostconditionFailed:
    fix = f"See `kubectl -n {NAMESPACE} get pods -o wide` and `shipway verify`; {node} stays closed until it is mended."
    return PostconditionFailed(f"test pods on {node} found: {why}", host=node, code="SHW-796", fix=fix)


async def prove_reach(kube: Kube, cluster: Cluster, node: str, on_wait: Callable[[str], None] = lambda _: None) -> None:
    """Run a pod without GPUs on a node, ask from it for the cluster's DNS and API, and take it away again.

    Where the node cannot have the image of the test pods, which is for hosts with GPUs, that is told and no fault.
    Raises PostconditionFailed SHW-796 where the pod does not run, or DNS or API does not answer it; it is left then.
    """
    name = f"reach-test-{node}"
    await _clear(kube, [name], on_wait)
    await make_space(kube)
    await kube.apply(_pod_without(cluster, name, node))
    heard: list[str] = []
    try:
        await wait_until(ReachSpoke(name, heard), kube, seconds=cluster.gpu.verify_seconds, every=1.0, on_wait=on_wait)
    except ShipwayError as error:
        if not await _is_pulled(kube, name):
            raise _failed(node, f"{name}: {error.message}") from error
        heard.append(f"{NO_IMAGE} (it is still being pulled)")
    if heard[0].startswith(NO_IMAGE):
        on_wait(f"{heard[0]} on {node}: DNS and API were not asked from a pod there")
    elif faults := _unreached(heard[0], on_wait):
        raise _failed(node, "; ".join(faults))
    await _clear(kube, [name], on_wait)


async def _is_pulled(kube: Kube, name: str) -> bool:
    """Say whether a pod waits for nothing but its image, which is on its way."""
    kube.forget()
    pod = await kube.get("v1", "Pod", name, NAMESPACE)
    events = await kube.events_of(pod) if pod else []
    return bool(events) and events[-1].startswith("Pulling: ")


@dataclass(frozen=True)
class ReachSpoke:
    """A pod has said whether DNS and API answer it, or its image cannot be had; which, is in `heard`."""

    pod: str
    heard: list[str] = field(default_factory=list, hash=False)
    name: str = "a test pod has said whether DNS and the API answer it"

    async def check(self, on: Kube) -> Drift | None:
        """Read its log. Raises PostconditionFailed for a pod that will not run."""
        pod, log = await asyncio.gather(on.get("v1", "Pod", self.pod, NAMESPACE), on.logs(NAMESPACE, self.pod))
        status = (pod or {}).get("status") or {}
        states = [one.get("state") or {} for one in status.get("containerStatuses") or ()]
        waits = [str((one.get("waiting") or {}).get("reason", "")) for one in states]
        if _REACHED.search(log):
            self.heard.append(log)
        elif found := [one for one in waits if one in IMAGE_AWAY]:
            self.heard.append(f"{NO_IMAGE} ({found[0]})")
        elif pod is None or status.get("phase") in ("Failed", "Succeeded"):
            why = find_trouble(pod) if pod else "gone"
            raise PostconditionFailed(f"it does not run: {why or status.get('phase')}")
        else:
            return Drift(find_trouble(pod) or str(status.get("phase") or "starting"), "an answer")
        return None


def _unreached(log: str, on_wait: Callable[[str], None]) -> list[str]:
    """Return what did not answer a test pod; what its image has no program for is told, and no fault."""
    said = _REACHED.search(log)
    answers = dict(zip(("DNS", "the API"), said.groups() if said else ("untold", "untold"), strict=True))
    if untold := [what for what, answer in answers.items() if answer == "untold"]:
        on_wait(f"the image of the test pods has no program that asks {' or '.join(untold)}: not seen from a pod")
    return [f"{what} does not answer pods there" for what, answer in answers.items() if answer == "silent"]


def _pod(cluster: Cluster, name: str, node: str, resource: str, *, reaches: bool) -> Object:
    pod = pod_with_gpu(cluster, name, resource=resource)
    if reaches:
        command = pod["spec"]["containers"][0]["command"]
        command[-1] = _reach(cluster) + command[-1]
    return pinned(pod, node)


def _pod_without(cluster: Cluster, name: str, node: str) -> Object:
    """Return a pod of one node that needs no GPU and no runtime of its vendor."""
    return render(
        "verify/pod-reach.yaml",
        name=name,
        namespace=NAMESPACE,
        node=node,
        image=cluster.gpu.verify_image,
        command=["sh", "-c", f"{_reach(cluster)}sleep 86400"],
        seconds=cluster.gpu.verify_seconds + 600,
    )[0]


def _reach(cluster: Cluster) -> str:
    domain = cluster.kubernetes.kubelet.get("clusterDomain", "cluster.local")
    return REACH.format(name=f"kubernetes.default.svc.{domain}")


async def _clear(kube: Kube, names: list[str], on_wait: Callable[[str], None]) -> None:
    """Delete test pods of these names, and wait until they are gone. Raises Refused where the namespace is not ours."""
    kube.forget()
    space = await find_space(kube)
    if space is None:
        return
    if space["metadata"].get("deletionTimestamp"):  # of a proof that has just ended
        await wait_until(PodsGone(), kube, seconds=CLEAR_SECONDS, every=1.0, on_wait=on_wait)
        return
    there = {one["metadata"]["name"] for one in await kube.list_("v1", "Pod", NAMESPACE)}
    await asyncio.gather(*(kube.delete("v1", "Pod", name, NAMESPACE, grace=1) for name in names if name in there))
    await wait_until(NoPods(names), kube, seconds=CLEAR_SECONDS, every=1.0, on_wait=on_wait)


async def take_namespace_away(kube: Kube) -> None:
    """Delete the namespace of the test pods where none of them is left; it is no reason to fail that it stays."""
    with contextlib.suppress(ShipwayError):
        kube.forget()
        if await find_space(kube) and not await kube.list_("v1", "Pod", NAMESPACE):
            await kube.delete("v1", "Namespace", NAMESPACE)


@dataclass(frozen=True)
class NoGpuErrors:
    """The kernel of a host has told of no error of a GPU since a moment (seconds since 1970, by the host's clock)."""

    since: int
    name: str = "the kernel tells of no error of a GPU since the kubelet was started"

    @property
    def messages(self) -> Says:
        """The fact of what the kernel has said since then."""
        return Says(("journalctl", "-k", "--no-pager", "-q", "-o", "cat", "--since", f"@{self.since}"), 30)

    async def check(self, on: Host) -> Drift | None:
        """Read the kernel's messages. Raises PostconditionFailed SHW-796 with the last error, Blocked without any."""
        said = await on.read(self.messages)
        if not said.ok:
            raise Blocked(f"the kernel's messages cannot be read: {tail(said.stderr, 1)}", host=on.name)
        word = re.compile(rf"\b{VENDOR.kernel_word}\b", re.IGNORECASE)
        if told := [line for line in said.stdout.splitlines() if word.search(line)]:
            fix = f"See `{VENDOR.kernel_log}` on {on.name}: restart the host, or have the GPU replaced; then run again."
            message = f"the kernel tells of errors of GPUs ({len(told)}): {tail(told[-1], 1)}"
            raise PostconditionFailed(message, host=on.name, code="SHW-796", fix=fix)
        return None
