"""Known failures between a GPU and a pod: driver, toolkit, runtime, device plugin, kubelet."""

from __future__ import annotations

from shipway.known_failures.entry import Known

ENTRIES: tuple[Known, ...] = (
    Known(
        "SHW-451",
        "driver and library are of different versions",
        r"Driver/library version mismatch",
        "The NVIDIA packages were upgraded while the old kernel module stayed loaded.",
        "Drain the node and restart the host; keep the driver on hold: `sudo apt-mark hold 'nvidia-*' 'libnvidia-*'`.",
        retryable=False,
        traps=(3,),
    ),
    Known(
        "SHW-452",
        "a running container lost its GPUs",
        r"Failed to initialize NVML: Unknown Error",
        "`systemctl daemon-reload` took the device rights from running containers (systemd cgroups, no "
        "/dev/char links).",
        "Delete the pod so that it starts anew; for good: `nvidia-ctk system create-dev-char-symlinks --create-all`.",
        retryable=False,
        traps=(28,),
    ),
    Known(
        "SHW-614",
        "NVIDIA's management library does not load",
        r"(?i:failed to initiali[sz]e NVML: (?:ERROR_)?(?:LIBRARY[ _]NOT[ _]FOUND|DRIVER[ _]NOT[ _]LOADED|LIB\w*VERSION"
        r"\w*|UNINITIALIZED|FUNCTION[ _]NOT[ _]FOUND)|could not load NVML library|couldn't find libnvidia-ml\.so"
        # NVIDIA's runtime ends so by itself where the library lacks a function (the dynamic linker's 127).
        r"|nvidia-container-runtime did not terminate successfully: exit status 127"
        r"|nvml error: driver (?:not loaded|/library))",
        "NVML (libnvidia-ml.so.1, the driver's own library) does not load, so no container gets a GPU there.",
        "On the host: `nvidia-smi; ldconfig -p | grep libnvidia-ml`; install or repair the driver, run again.",
        retryable=False,
        traps=(26, 33),
    ),
    Known(
        "SHW-454",
        "the kernel refuses the driver's module",
        r"Loading of unsigned module is rejected|Key was rejected by service",
        "Secure Boot is on and the module is not signed with a key the machine trusts.",
        "On the host: `mokutil --sb-state`; enroll the key (`mokutil --import`), or use the distribution's "
        "signed driver.",
        retryable=False,
        traps=(33,),
    ),
    Known(
        "SHW-455",
        "the nouveau driver holds the GPU",
        r"Nouveau kernel driver is currently in use",
        "The open driver nouveau is loaded, so NVIDIA's cannot be.",
        "On the host: put `blacklist nouveau` into /etc/modprobe.d, `sudo update-initramfs -u`, restart it.",
        retryable=False,
        traps=(33,),
    ),
    Known(
        "SHW-453",
        "the driver does not answer",
        r"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver|"
        r"modprobe: (?:ERROR|FATAL): [^\n]*nvidia",
        "The kernel module is not loaded (a new kernel without it, Secure Boot, no driver at all), or its device files "
        "are not there.",
        "On the host: `lsmod | grep nvidia; ls -l /dev/nvidia*; dkms status; uname -r`. Loaded, without "
        "/dev/nvidiactl: `sudo nvidia-modprobe -c 0 -u`. Not loaded: install the driver for this kernel, restart "
        "the host.",
        retryable=False,
        traps=(4, 33),
    ),
    Known(
        "SHW-456",
        "the GPU's fabric is not ready",
        r"cudaErrorSystemNotReady|system not yet initialized|CUDA error:? 802|error code 802|"
        r"nvidia-fabricmanager is |the fabric's (?:state|status|health) is |ib_umad is not loaded",
        "On NVSwitch machines CUDA waits for nvidia-fabricmanager (with NVLink 5 nvlsm too), which does not run, is of "
        "another version, or has not joined the GPUs.",
        "On the host: install nvidia-fabricmanager of exactly the driver's version (HGX B200 and B300: `nvlsm` and "
        "`modprobe ib_umad` too), `sudo systemctl enable --now nvidia-fabricmanager`; `nvidia-smi -q | grep -A2 "
        "Fabric` must say Completed and Success. Never restart it beside workloads: reset the GPUs or reboot, drained.",
        retryable=False,
        traps=(31,),
    ),
    Known(
        "SHW-457",
        "the device plugin sees no GPU",
        r"Incompatible (?:device discovery )?strategy detected|No devices found\. Waiting indefinitely",
        "The plugin's container does not run under the nvidia runtime: it is not the default, and no "
        "RuntimeClass is set.",
        "Set `gpu.mode` (runtime_class, default_runtime or cdi) in the cluster file and run again; judge by the node's "
        "allocatable, not by the pod being Ready.",
        retryable=False,
        traps=(23, 27),
    ),
    Known(
        "SHW-458",
        "the toolkit does not find the driver's library",
        r"nvidia-container-cli: (?:initialization|detection|mount) error|"
        r"libnvidia-ml\.so\.1: cannot open shared object",
        "The nvidia runtime is used on a host whose driver is absent or broken.",
        "On the host: `nvidia-smi; ldconfig -p | grep libnvidia-ml`; install the driver, or declare `gpus: 0`.",
        retryable=False,
        traps=(26,),
    ),
    Known(
        "SHW-459",
        "the nvidia runtime's program is missing",
        r"(?:exec: \"|fork/exec )?(?:/usr/bin/)?nvidia-container-runtime\"?: "
        r"(?:executable file not found|no such file or directory)",
        "containerd names the nvidia runtime, and its program is not installed (or in another containerd's place).",
        "On the host: `sudo apt-get install --reinstall nvidia-container-toolkit`; one containerd a host.",
        retryable=False,
        traps=(22, 26),
    ),
    Known(
        "SHW-652",
        "containerd does not know the GPU that the plugin named",
        r"unresolvable CDI devices k8s\.device-plugin\.nvidia\.com/",
        "With `gpu.mode: cdi` containerd puts in what a file in /var/run/cdi describes; the plugin writes it when it "
        "starts, and the GPU is not in it, or it is gone.",
        "On the host: `ls -l /var/run/cdi; nvidia-smi -L`. `kubectl -n kube-system delete pod -l "
        "name=nvidia-device-plugin-ds --field-selector spec.nodeName=NODE` makes the plugin write it anew.",
        retryable=True,
    ),
    Known(
        "SHW-653",
        "the plugin that hands GPUs out by CDI does not find the driver",
        r"CDI --device-list-strategy options are only supported on NVML-based systems",
        "It looks for libnvidia-ml.so.1 below /usr/lib and /lib64 of the host, and finds none.",
        "On the host: `ldconfig -p | grep libnvidia-ml`. Install the driver by packages, or set `gpu.mode: "
        "runtime_class`; declare `gpus: 0` for a host that is to have no GPU.",
        retryable=False,
    ),
    Known(
        "SHW-658",
        "the driver of claims does not answer the kubelet",
        r"DRA driver gpu\.nvidia\.com is not registered",
        "The pod has its GPU by a claim, and NVIDIA's driver of claims is not there on its node, starts just now, or "
        "the kubelet does not see it.",
        "`kubectl -n kube-system get pods -o wide -l name=nvidia-dra-driver-gpu-ds`: delete the one of that node; "
        "a new one makes itself known. Where that is not enough, restart the kubelet there once no pod holds its GPUs.",
        retryable=True,
    ),
    Known(
        "SHW-460",
        "the kubelet could not hand out a GPU",
        r"UnexpectedAdmissionError|requested number of devices unavailable|can't allocate unregistered device",
        "Kubelet and device plugin disagree about the GPUs, mostly after one of them was restarted.",
        "`kubectl -n kube-system rollout restart daemonset/nvidia-device-plugin-daemonset`; if it stays, restart the "
        "node's kubelet.",
        retryable=True,
        traps=(30, 47),
    ),
    Known(
        "SHW-461",
        "the driver hangs in the kernel",
        r"nvidia-smi does not end",
        "A call into the NVIDIA driver never returns (often after a GPU fell off the bus); even KILL does not end it.",
        "Restart the host (`sudo reboot`; where that hangs too, power it off); then `sudo dmesg | grep -iE "
        "'xid|fallen off'` says which GPU.",
        retryable=False,
        traps=(32,),
    ),
    Known(
        "SHW-619",
        "the driver does not show every GPU",
        r"the driver (?:says: |shows [0-9])|Unable to determine the device handle for [Gg][Pp][Uu]|GPU is lost\b",
        "NVIDIA's driver runs and does not show every GPU that is on the bus; its own words stand beside this.",
        "On the host: `nvidia-smi; sudo dmesg | grep -iE 'NVRM|xid'`; a GPU that is lost comes back with a restart of "
        "the host or not at all. To go on without it, declare the smaller number as `gpus`.",
        retryable=False,
        traps=(4, 32),
    ),
)
