"""Where the hosts contradict the cluster file: a running cluster is what it is, so then the file is wrong.

Each contradiction is a refusal of the whole run: the file was not written for these machines as they are. Nothing that
is advised here takes anything away from a running cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from shipway.cluster.model import Cluster, node_ip
from shipway.errors import ErrorReport
from shipway.ownership.evidence import Evidence, address_of
from shipway.ownership.leading import as_running, choose_lead, endpoints_of

MOVE = "shipway move-endpoint FILE"
ENDPOINT = "kubernetes.api_endpoint"
STEP = "the file and the hosts agree"


def contradictions(
    cluster: Cluster,
    seen: Sequence[Evidence],
    *,
    kept: frozenset[str] | None = None,
    reset: Sequence[str] = (),
) -> list[ErrorReport]:
    """Return every contradiction between the file and what its hosts show.

    `kept` are the authorities of the kubeconfig that this machine keeps of the cluster: None where it keeps none, empty
    for one that cannot be read. `reset` are the hosts whose etcd data a person said may be lost.
    """
    by = {one.host: one for one in seen}
    first = by.get(choose_lead(cluster, by).name)
    cluster = as_running(cluster, first.endpoint if first else "")
    roles = list(_roles(cluster, by))
    return [
        *roles,
        *_owners(cluster, by, first, kept),
        *(() if roles else _missing(cluster, by, first, kept)),
        *_identity(cluster, first),
        *_find_endpoint_of_one(cluster, first),
        *_find_kept(cluster, first, kept),
        *_names(cluster, by),
        *_find_given_up(by, reset),
    ]


def _report(host: str, code: str, cause: str, fix: str) -> ErrorReport:
    return ErrorReport(host, STEP, code, cause, fix, retryable=False)


def _roles(cluster: Cluster, by: dict[str, Evidence]) -> Iterator[ErrorReport]:
    """A host that runs a control plane is declared a worker, or a worker node the control plane."""
    declared = [host.name for host in cluster.control_planes]
    real = [one.host for one in by.values() if one.standing == "control plane"]
    named = ", ".join(declared)
    where = f"at {', '.join(real)}" if real else "at the host that its nodes reach it by"
    fix = (
        f"A running cluster's control plane is where it is, whatever the order of `hosts`: write `roles: "
        f"[control_plane]` {where} and `roles: [worker]` at the others, then run again."
    )
    for one in by.values():
        if one.standing == "control plane" and one.host not in declared:
            unfinished = " (an init of ours that broke off)" if one.unfinished else ""
            cause = f"it runs the control plane of {one.whose}{unfinished}, and the file says that {named} does"
            yield _report(one.host, "SHW-317", cause, fix)
        if one.standing in ("node", "join broke off") and one.host in declared:
            what = "is a worker node" if one.standing == "node" else "has begun to join as a worker"
            others = f"; the control plane runs on {', '.join(real)}" if real else ""
            cause = f"the file says that it is the control plane, and it {what} of {one.whose}{others}"
            yield _report(one.host, "SHW-317", cause, fix)


def _owners(
    cluster: Cluster, by: dict[str, Evidence], first: Evidence | None, kept: frozenset[str] | None
) -> Iterator[ErrorReport]:
    """Hosts that belong to different clusters stand in one file."""
    controls = [host.name for host in cluster.control_planes]
    running = first is not None and first.standing == "control plane" and bool(first.authorities)
    ours = first.authorities if running and first else kept or frozenset()
    leading = (first.host,) if first is not None and first.standing == "control plane" else controls
    others = [one for one in by.values() if not one.bare and one.host not in leading]
    if not ours:  # nobody to compare with: the hosts among themselves
        known = [one.authorities for one in others if one.authorities]
        if all(one & known[0] for one in known[1:]):
            ours = frozenset().union(*known)
    for one in others:
        if one.authorities & ours:
            continue
        same = address_of(one.server) in endpoints_of(cluster)
        if not one.authorities and (same or not one.server):
            continue
        name = f"{cluster.name} ({', '.join(controls)}"
        ca = ", ".join(sorted(two.removeprefix("sha256:")[:12] for two in ours)) or "not known"
        what = "runs the control plane" if one.standing == "control plane" else "is a node"
        cause = f"the host {what} of another cluster: of {one.whose}, not of {name}; CA {ca})"
        fix = (
            f"Take {one.host} out of this file, or name the file and the control plane of the cluster that it belongs "
            "to. It is never taken out of a cluster unasked."
        )
        yield _report(one.host, "SHW-309", cause, fix)


def _missing(
    cluster: Cluster, by: dict[str, Evidence], first: Evidence | None, kept: frozenset[str] | None
) -> Iterator[ErrorReport]:
    """Nodes have joined, and the declared control plane's host holds none: it was replaced, or is another one."""
    if first is None or (first.standing == "control plane" and not _is_begun_anew(first, by)):
        return
    nodes = [one for one in by.values() if one.host != first.host and one.joined]
    fix = (
        "Where the machine was replaced: `shipway restore FILE --plan` says what of a backup can be put back on it. "
        "Where the control plane is another host: name that one in the file. A new cluster is made only "
        "of hosts that belong to none."
    )
    if nodes:
        names, more = ", ".join(one.host for one in nodes[:5]), len(nodes) - 5
        said = f"{names} and {more} more" if more > 0 else names
        cause = f"it holds no control plane, and {said} belong to the cluster at {nodes[0].whose}"
        yield _report(first.host, "SHW-318", cause, fix)
    elif kept is not None:
        cause = (
            f"it holds no control plane, and this machine keeps the kubeconfig of a cluster {cluster.name} that had one"
        )
        moved = (
            f"{fix} Where that cluster is gone for good: move the file `kubeconfig` in the folder {cluster.name} of "
            "`state_dir` away, then run again."
        )
        yield _report(first.host, "SHW-318", cause, moved)


