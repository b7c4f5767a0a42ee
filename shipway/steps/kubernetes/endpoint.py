"""An endpoint of the site's is proved from each host before it joins: it answers, with this cluster's authority."""

from __future__ import annotations

from dataclasses import dataclass

from shipway.cluster.model import Cluster, node_ip
from shipway.errors import ApiUnavailable, Permanent
from shipway.facts.commands import Says
from shipway.host.session import Host
from shipway.ownership.evidence import AUTHORITY
from shipway.redact import tail
from shipway.step import Drift

# curl's exit statuses: the peer's certificate is not what was asked for (51 until 7.62, then 60).
WRONG = (51, 60)
# Bash gives curl the authority as a file that is no file: a join must not find /etc/kubernetes/pki/ca.crt there.
_ASK = 'curl -sS --noproxy "*" --max-time 8 -o /dev/null -w "%{http_code}" --cacert <(printf %s "$0") "$1"'


def proof(url: str, ca: str) -> Says:
    """Return the fact of how an endpoint answers one who trusts only an authority, in PEM."""
    return Says(("bash", "-c", _ASK, ca, url))


@dataclass(frozen=True)
class BalancerReached:
    """The site's load balancer leads from a host that has joined to its cluster's API; no step mends that."""

    endpoint: str
    name: str = "the API answers by the load balancer's name"

    async def check(self, on: Host) -> Drift | None:
        """Ask as a kubelet does."""
        words = ("curl", "-sS", "--noproxy", "*", "--max-time", "8", "-o", "/dev/null", "--cacert", AUTHORITY)
        answer = await on.read(Says((*words, f"https://{self.endpoint}/livez")))
        if answer.ok:
            return None
        why = tail(answer.stderr, 1) or "no answer in time"
        return Drift(f"{self.endpoint}: {why}", "an answer with this cluster's authority")


async def prove_endpoint(on: Host, cluster: Cluster, ca: str) -> None:
    """See that an external endpoint leads from this host to an API server of this cluster.

    One whose name is ours needs no proof, nor does a control plane's own address. Raises Permanent SHW-771 for a
    foreign certificate, or one that does not hold the name; ApiUnavailable SHW-206 where nothing answers.
    """
    own = {node_ip(host) for host in cluster.control_planes}
    if cluster.api_name or cluster.endpoint.rpartition(":")[0] in own:
        return
    answer = await on.read(proof(f"https://{cluster.endpoint}/livez", ca))
    if answer.status in WRONG:
        message = f"{cluster.endpoint} answers with a certificate that is not this cluster's: {tail(answer.stderr, 1)}"
        fix = (
            "Let the load balancer pass TCP on to the control planes' API servers (it must not end TLS), and give it "
            "the name that the cluster was made with; then run again."
        )
        raise Permanent(message, host=on.name, code="SHW-771", fix=fix)
    if not answer.ok:
        message = f"the API at {cluster.endpoint} cannot be reached from this host: {tail(answer.stderr, 1)}"
        fix = f"Open the path from {on.name} to {cluster.endpoint} (load balancer, firewall, route), then run again."
        raise ApiUnavailable(message, host=on.name, code="SHW-206", fix=fix)
