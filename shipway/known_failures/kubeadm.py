"""Known failures of kubeadm and the kubelet: preflight, init, join, certificates, versions."""

from __future__ import annotations

from shipway.known_failures.entry import Known

ENTRIES: tuple[Known, ...] = (
    Known(
        "SHW-471",
        "the control plane was already initialised",
        r"\[ERROR FileAvailable--etc-kubernetes-manifests-",
        "kubeadm init has run on this host before, whole or in part.",
        "See whose it is: `sudo kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes`, what runs: `sudo ctr -n "
        "k8s.io tasks ls`. A control plane that runs belongs into the file as it is (`roles: [control_plane]`).",
        retryable=False,
        traps=(34,),
    ),
    Known(
        "SHW-472",
        "the host is already part of a cluster",
        r"\[ERROR FileAvailable--etc-kubernetes-(?:kubelet\.conf|bootstrap-kubelet\.conf|pki-ca\.crt)\]",
        "The host has joined a cluster before: this one, or another.",
        "Look whose: `sudo grep server: /etc/kubernetes/kubelet.conf`, and what runs: `sudo ctr -n k8s.io tasks ls`. "
        "To take it out of that cluster, drain it and delete its node there first.",
        retryable=False,
        traps=(34, 40),
    ),
    Known(
        "SHW-473",
        "etcd data is there from before",
        r"\[ERROR DirAvailable--var-lib-etcd\]",
        "/var/lib/etcd holds the data of an earlier cluster, and is never deleted unasked.",
        "If nobody needs it: `sudo mv /var/lib/etcd /var/lib/etcd.old` on the host, then run again.",
        retryable=False,
        traps=(34,),
    ),
    Known(
        "SHW-474",
        "a port is in use",
        r"\[ERROR Port-\d+\]: Port \d+ is in use",
        "Another program listens on a port that Kubernetes needs.",
        "On the host: `sudo ss -ltnp | grep ':PORT '` names it; stop it, or choose another `kubernetes.api_port`.",
        retryable=False,
        traps=(34,),
    ),
    Known(
        "SHW-475",
        "swap is on",
        r"running with swap on is not supported|\[ERROR Swap\]",
        "The host swaps, and the kubelet does not start so; a unit or the initial RAM disk may have turned "
        "it on again.",
        "On the host: `cat /proc/swaps; systemctl list-units --type swap`; run again: the step turns it off for good.",
        retryable=False,
        traps=(9,),
    ),
    Known(
        "SHW-476",
        "a kernel value is not set",
        r"\[ERROR FileContent--proc-sys-net-",
        "IP forwarding or bridge filtering is off: set by nobody, or turned off again by another program.",
        "On the host: `sudo sysctl --system | grep -E 'ip_forward|bridge-nf'`; find who sets it, then run again.",
        retryable=False,
        traps=(10,),
    ),
    Known(
        "SHW-448",
        "a program that kubeadm needs is missing",
        r"\[ERROR FileExisting-(?P<program>[a-z0-9][a-z0-9-]*)\]",
        "kubeadm asks for PROGRAM, and it is not installed on this host.",
        "On the host: `apt-get install PROGRAM` (crictl comes with `cri-tools`, tc and ip with `iproute2`, mount with "
        "`mount`); name its package in `system.packages` of the cluster file, then run again.",
        retryable=False,
    ),
    Known(
        "SHW-477",
        "the host is too small for Kubernetes",
        r"\[ERROR (?:NumCPU|Mem)\]",
        "A control plane needs two CPUs and 1700 MB of memory.",
        "Give the host more, or make another one the control plane in the cluster file.",
        retryable=False,
    ),
    Known(
        "SHW-478",
        "the join token is not known",
        r"could not find a JWS signature in the cluster-info ConfigMap|token id \"?\w+\"? is invalid for this cluster",
        "The token is gone (deleted, or expired), or was never made; or the clocks of the two hosts disagree.",
        "Each try makes a token of its own: run again. If it stays, compare `date -u` on both hosts, and see the "
        "log of kube-controller-manager, which signs tokens.",
        retryable=True,
        traps=(15, 37),
    ),
    Known(
        "SHW-479",
        "the cluster's CA is another one",
        r"none of the public keys \"sha256:[^\n]* are pinned|cluster CA found in cluster-info ConfigMap is invalid",
        "The API that answers belongs to another cluster than the one that is built.",
        "Check `kubernetes.api_endpoint` in the cluster file: it must lead to this cluster's control plane.",
        retryable=False,
        traps=(37,),
    ),
    Known(
        "SHW-480",
        "a node of this name exists",
        r"a Node with name \"[^\"]+\" and status \"[^\"]+\" already exists in the cluster",
        "Another host is in the cluster under this name: two hosts with one host name, or an old node left behind.",
        "To let this machine take the other's place: `shipway replace FILE NAME` (with --dead where that one is "
        "gone for good); else give the hosts different names.",
        retryable=False,
        traps=(12,),
    ),
    Known(
        "SHW-481",
        "the API server cannot be reached by the joining host",
        r"error execution phase (?:preflight: |kubelet-start: [^\n]*/api/v1)[^\n]*(?:no route to host|"
        r"connection refused|i/o timeout|Client\.Timeout|deadline exceeded|connection timed out|: EOF)|"
        r"(?m:^timed out waiting for the condition$)",  # all that `kubeadm token create` says
        "Nothing answers at the API's address from this host: a firewall, another network, or an API that is down.",
        "On the host: `curl -k https://ENDPOINT/healthz`; open TCP 6443 to the control plane (ufw: `sudo ufw allow "
        "6443/tcp`).",
        retryable=True,
        lost="api",
        traps=(43, 44),
    ),
    Known(
        "SHW-482",
        "the kubelet refuses cgroup v1",
        r"kubelet is configured to not run on a host using cgroup v1|\[ERROR SystemVerification\]: cgroups? v1",
        "The host runs cgroup v1, which Kubernetes 1.35 and later refuse.",
        "Start the host with `systemd.unified_cgroup_hierarchy=1`, or set `kubernetes.allow_cgroup_v1: true`.",
        retryable=False,
        traps=(16,),
    ),
    Known(
        "SHW-483",
        "kubeadm does not know this configuration's version",
        r"your configuration file uses an old API spec|no kind \"(?:Init|Cluster|"
        r"Join)Configuration\" is registered for",
        "The kubeadm on the host is of another minor than `kubernetes.version`.",
        "On the host: `kubeadm version -o short`; install the declared version, then run again.",
        retryable=False,
        traps=(39,),
    ),
    Known(
        "SHW-484",
        "a flag no longer exists",
        r"unknown flag: --[a-z-]+|unrecognized feature gate",
        "A flag or feature gate was removed in this minor and still stands in a file of the host.",
        "On the host: `cat /var/lib/kubelet/kubeadm-flags.env /etc/default/kubelet`; take the named one out.",
        retryable=False,
        traps=(39,),
    ),
    Known(
        "SHW-485",
        "kubeadm cannot make a control plane of this version",
        r"this version of kubeadm only supports deploying clusters with the control plane version|"
        r"KubeletVersion\]: the kubelet version is higher than the control plane version",
        "kubeadm or the kubelet and `kubernetes.version` are of different minors.",
        "On the host: `apt-cache policy kubeadm kubelet`; install the declared version, then run again.",
        retryable=False,
        traps=(39,),
    ),
    Known(
        "SHW-486",
        "a kubelet may not register under its name",
        r"is not allowed to modify node|nodes \"[^\"]+\" is forbidden: node \"[^\"]+\" is not allowed",
        "The kubelet's certificate is for another node name than the one it uses: the host name was changed.",
        "Set the host's name back (`sudo hostnamectl set-hostname NAME`) and restart the kubelet.",
        retryable=False,
        traps=(12,),
    ),
    Known(
        "SHW-487",
        "an image of the control plane cannot be pulled",
        r"\[ERROR ImagePull\]",
        "kubeadm could not pull one of the control plane's images.",
        "On the host: `kubeadm config images pull`; where registry.k8s.io is out of reach set "
        "`kubernetes.image_repository` or `sources.registry_mirrors`.",
        retryable=True,
        traps=(8, 19),
    ),
    Known(
        "SHW-488",
        "etcd is too slow",
        r"etcdserver: (?:request timed out|leader changed|no leader)",
        "etcd lost its leader or waits for the disk.",
        "On the control plane: `iostat -x 1 3`; etcd wants a disk that syncs within 10 ms. Then run again.",
        retryable=True,
    ),
    Known(
        "SHW-794",
        "kubeadm gave an upgrade up for what it waited for",
        r"static Pod hash for component \S+ on Node \S+ did not change after|"
        r"Job \S+ in the namespace \S+ did not complete in",
        "A part of the control plane was not started from its new manifest in time (kubeadm has put the old one back), "
        "or the Job did not end by which kubeadm sees that pods run.",
        "On the host: `systemctl status kubelet`, `journalctl -u kubelet -n 50`, `ctr -n k8s.io tasks ls`; mend what "
        "they name, then run the upgrade again: it goes on there.",
        retryable=True,
    ),
)
VAGUE: tuple[Known, ...] = (
    Known(
        "SHW-400",
        "the control plane did not come up",
        r"error execution phase wait-control-plane",
        "kubeadm waited for the control plane in vain: the kubelet or one of the static pods did not come up.",
        "On the host: `journalctl -u kubelet -n 50; ctr -n k8s.io tasks ls`; what each container said last is in "
        "`/var/log/pods`.",
        retryable=False,
        traps=(38,),
    ),
)
