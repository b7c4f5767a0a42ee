"""The proxy by which hosts reach the internet: what goes around it, and what containerd gets of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from shipway.cluster.hosts import node_ip
from shipway.cluster.secrets import user_and_password
from shipway.foreign.addresses import as_address

if TYPE_CHECKING:
    from shipway.cluster.model import Cluster

# What a unit's properties hold anybody may ask systemd for, so the values are in a file that is root's alone; values
# of an EnvironmentFile win over those of Environment= in any drop-in (systemd.exec(5)).
ENVIRONMENT = "/etc/shipway/containerd-proxy.env"
DROP_IN = "/etc/systemd/system/containerd.service.d/99-shipway-proxy.conf"
DROP_IN_TEXT = (
    f"# Kept by Shipway: the proxy that images are pulled through.\n[Service]\nEnvironmentFile={ENVIRONMENT}\n"
)
LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")


def lasting(cluster: Cluster) -> tuple[str, ...]:
    """Return what never goes through the proxy and does not change with the hosts of the file, in NO_PROXY's words.

    Loopback; pods and services, for the CNI programs that containerd starts inherit its environment and ask the API by
    its service's address; the API's endpoint; the cluster's domain; mirrors by a private address (RFC 1918), which no
    proxy on the way to the internet leads to; and what the file says.
    """
    kubernetes = cluster.kubernetes
    domain = str(kubernetes.kubelet.get("clusterDomain", "cluster.local"))
    mirrors = [urlsplit(str(url)).hostname or "" for url in cluster.sources.registry_mirrors.values()]
    words = [*LOOPBACK, str(kubernetes.pod_network), str(kubernetes.service_network)]
    words += [*_endpoint(cluster), ".svc", f".{domain.strip('.')}"]
    words += [host for host in mirrors if _private(host)]
    return tuple(dict.fromkeys([*words, *cluster.proxy.no_proxy]))


def _endpoint(cluster: Cluster) -> list[str]:
    """Return the endpoint's host; a name of ours leads to hosts that `no_proxy` has.

    One control plane's address stays beside it: a cluster that was made with that address keeps this line as it is.
    """
    if not cluster.api_name or cluster.names_endpoint:
        return [cluster.endpoint.rpartition(":")[0]]
    return [node_ip(cluster.control_planes[0])] if len(cluster.control_planes) == 1 else []


def no_proxy(cluster: Cluster) -> tuple[str, ...]:
    """Return all that goes around the proxy: `lasting`, and the address of every node."""
    return tuple(dict.fromkeys([*lasting(cluster), *(node_ip(host) for host in cluster.hosts)]))


def _private(host: str) -> bool:
    try:
        return ip_address(host).is_private
    except ValueError:
        return False


def direct(host: str, around: Iterable[str]) -> bool:
    """Tell whether a host goes around the proxy, by the rules of Go's httpproxy, which containerd has.

    An address or network holds addresses; a name holds itself and the names below it, one with a dot before it only
    those below; `*` holds everything.
    """
    host = host.lower().strip("[]")
    address = as_address(host)
    for word in (word.lower().removeprefix("*") if word != "*" else word for word in around):
        if word in ("*", host):
            return True
        if address is None:
            below = word if word.startswith(".") else f".{word}"
            if host.endswith(below):
                return True
            continue
        try:
            network = ip_network(word, strict=False)
        except ValueError:
            continue
        if address.version == network.version and address in network:
            return True
    return False


def proxy_for(cluster: Cluster, url: str) -> str:
    """Return the declared proxy for an address, without user and password; "" where there is none on its way."""
    parts = urlsplit(url)
    declared = cluster.proxy.for_https if parts.scheme == "https" else cluster.proxy.http
    return "" if not declared or direct(parts.hostname or "", no_proxy(cluster)) else declared


def without_password(url: str) -> str:
    """Return a proxy's address as it may be shown: no user, no password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else url


def with_password(cluster: Cluster, url: str | None) -> str:
    """Return a proxy's address with its user and password, percent-encoded (RFC 3986, 3.2.1).

    Raises Refused (SHW-352) where the credentials cannot be had.
    """
    place = cluster.proxy.credentials
    if not url or not place:
        return url or ""
    user, password = (quote(part, safe="") for part in user_and_password(place))
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}:{password}@{rest}"


def environment(cluster: Cluster) -> dict[str, str]:
    """Return containerd's environment; raises Refused (SHW-352) where the credentials cannot be had."""
    proxy = cluster.proxy
    values = {
        "HTTP_PROXY": with_password(cluster, proxy.http),
        "HTTPS_PROXY": with_password(cluster, proxy.for_https),
        "NO_PROXY": ",".join(no_proxy(cluster)),
    }
    return {name: value for name, value in values.items() if value}


def as_environment_file(values: Mapping[str, str]) -> str:
    """Return a systemd EnvironmentFile; nothing in the values needs an escape: see the model's patterns and `quote`."""
    return "".join(f'{name}="{value}"\n' for name, value in values.items())


def of_environment_file(text: str) -> dict[str, str]:
    """Return the pairs of an EnvironmentFile, unquoted."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith(("#", ";")))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def stale(have: Mapping[str, str], want: Mapping[str, str], needed: Sequence[str]) -> bool:
    """Tell whether containerd's environment must be written anew.

    Only the addresses of nodes may differ: containerd pulls no image from another node, so a host that joins is no
    reason to restart the containerd of every other one.
    """
    proxies = {name: value for name, value in want.items() if name != "NO_PROXY"}
    if {name: value for name, value in have.items() if name != "NO_PROXY"} != proxies:
        return True
    there, wanted = set(have.get("NO_PROXY", "").split(",")), set(want.get("NO_PROXY", "").split(","))
    return not set(needed) <= there or not all(_address(word) for word in there - wanted)


def _address(word: str) -> bool:
    try:
        return IPv4Network(word).prefixlen == 32  # noqa: PLR2004 - one address
    except ValueError:
        return False
