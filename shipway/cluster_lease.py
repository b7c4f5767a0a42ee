"""The lock of a cluster across controllers: a Lease in the cluster itself, renewed while held, free a minute after."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from shipway.errors import ApiUnavailable, Refused, ShipwayError
from shipway.kube import Kube, Object
from shipway.kube_errors import CONFLICT, refusal
from shipway.retry import patiently

API, KIND, NAME, NAMESPACE = "coordination.k8s.io/v1", "Lease", "shipway", "kube-system"
LEASE_SECONDS = 60
RENEW_SECONDS = 15.0
STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"  # a MicroTime, as the API wants it


@asynccontextmanager
async def held(kube: Kube, who: str) -> AsyncIterator[None]:
    """Hold the cluster's lease; it is renewed meanwhile and given back at the end.

    Raises Refused SHW-102 naming who holds it since when. An API that does not answer is no reason not to repair it:
    then nobody else can hold the lease either, and it is taken once the API answers. Such an answer may also have been
    lost after the lease was taken, so it is given back either way. A holder that was killed is followed after 60 s.
    """
    with contextlib.suppress(ApiUnavailable):
        await _take(kube, who)
    renewing = asyncio.create_task(_renew(kube, who))
    try:
        yield
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
        with contextlib.suppress(ShipwayError):  # it ends by itself within a minute
            await patiently(lambda: _give_back(kube, who))


def _now() -> str:
    return datetime.now(UTC).strftime(STAMP)


async def _read(kube: Kube) -> Object | None:
    return await kube.get(API, KIND, NAME, NAMESPACE, fresh=True)


def _holder(found: Object | None) -> str:
    """Give who holds a lease that has not ended; empty where nobody does."""
    spec = (found or {}).get("spec") or {}
    try:
        renewed = datetime.fromisoformat(spec["renewTime"])
    except (KeyError, ValueError, AttributeError):
        return ""
    age = (datetime.now(UTC) - renewed).total_seconds()
    return str(spec.get("holderIdentity") or "") if age < LEASE_SECONDS else ""


async def _take(kube: Kube, who: str) -> None:
    found = await _read(kube)
    other = _holder(found)
    if other not in ("", who) and not dead(other):
        since = str(((found or {}).get("spec") or {}).get("acquireTime", "unknown"))
        message = f"another run works on this cluster: {other} since {since}"
        fix = f"Wait for its end; a killed run's lease ends {LEASE_SECONDS} s after its last sign of life."
        raise Refused(message, code="SHW-102", fix=fix)
    await _put(kube, found, who=who)


def holder(what: str) -> str:
    """Give the name under which this process holds a lease: user, machine, process id, and what it does."""
    return f"{os.environ.get('USER', 'root')}@{socket.gethostname()} pid {os.getpid()}, {what}"


def dead(other: str) -> bool:
    """Say whether a holder was a process of this machine that has ended: nobody needs to wait for its lease's end."""
    match = re.fullmatch(r"[^@]*@(\S+) pid (\d+), .*", other)
    if not match or match[1] != socket.gethostname():
        return False
    try:
        os.kill(int(match[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


async def _give_back(kube: Kube, who: str) -> None:
    """Free the lease where it is ours: somebody may have followed while our API was away."""
    found = await _read(kube)
    if _holder(found) == who:
        await _put(kube, found, who="")


async def _put(kube: Kube, found: Object | None, *, who: str) -> None:
    """Write the lease, only if nobody wrote it since it was read. Raises Refused where somebody did."""
    now = _now()
    spec = {"holderIdentity": who, "leaseDurationSeconds": LEASE_SECONDS, "acquireTime": now, "renewTime": now}
    meta = {"name": NAME, "namespace": NAMESPACE}
    resource = await kube.resource(API, KIND)
    body: Object = {"apiVersion": API, "kind": KIND, "metadata": meta, "spec": spec}
    if found is None:
        code, text = await kube.send("POST", resource.path(namespace=NAMESPACE), body=body)
    else:
        body["metadata"] = {**meta, "resourceVersion": found["metadata"]["resourceVersion"]}
        code, text = await kube.send("PUT", resource.path(NAME, NAMESPACE), body=body)
    if code == CONFLICT:
        said = json.loads(text).get("reason", "") if text.startswith("{") else ""
        raise Refused(f"another run took the cluster's lease a moment ago ({said})", code="SHW-102")
    if code >= 300:  # noqa: PLR2004 - anything but a success
        raise refusal(f"lease {NAMESPACE}/{NAME}", code, text)


async def _renew(kube: Kube, who: str) -> None:
    """Renew until cancelled; an API that does not answer is asked again: it may be what is being repaired."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        with contextlib.suppress(ShipwayError):
            found = await _read(kube)
            if found is not None and _holder(found) in ("", who):
                acquired = found["spec"].get("acquireTime", _now())
                changes = {"spec": {"renewTime": _now(), "holderIdentity": who, "acquireTime": acquired}}
                version = found["metadata"]["resourceVersion"]
                await kube.patch(API, KIND, NAME, {"metadata": {"resourceVersion": version}, **changes}, NAMESPACE)
