"""The first worker is watched for a while: nodes that are lost, pods that do not start, before any other follows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from shipway.errors import ShipwayError
from shipway.kube.client import Kube
from shipway.kube.nodes import few, nodes_by_name
from shipway.kube.status import why_not_ready
from tasks.context import Run
from tasks.locking import still_alone
from tasks.waiting import hear_waits

EVERY_SECONDS = 10.0
CRASHING = ("CrashLoopBackOff", "RunContainerError", "CreateContainerError")


async def watch_workers(run: Run, hosts: Sequence[str]) -> str:
    """Watch hosts for `upgrade.soak_seconds` after their turn; return what is wrong, or "".

    An API that does not answer once is asked again; what stays wrong for two looks in a row counts.
    """
    seconds = run.cluster.upgrade.soak_seconds
    ends, before = time.monotonic() + seconds, ""
    show = hear_waits(run, run.waves.worker, hosts[0])
    show(f"watching {', '.join(hosts)} for {seconds} s before any other worker follows")
    while time.monotonic() < ends:
        still_alone(run)
        await asyncio.sleep(min(EVERY_SECONDS, max(0.0, ends - time.monotonic())))
        try:
            seen = await _wrong(await run.kube(), hosts)
        except ShipwayError as error:
            seen = error.message
        if seen and before:
            return seen
        before = seen
    return before


async def _wrong(kube: Kube, hosts: Sequence[str]) -> str:
    """Return which of the nodes is not Ready, and which containers there crash."""
    kube.forget()
    nodes = await nodes_by_name(kube)
    lost = [f"{name}: {why}" for name in hosts if (why := why_not_ready(nodes.get(name)))]
    crashing = [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']} on {pod['spec'].get('nodeName')}"
        for pod in await kube.list_("v1", "Pod")
        if (pod.get("spec") or {}).get("nodeName") in hosts and _crashes(pod)
    ]
    said = [f"not Ready: {few(lost)}"] if lost else []
    return "; ".join([*said, f"crashing: {few(crashing)}"] if crashing else said)


def _crashes(pod: dict[str, object]) -> bool:
    status = pod.get("status")
    states = status.get("containerStatuses") if isinstance(status, dict) else None
    return any(((one.get("state") or {}).get("waiting") or {}).get("reason") in CRASHING for one in states or ())
