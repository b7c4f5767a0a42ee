"""The steps of hardening in their order: files before what reads them, static pods, Secrets, modes."""

from __future__ import annotations

from pathlib import Path

from shipway.backup.kept import LocalFolder
from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.host.session import Host
from shipway.step import Check
from shipway.steps.hardening.files import ModesNarrow, policy_files
from shipway.steps.hardening.key import EncryptionKeyThere
from shipway.steps.hardening.manifest import ManifestSettled, control_plane_steps
from shipway.steps.hardening.stored import SecretsSealed


def files_of(cluster: Cluster, peers: tuple[Host, ...] = ()) -> list[Check[Host]]:
    """Return the steps of the files that a control plane's API server reads, the key among them.

    They come before what reads them: a new control plane has them before it is initialised or joins.
    """
    steps = policy_files(cluster)
    if cluster.hardening.encryption_at_rest:
        local = cluster.backup.keep_local
        kept = LocalFolder(Path(local), cluster.name).own if local else None
        steps.append(EncryptionKeyThere(peers, kept, len(cluster.control_planes) - 1))
    return steps


def pods_of(cluster: Cluster, spec: HostSpec, peers: tuple[Host, ...], *, again: bool = False) -> list[Check[Host]]:
    """Return the steps of a control plane's static pods; a change that broke off is settled before anything else.

    With `again` they bring back what kubeadm's record of the cluster has, and nothing new.
    """
    settled = ManifestSettled(spec.name, node_ip(spec), cluster.kubernetes.api_port)
    return [settled, *control_plane_steps(cluster, spec, peers, again=again)]


def sealed(cluster: Cluster, spec: HostSpec, peers: tuple[Host, ...]) -> list[Check[Host]]:
    """Return the step by which every Secret in etcd is encrypted; none where that is not declared."""
    if not cluster.hardening.encryption_at_rest:
        return []
    return [SecretsSealed(node_ip(spec), cluster.kubernetes.api_port, peers)]


def modes(cluster: Cluster) -> list[Check[Host]]:
    """Return the step about file modes; none where that is not declared."""
    return [ModesNarrow()] if cluster.hardening.control_plane else []
