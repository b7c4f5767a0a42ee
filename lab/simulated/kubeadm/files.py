"""The files that kubeadm writes: certificates, kubeconfigs, static pods, the kubelet's configuration, etcd's data."""

from __future__ import annotations

from typing import Any

import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from lab.simulated import recorded
from lab.simulated.files import FileTree, link
from lab.simulated.kube.kubeadm_objects import kubelet_config
from lab.simulated.kube.pki import Authority, kubeconfig
from lab.simulated.kubeadm.config import Asked
from lab.simulated.releases import since

SOCKET = "unix:///run/containerd/containerd.sock"
PKI, ETC = "/etc/kubernetes/pki", "/etc/kubernetes"
CLIENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"
_SIGNED = ("apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client")
_ETCD = ("etcd/ca", "etcd/server", "etcd/peer", "etcd/healthcheck-client", "apiserver-etcd-client")


def _pair(files: FileTree, name: str, certificate: bytes, key: bytes) -> None:
    files.make_directory(f"{PKI}/{name}".rsplit("/", 1)[0])
    files.write(f"{PKI}/{name}.crt", certificate, mode=0o644)
    files.write(f"{PKI}/{name}.key", key, mode=0o600)


def write_authority(files: FileTree, authority: Authority) -> None:
    """Write the cluster's CA."""
    _pair(files, "ca", authority.certificate, authority.key)


def write_certificates(files: FileTree, authority: Authority) -> None:
    """Write everything else that init keeps in its certificate folder."""
    for name in (*_SIGNED, *_ETCD):
        pair = authority.client(name.replace("/", "-"))
        _pair(files, name, pair.certificate, pair.key)
    key = authority.client("sa").key
    public = load_pem_private_key(key, None).public_key()
    files.write(f"{PKI}/sa.key", key, mode=0o600)
    files.write(f"{PKI}/sa.pub", public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), mode=0o600)


def write_leaf(files: FileTree, authority: Authority, name: str) -> None:
    """Write one certificate that a control plane has of its own."""
    pair = authority.client(name.replace("/", "-"))
    _pair(files, name, pair.certificate, pair.key)


def users(asked: Asked) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the kubeconfig files that init writes: name -> (user, groups)."""
    new = since(asked.minor, "super_admin")
    admins = {
        "admin": ("kubernetes-admin", ("kubeadm:cluster-admins",) if new else ("system:masters",)),
        **({"super-admin": ("kubernetes-super-admin", ("system:masters",))} if new else {}),
    }
    return {
        **admins,
        "kubelet": (f"system:node:{asked.node_name}", ("system:nodes",)),
        "controller-manager": ("system:kube-controller-manager", ()),
        "scheduler": ("system:kube-scheduler", ()),
    }


def write_kubeconfig(files: FileTree, authority: Authority, name: str, asked: Asked, server: str) -> None:
    """Write one kubeconfig."""
    user, groups = users(asked).get(name, ("", ()))
    text = kubeconfig(server, authority.certificate, asked.cluster_name, user, authority.client(user, groups))
    files.write(f"{ETC}/{name}.conf", text.encode(), mode=0o600)


def write_client(files: FileTree, authority: Authority, node: str, server: str) -> None:
    """Write what a kubelet has once its request was signed: its certificate, and a kubelet.conf that names the file."""
    pair = authority.client(f"system:node:{node}", ("system:nodes",))
    files.make_directory(CLIENT.rsplit("/", 1)[0])
    # As client-go's certificate store keeps them: a dated file, and a link that leads to the newest.
    dated = CLIENT.replace("current", "2026-01-01-00-00-00")
    files.write(dated, pair.certificate + pair.key, mode=0o600)
    files.put(CLIENT, link(dated))
    point_at_client(files, authority, server)


def point_at_client(files: FileTree, authority: Authority, server: str) -> None:
    """Write kubelet.conf as a kubelet does when it begins to ask for a certificate: it names the file before it is."""
    text = yaml.safe_load(kubeconfig(server, authority.certificate, "default-cluster", "default-auth", "none"))
    text["users"] = [{"name": "default-auth", "user": {"client-certificate": CLIENT, "client-key": CLIENT}}]
    files.write(f"{ETC}/kubelet.conf", yaml.safe_dump(text).encode(), mode=0o600)


def write_kubelet(files: FileTree, asked: Asked, kubelet: dict[str, Any]) -> None:
    """Write the kubelet's environment file and configuration."""
    files.make_directory("/var/lib/kubelet")
    here = since(asked.minor, "instance_config")
    flags = [] if here else _runtime_flags(asked.minor)
    flags += [f"--{name}={value}" for name, value in sorted(asked.kubelet_args.items())]
    files.write("/var/lib/kubelet/kubeadm-flags.env", f'KUBELET_KUBEADM_ARGS="{" ".join(flags)}"\n'.encode())
    if here:
        own = f'containerRuntimeEndpoint: "{SOCKET}"\n'
        files.write("/var/lib/kubelet/instance-config.yaml", own.encode(), mode=0o600)
    write_kubelet_config(files, asked, kubelet)


def write_kubelet_config(files: FileTree, asked: Asked, kubelet: dict[str, Any]) -> None:
    """Write the kubelet's configuration, complete with kubeadm's defaults, as it does."""
    config = kubelet_config(asked.minor, asked.service_network, kubelet)
    if since(asked.minor, "kubelet_config_with_runtime"):
        config["containerRuntimeEndpoint"] = SOCKET
    mode = 0o600 if since(asked.minor, "kubelet_config_is_private") else 0o644
    files.write("/var/lib/kubelet/config.yaml", yaml.safe_dump(config).encode(), mode=mode)


def _runtime_flags(minor: int) -> list[str]:
    if since(minor, "endpoint_in_flags_is_a_url"):
        return [f"--container-runtime-endpoint={SOCKET}"]
    return ["--container-runtime=remote", f"--container-runtime-endpoint={SOCKET.removeprefix('unix://')}"]


def _command(part: str, asked: Asked) -> list[str]:
    """Return a static pod's command as kubeadm writes it."""
    [parts] = recorded.documents(
        "static_pods.yaml",
        own=asked.address,
        node=asked.node_name,
        port=str(asked.port),
        services=asked.service_network,
        pods=asked.pod_network,
        allocates="true" if asked.pod_network else "",
        mask=str(asked.node_mask),
        cluster=asked.cluster_name,
        off="0" if asked.minor < 24 else "",
    )
    return [part, *(f"--{name}={value}" for name, value in parts[part]["flags"].items() if value)]


def write_manifest(files: FileTree, part: str, asked: Asked) -> None:
    """Write a static pod of the control plane."""
    image = next(image for image in asked.images() if f"/{part}:" in image)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": part, "namespace": "kube-system", "labels": {"component": part, "tier": "control-plane"}},
        "spec": {"hostNetwork": True, "containers": [{"name": part, "image": image, "command": _command(part, asked)}]},
    }
    files.make_directory(f"{ETC}/manifests")
    files.write(f"{ETC}/manifests/{part}.yaml", yaml.safe_dump(pod).encode(), mode=0o600)


def write_etcd_data(files: FileTree) -> None:
    """Write what a started etcd leaves behind."""
    for name in ("snap/db", "wal/0000000000000000-0000000000000000.wal"):
        path = f"/var/lib/etcd/member/{name}"
        files.make_directory(path.rsplit("/", 1)[0], 0o700)
        files.write(path, b"SIMULATED etcd data\n", mode=0o600)
    for path in ("/var/lib/etcd", "/var/lib/etcd/member"):
        files.change(path, mode=0o700)
