"""The cluster as declared: the model of a cluster file, in which every value is concrete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from shipway.cluster.hardening import Hardening
from shipway.cluster.hosts import node_ip
from shipway.cluster.parts import (
    KUBE_VIP_IMAGE,
    AddOn,
    ApiEndpoint,
    Backup,
    Dashboard,
    DevicePlugin,
    DraDriver,
    Gpu,
    GpuClass,
    HostSpec,
    Kubernetes,
    Maintain,
    Name,
    Network,
    Part,
    Proxy,
    Repair,
    Runtime,
    Sources,
    Ssh,
    System,
    Upgrade,
    first_label,
)
from shipway.cluster.profiles import DEFAULT_PROFILE
from shipway.cluster.types import FilePath
from shipway.foreign.addresses import as_address
from shipway.host.target import Target

__all__ = ["Cluster", "node_ip"]


class Cluster(Part):
    """A whole cluster as declared: every value is concrete, either written in the file or taken from its profile."""

    name: Name = Field(description="Name of the cluster.")
    profile: str = Field(DEFAULT_PROFILE, description="Version set: see docs/profiles.md.")
    mirrors: Literal["aliyun"] | None = Field(
        None, description="Take packages and the control plane's images from mirrors in China: see docs/sites.md."
    )
    hosts: tuple[HostSpec, ...] = Field(min_length=1, description="The machines.")
    ssh: Ssh = Field(Ssh(), description="How to log in to every host.")
    system: System = Field(description="The base system.")
    kubernetes: Kubernetes = Field(description="Version, networks and API endpoint.")
    runtime: Runtime = Field(Runtime(), description="containerd.")
    gpu: Gpu = Field(Gpu(), description="How pods get GPUs, and how that is proven.")
    network: Network = Field(Network(), description="The pod network.")
    device_plugin: DevicePlugin = Field(description="NVIDIA's Kubernetes device plugin.")
    dra_driver: DraDriver = Field(DraDriver(), description="NVIDIA's driver of claims, for `gpu.mode: dra`.")
    dashboard: Dashboard = Field(Dashboard(), description="The Kubernetes Dashboard: archived upstream, so off.")
    addons: dict[Name, AddOn] = Field(
        default_factory=dict, description="Add-ons by name, each with `{}`: a name is a folder of `manifests/addons`."
    )
    repair: Repair = Field(Repair(), description="What drift repair may do by itself.")
    backup: Backup = Field(Backup(), description="Backups of etcd.")
    hardening: Hardening = Field(Hardening(), description="What is closed beside Kubernetes' own defaults.")
    upgrade: Upgrade = Field(Upgrade(), description="How an upgrade goes through the hosts.")
    maintain: Maintain = Field(Maintain(), description="What maintenance does to the systems of the hosts.")
    proxy: Proxy = Field(Proxy(), description="The proxy by which hosts reach the internet.")
    sources: Sources = Field(description="Where packages, images and manifests come from.")
    state_dir: FilePath = Field("~/.shipway", description="Where kubeconfigs and keys of the controller are kept.")

    @model_validator(mode="before")
    @classmethod
    def _hosts(cls, data: Any) -> Any:
        """Turn bare addresses into hosts, and fill in the default roles."""
        if not isinstance(data, Mapping) or not isinstance(data.get("hosts"), list):
            return data
        hosts = [
            {"name": first_label(host), "address": host} if isinstance(host, str) else host for host in data["hosts"]
        ]
        declared = any(isinstance(host, Mapping) and "control_plane" in (host.get("roles") or ()) for host in hosts)
        for index, host in enumerate(hosts):
            if isinstance(host, Mapping) and not host.get("roles"):
                role = "worker" if declared or index else "control_plane"
                hosts[index] = {**host, "roles": [role]}
        return {**data, "hosts": hosts}

    def host(self, name: str) -> HostSpec:
        """Return the host of that name; raises KeyError."""
        return next(host for host in self.hosts if host.name == name)

    @property
    def control_planes(self) -> tuple[HostSpec, ...]:
        """The hosts that run the control plane, in file order; the first one initialises the cluster."""
        return tuple(host for host in self.hosts if "control_plane" in host.roles)

    @property
    def workers(self) -> tuple[HostSpec, ...]:
        """The hosts that join as workers only."""
        return tuple(host for host in self.hosts if "control_plane" not in host.roles)

    def gpu_class_of(self, host: HostSpec) -> str:
        """Return the name of the class of a host's GPUs."""
        return host.gpu_class or self.gpu.sharing

    def gpu_sharing_of(self, host: HostSpec) -> GpuClass | None:
        """Return how a host's GPUs are shared by its class; None where each goes to one pod."""
        return self.gpu.classes.get(self.gpu_class_of(host))

    def rails_of(self, host: HostSpec) -> tuple[str, ...]:
        """Return the ports that must be up on a host with GPUs."""
        return self.gpu.rails if host.rails is None else host.rails

    @property
    def gpu_classes(self) -> dict[str, GpuClass]:
        """The classes by which some host shares its GPUs, in the order of the file."""
        used = {self.gpu_class_of(host) for host in self.hosts if host.gpus != 0}
        return {name: one for name, one in self.gpu.classes.items() if name in used}

    @property
    def schedules_on_control_plane(self) -> bool:
        """Whether ordinary pods may run on the control plane."""
        wanted = self.kubernetes.schedule_on_control_plane
        shared = any("worker" in host.roles for host in self.control_planes)
        return (not self.workers or shared) if wanted == "auto" else wanted

    @property
    def names_endpoint(self) -> bool:
        """Whether the file says itself which endpoint the API has; else a running cluster's own is taken."""
        given = self.kubernetes.api_endpoint
        return isinstance(given, str) or (given is not None and given.name is not None)

    @property
    def api_name(self) -> str:
        """The API's name that is kept in /etc/hosts of every host; empty where the endpoint is the site's affair."""
        given = self.kubernetes.api_endpoint or ApiEndpoint()
        if isinstance(given, str) or given.kind == "external":
            return ""
        return given.name or f"api.{self.name}.internal"

    @property
    def balancer(self) -> str:
        """The name of the site's load balancer, where that is the endpoint; empty for a name of ours or an address."""
        host = self.endpoint.rpartition(":")[0]
        return "" if self.api_name or as_address(host) is not None else host

    @property
    def api_vip(self) -> str:
        """The address for clients outside that moves between control planes; empty where there is none."""
        vip = self.kubernetes.api_vip
        return str(vip.address) if vip else ""

    @property
    def kube_vip_image(self) -> str:
        """The image that holds that address; empty where none does."""
        vip = self.kubernetes.api_vip
        return (vip.image or KUBE_VIP_IMAGE) if vip and vip.by == "kube-vip" else ""

    @property
    def endpoint(self) -> str:
        """host:port by which every node reaches the API."""
        given, port = self.kubernetes.api_endpoint, self.kubernetes.api_port
        if isinstance(given, str):
            return given if ":" in given else f"{given}:{port}"
        if given is not None and given.kind == "external":
            return f"{given.name}:{given.port or port}"
        return f"{self.api_name}:{port}"

    @property
    def proxies_api(self) -> bool:
        """Whether workers reach the API by a proxy of their own: where several control planes have a name of ours."""
        return bool(self.api_name) and len(self.control_planes) > 1

    def target(self, host: HostSpec) -> Target:
        """Return where and how to log in to a host; `open` names what the file leaves to the SSH configuration."""
        ssh, own = self.ssh, host.ssh
        jump, user, key = own.jump or ssh.jump, own.user or ssh.user, own.key or ssh.key or ""
        new, config, asked = ssh.host_keys == "accept-new", ssh.config or "", ssh.model_fields_set
        said = {"user": own.user, "port": own.port, "key": key, "jump": jump}
        left = tuple(name for name in (*said, "known_hosts") if not said.get(name) and name not in asked)
        through = None
        if jump:
            jump_user, jump_key = jump.user or user, jump.key or key
            more = tuple(
                name for name in left if name in {"user", "key", "known_hosts"} and not getattr(jump, name, "")
            )
            more += ("port",) if "port" not in jump.model_fields_set else ()
            named, limit = f"{host.name} (jump host)", ssh.connect_seconds
            through = Target(
                *(named, jump.address, jump.port, jump_user, jump_key, ssh.known_hosts, new),
                connect_seconds=limit,
                config=config,
                open=more,
            )
        return Target(
            *(host.name, host.address, own.port or ssh.port, user, key, ssh.known_hosts, new, through),
            connect_seconds=ssh.connect_seconds,
            config=config,
            open=left,
            sudo_password_file=ssh.sudo_password_file or "",
            sudo_password_secret=ssh.sudo_password_secret or "",
        )
