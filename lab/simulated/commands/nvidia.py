"""nvidia-smi and nvidia-ctk: the GPUs as the driver shows them, and the toolkit that configures runtimes."""

from __future__ import annotations

import math
import tomllib
from typing import TYPE_CHECKING, Any

import tomli_w

from lab.simulated import containerd
from lab.simulated.commands.arguments import parse
from lab.simulated.commands.registry import Call, program
from lab.simulated.versions import compare

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost

TOOLKIT_CONFIG = "/etc/nvidia-container-runtime/config.toml"
MOUNTS = "accept-nvidia-visible-devices-as-volume-mounts"
VARIABLE = "accept-nvidia-visible-devices-envvar-when-unprivileged"
DEFAULTS = {MOUNTS: False, VARIABLE: True}
# The driver's own words and exit statuses (nvidia-smi's manual page, RETURN VALUE).
_UNREACHABLE = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)
_TROUBLES = {
    "mismatch": ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.163", 18),
    "unreachable": (_UNREACHABLE, 9),
    "none": ("No devices were found", 6),
}


@program("nvidia-smi")
async def smi(call: Call) -> int:
    """Show the GPUs."""
    gpu = call.host.gpu
    if gpu.trouble == "hang":
        await call.took(math.inf)
    if gpu.trouble in _TROUBLES:
        said, status = _TROUBLES[gpu.trouble]
        call.say(f"{said}\n")
        return status
    await call.took(0.3)
    asked = parse(call.args, flags="-L --list-gpus -q", values="--query-gpu --format -i --id")
    if asked.has("-L", "--list-gpus"):
        return call.say("".join(f"GPU {at}: {card.name} (UUID: {card.uuid})\n" for at, card in enumerate(gpu.cards)))
    fields = [field.strip() for field in asked.value("--query-gpu").split(",") if field.strip()]
    if not fields:
        return call.say(f"| NVIDIA-SMI {gpu.driver}   Driver Version: {gpu.driver}   CUDA Version: 12.4 |  SIMULATED\n")
    shape = asked.value("--format").split(",")
    if "noheader" not in shape:
        call.say(", ".join(fields) + "\n")
    for index, card in enumerate(gpu.cards):
        memory = "23028" if "nounits" in shape else "23028 MiB"
        known = {
            "index": str(index),
            "uuid": card.uuid,
            "gpu_uuid": card.uuid,
            "name": card.name,
            "driver_version": gpu.driver,
            "pci.bus_id": f"0000{call.host.kernel.pci[index][0]}".upper(),
            "memory.total": memory,
            "compute_cap": "8.6",
        }
        unknown = [field for field in fields if field not in known]
        if unknown:
            return call.say(f'Field "{unknown[0]}" is not a valid field to query.\n\n') or 2
        call.say(", ".join(known[field] for field in fields) + "\n")
    return 0


def toolkit(call: Call) -> str:
    """Return the installed toolkit's version."""
    return call.host.packages.installed["nvidia-container-toolkit-base"].version.split("-")[0]


@program("nvidia-ctk", needs=("nvidia-container-toolkit-base",))
async def ctk(call: Call) -> int:
    """Say the version, or put the nvidia runtime into containerd's configuration."""
    if "--version" in call.args:
        return call.say(f"NVIDIA Container Toolkit CLI version {toolkit(call)}\ncommit: SIMULATED\n")
    flags = "--set-as-default --nvidia-set-as-default --dry-run --cdi.enabled"
    asked = parse(call.args, flags=flags, values="--runtime --config --drop-in-config --config-source")
    if asked.rest[:1] == ["config"] and len(call.args) == 1:
        return _config(call)
    if asked.rest[:2] != ["runtime", "configure"]:
        return call.warn("nvidia-ctk: SIMULATED hosts know --version, `config` and `runtime configure` alone")
    if not call.root:
        return call.warn("ERRO[0000] unable to flush config: permission denied")
    path = asked.value("--config", default=containerd.CONFIG)
    version = toolkit(call)
    dropin = "" if compare(version, "1.18.0") < 0 else asked.value("--drop-in-config", default=_dropin(version))
    data: dict[str, Any] = tomllib.loads(call.host.files.text(path)) if call.host.files.exists(path) else {}
    data.setdefault("version", containerd.layout(call.host.services.containerd_version))
    call.warn(f"INFO[0000] Using config version {data['version']}")
    target = {"version": data["version"]} if dropin else data
    _add_runtime(target, as_default=asked.has("--set-as-default", "--nvidia-set-as-default"))
    call.host.files.make_directory((dropin or path).rsplit("/", 1)[0])
    call.host.files.write(dropin or path, tomli_w.dumps(target).encode())
    if dropin and compare(version, "1.18.0") > 0:  # 1.18.0 forgot the import (nvidia-container-toolkit#1404)
        imports = data.setdefault("imports", [])
        pattern = f"{dropin.rsplit('/', 1)[0]}/*.toml"
        if pattern not in imports:
            imports.append(pattern)
            call.host.files.write(path, tomli_w.dumps(data).encode())
    call.warn(f"INFO[0000] Wrote updated config to {dropin or path}")
    call.warn("INFO[0000] It is recommended that containerd daemon be restarted.")
    return 0


def _config(call: Call) -> int:
    """Print the configuration as it counts: what is left at its default stands there as a comment (toml.go)."""
    try:
        data = _read(call.host)
    except tomllib.TOMLDecodeError as error:
        return call.warn(f'level=error msg="unable to create config: {error}"') or 1
    plain = {key: value for key, value in data.items() if DEFAULTS.get(key) != value}
    comments = [f"#{key} = {str(value).lower()}" for key, value in DEFAULTS.items() if key not in plain]
    return call.say("\n".join(comments) + "\n" * bool(comments) + tomli_w.dumps(plain))


def _read(host: SimulatedHost) -> dict[str, Any]:
    return tomllib.loads(host.files.text(TOOLKIT_CONFIG)) if host.files.exists(TOOLKIT_CONFIG) else {}


def setting(host: SimulatedHost, key: str) -> bool:
    """Return one of the toolkit's two settings about device lists, as a container's start finds it."""
    try:
        return bool(_read(host).get(key, DEFAULTS[key]))
    except tomllib.TOMLDecodeError:
        return DEFAULTS[key]


def _dropin(version: str) -> str:
    return "/etc/containerd/config.d/99-nvidia.toml" if version == "1.18.0" else "/etc/containerd/conf.d/99-nvidia.toml"


def _add_runtime(data: dict[str, Any], *, as_default: bool) -> None:
    plugin = containerd.CRI2 if data["version"] == 2 else containerd.RUNTIME
    cri: dict[str, Any] = data.setdefault("plugins", {}).setdefault(plugin, {})
    engine: dict[str, Any] = cri.setdefault("containerd", {})
    runtimes: dict[str, Any] = engine.setdefault("runtimes", {})
    options = {**runtimes.get("runc", {}).get("options", {}), "BinaryName": "/usr/bin/nvidia-container-runtime"}
    runtimes["nvidia"] = {
        "privileged_without_host_devices": False,
        "runtime_engine": "",
        "runtime_root": "",
        "runtime_type": "io.containerd.runc.v2",
        "options": options,
    }
    if as_default:
        engine["default_runtime_name"] = "nvidia"
