"""The sections of a cluster file: hosts, SSH, Kubernetes, runtime, GPUs, network, add-ons and sources."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

# RFC 1123 label, which Kubernetes asks of node names (kubernetes.io, "Object Names and IDs").
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]
AptVersion = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.+:~-]*$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s\"'`$\\<>|;&(){}]+$")]
FilePath = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$", min_length=1)]
UnixUser = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ImageRef = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._:/@-]*$")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")]
Role = Literal["control_plane", "worker"]
Port = Annotated[int, Field(ge=1, le=65535)]


class Part(BaseModel):
    """The base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class Jump(Part):
    """The host that SSH goes through."""

    address: Address = Field(description="Address of the jump host.")
    port: Port = 22
    user: UnixUser | None = Field(None, description="User there; default: the same as on the hosts.")
    key: FilePath | None = Field(None, description="Private key file; default: the same as for the hosts.")


class HostSsh(Part):
    """What differs for one host from the cluster's `ssh` section."""

    user: UnixUser | None = None
    port: Port | None = None
    key: FilePath | None = None
    jump: Jump | None = None


class Ssh(Part):
    """How to log in to every host."""

    user: UnixUser = Field("root", description="User; anyone but root needs `sudo -n` rights.")
    port: Port = 22
    key: FilePath | None = Field(None, description="Private key file; default: the usual ones in ~/.ssh.")
    known_hosts: FilePath = Field("~/.ssh/known_hosts", description="File with the hosts' public keys.")
    host_keys: Literal["strict", "accept-new"] = Field(
        "strict", description="`accept-new` takes and keeps the key of a host never seen before."
    )
    jump: Jump | None = None
    connect_seconds: float = Field(20.0, gt=0, le=300, description="Limit for one connection, in seconds.")


class HostSpec(Part):
    """One machine. A bare string stands for a host with only an address."""

    name: Name = Field(description="Host name and Kubernetes node name, unique, lower case.")
    address: Address = Field(description="Address or DNS name SSH reaches; the node's address where it is an IP.")
    node_ip: IPv4Address | None = Field(None, description="The node's address where SSH uses another one.")
    roles: tuple[Role, ...] = Field(
        (), description="control_plane, worker; default: the first host is the control plane."
    )
    gpus: int | Literal["auto"] = Field("auto", description="Cards this host must have; `auto` takes what PCI shows.")
    ssh: HostSsh = HostSsh()
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, description="Node labels.")

    @model_validator(mode="after")
    def _count(self) -> HostSpec:
        if isinstance(self.gpus, int) and not 0 <= self.gpus <= 64:  # noqa: PLR2004 - more than any server holds
            raise ValueError("gpus must be `auto` or a number from 0 to 64")
        return self


class Kubernetes(Part):
    """Version, networks and API endpoint; `kubelet` and `kube_proxy` are merged into kubeadm's configuration."""

    version: Version
    pod_network: IPv4Network
    service_network: IPv4Network = IPv4Network("10.96.0.0/12")
    node_mask: int = Field(24, ge=16, le=30, description="Prefix length of each node's part of the pod network.")
    api_endpoint: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?$")] | None = Field(
        None, description="host[:port] every node reaches the API by; default: the first control plane's address."
    )
    api_port: Port = 6443
    image_repository: ImageRef | None = Field(None, description="Registry for the control plane's images.")
    allow_cgroup_v1: bool = Field(False, description="Run Kubernetes 1.35 and later on cgroup v1 all the same.")
    schedule_on_control_plane: bool | Literal["auto"] = Field(
        "auto", description="`auto`: only when there is no worker."
    )
    joins_at_once: int = Field(50, ge=1, le=250, description="kubeadm#3181: 300 at once overload its preflight.")
    kubelet: dict[str, Any] = Field(default_factory=dict, description="Added to the KubeletConfiguration.")
    kube_proxy: dict[str, Any] = Field(default_factory=dict, description="Added to the KubeProxyConfiguration.")
    init_seconds: int = Field(600, ge=60, description="Limit for kubeadm init, in seconds.")
    join_seconds: int = Field(420, ge=60, description="Limit for kubeadm join, in seconds.")

    @property
    def minor(self) -> tuple[int, int]:
        """Give (1, 31) of 1.31.7."""
        major, minor, _ = self.version.split(".")
        return int(major), int(minor)


