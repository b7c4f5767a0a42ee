"""What measures: a pod that takes all GPUs of its node and runs the probe, and the same probe on the host beside it.

While the pod stays it holds the node's GPUs, so that no other pod gets one while the host is measured. What is no pod
and uses a GPU is asked for at the moment of the act.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shipway.cluster.model import Cluster
from shipway.converge import wait_until
from shipway.errors import DeadlineExceeded, ShipwayError
from shipway.gpu.beside import Holds, run_beside
from shipway.gpu.chosen import VENDOR
from shipway.gpu.figures.judge import Row
from shipway.gpu.figures.model import ENDED, Heard, Silent, has_ended, read_heard
from shipway.gpu.offers import see_offers
from shipway.gpu.pods import NAMESPACE, apply_pods, pod_with_gpu
from shipway.gpu.proof import own_space
from shipway.gpu.vendor import FigureProgram, Vendor
from shipway.host.command import Command
from shipway.host.session import Host
from shipway.kube.client import Kube, Object
from shipway.kube.pod_states import events_about, find_known, find_trouble
from shipway.redact import keep_ends, redact
from shipway.step import Drift

IMAGE_SECONDS = 1800  # an image with NCCL and cuBLAS has gigabytes
LATE_SECONDS = 300.0  # for a pod that does not start while all others have been measured: they had the same image
PROBE_SECONDS = 600  # above what the probe gives itself: measured twice, and a collective
# By the level of the diagnosis: of eight GPUs 3 takes about ten minutes, and 4 more than an hour; some tests hung for
# good (DCGM#136, #247).
BURN_SECONDS = {3: 2700, 4: 4 * 3600}
SHOWN = 300
LOOK_SECONDS = 2.0
# $0 is a word for what the shell says, $1 the program: as $0 all of it stood before `python3: not found`, and what
# followed was beyond what is read of a log.
IN_POD = f'program=$1; shift; python3 -c "$program" "$@"; echo {ENDED} $?; sleep 86400'
# $0 what lists the processes that use a GPU, $1 how many bytes the program has, then its options.
# A process that has just ended is listed for a moment longer (seen on two H200): what is busy is so for some looks.
ON_HOST = (
    'program=$(dd bs="$1" count=1 iflag=fullblock status=none); shift; for look in 1 2 3 4 5; do '
    'busy=$(sh -c "$0" 2>&1) || { echo "it is not known who uses its GPUs: $busy"; exit 0; }; '
    '[ -n "$busy" ] || break; sleep 2; done; [ -z "$busy" ] || { echo "busy: $busy"; exit 0; }; '
    f'python3 -c "$program" "$@" 2>&1; echo {ENDED} $?'
)


def pod_that_measures(
    cluster: Cluster,
    name: str,
    node: str,
    count: int,
    *,
    options: Sequence[str] = (),
    burns: int = 0,
    resource: str = "",
    vendor: Vendor = VENDOR,
) -> Object:
    """Return a pod that takes all GPUs of a node, says what they reach, and holds them until it is deleted.

    It asks for them by the name of the `resource`, or of the declared mode; `burns` is the level of the diagnosis
    that is made while it holds them, 0 for none.
    The program has its own `options` where none are given.
    """
    program = _program(vendor)
    pod = pod_with_gpu(cluster, name, resource=resource, count=count, vendor=vendor)
    spec = pod["spec"]
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    spec["activeDeadlineSeconds"] = IMAGE_SECONDS + 2 * PROBE_SECONDS + 600 + BURN_SECONDS.get(burns, 0)
    container = spec["containers"][0]
    container["image"] = cluster.gpu.figures.image
    container["command"] = ["sh", "-c", IN_POD, "figures", program.text(), *(options or program.options)]
    return pod


def _program(vendor: Vendor) -> FigureProgram:
    if vendor.figures is None:
        raise LookupError(f"nothing measures GPUs of {vendor.name}")
    return vendor.figures


@dataclass(frozen=True)
class FiguresHeard:
    """Every pod that measures has said what its GPUs reach, or does not run; that is in `heard` and `lost`, by node."""

    pods: Mapping[str, str] = field(hash=False)  # name: node
    heard: dict[str, Heard] = field(default_factory=dict, hash=False)
    lost: dict[str, str] = field(default_factory=dict, hash=False)  # why
    idle: list[float] = field(default_factory=list, hash=False)  # since when those left do not even start
    troubles: dict[str, str] = field(default_factory=dict, hash=False)  # what kept a pod from running when last seen
    name: str = "every pod that measures has said what its GPUs reach"

    async def check(self, on: Kube) -> Drift | None:
        """Look at the pods that are still at work, and at what they have said."""
        left = {name: node for name, node in self.pods.items() if node not in self.heard and node not in self.lost}
        pods, events = await asyncio.gather(on.list_("v1", "Pod", NAMESPACE), on.list_("v1", "Event", NAMESPACE))
        there = {pod["metadata"]["name"]: pod for pod in pods}
        running = [name for name in left if _phase(there.get(name)) == "Running"]
        logs = dict(zip(running, await asyncio.gather(*(on.logs(NAMESPACE, name) for name in running)), strict=True))
        waiting: dict[str, str] = {}
        for name, node in left.items():
            pod = there.get(name)
            about = events_about(pod, events) if pod else []
            why = redact(find_trouble(pod, about)) if pod else "it is gone"
            self.troubles[node] = "" if name in running else keep_ends(why, SHOWN)
            if has_ended(logs.get(name, "")):
                self.heard[node] = read_heard(node, "pod", redact(logs[name]))
            elif pod is None or _phase(pod) in ("Failed", "Succeeded") or find_known(pod, about):
                self.lost[node] = keep_ends(why or _phase(pod), SHOWN)
            else:
                waiting[node] = keep_ends(why or ("measuring" if name in running else "starting"), SHOWN)
        self._give_up_late(waiting, running)
        if not waiting:
            return None
        node, why = next(iter(waiting.items()))
        return Drift(f"{len(waiting)} of {len(self.pods)} at work; {node}: {why}", "all have said it")

    def _give_up_late(self, waiting: dict[str, str], running: Sequence[str]) -> None:
        """Count those as lost that do not start long after others were measured: these hold their GPUs meanwhile."""
        if not self.heard or running:
            self.idle.clear()
            return
        self.idle[:] = self.idle or [time.monotonic()]
        if waiting and time.monotonic() - self.idle[0] >= LATE_SECONDS:
            late = f"it did not start within {LATE_SECONDS:.0f} s of the others' end"
            self.lost.update({node: f"{late}: {why}" for node, why in waiting.items()})
            waiting.clear()

    def give_up(self) -> None:
        """Count those that have not said anything as lost."""
        for node in self.pods.values():
            if node not in self.heard:
                self.lost.setdefault(node, "it was not done in time")


def _phase(pod: Object | None) -> str:
    return str((pod.get("status") or {}).get("phase", "")) if pod else ""


async def measure_node(on: Kube, cluster: Cluster, node: str, count: int, *, seconds: float) -> Heard:
    """Return what all GPUs of one node reach together, in a pod that is gone afterwards.

    Where the pod cannot run, or for so many `seconds` could not, only why. Raises DeadlineExceeded where it was still
    at work or its image on the way then, and the errors of the API.
    """
    name = "gpu-figures-1"
    said = FiguresHeard({name: node})
    async with own_space(on, lambda _: None):
        resource = next(iter((await see_offers(on, {node: count}))[node].asks(count)), "")
        await apply_pods(on, [pod_that_measures(cluster, name, node, count, resource=resource)])
        try:
            await wait_until(said, on, seconds=seconds, every=LOOK_SECONDS)
        except DeadlineExceeded:
            if not said.troubles.get(node):
                raise
            said.lost[node] = said.troubles[node]
    return said.heard.get(node) or held_back([node], said.lost)[0]


async def measure_host(on: Host, holds: Holds, vendor: Vendor = VENDOR) -> Heard:
    """Return what the same probe says on the host itself, while `holds` says that a pod of ours holds its GPUs.

    Nothing is measured where a process holds a GPU.
    """
    program = _program(vendor)
    text = program.text().encode()
    words = (_holders(program), str(len(text)), *program.options)
    command = Command(("bash", "-c", ON_HOST, *words), seconds=PROBE_SECONDS, feed=text)
    try:
        said = redact((await run_beside(on, command, holds)).stdout)
    except ShipwayError as error:
        return Heard(on.name, "host", silent=(Silent("probe", error.message),))
    if not has_ended(said):
        return Heard(on.name, "host", silent=(Silent("probe", " ".join(said.split())[:SHOWN]),))
    return read_heard(on.name, "host", said)


async def burn_host(on: Host, level: int, holds: Holds, vendor: Vendor = VENDOR) -> list[Row]:
    """Return what the vendor's own diagnosis of this level says of a host's GPUs, while a pod of ours `holds` them.

    It is not begun where a process uses one.
    """
    program = _program(vendor)
    command = Command(("bash", "-c", program.burn, _holders(program), str(level)), seconds=BURN_SECONDS[level])
    try:
        said = (await run_beside(on, command, holds)).stdout
    except ShipwayError as error:
        said = error.message
    return program.burned(on.name, redact(said))


async def look_at_needs(on: Host, vendor: Vendor = VENDOR) -> list[Row]:
    """Return what network adapters need to reach the memory of a host's GPUs, and whether it is there."""
    program = _program(vendor)
    try:
        return program.needed(on.name, redact((await on.read(program.needs)).stdout))
    except ShipwayError as error:
        return [Row(on.name, "", "its network", "RDMA", "not judged", error.message)]


def _holders(program: FigureProgram) -> str:
    return shlex.join(("timeout", "30", *program.holders))


def held_back(nodes: Sequence[str], why: Mapping[str, str]) -> list[Heard]:
    """Return what is heard of nodes whose pods were not made, or did not run: only why."""
    return [Heard(name, "pod", silent=(Silent("probe", why[name], missing=True),)) for name in nodes]
