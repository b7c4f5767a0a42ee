"""The section `hardening` of a cluster file: what is closed beside Kubernetes' defaults; it is all off by default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shipway.cluster.types import CipherSuite, Count, FilePath, Flag, Name, Part

Level = Literal["privileged", "baseline", "restricted"]
# Of TLS 1.2, with forward secrecy and authenticated encryption, under names that every Go from 1.14 on knows. TLS 1.3's
# cannot be chosen in Go. The CIS benchmark's list of 4.2.12 has two with ChaCha20 beside them.
CIPHER_SUITES = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
)


class Audit(Part):
    """The API server's audit log: who asked for what, in files on each control plane's host."""

    enabled: Flag = Field(default=False, description="Write an audit log to /var/log/kubernetes/audit.")
    policy: FilePath | None = Field(
        None, description="A policy of your own (audit.k8s.io/v1, kind Policy); none: Shipway's."
    )
    max_age_days: Annotated[Count, Field(ge=1, le=3650)] = Field(30, description="Days after which a file is removed.")
    max_backups: Annotated[Count, Field(ge=1, le=1000)] = Field(
        10, description="Most files that stay beside the one that is written."
    )
    max_size_mib: Annotated[Count, Field(ge=1, le=10000)] = Field(
        100, description="Size in MiB at which a new file is begun; all of them must fit on the disk."
    )

    @property
    def budget_mib(self) -> int:
        """Most MiB that all files together may take."""
        return (self.max_backups + 1) * self.max_size_mib


class PodSecurity(Part):
    """Pod Security Standards for every namespace that has no labels of its own (Kubernetes 1.23 and later)."""

    enabled: Flag = Field(default=False, description="Give the API server defaults for PodSecurity admission.")
    enforce: Level = Field("baseline", description="Pods that do not meet it are refused.")
    warn: Level = Field("restricted", description="Whoever makes pods that do not meet it is warned.")
    audit: Level = Field("restricted", description="Pods that do not meet it are noted in the audit log.")
    exempt_namespaces: tuple[Name, ...] = Field(
        (),
        description="Namespaces that are left out beside kube-system, the pod network's, the device plugin's and the "
        "one of the GPU proof.",
    )


class KubeletHardening(Part):
    """What the CIS benchmark asks of kubelets; put into their configuration under kubernetes.kubelet."""

    enabled: Flag = Field(
        default=False,
        description="No anonymous requests, no read-only port, certificates renewed, TLS 1.2 with few cipher suites.",
    )
    protect_kernel_defaults: Flag = Field(
        default=True,
        description="The kubelet does not start where the kernel's settings are not those it wants; Shipway sets them.",
    )
    tls_cipher_suites: tuple[CipherSuite, ...] = Field(
        CIPHER_SUITES, min_length=1, description="Cipher suites of TLS 1.2 that the kubelet serves with."
    )


class Hardening(Part):
    """What is closed beside Kubernetes' defaults; a new cluster is born with it, `shipway harden` brings it later."""

    audit: Audit = Field(Audit(), description="The API server's audit log.")
    pod_security: PodSecurity = Field(PodSecurity(), description="Pod Security Standards, cluster-wide.")
    kubelet: KubeletHardening = Field(KubeletHardening(), description="The kubelets' settings.")
    control_plane: Flag = Field(
        default=False, description="No profiling in the control plane's programs, and file modes as CIS asks for."
    )
    encryption_at_rest: Flag = Field(
        default=False, description="Secrets are stored encrypted in etcd, with a key that is made once and never again."
    )
