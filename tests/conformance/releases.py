"""The releases of Kubernetes whose answers were recorded, and what the story says differently for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.simulated.site import MIRROR
from tests.conformance.case import Case
from tests.conformance.scenario import SCENES


@dataclass(frozen=True, eq=False)
class Release:
    """One recorded release: what fills the story's holes, and which of its cases were played.

    `cluster` is put over the simulated lab's cluster file, so that it is the site on which the answers were recorded.
    """

    version: str
    package: str
    registry: str
    profile: str
    ignored: str = ""  # a flag for each join
    cgroup: int = 2
    cluster: Mapping[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    until: str = ""

    def values(self) -> dict[str, str]:
        """Return what fills the holes of the words of cases and actions."""
        return {"version": self.version, "package": self.package, "registry": self.registry, "ignored": self.ignored}

    def cases(self, *, slow: bool = True) -> Iterator[Case]:
        """Yield the cases that are played for this release, in order; those that wait for minutes only where `slow`."""
        for scene, parts in SCENES.items():
            for part in parts:
                if isinstance(part, Case) and self.plays(part) and (slow or not part.slow):
                    yield part
            if scene == self.until:
                return

    def plays(self, case: Case) -> bool:
        """Return whether a case is part of this release's story."""
        return case.name not in self.left_out and not (case.slow and self.until)


OLD = Release("1.20.2", "1.20.2-00", "k8s.gcr.io", "lab")
# Recorded with --quick, until the joins, on cgroup v1, which this kubelet runs on only where it is configured to.
NEW = Release(
    "1.36.2",
    "1.36.2-1.1",
    "registry.k8s.io",
    "current",
    ignored="--ignore-preflight-errors=SystemVerification",
    cgroup=1,
    cluster={
        "kubernetes": {"allow_cgroup_v1": True},
        "runtime": {"version": "2.1.9"},
        "network": {"provider": "manifests"},
        "gpu": {"toolkit": "1.17.8"},
        "sources": {
            "apt": {
                name: {"uri": f"{MIRROR}/apt/{name}", "suite": "./", "components": []}
                for name in ("docker", "nvidia", "kubernetes")
            }
        },
    },
    # 1.36's preflight only warns of swap: that init goes on, and leaves half a control plane behind.
    left_out=frozenset(["init with swap on"]),
    until="joined",
)
RELEASES = {release.version: release for release in (OLD, NEW)}
