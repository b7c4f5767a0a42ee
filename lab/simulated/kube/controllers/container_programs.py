"""What a container does when it runs on a host: known images by their function, commands by the interpreter."""

from __future__ import annotations

from lab.simulated.kube.container_shell import Program, run_words
from lab.simulated.kube.container_tools import Machine
from lab.simulated.kube.hosts import HostState, runs_nvidia
from lab.simulated.kube.objects import Obj, dig, name_of

DEVICE_PLUGIN = "k8s-device-plugin"
GPU = "nvidia.com/gpu"


def is_device_plugin(container: Obj) -> bool:
    """Say whether a container is NVIDIA's device plugin."""
    return DEVICE_PLUGIN in str(container.get("image", ""))


def gpu_count(container: Obj) -> int:
    """Give the number of cards that a container asks for."""
    return int(dig(container, "resources", "limits", GPU, default=0))


def environment(pod: Obj, container: Obj, host: HostState) -> dict[str, str]:
    """Give a container's environment from its pod spec; references to ConfigMaps and Secrets are left out."""
    fields = {
        "spec.nodeName": host.name,
        "metadata.name": name_of(pod),
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"]["uid"],
        "status.hostIP": host.address,
        "spec.serviceAccountName": str(dig(pod, "spec", "serviceAccountName", default="")),
    }
    found = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": name_of(pod)}
    for variable in container.get("env") or []:
        field = dig(variable, "valueFrom", "fieldRef", "fieldPath")
        if field is not None:
            found[variable["name"]] = fields.get(field, "")
        elif "valueFrom" not in variable:
            found[variable["name"]] = str(variable.get("value", ""))
    return found


def machine_for(pod: Obj, container: Obj, host: HostState, handler: str | None, cards: list[str]) -> Machine:
    """Give what a container sees.

    CUDA images ask for all cards by themselves (NVIDIA_VISIBLE_DEVICES=all), so under an nvidia runtime a pod that
    requested none sees every card: that is how the real runtime behaves too.
    """
    env = environment(pod, container, host)
    image = str(container.get("image", ""))
    if cards:
        env["NVIDIA_VISIBLE_DEVICES"] = ",".join(cards)
    elif "cuda" in image or "nvidia" in image:
        env.setdefault("NVIDIA_VISIBLE_DEVICES", "all")
    visible = env.get("NVIDIA_VISIBLE_DEVICES", "void")
    nvidia = runs_nvidia(host, handler) and visible != "void"
    healthy = [uuid for uuid, well in host.cards if well]
    wanted = healthy if visible == "all" else [uuid for uuid in healthy if uuid in visible.split(",")]
    return Machine(env, name_of(pod), nvidia and bool(host.cards), wanted if nvidia else [])


def plugin_program(container: Obj, host: HostState, handler: str | None) -> Program:
    """Give what the device plugin logs where it starts: it sees cards only under an nvidia runtime."""
    lines = ["Starting NVIDIA Device Plugin (SIMULATED)", "Starting FS watcher for /var/lib/kubelet/device-plugins"]
    if runs_nvidia(host, handler) and host.cards:
        lines += [
            "Retrieving plugins.",
            f"Starting GRPC server for '{GPU}'",
            f"Starting to serve '{GPU}' on /var/lib/kubelet/device-plugins/nvidia-gpu.sock",
            f"Registered device plugin for '{GPU}' with Kubelet",
        ]
        return Program([(0.1, line) for line in lines])
    lines += [
        "Incompatible strategy detected auto",
        "If this is a GPU node, did you configure the NVIDIA Container Toolkit?",
        "If this is not a GPU node, keep this plugin off it by a nodeSelector",
    ]
    patience = next((v.get("value") for v in container.get("env") or [] if v["name"] == "FAIL_ON_INIT_ERROR"), "true")
    if str(patience).lower() == "false":
        return Program([(0.1, line) for line in [*lines, "No devices found. Waiting indefinitely."]])
    lines.append(
        "error starting plugins: error creating plugin manager: unable to create plugin manager: "
        "invalid device discovery strategy"
    )
    return Program([(0.1, line) for line in lines], ends=0.5, code=1)


def program_for(pod: Obj, container: Obj, host: HostState, handler: str | None, cards: list[str]) -> Program:
    """Give what a container does. A program that the simulation does not know runs for ever and writes nothing."""
    if is_device_plugin(container):
        return plugin_program(container, host, handler)
    machine = machine_for(pod, container, host, handler, cards)
    words = [str(word) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
    if not container.get("command") and "vectoradd" in str(container.get("image", "")).lower():
        words = ["vectorAdd"] if not words else ["sh", *words] if words[0].startswith("-") else words
    if not words:
        return Program()
    # The kubelet, not a shell, replaces $(NAME) in commands.
    for name, value in machine.env.items():
        words = [word.replace(f"$({name})", value) for word in words]
    return run_words(words, machine) or Program()
