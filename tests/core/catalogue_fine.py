"""Texts of success that no entry of the catalogue may know."""

from __future__ import annotations

# What programs say when all is well, warnings included.
FINE_TEXTS: tuple[str, ...] = (
    # A kubelet on a host that lacks CAP_SYS_RESOURCE, every few minutes; pods run there all the same.
    (
        "E1129 container_manager_linux.go:487] failed to ensure process in container with oom score: failed to "
        "apply oom score -999 to PID 2316: write /proc/2316/oom_score_adj: permission denied"
    ),
    (
        "[init] Using Kubernetes version: v1.20.2\n[preflight] Running pre-flight checks\n"
        "\t[WARNING SystemVerification]: cgroups v1 support is in maintenance mode, please migrate to cgroups v2\n"
        "[preflight] Pulling images required for setting up a Kubernetes cluster\n"
        '[certs] Generating "ca" certificate and key\n[kubelet-start] Starting the kubelet\n'
        "[wait-control-plane] Waiting for the kubelet to boot up the control plane as static Pods from directory "
        '"/etc/kubernetes/manifests". This can take up to 4m0s\n'
        "[apiclient] All control plane components are healthy after 24.502 seconds\n"
        "Your Kubernetes control-plane has initialized successfully!\n"
        "Then you can join any number of worker nodes by running the following on each as root:\n"
        "kubeadm join 192.0.2.11:6443 --token [hidden] \\\n    --discovery-token-ca-cert-hash sha256:8455\n"
    ),
    (
        "W1123 your configuration file uses a deprecated API spec: kubeadm.k8s.io/v1beta3. Please use 'kubeadm config "
        "migrate --old-config old.yaml --new-config new.yaml'\n"
    ),
    (
        '[preflight] Running pre-flight checks\n\t[WARNING Hostname]: hostname "w1" could not be reached\n'
        "[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap...\nThis node has joined the cluster:\n"
        "* Certificate signing request was sent to apiserver and a response was received.\n"
    ),
    (
        "[reset] Stopping the kubelet service\n[reset] Deleting contents of config directories: "
        "[/etc/kubernetes/manifests /etc/kubernetes/pki]\nW1123 [reset] Unable to fetch the "
        "kubeadm-config ConfigMap from "
        'cluster: Get "https://192.0.2.11:6443": dial tcp 192.0.2.11:6443: connect: connection refused\n'
    ),
    (
        "E1123 kubelet.go:2188] Container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
        "message:Network plugin returns error: cni plugin not initialized\n"
    ),
    (
        "Reading package lists...\nBuilding dependency tree...\nThe following NEW packages will be "
        "installed:\n  kubeadm\n"
        "debconf: delaying package configuration, since apt-utils is not installed\nSetting up kubelet "
        "(1.31.7-1.1) ...\n"
    ),
    "kubelet set on hold.\nkubeadm was already set on hold.\n",
    "NAME   STATUS     ROLES    AGE   VERSION\ncp1    NotReady   master   10s   v1.20.2\n",
    "* Applying /etc/sysctl.d/k8s.conf ...\nnet.bridge.bridge-nf-call-iptables = 1\nnet.ipv4.ip_forward = 1\n",
    "GPU 0: NVIDIA A10 (UUID: GPU-2f1c9f0e-0000-0000-0000-000000000000)\n",
    "Created symlink /etc/systemd/system/multi-user.target.wants/kubelet.service\n",
    "I1123 nvidia-device-plugin: Registered device plugin for 'nvidia.com/gpu' with Kubelet\n",
)
