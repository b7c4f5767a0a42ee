"""`kubeadm join` on a simulated host: discovery with its long waits, the kubelet's bootstrap, the node."""

from __future__ import annotations

from dataclasses import replace

import yaml

from lab.simulated.commands.registry import Call
from lab.simulated.kube.cluster import Cluster
from lab.simulated.kube.joining import JoinRefusedError, check_join
from lab.simulated.kube.pki import kubeconfig
from lab.simulated.kubeadm import files, texts
from lab.simulated.kubeadm.config import Asked
from lab.simulated.kubeadm.preflight import PARTS, failed, of_join, passed
from lab.simulated.releases import since

# Seconds, of the transcripts. A wrong token or an API that is not there is tried for five minutes unless configured otherwise.
_CHECKS, _DISCOVERY, _BOOTSTRAP, _AGAIN, _CONTROL_PLANE = 1.0, 1.0, 8.0, 5.0, 5.0
_DOUBT = "couldn't validate the identity of the API Server: "
_TIMED_OUT = "error execution phase kubelet-start: error uploading crisocket: timed out waiting for the condition"


_PROXY_ADVICE = (
    'W1128 00:00:00.000000       1 utils.go:69] The recommended value for "bindAddress" in "KubeProxyConfiguration" is: ::; '
    "the provided value is: 0.0.0.0"
)


class _Ended(Exception):
    """The join ends here; the text is its error."""


async def join(call: Call, asked: Asked) -> int:
    """Run all phases; gives kubeadm's exit status."""
    call.say("[preflight] Running pre-flight checks\n")
    await call.took(_CHECKS)
    if not passed(call, asked, *await of_join(call, asked)):
        return 1
    try:
        await call.took(_DISCOVERY)
        cluster = await _discovered(call, asked)
        call.say(texts.said("reading", asked.minor, prefix="preflight"))
        if since(asked.minor, "proxy_address_is_advised"):
            call.warn(_PROXY_ADVICE)
        check_join(cluster.store, cluster.ca_hash, _new_name(call, asked), asked.token, _pinned(asked))
        _write_trust(call, asked, cluster)
        if asked.control_plane:
            await _write_control_plane(call, asked, cluster)
        await _start_kubelet(call, asked)
        await call.took(_BOOTSTRAP)
        await _registered(call, asked, cluster)
    except (JoinRefusedError, _Ended) as error:
        return failed(call, str(error))
    return call.say(texts.said("joined", asked.minor))


def _pinned(asked: Asked) -> str:
    return asked.ca_hashes[0] if asked.ca_hashes else ""


def _new_name(call: Call, asked: Asked) -> str:
    """Return the name that must not be taken; a host that was this node before may be it again."""
    return "" if call.host.link.is_node(call.host, asked.node_name) else asked.node_name


def _unreached(call: Call, asked: Asked) -> str:
    reached = call.host.link.reach.reaches(call.host, asked.server.rpartition(":")[0])
    why = "connection refused" if reached else "no route to host"
    url = f"https://{asked.server}/api/v1/namespaces/kube-public/configmaps/cluster-info?timeout=10s"
    start = "failed to request the cluster-info ConfigMap: " if since(asked.minor, "cluster_info_is_named") else ""
    return f'{start}Get "{url}": dial tcp {asked.server}: connect: {why}'


async def _discovered(call: Call, asked: Asked) -> Cluster:
    """Find the cluster and trust it, trying for as long as is asked; raises _Ended, and at once for another CA."""
    spent = 0.0
    while True:
        cluster = call.host.link.api_of(call.host, asked.server)
        doubt = _unreached(call, asked) if cluster is None else ""
        if cluster is not None:
            try:
                check_join(cluster.store, cluster.ca_hash, "", asked.token, _pinned(asked))
            except JoinRefusedError as error:
                if "pinned" in error.message:
                    await call.took(20)
                    raise
                doubt = error.message.removeprefix(_DOUBT)
            else:
                return cluster
        if spent >= asked.discovery_seconds:
            raise _Ended(f"error execution phase preflight: {_DOUBT}{doubt}")
        await call.took(_AGAIN)
        spent += _AGAIN


