"""The whole story in order: bare hosts, prepared hosts, failed inits, init, joins, pod network, cards, the end."""

from __future__ import annotations

from tests.conformance.actions import (
    FETCH,
    GPU_PODS,
    NETWORK,
    PLUGIN,
    PREPARE,
    READY,
    WRITE_CONFIG,
    command,
    swap,
    wait_for,
)
from tests.conformance.case import API, Case, Scene, case

_SHOW = ("-p", "Id,LoadState,ActiveState,SubState,UnitFileState,ActiveEnterTimestamp,NeedDaemonReload,Result")
_QUERY = ("-f", "${Package}|${db:Status-Abbrev}|${Version}\\n")
_UNIT = ("systemd-run", "--quiet", "--collect", "--wait", "--unit=conformance")

BARE: Scene = (
    case("stat of nothing", "w1", "stat -c %a|%U:%G|%F|%n -- /nosuch /etc/hosts"),
    case("stat of the cgroup root", "w1", "stat -fc %T /nosuch"),
    case("sha256sum of nothing and a folder", "w1", "sha256sum -- /nosuch /etc"),
    case("cat of nothing", "w1", "cat -- /nosuch"),
    case("cat of a folder", "w1", "cat -- /etc"),
    case("ls of nothing", "w1", "ls -1A -- /nosuch"),
    case("grep of nothing", "w1", "grep -rlF -- needle /nosuch"),
    case("find of nothing", "w1", "find -L /nosuch -mindepth 2 -name vendor"),
    case(
        "find cards by vendor",
        "w1",
        "find -L /sys/bus/pci/devices -mindepth 2 -maxdepth 2 -name vendor -exec grep -l 0x10de {} +",
        reduce="sorted",
    ),  # noqa: E501 - one command
    case("a program that is not there, under timeout", "w1", "timeout -k 5 20 nosuchprogram --flag"),
    case("a program that is not there, under env", "w1", "env TZ=UTC nosuchprogram"),
    case("a command out of time", "w1", "timeout -k 1 1 sleep 5"),
    case("mv of nothing", "w1", "mv -fT /nosuch /tmp/target"),
    case("rm of nothing", "w1", "rm -- /nosuch"),
    case("rm -f of nothing", "w1", "rm -f -- /nosuch"),
    case("install into a new folder", "w1", "install -D -m 600 /dev/null /tmp/conformance/file"),
    case("its state", "w1", "stat -c %a|%U:%G|%F|%n -- /tmp/conformance /tmp/conformance/file"),
    case("install of nothing", "w1", "install -m 600 /nosuch /tmp/conformance/other"),
    case("chown to nobody known", "w1", "chown nosuchuser /tmp/conformance/file"),
    case("dd into a missing folder", "w1", "dd of=/nosuch/file status=none"),
    case("mkdir of what is there", "w1", "mkdir /tmp/conformance"),
    case("cp of nothing", "w1", "cp -p -- /nosuch /tmp/conformance/x"),
    case("rmdir of a full folder", "w1", "rmdir /tmp/conformance"),
    case("systemctl show of no unit", "w1", "env TZ=UTC systemctl show", *_SHOW, "--", "nosuch.service"),
    case("systemctl is-active of no unit", "w1", "systemctl is-active nosuch"),
    case("systemctl is-enabled of no unit", "w1", "systemctl is-enabled nosuch"),
    case("systemctl start of no unit", "w1", "systemctl start nosuch"),
    case("systemctl restart of no unit", "w1", "systemctl restart nosuch"),
    case("systemctl enable of no unit", "w1", "systemctl enable nosuch"),
    case("systemctl mask", "w1", "systemctl mask -- conformance.swap"),
    case("systemctl show of a masked unit", "w1", "env TZ=UTC systemctl show", *_SHOW, "--", "conformance.swap"),
    case("systemctl unmask", "w1", "systemctl unmask -- conformance.swap"),
    Case("systemd-run of a failing command", "w1", (*_UNIT, "--", "sh", "-c", "exit 7")),
    Case("systemd-run of a good command", "w1", (*_UNIT, "--", "true")),
    Case("systemd-run out of time", "w1", (*_UNIT, "-p", "RuntimeMaxSec=1", "--", "sleep", "5")),
    command("w1", "systemd-run", "--quiet", "--unit=conformance-holder", "--", "sleep", "20"),
    case("systemd-run of a taken name", "w1", "systemd-run --quiet --wait --unit=conformance-holder -- true"),
    command("w1", "systemctl", "stop", "conformance-holder"),
    case("dpkg-query of nothing", "w1", "dpkg-query -W", *_QUERY, "--", "nosuchpackage"),
    case("dpkg audit", "w1", "dpkg --audit"),
    case("apt-cache of nothing", "w1", "apt-cache madison nosuchpackage"),
    case("apt-get install of nothing", "w1", "apt-get -y -q install nosuchpackage"),
    case("apt-mark hold of nothing", "w1", "apt-mark hold nosuchpackage"),
    case("sysctl of an unknown key", "w1", "sysctl net.nosuch.key"),
    case("sysctl of an unknown key, passed over", "w1", "sysctl -e -- net.nosuch.key"),
    case("sysctl set and told", "w1", "sysctl -w net.ipv4.ip_forward=1"),
    case("sysctl set quietly", "w1", "sysctl -q -w net.ipv4.ip_forward=0"),
    case("sysctl of a value", "w1", "sysctl -e -- net.ipv4.ip_forward"),
    case("swapoff twice", "w1", "swapoff -a"),
    case("modprobe of nothing", "w1", "modprobe -- nosuchmodule", reduce="no-output"),
    case("cards of a worker", "w1", "nvidia-smi -L"),
    case("cards where there are none", "cp1", "timeout -k 5 20 nvidia-smi -L"),
    case("process 1", "w1", "cat /proc/1/comm"),
    case(
        "apt-helper of a refused address",
        "w1",
        "/usr/lib/apt/apt-helper download-file http://127.0.0.1:9/key /tmp/key",
        reduce="errors",
    ),  # noqa: E501 - one command
    case("gpg of no key", "w1", "base64 -w0 /nosuch"),
)

