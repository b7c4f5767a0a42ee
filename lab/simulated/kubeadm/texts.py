"""kubeadm's own words, by minor version, of data/kubeadm_texts.yaml; tools read some of them, and people all of them."""

from __future__ import annotations

from lab.simulated import recorded
from lab.simulated.kubeadm.config import Asked
from lab.simulated.releases import since


def _holds(first: int | str, minor: int) -> bool:
    """Say whether a row that begins with this minor version, or with what releases.yaml dates, holds in a version."""
    return minor >= first if isinstance(first, int) else since(minor, first)


def said(name: str, minor: int, **values: object) -> str:
    """Return a text as kubeadm of this minor version says it, with these values filled in."""
    rows = recorded.table("kubeadm_texts.yaml")[name]
    if not isinstance(rows, str):
        rows = [text for first, text in rows.items() if _holds(first, minor)][-1]
    return str(rows.format(**values))


def certificates(asked: Asked, *, existing: bool) -> str:
    """Return the lines about certificates after the CA's."""
    if existing:
        return said("certificates that exist", asked.minor)
    cluster = "kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local"
    names = " ".join(sorted([asked.node_name, *cluster.split()]))
    first = ".".join([*asked.service_network.split("/")[0].split(".")[:3], "1"])
    own = {"node": asked.node_name, "address": asked.address}
    return said("certificates", asked.minor, names=names, first=first, **own)


def finished(asked: Asked, token: str, ca_hash: str, *, shown: bool) -> str:
    """Return everything from the healthy control plane to the join commands."""
    minor, endpoint = asked.minor, asked.endpoint or f"{asked.address}:{asked.port}"
    withheld = token if shown else "<value withheld>"
    command = said("command", minor, endpoint=endpoint, token=withheld, ca_hash=ca_hash)
    return said(
        "finished",
        minor,
        config="kubelet-config" if since(minor, "kubelet_config_unnumbered") else f"kubelet-config-1.{minor}",
        marking=said("marking", minor, node=asked.node_name),
        using_token=said("token", minor, token=token) if shown else "",
        rights=said("rights", minor),
        control_plane=said("control plane command", minor, command=command) if asked.endpoint else "",
        command=command,
    )


def reset(minor: int, *, control_plane: bool, etcd_known: bool, kubelet: bool, removed: str = "") -> str:
    """Return what reset says; `removed` is the node that the cluster still knew and forgets."""
    return said(
        "reset",
        minor,
        reading=said("reading", minor, prefix="reset") if control_plane else "",
        removed=said("removed", minor, node=removed) if removed else "",
        etcd=said("etcd is deleted" if etcd_known else "etcd is external", minor),
        unmounting=said("unmounting", minor) if kubelet else "",
        etcd_folder="/var/lib/etcd " if etcd_known else "",
        kubelet_folder="/var/lib/kubelet " if kubelet else "",
    )