def _write_trust(call: Call, asked: Asked, cluster: Cluster) -> None:
    """Write the CA and the kubelet's first credentials."""
    tree, certificate = call.host.files, cluster.authority.certificate
    tree.make_directory(files.PKI)
    tree.write(f"{files.PKI}/ca.crt", certificate)
    user = "tls-bootstrap-token-user"
    bootstrap = kubeconfig(f"https://{asked.server}", certificate, asked.cluster_name, user, asked.token)
    tree.write(f"{files.ETC}/bootstrap-kubelet.conf", bootstrap.encode(), mode=0o600)


async def _write_control_plane(call: Call, asked: Asked, cluster: Cluster) -> None:
    """Do what kubeadm does on a further control plane before its kubelet: certificates, kubeconfigs, static pods."""
    tree, config = call.host.files, cluster.config
    own = replace(
        asked,
        version=config.version.lstrip("v"),
        repository=config.image_repository,
        pod_network=config.pod_cidr,
        service_network=config.service_cidr,
        cluster_name=config.cluster_name,
        node_mask=config.node_cidr_mask,
    )
    for name in ("apiserver", "apiserver-kubelet-client", "apiserver-etcd-client", "front-proxy-client"):
        files.write_leaf(tree, cluster.authority, name)
    for name in ("server", "peer", "healthcheck-client"):
        files.write_leaf(tree, cluster.authority, f"etcd/{name}")
    for name in ("admin", "controller-manager", "scheduler"):
        files.write_kubeconfig(tree, cluster.authority, name, own, f"https://{cluster.endpoint}")
    for part in PARTS:
        files.write_manifest(tree, part, own)
    call.host.link.learners[call.host.name] = call.host
    await call.took(_CONTROL_PLANE)


async def _start_kubelet(call: Call, asked: Asked) -> None:
    control = call.host.link.control
    kubelet = control.files.read("/var/lib/kubelet/config.yaml") if control is not None else None
    call.say(texts.said("kubelet of a join starts", asked.minor))
    # The cluster's own configuration, from its ConfigMap.
    files.write_kubelet(call.host.files, asked, yaml.safe_load(kubelet) if kubelet else {})
    if why := call.host.services.restart_kubelet():
        call.warn(why)
    call.say(texts.said("bootstrapping", asked.minor))
    call.host.services.settle()


async def _registered(call: Call, asked: Asked, cluster: Cluster) -> None:
    """Let the kubelet register; raises _Ended where it cannot."""
    link, tree = call.host.link, call.host.files
    if not call.host.services.kubelet_up or link.api_of(call.host, asked.server) is None:
        await call.took(40)
        raise _Ended(_TIMED_OUT)
    if not link.signing:
        files.point_at_client(tree, cluster.authority, f"https://{asked.server}")
        link.requests.append((f"csr-{len(link.requests):05x}", asked.token.partition(".")[0]))
        await call.took(40)
        raise _Ended(_TIMED_OUT)
    try:  # a token that went meanwhile lets the kubelet ask for no certificate
        check_join(cluster.store, cluster.ca_hash, _new_name(call, asked), asked.token, _pinned(asked))
    except JoinRefusedError:
        await call.took(40)
        raise _Ended(_TIMED_OUT) from None
    files.write_client(tree, cluster.authority, asked.node_name, f"https://{asked.server}")
    await link.join(call.host, asked)
    if asked.control_plane:
        files.write_etcd_data(tree)
        link.learners.pop(call.host.name, None)
        link.further[call.host.name] = call.host
    tree.remove(f"{files.ETC}/bootstrap-kubelet.conf")
    call.host.changed()
