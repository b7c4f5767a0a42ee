"""kubeadm's own words, by minor version; tools read some of them, and people all of them."""

from __future__ import annotations

from lab.simulated.kubeadm_config import Asked
from lab.simulated.releases import since

_MANIFESTS = '"/etc/kubernetes/manifests"'
_KUBEADM_CONFIG = 'the ConfigMap "kubeadm-config" in the "kube-system" Namespace'
_KUBELET_CHECK = (
    "[kubelet-check] Waiting for a healthy kubelet at http://127.0.0.1:10248/healthz. This can take up to 4m0s\n"
)
_KUBELET_HEALTHY = "[kubelet-check] The kubelet is healthy after 1.001032s\n"
_API_SERVERS = ("the API server kubelet client certificate to access the kubelet API",)
JOINED = (
    "\nThis node has joined the cluster:\n"
    "* Certificate signing request was sent to apiserver and a response was received.\n"
    "* The Kubelet was informed of the new secure connection details.\n\n"
    "Run 'kubectl get nodes' on the control-plane to see this node join the cluster.\n\n"
)


def _kubelet_configuration(minor: int) -> str:
    """Return the lines about the kubelet's configuration, and about what is this host's own in it."""
    whole = '[kubelet-start] Writing kubelet configuration to file "/var/lib/kubelet/config.yaml"\n'
    if not since(minor, "instance_config"):
        return whole
    return (
        '[kubelet-start] Writing kubelet configuration to file "/var/lib/kubelet/instance-config.yaml"\n'
        '[patches] Applied patch of type "application/strategic-merge-patch+json" to target "kubeletconfiguration"\n'
        f"{whole}"
    )


def kubelet_start(minor: int, *, joins: bool) -> str:
    """Return the lines when the kubelet's files are written and it is started; a join writes them in another order."""
    flags = '[kubelet-start] Writing kubelet environment file with flags to file "/var/lib/kubelet/kubeadm-flags.env"\n'
    config = _kubelet_configuration(minor)
    return f"{config + flags if joins else flags + config}[kubelet-start] Starting the kubelet\n"


def reading(minor: int, prefix: str = "preflight") -> str:
    """Return the lines when the cluster's configuration is read."""
    if since(minor, "reading_says_how_to_upload"):
        return (
            f'[{prefix}] Reading configuration from the "kubeadm-config" ConfigMap in namespace "kube-system"...\n'
            f"[{prefix}] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' to re-upload it.\n"
        )
    command = "kubectl -n kube-system get cm kubeadm-config -o yaml"
    return (
        f"[{prefix}] Reading configuration from the cluster...\n"
        f"[{prefix}] FYI: You can look at this config file with '{command}'\n"
    )


def pulling(minor: int) -> str:
    """Return the lines before images are pulled."""
    action = "in beforehand" if minor < 29 else "beforehand"
    return (
        "[preflight] Pulling images required for setting up a Kubernetes cluster\n"
        "[preflight] This might take a minute or two, depending on the speed of your internet connection\n"
        f"[preflight] You can also perform this action {action} using 'kubeadm config images pull'\n"
    )


def certificates(asked: Asked, *, existing: bool) -> str:
    """Return the lines about certificates after the CA's."""
    how = "Using existing {0} certificate and key on disk\n" if existing else 'Generating "{0}" certificate and key\n'

    def made(name: str) -> str:
        return "[certs] " + how.format(name)

    cluster = "kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local"
    names = " ".join(sorted([asked.node_name, *cluster.split()]))
    first = ".".join([*asked.service_network.split("/")[0].split(".")[:3], "1"])
    server = f"[certs] apiserver serving cert is signed for DNS names [{names}] and IPs [{first} {asked.address}]\n"
    local = f"DNS names [{asked.node_name} localhost] and IPs [{asked.address} 127.0.0.1 ::1]\n"
    return (
        made("apiserver")
        + ("" if existing else server)
        + made("apiserver-kubelet-client")
        + made("front-proxy-ca")
        + made("front-proxy-client")
        + made("etcd/ca")
        + made("etcd/server")
        + ("" if existing else f"[certs] etcd/server serving cert is signed for {local}")
        + made("etcd/peer")
        + ("" if existing else f"[certs] etcd/peer serving cert is signed for {local}")
        + made("etcd/healthcheck-client")
        + made("apiserver-etcd-client")
        + ('[certs] Using the existing "sa" key\n' if existing else '[certs] Generating "sa" key and public key\n')
    )


