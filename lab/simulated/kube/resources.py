"""The resources that the API serves, as a table, and the registry that custom resources join."""

from __future__ import annotations

import re
from dataclasses import dataclass

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """One resource of one group and version."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    categories: tuple[str, ...] = ()
    singular: str = ""
    custom: bool = False

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


_SCALED = ("status", "scale")
_REVIEW = ("create",)
_RBAC = "rbac.authorization.k8s.io"
_AUTHZ = "authorization.k8s.io"
_BUILT_IN = (
    # group, version, plural, kind, namespaced, short names, subresources
    ("", "v1", "namespaces", "Namespace", False, ("ns",), ("status", "finalize")),
    ("", "v1", "nodes", "Node", False, ("no",), ("proxy", "status")),
    ("", "v1", "persistentvolumes", "PersistentVolume", False, ("pv",), ("status",)),
    ("", "v1", "bindings", "Binding", True, (), ()),
    ("", "v1", "configmaps", "ConfigMap", True, ("cm",), ()),
    ("", "v1", "endpoints", "Endpoints", True, ("ep",), ()),
    ("", "v1", "events", "Event", True, ("ev",), ()),
    ("", "v1", "limitranges", "LimitRange", True, ("limits",), ()),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",), ("status",)),
    ("", "v1", "pods", "Pod", True, ("po",), ("status", "log", "eviction", "binding", "exec")),
    ("", "v1", "replicationcontrollers", "ReplicationController", True, ("rc",), _SCALED),
    ("", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), ("status",)),
    ("", "v1", "secrets", "Secret", True, (), ()),
    ("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",), ("token",)),
    ("", "v1", "services", "Service", True, ("svc",), ("status",)),
    (
        "admissionregistration.k8s.io",
        "v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        False,
        (),
        (),
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        False,
        (),
        (),
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        ("crd", "crds"),
        ("status",),
    ),
    ("apiregistration.k8s.io", "v1", "apiservices", "APIService", False, (), ("status",)),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", True, (), ()),
    ("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), ("status",)),
    ("apps", "v1", "deployments", "Deployment", True, ("deploy",), _SCALED),
    ("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), _SCALED),
    ("apps", "v1", "statefulsets", "StatefulSet", True, ("sts",), _SCALED),
    ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False, (), ()),
    (_AUTHZ, "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, (), ()),
    ("batch", "v1", "jobs", "Job", True, (), ("status",)),
    ("batch", "v1", "cronjobs", "CronJob", True, ("cj",), ("status",)),
    ("coordination.k8s.io", "v1", "leases", "Lease", True, (), ()),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True, (), ()),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",), ()),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", True, ("ing",), ("status",)),
    ("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", False, (), ()),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), ("status",)),
    (_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False, (), ()),
    (_RBAC, "v1", "clusterroles", "ClusterRole", False, (), ()),
    (_RBAC, "v1", "rolebindings", "RoleBinding", True, (), ()),
    (_RBAC, "v1", "roles", "Role", True, (), ()),
    ("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",), ()),
    ("storage.k8s.io", "v1", "csidrivers", "CSIDriver", False, (), ()),
    ("storage.k8s.io", "v1", "csinodes", "CSINode", False, (), ()),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", False, ("sc",), ()),
    ("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", False, (), ("status",)),
    ("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, ("hpa",), ("status",)),
    (
        "certificates.k8s.io",
        "v1",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        False,
        ("csr",),
        ("status", "approval"),
    ),
    ("events.k8s.io", "v1", "events", "Event", True, ("ev",), ()),
)
_FLOW = "flowcontrol.apiserver.k8s.io"
_DRA = "resource.k8s.io"
# First minor version of Kubernetes that serves them by default (its API's deprecation guide and changelogs).
_LATER = (
    (23, ("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, ("hpa",), ("status",))),
    (29, (_FLOW, "v1", "flowschemas", "FlowSchema", False, (), ("status",))),
    (29, (_FLOW, "v1", "prioritylevelconfigurations", "PriorityLevelConfiguration", False, (), ("status",))),
    (34, (_DRA, "v1", "deviceclasses", "DeviceClass", False, (), ())),
    (34, (_DRA, "v1", "resourceclaims", "ResourceClaim", True, (), ("status",))),
    (34, (_DRA, "v1", "resourceclaimtemplates", "ResourceClaimTemplate", True, (), ())),
    (34, (_DRA, "v1", "resourceslices", "ResourceSlice", False, (), ())),
)
_CREATE_ONLY = {"bindings", "tokenreviews", "selfsubjectaccessreviews"}
_IN_ALL = {"pods", "services", "daemonsets", "deployments", "replicasets", "statefulsets", "jobs", "cronjobs"}


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
        later = [resource for first, resource in _LATER if first <= minor]
        for group, version, plural, kind, namespaced, short, subresources in (*_BUILT_IN, *later):
            verbs = _REVIEW if plural in _CREATE_ONLY else ALL_VERBS
            categories = ("all",) if plural in _IN_ALL else ()
            self.add(Resource(group, version, plural, kind, namespaced, short, subresources, verbs, categories))

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
