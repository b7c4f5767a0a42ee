"""The GPU proof of one host that takes no other pods yet: a pod for each of its GPUs really runs, each with its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass

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
from shipway.redact import tail
from shipway.step import Drift

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
    faults += await _unreached(kube, names[0], on_wait)
    if faults:
        raise _failed(node, "; ".join(faults))
    await keep_proven(kube, marks, {node: [said.devices[0] for said in heard.values()]}, passed=True)
    await _clear(kube, names, on_wait)


def _failed(node: str, why: str) -> PostconditionFailed:
    fix = f"See `kubectl -n {NAMESPACE} get pods -o wide` and `shipway verify`; {node} stays closed until it is mended."
    return PostconditionFailed(f"test pods on {node} found: {why}", host=node, code="SHW-796", fix=fix)


async def _unreached(kube: Kube, name: str, on_wait: Callable[[str], None]) -> list[str]:
    """Return what did not answer the first test pod; what its image has no program for is told, and no fault."""
    kube.forget()
    said = _REACHED.search(await kube.logs(NAMESPACE, name))
    answers = dict(zip(("DNS", "the API"), said.groups() if said else ("untold", "untold"), strict=True))
    if untold := [what for what, answer in answers.items() if answer == "untold"]:
        on_wait(f"the image of the test pods has no program that asks {' or '.join(untold)}: not seen from a pod")
    return [f"{what} does not answer pods there" for what, answer in answers.items() if answer == "silent"]


def _pod(cluster: Cluster, name: str, node: str, resource: str, *, reaches: bool) -> Object:
    pod = pod_with_gpu(cluster, name, resource=resource)
    if reaches:
        domain = cluster.kubernetes.kubelet.get("clusterDomain", "cluster.local")
        command = pod["spec"]["containers"][0]["command"]
        command[-1] = REACH.format(name=f"kubernetes.default.svc.{domain}") + command[-1]
    return pinned(pod, node)


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