PREPARED: Scene = (
    PREPARE,
    case("packages of Kubernetes", "w1", "dpkg-query -W", *_QUERY, "--", "kubelet", "kubeadm", "kubectl"),
    case("hold of what is held", "w1", "apt-mark hold kubelet"),
    case("unhold", "w1", "apt-mark unhold kubelet"),
    case("unhold of what is not held", "w1", "apt-mark unhold kubelet"),
    case("hold", "w1", "apt-mark hold kubelet"),
    case(
        "install of what is there",
        "w1",
        "apt-get -y -q install --no-install-recommends kubelet=1.20.2-00",
        reduce="actions",
    ),  # noqa: E501 - one command
    case("install of a version that is not offered", "w1", "apt-get -y -q install kubelet=9.9.9", reduce="errors"),
    case("offers", "w1", "apt-cache madison nosuchpackage kubernetes-cni", reduce="no-output"),
    case("kubeadm's version", "w1", "kubeadm version -o short"),
    case(
        "kubeadm's images",
        "w1",
        "kubeadm config images list --kubernetes-version=v1.20.2 --image-repository=k8s.gcr.io",
    ),
    case("the kubelet before kubeadm", "w1", "systemctl is-enabled kubelet"),
    case("containerd's unit", "w1", "env TZ=UTC systemctl show", *_SHOW, "--", "containerd.service"),
    case("containerd is active", "w1", "systemctl is-active containerd"),
    case("containerd's default configuration", "w1", "containerd config default", reduce="cri"),
    case("containerd's effective configuration", "w1", "containerd config dump", reduce="cri"),
    case("containerd's CRI plugin", "w1", "ctr --connect-timeout 5s plugins ls", reduce="cri-plugin"),
    case("the toolkit's version", "w1", "nvidia-ctk --version", reduce="first-line"),
    case("the kubelet's files", "w1", "ls -1A -- /etc/kubernetes"),
    case("swap units", "w1", "systemctl list-units --type=swap --all --plain --no-legend --no-pager"),
    case("enabling what is enabled", "w1", "systemctl enable containerd"),
    case("stopping and starting", "w1", "systemctl restart containerd"),
    case("disabling", "w1", "systemctl disable containerd"),
    case("enabling again", "w1", "systemctl enable containerd"),
)

