"""nvidia-smi and nvidia-ctk: the GPUs as the driver shows them, and how the toolkit is configured."""

from __future__ import annotations

import math
import tomllib
import uuid
from typing import TYPE_CHECKING, Any

import tomli_w

from lab.gpu_report import write_report
from lab.simulated.commands.registry import Call, program

if TYPE_CHECKING:
    from lab.simulated.host import Gpu, GpuDevice, SimulatedHost

TOOLKIT_CONFIG = "/etc/nvidia-container-runtime/config.toml"
MOUNTS = "accept-nvidia-visible-devices-as-volume-mounts"
VARIABLE = "accept-nvidia-visible-devices-envvar-when-unprivileged"
DEFAULTS = {MOUNTS: False, VARIABLE: True}
# Some of the layouts that NVIDIA's program makes of an H200: the parts of each GPU.
LAYOUTS = {
    "all-disabled": [],
    "all-1g.18gb": ["1g.18gb"] * 7,
    "all-2g.35gb": ["2g.35gb"] * 3,
    "all-3g.71gb": ["3g.71gb"] * 2,
}
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
    told = _say(gpu, call.args)
    return call.not_simulated() if told is None else call.say(told)


def _say(gpu: Gpu, args: tuple[str, ...]) -> str | None:
    """Return what it says; None for what is not simulated."""
    if "-L" in args:
        return "".join(line for at, one in enumerate(gpu.devices) for line in _listed(at, one))
    if args == ("-q",):
        return write_report([(one.uuid, one.name, one.rows) for one in gpu.devices], gpu.driver)
    if args[:1] == ("--query-compute-apps=pid,process_name",):
        return ""  # no process of the simulation computes: so an H200 says it
    if args[:1] == ("nvlink",) and args[1:] in (("-s",), ("-e",)):
        return "".join(_links(at, one, args[1]) for at, one in enumerate(gpu.devices))
    return _other(gpu, args)


def _other(gpu: Gpu, args: tuple[str, ...]) -> str | None:
    """Say what the GPUs can compute, which there are as XML, or the short table."""
    if args == ("--query-gpu=compute_cap", "--format=csv,noheader"):
        return "".join(f"{one.capability}\n" for one in gpu.devices)
    if args == ("-q", "-x"):
        rows = "".join(f"\t<gpu><uuid>{one.uuid}</uuid></gpu>\n" for one in gpu.devices)
        return f"<nvidia_smi_log>\n\t<!-- SIMULATED -->\n{rows}</nvidia_smi_log>\n"
    table = f"| NVIDIA-SMI {gpu.driver}   Driver Version: {gpu.driver}   CUDA Version: 12.4 |  SIMULATED\n"
    return None if args else table


def _listed(at: int, gpu: GpuDevice) -> list[str]:
    """Return a GPU and its parts, as they are listed."""
    parts = [
        f"  MIG {profile:<12}Device {number:>2}: (UUID: {uuid})\n"
        for number, (uuid, profile) in enumerate(gpu.parts.items())
    ]
    return [f"GPU {at}: {gpu.name} (UUID: {gpu.uuid})\n", *parts]


@program("nvidia-mig-parted")
async def mig_parted(call: Call) -> int:
    """Compare how the GPUs are divided with a layout of an H200's, or divide them so; its words are of 0.15.0."""
    verb, *words = call.args
    name = dict(zip(words[::2], words[1::2], strict=False)).get("-c", "")
    if verb not in ("assert", "apply"):
        return call.not_simulated()
    if name not in LAYOUTS:
        return _fatal(call, f"Error selecting MIG config: selected mig-config not present: {name}")
    wanted, mode = LAYOUTS[name], "Disabled" if name == "all-disabled" else "Enabled"
    devices = call.host.gpu.devices
    if verb == "assert":
        same = all((_mode(one), sorted(one.parts.values())) == (mode, wanted) for one in devices)
        said = "Selected MIG configuration currently applied\n"
        return (
            call.say(said) if same else _fatal(call, "Assertion failure: selected configuration not currently applied")
        )
    await call.took(2.0)
    for one in devices:
        one.rows |= {"MIG Mode/Current": mode, "MIG Mode/Pending": mode}
        one.parts = {f"MIG-{uuid.uuid4()}": profile for profile in wanted}
    return call.say("MIG configuration applied successfully\n")


def _mode(gpu: GpuDevice) -> str:
    return gpu.rows.get("MIG Mode/Current", "Disabled")


def _fatal(call: Call, said: str) -> int:
    return call.warn(f'time="2026-11-30T10:30:00Z" level=fatal msg="{said}"\n')


def _links(at: int, gpu: GpuDevice, what: str) -> str:
    """Return a GPU's NVLinks: their speed or their counters, as recorded on H200."""
    said = f"GPU {at}: {gpu.name} (UUID: {gpu.uuid})\n"
    for link in range(gpu.links):
        if what == "-s":
            said += f"\t Link {link}: 26.562 GB/s\n"
            continue
        names = ("Replay Errors", "Recovery Errors", "CRC Errors")
        counts = {name: gpu.link_errors.get(f"{link}: {name}", 0) for name in names}
        said += "".join(f"\t Link {link}: {name}: {count}\n" for name, count in counts.items()) + "\n"
    return said


def toolkit(call: Call) -> str:
    """Return the installed toolkit's version."""
    return call.host.packages.installed["nvidia-container-toolkit-base"].version.split("-")[0]


@program("nvidia-ctk", needs=("nvidia-container-toolkit-base",))
async def ctk(call: Call) -> int:
    """Say the version, or print the toolkit's configuration."""
    if "--version" in call.args:
        return call.say(f"NVIDIA Container Toolkit CLI version {toolkit(call)}\ncommit: SIMULATED\n")
    return _config(call) if call.args == ("config",) else call.not_simulated()


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
