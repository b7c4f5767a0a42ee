"""kubectl on a simulated control plane: a pointer to the real one, and the few looks that need no more."""

from __future__ import annotations

from lab.simulated.commands.arguments import Parsed, parse
from lab.simulated.commands.registry import Call, program
from lab.simulated.kube.cluster import Cluster


@program("kubectl", needs=("kubectl",))
async def kubectl(call: Call) -> int:
    """Look for one node or for certificate requests; everything else is for a real kubectl on the kubeconfig."""
    asked = parse(
        call.args,
        flags="--ignore-not-found --no-headers",
        values="--kubeconfig -o",
    )
    cluster = call.host.link.cluster
    if cluster is None or call.host.link.api_of(call.host, cluster.endpoint) is None:
        server = cluster.endpoint if cluster is not None else "localhost:8080"
        return call.warn(f"The connection to the server {server} was refused - did you specify the right host or port?")
    path = asked.value("--kubeconfig", default="/root/.kube/config" if call.root else f"/home/{call.user}/.kube/config")
    if not call.host.files.exists(path):
        return call.warn(
            "The connection to the server localhost:8080 was refused - did you specify the right host or port?"
        )
    return _got(call, asked, cluster)


def _got(call: Call, asked: Parsed, cluster: Cluster) -> int:
    """Answer the few questions about nodes and certificate requests."""
    if asked.rest[:2] == ["get", "node"] and len(asked.rest) > 2 and asked.value("-o") == "name":
        name = asked.rest[2]
        if cluster.store.get("nodes", "", name) is not None:
            return call.say(f"node/{name}\n")
        missing = f'Error from server (NotFound): nodes "{name}" not found'
        return 0 if asked.has("--ignore-not-found") else call.warn(missing)
    if asked.rest[:2] == ["get", "csr"]:
        requests = [(name, f"system:bootstrap:{token}", "<none>") for name, token in call.host.link.requests]
        return (
            call.say("".join(f"{'   '.join(row)}\n" for row in requests))
            if requests
            else call.warn("No resources found", 0)
        )
    return call.warn("kubectl: on SIMULATED hosts use a real kubectl with the kubeconfig that Shipway saved")
