"""Solver rules about versions and sources: what programs cannot do together, and what is needed and not named."""

from __future__ import annotations

import re
from collections.abc import Iterator

from shipway.cluster.faults import Fault
from shipway.cluster.model import Cluster
from shipway.rules.compatibility import (
    CDI_CONTAINERD,
    CDI_KUBERNETES,
    CDI_PLUGIN,
    CDI_TOOLKIT,
    CLAIMS_DRIVER,
    CLAIMS_KUBERNETES,
    CRI_V1_REQUIRED,
    CRI_V1_SPOKEN,
    NEWEST_KUBERNETES,
    OLDEST_KUBERNETES,
    TOOLKIT_FORBIDDEN,
    TOOLKIT_SOUND,
    calico_manifests,
    minor_of,
    triple,
)

KUBERNETES, TOOLKIT = ("kubernetes", "version"), ("gpu", "toolkit")
RUNTIME, NETWORK = ("runtime", "version"), ("network", "version")
FIRST_WITH_CRI_V1 = (1, 6)


def dotted(version: tuple[int, ...]) -> str:
    """Return 1.31 of (1, 31)."""
    return ".".join(str(part) for part in version)


def kubernetes(cluster: Cluster) -> Iterator[Fault]:
    """Templates are keyed by minor (kubeadm's API, taints, flags): an unknown one would be a guess."""
    if not OLDEST_KUBERNETES <= cluster.kubernetes.minor <= NEWEST_KUBERNETES:
        known = f"{dotted(OLDEST_KUBERNETES)} to {dotted(NEWEST_KUBERNETES)}"
        yield Fault(KUBERNETES, f"{cluster.kubernetes.version} is outside the known range {known}")


def runtime(cluster: Cluster) -> Iterator[Fault]:
    """The kubelet speaks CRI v1 since 1.23 and only that since 1.26; containerd 2.x only that, 1.5 not at all."""
    if cluster.runtime.version is None or cluster.kubernetes.minor < OLDEST_KUBERNETES:
        return
    found, minor = minor_of(cluster.runtime.version), cluster.kubernetes.minor
    if "." not in cluster.runtime.version and found[0] == 1:
        return  # `1` alone may be any 1.x
    if found < FIRST_WITH_CRI_V1 and minor >= CRI_V1_REQUIRED:
        message = f"containerd {dotted(found)} has no CRI v1, which Kubernetes {dotted(minor)} needs; take 1.7 or 2.x"
        yield Fault(RUNTIME, message, (KUBERNETES,))
    elif found >= (2, 0) and minor < CRI_V1_SPOKEN:
        message = f"containerd {dotted(found)} speaks only CRI v1, which Kubernetes {dotted(minor)} does not; take 1.7"
        yield Fault(RUNTIME, message, (KUBERNETES,))


def toolkit(cluster: Cluster) -> Iterator[Fault]:
    """Some releases of NVIDIA's container toolkit are broken."""
    version = cluster.gpu.toolkit
    reason = TOOLKIT_FORBIDDEN.get(triple(version)) if version else None
    if reason:
        yield Fault(TOOLKIT, f"{version} cannot be used: {reason}; take {dotted(TOOLKIT_SOUND)} or later")


def cdi(cluster: Cluster) -> Iterator[Fault]:
    """GPUs by CDI need a kubelet, a containerd, a toolkit and a plugin that know it; each is asked of the file."""
    if cluster.gpu.mode != "cdi" or all(host.gpus == 0 for host in cluster.hosts):
        return
    mode = (("gpu", "mode"),)
    if cluster.kubernetes.minor < CDI_KUBERNETES:
        text = (
            f"{cluster.kubernetes.version} hands no CDI devices to containerd; take {dotted(CDI_KUBERNETES)} or later"
        )
        yield Fault(KUBERNETES, text, mode)
    yield from _containerd(cluster)
    if cluster.gpu.toolkit and triple(cluster.gpu.toolkit)[:2] < CDI_TOOLKIT:
        text = f"{cluster.gpu.toolkit} has no program for CDI; take {dotted(CDI_TOOLKIT)} or later"
        yield Fault(TOOLKIT, text, mode)
    if triple(cluster.device_plugin.version)[:2] < CDI_PLUGIN:
        text = f"{cluster.device_plugin.version} cannot name that program; take {dotted(CDI_PLUGIN)} or later"
        yield Fault(("device_plugin", "version"), text, mode)


