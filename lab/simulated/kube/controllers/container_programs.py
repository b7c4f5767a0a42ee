"""What a container does when it runs on a host: known images by their function, verification pods by what they see."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import yaml

from lab.simulated import recorded
from lab.simulated.kube.hosts import Sharing, SimpleHost, runs_nvidia
from lab.simulated.kube.objects import Obj, dig, name_of
from lab.simulated.kube.pod_programs import Machine, Program, run_words

MOUNT_ROOT = "/var/run/nvidia-container-devices"
# Seen on real hosts, with the words of the toolkit after it (containerd 2.1, toolkit 1.20).
_REFUSED = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: could not apply required "
    "modification to OCI specification: error modifying OCI spec: failed to construct discoverer:"
)
DEVICE_PLUGIN = "k8s-device-plugin"
VENDOR = "nvidia.com/"  # what its resources begin with


class ContainerRefusedError(Exception):
    """The runtime does not start a container, with its words."""


@dataclass(frozen=True)
class Given:
    """The GPUs that a device plugin allocated to a container, and the strategy by which it handed them out."""

    gpus: list[str] = field(default_factory=list)
    strategy: str = "envvar"


def strategy_of(pod: Obj) -> str:
    """Return how a device plugin's pod hands GPUs out (DEVICE_LIST_STRATEGY)."""
    variables = [one for container in pod["spec"]["containers"] for one in container.get("env") or []]
    return next((str(one.get("value")) for one in variables if one["name"] == "DEVICE_LIST_STRATEGY"), "envvar")


def sees_host(pod: Obj, container: Obj) -> bool:
    """Say whether a container sees its host's driver as it is: privileged, with the root mounted for the plugin."""
    roots = {one["name"] for one in pod["spec"].get("volumes") or [] if dig(one, "hostPath", "path") == "/"}
    mounted = {one["name"] for one in container.get("volumeMounts") or [] if one["mountPath"] == "/driver-root"}
    return bool(roots & mounted) and bool(dig(container, "securityContext", "privileged"))


def is_device_plugin(container: Obj) -> bool:
    """Say whether a container is NVIDIA's device plugin, and not another program of its image."""
    return DEVICE_PLUGIN in str(container.get("image", "")) and not container.get("command")


def drives_claims(pod: Obj, container: Obj) -> bool:
    """Say whether a container is NVIDIA's driver of claims, as it can work: it sees the host's driver."""
    return "gpu-kubelet-plugin" in (container.get("command") or []) and sees_host(pod, container)


def sees_driver(host: SimpleHost) -> bool:
    """Say whether a program that has the host's driver sees GPUs by it."""
    return bool(host.gpus) and not host.nvml_fault


def asked(container: Obj) -> dict[str, int]:
    """Return how much of which of the vendor's resources a container asks for."""
    limits = dig(container, "resources", "limits", default={}) or {}
    return {name: int(amount) for name, amount in limits.items() if name.startswith(VENDOR)}


def environment(container: Obj, host: SimpleHost) -> dict[str, str]:
    """Return a container's plain variables and its node's name; other references are left out."""
    found = {}
    for variable in container.get("env") or []:
        if dig(variable, "valueFrom", "fieldRef", "fieldPath") == "spec.nodeName":
            found[variable["name"]] = host.name
        elif "valueFrom" not in variable:
            found[variable["name"]] = str(variable.get("value", ""))
    return found


def machine_for(pod: Obj, container: Obj, host: SimpleHost, handler: str | None, given: Given) -> Machine:
    """Return what a container sees. Raises ContainerRefusedError where the nvidia runtime does not start it.

    CUDA images ask for all GPUs by themselves (NVIDIA_VISIBLE_DEVICES=all), so under an nvidia runtime that accepts the
    variable a pod that requested none sees every GPU: that is how the real runtime behaves too.
    """
    env = environment(container, host)
    image = str(container.get("image", ""))
    if "cuda" in image or "nvidia" in image:
        env.setdefault("NVIDIA_VISIBLE_DEVICES", "all")
    mounts = own_requests(pod, container)
    parts = {part: gpu for gpu, some in host.sharing.parts.items() for part in some}
    if given.strategy == "cdi-cri" and given.gpus:  # containerd puts them in, under any runtime; 1.x does not know it
        served = not host.containerd_version.startswith("1.")
        return Machine(env, name_of(pod), served, given.gpus if served else [], parts)
    if given.gpus:  # as Allocate answers: with both strategies the path of the mounts has the last word
        by_mounts = "volume-mounts" in given.strategy
        env["NVIDIA_VISIBLE_DEVICES"] = MOUNT_ROOT if by_mounts else ",".join(given.gpus)
        mounts += given.gpus if by_mounts else []
    wanted = requested(host, mounts, env.get("NVIDIA_VISIBLE_DEVICES", ""))
    if not runs_nvidia(host, handler) or not wanted:
        return Machine(env, name_of(pod))
    if host.nvml_fault:
        raise ContainerRefusedError(f"{_REFUSED} failed to initialize NVML: {host.nvml_fault}")
    known = [*(uuid for uuid, _ in host.gpus), *parts]
    if unknown := [name for name in wanted if name not in (*known, "all")]:
        raise ContainerRefusedError(f"{_REFUSED} unresolvable CDI devices runtime.nvidia.com/gpu={unknown[0]}")
    healthy = [uuid for uuid, well in host.gpus if well]
    seen = healthy if "all" in wanted else [uuid for uuid in (*healthy, *parts) if uuid in wanted]
    return Machine(env, name_of(pod), bool(host.gpus), seen, parts, host.figures)


