"""Which upgrades are safe: one minor at a time, etcd's floors, how far kubelets may lag, what a minor took away."""

from __future__ import annotations

from collections.abc import Mapping

from shipway.rules.compatibility import LAST_PATCH, Minor, Triple, minor_of, triple

# The version that every RUNNING member of etcd must have before the minor that brings etcd's next minor:
# 3.5 to 3.6 (etcd blog of 2025-12-17: members that were removed come back), 3.6 to 3.7 (etcd's upgrade_3_7.md).
ETCD_FLOORS: Mapping[Minor, Triple] = {(1, 34): (3, 5, 26), (1, 37): (3, 6, 11)}
# Feature gates that kubeadm of that minor refuses to read (kubernetes#135773, kubernetes#138645, kubernetes#136016).
REMOVED_GATES: Mapping[Minor, tuple[str, ...]] = {
    (1, 36): ("ControlPlaneKubeletLocalMode",),
    (1, 37): ("NodeLocalCRISocket", "PublicKeysECDSA"),
}
# Flags with which a kubelet of that minor does not start (CHANGELOG-1.24: dockershim's; CHANGELOG-1.27). Those that
# kubeadm itself once wrote it takes out by itself; these are about what people added.
REMOVED_FLAGS: Mapping[Minor, tuple[str, ...]] = {
    (1, 24): (
        "network-plugin",
        "network-plugin-mtu",
        "cni-bin-dir",
        "cni-cache-dir",
        "cni-conf-dir",
        "docker-endpoint",
    ),
    (1, 27): ("container-runtime", "master-service-namespace"),
}
V1BETA3_GONE: Minor = (1, 37)  # kubeadm's configuration API v1beta3 is unreadable from here on (kubernetes#136016)
LONG_LAG: Minor = (1, 28)  # kubelets may be three minors behind their API server from here on, two before (skew policy)


def why_not(have: str, wanted: str) -> tuple[str, str]:
    """Return code and reason why a cluster may not go from one version to another; empty texts where it may."""
    if triple(wanted) < triple(have):
        return "SHW-781", f"the cluster runs v{have}, and v{wanted} is older: Kubernetes knows no way back"
    if minor_of(wanted) > (1, minor_of(have)[1] + 1):
        return "SHW-780", f"the cluster runs v{have}, and v{wanted} is more than one minor ahead"
    return "", ""


def next_minor(have: str) -> str:
    """Return 1.31 for a cluster of 1.30.2."""
    return f"1.{minor_of(have)[1] + 1}"


def etcd_floor(have: str, wanted: str) -> Triple | None:
    """Return the least version of every member of etcd for this upgrade; None where it keeps etcd's minor."""
    before, after = minor_of(have), minor_of(wanted)
    return next((floor for minor, floor in ETCD_FLOORS.items() if before < minor <= after), None)


def may_lag(wanted: str) -> int:
    """Return by how many minors a kubelet may be behind an API server of this version."""
    return 3 if minor_of(wanted) >= LONG_LAG else 2


def taken_away(table: Mapping[Minor, tuple[str, ...]], wanted: str) -> dict[str, Minor]:
    """Return what a version no longer knows of one of the tables above, with the minor that took it away."""
    return {name: minor for minor, names in table.items() if minor <= minor_of(wanted) for name in names}


def older_patch(have: str) -> str:
    """Return the last patch of a minor that gets no more, where the cluster runs an older one; "" otherwise."""
    last = LAST_PATCH.get(minor_of(have))
    return f"1.{minor_of(have)[1]}.{last}" if last is not None and triple(have)[2] < last else ""
