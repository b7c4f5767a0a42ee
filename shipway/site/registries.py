"""How hosts get into registries: mirrors, authorities and credentials, as files that containerd reads at every pull."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shipway.cluster.secrets import user_and_password
from shipway.edits.containerd import CERTS, Door, hosts_toml, server_of
from shipway.errors import Refused
from shipway.foreign.errors import describe_error

if TYPE_CHECKING:
    from shipway.cluster.model import Cluster


@dataclass(frozen=True, slots=True)
class RegistryFile:
    """One file below certs.d: what it brings about, where, its text, and its mode (600 with credentials in it)."""

    fact: str
    path: str
    text: str = field(repr=False)
    mode: str = "644"


def registry_files(cluster: Cluster) -> list[RegistryFile]:
    """Return the files of every registry that the cluster file says something of; raises Refused for a lost secret.

    containerd reads them anew at every pull, so no restart follows (containerd docs, hosts.md).
    """
    sources = cluster.sources
    files = [_authority(name, access.ca) for name, access in sources.registries.items() if access.ca]
    for registry in dict.fromkeys([*sources.registry_mirrors, *sources.registries]):
        mirror = sources.registry_mirrors.get(registry)
        doors = [_door(cluster, str(mirror))] if mirror else []
        if registry in sources.registries:
            doors.append(_door(cluster, server_of(registry)))
        fact = f"{registry} is pulled through its mirror" if mirror else f"containerd gets into {registry}"
        mode = "600" if any(door.basic for door in doors) else "644"
        files.append(RegistryFile(fact, f"{CERTS}/{registry}/hosts.toml", hosts_toml(registry, *doors), mode))
    return files


def _door(cluster: Cluster, url: str) -> Door:
    """Return the way to an address, with what is declared for its host and port."""
    parts = urlsplit(url)
    access = cluster.sources.registries.get(parts.netloc)
    if access is None or parts.scheme != "https":  # over plain HTTP a password would be everybody's
        return Door(url)
    login = ":".join(user_and_password(access.credentials)) if access.credentials else ""
    return Door(url, _path(parts.netloc) if access.ca else "", base64.b64encode(login.encode()).decode())


def _path(registry: str) -> str:
    return f"{CERTS}/{registry}/shipway-ca.crt"


def _authority(registry: str, ca: str) -> RegistryFile:
    try:
        text = Path(ca).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            f"sources.registries.{registry}.ca: {ca} cannot be read: {describe_error(error)}", code="SHW-353"
        ) from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise Refused(f"sources.registries.{registry}.ca: {ca} holds no certificate in PEM", code="SHW-353")
    return RegistryFile(f"containerd knows the authority of {registry}", _path(registry), text)


def api_root(url: str) -> str:
    """Return the address at which a registry says that it is one: up to /v2/ (OCI distribution, end-1)."""
    parts = urlsplit(url)
    segments = [part for part in parts.path.split("/") if part]
    before = segments[: segments.index("v2")] if "v2" in segments else segments
    return "/".join([f"{parts.scheme}://{parts.netloc}", *before, "v2", ""])
