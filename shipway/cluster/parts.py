"""The sections of a cluster file: system, Kubernetes, runtime, GPUs, network, add-ons; hosts and sources beside it."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from shipway.cluster.hosts import HostSpec, HostSsh, Jump, Ssh, first_label
from shipway.cluster.sources import AptRepository, Key, Manifest, Proxy, Sources
from shipway.cluster.types import (
    AgeRecipient,
    Bucket,
    Count,
    DnsName,
    DriverVersion,
    Endpoint,
    FilePath,
    Flag,
    ImageRef,
    ImageRepository,
    Interface,
    KeyPrefix,
    LabelKey,
    LabelValue,
    MigLayout,
    Name,
    NodeAddress,
    Package,
    PackageVersion,
    Part,
    Plain,
    PodNetwork,
    Port,
    Rail,
    Rate,
    Region,
    Url,
    Version,
)
from shipway.cluster.window_rules import fault

__all__ = [
    "AddOn",
    "ApiEndpoint",
    "AptRepository",
    "Backup",
    "Dashboard",
    "DevicePlugin",
    "DraDriver",
    "Driver",
    "Gpu",
    "GpuClass",
    "HostSpec",
    "HostSsh",
    "Jump",
    "Key",
    "Kubernetes",
    "Manifest",
    "Name",
    "Network",
    "ObjectStore",
    "Part",
    "Proxy",
    "Repair",
    "Runtime",
    "Sources",
    "Ssh",
    "System",
    "Window",
    "first_label",
]


class ApiEndpoint(Part):
    """The name by which every node reaches the API, and who sees to it that it leads to a living API server."""

    kind: Literal["node_local", "external"] = Field(
        "node_local",
        description="`node_local`: the name is kept in /etc/hosts of every host, and leads to its own API server "
        "or, on a worker, to the control planes by a haproxy of its own. `external`: a load balancer of the site's, "
        "which is only proved.",
    )
    name: DnsName | None = Field(
        None, description="The name; for node_local the default is api.NAME.internal, after the cluster's name."
    )
    port: Port | None = Field(None, description="Port of an external endpoint; default: `kubernetes.api_port`.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Refuse what cannot be: an endpoint of the site's that nobody named, a port beside the API server's own."""
        if self.kind == "external" and self.name is None:
            raise ValueError("an external endpoint needs its name")
        if self.kind == "node_local" and self.port is not None:
            raise ValueError("a node_local endpoint has the port of the API servers: set kubernetes.api_port")
        return self


# The first of 1.2 without the fault that it asks the API by its own address (dell/omnia#4992, kube-vip#1658); 1.0.1 to
# 1.0.3 stalled after a lost election (kube-vip#1377).
KUBE_VIP_IMAGE = "ghcr.io/kube-vip/kube-vip:v1.2.3"


