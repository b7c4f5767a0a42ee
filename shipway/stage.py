"""The stages of a run, by name; what each does is in `tasks/table.py`, or in `tasks/VERB/table.py` for a verb's own."""

from __future__ import annotations

from enum import StrEnum


class StageName(StrEnum):
    """One stage, as it is called in task runs, reports and findings: a new stage is named here first."""

    PREFLIGHT = "preflight"
    PREPARE_SYSTEM = "prepare_system"
    CONTAINER_RUNTIME = "container_runtime"
    NVIDIA_RUNTIME = "nvidia_runtime"
    KUBERNETES_PACKAGES = "kubernetes_packages"
    CONTROL_PLANE = "control_plane"
    CONTROL_PLANE_READY = "control_plane_ready"
    JOIN_CONTROL_PLANE = "join_control_plane"
    JOIN_WORKER = "join_worker"
    NODE_SETTINGS = "node_settings"
    POD_NETWORK = "pod_network"
    DEVICE_PLUGIN = "device_plugin"
    DASHBOARD = "dashboard"
    ADDONS = "addons"
    GPU_ISOLATION = "gpu_isolation"
    NODES_READY = "nodes_ready"
    GPUS_ALLOCATABLE = "gpus_allocatable"
    GPU_PROOF = "gpu_proof"
    BACKUP_POSSIBLE = "backup_possible"
    BACKUP_FILES = "backup_files"
    TAKE_BACKUP = "take_backup"
    KEEP_BACKUP = "keep_backup"
    RESTORE_POSSIBLE = "restore_possible"
    RESTORE_LOSES = "restore_loses"
    RESTORE_BRING = "restore_bring"
    RESTORE_STOP = "restore_stop"
    RESTORE_BACKUP = "restore_backup"
    RESTORE_UNDO = "restore_undo"
    RESTORE_ASIDE = "restore_aside"
    FORGET_NODES = "forget_nodes"
    RESTART_KUBELET = "restart_kubelet"
    START_WATCHERS = "start_watchers"
    # A drift pass looks at the parts of those above, and at two that no bootstrap has.
    HEALTH = "health"
    KUBEADM = "kubeadm"
    LOOK = "look"
    LOOK_AT_CLUSTER = "look_at_cluster"
    REPAIR = "repair"
    REPAIR_DRAINED = "repair_drained"
    REPAIR_CLUSTER = "repair_cluster"
    # A host that is taken out.
    MAY_REMOVE = "may_remove"
    MAY_RESET = "may_reset"
    MAY_RESET_ALL = "may_reset_all"
    LEAVE_API = "leave_api"
    DRAIN_NODE = "drain_node"
    STOP_KUBELET = "stop_kubelet"
    LEAVE_ETCD = "leave_etcd"
    DELETE_NODE = "delete_node"
    RESET_HOST = "reset_host"
    # Certificates: a look at all of them, then what renews them, and what the kubelets ask for.
    CERTIFICATES = "certificates"
    RENEW_CERTIFICATES = "renew_certificates"
    KUBELET_CERTIFICATES = "kubelet_certificates"
    SERVING_REQUESTS = "serving_requests"
    # An endpoint that is moved from an address to a name, in this order.
    ENDPOINT_LOOK = "endpoint_look"
    ENDPOINT_POSSIBLE = "endpoint_possible"
    ENDPOINT_CERTIFICATE = "endpoint_certificate"
    ENDPOINT_WAY = "endpoint_way"
    ENDPOINT_RECORD = "endpoint_record"
    ENDPOINT_KUBECONFIGS = "endpoint_kubeconfigs"
    ENDPOINT_KUBE_PROXY = "endpoint_kube_proxy"
    ENDPOINT_PROOF = "endpoint_proof"
    # Hardening of a running cluster, in this order.
    MAY_HARDEN = "may_harden"
    HARDEN_FILES = "harden_files"
    HARDEN_CONTROL_PLANE = "harden_control_plane"
    HARDEN_RECORD = "harden_record"
    SEAL_SECRETS = "seal_secrets"
    HARDEN_HOST = "harden_host"
    # An upgrade: what each host runs, what forbids it, then what changes something.
    UPGRADE_LOOK = "upgrade_look"
    UPGRADE_POSSIBLE = "upgrade_possible"
    UPGRADE_FETCH = "upgrade_fetch"
    UPGRADE_CONTROL_PLANE = "upgrade_control_plane"
    UPGRADE_ADDONS = "upgrade_addons"
    UPGRADE_WORKER = "upgrade_worker"
    # Maintenance of the hosts' systems.
    MAINTAIN_LOOK = "maintain_look"
    MAINTAIN_POSSIBLE = "maintain_possible"
    MAINTAIN_FETCH = "maintain_fetch"
    MAINTAIN_CONTROL_PLANE = "maintain_control_plane"
    MAINTAIN_WORKER = "maintain_worker"


# By which a host becomes part of a cluster: a bootstrap's work, and never a repair's.
JOINED_BY = (StageName.CONTROL_PLANE, StageName.JOIN_CONTROL_PLANE, StageName.JOIN_WORKER)