def etcd() -> str:
    """Return the line about etcd's static pod."""
    return f"[etcd] Creating static Pod manifest for local etcd in {_MANIFESTS}\n"


def waiting(minor: int) -> str:
    """Return the line before the wait for the control plane."""
    start = f"[wait-control-plane] Waiting for the kubelet to boot up the control plane as static Pods from directory {_MANIFESTS}"
    if not since(minor, "kubelet_is_waited_for"):
        return f"{start}. This can take up to 4m0s\n"
    return f"{start}\n{_KUBELET_CHECK}"


def healthy(minor: int, address: str, port: int) -> str:
    """Return the lines when the control plane answers; `address` is what the API server advertises."""
    if not since(minor, "kubelet_is_waited_for"):
        return "[apiclient] All control plane components are healthy after 8.000000 seconds\n"
    if not since(minor, "components_are_waited_for"):
        return (
            f"{_KUBELET_HEALTHY}"
            "[api-check] Waiting for a healthy API server. This can take up to 4m0s\n"
            "[api-check] The API server is healthy after 8.001032s\n"
        )
    parts = {
        "kube-apiserver": f"{address}:{port}/livez",
        "kube-controller-manager": "127.0.0.1:10257/healthz",
        "kube-scheduler": "127.0.0.1:10259/livez",
    }
    start = "[control-plane-check]"
    return (
        f"{_KUBELET_HEALTHY}"
        f"{start} Waiting for healthy control plane components. This can take up to 4m0s\n"
        + "".join(f"{start} Checking {part} at https://{where}\n" for part, where in parts.items())
        + "".join(f"{start} {part} is healthy after 1.501719118s\n" for part in reversed(parts))
    )


def timed_out(minor: int) -> str:
    """Return the long explanation of a control plane that does not come."""
    socket = "/run/containerd/containerd.sock" if minor < 24 else "unix:///run/containerd/containerd.sock"
    return (
        "[kubelet-check] Initial timeout of 40s passed.\n\n"
        "\tUnfortunately, an error has occurred:\n\t\ttimed out waiting for the condition\n\n"
        "\tThis error is likely caused by:\n\t\t- The kubelet is not running\n"
        "\t\t- The kubelet is unhealthy due to a misconfiguration of the node in some way (required cgroups disabled)\n\n"
        "\tIf you are on a systemd-powered system, you can try to troubleshoot the error with the following commands:\n"
        "\t\t- 'systemctl status kubelet'\n\t\t- 'journalctl -xeu kubelet'\n\n"
        "\tAdditionally, a control plane component may have crashed or exited when started by the container runtime.\n"
        "\tTo troubleshoot, list all containers using your preferred container runtimes CLI.\n\n"
        "\tHere is one example how you may list all Kubernetes containers running in cri-o/containerd using crictl:\n"
        f"\t\t- 'crictl --runtime-endpoint {socket} ps -a | grep kube | grep -v pause'\n"
        "\t\tOnce you have found the failing container, you can inspect its logs with:\n"
        f"\t\t- 'crictl --runtime-endpoint {socket} logs CONTAINERID'\n\n"
    )


def could_not(minor: int) -> str:
    """Return the error of the phase that waits."""
    what = "couldn't initialize a Kubernetes cluster" if minor < 30 else "could not initialize a Kubernetes cluster"
    return f"error execution phase wait-control-plane: {what}"