class ApiVip(Part):
    """An address by which clients outside reach the API, and which moves between control planes."""

    address: NodeAddress = Field(
        description="A free IPv4 address of a network that every control plane is in; the one whose API server is "
        "ready holds it."
    )
    by: Literal["keepalived", "kube-vip"] = Field(
        "keepalived", description="What moves it: the distribution's keepalived, or kube-vip in a static pod."
    )
    interface: Interface | None = Field(
        None,
        description="Interface of that network on every control plane; default: the one of the host's own address.",
    )
    router_id: Annotated[Count, Field(ge=1, le=255)] | None = Field(
        None,
        description="Number of the virtual router (VRRP), of keepalived's; default: the last number of the address.",
    )
    image: ImageRef | None = Field(None, description=f"Image of kube-vip's; default: {KUBE_VIP_IMAGE}.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Refuse what is about the other way."""
        if self.by == "keepalived" and self.image is not None:
            raise ValueError("an image is kube-vip's: add by: kube-vip, or leave it out")
        if self.by == "kube-vip" and self.router_id is not None:
            raise ValueError("a router_id is keepalived's: kube-vip has none")
        return self


def _form(value: Any) -> str:
    return "text" if isinstance(value, str) else "mapping"


AnyEndpoint = Annotated[Annotated[ApiEndpoint, Tag("mapping")] | Annotated[Endpoint, Tag("text")], Discriminator(_form)]


class Kubernetes(Part):
    """Version, networks and API endpoint; `kubelet` and `kube_proxy` are merged into kubeadm's configuration."""

    version: Version = Field(description="Exact version of kubelet, kubeadm, kubectl and the control plane.")
    pod_network: PodNetwork = Field(description="Network that all pods get their addresses from.")
    service_network: PodNetwork = Field(IPv4Network("10.96.0.0/12"), description="Network of the services' addresses.")
    node_mask: Annotated[Count, Field(ge=16, le=30)] = Field(
        24, description="Prefix length of each node's part of the pod network."
    )
    api_endpoint: AnyEndpoint | None = Field(
        None,
        description="What every node reaches the API by; host[:port] stands for an external one. Default: a node_local "
        "name; a cluster that was made with its control plane's address keeps that.",
    )
    api_vip: ApiVip | None = Field(
        None, description="An address for clients outside that moves between control planes; no node needs it."
    )
    api_port: Port = Field(6443, description="Port the API server listens on.")
    image_repository: ImageRepository | None = Field(None, description="Registry for the control plane's images.")
    allow_cgroup_v1: Flag = Field(
        default=False,
        description="Run Kubernetes 1.35 and later on cgroup v1 all the same: sets failCgroupV1: false for the kubelet "
        "and skips kubeadm's SystemVerification.",
    )
    schedule_on_control_plane: Flag | Literal["auto"] = Field(
        "auto", description="Whether ordinary pods may run there; `auto`: only when there is no worker."
    )
    joins_at_once: Annotated[Count, Field(ge=1, le=250)] = Field(
        50, description="Most joins under way at one time (kubeadm#3181: 300 overload its preflight)."
    )
    kubelet: Plain = Field(default_factory=dict, description="Added to the KubeletConfiguration.")
    kube_proxy: Plain = Field(default_factory=dict, description="Added to the KubeProxyConfiguration.")
    init_seconds: Annotated[Count, Field(ge=60, le=86400)] = Field(
        600, description="Limit for kubeadm init, in seconds."
    )
    join_seconds: Annotated[Count, Field(ge=60, le=86400)] = Field(
        420, description="Limit for kubeadm join, in seconds."
    )

    @property
    def minor(self) -> tuple[int, int]:
        """Return (1, 31) of 1.31.7."""
        major, minor, _ = self.version.split(".")
        return int(major), int(minor)


class Runtime(Part):
    """containerd: which package, and what its configuration must say."""

    package: Package = Field("containerd.io", description="Package of containerd.")
    extra_packages: tuple[Package, ...] = Field((), description="Packages installed beside it.")
    version: PackageVersion | None = Field(
        None, description="Version or its beginning (1.7.27); none: the newest the repository offers."
    )
    restrict_oom_score_adj: Flag = Field(default=False, description="For hosts that are themselves containers.")


FigureName = Literal["matmul", "library_matmul", "copy", "to_gpu", "from_gpu", "all_reduce"]


class Figures(Part):
    """What GPUs are measured with."""

    image: ImageRef = Field(
        "docker.io/pytorch/pytorch:2.8.0-cuda12.9-cudnn9-runtime",
        description="Image of the pods that measure: with python3, for an all-reduce NCCL, for the library's product "
        "cuBLAS. Where the key is in the file, preflight asks its registry too.",
    )
    least: dict[LabelValue, dict[FigureName, Rate]] = Field(
        default_factory=dict,
        description="By product (as the label nvidia.com/gpu.product has it) and figure (TFLOP/s of products, else "
        "GB/s): what all its GPUs reach on these machines, where that differs from elsewhere (a guest, a narrow slot).",
    )


EXCLUSIVE = "exclusive"  # the class that is always there
CLAIMED = "dra"  # the class of nodes whose GPUs pods claim: with `gpu.mode: dra` of all of them
GpuMode = Literal["runtime_class", "default_runtime", "cdi", "dra"]


class GpuClass(Part):
    """How the GPUs of the hosts of one class are shared out."""

    sharing: Literal["exclusive", "time-slicing", "mps", "mig-single", "mig-mixed"] = Field(
        description="`exclusive`: each GPU goes to one pod. `time-slicing`: to several in turn, with nothing between "
        "them. `mps`: to several at once, memory and processors divided. `mig-single`, `mig-mixed`: divided by the "
        "hardware, the parts offered as GPUs or by their profile.",
    )
    replicas: Annotated[Count, Field(ge=1, le=1024)] | None = Field(
        None, description="Pods on each GPU: with time-slicing and mps, 2 or more."
    )
    rename: Flag = Field(
        default=True,
        description="Offer shares as nvidia.com/gpu.shared, so that nobody gets one who asked for a GPU.",
    )
    mig: MigLayout | None = Field(
        None, description="With mig-single and mig-mixed: the layout's name in mig-parted's file on the hosts."
    )


class Driver(Part):
    """The driver of the GPUs: where it comes from, and which one it is."""

    source: Literal["none", "ubuntu", "cuda", "debian", "dgx"] = Field(
        "none",
        description="`none`: it is only checked. `ubuntu`: signed modules of Ubuntu's archive. `cuda`: NVIDIA's "
        "repository (`sources.apt.cuda`), whose modules are built on the host. `debian`: Debian's own archive, built "
        "there too; `contrib`, `non-free` and `non-free-firmware` must be among the host's sources or in "
        "`sources.base_apt`. `dgx`: the repositories that a DGX OS has. A bootstrap installs it on hosts that have not "
        "joined; `shipway maintain FILE --driver` changes it on the others.",
    )
    branch: Annotated[Count, Field(ge=450, le=999)] | None = Field(
        None, description="Branch, such as 580: what a host has of it stays, else it gets the newest that is offered."
    )
    version: DriverVersion | None = Field(
        None, description="Exact version in quotes, such as '580.95.05'; none: any of the branch."
    )
    flavour: Literal["auto", "open", "proprietary"] = Field(
        "auto",
        description="Kernel modules; `auto`: the open ones where they drive every GPU of the host; before branch 545, "
        "where those drive few, the proprietary ones.",
    )
    imex: Literal["workloads", "host"] | None = Field(
        None,
        description="Who runs IMEX where NVLink joins GPUs of several hosts (GB200, GB300). `workloads`: pods of "
        "ComputeDomains, and the host's own service is stopped and masked. `host`: that service, in one domain for all "
        "hosts of a fabric. None: as `workloads`, but where the service runs already, that is refused.",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Refuse a source without a branch, a version of another one, and IMEX where the source has none."""
        if self.imex and self.source in ("none", "debian"):
            message = f"source {self.source} has no nvidia-imex: leave `imex` out, or take another source"
            raise ValueError(message)
        if self.source != "none" and not (self.branch or self.version):
            raise ValueError("a driver needs its branch (580) or its version ('580.95.05')")
        if self.branch and self.version and not self.version.startswith(f"{self.branch}."):
            message = f"version {self.version} is not of branch {self.branch}: correct one of them"
            raise ValueError(message)
        return self

    @property
    def of_branch(self) -> int:
        """The branch, also where only a version is named; 0 where neither is."""
        return self.branch or int((self.version or "0").partition(".")[0])

    @property
    def said(self) -> str:
        """What is declared, for people: a version, or a branch."""
        return self.version or f"branch {self.branch}"


class Gpu(Part):
    """How pods get GPUs, and how that is proven."""

    mode: GpuMode = Field(
        "runtime_class",
        description="RuntimeClass `nvidia`, nvidia as containerd's default runtime on GPU hosts, or `cdi`: containerd "
        "(2.0 or later) puts GPUs into containers itself, and pods name no RuntimeClass. `dra` (Kubernetes 1.34 or "
        "later): pods claim whole GPUs (ResourceClaim), and no device plugin is there.",
    )
    classes: dict[Name, GpuClass] = Field(
        default_factory=dict, description="Ways of sharing GPUs by a name that hosts name in `gpu_class`."
    )
    sharing: Name = Field(
        EXCLUSIVE, description="Class of the hosts that name none; `exclusive` is always there, and shares nothing."
    )
    rails: tuple[Rail, ...] = Field(
        (),
        description="Ports of InfiniBand or RoCE adapters (mlx5_0/1) that must be up on each host with GPUs that names "
        "none itself; none: a port is held against those of equal hosts alone.",
    )
    isolation: Literal["strict", "off"] = Field(
        "strict",
        description="`strict`: a pod that asks for no GPU sees none. `off`: any image that sets NVIDIA_VISIBLE_DEVICES "
        "sees the GPUs of its host, as NVIDIA's toolkit has it by default.",
    )
    driver: Driver = Field(Driver(), description="The driver; by default it is only checked.")
    toolkit: Version | None = Field(None, description="Version of nvidia-container-toolkit; none: the newest offered.")
    verify_image: ImageRef = Field(
        "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0", description="Image of the test pods."
    )
    compute: Literal["required", "off"] = Field("required", description="`off` where the GPUs cannot run CUDA.")
    verify_seconds: Annotated[Count, Field(ge=10, le=86400)] = Field(
        300, description="Limit for all test pods to run at once, in seconds."
    )
    figures: Figures = Field(default_factory=Figures, description="What `shipway verify --level full` measures with.")


class Network(Part):
    """The pod network: Calico, or manifests of your own."""

    provider: Literal["calico", "manifests"] = Field("calico", description="Calico, or the files of `manifests`.")
    version: Version | None = Field(None, description="Calico's version.")
    block_size: Annotated[Count, Field(ge=20, le=32)] = Field(
        26, description="Prefix length of Calico's address blocks."
    )
    encapsulation: Literal["VXLANCrossSubnet", "VXLAN", "IPIP", "IPIPCrossSubnet", "None"] = Field(
        "VXLANCrossSubnet", description="How packets between nodes are wrapped."
    )
    manifests: tuple[FilePath, ...] = Field((), description="For provider `manifests`: files to apply, in order.")


class DevicePlugin(Part):
    """NVIDIA's Kubernetes device plugin."""

    version: Version = Field(description="Version, also the image's tag.")
    image: ImageRepository = Field("nvcr.io/nvidia/k8s-device-plugin", description="Image without its tag.")


class DraDriver(Part):
    """NVIDIA's driver of claims, for `gpu.mode: dra`."""

    version: Version = Field("0.4.1", description="Version, also the image's tag.")
    image: ImageRepository = Field(
        "registry.k8s.io/dra-driver-nvidia/dra-driver-nvidia-gpu", description="Image without its tag."
    )


class Dashboard(Part):
    """The Kubernetes Dashboard: archived upstream, so off unless asked for."""

    enabled: Flag = Field(default=False, description="Install it.")
    version: Version = Field("2.7.0", description="Version; its manifest is `sources.manifests.dashboard`.")
    node_port: Annotated[Count, Field(ge=30000, le=32767)] = Field(31000, description="Port on every node (HTTPS).")
    role: Literal["cluster-admin", "view"] = Field("view", description="ClusterRole of its user admin-user.")


class AddOn(Part):
    """An add-on: it is as its folder in `manifests/addons` declares it, and has no keys of its own."""


class System(Part):
    """The base system."""

    packages: tuple[Package, ...] = Field(description="Packages every host must have.")
    upgrade: Flag = Field(
        default=True, description="Upgrade base packages, only on a host that is not yet part of a cluster."
    )
    may_remove: tuple[Package, ...] = Field(
        (),
        description="Packages that may be removed where apt says that an installation needs it (docker.io for "
        "containerd.io); any other removal is refused.",
    )
    ports: tuple[Port, ...] = Field(
        (6443, 2379, 2380, 10250, 10257, 10259), description="Ports that must be free on a bare control plane."
    )


class Window(Part):
    """When services may be repaired: it opens by a rule, in the controller's local time, for so many minutes."""

    cron: Annotated[str, Field(max_length=128)] | None = Field(
        None, description='Five fields: `"0 2 * * 6"` opens it on Saturdays at 02:00.'
    )
    rrule: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Or a rule of RFC 5545, as `FREQ=MONTHLY;BYDAY=1SU;BYHOUR=3;BYMINUTE=0;BYSECOND=0`."
    )
    minutes: Annotated[Count, Field(ge=1, le=10080)] = Field(120, description="How long it stays open.")

    @model_validator(mode="after")
    def _rule(self) -> Self:
        if why := fault(self.cron, self.rrule):
            raise ValueError(why)
        return self


class ObjectStore(Part):
    """A place for backups in an object store that speaks S3; this machine's environment says who may write there."""

    bucket: Bucket = Field(description="The bucket, which must be there.")
    prefix: KeyPrefix | None = Field(None, description="What the keys begin with, before the cluster's name.")
    endpoint: Url | None = Field(None, description="Address of the store; none: AWS's own.")
    region: Region | None = Field(None, description="The bucket's region; none: as AWS's files of this machine say.")
    clear_text: Flag = Field(
        default=False,
        description="Backups, which hold all Secrets and keys of the cluster, may lie there without `encrypt_to`.",
    )


class Backup(Part):
    """Backups of etcd: how many stay on the control plane's host, where else they are kept, and who takes them."""

    every_hours: Annotated[Count, Field(ge=1, le=24)] | None = Field(
        None,
        description="Hours between backups that the control plane's host takes by itself, by a timer of its systemd "
        "that needs no Prefect; none: there is no timer.",
    )
    keep: Annotated[Count, Field(ge=1, le=1000)] = Field(
        14, description="Most verified backups that stay; the newest verified one always does."
    )
    keep_days: Annotated[Count, Field(ge=1, le=3650)] = Field(
        30, description="Days after which a backup is removed, but for the newest verified one."
    )
    keep_local: FilePath | None = Field(
        None, description="Folder of the controller that `shipway backup` copies each backup to; none: to nowhere."
    )
    encrypt_to: tuple[AgeRecipient, ...] = Field(
        (),
        description="Public keys of age (age1...): the copies can be read by their owners alone; "
        "none: they are in clear.",
    )
    s3: ObjectStore | None = Field(
        None, description="Object store that `shipway backup` copies each backup to as well; none: to none."
    )
    max_age_hours: Annotated[Count, Field(ge=1, le=8760)] | None = Field(
        None, description="Drift where the newest verified backup is older; none: twice `every_hours`, else no limit."
    )

    @property
    def copied(self) -> bool:
        """Whether each backup is copied off its host."""
        return bool(self.keep_local or self.s3)

    @property
    def declared(self) -> bool:
        """Whether the file wants backups to be taken or kept at all."""
        return self.copied or self.oldest_hours is not None

    @property
    def oldest_hours(self) -> int | None:
        """Hours that the newest verified backup may be old; None where nothing is declared about it."""
        return self.max_age_hours or (2 * self.every_hours if self.every_hours else None)


class Repair(Part):
    """What drift repair may do by itself; a run may be asked for less or more."""

    allow: Literal["none", "files", "service", "workloads"] = Field(
        "service", description="Highest impact of a repair; what is above it is reported."
    )
    ask: Flag = Field(default=False, description="Pause for an approval in Prefect's UI before anything is repaired.")
    hosts_at_once: Annotated[Count, Field(ge=1, le=100)] = Field(
        1, description="Hosts whose services are repaired at the same time."
    )
    disturb: tuple[Name, ...] = Field(
        (), description="Hosts whose containerd and kubelet may be restarted beside running GPU pods."
    )
    delete_emptydir_data: Flag = Field(
        default=False,
        description="A drain may end pods whose emptyDir volumes are lost with them, as kubectl's option of that name.",
    )
    restart_beside_pods: Flag = Field(
        default=False,
        description="Whether a bootstrap or a repair may restart containerd beside running pods that hold no GPU; pods "
        "of the cluster's own parts and of DaemonSets do not count.",
    )
    quarantine: Flag = Field(
        default=False,
        description="A node with a GPU that must be reset, restarted with its host or replaced is kept from new pods "
        "by a taint (at most a quarter of the GPU nodes at once), and opened again once its GPUs are proven.",
    )
    window: Window | None = Field(None, description="Only then more than files is repaired; none: at any time.")


class Upgrade(Part):
    """How `shipway upgrade` goes through the hosts: waves of workers, and what becomes of GPU jobs on them."""

    gpu_jobs: Literal["wait", "checkpoint", "evict", "never"] = Field(
        "wait",
        description="Pods that hold GPUs of a host: `wait` for their end (those of a Deployment: until another replica "
        "is Ready elsewhere and a GPU of the same product is free), `checkpoint` (evict those that say by the "
        "annotation `shipway.dev/checkpoint-seconds` that they save their work, wait for the others), `evict` them as "
        "disruption budgets allow, or `never` touch such a host (it is left out and named). The annotation "
        "`shipway.dev/gpu-jobs` of a pod, of one of its owners or of its namespace says otherwise for it. A drift "
        "repair goes by it too: it drains no host on which it would have to wait.",
    )
    wait_minutes: Annotated[Count, Field(ge=1, le=10080)] = Field(
        240, description="How long `wait` waits for GPU jobs of a host; then that host is opened again, unchanged."
    )
    hosts_at_once: Annotated[Count, Field(ge=1, le=100)] = Field(
        1, description="Workers of a wave, after the first one alone; jobs that span hosts make theirs one wave."
    )
    failures: Annotated[Count, Field(ge=0, le=100)] = Field(
        0, description="Workers that may fail before no further wave begins; the first worker of all never may."
    )
    soak_seconds: Annotated[Count, Field(ge=0, le=86400)] = Field(
        600, description="How long the first worker is watched before the others follow."
    )
    approve: Flag = Field(default=False, description="Pause before each wave for an approval in Prefect's UI.")
    despite: tuple[Literal["older_patch", "removed_apis"], ...] = Field(
        (),
        description="What refuses no upgrade: an `older_patch` than the newest of the running minor on the way to the "
        "next one, `removed_apis` that clients ask for and the new version does not have.",
    )


class Maintain(Part):
    """What `shipway maintain` does to the systems of the hosts; it goes through them as `upgrade` says."""

    packages: Literal["all", "security", "none"] = Field(
        "all",
        description="Which packages of the system are brought to their newest version: `all`, those with a `security` "
        "update, or `none`. Held packages, GPU drivers, containerd and Kubernetes are never among them.",
    )
    reboot: Literal["when_required", "never", "always"] = Field(
        "when_required",
        description="Restart a host `when_required` (its system asks for it, a newer kernel or C library is installed "
        "than runs), `never`, or `always`: also where nothing asks for it, if its boot is older than a day.",
    )
    reboot_minutes: Annotated[Count, Field(ge=1, le=120)] = Field(
        15, description="How long a host may take to come back; large GPU servers test their memory for minutes."
    )
    taints: tuple[LabelKey, ...] = Field(
        (),
        description="Keys of taints that do not keep from maintenance; a host with another one of the site's own "
        "counts as taken out by somebody, and is left alone.",
    )