def _is_begun_anew(first: Evidence, by: dict[str, Evidence]) -> bool:
    """Say whether an unfinished init stands where nodes of another authority have joined."""
    return first.unfinished and any(
        one.joined and not one.authorities & first.authorities for one in by.values() if one.host != first.host
    )


def _identity(cluster: Cluster, first: Evidence | None) -> Iterator[ErrorReport]:
    """What a running cluster cannot change is another in the file: its name, its networks, its API's address."""
    if first is None or first.standing != "control plane" or first.unfinished:
        return
    kubernetes, have = cluster.kubernetes, first.declared
    pairs = [
        ("name", have.get("cluster-name", ""), cluster.name),
        ("kubernetes.pod_network", _network(have.get("cluster-cidr", "")), str(kubernetes.pod_network)),
        (
            "kubernetes.service_network",
            _network(have.get("service-cluster-ip-range", "")),
            str(kubernetes.service_network),
        ),
        ("kubernetes.api_port", have.get("secure-port", ""), str(kubernetes.api_port)),
        (ENDPOINT, address_of(first.endpoint), cluster.endpoint.lower()),
    ]
    wrong = [(key, is_, said) for key, is_, said in pairs if is_ and is_ != said]
    if wrong:
        there = ", ".join(f"{key} {is_}" for key, is_, _ in wrong)
        here = ", ".join(f"{key} {said}" for key, _, said in wrong)
        fix = (
            "A running cluster keeps these for as long as it lives: write its values into the file. If this is the "
            "file of another cluster, its hosts are not these."
        )
        if any(key == ENDPOINT for key, _, _ in wrong) and (cluster.api_name or cluster.balancer):
            fix += f" An endpoint is moved to a name, ours or a load balancer's, by `{MOVE}`."
        yield _report(first.host, "SHW-319", f"its cluster has {there}, and the file says {here}", fix)


