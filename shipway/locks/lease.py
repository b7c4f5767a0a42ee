"""The lock of a cluster across controllers: a Lease in the cluster itself, renewed while held, free a minute after."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from shipway.errors import ApiUnavailable, Refused, ShipwayError
from shipway.kube.client import Kube, Object
from shipway.kube.errors import CONFLICT, refusal
from shipway.meanwhile import meanwhile
from shipway.retry import patiently

API, KIND, NAME, NAMESPACE = "coordination.k8s.io/v1", "Lease", "shipway", "kube-system"
LEASE_SECONDS = 60
RENEW_SECONDS = 15.0
CALL_SECONDS = 10.0  # one renewal; two that time out in a row are noticed before the lease has ended
AWAY_SECONDS = 40.0  # after so long without a renewal the holder says that it is not sure of its lease any more
LOOK_SECONDS = 5.0
GIVE_BACK_SECONDS = 20.0
STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"  # a MicroTime, as the API wants it
Api = Callable[[], Awaitable[Kube]]  # asked each time: a control plane that is made anew has another one
Unsure = Callable[[ShipwayError | None], Awaitable[None]]
OnWait = Callable[[str], None]


async def _nobody_asks(_: ShipwayError | None) -> None:
    """Hear nothing."""


@asynccontextmanager
async def hold(
    api: Api, who: str, unsure: Unsure = _nobody_asks, on_wait: OnWait = lambda _: None
) -> AsyncIterator[None]:
    """Hold the cluster's lease; it is renewed meanwhile and given back at the end.

    Raises Refused SHW-102 naming who holds it since when, and where the API does not answer what keeps from taking it:
    inside, the lease is really held. `unsure` hears with Refused that somebody else has it now, with another error (at
    each try) that it could not be renewed for 40 s, and with None that it is renewed again.

    A stamp less than 60 s from this machine's clock, before or after, is a sign of life. Any other may be one too,
    from a machine whose clock is wrong: such a holder is watched for 60 s, and followed only where it was silent.
    """
    try:
        await patiently(lambda: _take(api, who, on_wait))
    except Refused:
        raise
    except ShipwayError:
        await _is_freed(api, who)  # the answer may have been lost after the lease was taken
        raise
    try:
        async with meanwhile(_renew(api, who, unsure)):
            yield
    finally:
        await _is_freed(api, who)


def _now() -> str:
    return datetime.now(UTC).strftime(STAMP)


async def _read(kube: Kube) -> Object | None:
    return await kube.get(API, KIND, NAME, NAMESPACE, fresh=True)


def _holder(found: Object | None) -> str:
    """Return who holds a lease, or held it to its end; empty where it was given back."""
    return str(((found or {}).get("spec") or {}).get("holderIdentity") or "")


def _ahead(found: Object) -> float:
    """Return how many seconds a lease's last renewal is ahead of this machine's clock; minus infinity for no stamp."""
    try:
        return (datetime.fromisoformat(found["spec"]["renewTime"]) - datetime.now(UTC)).total_seconds()
    except (KeyError, ValueError, TypeError):
        return float("-inf")


async def _take(api: Api, who: str, on_wait: OnWait) -> None:
    kube = await api()
    found = await _read(kube)
    if found is not None and _others(found, who):
        apart = abs(_ahead(found))
        if apart < LEASE_SECONDS:
            raise _refuse_taken(found)
        on_wait(f"the cluster's lease looks left behind by {_holder(found)}: it is watched for {LEASE_SECONDS} s")
        seen = await _watch(kube, found)
        if seen is not None and _version(seen) != _version(found) and _others(seen, who):
            raise _refuse_taken(seen, f"; its clock and this machine's are about {apart:.0f} s apart")
        found = seen
    await _put(kube, found, who=who)


def _others(found: Object, who: str) -> bool:
    """Say whether somebody else is named as the holder, who may live."""
    return _holder(found) not in ("", who) and not dead(_holder(found))


def _refuse_taken(found: Object, doubt: str = "") -> Refused:
    since = str(found["spec"].get("acquireTime", "unknown"))
    message = f"another run works on this cluster: {_holder(found)} since {since}{doubt}"
    fix = f"Wait for its end; a killed run's lease ends {LEASE_SECONDS} s after its last sign of life."
    return Refused(message, code="SHW-102", fix=fix)


def _version(found: Object) -> str:
    return str(found["metadata"]["resourceVersion"])


async def _watch(kube: Kube, found: Object) -> Object | None:
    """Return the lease once somebody wrote it, or as it is after 60 s of this machine's own clock."""
    until, seen = time.monotonic() + LEASE_SECONDS, found
    while time.monotonic() < until and _version(seen) == _version(found):
        await asyncio.sleep(min(LOOK_SECONDS, LEASE_SECONDS))
        now = await _read(kube)
        if now is None:
            return None
        seen = now
    return seen


