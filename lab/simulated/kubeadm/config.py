"""kubeadm's configuration files as its simulated self reads them: strict about versions and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from lab.simulated import releases
from lab.simulated.releases import kubeadm_apis, minor_of


class BadConfig(Exception):
    """kubeadm does not take the configuration; the text is what it says."""


@dataclass(frozen=True)
class Asked:
    """What init or join is asked, from files and flags."""

    node_name: str
    address: str
    port: int = 6443
    version: str = ""
    endpoint: str = ""
    repository: str = ""
    cluster_name: str = "kubernetes"
    pod_network: str = ""
    service_network: str = "10.96.0.0/12"
    node_mask: int = 24
    kubelet: dict[str, Any] = field(default_factory=dict)
    kubelet_args: dict[str, str] = field(default_factory=dict)
    kube_proxy: dict[str, Any] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    server: str = ""
    token: str = ""
    ca_hashes: tuple[str, ...] = ()
    discovery_seconds: float = 300.0
    control_plane: bool = False  # of a join: as a further control plane

    @property
    def minor(self) -> int:
        """The minor version as a number."""
        return minor_of(self.version)

    def images(self) -> list[str]:
        """Return the images of the control plane in kubeadm's order."""
        return list(releases.images(self.version, self.repository).values())


def read(text: str, minor: int, *, node_name: str, address: str, version: str) -> Asked:
    """Read the documents of a configuration file; raises BadConfig in kubeadm's words."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
    except yaml.YAMLError as error:
        raise BadConfig(f"error unmarshaling YAML: {error}") from error
    kinds: dict[str, dict[str, Any]] = {}
    for document in documents:
        kinds[str(document.get("kind"))] = document
        _known(document, minor)
    first = kinds.get("InitConfiguration") or kinds.get("JoinConfiguration") or {}
    declared, node = kinds.get("ClusterConfiguration", {}), first.get("nodeRegistration", {})
    further = first.get("controlPlane")
    point = first.get("localAPIEndpoint") or (further or {}).get("localAPIEndpoint", {})
    network = declared.get("networking", {})
    mask = _arguments(declared.get("controllerManager", {}).get("extraArgs"), minor).get("node-cidr-mask-size", "24")
    token = first.get("discovery", {}).get("bootstrapToken", {})
    return Asked(
        node_name=str(node.get("name") or node_name),
        address=str(point.get("advertiseAddress") or address),
        port=int(point.get("bindPort") or 6443),
        version=str(declared.get("kubernetesVersion") or version).lstrip("v"),
        endpoint=str(declared.get("controlPlaneEndpoint") or ""),
        repository=str(declared.get("imageRepository") or ""),
        cluster_name=str(declared.get("clusterName") or "kubernetes"),
        pod_network=str(network.get("podSubnet") or ""),
        service_network=str(network.get("serviceSubnet") or "10.96.0.0/12"),
        node_mask=int(mask),
        kubelet=kinds.get("KubeletConfiguration", {}),
        kube_proxy=kinds.get("KubeProxyConfiguration", {}),
        kubelet_args=_arguments(node.get("kubeletExtraArgs"), minor),
        ignored=frozenset(str(name).lower() for name in node.get("ignorePreflightErrors", [])),
        server=str(token.get("apiServerEndpoint") or ""),
        token=str(token.get("token") or ""),
        ca_hashes=tuple(token.get("caCertHashes", [])),
        discovery_seconds=_discovery(first, minor),
        control_plane=further is not None,
    )


def _discovery(join: Mapping[str, Any], minor: int) -> float:
    """Return how long a join tries to find its cluster; a limit that stands where another API has it is not heeded."""
    newest = str(join.get("apiVersion")).endswith("v1beta4") and minor >= kubeadm_apis()["v1beta4"][0]
    said = join.get("timeouts", {}).get("discovery") if newest else join.get("discovery", {}).get("timeout")
    if said is None:
        return 300.0
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", str(said))
    if not parts or not str(said):
        raise BadConfig(f'json: cannot unmarshal: time: invalid duration "{said}"')
    hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def _known(document: Mapping[str, Any], minor: int) -> None:
    """Refuse an API version that this kubeadm does not read."""
    api, kind = str(document.get("apiVersion")), document.get("kind")
    group, _, version = api.partition("/")
    if group != "kubeadm.k8s.io":
        return
    first, last = kubeadm_apis().get(version, (99, 99))
    if minor < first:
        raise BadConfig(
            f'no kind "{kind}" is registered for version "{api}" in scheme "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/scheme/scheme.go:31"'
        )
    if minor > last:
        raise BadConfig(
            f'your configuration file uses an old API spec: "{api}" (kind: "{kind}"). Please use kubeadm v1.{last} instead '
            "and run 'kubeadm config migrate --old-config old.yaml --new-config new.yaml', "
            "which will write the new, similar spec using a newer API version."
        )


def _arguments(given: Any, minor: int) -> dict[str, str]:
    """Return extra arguments: a list of name and value from v1beta4 on, a map before."""
    if not given:
        return {}
    if isinstance(given, list):
        if minor < 31:
            raise BadConfig("json: cannot unmarshal array into Go struct field .extraArgs of type map[string]string")
        return {str(pair["name"]): str(pair["value"]) for pair in given}
    return {str(name): str(value) for name, value in given.items()}
