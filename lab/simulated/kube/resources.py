"""The resources that the API serves: those of data/resources.yaml, which custom resources join."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lab.simulated import recorded

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """One resource of one group and version."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    categories: tuple[str, ...] = ()
    singular: str = ""
    custom: bool = False
    fields: tuple[str, ...] = ()  # that a field selector may name

    @property
    def api_version(self) -> str:
        """Return `v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> str:
        """Return the name under which objects are stored, the same for all versions: `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def base_path(self) -> str:
        """Return the path of the group and version: `/api/v1`, `/apis/apps/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def _priority(version: str) -> tuple[int, int, int]:
    """Return a version's place in the API's order: stable before beta before alpha, then the higher number."""
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if found is None:
        return 0, 0, 0
    major, stage, minor = found.groups()
    return {None: 3, "beta": 2, "alpha": 1}[stage], int(major), int(minor or 0)


class Resources:
    """Every resource served now: the built-in ones and those of established CustomResourceDefinitions."""

    def __init__(self, minor: int) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str], Resource] = {}
        for row in recorded.table("resources.yaml"):
            said: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in row.items()
            }
            if said.pop("since", 0) <= minor:
                self.add(Resource(**said))

    def add(self, resource: Resource) -> None:
        """Serve a resource (again)."""
        self._by_path[resource.group, resource.version, resource.plural] = resource
        self._by_kind[resource.api_version, resource.kind] = resource

    def remove(self, key: str) -> None:
        """Serve no version of a resource any more."""
        self._by_path = {path: found for path, found in self._by_path.items() if found.key != key}
        self._by_kind = {kind: found for kind, found in self._by_kind.items() if found.key != key}

    def at(self, group: str, version: str, plural: str) -> Resource | None:
        """Return the resource at a path."""
        return self._by_path.get((group, version, plural))

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """Return the resource of an object's apiVersion and kind."""
        return self._by_kind.get((api_version, kind))

    def by_key(self, key: str) -> Resource:
        """Return one served version of a stored resource.

        Raises KeyError where none is served.
        """
        for resource in self._by_path.values():
            if resource.key == key:
                return resource
        raise KeyError(key)

    def all(self) -> list[Resource]:
        """Return every resource served, in the order of groups as they came."""
        return list(self._by_path.values())

    def groups(self) -> dict[str, list[str]]:
        """Return the versions of every group, the core group under the empty name."""
        found: dict[str, list[str]] = {}
        for resource in self._by_path.values():
            versions = found.setdefault(resource.group, [])
            if resource.version not in versions:
                versions.append(resource.version)
        return {group: sorted(versions, key=_priority, reverse=True) for group, versions in found.items()}
