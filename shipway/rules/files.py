"""The local files a cluster file names: each must be there before anything is begun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as File

from shipway.cluster.faults import Fault
from shipway.cluster.hosts import HostSsh, Ssh
from shipway.cluster.model import Cluster
from shipway.cluster.secrets import trouble
from shipway.cluster.text import Path

ADD_ONS = File(__file__).resolve().parents[2] / "manifests" / "addons"


def _logins(cluster: Cluster) -> Iterator[tuple[Path, str | None]]:
    """Yield place and path of every SSH key; known_hosts may be made by accept-new and is not asked for."""
    sections: list[tuple[Path, Ssh | HostSsh]] = [(("ssh",), cluster.ssh)]
    sections += [(("hosts", index, "ssh"), host.ssh) for index, host in enumerate(cluster.hosts)]
    for place, section in sections:
        yield (*place, "key"), section.key
        yield (*place, "jump", "key"), section.jump.key if section.jump else None


def _contents(cluster: Cluster) -> Iterator[tuple[Path, str | None]]:
    """Return place and path of every apt key, authority and manifest."""
    sources, network = cluster.sources, cluster.network
    for title, repository in sources.apt.items():
        yield ("sources", "apt", title, "key", "path"), repository.key.path
    yield ("sources", "base_apt", "key", "path"), sources.base_apt.key.path if sources.base_apt else None
    for name, manifest in sources.manifests.items():
        yield ("sources", "manifests", name, "path"), manifest.path
    for name, access in sources.registries.items():
        yield ("sources", "registries", name, "ca"), access.ca
    yield ("hardening", "audit", "policy"), cluster.hardening.audit.policy
    for index, path in enumerate(network.manifests if network.provider == "manifests" else ()):
        yield ("network", "manifests", index), path


def _secrets(cluster: Cluster) -> Iterator[tuple[Path, str | None]]:
    """Return place and path of every file that holds a secret."""
    yield ("proxy", "credentials"), cluster.proxy.credentials
    for name, access in cluster.sources.registries.items():
        yield ("sources", "registries", name, "credentials"), access.credentials


def secret_places(cluster: Cluster) -> list[str]:
    """Return every file and Secret block that holds a secret of this cluster."""
    return [place for _, place in _secrets(cluster) if place]


def unknown_add_ons(cluster: Cluster) -> Iterator[Fault]:
    """Return a fault for every add-on that has no folder."""
    for name in cluster.addons:
        if not (ADD_ONS / name).is_dir():
            there = ", ".join(sorted(path.name for path in ADD_ONS.iterdir()))
            yield Fault(("addons", name), f"is no add-on; there are: {there}")


def missing_files(cluster: Cluster) -> Iterator[Fault]:
    """Return a fault for every named local file that cannot be read, or is a secret that others may read."""
    for place, path in _secrets(cluster):
        if path and (why := trouble(path)):
            yield Fault(place, why)
    for place, path in (*_logins(cluster), *_contents(cluster)):
        if path is None:
            continue
        try:
            File(path).expanduser().open("rb").close()
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            yield Fault(place, f"{path} cannot be read: {reason}")
