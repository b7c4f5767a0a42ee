"""The table of drift: what somebody breaks on a real host, which step finds it, and what a SERVICE pass makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from lab.containers.kubernetes import chosen

KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
CONTAINERD = "/etc/containerd/config.toml"
KUBELET = "/var/lib/kubelet/config.yaml"
PLUGIN = "nvidia-device-plugin-daemonset"
LOADED = "containerd runs its current configuration"
VERSION = chosen().version
OTHER = f"{VERSION.rpartition('.')[0]}.99"
PLUGIN_VERSION = chosen().device_plugin.removeprefix("v")
KUBELET_RUNS = "kubelet runs"
APT = "apt knows the kubernetes repository and its key"
SHORT = (
    "kubectl --kubeconfig /etc/kubernetes/kubelet.conf get node w1 "
    "-o jsonpath='{.status.conditions[?(@.type==\"DiskPressure\")].status}' | grep -qx"
)
GPUS = "every expected GPU is allocatable"


@dataclass(frozen=True)
class Row:
    """One thing that is broken: `script` runs as root on `on`; `step` (of `host`) finds it and comes to `end`.

    `also` are steps that may drift with it; `undo` takes back what a pass only reports; `until` is a shell test that
    is waited for before the pass. `why` is what the finding says of the cause. A `long` row takes a minute and more.
    """

    what: str
    script: str
    step: str
    end: str = "repaired"
    on: str = "w1"
    host: str = "w1"
    also: tuple[str, ...] = ()
    undo: str = ""
    until: str = ""
    why: str = ""
    long: bool = False


def _cp(what: str, script: str, step: str, end: str = "repaired", **more: str | bool | tuple[str, ...]) -> Row:
    return Row(what, script, step, end, **{"on": "cp1", "host": "w1", **more})  # type: ignore[arg-type]


PODS = (
    GPUS,
    "the device plugin runs and sees GPUs on every node that it is for",
    f"{PLUGIN} does not crash",
    "free GPUs were proven since their device plugin started",
    "no GPU waits for a proof that cannot be run now",
)
ROWS: tuple[Row, ...] = (
    Row(
        "a swap line is back in /etc/fstab", "echo '/swap.img none swap sw 0 0' >> /etc/fstab", "no swap in /etc/fstab"
    ),
    Row("swap.target is unmasked", "systemctl unmask swap.target", "no unit turns swap on again"),
    Row("a kernel setting is changed live", "sysctl -w net.ipv4.ip_forward=0", "kernel settings are live"),
    Row(
        "a kernel setting is changed in its file only",
        "sed -i 's/ip_forward = 1/ip_forward = 0/' /etc/sysctl.d/k8s.conf",
        "kernel settings last",
    ),
    Row("the kernel modules' file is gone", "rm /etc/modules-load.d/k8s.conf", "kernel modules load at boot"),
    Row("the host name is changed", "hostname other", "the host name is w1"),
    Row("our block in /etc/hosts is edited", "sed -i '/ w2$/d; /\\tw2$/d' /etc/hosts", "/etc/hosts names every host"),
    Row(
        "an apt source is removed",
        "rm /etc/apt/sources.list.d/*kubernetes*",
        APT,
    ),
    Row("an apt key is removed", "rm /etc/apt/keyrings/*kubernetes*", APT),
    Row(
        "a package has another version",
        "cp /var/lib/dpkg/status /root/status; "
        f"sed -i '/^Package: kubectl$/,/^$/s/^Version: {VERSION}/Version: {OTHER}/' /var/lib/dpkg/status",
        f"kubelet, kubeadm and kubectl are {VERSION}",
        "reported",
        undo="cp /root/status /var/lib/dpkg/status",
    ),
    Row("a package's hold is lost", "apt-mark unhold kubelet", "kubelet, kubeadm, kubectl are held"),
    Row(
        "containerd's cgroup driver is edited",
        f"sed -i 's/SystemdCgroup = true/SystemdCgroup = false/' {CONTAINERD}",
        "containerd has the nvidia runtime",
        also=(LOADED,),
    ),
    Row(
        "containerd's sandbox image is edited",
        f"sed -i -E 's/(sandbox_image|sandbox) = .*/\\1 = \"other:1\"/' {CONTAINERD}",
        "containerd has the nvidia runtime",
        also=(LOADED, "kubeadm and containerd agree on the pause image"),
    ),
    Row(
        "containerd imports a file that overrides it",
        'mkdir -p /etc/containerd/conf.d && printf \'version = 2\\n[plugins."io.containerd.grpc.v1.cri"]\\n'
        '  sandbox_image = "other:2"\\n\' > /etc/containerd/conf.d/x.toml && '
        f"sed -i -e '/^imports = /d' -e '1i imports = [\"/etc/containerd/conf.d/*.toml\"]' {CONTAINERD}",
        "containerd has the nvidia runtime",
        "failed",
        also=(LOADED, "kubeadm and containerd agree on the pause image"),
        undo=f"sed -i '/^imports = /d' {CONTAINERD}; rm /etc/containerd/conf.d/x.toml; systemctl restart containerd",
        why="Look into /etc/containerd/conf.d/",
    ),
    Row(
        "the nvidia runtime is lost",
        f"sed -i 's/runtimes[.]nvidia/runtimes.renamed/' {CONTAINERD}",
        "containerd has the nvidia runtime",
        also=(LOADED,),
    ),
    Row("containerd's file is edited and not reloaded", f"echo '# edited' >> {CONTAINERD}", LOADED),
    Row(
        "containerd is stopped",
        "systemctl stop containerd",
        "containerd runs",
        also=(LOADED, "containerd's CRI answers", "the node is Ready", *PODS),
    ),
    Row("containerd is disabled", "systemctl disable containerd", "containerd is enabled"),
    Row(
        "the kubelet is stopped",
        "systemctl stop kubelet",
        KUBELET_RUNS,
        also=("the node is Ready", "the kubelet runs what is declared", *PODS),
    ),
    Row(
        "the kubelet is disabled",
        "systemctl disable kubelet",
        "kubelet is enabled",
        also=(KUBELET_RUNS,),
    ),
    Row(
        "the kubelet's configuration is edited",
        f"sed -i 's/cgroupDriver: systemd/cgroupDriver: cgroupfs/' {KUBELET}",
        "the kubelet's configuration says what is declared",
        also=("kubelet runs its current configuration",),
    ),
    _cp(
        "the RuntimeClass is gone",
        f"{KUBECTL} delete runtimeclass nvidia",
        "RuntimeClass nvidia leads to containerd's handler nvidia",
        host="cluster",
    ),
    _cp(
        "an object of the pod network is edited",
        f"{KUBECTL} -n kube-system patch ds lab-cni --type json -p "
        '\'[{"op":"replace","path":"/spec/template/spec/terminationGracePeriodSeconds","value":2}]\'',
        "the pod network is as lab-cni.yaml declares",
        host="cluster",
        also=PODS,
    ),
    _cp(
        "the device plugin is edited",
        f"{KUBECTL} -n kube-system patch ds {PLUGIN} --type json -p "
        '\'[{"op":"add","path":"/spec/template/spec/containers/0/env","value":[{"name":"X","value":"y"}]}]\'',
        f"the NVIDIA device plugin {PLUGIN_VERSION} is declared for every node with GPUs",
        host="cluster",
        also=PODS,
    ),
    _cp(
        "the device plugin is deleted",
        f"{KUBECTL} -n kube-system delete ds {PLUGIN} --wait=true",
        f"the NVIDIA device plugin {PLUGIN_VERSION} is declared for every node with GPUs",
        host="cluster",
        also=PODS,
    ),
    _cp(
        "the node is NotReady",
        "true",
        "the node is Ready",
        until=f"{KUBECTL} get node w1 --no-headers | grep -q NotReady",
        long=True,
        also=(KUBELET_RUNS, *PODS),
    ),
    _cp(
        "the node is cordoned",
        f"{KUBECTL} cordon w1",
        "the node is not cordoned",
        "reported",
        undo=f"{KUBECTL} uncordon w1",
    ),
    _cp(
        "a label is changed",
        f"{KUBECTL} label node w1 nvidia.com/gpu.present=false --overwrite",
        "node w1 is labelled nvidia.com/gpu.present=true",
        also=PODS,
    ),
    _cp(
        "a taint is added",
        f"{KUBECTL} taint node w1 somebody=here:NoSchedule",
        "the node has no other taints than its role's",
        "reported",
        undo=f"{KUBECTL} taint node w1 somebody-",
    ),
    Row(
        "the kubelet is short of disk",
        f"printf 'evictionHard:\n  imagefs.available: 99%%\n' >> {KUBELET}; systemctl restart kubelet",
        "the kubelet is short of nothing",
        "reported",
        undo=f"sed -i '/^evictionHard:/,+1d' {KUBELET}; systemctl restart kubelet; "
        f"for _ in $(seq 90); do {SHORT} False && break; sleep 1; done",
        until=f"{SHORT} True",
        also=PODS,
    ),
    Row(
        "a GPU fails",
        "sed -i '1s/Healthy/Unhealthy/' /var/lib/labgpu/devices",
        GPUS,
        "reported",
        undo="sed -i '1s/Unhealthy/Healthy/' /var/lib/labgpu/devices; sleep 5",
        until="kubectl --kubeconfig /etc/kubernetes/kubelet.conf get node w1 "
        "-o jsonpath='{.status.allocatable.nvidia\\.com/gpu}' | grep -qx 1",
        also=PODS,
        why="GPU: w1: the plugin reports 1 of 2 GPUs as unhealthy",
    ),
    Row(
        "the device plugin crashes again and again",
        "true",
        f"{PLUGIN} does not crash",
        "reported",
        host="cluster",
        also=PODS,
        until="ps -C nvidia-device-p -o pid= | xargs -r kill -9; sleep 2; kubectl "
        "--kubeconfig /etc/kubernetes/kubelet.conf -n kube-system get pods --field-selector spec.nodeName=w1 | "
        "grep -q CrashLoopBackOff",
        undo="sleep 45",
        long=True,
    ),
    _cp(
        "a node is there that nobody declared",
        f"printf 'apiVersion: v1\\nkind: Node\\nmetadata: {{name: ghost}}\\n' | {KUBECTL} apply -f -",
        "every node is declared",
        "reported",
        host="cluster",
        undo=f"{KUBECTL} delete node ghost",
    ),
    _cp(
        "kubeadm-config says something else",
        f"{KUBECTL} -n kube-system get cm kubeadm-config -o yaml > /root/cm.yaml && "
        f"sed 's/v{VERSION}/v{OTHER}/' /root/cm.yaml | " + f"{KUBECTL} replace -f -",
        "kubeadm-config says what the cluster file says",
        "reported",
        host="cluster",
        undo=f'{KUBECTL} -n kube-system patch cm kubeadm-config --type merge -p "$({KUBECTL} create --dry-run=client '
        '-o json -f /root/cm.yaml | sed \'s/"resourceVersion": "[0-9]*",//\')"',
    ),
    Row(
        "a certificate expires soon",
        "cd /etc/kubernetes/pki && cp -a front-proxy-client.crt /root/ && openssl x509 -req -days 5 -in "
        "<(openssl req -new -key front-proxy-client.key -subj /CN=front-proxy-client) -CA front-proxy-ca.crt "
        "-CAkey front-proxy-ca.key -CAcreateserial -out front-proxy-client.crt",
        "certificates are valid for 30 days and more",
        "reported",
        on="cp1",
        host="cp1",
        undo="cp -a /root/front-proxy-client.crt /etc/kubernetes/pki/",
    ),
)