def _find_endpoint_of_one(cluster: Cluster, first: Evidence | None) -> Iterator[ErrorReport]:
    """Nodes of a cluster with several control planes reach it by the address of one: its loss would be that of all."""
    given = cluster.endpoint.rpartition(":")[0]
    planes = cluster.control_planes
    alone = [host.name for host in planes if given in (host.address, str(host.node_ip or ""))]
    if first is None or len(planes) == 1 or not alone:
        return
    cause = (
        f"every node reaches the API by {cluster.endpoint}, which is {alone[0]} alone; the file names {len(planes)} "
    )
    fix = f"Run `{MOVE}` with this file: it moves the endpoint to a name, and proves it everywhere; then run again."
    yield _report(first.host, "SHW-762", f"{cause}control planes", fix)


def _network(text: str) -> str:
    """Return the first network of an argument as the file would write it; the text itself where it is none."""
    try:
        return str(ip_network(text.split(",", maxsplit=1)[0], strict=False))
    except ValueError:
        return text


def _find_kept(cluster: Cluster, first: Evidence | None, kept: frozenset[str] | None) -> Iterator[ErrorReport]:
    """This machine keeps the kubeconfig of another cluster under this name."""
    if kept is None or first is None or first.standing != "control plane" or not first.authorities:
        return
    if kept & first.authorities:
        return
    ca = ", ".join(sorted(one.removeprefix("sha256:")[:12] for one in kept)) or "unreadable"
    cause = f"it runs the control plane of {first.whose}, and this machine keeps the kubeconfig of another cluster of "
    cause += f"the name {cluster.name} (CA {ca}), which is never overwritten"
    fix = (
        "Give one of the two another `name` or `state_dir` in its file; where the other cluster is gone for good, move "
        f"the file `kubeconfig` in the folder {cluster.name} of `state_dir` away."
    )
    yield _report(first.host, "SHW-320", cause, fix)


def _names(cluster: Cluster, by: dict[str, Evidence]) -> Iterator[ErrorReport]:
    """A host that has joined is another node, or has another address, in the file."""
    controls = [host.name for host in cluster.control_planes]
    for one in by.values():
        if not one.joined:
            continue
        control = one.host in controls
        replace = (
            "The host of a control plane keeps both for as long as the cluster lives."
            if control
            else f"For another one replace the node: `shipway remove FILE {one.node or one.host}`, then list it anew."
        )
        if one.node and one.node != one.host:
            cause = f"the host is the node {one.node}, and the file calls it {one.host}: a joined host keeps its name"
            yield _report(one.host, "SHW-321", cause, f"Write `name: {one.node}` at this host. {replace}")
        address = one.declared.get("advertise-address", "") if control else ""
        spec, address = cluster.host(one.host), one.node_ip or address
        if address and address != node_ip(spec):
            cause = (
                f"the node's address is {address}, and the file says {node_ip(spec)}: a joined host keeps its address"
            )
            fix = f"Write `node_ip: {address}` at this host (SSH may use another `address`). {replace}"
            yield _report(one.host, "SHW-322", cause, fix)


def _find_given_up(by: dict[str, Evidence], reset: Sequence[str]) -> Iterator[ErrorReport]:
    """A control plane may be lost, a person said; and its nodes still belong to it."""
    for name in reset:
        own = by.get(name)
        nodes = [one.host for one in by.values() if one.host != name and one.joined]
        if own is not None and own.standing == "control plane" and nodes:
            cause = f"--reset gives up what is on it, and {', '.join(nodes[:5])} still belong to that cluster"
            fix = "Leave --reset away to keep the cluster. Only an emptied cluster can be given up: its nodes first."
            yield _report(name, "SHW-318", cause, fix)
        elif own is not None and own.running:
            cause = f"--reset gives up what is on it, and pods run there: {', '.join(own.pods[:5]) or 'unnamed'}"
            fix = "Leave --reset away: nothing is reset beside running pods."
            yield _report(name, "SHW-324", cause, fix)