def claims(cluster: Cluster) -> Iterator[Fault]:
    """GPUs by claims need an API that serves them, a containerd that puts them in, and a driver that the drivers know.

    The versions are those that NVIDIA's driver of claims asks for.
    """
    if cluster.gpu.mode != "dra" or all(host.gpus == 0 for host in cluster.hosts):
        return
    if triple(cluster.kubernetes.version) < CLAIMS_KUBERNETES:
        why = "is too old for GPUs by claims (resource.k8s.io/v1)"
        text = f"{cluster.kubernetes.version} {why}; take {dotted(CLAIMS_KUBERNETES)} or later, or another gpu.mode"
        yield Fault(KUBERNETES, text, (("gpu", "mode"),))
    yield from _containerd(cluster)
    asked = cluster.gpu.driver.version or (str(cluster.gpu.driver.branch) if cluster.gpu.driver.branch else "")
    if asked and int(asked.partition(".")[0]) < CLAIMS_DRIVER:
        text = f"{asked} is older than NVIDIA's driver of claims needs; take {CLAIMS_DRIVER} or later"
        yield Fault(("gpu", "driver"), text, (("gpu", "mode"),))


def _containerd(cluster: Cluster) -> Iterator[Fault]:
    """Yield what keeps containerd from putting GPUs into containers by itself."""
    mode, asked = cluster.gpu.mode, cluster.runtime.version
    if asked is None:
        text = (
            f"is missing: gpu.mode {mode} needs containerd 2.0 or later, so name one (or set gpu.mode: runtime_class)"
        )
        yield Fault(RUNTIME, text, (("gpu", "mode"),))
    elif minor_of(asked) < CDI_CONTAINERD:
        text = f"containerd {asked} puts no GPU into a container; take 2.0 or later, or set gpu.mode: runtime_class"
        yield Fault(RUNTIME, text, (("gpu", "mode"),))


def provider(cluster: Cluster) -> Iterator[Fault]:
    """Calico needs its version and its operator's manifests (two from 3.30 on); own manifests must be named."""
    network = cluster.network
    if network.provider == "manifests":
        if not network.manifests:
            yield Fault(("network", "manifests"), "is empty: provider `manifests` needs at least one file")
        return
    if network.manifests:
        message = "are only applied with provider `manifests`"
        yield Fault(("network", "manifests"), message, (("network", "provider"),))
    if network.version is None:
        yield Fault(NETWORK, "is missing: Calico needs one")
        return
    for name in calico_manifests(network.version):
        if name not in cluster.sources.manifests:
            message = f"is missing: Calico {network.version} is installed from it; give url and sha256, or path"
            yield Fault(("sources", "manifests", name), message, (NETWORK,))


def manifests(cluster: Cluster) -> Iterator[Fault]:
    """A manifest's URL that names another version was left behind when the version was changed."""
    wanted: dict[str, tuple[tuple[str, str], str]] = {}
    if cluster.network.provider == "calico" and cluster.network.version:
        wanted |= dict.fromkeys(calico_manifests(cluster.network.version), (NETWORK, cluster.network.version))
    if cluster.dashboard.enabled:
        wanted["dashboard"] = (("dashboard", "version"), cluster.dashboard.version)
        if "dashboard" not in cluster.sources.manifests:
            place = ("sources", "manifests", "dashboard")
            message = "is missing: the dashboard is installed from it; give url and sha256, or path"
            yield Fault(place, message, (("dashboard", "enabled"),))
    for name, (owner, version) in wanted.items():
        manifest = cluster.sources.manifests.get(name)
        named = re.search(r"/v(\d+\.\d+\.\d+)/", manifest.url or "") if manifest else None
        if named and named[1] != version:
            message = (
                f"is version {named[1]}, {'.'.join(owner)} is {version}: give url and sha256 (or path) of {version}"
            )
            yield Fault(("sources", "manifests", name, "url"), message, (owner,))


def repositories(cluster: Cluster) -> Iterator[Fault]:
    """Each stage installs from a repository of its own."""
    needed = {"docker": "containerd", "kubernetes": "kubelet, kubeadm and kubectl"}
    if any(host.gpus != 0 for host in cluster.hosts):
        needed["nvidia"] = "NVIDIA's container toolkit"
        needed |= {"cuda": "the GPUs' driver"} if cluster.gpu.driver.source == "cuda" else {}
    named: set[str] = set(cluster.sources.apt)
    for title, what in needed.items():
        if title not in named:
            yield Fault(("sources", "apt", title), f"is missing: {what} comes from it")
    base, source = cluster.sources.base_apt, cluster.gpu.driver.source
    if source == "debian" and base and base.components and any(host.gpus != 0 for host in cluster.hosts):
        lacking = [part for part in ("contrib", "non-free") if part not in base.components]
        if lacking:
            text = f"has no {', '.join(lacking)}: Debian's driver comes from it"
            yield Fault(("sources", "base_apt", "components"), text, (("gpu", "driver", "source"),))


def cgroup_driver(cluster: Cluster) -> Iterator[Fault]:
    """Containerd is set to the systemd cgroup driver throughout: two drivers make pods flap (nvidia-docker#1788)."""
    driver = cluster.kubernetes.kubelet.get("cgroupDriver", "systemd")
    if driver != "systemd":
        place = ("kubernetes", "kubelet", "cgroupDriver")
        yield Fault(place, f"is {str(driver)[:40]!r}: containerd is set to systemd, both must be the same")
