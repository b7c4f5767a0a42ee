"""The scenes with a cluster: init, joins, the pod network, GPUs, and the end of it all."""

from __future__ import annotations

from tests.conformance.actions import (
    CONTROL_PLANE_LISTENS,
    FETCH,
    GPU_PODS,
    KUBELET_LISTENS,
    NETWORK,
    PLUGIN,
    READY,
    command,
    wait_for,
)
from tests.conformance.case import API, Scene, case

INITIALISED: Scene = (
    case("init", "cp1", "kubeadm init --config /root/kubeadm.yaml --skip-token-print", seconds=400),
    FETCH,
    KUBELET_LISTENS,
    case("init twice", "cp1", "kubeadm init --config /root/kubeadm.yaml"),
    case("the kubelet is active", "cp1", "systemctl is-active kubelet"),
    case("kubeadm's folder", "cp1", "ls -1A -- /etc/kubernetes /etc/kubernetes/manifests"),
    case("kubeadm's certificates", "cp1", "ls -1A -- /etc/kubernetes/pki /etc/kubernetes/pki/etcd"),
    case(
        "modes of what kubeadm wrote",
        "cp1",
        "stat -c %a|%U:%G|%F|%n",
        *("/etc/kubernetes/admin.conf", "/etc/kubernetes/pki/ca.key", "/etc/kubernetes/pki/ca.crt"),
        *("/etc/kubernetes/manifests/etcd.yaml", "/var/lib/etcd/member"),
    ),
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
    case(
        "why not ready",
        API,
        "kubectl get node cp1 -o",
        'jsonpath={.status.conditions[?(@.type=="Ready")].message}',
        reduce="network",
    ),
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
    CONTROL_PLANE_LISTENS,
    case("ports of a control plane", "cp1", "ss -Hltnp", reduce="ports"),
)

JOINED: Scene = (
    case(
        "join with a wrong CA hash",
        "w1",
        "kubeadm join {cp1}:6443 --token {token} --discovery-token-ca-cert-hash",
        "sha256:" + "0" * 64,
        "{ignored}",
        seconds=120,
    ),
    case(
        "join with a wrong token",
        "w1",
        "kubeadm join {cp1}:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {hash} {ignored}",
        seconds=420,
        slow=True,
    ),
    case(
        "join of an API that is not there",
        "w2",
        "kubeadm join {w1}:6443 --token {token} --discovery-token-ca-cert-hash {hash} {ignored}",
        seconds=420,
        slow=True,
    ),
    case(
        "join",
        "w1",
        "kubeadm join {cp1}:6443 --token {token} --discovery-token-ca-cert-hash {hash} {ignored}",
        seconds=300,
    ),
    case("join twice", "w1", "kubeadm join {cp1}:6443 --token {token} --discovery-token-ca-cert-hash {hash} {ignored}"),
    case("the worker's folder", "w1", "ls -1A -- /etc/kubernetes /etc/kubernetes/pki"),
    NETWORK,
    wait_for(r"w1 +Ready", "nodes"),
    case(
        "join under a name that is taken",
        "w2",
        "kubeadm join {cp1}:6443 --node-name w1 --token {token} --discovery-token-ca-cert-hash {hash} {ignored}",
    ),
    command("w2", "kubeadm", "reset", "-f"),
    command(
        "w2",
        "kubeadm",
        "join",
        "{cp1}:6443",
        "--token",
        "{token}",
        "--discovery-token-ca-cert-hash",
        "{hash}",
        "{ignored}",
    ),
    READY,
    case("nodes when ready", API, "kubectl get nodes -o wide", reduce="nodes"),
    case("pods when ready", API, "kubectl get pods -A -o wide", reduce="pods"),
    case("a second apply", API, "kubectl get daemonset -n kube-system kube-proxy", reduce="table"),
)

GPUS: Scene = (
    PLUGIN,
    GPU_PODS,
    case(
        "capacity of gpus",
        API,
        "kubectl get nodes -o",
        "custom-columns=NAME:.metadata.name,GPU:.status.allocatable.nvidia\\.com/gpu",
        reduce="table",
    ),
    case("describe of a node", API, "kubectl describe node w1", reduce="capacity"),
    case("a deployment on gpus", API, "kubectl apply -f {gpu_file}"),
    wait_for(r"(?s)(Running.*){4}", "pods", "-l", "app=gpu"),
    case("four pods on four gpus", API, "kubectl get pods -l app=gpu -o wide", reduce="pods-placed"),
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
    case("deleting the pod", API, "kubectl delete pod rc-missing --grace-period=0 --force", reduce="no-output"),
    case(
        "drain",
        API,
        "kubectl drain w2 --ignore-daemonsets --delete-emptydir-data --force --timeout=60s",
        reduce="no-output",
    ),
    case("delete node", API, "kubectl delete node w2"),
    case("reset of a worker", "w2", "kubeadm reset -f"),
    case("what reset leaves", "w2", "ls -1A -- /etc/kubernetes /etc/kubernetes/pki"),
    case("the kubelet after reset", "w2", "systemctl is-active kubelet", reduce="no-output"),
    case("reset of the control plane", "cp1", "kubeadm reset -f"),
    case("etcd's data after reset", "cp1", "ls -1A -- /var/lib/etcd /etc/kubernetes/manifests"),
)
