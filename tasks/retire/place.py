"""Where a host is that is taken out: by the cluster file, by what a person says, or by its node's own address."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

from pydantic import ValidationError

from shipway.cluster.hosts import HostSsh
from shipway.cluster.parts import HostSpec
from shipway.errors import Refused
from shipway.kube.client import Object
from shipway.kube.nodes import nodes_by_name
from tasks.context import Run


def internal_address(node: Object | None) -> str:
    """Return a node's first IPv4 address inside the cluster; empty where it tells none."""
    addresses = ((node or {}).get("status") or {}).get("addresses") or ()
    return next(
        (str(one["address"]) for one in addresses if one.get("type") == "InternalIP" and "." in one["address"]), ""
    )


async def place_host(run: Run, name: str, address: str) -> None:
    """Let the run be about this host alone; one that the file does not name is reached at `address` or its node's.

    The `ssh` section of the file holds for it. Raises Refused SHW-701 where nobody knows where it is, and what keeps
    from asking the cluster.
    """
    run.retirement.host = name
    known = {host.name for host in run.cluster.hosts}
    run.retirement.declared = name in known
    if name in known and not address:
        run.only = (name,)
        return
    node = None
    if name not in known and not address:
        node = (await nodes_by_name(await run.kube())).get(name)
        if node is None:
            message = f"{name} is no host of the cluster file and no node of the cluster"
            fix = f"See `kubectl get nodes`; the file has {', '.join(sorted(known))}; for another give --address."
            raise Refused(message, host=name, code="SHW-701", fix=fix)
    spec = host_at(name, address or internal_address(node), run.cluster.host(name) if name in known else None)
    others = tuple(host for host in run.cluster.hosts if host.name != name)
    if name in known:
        others = tuple(spec if host.name == name else host for host in run.cluster.hosts)
        run.cluster = run.cluster.model_copy(update={"hosts": others})
    else:
        run.cluster = run.cluster.model_copy(update={"hosts": (*others, spec)})
    run.only = (name,)


def place_all(run: Run, without: Sequence[str]) -> None:
    """Let the run be about all hosts of the file but those that are left out, of which the report tells.

    Raises Refused SHW-701 where one is no host of the file, or no control plane is left to begin with.
    """
    run.retirement.whole, run.retirement.without = True, tuple(without)
    names = {host.name for host in run.cluster.hosts}
    if unknown := sorted(set(without) - names):
        message = f"{', '.join(unknown)} to be left out: no such host in the cluster file"
        raise Refused(message, code="SHW-701", fix=f"The file has {', '.join(sorted(names))}.")
    if all(host.name in without for host in run.cluster.control_planes):
        message = "every control plane of the file is to be left out, and the cluster ends with them"
        raise Refused(message, code="SHW-701", fix="Reset single hosts: `shipway reset FILE HOST --cluster-gone`.")
    run.retirement.left += [
        f"{name} stays as it is, and its pods may run on: keep it off the network until "
        f"`shipway reset {run.file} {name} --cluster-gone` has run there"
        for name in without
    ]


def host_at(name: str, address: str, known: HostSpec | None) -> HostSpec:
    """Return a worker of this name at HOST or HOST:PORT, or the known host there. Raises Refused SHW-701."""
    place, colon, port = address.partition(":")
    try:
        ssh = known.ssh if known else HostSsh()
        if colon:
            ssh = HostSsh.model_validate({**ssh.model_dump(exclude_none=True), "port": int(port)})
        made = HostSpec(name=name, address=place, node_ip=_ip(place), roles=("worker",), ssh=ssh)
    except (ValidationError, ValueError) as error:
        message = f"{name} cannot be reached at {address or 'no address'}: that is no address of a host"
        raise Refused(message, host=name, code="SHW-701", fix="Give --address HOST or HOST:PORT.") from error
    there = {"address": made.address, "node_ip": known.node_ip or _ip(known.address), "ssh": ssh} if known else {}
    return known.model_copy(update=there) if known else made


def _ip(address: str) -> IPv4Address | None:
    try:
        return IPv4Address(address)
    except ValueError:
        return None
