"""NVIDIA: every name and number of its GPUs, driver, toolkit and device plugin that Shipway knows, in one place."""

from __future__ import annotations

import re
from collections.abc import Mapping

from shipway.facts.commands import Says, Watched
from shipway.facts.files import FileText, Listing
from shipway.foreign.numbers import whole
from shipway.gpu.figures import burn, rdma
from shipway.gpu.figures.program import program_text
from shipway.gpu.health.model import HealthReport
from shipway.gpu.health.nvidia.fabric import judge_fabric
from shipway.gpu.health.nvidia.links import judge_link_errors, read_link_errors
from shipway.gpu.health.nvidia.rows import judge_health
from shipway.gpu.health.nvidia.xids import LOG, find_serials
from shipway.gpu.nvidia.classes import config_of, find_difference, read_config
from shipway.gpu.nvidia.labels import find_other_owner, labels_of
from shipway.gpu.sharing import Sharing, Way
from shipway.gpu.vendor import (
    ClaimDriver,
    DevicePlugin,
    Fabric,
    FigureProgram,
    GpuRuntime,
    Operator,
    PluginClasses,
    Sample,
    Vendor,
)
from shipway.stage import StageName

# The keys of the toolkit's configuration that say how a container may ask for GPUs (shipway.steps.gpu.toolkit).
MOUNTS = "accept-nvidia-visible-devices-as-volume-mounts"
VARIABLE = "accept-nvidia-visible-devices-envvar-when-unprivileged"
BY_MOUNTS = "volume-mounts"  # the plugin's strategy that goes with the first
BY_CDI = "cdi-cri"  # its strategy that needs neither: the kubelet names CDI devices to containerd

# What NVIDIA's module says of a GPU that it does not drive, over some lines of the log (seen with 470 and 550).
_STAMP = re.compile(r"^\[[^]\n]*\] ?", re.MULTILINE)
_SENTENCES = re.compile(r"The NVIDIA [^\n]*(?:\n[^\n]*){0,3}")
_UNSUPPORTED = re.compile(r"installed in this system is (?:supported through the NVIDIA \S+ Legacy|not supported by)")
_ADDRESS = re.compile(r"NVIDIA GPU ([0-9a-f:.]+) ")


def find_unsupported(log: str) -> tuple[bool, frozenset[str]]:
    """Return whether the kernel's log tells of a GPU that the driver does not support, and the addresses it names."""
    sentences = [" ".join(match[0].replace("NVRM:", " ").split()) for match in _SENTENCES.finditer(_STAMP.sub("", log))]
    found = [text for text in sentences if _UNSUPPORTED.search(text)]
    return bool(found), frozenset(match[1] for text in found if (match := _ADDRESS.search(text)))


_WAYS: dict[str, Way] = {"time-slicing": "time slicing", "timeSlicing": "time slicing", "mps": "MPS"}


def read_sharing(labels: Mapping[str, str], log: str) -> Sharing:
    """Return how the plugin shares GPUs: by the configuration in its log, else by GPU feature discovery's labels.

    The labels may be of another configuration than the plugin's (k8s-device-plugin#732), the log is its own. As of its
    README.md, "Shared Access to GPUs", and of feature discovery's; what a plugin that shares says was not seen.
    """
    config = read_config(log)
    if config:
        parts = (config.get("flags") or {}).get("migStrategy") in ("single", "mixed")
        for key, shared in (config.get("sharing") or {}).items():
            rows = [row for row in (shared or {}).get("resources") or () if isinstance(row, dict)]
            if key in _WAYS and rows:
                names = tuple(str(row["rename"]) for row in rows if row.get("rename"))
                return Sharing(_WAYS[key], max(1, whole(str(rows[0].get("replicas"))) or 1), names, parts)
        return Sharing(parts=parts)
    way = _WAYS.get(labels.get("nvidia.com/gpu.sharing-strategy", ""), "exclusive")
    replicas = whole(labels.get("nvidia.com/gpu.replicas", "")) or 1
    parts = labels.get("nvidia.com/mig.strategy") in ("single", "mixed")
    return Sharing(way, max(1, replicas) if way != "exclusive" else 1, (), parts)


