"""The front proxy's CA: by it an API server shows aggregated API servers for whom it asks, and they believe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from shipway.errors import Refused
from shipway.facts.commands import Says
from shipway.host.session import Host
from shipway.kube.client import Kube, Object
from shipway.kube.nodes import few
from shipway.kube.record import SYSTEM
from shipway.kube.status import is_true
from shipway.kubeadm.writes import PKI
from shipway.ownership.evidence import AUTHORITY, certificates_in
from shipway.redact import tail
from shipway.step import Drift, Impact
from shipway.steps.authority.own_server import OwnServer
from shipway.steps.authority.pair import said, trusted_by, who
from shipway.steps.authority.which import Which

PUBLISHED = "extension-apiserver-authentication"
API_SERVICE = ("apiregistration.k8s.io/v1", "APIService")
TAKEN = "200"
LOST = (
    "See `kubectl get apiservices`. Most read the CA again by themselves; restart the pods behind one that does not, "
    "then run the same command again, or give `--back`."
)


def published(found: Object | None, of: Which) -> str:
    """Return what of a CA is published in PEM; "" where nothing is."""
    return str(((found or {}).get("data") or {}).get(of.told, ""))


@dataclass(frozen=True)
class ExtensionsTold:
    """What aggregated API servers know callers by holds these authorities, and of those that are `gone` none.

    Every API server adds its own and takes none away (kubernetes, clusterauthenticationtrust of pkg/controlplane), so
    the one that goes is taken out here, once no API server has it any more. Any other stays.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    of: Which
    trusted: tuple[str, ...] = field(repr=False)
    gone: tuple[str, ...] = field(default=(), repr=False)
    name: str = "aggregated API servers are told of the CA that is wanted"

    async def check(self, on: Kube) -> Drift | None:
        """Read it."""
        have = trusted_by(published(await on.get("v1", "ConfigMap", PUBLISHED, SYSTEM), self.of))
        want, gone = [who(one) for one in self.trusted], [who(one) for one in self.gone]
        if set(want) <= set(have) and not set(gone) & set(have):
            return None
        return Drift(f"{said(have)} trusted", f"{said(want)} trusted" + (f", not {said(gone)}" if gone else ""))

    async def apply(self, on: Kube) -> None:
        """Take out what is gone, add what is not there, unless somebody changed it meanwhile; API servers make it."""
        found = await on.get("v1", "ConfigMap", PUBLISHED, SYSTEM)
        if found is None:
            return
        gone = {who(one) for one in self.gone}
        kept = [one for one in certificates_in(published(found, self.of)) if who(one) not in gone]
        added = [one for one in self.trusted if who(one) not in map(who, kept)]
        head = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await on.patch(
            "v1", "ConfigMap", PUBLISHED, {"metadata": head, "data": {self.of.told: "".join(kept + added)}}, SYSTEM
        )


async def list_extensions(on: Kube) -> list[Object]:
    """Return the APIs that API servers only pass on: those with a Service behind them."""
    return [one for one in await on.list_(*API_SERVICE) if one["spec"].get("service")]


async def find_lost(on: Kube) -> list[str]:
    """Return the names of those of them that API servers do not reach."""
    return [one["metadata"]["name"] for one in await list_extensions(on) if not is_true(one, "Available")]


def paths_of(services: Sequence[Object]) -> tuple[str, ...]:
    """Return where each of these is asked."""
    return tuple(sorted(f"/apis/{one['spec']['group']}/{one['spec']['version']}" for one in services))


@dataclass(frozen=True)
class ExtensionsAvailable:
    """Every aggregated API is Available before anything is changed: later nobody could tell why one is not."""

    name: str = "every aggregated API is available"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for the condition of each. Raises Refused SHW-859 naming those that are not."""
        if lost := await find_lost(on):
            fix = f"See `kubectl get apiservice {lost[0]} -o yaml`; mend what is behind it, or delete what nobody uses."
            raise Refused(f"aggregated APIs are not available: {few(lost)}", code="SHW-859", fix=fix)
        return None


@dataclass(frozen=True)
class ExtensionsAnswer:
    """Aggregated APIs (`paths`) answer by a control plane's own API server, which shows them its certificate."""

    paths: tuple[str, ...]
    server: OwnServer
    name: str = "aggregated APIs answer by the API server here"

    async def check(self, on: Host) -> Drift | None:
        """Ask for each."""
        answers = await on.read_all([self.server.get("--raw", path) for path in self.paths])
        lost = {path: tail(said.stderr, 1) for path, said in zip(self.paths, answers, strict=True) if not said.ok}
        return Drift(few([f"{path}: {why}" for path, why in lost.items()]), "an answer") if lost else None


@dataclass(frozen=True)
class FrontProxyTaken:
    """The API server takes the front proxy's client certificate for what it is, by the CA that it has read.

    Somebody without a name of the cluster's is said to ask: whom the API server does not believe is turned away, for
    only who is authenticated may list APIs (kubernetes.io, "Using RBAC Authorization": system:discovery).
    """

    server: OwnServer
    name: str = "the API server believes the front proxy's certificate"

    async def check(self, on: Host) -> Drift | None:
        """Ask as an API server asks an aggregated one; the key stays on the host."""
        own = (
            "--cacert",
            AUTHORITY,
            "--cert",
            f"{PKI}/front-proxy-client.crt",
            "--key",
            f"{PKI}/front-proxy-client.key",
        )
        asks = ("-H", "X-Remote-User: shipway-proof", "-H", "X-Remote-Group: system:authenticated")
        curl = ("curl", "-sS", "--noproxy", "*", "--max-time", "8", "-o", "/dev/null", "-w", "%{http_code}")
        answer = await on.read(Says((*curl, *own, *asks, f"{self.server.url}/apis")))
        if answer.stdout.strip() == TAKEN:
            return None
        return Drift(f"it answers {answer.stdout.strip() or tail(answer.stderr, 1) or 'nothing'}", TAKEN)
