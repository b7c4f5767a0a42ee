"""The cluster file: what is wanted, read from YAML over a profile's values, every fault reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from shipway.cluster_parts import (
    Dashboard,
    DevicePlugin,
    Gpu,
    HostSpec,
    Kubernetes,
    Name,
    Network,
    Part,
    Runtime,
    Sources,
    Ssh,
    System,
    first_label,
)
from shipway.errors import Refused
from shipway.profiles import DEFAULT_PROFILE, merged, profile_data
from shipway.ssh_target import Target


class Cluster(Part):
    """A whole cluster as declared: every value is concrete, either written in the file or taken from its profile."""

    name: Name = Field(description="Name of the cluster.")
    profile: str = Field(DEFAULT_PROFILE, description="Version set: see docs/profiles.md.")
    hosts: tuple[HostSpec, ...] = Field(min_length=1, description="The machines.")
    ssh: Ssh = Ssh()
    system: System
    kubernetes: Kubernetes
    runtime: Runtime = Runtime()
    gpu: Gpu = Gpu()
    network: Network = Network()
    device_plugin: DevicePlugin
    dashboard: Dashboard = Dashboard()
    sources: Sources
    state_dir: str = Field("~/.shipway", description="Where kubeconfigs and keys of the controller are kept.")

    @model_validator(mode="before")
    @classmethod
    def _hosts(cls, data: Any) -> Any:
        """Turn bare addresses into hosts, and give the roles their defaults."""
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
        """Give the host of that name; raises KeyError."""
        return next(host for host in self.hosts if host.name == name)

    @property
    def control_planes(self) -> tuple[HostSpec, ...]:
        """The hosts that run the control plane, in file order; the first one initialises the cluster."""
        return tuple(host for host in self.hosts if "control_plane" in host.roles)

    @property
    def workers(self) -> tuple[HostSpec, ...]:
        """The hosts that join as workers only."""
        return tuple(host for host in self.hosts if "control_plane" not in host.roles)

    @property
    def schedules_on_control_plane(self) -> bool:
        """Whether ordinary pods may run on the control plane."""
        wanted = self.kubernetes.schedule_on_control_plane
        shared = any("worker" in host.roles for host in self.control_planes)
        return (not self.workers or shared) if wanted == "auto" else wanted

    @property
    def endpoint(self) -> str:
        """host:port by which every node reaches the API."""
        given = self.kubernetes.api_endpoint or node_ip(self.control_planes[0])
        return given if ":" in given else f"{given}:{self.kubernetes.api_port}"

    def target(self, host: HostSpec) -> Target:
        """Give where and how to log in to a host."""
        ssh, own = self.ssh, host.ssh
        jump, user, key = own.jump or ssh.jump, own.user or ssh.user, own.key or ssh.key or ""
        new = ssh.host_keys == "accept-new"
        through = None
        if jump:
            jump_user, jump_key = jump.user or user, jump.key or key
            named = f"{host.name} (jump host)"
            through = Target(named, jump.address, jump.port, jump_user, jump_key, ssh.known_hosts, new)
        port, limit = own.port or ssh.port, ssh.connect_seconds
        return Target(host.name, host.address, port, user, key, ssh.known_hosts, new, through, limit)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a cluster file; raises Refused with all faults and their places in the file."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"cluster file {path} cannot be read: {error}") from error
        return cls.parse(text, where=str(path))

    @classmethod
    def parse(cls, text: str, *, where: str = "cluster file") -> Self:
        """Read a cluster file's text; raises Refused with all faults and their places in the file."""
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise Refused(f"{where} is not YAML: {error}") from error
        if not isinstance(data, dict):
            raise Refused(f"{where}: a cluster file is a mapping with `name` and `hosts`")
        faults: list[str] = []
        try:
            cluster = cls.model_validate(merged(profile_data(data.get("profile", DEFAULT_PROFILE)), data))
        except ValidationError as error:
            faults = [
                f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}" for item in error.errors()
            ]
            raise Refused(f"{where}: " + "; ".join(faults)) from error
        return cluster


def node_ip(host: HostSpec) -> str:
    """Give the node's address: `node_ip`, else `address` where that is an IP; raises Refused where it is a name."""
    if host.node_ip:
        return str(host.node_ip)
    try:
        return str(IPv4Address(host.address))
    except ValueError as error:
        message = f"hosts.{host.name}: address {host.address} is a name, so node_ip must be given"
        raise Refused(message) from error
