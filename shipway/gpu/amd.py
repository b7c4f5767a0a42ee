"""AMD: what is publicly known of its Instinct GPUs, as data. NOT RUN: nothing chooses it, and no such GPU was seen.

Names of the DaemonSet, its log and its device nodes are read in ROCm/k8s-device-plugin (k8s-ds-amdgpu-dp.yaml,
internal/pkg/plugin/plugin.go); the words of rocm-smi are its documents'. What an MI300X reaches: 668 of 1300 TFLOP/s in
bf16 (stas00/ml-engineering), RCCL 314 GB/s over eight (Azure's floor); nothing of ours measures it yet.
"""

from __future__ import annotations

import re

from shipway.facts.commands import Watched
from shipway.gpu.vendor import DevicePlugin, Sample, Vendor

AMD = Vendor(
    name="AMD",
    pci_id="1002",
    module="amdgpu",
    probe=Watched(("rocm-smi", "--showuniqueid"), seconds=30),
    listed=re.compile(r"^GPU\[[0-9]+\]\s*: Unique ID: (0x[0-9a-f]+)", re.MULTILINE),
    driver_failed=(r"driver not initialized \(amdgpu not found",),
    kernel_word="amdgpu",
    packages=("amdgpu*", "rocm*", "hip*", "hsa*"),
    sources=("amdgpu*", "rocm*"),
    resource="amd.com/gpu",
    # What AMD's GPU operator selects nodes by (its NodeFeatureRule sets it).
    label="feature.node.kubernetes.io/amd-gpu",
    product_label="amd.com/gpu.product-name",
    plugin=DevicePlugin(
        daemon_set="amdgpu-device-plugin-daemonset",
        namespace="kube-system",
        labels={"name": "amdgpu-dp-ds"},
        manifest="device-plugin-amd/daemonset.yaml",
        registered="Watching GPU with bus ID",
        sees_none=("Found 0 AMDGPUs", "No GPU nodes found via properties"),
    ),
    held=re.compile(r"Unique ID: (0x[0-9a-f]+)"),
    devices="/dev/dri/renderD*",
    device=re.compile(r"/dev/dri/renderD[0-9]+\b"),
    sample=Sample("HIP sample", "HIP", "/opt/samples/vectoradd_hip", "PASSED!", (r"hipError",)),
)
