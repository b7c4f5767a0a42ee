"""What a run may not leave on a SIMULATED lab: a lock, a lease, a token, or a control plane made twice."""

from __future__ import annotations

import fcntl

from lab.simulated.lab import SimulatedLab
from shipway.cluster_file import load_cluster
from shipway.locks.lease import NAME, NAMESPACE
from shipway.steps.kubernetes.join.tokens import _plain
from shipway.steps.kubernetes.join.worker import PURPOSE


def left_over(lab: SimulatedLab) -> list[str]:
    """Return what is there and may not be; empty when nothing is."""
    cluster = lab.link.cluster
    if cluster is None:
        return ["there is no cluster"]
    faults = [] if len(lab.link.born) == 1 else [f"initialised {len(lab.link.born)} times"]
    store = cluster.world.store
    lease = store.get("leases.coordination.k8s.io", NAMESPACE, NAME)
    holder = ((lease or {}).get("spec") or {}).get("holderIdentity")
    if holder:
        faults.append(f"the cluster's lease is still held by {holder}")
    secrets = store.objects("secrets", "kube-system")
    tokens = [one for one in secrets if one["metadata"]["name"].startswith("bootstrap-token-")]
    ours = [one for one in tokens if _plain((one.get("data") or {}).get("description", "")).startswith(PURPOSE)]
    if ours:
        faults.append(f"{len(ours)} tokens of joins are left")
    if locked(lab):
        faults.append("the cluster's lock is still held on this machine")
    units = [f"{name} on {host.name}" for host in lab.hosts.values() for name in host.operations]
    return faults + [f"{unit} is still at work" for unit in units]


def locked(lab: SimulatedLab) -> bool:
    """Say whether anybody holds the controller's lock of the lab's cluster."""
    known = load_cluster(lab.cluster_file)
    path = lab.folder / "state" / known.name / "lock"
    if not path.exists():
        return False
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def resets(lab: SimulatedLab) -> int:
    """Return how many times `kubeadm reset` was asked for, on any host."""
    return sum("kubeadm reset" in " ".join(one.words) for host in lab.hosts.values() for one in host.ran)
