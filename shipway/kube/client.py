"""The Kubernetes API through an SSH tunnel to a control-plane host; nothing else imports the Kubernetes client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from shipway.cluster.model import Cluster
from shipway.errors import ApiRefused, ApiUnavailable, Blocked
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.kube.access import ADMIN_CONF, Access, as_file, parse_admin_conf, save_kubeconfig
from shipway.kube.calls import Calls
from shipway.kube.errors import no_answer
from shipway.kube.paths import Object, title
from shipway.kube.reads import CALL_SECONDS, JSON

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

__all__ = ["Kube", "Object", "save_kubeconfig", "title"]

CONNECTIONS = 8  # each is a TLS handshake through the tunnel; more only queue in the API server
# aiohttp ends TLS connections in the turns of the loop after its close (its documentation, "Graceful Shutdown").
SILENT_SECONDS = 5.0  # a loaded API server answers within one
CLOSING_SECONDS = 0.1


class Kube(Calls):
    """One cluster's API, by the calls of `Calls`; every request goes through the SSH connection of its control host."""

    name = "cluster"

    def __init__(self, client: ApiClient, control: Host, access: Access, inside: int, admin_conf: str) -> None:
        super().__init__()
        self.admin_conf = admin_conf  # a secret: for save_kubeconfig, never for a log
        self.requests, self._silent = 0, False
        self._client, self._control, self._access = client, control, access
        # As seen from the control host: the address of its own kubeconfig, else the API server on that very host.
        self._ways = list(dict.fromkeys([(access.host, access.port), ("127.0.0.1", inside)]))

    @classmethod
    async def connect(cls, control: Host, cluster: Cluster) -> Self:
        """Return the API of the cluster whose control plane runs on `control`; the first call opens the tunnel.

        Raises Blocked when the host has no whole admin.conf, and the SSH errors of reading it.
        """
        text = await control.read(FileText(ADMIN_CONF))
        if text is None:
            raise Blocked(f"no {ADMIN_CONF}: the control plane is not initialised", host=control.name)
        access = parse_admin_conf(text, host=control.name)
        return cls(_client(access), control, access, cluster.kubernetes.api_port, text)

    async def close(self) -> None:
        """Close the connections to the API; the tunnel belongs to the SSH connection."""
        await self.stop_reading()
        await self._client.close()
        await asyncio.sleep(CLOSING_SECONDS)

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        media: str = JSON,
        seconds: float = CALL_SECONDS,
    ) -> tuple[int, str]:
        """Send one request the way that worked last; a GET whose way is broken tries the other one.

        A change is never sent a second time: it may have taken effect though its answer was lost.
        """
        first, *others = self._ways
        try:
            return await self._exchange(first, method, path, body=body, media=media, seconds=self._limit(seconds))
        except ApiUnavailable as error:
            if method != "GET":
                raise
            for way in others:
                with contextlib.suppress(ApiUnavailable):  # what the better way said is raised below
                    limit = self._limit(seconds)
                    answer = await self._exchange(way, method, path, body=body, media=media, seconds=limit)
                    self._ways = [way, first]
                    return answer
            raise error from error.__cause__

    def _limit(self, seconds: float) -> float:
        """Return how many seconds a request may take: few while an API that accepts connections answers none.

        So it is with a containerd that has stood still for a minute (its containers' output is read by nobody, and they
        block): a pass that mends it over SSH would wait 30 s for each question before.
        """
        return min(seconds, SILENT_SECONDS) if self._silent else seconds

    async def _exchange(
        self,
        way: tuple[str, int],
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        media: str,
        seconds: float,
    ) -> tuple[int, str]:
        """Send one request through the tunnel, made anew where SSH broke; return HTTP code and text."""
        from kubernetes_asyncio.client.exceptions import ApiException, OpenApiException  # noqa: PLC0415 - see _client

        headers = {"Content-Type": media, "Accept": "application/json, */*"}
        if self._access.token:
            headers["Authorization"] = f"Bearer {self._access.token}"
        what = f"{method} {path.partition('?')[0]}"
        port = await self._control.forward(*way)
        url = f"https://127.0.0.1:{port}{path}"
        self.requests += 1
        try:
            answer = await self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=seconds
            )
        except ApiException as error:
            self._silent = False
            return int(error.status or 0), _text(error.body)
        except OpenApiException as error:
            raise ApiRefused(f"{what}: the Kubernetes client refused to send it ({error})") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._silent = isinstance(error, TimeoutError)
            raise no_answer(what, error, seconds) from error
        self._silent = False
        return int(answer.status), _text(answer.data)


def _text(body: bytes | str | None) -> str:
    return body.decode("utf-8", errors="replace") if isinstance(body, bytes) else body or ""


def _client(access: Access) -> ApiClient:
    """Return a client that trusts only the cluster's own authority and expects its server's name on the certificate."""
    # Imported here: it takes 0.8 s of CPU, which a run that never reaches a cluster should not pay.
    from kubernetes_asyncio import client  # noqa: PLC0415

    logging.getLogger(client.rest.__name__).setLevel(logging.INFO)  # at DEBUG it logs every answer, tokens included
    configuration = client.Configuration()
    configuration.proxy = None  # the way is the tunnel, whatever the environment says
    configuration.tls_server_name = access.host
    configuration.connection_pool_maxsize = CONNECTIONS
    # Chain and name are verified; RFC 5280's strict form is not: kubeadm's older authorities lack key identifiers.
    configuration.disable_strict_ssl_verification = True
    with as_file(access.ca) as ca, as_file(access.certificate + access.key) as certificate:
        configuration.ssl_ca_cert = ca
        configuration.cert_file = certificate if access.key else None
        made = client.ApiClient(configuration)
    # Its own session takes proxies and ~/.netrc from the environment: docs/decisions, 15.
    session = made.rest_client.pool_manager
    connector = session.connector
    session.detach()
    made.rest_client.pool_manager = aiohttp.ClientSession(connector=connector, trust_env=False, read_bufsize=2**21)
    return made