class Runtime(Part):
    """containerd: which package, and what its configuration must say."""

    package: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]+$")] = "containerd.io"
    extra_packages: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]+$")], ...] = ()
    version: AptVersion | None = Field(None, description="Version or its beginning (1.7.27); none: the newest offered.")
    restrict_oom_score_adj: bool = Field(False, description="For hosts that are themselves containers.")


class Gpu(Part):
    """How pods get cards, and how that is proven."""

    mode: Literal["runtime_class", "default_runtime"] = "runtime_class"
    toolkit: Version | None = Field(None, description="Version of nvidia-container-toolkit; none: the newest offered.")
    verify_image: ImageRef = "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0"
    compute: Literal["required", "off"] = Field("required", description="`off` where the cards cannot run CUDA.")
    verify_seconds: int = Field(300, ge=10, description="Limit for all test pods to run at once, in seconds.")


class Network(Part):
    """The pod network: Calico, or manifests of your own."""

    provider: Literal["calico", "manifests"] = "calico"
    version: Version | None = None
    block_size: int = Field(26, ge=20, le=32)
    encapsulation: Literal["VXLANCrossSubnet", "VXLAN", "IPIP", "IPIPCrossSubnet", "None"] = "VXLANCrossSubnet"
    manifests: tuple[FilePath, ...] = Field((), description="For provider `manifests`: files to apply.")


class DevicePlugin(Part):
    """NVIDIA's Kubernetes device plugin."""

    version: Version
    image: ImageRef = "nvcr.io/nvidia/k8s-device-plugin"


class Dashboard(Part):
    """The Kubernetes Dashboard: archived upstream, so off unless asked for."""

    enabled: bool = False
    version: Version = "2.7.0"
    node_port: int = Field(31000, ge=30000, le=32767)
    role: Literal["cluster-admin", "view"] = "view"


class Key(Part):
    """A signing key by URL or local file, pinned by its fingerprint."""

    url: Url | None = None
    path: FilePath | None = None
    fingerprint: Annotated[str, StringConstraints(pattern=r"^([0-9A-F]{40}|[0-9A-F]{64})$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Key:
        if (self.url is None) == (self.path is None):
            raise ValueError("a key has either url or path")
        return self


class AptRepository(Part):
    """One apt repository; `{codename}`, `{arch}`, `{os}` and `{minor}` are filled in from the host and the version."""

    uri: Url
    suite: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.{}/_-]+$")]
    components: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")], ...] = ()
    key: Key


class Manifest(Part):
    """A manifest by URL and SHA-256, or by local path."""

    url: Url | None = None
    sha256: Sha256 | None = None
    path: FilePath | None = None

    @model_validator(mode="after")
    def _pinned(self) -> Manifest:
        if (self.url is None) == (self.path is None):
            raise ValueError("a manifest has either url or path")
        if self.url and not self.sha256:
            raise ValueError("a manifest by url needs its sha256")
        return self


class Sources(Part):
    """Where everything comes from; a site without internet names its mirrors here."""

    apt: dict[Literal["docker", "nvidia", "kubernetes"], AptRepository]
    base_apt: AptRepository | None = Field(None, description="Replaces the hosts' own apt sources for base packages.")
    registry_mirrors: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:-]+$")], Url] = Field(
        default_factory=dict, description="Registry host -> URL of its mirror."
    )
    manifests: dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")], Manifest] = Field(default_factory=dict)


class System(Part):
    """The base system."""

    packages: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]+$")], ...]
    upgrade: bool = Field(True, description="Upgrade base packages, only on a host that is not yet part of a cluster.")
    ports: tuple[Port, ...] = (6443, 2379, 2380, 10250, 10257, 10259)


def first_label(address: str) -> str:
    """Give a host name made from an address: the first DNS label, or the address with dashes."""
    made = address.split(".")[0] if re.search(r"[a-z]", address.lower()) else "host-" + address.replace(".", "-")
    return made.lower()
