"""Known failures of the pod network and of objects in the cluster: Calico, CoreDNS, addresses, admission."""

from __future__ import annotations

from shipway.known_failures.entry import Known

ENTRIES: tuple[Known, ...] = (
    Known(
        "SHW-491",
        "an object is too large for client-side apply",
        r"metadata\.annotations: Too long",
        "Client-side apply keeps a copy of the object in an annotation, and Calico's CRDs are larger than that may be.",
        "By hand use `kubectl apply --server-side --force-conflicts -f FILE`, as the steps here do.",
        retryable=False,
        traps=(41,),
    ),
    Known(
        "SHW-492",
        "Calico's kinds are not known yet",
        r"no matches for kind \"[^\"]+\" in version \"(?:operator\.tigera\.io|projectcalico\.org|"
        r"crd\.projectcalico\.org)/",
        "The CRDs are not established yet; Calico 3.30 and later has them in a file of their own.",
        "`kubectl wait --for condition=established crd/installations.operator.tigera.io`, then run again.",
        retryable=True,
        traps=(42,),
    ),
    Known(
        "SHW-493",
        "no pod network is left for a node",
        r"CIDRNotAvailable|there are no remaining CIDRs left to allocate",
        "The pod network divided by the node mask holds fewer nodes than the cluster has.",
        "The network of a running cluster cannot be changed: build it anew with a larger `kubernetes.node_mask`.",
        retryable=False,
        traps=(35,),
    ),
    Known(
        "SHW-494",
        "Calico's nodes do not see each other",
        r"BIRD is not ready|BGP not established with",
        "TCP 179 (BGP) or the wrapped packets (IPIP, UDP 4789 for VXLAN) are blocked, or the wrong interface "
        "was taken.",
        "Open TCP 179 and UDP 4789 between the nodes; see `kubectl -n calico-system logs ds/calico-node | "
        "grep -i bird`.",
        retryable=False,
        traps=(43, 44),
    ),
    Known(
        "SHW-495",
        "a RuntimeClass does not exist",
        r"RuntimeClass \"[^\"]+\" not found",
        "A pod names a RuntimeClass that nobody has made: admission refuses the pod.",
        "`kubectl get runtimeclass`; with `gpu.mode: runtime_class` a run of the bootstrap makes it.",
        retryable=False,
        traps=(48,),
    ),
    Known(
        "SHW-496",
        "CoreDNS asks itself",
        r"plugin/loop: Loop \([^)]*\) detected for zone",
        "The kubelet gives pods the local stub resolver 127.0.0.53, so CoreDNS forwards to itself.",
        "Set `kubernetes.kubelet.resolvConf: /run/systemd/resolve/resolv.conf`, then restart the kubelet and CoreDNS.",
        retryable=False,
        traps=(14,),
    ),
    Known(
        "SHW-497",
        "kube-proxy may not set the connection table's size",
        r"nf_conntrack_max: permission denied",
        "The host is a container: the machine's connection table is not its own.",
        "Set `kubernetes.kube_proxy: {conntrack: {maxPerCore: 0}}` in the cluster file.",
        retryable=False,
    ),
    Known(
        "SHW-498",
        "no node has a GPU left",
        r"\d+ Insufficient nvidia\.com/gpu",
        "Every GPU is in use, or nodes do not offer the GPUs they have.",
        "`kubectl get nodes -o custom-columns=NAME:.metadata.name,GPU:.status.allocatable.'nvidia\\.com/gpu'`.",
        retryable=False,
        traps=(47,),
    ),
)