REFUSED: Scene = (
    WRITE_CONFIG,
    command("cp1", "systemctl", "stop", "containerd"),
    case("init with containerd stopped", "cp1", "kubeadm init --config /root/kubeadm.yaml"),
    case("ctr with containerd stopped", "cp1", "ctr --connect-timeout 1s plugins ls", reduce="no-output"),
    command("cp1", "systemctl", "start", "containerd"),
    command("cp1", "sysctl", "-q", "-w", "net.ipv4.ip_forward=0"),
    case("init with ip_forward off", "cp1", "kubeadm init --config /root/kubeadm.yaml"),
    command("cp1", "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"),
    swap("cp1", on=True),
    case("init with swap on", "cp1", "kubeadm init --config /root/kubeadm.yaml"),
    swap("cp1", on=False),
    case("init without its images", "cp1", "kubeadm init --config /root/kubeadm-nosuch.yaml"),
    case("init without its file", "cp1", "kubeadm init --config /root/nosuch.yaml"),
    case("a token without a cluster", "cp1", "kubeadm token create --kubeconfig /etc/kubernetes/admin.conf"),
    case("reset of a bare host", "w1", "kubeadm reset -f"),
)

INITIALISED: Scene = (
    case("init", "cp1", "kubeadm init --config /root/kubeadm.yaml --skip-token-print", seconds=400),
    FETCH,
    case("init twice", "cp1", "kubeadm init --config /root/kubeadm.yaml"),
    case("the kubelet is active", "cp1", "systemctl is-active kubelet"),
    case("kubeadm's folder", "cp1", "ls -1A -- /etc/kubernetes /etc/kubernetes/manifests"),
    case("kubeadm's certificates", "cp1", "ls -1A -- /etc/kubernetes/pki /etc/kubernetes/pki/etcd"),
    case(
        "modes of what kubeadm wrote",
        "cp1",
        "stat -c %a|%U:%G|%F|%n /etc/kubernetes/admin.conf /etc/kubernetes/pki/ca.key /etc/kubernetes/pki/ca.crt /etc/kubernetes/manifests/etcd.yaml /var/lib/etcd/member",
    ),  # noqa: E501 - one command
    case("the kubelet's environment", "cp1", "cat /var/lib/kubelet/kubeadm-flags.env"),
    case("health of the API", "cp1", "curl -sk --max-time 8 https://127.0.0.1:6443/readyz"),
    case(
        "an API that is not there", "w1", "curl -sk --max-time 4 -o /dev/null -w %{http_code} https://{w2}:6443/livez"
    ),
    case(
        "token create",
        "cp1",
        "kubeadm token create --kubeconfig /etc/kubernetes/admin.conf --ttl 10m --description lab",
    ),
    case("token delete of nothing", "cp1", "kubeadm token delete --kubeconfig /etc/kubernetes/admin.conf zzzzzz"),
    case("nodes after init", API, "kubectl get nodes -o wide", reduce="nodes"),
    case("why not ready", API, "kubectl get node cp1 -o", 'jsonpath={.status.conditions[?(@.type=="Ready")].message}'),
    case(
        "taints of the control plane",
        API,
        "kubectl get node cp1 -o",
        "jsonpath={.spec.taints[*].key}",
        reduce="no-output",
    ),
    case("waiting in vain", API, "kubectl wait --for=condition=Ready node/cp1 --timeout=1s"),
    case("a node that is not there", API, "kubectl get node nosuch"),
    case("a kind that is not there", API, "kubectl get nosuchkind"),
)

