"""The `sources` section of a cluster file: where packages, images and manifests come from, and how they are pinned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from shipway.cluster.types import (
    DOCKER,
    DOCKER_ALIASES,
    Component,
    FilePath,
    Fingerprint,
    ManifestName,
    MirrorUrl,
    NoProxies,
    Part,
    ProxyUrl,
    Registry,
    SecretPlace,
    Sha256,
    Suite,
    Url,
)


class Key(Part):
    """A signing key by URL or local file, pinned by its fingerprint."""

    url: Url | None = Field(None, description="Address of the key.")
    path: FilePath | None = Field(None, description="Local file with the key, instead of `url`.")
    fingerprint: Fingerprint | None = Field(
        None,
        description="Fingerprint of the primary key; needed for http://, else any key that is served is taken.",
    )

    @model_validator(mode="after")
    def _one(self) -> Key:
        if (self.url is None) == (self.path is None):
            raise ValueError("takes either url or path")
        if self.url and not self.url.lower().startswith("https://") and not self.fingerprint:
            raise ValueError("by http:// needs its fingerprint: whoever is in between could serve a key of his own")
        return self


class AptRepository(Part):
    """One apt repository; hosts fill in {codename}, {arch}, {os}, {release} and {machine}, the file `{minor}`."""

    uri: Url = Field(description="Address of the repository; alone, it names a mirror of the same layout.")
    suite: Suite = Field(description="Suite; with a slash at its end, the path of a flat repository (`/`, `./`).")
    components: tuple[Component, ...] = Field(
        (), description="Components of the suite; none for a flat repository. Another suite drops the profile's."
    )
    key: Key = Field(description="The key its lists are signed with.")

    @model_validator(mode="after")
    def _layout(self) -> AptRepository:
        """A line that apt calls malformed breaks every apt of the host (sources.list(5): a flat suite ends in `/`)."""
        flat = self.suite.endswith("/")
        if flat and self.components:
            named = ", ".join(self.components)
            message = f"is flat (suite {self.suite} ends with a slash) and so has no components, but {named} stand here"
            raise ValueError(message)
        if not flat and not self.components:
            message = f"has no components: suite {self.suite} needs some; a flat repository's suite ends with a slash"
            raise ValueError(message)
        return self


class Manifest(Part):
    """A manifest by URL and SHA-256, or by local path."""

    url: Url | None = Field(None, description="Address of the manifest.")
    sha256: Sha256 | None = Field(None, description="SHA-256 of the file; needed with `url`.")
    path: FilePath | None = Field(None, description="Local file, instead of `url`.")

    @model_validator(mode="after")
    def _pinned(self) -> Manifest:
        if (self.url is None) == (self.path is None):
            raise ValueError("takes either url or path")
        if self.url and not self.sha256:
            raise ValueError("by url needs its sha256")
        return self


class Proxy(Part):
    """The proxy by which hosts reach the internet; the machine that Shipway runs on has its own."""

    http: ProxyUrl | None = Field(None, description="Proxy for http:// addresses, with its port.")
    https: ProxyUrl | None = Field(None, description="Proxy for https:// addresses; default: the one of `http`.")
    no_proxy: NoProxies = Field(
        (), description="What is reached without it, beside what is computed: nodes, pods, services, the API, loopback."
    )
    credentials: SecretPlace | None = Field(
        None, description="File of mode 0600 with `USER:PASSWORD` for the proxy, or `block:NAME` of a Secret block."
    )

    @model_validator(mode="after")
    def _whole(self) -> Proxy:
        if (self.no_proxy or self.credentials) and not (self.http or self.https):
            raise ValueError("names no proxy: http or https is needed")
        return self

    @property
    def declared(self) -> bool:
        """Whether there is one."""
        return bool(self.http or self.https)

    @property
    def for_https(self) -> str | None:
        """The proxy for https:// addresses."""
        return self.https or self.http


class RegistryAccess(Part):
    """How hosts get into one registry or mirror, named by its host and port."""

    ca: FilePath | None = Field(None, description="Local file with the CA that signed its certificate (PEM).")
    credentials: SecretPlace | None = Field(
        None, description="File of mode 0600 with `USER:PASSWORD` for it, or `block:NAME` of a Secret block."
    )


class Sources(Part):
    """Where everything comes from; a site without internet names its mirrors here."""

    apt: dict[Literal["docker", "nvidia", "kubernetes", "cuda"], AptRepository] = Field(
        description="Repositories of containerd (`docker`), the NVIDIA toolkit, Kubernetes, and the driver (`cuda`)."
    )
    base_apt: AptRepository | None = Field(
        None,
        description="Replaces the distribution's archive in the hosts' own apt sources; what else stands there stays.",
    )
    registry_mirrors: dict[Registry, MirrorUrl] = Field(
        default_factory=dict,
        description="Registry host -> URL of its mirror; one with a path has /v2 in it: https://HARBOR/v2/PROJECT.",
    )
    registries: dict[Registry, RegistryAccess] = Field(
        default_factory=dict, description="CA and credentials, by host[:port] of a registry or mirror."
    )
    manifests: dict[ManifestName, Manifest] = Field(
        default_factory=dict, description="tigera_operator, operator_crds (Calico from 3.30 on) and dashboard."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, data: Any) -> Any:
        """Refuse one registry under two of its names: which of them holds would be chance."""
        for key in ("registry_mirrors", "registries"):
            named = data.get(key) if isinstance(data, Mapping) else None
            docker = [name for name in named if name in (DOCKER, *DOCKER_ALIASES)] if isinstance(named, Mapping) else []
            if len(docker) > 1:
                message = f"{key} names one registry {len(docker)} times: {', '.join(docker)} are all {DOCKER}"
                raise ValueError(message)
        return data

    @model_validator(mode="after")
    def _hub(self) -> Sources:
        access = self.registries.get(DOCKER)
        if access and access.credentials:
            raise ValueError(
                "registries.docker.io.credentials: Docker Hub takes tokens alone, which hosts cannot be given once for "
                "all; name a mirror that logs in there, or use imagePullSecrets"
            )
        return self