REPORT = Watched(("nvidia-smi", "-q"))
NVIDIA = Vendor(
    name="NVIDIA",
    pci_id="10de",
    module="nvidia",
    # Debian's dkms builds the module `nvidia` into files of these names (nvidia-kernel-dkms, nvidia-open-kernel-dkms).
    module_aliases=("nvidia-current", "nvidia-current-open", "nvidia-tesla*", "nvidia-legacy*"),
    rival_module="nouveau",
    product_label="nvidia.com/gpu.product",  # GPU feature discovery, README.md, "Generated Labels"
    # What the plugin names shares with `renameByDefault`, and MIG's parts with `migStrategy: mixed` (its README.md).
    shared=re.compile(r"nvidia\.com/gpu\.shared"),
    part=re.compile(r"nvidia\.com/mig-.+"),
    listed_parts=re.compile(r"UUID: (MIG-[0-9A-Za-z/-]+)"),
    probe=Watched(("nvidia-smi", "-L"), seconds=30),
    listed=re.compile(r"UUID: (GPU-[0-9A-Za-z-]+)"),  # `GPU 0: NVIDIA A10 (UUID: GPU-...)`
    driver_failed=(
        r"nvml error: driver",
        r"nvidia-smi has failed",
        r"Failed to initialize NVML",
        r"version mismatch",
    ),
    kernel_word="xid",
    unsupported=find_unsupported,
    labels_of=labels_of,
    label_owner=find_other_owner,
    # libcuda1 and firmware-nvidia-gsp are the driver's too: hence by source package as well.
    packages=("nvidia*", "libnvidia*", "cuda*", "libcuda*", "xserver-xorg-video-nvidia*"),
    sources=("nvidia*", "libnvidia*", "fabric-manager*"),
    runtime=GpuRuntime(
        handler="nvidia",
        program="/usr/bin/nvidia-container-runtime",
        manifest="runtime-class/nvidia.yaml",
        no_handler=(r"no runtime for \"?nvidia\"? is configured", r"no corresponding runtime configured"),
        no_program=(r"nvidia-container-(runtime|cli|runtime-hook)\S*:? .*(not found|no such file)",),
    ),
    toolkit=Says(("nvidia-ctk", "--version")),
    # One release, four packages: NVIDIA's installation guide pins all of them to the same version.
    toolkit_packages=(
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container-tools",
        "libnvidia-container1",
    ),
    repository="nvidia",
    stage=StageName.NVIDIA_RUNTIME,
    hook="/usr/bin/nvidia-cdi-hook",  # of nvidia-container-toolkit-base, since 1.16 (its CHANGELOG)
    # The device plugin's file (internal/cdi) and the driver of claims' (cmd/gpu-kubelet-plugin/cdi.go), one a claim.
    specified=("k8s.device-plugin.nvidia.com-", "k8s.gpu.nvidia.com-"),
    variable="NVIDIA_VISIBLE_DEVICES",
    closed=f"`nvidia-ctk config` must show {VARIABLE} = false",
    resource="nvidia.com/gpu",
    # NVIDIA's own name for it (GPU feature discovery sets the same), so that other software finds the nodes too.
    label="nvidia.com/gpu.present",
    plugin=DevicePlugin(
        daemon_set="nvidia-device-plugin-daemonset",
        namespace="kube-system",
        labels={"name": "nvidia-device-plugin-ds"},
        manifest="device-plugin/daemonset.yaml",
        values={"strategy": BY_MOUNTS},
        cdi="device-plugin/daemonset-cdi.yaml",
        classes=PluginClasses(
            daemon_set="nvidia-device-plugin",
            labels={"name": "nvidia-device-plugin-class-ds"},
            config_of=config_of,
            find_difference=find_difference,
            daemon="device-plugin/mps-control-daemon.yaml",
            daemon_set_of_daemon="nvidia-mps-control-daemon",
            root="/run/nvidia/mps",  # as NVIDIA's chart has it (values.yaml, mps.root)
        ),
        # dra-driver-nvidia-gpu 0.4.1: its chart, cmd/gpu-kubelet-plugin/main.go, types.go, deviceinfo.go (attributes).
        claims=ClaimDriver(
            driver="gpu.nvidia.com",
            whole="gpu",
            device_class="gpu.nvidia.com",
            daemon_set="nvidia-dra-driver-gpu",
            labels={"name": "nvidia-dra-driver-gpu-ds"},
            manifest="dra-driver/driver.yaml",
            program="gpu-kubelet-plugin",
            # hack/kubelet-plugin-prestart.sh: `find FOLDER -maxdepth 1 -type f`, until there is one
            looks_for=("/usr/bin/nvidia-smi", "/usr/sbin/nvidia-smi", "/opt/bin/nvidia-smi"),
        ),
        # Since 0.18 NVIDIA's manifest lets its pod fail on a node without GPUs (k8s-device-plugin CHANGELOG, v0.18.0).
        needs_gpus=(0, 18),
        sharing=read_sharing,
        sick="device marked unhealthy",  # internal/plugin/server.go, ListAndWatch (0.14 to 0.20); not seen
        registered="Registered device plugin",
        # What its log says when it sees no GPU, though its pod stays Running (k8s-device-plugin#1552, #1220).
        sees_none=(
            "No devices found. Waiting indefinitely",
            "Incompatible strategy detected",
            "Incompatible platform detected",
        ),
    ),
    held=re.compile(r"UUID: ((?:GPU|MIG)-[0-9A-Za-z/-]+)"),  # a pod with a part of a GPU is told of both
    devices="/dev/nvidia*",
    device=re.compile(r"/dev/nvidia[0-9]+\b"),
    # So that a toolkit that asks the image what it wants brings nvidia-smi as well.
    environment={"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"},
    sample=Sample(
        name="CUDA sample",
        needs="CUDA",
        path="/cuda-samples/vectorAdd",  # where NVIDIA's cuda-sample images keep it
        passed="Test PASSED",
        failed=(r"Failed to allocate device", r"CUDA (driver|error|capable)"),
    ),
    # gpu-operator 26.7: api/nvidia/v1, assets/state-device-plugin, assets/state-container-toolkit; not seen.
    operator=Operator(
        name="GPU Operator",
        api_version="nvidia.com/v1",
        kind="ClusterPolicy",
        part="devicePlugin",
        plugin="app=nvidia-device-plugin-daemonset",
        runtime="/usr/local/nvidia/toolkit/nvidia-container-runtime",
    ),
    fabric=Fabric(
        service="nvidia-fabricmanager",
        process="nv-fabricmanager",
        machines="NVSwitch machines",
        # The driver lists the NVSwitches it has here (NVLink 4 and before); in a guest the folder may be empty.
        switches=Listing("/proc/driver/nvidia-nvswitch/devices"),
        # NVSwitches of NVLink 5 (HGX B200, B300) are managed over InfiniBand devices whose vital product data name them
        # so, as NVIDIA's start script finds them (gpu-driver-container, ubuntu24.04/nvidia-driver,
        # _assert_nvlink5_system): by nvlsm, which the same unit starts, over ib_umad. From the source, not seen.
        ports=Listing("/sys/class/infiniband"),
        managed=Says(("sh", "-c", "grep -la SW_MNG /sys/class/infiniband/*/device/vpd")),
        beside=("nvlsm",),
        module="ib_umad",
        loaded=Listing("/sys/class/infiniband_mad"),
        running=Says(("pgrep", "-l", "-x", "nv-fabricmanag.*|nvlsm")),
        driver=FileText("/proc/driver/nvidia/version"),
        manager=Says(("nv-fabricmanager", "--version")),
        states=REPORT,
        judge=judge_fabric,
        not_ready=(r"system not yet initialized", r"error code:? 802"),
    ),
    health=HealthReport(
        report=REPORT,
        links=Watched(("nvidia-smi", "nvlink", "-s")),
        log=LOG,
        judge=judge_health,
        errors=Watched(("nvidia-smi", "nvlink", "-e")),
        capabilities=Watched(("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")),  # `9.0`
        whole=Watched(("nvidia-smi", "-q", "-x")),
        count=read_link_errors,
        judge_growth=judge_link_errors,
        serials=find_serials,
    ),
    figures=FigureProgram(
        text=program_text,
        options=("seconds=5", f"collective={1 << 30}"),
        holders=("nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader"),
        burn=burn.SCRIPT,
        burned=burn.judge_burn,
        needs=rdma.LOOK,
        needed=rdma.judge_rdma,
    ),
)
