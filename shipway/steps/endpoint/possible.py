"""What forbids that an endpoint is moved, each a check of its own; and a host's proof that the name leads there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from shipway.cluster.model import Cluster
from shipway.errors import ApiUnavailable, Permanent, Refused
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.kube.nodes import few, nodes_by_name
from shipway.kube.status import why_not_ready
from shipway.redact import tail
from shipway.step import Drift
from shipway.steps.kubernetes.endpoint import WRONG, proof
from shipway.steps.system.names import shadowed


@dataclass(frozen=True)
class EndpointMayMove:
    """The file's endpoint is a name; a load balancer's is none by which lines of ours lead (`named`)."""

    cluster: Cluster = field(hash=False)
    named: Collection[str] = field(default=(), hash=False)
    name: str = "the endpoint is moved to a name"

    async def check(self, on: Kube) -> Drift | None:
        """Look at the file's. Raises Refused SHW-774, SHW-775."""
        if not self.cluster.api_name and not self.cluster.balancer:
            message = (
                f"kubernetes.api_endpoint is the address {self.cluster.endpoint}, and an endpoint is moved to a name"
            )
            fix = (
                "Leave `api_endpoint` out of the file, or write `api_endpoint: {name: NAME}`; for a load balancer of "
                "the site's `{kind: external, name: NAME, port: PORT}`."
            )
            raise Refused(message, code="SHW-774", fix=fix)
        if self.cluster.balancer in self.named:
            raise shadowed(self.cluster.balancer, on.name)
        return None


@dataclass(frozen=True)
class EveryNodeAnswers:
    """Every node is a host of the file that was reached: one that was not would keep what is `kept`.

    `reached` are the hosts that have joined and were looked at.
    """

    reached: Collection[str]
    kept: str = "the old endpoint"
    name: str = "every node of the cluster was reached, and is Ready"

    async def check(self, on: Kube) -> Drift | None:
        """Ask for the nodes. Raises Refused SHW-776 and SHW-777 naming each."""
        nodes = await nodes_by_name(on)
        if unknown := sorted(set(nodes) - set(self.reached)):
            fix = f"Write it into the file and bring it up, or take it out: `shipway remove FILE {unknown[0]}`."
            message = (
                f"{few(unknown)}: a node of the cluster that is no host of this file, or has not joined by its look"
            )
            raise Refused(f"{message}; it would keep {self.kept}", code="SHW-776", fix=fix)
        if wrong := {name: why for name, node in sorted(nodes.items()) if (why := why_not_ready(node))}:
            first, said = next(iter(wrong)), few([f"{name}: {why}" for name, why in wrong.items()])
            fix = (
                f"See `journalctl -u kubelet -n 50` on {first}: whether it finds the API afterwards could not be told."
            )
            raise Refused(f"not Ready: {said}", host=first, code="SHW-777", fix=fix)
        return None


@dataclass(frozen=True)
class ApiAnswersByName:
    """The API answers a host by the endpoint's name, with this cluster's authority; `ca` is that in PEM."""

    endpoint: str
    ca: str = field(repr=False)
    name: str = "the API answers by its name, with this cluster's authority"

    async def check(self, on: Host) -> Drift | None:
        """Ask it as a kubelet does. Raises Permanent SHW-778 for another certificate, ApiUnavailable for no answer."""
        answer = await on.read(proof(f"https://{self.endpoint}/livez", self.ca))
        if answer.ok:
            return None
        said = tail(answer.stderr, 1)
        if answer.status in WRONG:
            fix = (
                f"See on {on.name} where it leads (`getent ahosts {self.endpoint.rpartition(':')[0]}`): a line of the "
                "site's in /etc/hosts may stand before ours, or a load balancer end TLS."
            )
            message = f"{self.endpoint} answers with a certificate that is not this cluster's: {said}"
            raise Permanent(message, host=on.name, code="SHW-778", fix=fix)
        fix = f"Open the path from {on.name} to {self.endpoint} and the control planes' API servers, then run again."
        raise ApiUnavailable(f"the API does not answer by {self.endpoint}: {said}", host=on.name, fix=fix)
