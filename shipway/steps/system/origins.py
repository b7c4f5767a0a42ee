"""Where hosts fetch from: the addresses that a host must reach, by what will run on it."""

from __future__ import annotations

from urllib.parse import urlsplit

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.cluster.types import DOCKER, DOCKER_ALIASES
from shipway.gpu.chosen import VENDOR
from shipway.gpu.driver.packages import REPOSITORY
from shipway.kube.manifests import add_on, images_of
from shipway.kubeadm.config import image_repository
from shipway.os.family import Family
from shipway.rules.compatibility import CALICO_SEPARATE_CRDS, minor_of
from shipway.site.proxies import proxy_for
from shipway.site.registries import api_root
from shipway.steps.system.sources import Source

DOCKER_DOOR = "registry-1.docker.io"  # docker.io itself serves no images
OPERATOR = "quay.io"  # Calico's operator


def origins(cluster: Cluster, host: HostSpec, family: Family) -> tuple[Source, ...]:
    """Return what to ask for at each origin, one address an origin, and who will fetch from there.

    A file of the origin is asked for, not its root: a web server without a list of files refuses its root (403).
    """
    sources = cluster.sources
    unasked = [] if host.gpus != 0 else [VENDOR.repository]
    unasked += [] if host.gpus != 0 and cluster.gpu.driver.source == REPOSITORY else [REPOSITORY]
    asked = family.fetches(cluster, without=unasked)
    images = [api_root(str(url)) for url in sources.registry_mirrors.values()]
    images += [f"https://{registry}/v2/" for registry in _find_unmirrored(cluster, host)]
    seen: dict[str, Source] = {}
    for url, by in (*((url, family.fetcher) for url in asked), *((url, "containerd") for url in images)):
        way = (proxy_for(cluster, url) or "direct") if cluster.proxy.declared else by
        access = sources.registries.get(urlsplit(url).netloc)
        seen.setdefault(f"{urlsplit(url).netloc} {way}", Source(url, way, own_ca=bool(access and access.ca)))
    return tuple(seen.values())


def _find_unmirrored(cluster: Cluster, host: HostSpec) -> list[str]:
    """Return the registries that images come from and that no mirror stands before."""
    mirrors = cluster.sources.registry_mirrors
    if "_default" in mirrors:
        return []
    images = [f"{image_repository(cluster)}/pause"]
    if host.gpus != 0:
        offers = cluster.dra_driver if cluster.gpu.mode == "dra" else cluster.device_plugin
        images += [offers.image, cluster.gpu.verify_image]
        images += [cluster.gpu.figures.image] if "figures" in cluster.gpu.model_fields_set else []
    if cluster.kube_vip_image and host in cluster.control_planes:
        images.append(cluster.kube_vip_image)
    for name in cluster.addons:
        images += images_of(add_on(name))
    named = [registry_of(image) for image in images]
    if cluster.network.provider == "calico" and cluster.network.version:
        # Its images moved to the operator's registry; where a release still has them elsewhere, that is asked as well.
        named += [OPERATOR, *([DOCKER] if minor_of(cluster.network.version) < CALICO_SEPARATE_CRDS else [])]
    named += [DOCKER] if cluster.dashboard.enabled else []
    return [DOCKER_DOOR if name == DOCKER else name for name in dict.fromkeys(named) if name not in mirrors]


def registry_of(image: str) -> str:
    """Return the registry of an image reference; one without a registry is Docker's."""
    first, slash, _ = image.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return first if named and first not in DOCKER_ALIASES else DOCKER
