"""What hardening adds to kubeadm's configuration: flags and mounts of static pods, and fields of the kubelets.

Sources: kubernetes.io, "Auditing", "Encrypting Confidential Data at Rest", "Enforce Pod Security Standards by
Configuring the Built-in Admission Controller", "Reserve and protect kernel defaults" (KubeletConfiguration v1beta1);
the CIS Kubernetes Benchmark by its numbers, in docs/harden.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shipway.cluster.model import Cluster

APISERVER, MANAGER, SCHEDULER = "kube-apiserver", "kube-controller-manager", "kube-scheduler"
PARTS = (APISERVER, MANAGER, SCHEDULER)
# kubeadm's names of these parts in ClusterConfiguration.
SECTIONS: Mapping[str, str] = {APISERVER: "apiServer", MANAGER: "controllerManager", SCHEDULER: "scheduler"}
FOLDER = "/etc/kubernetes/shipway"  # 0700: the key of encryption at rest lies there
AUDIT_POLICY = f"{FOLDER}/audit-policy.yaml"
ADMISSION = f"{FOLDER}/admission.yaml"
ENCRYPTION = f"{FOLDER}/encryption.yaml"
AUDIT_LOGS = "/var/log/kubernetes/audit"
AUDIT_LOG = f"{AUDIT_LOGS}/audit.log"
# What the kubelet wants of the kernel (k8s.io/kubernetes/pkg/kubelet/cm, setupKernelTunables): with
# protectKernelDefaults it does not start where one differs, without it sets them itself.
KERNEL: Mapping[str, str] = {
    "vm.overcommit_memory": "1",
    "vm.panic_on_oom": "0",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.keys.root_maxkeys": "1000000",
    "kernel.keys.root_maxbytes": "25000000",
}
KERNEL_FILE = "/etc/sysctl.d/90-shipway-kubelet.conf"
# Flags of static pods that hardening owns, by what switches them on. A value of somebody else's there is the site's.
AUDIT_FLAGS = (
    *("audit-policy-file", "audit-log-path", "audit-log-maxage", "audit-log-maxbackup", "audit-log-maxsize"),
)
ADMISSION_FLAG = "admission-control-config-file"
ENCRYPTION_FLAG = "encryption-provider-config"
PROFILING = "profiling"


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host that a static pod sees at the same path."""

    name: str
    path: str
    read_only: bool
    kind: str  # a hostPath's type

    def of_kubeadm(self) -> dict[str, Any]:
        """Return it as kubeadm's HostPathMount."""
        return {
            "name": self.name,
            "hostPath": self.path,
            "mountPath": self.path,
            "readOnly": self.read_only,
            "pathType": self.kind,
        }


CONFIGURED = Mount("shipway-hardening", FOLDER, read_only=True, kind="Directory")
LOGS = Mount("shipway-audit", AUDIT_LOGS, read_only=False, kind="DirectoryOrCreate")
MOUNTS = (CONFIGURED, LOGS)


def flags(cluster: Cluster) -> dict[str, dict[str, str]]:
    """Return by static pod the flags that are declared; none for a part that is left as kubeadm makes it."""
    declared, apiserver = cluster.hardening, dict[str, str]()
    if declared.audit.enabled:
        audit = declared.audit
        values = (AUDIT_POLICY, AUDIT_LOG, audit.max_age_days, audit.max_backups, audit.max_size_mib)
        apiserver |= {name: str(value) for name, value in zip(AUDIT_FLAGS, values, strict=True)}
    if declared.pod_security.enabled:
        apiserver[ADMISSION_FLAG] = ADMISSION
    if declared.encryption_at_rest:
        apiserver[ENCRYPTION_FLAG] = ENCRYPTION
    found = {APISERVER: apiserver}
    if declared.control_plane:
        for part in PARTS:
            found.setdefault(part, {})[PROFILING] = "false"
    return {part: values for part, values in found.items() if values}


def mounts(cluster: Cluster) -> tuple[Mount, ...]:
    """Return what the API server must see of its host."""
    declared = cluster.hardening
    files = declared.audit.enabled or declared.pod_security.enabled or declared.encryption_at_rest
    return (*((CONFIGURED,) if files else ()), *((LOGS,) if declared.audit.enabled else ()))


def kubelet_fields(cluster: Cluster) -> dict[str, Any]:
    """Return the fields of the kubelets' configuration that are declared by hardening."""
    declared = cluster.hardening.kubelet
    if not declared.enabled:
        return {}
    return {
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
        "readOnlyPort": 0,
        "rotateCertificates": True,
        "protectKernelDefaults": declared.protect_kernel_defaults,
        "tlsMinVersion": "VersionTLS12",
        "tlsCipherSuites": list(declared.tls_cipher_suites),
    }


def kernel(cluster: Cluster) -> Mapping[str, str]:
    """Return the kernel settings without which a kubelet would not start."""
    declared = cluster.hardening.kubelet
    return KERNEL if declared.enabled and declared.protect_kernel_defaults else {}


def owned(part: str, name: str, value: str) -> bool:
    """Say whether a flag of a static pod is one that hardening wrote: by its value, for its name may be a site's."""
    if part not in PARTS:
        return False
    if name == PROFILING:
        return value == "false"
    own = {AUDIT_FLAGS[0]: AUDIT_POLICY, AUDIT_FLAGS[1]: AUDIT_LOG, ADMISSION_FLAG: ADMISSION}
    return part == APISERVER and {**own, ENCRYPTION_FLAG: ENCRYPTION}.get(name) == value


def declared(cluster: Cluster) -> bool:
    """Say whether anything of a control plane is declared to be hardened."""
    hardening = cluster.hardening
    return bool(flags(cluster)) or hardening.control_plane
