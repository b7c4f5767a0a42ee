"""A Prefect API that a person set: asked once before a run whether it is there, is Prefect's, fits, and lets us in.

Whatever is wrong with it is reported in one line within seconds, before Prefect is imported, which itself takes some.
A server that answered and goes away later is another matter: a run outlives that.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import time
import urllib.request
from http.client import HTTPException
from importlib.metadata import version
from typing import NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from flows.prefect_api.settings import setting
from shipway.errors import Refused
from shipway.redact import redact

SECONDS = 3.0  # a server that restarts may be back by then, and a person has a line within five, with all else
BUSY = 5  # times as long has one that takes the connection: it is there, and has much to do (seen at a load of 30)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
FIX_URL = (
    "Correct or unset PREFECT_API_URL (`prefect config view` says where it is set); unset, a run starts its own API."
)
FIX_LOGIN = (
    "Set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING as the server has it; or unset PREFECT_API_URL: a run then "
    "starts an API of its own."
)


def keep_loopback_direct(environment: dict[str, str] | os._Environ[str]) -> None:
    """Name loopback in NO_PROXY: what this machine says to itself goes through no proxy, in no library and no child.

    urllib, httpx, aiohttp and websockets read the variable in lower case first, curl and Go in both.
    """
    named = [word for name in ("no_proxy", "NO_PROXY") for word in environment.get(name, "").split(",") if word.strip()]
    if "*" not in named:
        environment["no_proxy"] = environment["NO_PROXY"] = ",".join(dict.fromkeys([*named, *LOOPBACK]))


def proxy_of(url: str) -> str:
    """Return " through the proxy http://..." where the environment sends this address through one, else ""."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return redact(f" through the proxy {proxy} ({parts.scheme}_proxy; no_proxy names what goes past it)")


def check(url: str, seconds: float = SECONDS) -> None:
    """Ask the API for its version as Prefect's client would. Raises Refused where a run could not use it.

    A server that is not there, or says that it is not ready, has `seconds` to come; one that takes the connection and
    does not answer yet has `BUSY` times as long.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Refused(
            f"{redact(url)!r} is no address of a Prefect API: http://HOST:PORT/api", code="SHW-133", fix=FIX_URL
        )
    began = time.monotonic()
    ends = began + seconds
    while True:
        try:
            text = _ask(url, max(0.5, ends - time.monotonic()))
            break
        except HTTPError as error:
            error.close()
            # Prefect says 503 while its database is away; a proxy says 502 to 504 for a server that is not there.
            if error.code not in {502, 503, 504} or time.monotonic() >= ends:
                _say_status(url, error.code)
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            stays = isinstance(reason, socket.gaierror | ssl.SSLCertVerificationError | HTTPException)
            if isinstance(error, TimeoutError):  # while it was to answer; one while connecting is a URLError
                ends = began + BUSY * seconds
            if stays or time.monotonic() >= ends:
                said = f"Prefect's API at {redact(url)} does not answer{proxy_of(url)}: {redact(str(reason))}"
                raise Refused(said, code="SHW-131", fix=FIX_URL) from error
        time.sleep(0.2)
    if not _in_cloud(url):  # Prefect Cloud has no version of its own, and always fits
        _compare(url, text, version("prefect"))


def _in_cloud(url: str) -> bool:
    return f".{urlsplit(url).hostname}".endswith((".prefect.cloud", ".prefect.dev"))


def _ask(url: str, seconds: float) -> str:
    """Return what the API says to a question that needs a login. Raises what urllib raises."""
    headers = {"content-type": "application/json", **json.loads(setting("PREFECT_CLIENT_CUSTOM_HEADERS") or "{}")}
    if login := setting("PREFECT_API_AUTH_STRING"):
        headers["authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    elif key := setting("PREFECT_API_KEY"):
        headers["authorization"] = f"Bearer {key}"
    path, body = ("/work_pools/filter", b'{"limit": 1}') if _in_cloud(url) else ("/admin/version", None)
    request = urllib.request.Request(url.rstrip("/") + path, body, headers)  # noqa: S310 - http or https, as `check` saw
    with urllib.request.urlopen(request, timeout=seconds, context=_trust()) as answer:  # noqa: S310 - as above
        return str(answer.read(1 << 16).decode(errors="replace"))


def _trust() -> ssl.SSLContext:
    """Return whom Prefect's client trusts."""
    import certifi  # noqa: PLC0415 - only an API that is set needs it

    if setting("PREFECT_API_TLS_INSECURE_SKIP_VERIFY").lower() in {"1", "true", "yes", "on"}:
        return ssl._create_unverified_context()  # noqa: S323, SLF001 - the person's own setting, as Prefect takes it
    return ssl.create_default_context(cafile=setting("PREFECT_API_SSL_CERT_FILE") or certifi.where())


def _say_status(url: str, status: int) -> NoReturn:
    """Raise the Refused of an answer that is none of a Prefect API that a run could use."""
    shown = f"Prefect's API at {redact(url)}"
    if status in {401, 403}:
        raise Refused(f"{shown} does not let us in: HTTP {status}", code="SHW-132", fix=FIX_LOGIN)
    if status in {502, 503, 504}:
        raise Refused(f"{shown} does not answer{proxy_of(url)}: HTTP {status}", code="SHW-131", fix=FIX_URL)
    said = f"what answers{proxy_of(url)} is not {shown}: it said HTTP {status}"
    raise Refused(said, code="SHW-133", fix=FIX_URL)


def _compare(url: str, answer: str, ours: str) -> None:
    """Refuse a server of another major version, or older than this client.

    Prefect's client works with a server of its own version or a newer one of the same major version (its
    documentation, "Server and client version compatibility"): an older one answers 422 to fields it does not know.
    """
    shown = f"Prefect's API at {redact(url)}"
    try:
        server = str(json.loads(answer))
        there, here = _numbers(server), _numbers(ours)
    except ValueError as error:
        said = f"what answers{proxy_of(url)} is not {shown}: it said no version"
        raise Refused(said, code="SHW-133", fix=FIX_URL) from error
    if there[0] != here[0] or there < here:
        fix = f"Upgrade the server to Prefect {ours}, or unset PREFECT_API_URL: a run then starts an API of its own."
        raise Refused(f"{shown} is of version {server}, and this is Prefect {ours}", code="SHW-134", fix=fix)


def _numbers(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