def own_requests(pod: Obj, container: Obj) -> list[str]:
    """Return the GPUs that a container asks for by mounts of its own: /dev/null of the host below the toolkit's path."""
    nulls = {one["name"] for one in pod["spec"].get("volumes") or [] if dig(one, "hostPath", "path") == "/dev/null"}
    paths = [one["mountPath"] for one in container.get("volumeMounts") or [] if one["name"] in nulls]
    return [path.removeprefix(f"{MOUNT_ROOT}/") for path in paths if path.startswith(f"{MOUNT_ROOT}/")]


def requested(host: SimpleHost, mounts: list[str], variable: str) -> list[str]:
    """Return what the toolkit takes for a container's request (cuda_image.go, VisibleDevices): mounts, else variable."""
    takes_mounts, takes_variable = host.toolkit_takes()
    if takes_mounts and mounts:
        return mounts
    names = [] if variable in {"", "void", "none"} else variable.split(",")
    return names if takes_variable else []


def plugin_sees(pod: Obj, container: Obj, host: SimpleHost, handler: str | None) -> bool:
    """Say whether the device plugin sees GPUs: under an nvidia runtime, or by the host's driver where it mounts it."""
    if sees_host(pod, container):
        return sees_driver(host)
    return bool(machine_for(pod, container, host, handler, Given()).gpus)


def plugin_program(pod: Obj, container: Obj, host: SimpleHost, handler: str | None) -> Program:
    """Return what the device plugin logs where it starts: it sees GPUs only under an nvidia runtime."""
    variables = {one["name"]: str(one.get("value")) for one in container.get("env") or []}
    patient = variables.get("FAIL_ON_INIT_ERROR", "true").lower() == "false"
    sees = plugin_sees(pod, container, host, handler)
    end = "sees" if sees else "waits" if patient else "ends"
    lines = [(0.1, line) for line in recorded.table("device_plugin.yaml")[end]]
    lines[2:2] = [(0.1, line) for line in _config(host)]
    return Program(lines, ends=0.5, code=1) if end == "ends" else Program(lines)


def configured(pod: Obj, config_maps: Callable[[str, str], Obj | None]) -> Sharing | None:
    """Return how a device plugin's pod is configured to share GPUs: by the file that it mounts; None without one."""
    variables = [one for container in pod["spec"]["containers"] for one in container.get("env") or []]
    path = next((str(one.get("value")) for one in variables if one["name"] == "CONFIG_FILE"), "")
    mounts = [one for container in pod["spec"]["containers"] for one in container.get("volumeMounts") or []]
    volume = next((one["name"] for one in mounts if path.startswith(f"{one['mountPath']}/")), "")
    volumes: dict[str, Obj] = {one["name"]: one for one in pod["spec"].get("volumes") or []}
    found = config_maps(
        pod["metadata"]["namespace"], str(dig(volumes.get(volume, {}), "configMap", "name", default=""))
    )
    if not path or found is None:
        return None
    data: Obj = yaml.safe_load(found["data"][path.rpartition("/")[2]])
    sharing: Obj = data.get("sharing") or {}
    way = next(iter(sharing), "timeSlicing")
    shared: Obj = sharing.get(way) or {}
    rows: list[Obj] = shared.get("resources") or [{}]
    strategy = str(dig(data, "flags", "migStrategy", default="none"))
    return Sharing(rows[0].get("replicas", 1), way, shared.get("renameByDefault", False), strategy=strategy)


def _config(host: SimpleHost) -> list[str]:
    """Return what the plugin logs of its configuration, as it was seen on an H200 (0.20.0), cut short."""
    how = host.sharing
    named = {"rename": "nvidia.com/gpu.shared"} if how.renamed else {}
    rows = [{"name": "nvidia.com/gpu", **named, "devices": "all", "replicas": how.replicas}] if how.replicas > 1 else []
    flags = {**({"renameByDefault": True} if how.renamed else {}), "failRequestsGreaterThanOne": True}
    sharing: Obj = {"timeSlicing": {}, how.way: {**flags, "resources": rows} if rows else {}}
    config = {"version": "v1", "flags": {"migStrategy": how.strategy, "failOnInitError": False}, "sharing": sharing}
    return ["", "Running with config:", *json.dumps(config, indent=2).splitlines()]


def program_for(pod: Obj, container: Obj, host: SimpleHost, handler: str | None, given: Given) -> Program:
    """Return what a container does. A program that the simulation does not know runs for ever and writes nothing."""
    if is_device_plugin(container):
        return plugin_program(pod, container, host, handler)
    machine = machine_for(pod, container, host, handler, given)
    words = [str(word) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
    return (run_words(words, machine) if words else None) or Program()
