"""Drift on request: what somebody or something else changed on a host behind Shipway's back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lab.simulated.adapters import Adapter
from lab.simulated.host import SimulatedHost
from lab.simulated.login_shell import make_noisy

Values = Mapping[str, str]
LINKS = 18  # of an H100 or H200


def _files(host: SimulatedHost, kind: str, values: Values) -> None:
    path = values["path"]
    if kind == "remove":
        host.files.remove(path)
    elif kind == "mode":
        host.files.change(path, mode=int(values["mode"], 8))
    else:
        text = host.files.text(path)
        edited = (
            text.replace(values["old"], values.get("new", "")) if "old" in values else text + values.get("add", "\n")
        )
        host.files.write(path, edited.encode())


def _units(host: SimulatedHost, kind: str, values: Values) -> None:
    unit = host.units.get(values["unit"])
    if unit is not None and kind == "stop":
        host.units.stop(unit)
    elif unit is not None:
        host.units.disable(unit)


def _kernel(host: SimulatedHost, kind: str, values: Values) -> None:
    match kind:
        case "swap-on":
            host.kernel.swaps = [("/swap.img", 4_194_300)]
        case "swap-off":
            host.kernel.swaps = []
        case "sysctl":
            host.kernel.set(values["key"], values["value"])
        case "module":
            host.kernel.modules.pop(values["module"], None)
        case "hostname":
            host.kernel.hostname = values["name"]
        case "cgroup":
            host.kernel.cgroup = int(values["version"])


def _machine(host: SimulatedHost, kind: str, values: Values) -> None:
    match kind:
        case "skew":
            host.skew = float(values["seconds"])
        case "disk":
            host.free_kib = int(values["free_kib"])
        case "no-sudo":
            host.sudo = False
        case "noisy":
            make_noisy(host, values.get("user", "ops"))


def _packages(host: SimulatedHost, kind: str, values: Values) -> None:
    match kind:
        case "unhold":
            host.packages.hold(values["package"], held=False)
        case "half-installed":
            have = host.packages.installed[values["package"]]
            host.packages.put(values["package"], have.version, "U")
        case "locked":
            host.packages.locked_by = values.get("by", "unattended-upgr")
        case "unlocked":
            host.packages.locked_by = ""


def _gpus(host: SimulatedHost, kind: str, values: Values) -> None:
    """Change the driver, or a GPU: state=Healthy, Unhealthy, or gone (fallen off the bus), or a row of its report.

    With link=N count=M errors=NAME all GPUs of the host have NVLinks, and one counter of one link says that many.
    """
    index = int(values.get("index", "0"))
    if kind == "driver":
        host.gpu.trouble = values.get("trouble", "unreachable")
    elif values.get("state") == "gone":
        del host.gpu.devices[index], host.kernel.pci[index]
    elif link := values.get("link"):
        for one in host.gpu.devices:
            one.links = LINKS
        host.gpu.devices[index].link_errors[f"{link}: {values.get('errors', 'Replay Errors')}"] = int(values["count"])
    elif row := values.get("row"):
        host.gpu.devices[index].rows[row] = values["said"]
    else:
        host.gpu.devices[index].healthy = values.get("state", "Unhealthy") == "Healthy"


def _figures(host: SimulatedHost, kind: str, values: Values) -> None:  # noqa: ARG001 - the shape of a drift
    """Change what the probe says: slow=FACTOR, wrong or hung for the GPU of that index; missing or busy for all."""
    scene, uuid = host.figures, host.gpu.devices[int(values.get("index", "0"))].uuid
    scene.slow[uuid] = float(values.get("slow", "1"))
    for name, gpus in (("wrong", scene.wrong), ("hung", scene.hung)):
        (gpus.add if name in values else gpus.discard)(uuid)
    scene.missing, scene.busy = set(values.get("missing", "").split()), values.get("busy", "")


def _adapter(host: SimulatedHost, kind: str, values: Values) -> None:  # noqa: ARG001 - the shape of a drift
    """Change an adapter of InfiniBand or RoCE, which is there from then on: state, phys, rate, layer, or a counter."""
    one = next((adapter for adapter in host.adapters if adapter.name == values["name"]), None)
    if one is None:
        one = Adapter(values["name"])
        host.adapters.append(one)
    for name, value in values.items():
        if name in ("state", "phys", "rate", "layer"):
            setattr(one, name, value)
        elif name != "name":
            one.counters[name] = int(value)


def _site(host: SimulatedHost, kind: str, values: Values) -> None:
    world = host.packages.world
    match kind:
        case "port":
            host.link.reach.take_port(host, int(values["port"]), values.get("by", "nginx"))
        case "source-down":
            world.down.add(values["url"])
        case "source-refused":
            world.refused.add(values["url"])
        case "source-up":
            world.down.discard(values["url"])
            world.refused.discard(values["url"])
        case "image-missing":
            world.missing_images.add(values["image"])
        case "csr-signing":
            host.link.signing = values["is"] == "on"


DRIFTS: dict[str, Callable[[SimulatedHost, str, Values], None]] = {
    **dict.fromkeys(("edit", "remove", "mode"), _files),
    **dict.fromkeys(("stop", "disable"), _units),
    **dict.fromkeys(("swap-on", "swap-off", "sysctl", "module", "hostname", "cgroup"), _kernel),
    **dict.fromkeys(("skew", "disk", "no-sudo", "noisy"), _machine),
    **dict.fromkeys(("unhold", "half-installed", "locked", "unlocked"), _packages),
    **dict.fromkeys(("gpu", "driver"), _gpus),
    "figures": _figures,
    "adapter": _adapter,
    **dict.fromkeys(("port", "source-down", "source-refused", "source-up", "image-missing", "csr-signing"), _site),
}


def drift(host: SimulatedHost, kind: str, values: Values) -> None:
    """Let something drift; raises ValueError for an unknown kind or a missing value."""
    if kind not in DRIFTS:
        raise ValueError(f"{kind!r} is no drift; known: {', '.join(DRIFTS)}")
    try:
        DRIFTS[kind](host, kind, values)
    except KeyError as error:
        raise ValueError(f"drift {kind!r} on {host.name}: {error} is not given or not there") from error
    host.changed()