def _marking(asked: Asked) -> str:
    node, start = (
        asked.node_name,
        f"[mark-control-plane] Marking the node {asked.node_name} as control-plane by adding the",
    )
    role = "node-role.kubernetes.io"
    if asked.minor < 21:
        labels = f"labels \"{role}/master=''\" and \"{role}/control-plane='' (deprecated)\""
    else:
        labels = f"labels: [{role}/control-plane node.kubernetes.io/exclude-from-external-load-balancers]"
    taint = "master" if asked.minor < 24 else "control-plane"
    return f"{start} {labels}\n[mark-control-plane] Marking the node {node} as control-plane by adding the taints [{role}/{taint}:NoSchedule]\n"


def finished(asked: Asked, token: str, ca_hash: str, *, shown: bool) -> str:
    """Return everything from the healthy control plane to the join commands."""
    config = "kubelet-config" if since(asked.minor, "kubelet_config_unnumbered") else f"kubelet-config-1.{asked.minor}"
    said = token if shown else "<value withheld>"
    endpoint = asked.endpoint or f"{asked.address}:{asked.port}"
    rbac = "".join(
        f"[bootstrap-token] {'configured' if asked.minor < 22 else 'Configured'} RBAC rules to allow {what}\n"
        for what in (
            "Node Bootstrap tokens to get nodes",
            "Node Bootstrap tokens to post CSRs in order for nodes to get long term certificate credentials",
            "the csrapprover controller automatically approve CSRs from a Node Bootstrap Token",
            "certificate rotation for all node client certificates in the cluster",
            *_API_SERVERS[: since(asked.minor, "kubelet_access_by_api_server")],
        )
    )
    tab = "\t" if since(asked.minor, "join_command_with_tabs") else "    "
    command = f"kubeadm join {endpoint} --token {said} \\\n{tab}--discovery-token-ca-cert-hash {ca_hash} "
    control = (
        "You can now join any number of control-plane nodes by copying certificate authorities\n"
        "and service account keys on each node and then running the following as root:\n\n"
        f"  {command}\\\n{tab}--control-plane \n\n"
        if asked.endpoint
        else ""
    )
    return (
        '[upload-config] Storing the configuration used in ConfigMap "kubeadm-config" in the "kube-system" Namespace\n'
        f'[kubelet] Creating a ConfigMap "{config}" in namespace kube-system with the configuration for the kubelets in the cluster\n'
        "[upload-certs] Skipping phase. Please see --upload-certs\n"
        f"{_marking(asked)}"
        f"{f'[bootstrap-token] Using token: {token}' + chr(10) if shown else ''}"
        "[bootstrap-token] Configuring bootstrap tokens, cluster-info ConfigMap, RBAC Roles\n"
        f"{rbac}"
        '[bootstrap-token] Creating the "cluster-info" ConfigMap in the "kube-public" namespace\n'
        '[kubelet-finalize] Updating "/etc/kubernetes/kubelet.conf" to point to a rotatable kubelet client certificate and key\n'
        "[addons] Applied essential addon: CoreDNS\n[addons] Applied essential addon: kube-proxy\n\n"
        "Your Kubernetes control-plane has initialized successfully!\n\n"
        "To start using your cluster, you need to run the following as a regular user:\n\n"
        "  mkdir -p $HOME/.kube\n  sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config\n"
        "  sudo chown $(id -u):$(id -g) $HOME/.kube/config\n\n"
        "Alternatively, if you are the root user, you can run:\n\n  export KUBECONFIG=/etc/kubernetes/admin.conf\n\n"
        "You should now deploy a pod network to the cluster.\n"
        'Run "kubectl apply -f [podnetwork].yaml" with one of the options listed at:\n'
        "  https://kubernetes.io/docs/concepts/cluster-administration/addons/\n\n"
        f"{control}"
        "Then you can join any number of worker nodes by running the following on each as root:\n\n"
        f"{command}\n"
    )


