"""Texts that each entry of the catalogue must know."""

from __future__ import annotations

import re
from pathlib import Path

PREFLIGHT = "error execution phase preflight: [preflight] Some fatal errors occurred:\n\t"
IDENTITY = "error execution phase preflight: couldn't validate the identity of the API Server: "
# code -> texts, one line or more each; the wording is that of the programs.
_TEXTS: dict[str, tuple[str, ...]] = {
    "SHW-327": ("5 to remove and 5 not upgraded.\nE: Packages need to be removed but remove is disabled.",),
    "SHW-401": (
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)",
        "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
        "E: Could not get lock /var/lib/apt/lists/lock - open (11: Resource temporarily unavailable)",
        "E: Could not get lock /var/cache/apt/archives/lock. It is held by process 238 (apt-get)",
        "dpkg: error: dpkg frontend lock was locked by another process with pid 812",
    ),
    "SHW-402": ("E: dpkg was interrupted, you must manually run 'sudo dpkg --configure -a' to correct the problem.",),
    "SHW-403": ("E: Held packages were changed and -y was used without --allow-change-held-packages.",),
    "SHW-404": (
        (
            "W: GPG error: https://pkgs.k8s.io/core:/stable:/v1.31/deb InRelease: The following "
            "signatures were invalid: "
            "EXPKEYSIG 234654DA9A296436 isv:kubernetes OBS Project <isv:kubernetes@build.opensuse.org>"
        ),
    ),
    "SHW-405": (
        "The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 7EA0A9C3",
        "E: The repository 'http://mirror.example.com/k8s ./ Release' is not signed.",
    ),
    "SHW-406": (
        "E: The repository 'https://apt.kubernetes.io kubernetes-xenial Release' does not have a Release file.",
    ),
    "SHW-407": (
        "E: Failed to fetch https://pkgs.k8s.io/core:/stable:/v1.31/deb/InRelease  403  Forbidden [IP: 192.0.2.7 443]",
        "unexpected status from HEAD request to https://registry.k8s.io/v2/pause/manifests/3.10: 403 Forbidden",
        (
            "E: Failed to fetch http://192.0.2.5/apt/debian/./InRelease  403  Forbidden [IP: 192.0.2.5 80]\n"
            "E: The repository 'http://192.0.2.5/apt/debian ./ InRelease' is not signed."
        ),
    ),
    "SHW-408": (
        "E: Version '1.31.7*' for 'kubelet' was not found",
        "E: Unable to locate package containerd.io",
        "E: Package 'kubeadm' has no installation candidate",
    ),
    "SHW-409": (
        "The following packages have unmet dependencies:\n containerd.io : Conflicts: runc",
        "E: Unable to correct problems, you have held broken packages.",
    ),
    "SHW-410": ("E: Failed to fetch http://mirror.example.com/Packages.gz  Hash Sum mismatch",),
    "SHW-411": (
        "W: Failed to fetch http://deb.debian.org/dists/InRelease  Temporary failure resolving 'deb.debian.org'",
        "curl: (6) Could not resolve host: download.docker.com",
    ),
    "SHW-412": (
        "E: Failed to fetch http://mirror.example.com/InRelease  Could not connect to mirror.example.com:80",
        "Could not connect to mirror.example.com:80 (192.0.2.9). - connect (111: Connection refused)",
        "curl: (28) Connection timed out after 10001 milliseconds",
        (
            "Could not connect to 192.0.2.5:80 (192.0.2.5). - connect (111: Connection refused)\n"
            "E: The repository 'http://192.0.2.5/apt/debian ./ InRelease' is not signed."
        ),
    ),
    "SHW-422": (
        (
            "E: Failed to fetch http://192.0.2.5/apt/debian/./InRelease  503  Service Unavailable [IP: 192.0.2.5 80]\n"
            "E: The repository 'http://192.0.2.5/apt/debian ./ InRelease' is not signed."
        ),
        "E: Failed to fetch http://192.0.2.5/Release.key  502  Bad Gateway [IP: 192.0.2.5 80]\nE: Download Failed",
        "unexpected status from HEAD request to http://192.0.2.5:5000/v2/pause/manifests/3.2: 503 Service Unavailable",
        "curl: (22) The requested URL returned error: 503",
    ),
    "SHW-413": (
        "dpkg: error: failed to write status database record: No space left on device",
        "E: You don't have enough free space in /var/cache/apt/archives/.",
        "failed to pull image: write /var/lib/containerd/content/ingest: no space left on device",
    ),
    "SHW-414": ("E: Repository 'http://m ./ InRelease' changed its 'Origin' value from 'lab' to 'other'",),
    "SHW-415": (
        "sudo: a password is required",
        "sudo: a terminal is required to read the password; either use the -S option or configure an askpass helper",
        "sudo: sorry, you must have a tty to run sudo",
        "ops is not in the sudoers file.  This incident will be reported.",
    ),
    "SHW-416": ("mkdir: cannot create directory '/etc/kubernetes': Read-only file system",),
    "SHW-417": ("swapoff: /swap.img: swapoff failed: Cannot allocate memory",),
    "SHW-418": ("dpkg: error processing package openssh-server: end of file on stdin at conffile prompt",),
    "SHW-419": (
        "sysctl: cannot stat /proc/sys/net/bridge/bridge-nf-call-iptables: No such file or directory",
        "[ERROR FileContent]: /proc/sys/net/bridge/bridge-nf-call-iptables does not exist",
    ),
    "SHW-420": ("modprobe: FATAL: Module br_netfilter not found in directory /lib/modules/6.8.0-45-generic",),
    "SHW-421": ('level=fatal msg="failed to create FS watcher: too many open files"',),
    "SHW-431": (
        "rpc error: code = Unimplemented desc = unknown service runtime.v1.RuntimeService",
        "rpc error: code = Unimplemented desc = unknown service runtime.v1alpha2.ImageService",
    ),
    "SHW-432": (
        "containerd: failed to load TOML: /etc/containerd/config.toml: (12, 3): unexpected token",
        "invalid plugin config: `mirrors` cannot be set when `config_path` is provided",
        "containerd: expected containerd config version equal to or less than `3`, got `4`",
    ),
    "SHW-433": (
        PREFLIGHT + '[ERROR CRI]: container runtime is not running: output: time="2026" level=fatal msg="connect: '
        "connect endpoint 'unix:///run/containerd/containerd.sock': context deadline exceeded\"",
        'error while dialing: dial unix /run/containerd/containerd.sock: connect: no such file or directory"',
    ),
    "SHW-434": ('failed to get sandbox runtime: no runtime for "nvidia" is configured',),
    "SHW-435": (
        "containerd: invalid plugin config: no corresponding runtime configured in `containerd.runtimes`",
        'no corresponding runtime configured in `containerd.runtimes` for default_runtime_name = "runc"',
    ),
    "SHW-436": (
        'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/kubepods/pod1" instead',
        'misconfiguration: kubelet cgroup driver: "cgroupfs" is different from docker cgroup driver: "systemd"',
    ),
    "SHW-437": (
        "runc create failed: unable to start container process: can't get final child's PID from pipe: EOF",
        "OCI runtime create failed: write /proc/self/oom_score_adj: permission denied: unknown",
    ),
    "SHW-438": ("failed to copy: httpReadSeeker: toomanyrequests: You have reached your pull rate limit",),
    "SHW-439": (
        'failed to get sandbox image "registry.k8s.io/pause:3.10": failed to pull image "registry.k8s.io/pause:3.10"',
        'failed to pull image "k8s.gcr.io/pause:3.2": failed to do request: Head: dial tcp: i/o timeout',
    ),
    "SHW-440": (
        PREFLIGHT + "[ERROR ImagePull]: failed to pull image 192.0.2.5:5000/coredns:1.7.0: rpc error: code = NotFound "
        'desc = failed to pull and unpack image \\"x\\": failed to resolve reference \\"x\\": x: not found',
        "manifest unknown: manifest unknown",
    ),
    "SHW-441": (
        (
            'failed to resolve reference "registry.k8s.io/etcd:3.5": failed to do request: Head '
            '"https://registry.k8s.io": '
            "dial tcp 192.0.2.1:443: i/o timeout"
        ),
        PREFLIGHT
        + "[ERROR ImagePull]: failed to pull image k8s.gcr.io/pause:3.2: output: level=fatal msg=pulling image: "
        'failed to pull and unpack image \\"k8s.gcr.io/pause:3.2\\": failed to resolve reference '
        '\\"k8s.gcr.io/pause:3.2\\": failed to do request: Head \\"http://192.0.2.5:5000/v2/pause\\": dial '
        "tcp 192.0.2.5:5000: connect: connection refused",
    ),
    "SHW-442": ("tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time",),
    "SHW-443": ("tls: failed to verify certificate: x509: certificate signed by unknown authority",),
    "SHW-451": ("Failed to initialize NVML: Driver/library version mismatch",),
    "SHW-452": ("Failed to initialize NVML: Unknown Error",),
    "SHW-453": (
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest",
        "modprobe: ERROR: could not insert 'nvidia': No such device",
    ),
    "SHW-454": (
        "Lockdown: modprobe: Loading of unsigned module is rejected",
        "could not insert 'x': Key was rejected by service",
    ),
    "SHW-455": ("ERROR: The Nouveau kernel driver is currently in use by your system.",),
    "SHW-456": (
        "cudaGetDeviceCount failed: cudaErrorSystemNotReady",
        "CUDA error 802: system not yet initialized",
        "nvidia-fabricmanager is inactive",
        "the fabric's state is In Progress on 8 GPUs",
        "the fabric's health is Bandwidth Degraded on 1 GPUs",
        "ib_umad is not loaded",
    ),
    "SHW-457": (
        'E0301 factory.go:113] Incompatible strategy detected auto\nE0301 "If this is a GPU node, did you configure"',
        "I0301 main.go:381] No devices found. Waiting indefinitely.",
        "Incompatible device discovery strategy detected",
    ),
    "SHW-458": (
        (
            "nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot "
            "open shared object "
            "file: no such file or directory"
        ),
        "nvidia-container-cli: detection error: nvml error: unknown error",
    ),
    "SHW-459": (
        'exec: "nvidia-container-runtime": executable file not found in $PATH',
        "fork/exec /usr/bin/nvidia-container-runtime: no such file or directory",
    ),
    "SHW-652": (
        "failed to inject devices: unresolvable CDI devices k8s.device-plugin.nvidia.com/gpu=GPU-00000001-0000-4000",
    ),
    "SHW-653": (
        "unable to validate flags: CDI --device-list-strategy options are only supported on NVML-based systems",
    ),
    "SHW-658": (
        "Failed to prepare dynamic resources: prepare dynamic resources: DRA driver gpu.nvidia.com is not registered",
    ),
    "SHW-460": (
        "UnexpectedAdmissionError   Allocate failed due to requested number of devices unavailable for nvidia.com/gpu",
        "Allocate failed due to can't allocate unregistered device nvidia.com/gpu, which is unexpected",
    ),
    "SHW-619": (
        "the driver says: something new",
        "the driver shows 1",
        "Unable to determine the device handle for GPU0000:4E:00.0: Unknown Error",
        "Unable to determine the device handle for GPU 0000:0B:00.0: GPU is lost.  Reboot to recover this GPU",
    ),
    "SHW-614": (
        "could not apply required modification to OCI spec: failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND",
        "Failed to initialize NVML: Driver Not Loaded",
        "Failed to initialize NVML: Function Not Found Failed to properly shut down NVML: Function Not Found",
        (
            "FailedCreatePodSandBox: Failed to create pod sandbox: rpc error: code = Unknown desc = failed to start "
            'sandbox "e344bbc1": failed to create containerd task: failed to create shim task: OCI runtime create '
            "failed: /usr/bin/nvidia-container-runtime did not terminate successfully: exit status 127"
        ),
        "E0101 could not load NVML library.",
        (
            "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display "
            "Driver is properly installed and present in your system."
        ),
    ),
    "SHW-461": ("nvidia-smi does not end: the driver hangs in the kernel",),
    "SHW-471": (
        PREFLIGHT + "[ERROR Port-6443]: Port 6443 is in use\n\t"
        "[ERROR FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml]: "
        "/etc/kubernetes/manifests/kube-apiserver.yaml already exists\n\t"
        "[ERROR DirAvailable--var-lib-etcd]: /var/lib/etcd is not empty",
    ),
    "SHW-472": (
        PREFLIGHT
        + "[ERROR FileAvailable--etc-kubernetes-kubelet.conf]: /etc/kubernetes/kubelet.conf already exists\n\t"
        "[ERROR Port-10250]: Port 10250 is in use\n\t"
        "[ERROR FileAvailable--etc-kubernetes-pki-ca.crt]: /etc/kubernetes/pki/ca.crt already exists",
    ),
    "SHW-473": (PREFLIGHT + "[ERROR DirAvailable--var-lib-etcd]: /var/lib/etcd is not empty",),
    "SHW-474": (PREFLIGHT + "[ERROR Port-6443]: Port 6443 is in use",),
    "SHW-475": (
        PREFLIGHT + "[ERROR Swap]: running with swap on is not supported. Please disable swap",
        "failed to run Kubelet: running with swap on is not supported, please disable swap!",
    ),
    "SHW-476": (
        PREFLIGHT + "[ERROR FileContent--proc-sys-net-ipv4-ip_forward]: /proc/sys/net/ipv4/ip_forward contents are not "
        "set to 1",
    ),
    "SHW-477": (
        PREFLIGHT + "[ERROR NumCPU]: the number of available CPUs 1 is less than the required 2",
        "[ERROR Mem]: the system RAM (987 MB) is less than the minimum 1700 MB",
    ),
    "SHW-478": (IDENTITY + 'could not find a JWS signature in the cluster-info ConfigMap for token ID "abcdef"',),
    "SHW-479": (
        IDENTITY + 'cluster CA found in cluster-info ConfigMap is invalid: none of the public keys "sha256:845519" are '
        "pinned",
    ),
    "SHW-794": (
        (
            "[upgrade/apply] FATAL: couldn't upgrade control plane. kubeadm has tried to recover everything into the "
            "earlier state. Errors faced: static Pod hash for component etcd on Node cp1 did not change after 5m0s: "
            "timed out waiting for the condition"
        ),
        (
            "[upgrade/health] FATAL: [preflight] Some fatal errors occurred:\n"
            '\t[ERROR CreateJob]: Job "upgrade-health-check" in the namespace "kube-system" did not complete in 15s: '
            "no condition of type Complete"
        ),
    ),
    "SHW-480": (
        (
            'error execution phase kubelet-start: a Node with name "w1" and status "Ready" already '
            "exists in the cluster. "
            "You must delete the existing Node or change the name of this new joining Node"
        ),
    ),
    "SHW-481": (
        IDENTITY + 'Get "https://192.0.2.99:6443/api/v1/namespaces/kube-public/configmaps/cluster-info?timeout=10s": '
        "dial tcp 192.0.2.99:6443: connect: no route to host",
        IDENTITY + 'Get "https://192.0.2.99:6443/": net/http: request canceled (Client.Timeout exceeded)',
        (
            "error execution phase preflight: unable to fetch the kubeadm-config ConfigMap: failed to get component "
            'configs: Get "https://192.0.2.11:6443/api/v1/namespaces/kube-system/configmaps/kube-proxy?timeout=10s": '
            "dial tcp 192.0.2.11:6443: connect: connection refused"
        ),
        (
            'error execution phase kubelet-start: cannot get Node "w2": Get "https://192.0.2.11:6443/api/v1/nodes/w2": '
            "dial tcp 192.0.2.11:6443: connect: connection refused"
        ),
        "timed out waiting for the condition",
    ),
    "SHW-482": (
        "E1123 kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported",
        PREFLIGHT + "[ERROR SystemVerification]: cgroups v1 support is deprecated",
    ),
    "SHW-483": (
        'your configuration file uses an old API spec: "kubeadm.k8s.io/v1beta1". Please use kubeadm v1.15 instead',
        'no kind "InitConfiguration" is registered for version "kubeadm.k8s.io/v1beta4" in scheme',
    ),
    "SHW-484": (
        'err="failed to parse kubelet flag: unknown flag: --pod-infra-container-image"',
        "unrecognized feature gate: TTLAfterFinished",
    ),
    "SHW-485": (
        "this version of kubeadm only supports deploying clusters with the control plane version >= 1.30.0",
        "[ERROR KubeletVersion]: the kubelet version is higher than the control plane version.",
    ),
    "SHW-486": ('nodes "w1" is forbidden: node "w9" is not allowed to modify node "w1"',),
    "SHW-487": (PREFLIGHT + "[ERROR ImagePull]: failed to pull image registry.k8s.io/etcd:3.5: output: unauthorized",),
    "SHW-488": ("Error from server: etcdserver: request timed out",),
    "SHW-491": (
        (
            'The CustomResourceDefinition "installations.operator.tigera.io" is invalid: '
            "metadata.annotations: Too long: "
            "must have at most 262144 bytes"
        ),
    ),
    "SHW-492": ('no matches for kind "Installation" in version "operator.tigera.io/v1"\nensure CRDs are installed',),
    "SHW-493": ("Warning  CIDRNotAvailable  Node gpu-17 status is now: CIDRNotAvailable",),
    "SHW-494": ("calico/node is not ready: BIRD is not ready: BGP not established with 192.0.2.12",),
    "SHW-495": ('pods "rc-none" is forbidden: pod rejected: RuntimeClass "nosuch" not found',),
    "SHW-496": ('[FATAL] plugin/loop: Loop (127.0.0.1:55953 -> :1053) detected for zone "."',),
    "SHW-497": ("open /proc/sys/net/netfilter/nf_conntrack_max: permission denied",),
    "SHW-498": ("0/3 nodes are available: 1 node(s) had taint, 2 Insufficient nvidia.com/gpu.",),
    # What shipway/backup/host.sh says, and what its checks see.
    "SHW-720": (
        "shipway-backup[no-etcd]: etcd on this host does not answer on https://127.0.0.1:2379: deadline exceeded",
        "have no /etc/kubernetes/manifests/etcd.yaml; want kubeadm's etcd",
    ),
    "SHW-721": ("shipway-backup[no-tools]: no ctr on this host, which comes with containerd",),
    "SHW-722": (
        "shipway-backup[no-room]: 90 MiB free in /var/lib/shipway/backups, and twice the database's 80 MiB are needed",
        "have 90 MiB free for backups; want 416 MiB",
    ),
    "SHW-723": ("shipway-backup[busy]: another backup of this host is under way",),
    "SHW-724": ("shipway-backup[no-snapshot]: etcd gave no snapshot: write snapshot.db.part: no space left on device",),
    "SHW-814": (
        "shipway-backup[no-key]: Secrets are encrypted at rest, and their key is not in /etc/kubernetes/shipway/x",
    ),
    "SHW-725": (
        "shipway-backup[damaged]: /backups/20261129T013000Z is not as it was taken: snapshot.db: FAILED",
        "shipway-backup[damaged]: etcd does not restore the snapshot: Error: expected sha256 [1 2], got [3 4]",
    ),
    "SHW-726": ("shipway-backup[went-back]: revision 90 is below 100, that of the backup 20261129T013000Z before it",),
    "SHW-727": ("shipway-backup[not-restored]: the throw-away etcd did not answer: ",),
    "SHW-728": ("shipway-backup[keys-missing]: of these kinds keys are missing in the restored copy: pods: 0 of 20",),
    "SHW-729": ("shipway-backup[canary]: /registry/namespaces/default is not in the restored copy as it was",),
    "SHW-730": ("shipway-backup[no-isolation]: systemd gave the throw-away etcd no network of its own",),
    "SHW-734": ("shipway-backup[other]: /x is of a cluster with another certificate authority",),
    "SHW-735": ("shipway-backup[restarting]: no manifest of etcd in manifests: it is just started anew",),
    "SHW-737": ("shipway-backup[not-stopped]: the API server or etcd did not stop within 180 s",),
    "SHW-738": ("shipway-backup[not-up]: the API server does not become ready on the restored data",),
}


def _recorded() -> dict[str, tuple[str, ...]]:
    """Return the outputs of catalogue_outputs.txt by code, each as it was printed."""
    text = Path(__file__).with_name("catalogue_outputs.txt").read_text(encoding="utf-8")
    parts = re.split(r"^== (SHW-\d{3})\n", text, flags=re.MULTILINE)[1:]
    return {code: tuple(said.rstrip("\n").split("\n--\n")) for code, said in zip(parts[::2], parts[1::2], strict=True)}


_RECORDED = _recorded()
KNOWN_TEXTS = {code: (*_TEXTS.get(code, ()), *_RECORDED.get(code, ())) for code in {**_TEXTS, **_RECORDED}}
