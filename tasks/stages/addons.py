"""The add-ons that the cluster file asks for: each is a folder of manifests, applied and kept as it stands there."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.kube.client import Kube
from shipway.kube.manifests import add_on
from shipway.step import Check
from shipway.steps.kubernetes.objects import ObjectsPresent


def steps(cluster: Cluster) -> list[Check[Kube]]:
    """Return a step for each add-on, in the file's order; none where none is asked for."""
    return [ObjectsPresent(f"the add-on {name} is as declared", add_on(name)) for name in cluster.addons]
