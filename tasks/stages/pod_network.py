"""The pod network (S7): Calico by its operator, or manifests of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from shipway.cluster.model import Cluster
from shipway.cluster.parts import Manifest
from shipway.kube.client import Kube
from shipway.kube.manifests import ForeignManifest, foreign, render
from shipway.step import Check, Impact
from shipway.steps.kubernetes.objects import ObjectsPresent

OPERATOR = "tigera_operator"
DEFINITIONS = "operator_crds"
# From this version on the operator's kinds are a manifest of their own (tigera/docs#1834, #2330).
SEPARATE_DEFINITIONS = (3, 30)


def steps(cluster: Cluster) -> list[Check[Kube]]:
    """Return the steps, in order; raises Refused where a manifest that is needed is not named in the cluster file."""
    if cluster.network.provider == "manifests":
        return [_own(cluster, path) for path in cluster.network.manifests]
    return calico(cluster)


def _own(cluster: Cluster, path: str) -> Check[Kube]:
    """Return the step that applies a file of the user's own."""
    source = ForeignManifest(Path(path).name, Manifest(path=path), Path(cluster.state_dir).expanduser() / "manifests")
    return ObjectsPresent(f"the pod network is as {Path(path).name} declares", source)


class PodNetworkDeclared(ObjectsPresent):
    """Calico's Installation: VXLAN needs no BGP, and each node is known by its Kubernetes address."""

    traps: ClassVar[tuple[int, ...]] = (13, 42, 43)


def calico(cluster: Cluster) -> list[Check[Kube]]:
    """Return the steps of Calico: its operator (definitions first where they are apart), then what it shall make."""
    network = cluster.network
    version = network.version or "3.30.0"
    major, minor, _ = (int(part) for part in version.split("."))
    names = [DEFINITIONS, OPERATOR] if (major, minor) >= SEPARATE_DEFINITIONS else [OPERATOR]
    installation = render(
        "calico/installation.yaml",
        block_size=network.block_size,
        cidr=str(cluster.kubernetes.pod_network),
        encapsulation=network.encapsulation,
    )
    return [
        *(
            ObjectsPresent(f"Calico {version}: {name.replace('_', ' ')} is in place", foreign(cluster, name))
            for name in names
        ),
        PodNetworkDeclared(f"the pod network is Calico's, {cluster.kubernetes.pod_network}", installation),
        ObjectsPresent("Calico's own API is declared", render("calico/api-server.yaml"), Impact.FILES),
    ]