JOINED: Scene = (
    case(
        "join with a wrong CA hash",
        "w1",
        "kubeadm join {cp1}:6443 --token {token} --discovery-token-ca-cert-hash",
        "sha256:" + "0" * 64,
        seconds=120,
    ),  # noqa: E501 - one command
    case(
        "join with a wrong token",
        "w1",
        "kubeadm join {cp1}:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {hash}",
        seconds=420,
        slow=True,
    ),  # noqa: E501 - one command
    case(
        "join of an API that is not there",
        "w2",
        "kubeadm join {w1}:6443 --token {token} --discovery-token-ca-cert-hash {hash}",
        seconds=420,
        slow=True,
    ),  # noqa: E501 - one command
    case("join", "w1", "kubeadm join {cp1}:6443 --token {token} --discovery-token-ca-cert-hash {hash}", seconds=300),
    case("join twice", "w1", "kubeadm join {cp1}:6443 --token {token} --discovery-token-ca-cert-hash {hash}"),
    case("the worker's folder", "w1", "ls -1A -- /etc/kubernetes /etc/kubernetes/pki"),
    NETWORK,
    wait_for(r"w1 +Ready", "nodes"),
    case(
        "join under a name that is taken",
        "w2",
        "kubeadm join {cp1}:6443 --node-name w1 --token {token} --discovery-token-ca-cert-hash {hash}",
    ),  # noqa: E501 - one command
    command("w2", "kubeadm", "reset", "-f"),
    command("w2", "kubeadm", "join", "{cp1}:6443", "--token", "{token}", "--discovery-token-ca-cert-hash", "{hash}"),
    READY,
    case("nodes when ready", API, "kubectl get nodes -o wide", reduce="nodes"),
    case("pods when ready", API, "kubectl get pods -A -o wide", reduce="pods"),
    case("a second apply", API, "kubectl get daemonset -n kube-system kube-proxy", reduce="table"),
)

CARDS: Scene = (
    PLUGIN,
    GPU_PODS,
    case(
        "capacity of cards",
        API,
        "kubectl get nodes -o",
        "custom-columns=NAME:.metadata.name,GPU:.status.allocatable.nvidia\\.com/gpu",
        reduce="table",
    ),  # noqa: E501 - one command
    case("describe of a node", API, "kubectl describe node w1", reduce="capacity"),
    case("a deployment on cards", API, "kubectl apply -f {gpu_file}"),
    wait_for(r"(?s)(Running.*){4}", "pods", "-l", "app=gpu"),
    case("four pods on four cards", API, "kubectl get pods -l app=gpu -o wide", reduce="pods-placed"),
    case("one more", API, "kubectl scale deployment gpu --replicas=5"),
    wait_for(r"Pending", "pods", "-l", "app=gpu"),
    wait_for(r"FailedScheduling", "events"),
    case("the fifth pod", API, "kubectl get pods -l app=gpu --field-selector status.phase=Pending", reduce="pods"),
    case("why it is pending", API, "kubectl get events --field-selector reason=FailedScheduling", reduce="events"),
    case("a runtime class whose handler is missing", API, "kubectl apply -f {rc}"),
    wait_for(r"FailedCreatePodSandBox", "events"),
    case("its event", API, "kubectl get events --field-selector reason=FailedCreatePodSandBox", reduce="events"),
    case("its pod", API, "kubectl get pod rc-missing", reduce="table"),
    case("a runtime class that is not there", API, "kubectl apply -f {nosuch}"),
    case("apply again", API, "kubectl apply -f {gpu_file}"),
    command("w1", "kubeadm", "token", "list"),
)

ENDED: Scene = (
    case("deleting the pods", API, "kubectl delete deployment gpu"),
    case("deleting the pod", API, "kubectl delete pod rc-missing --grace-period=0 --force"),
    case(
        "drain",
        API,
        "kubectl drain w2 --ignore-daemonsets --delete-emptydir-data --force --timeout=60s",
        reduce="sorted",
    ),
    case("delete node", API, "kubectl delete node w2"),
    case("reset of a worker", "w2", "kubeadm reset -f"),
    case("what reset leaves", "w2", "ls -1A -- /etc/kubernetes /etc/kubernetes/pki"),
    case("the kubelet after reset", "w2", "systemctl is-active kubelet", reduce="no-output"),
    case("reset of the control plane", "cp1", "kubeadm reset -f"),
    case("etcd's data after reset", "cp1", "ls -1A -- /var/lib/etcd /etc/kubernetes/manifests"),
)

SCENES: dict[str, Scene] = {
    "bare": BARE,
    "prepared": PREPARED,
    "refused": REFUSED,
    "initialised": INITIALISED,
    "joined": JOINED,
    "cards": CARDS,
    "ended": ENDED,
}