def holder(what: str) -> str:
    """Return the name under which this process holds a lease: user, machine, process id, and what it does."""
    return f"{os.environ.get('USER', 'root')}@{socket.gethostname()} pid {os.getpid()} of {_origin()}, {what}"


@cache
def _origin() -> str:
    """Return what a process id is one of: this boot of this machine (random_boot_id(4)), and its namespace of ids.

    Machines made from one image share their host name, and so may containers; an unreadable part makes it unique.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        names = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except (OSError, ValueError):
        return secrets.token_hex(8)
    return f"{boot[:13]}.{names}"


def dead(other: str) -> bool:
    """Say whether a holder was a process of this boot of this machine that has ended: nobody needs to wait for it.

    Of any other (another boot, a machine of the same name, another container) a process id says nothing.
    """
    match = re.fullmatch(r"[^@]*@(\S+) pid (\d+) of (\S+), .*", other)
    if not match or (match[1], match[3]) != (socket.gethostname(), _origin()):
        return False
    try:
        os.kill(int(match[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


async def _is_freed(api: Api, who: str) -> None:
    """Try to give the lease back; it ends by itself within a minute, so an API that is gone holds nobody up."""
    with contextlib.suppress(ShipwayError, TimeoutError):
        async with asyncio.timeout(GIVE_BACK_SECONDS):
            await patiently(lambda: _give_back(api, who))


async def _give_back(api: Api, who: str) -> None:
    """Free the lease where it is ours: somebody may have followed while our API was away."""
    kube = await api()
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


async def _renew(api: Api, who: str, unsure: Unsure) -> None:
    """Renew until cancelled or followed; an API that does not answer is asked again: it may be what is repaired."""
    renewed, sure = time.monotonic(), True
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await _renew_once(api, who)
        except Refused as refused:
            await unsure(refused)
            return
        except (ShipwayError, TimeoutError) as error:
            silent = time.monotonic() - renewed
            if silent >= AWAY_SECONDS:
                why = error.message if isinstance(error, ShipwayError) else "the API does not answer"
                await unsure(ApiUnavailable(f"the cluster's lease was not renewed for {silent:.0f} s: {why}"))
                sure = False
        else:
            renewed = time.monotonic()
            if not sure:
                await unsure(None)
                sure = True


async def _renew_once(api: Api, who: str) -> None:
    """Renew the lease, made anew where somebody deleted it. Raises Refused SHW-102 where somebody else holds it."""
    kube = await api()
    found = await _read(kube)
    if found is None:
        await _put(kube, found, who=who)
        return
    if (other := _holder(found)) not in ("", who):
        message = f"another run has taken over the cluster's lease: {other}"
        raise Refused(message, code="SHW-102", fix="Wait for its end, then run again.")
    acquired = found["spec"].get("acquireTime", _now())
    changes = {"spec": {"renewTime": _now(), "holderIdentity": who, "acquireTime": acquired}}
    version = found["metadata"]["resourceVersion"]
    await kube.patch(API, KIND, NAME, {"metadata": {"resourceVersion": version}, **changes}, NAMESPACE)
