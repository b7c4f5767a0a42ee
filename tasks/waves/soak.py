"""The first worker is watched for a while: what its turn did to nodes, pods and GPUs, before any other follows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shipway.errors import ShipwayError
from shipway.facts.services import UnitState
from shipway.gpu.chosen import VENDOR
from shipway.gpu.health.model import UNFIT
from shipway.gpu.jobs import KEEPERS
from shipway.kube.client import Object
from shipway.kube.drain import movable
from shipway.kube.nodes import few, nodes_by_name
from shipway.kube.owners import controller_of
from shipway.kube.status import why_not_ready, why_pressed
from shipway.steps.upgrade.proof import NoGpuErrors
from tasks.context import Run
from tasks.locking import still_alone
from tasks.waiting import hear_waits

EVERY_SECONDS = 10.0
CRASHING = ("CrashLoopBackOff", "RunContainerError", "CreateContainerError")
FOR_EVER = (*KEEPERS, "StatefulSet")  # whose pods are to run at any time; a Job's may wait in a queue
UNPLACED_SECONDS = 60.0  # a pod that no node takes: the host is open again, and the scheduler tries at each such change
STARTING_SECONDS = 300.0  # one that the host has taken and does not start: an image may be large
RESTARTS = 2  # of a container while it is watched


def keepers_by_node(pods: Iterable[Object]) -> dict[str, frozenset[str]]:
    """Return by node the UIDs of those who keep pods running there that a drain would move."""
    found: dict[str, set[str]] = {}
    for pod in pods:
        keeper = controller_of(pod)
        if pod["spec"].get("nodeName") and keeper.get("kind") in FOR_EVER and movable(pod):
            found.setdefault(pod["spec"]["nodeName"], set()).add(str(keeper.get("uid")))
    return {node: frozenset(some) for node, some in found.items()}


def pending(pods: Iterable[Object]) -> list[Object]:
    """Return the pods that are to run and do not yet, but for those that somebody holds back by a gate."""
    return [
        pod
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Pending"
        and not (pod.get("spec") or {}).get("schedulingGates")
        and not pod["metadata"].get("deletionTimestamp")
    ]


async def watch_workers(run: Run, hosts: Sequence[str]) -> str:
    """Watch hosts for `upgrade.soak_seconds` after their turn; return what is wrong, or "".

    An API or a host that does not answer once is asked again; what stays wrong for two looks in a row counts.
    """
    seconds = run.cluster.upgrade.soak_seconds
    ends, before, watch = time.monotonic() + seconds, "", _Watch(run, hosts)
    show = hear_waits(run, run.waves.worker, hosts[0])
    show(f"watching {', '.join(hosts)} for {seconds} s before any other worker follows")
    while time.monotonic() < ends:
        still_alone(run)
        await asyncio.sleep(min(EVERY_SECONDS, max(0.0, ends - time.monotonic())))
        try:
            seen = await watch.wrong()
        except ShipwayError as error:
            seen = error.message
        if seen and before:
            return seen
        before = seen
    return before


@dataclass
class _Watch:
    """What was seen of pods since the first look: since when each does not start, how often each had been restarted."""

    run: Run
    hosts: Sequence[str]
    since: dict[str, float] = field(default_factory=dict)
    restarts: dict[tuple[str, str], int] = field(default_factory=dict)

    async def wrong(self) -> str:
        """Return what is wrong at this moment. Raises the errors of the API and of reaching a host."""
        kube = await self.run.kube()
        kube.forget()
        nodes, pods = await nodes_by_name(kube), await kube.list_("v1", "Pod")
        here = [pod for pod in pods if (pod.get("spec") or {}).get("nodeName") in self.hosts]
        seen = {
            "not Ready": [f"{name}: {why}" for name in self.hosts if (why := why_not_ready(nodes.get(name)))],
            "short": [f"{name}: {why}" for name in self.hosts if (why := why_pressed(nodes.get(name)))],
            "crashing": [_title(pod) for pod in here if _crashes(pod)],
            "restarted": self._restarted(here),
            "Pending": self._not_started(pods),
            "errors of GPUs": [told for name in self.hosts if (told := await self._gpu_errors(name))],
        }
        return "; ".join(f"{what}: {few(some)}" for what, some in seen.items() if some)

    def _restarted(self, pods: Iterable[Object]) -> list[str]:
        """Return the pods of which a container was restarted again and again since it was seen first."""
        found = []
        for pod in pods:
            for one in (pod.get("status") or {}).get("containerStatuses") or ():
                count = int(one.get("restartCount") or 0)
                first = self.restarts.setdefault((pod["metadata"]["uid"], str(one.get("name"))), count)
                if count - first >= RESTARTS:
                    found.append(f"{_title(pod)} ({one.get('name')}: {count - first} times)")
        return found

    def _not_started(self, pods: Iterable[Object]) -> list[str]:
        """Return the pods of those whose pods ran on the hosts that do not start, where more do so than before."""
        keepers = frozenset[str]().union(*(self.run.waves.keepers.get(name, frozenset()) for name in self.hosts))
        now, late = time.monotonic(), dict[str, list[str]]()
        for pod in pending(pods):
            keeper, place = str(controller_of(pod).get("uid")), pod["spec"].get("nodeName", "")
            if keeper not in keepers or place not in ("", *self.hosts):
                continue
            waited = now - self.since.setdefault(pod["metadata"]["uid"], now)
            if waited >= (STARTING_SECONDS if place else UNPLACED_SECONDS):
                late.setdefault(keeper, []).append(f"{_title(pod)} for {waited:.0f} s")
        before = self.run.waves.pending
        return [one for keeper, some in late.items() if len(some) > before.get(keeper, 0) for one in some]

    async def _gpu_errors(self, host: str) -> str:
        """Return what the kernel has told of sick GPUs since a host's kubelet was started; no fault of a program."""
        if VENDOR.health is None or not self.run.provable(self.run.cluster.host(host)):
            return ""
        session = self.run.session(host)
        session.forget()
        kubelet = await session.read(UnitState("kubelet.service"))
        if kubelet.active != "active":
            return ""  # its node is not Ready
        said = await session.read(NoGpuErrors(kubelet.active_since).messages)
        sick = VENDOR.health.judge("", "", said.stdout if said.ok else "")
        told = [f"{one.slot}: {fault}" for one in sick for fault in one.faults if fault.answer in UNFIT]
        return f"{host}: {few(told)}" if told else ""


def _title(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']} on {pod['spec'].get('nodeName') or 'no node'}"


def _crashes(pod: Mapping[str, Any]) -> bool:
    states = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(((one.get("state") or {}).get("waiting") or {}).get("reason") in CRASHING for one in states)
