"""The `hosts` and `ssh` sections of a cluster file: the machines, and how to log in to them."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, ip_address
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shipway.cluster.types import (
    Address,
    Count,
    FilePath,
    Flag,
    LabelKey,
    LabelValue,
    Name,
    NodeAddress,
    Part,
    Port,
    Rail,
    Role,
    Seconds,
    SecretBlock,
    UnixUser,
)
from shipway.errors import Refused

MOST_GPUS = 64  # more than any server holds


class Jump(Part):
    """The host that SSH goes through."""

    address: Address = Field(description="Address of the jump host.")
    port: Port = Field(22, description="SSH port of the jump host.")
    user: UnixUser | None = Field(None, description="User there; default: the same as on the hosts.")
    key: FilePath | None = Field(None, description="Private key file; default: the same as for the hosts.")


class HostSsh(Part):
    """What differs for one host from the cluster's `ssh` section."""

    user: UnixUser | None = Field(None, description="User on this host.")
    port: Port | None = Field(None, description="SSH port of this host.")
    key: FilePath | None = Field(None, description="Private key file for this host.")
    jump: Jump | None = Field(None, description="Jump host for this host.")


class Ssh(Part):
    """How to log in to every host."""

    user: UnixUser = Field("root", description="User; anyone but root needs sudo, see docs/ssh.md.")
    port: Port = Field(22, description="SSH port.")
    key: FilePath | None = Field(None, description="Private key file; default: the usual ones in ~/.ssh.")
    known_hosts: FilePath = Field("~/.ssh/known_hosts", description="File with the hosts' public keys.")
    host_keys: Literal["strict", "accept-new"] = Field(
        "strict", description="`accept-new` takes and keeps the key of a host never seen before."
    )
    jump: Jump | None = Field(None, description="Host that SSH goes through to reach all others.")
    connect_seconds: Annotated[Seconds, Field(gt=0, le=300)] = Field(
        20.0, description="Limit for one connection, in seconds."
    )
    config: FilePath | None = Field(
        "~/.ssh/config", description="SSH configuration, asked for what this file does not say; null: none."
    )
    sudo_password_file: FilePath | None = Field(
        None, description="File of mode 0600 with sudo's password, where sudo asks for one."
    )
    sudo_password_secret: SecretBlock | None = Field(
        None, description="Prefect Secret block with sudo's password, in place of a file."
    )

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        """Refuse two places for one password."""
        if self.sudo_password_file and self.sudo_password_secret:
            raise ValueError("takes sudo_password_file or sudo_password_secret, not both")
        return self


class HostSpec(Part):
    """One machine. A bare string stands for a host with only an address."""

    name: Name = Field(description="Host name and Kubernetes node name, unique, lower case.")
    address: Address = Field(description="Address or DNS name SSH reaches; the node's address where it is an IP.")
    node_ip: NodeAddress | None = Field(
        None, description="The node's IPv4 address where SSH uses another one or a name."
    )
    roles: tuple[Role, ...] = Field(
        (), description="control_plane, worker; default: the first host is the control plane, the others are workers."
    )
    gpus: Annotated[Count, Field(ge=0, le=MOST_GPUS)] | Literal["auto"] = Field(
        "auto", description="GPUs this host must have; `auto` takes what PCI shows."
    )
    gpu_class: Name | None = Field(
        None, description="How its GPUs are shared: a name of `gpu.classes`, or `exclusive`; default: `gpu.sharing`."
    )
    rails: tuple[Rail, ...] | None = Field(
        None, description="Ports of InfiniBand or RoCE adapters that must be up on this host; default: `gpu.rails`."
    )
    not_cloned: Flag = Field(
        default=False,
        description="This is a machine of its own although it shows another host's product_uuid (its maker set one for "
        "all); machine-id and MAC are compared all the same.",
    )
    ssh: HostSsh = Field(HostSsh(), description="What differs from the cluster's `ssh` section.")
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, description="Node labels.")


def node_ip(host: HostSpec) -> str:
    """Return the node's address: `node_ip`, else `address` where that is an IP; raises Refused where it is a name."""
    if host.node_ip:
        return str(host.node_ip)
    try:
        return _as_ipv4(host.address)
    except ValueError as error:
        message = f"hosts.{host.name}: address {host.address} is no IPv4 address, so node_ip must be given"
        raise Refused(message) from error


@lru_cache(maxsize=4096)
def _as_ipv4(address: str) -> str:
    """Return the address; raises ValueError where it is none. Every host's /etc/hosts has all: n hosts ask n² times."""
    return str(IPv4Address(address))


def first_label(address: str) -> str:
    """Return a host name made from an address: the first DNS label, or host- and the IP with dashes."""
    try:
        ip_address(address)
    except ValueError:
        return address.split(".", maxsplit=1)[0].lower()
    return "host-" + re.sub(r"[^0-9a-f]+", "-", address.lower()).strip("-")