def bootstrapping(minor: int) -> str:
    """Return the lines while a joining kubelet gets its credentials."""
    last = "[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap"
    if not since(minor, "kubelet_is_waited_for"):
        return f"{last}...\n"
    return f"{_KUBELET_CHECK}{_KUBELET_HEALTHY}{last}\n"


def reset(minor: int, *, control_plane: bool, etcd_known: bool, kubelet: bool, removed: str = "") -> str:
    """Return what reset says; `removed` is the node that the cluster still knew and forgets."""
    folders = ["/var/lib/dockershim", "/var/run/kubernetes", "/var/lib/cni"]
    if kubelet:
        folders.insert(0, "/var/lib/kubelet")
    if etcd_known:
        folders.insert(0, "/var/lib/etcd")
    names = ("admin", "kubelet", "bootstrap-kubelet", "controller-manager", "scheduler")
    if since(minor, "reset_says_little"):
        return _short_reset(minor, control_plane=control_plane, etcd=etcd_known, kubelet=kubelet, removed=removed)
    external = (
        "[reset] No etcd config found. Assuming external etcd\n"
        "[reset] Please, manually reset etcd to prevent further issues\n"
    )
    return (
        (reading(minor, "reset") if control_plane else "")
        + "[preflight] Running pre-flight checks\n"
        + (f'[reset] Removing info for node "{removed}" from {_KUBEADM_CONFIG}\n' if removed else "")
        + ("" if etcd_known else external)
        + "[reset] Stopping the kubelet service\n"
        '[reset] Unmounting mounted directories in "/var/lib/kubelet"\n'
        "[reset] Deleting contents of config directories: [/etc/kubernetes/manifests /etc/kubernetes/pki]\n"
        f"[reset] Deleting files: [{' '.join(f'/etc/kubernetes/{name}.conf' for name in names)}]\n"
        f"[reset] Deleting contents of stateful directories: [{' '.join(folders)}]\n\n"
        "The reset process does not clean CNI configuration. To do so, you must remove /etc/cni/net.d\n\n"
        "The reset process does not reset or clean up iptables rules or IPVS tables.\n"
        'If you wish to reset iptables, you must do so manually by using the "iptables" command.\n\n'
        "If your cluster was setup to utilize IPVS, run ipvsadm --clear (or similar)\n"
        "to reset your system's IPVS tables.\n\n"
        "The reset process does not clean your kubeconfig files and you must remove them manually.\n"
        "Please, check the contents of the $HOME/.kube/config file.\n"
    )


def _short_reset(minor: int, *, control_plane: bool, etcd: bool, kubelet: bool, removed: str) -> str:
    """Return what reset says since it points to a page for what it leaves; `etcd` is whether it deleted etcd's data."""
    folders = ["/etc/kubernetes/manifests", *["/var/lib/kubelet"][:kubelet], "/etc/kubernetes/pki"]
    names = ("admin", "super-admin", "kubelet", "bootstrap-kubelet", "controller-manager", "scheduler")
    return (
        (reading(minor, "reset") if control_plane else "")
        + "[preflight] Running pre-flight checks\n"
        + (f'[reset] Removing info for node "{removed}" from {_KUBEADM_CONFIG}\n' if removed else "")
        + ("[reset] Deleted contents of the etcd data directory: /var/lib/etcd\n" if etcd else "")
        + "[reset] Stopping the kubelet service\n"
        + ('[reset] Unmounting mounted directories in "/var/lib/kubelet"\n' if kubelet else "")
        + f"[reset] Deleting contents of directories: [{' '.join(folders)}]\n"
        f"[reset] Deleting files: [{' '.join(f'/etc/kubernetes/{name}.conf' for name in names)}]\n\n"
        "The reset process does not perform cleanup of CNI plugin configuration,\n"
        "network filtering rules and kubeconfig files.\n\n"
        "For information on how to perform this cleanup manually, please see:\n"
        "    https://k8s.io/docs/reference/setup-tools/kubeadm/kubeadm-reset/\n\n"
    )
