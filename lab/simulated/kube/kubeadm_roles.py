"""The roles and bindings of a fresh cluster that somebody may run into."""

from __future__ import annotations

from .kubeadm_objects import head, kubelet_config_name
from .objects import Obj
from .world import ClusterConfig

RBAC = "rbac.authorization.k8s.io"
_NODE_TOKENS = "system:bootstrappers:kubeadm:default-node-token"
_READ = ["get", "list", "watch"]
_WORK = ["", "apps", "batch"]
_OF_NODES = ["nodes", "pods", "services", "endpoints", "configmaps"]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Obj:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


_CLUSTER_ROLES: dict[str, list[Obj]] = {
    "cluster-admin": [_rule(["*"], ["*"], ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}],
    "admin": [_rule(_WORK, ["*"], ["*"])],
    "edit": [_rule(_WORK, ["*"], ["*"])],
    "view": [_rule(_WORK, ["*"], _READ)],
    "system:node": [_rule([""], _OF_NODES, _READ)],
    "system:node-bootstrapper": [
        _rule(["certificates.k8s.io"], ["certificatesigningrequests"], ["create", *_READ]),
    ],
    "kubeadm:get-nodes": [_rule([""], ["nodes"], ["get"])],
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": [
        _rule(["certificates.k8s.io"], ["certificatesigningrequests/nodeclient"], ["create"])
    ],
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": [
        _rule(["certificates.k8s.io"], ["certificatesigningrequests/selfnodeclient"], ["create"])
    ],
    "system:node-proxier": [_rule([""], ["endpoints", "services", "nodes"], ["list", "watch"])],
    "system:coredns": [
        _rule([""], ["endpoints", "services", "pods", "namespaces"], ["list", "watch"]),
        _rule(["discovery.k8s.io"], ["endpointslices"], ["list", "watch"]),
    ],
}
_CLUSTER_BINDINGS = (
    ("cluster-admin", "cluster-admin", "system:masters"),
    ("system:node", "system:node", "system:nodes"),
    ("kubeadm:get-nodes", "kubeadm:get-nodes", _NODE_TOKENS),
    ("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", _NODE_TOKENS),
    (
        "kubeadm:node-autoapprove-bootstrap",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        _NODE_TOKENS,
    ),
    (
        "kubeadm:node-autoapprove-certificate-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "system:nodes",
    ),
)


def _role(name: str, rules: list[Obj], namespace: str = "") -> Obj:
    return {**head(f"{RBAC}/v1", "Role" if namespace else "ClusterRole", name, namespace), "rules": rules}


def _bind(name: str, role: str, subject: str, *, kind: str = "Group", namespace: str = "") -> Obj:
    beginning = head(f"{RBAC}/v1", "RoleBinding" if namespace else "ClusterRoleBinding", name, namespace)
    reference = {"apiGroup": RBAC, "kind": "Role" if namespace else "ClusterRole", "name": role}
    return {**beginning, "roleRef": reference, "subjects": [{"kind": kind, "name": subject, "apiGroup": RBAC}]}


def _readable(name: str, config_map: str, subject: str, *, kind: str = "Group", namespace: str) -> list[Obj]:
    """Return the role and binding by which somebody may read one ConfigMap."""
    rule = {**_rule([""], ["configmaps"], ["get"]), "resourceNames": [config_map]}
    return [_role(name, [rule], namespace), _bind(name, name, subject, kind=kind, namespace=namespace)]


def roles(config: ClusterConfig) -> list[Obj]:
    """Return the roles and bindings that `kubeadm init` and the server itself make."""
    found = [_role(name, rules) for name, rules in _CLUSTER_ROLES.items()]
    found += [_bind(name, role, group) for name, role, group in _CLUSTER_BINDINGS]
    signer = "kubeadm:bootstrap-signer-clusterinfo"
    found += _readable(signer, "cluster-info", "system:anonymous", kind="User", namespace="kube-public")
    kubelet = kubelet_config_name(config.minor)
    for name in ("kubeadm-config", kubelet):
        role = "kubeadm:nodes-kubeadm-config" if name == "kubeadm-config" else f"kubeadm:{name}"
        of_role, binding = _readable(role, name, _NODE_TOKENS, namespace="kube-system")
        nodes = {"kind": "Group", "name": "system:nodes", "apiGroup": RBAC}
        found += [of_role, {**binding, "subjects": [*binding["subjects"], nodes]}]
    found += _readable("kube-proxy", "kube-proxy", _NODE_TOKENS, namespace="kube-system")
    for name, role in (("kube-proxy", "kubeadm:node-proxier"), ("coredns", "system:coredns")):
        account = {"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}
        reference = "system:node-proxier" if name == "kube-proxy" else role
        found.append({**_bind(role, reference, name), "subjects": [account]})
    if config.minor >= 29:  # since then admin.conf is no longer in system:masters
        found.append(_bind("kubeadm:cluster-admins", "cluster-admin", "kubeadm:cluster-admins"))
    return found
