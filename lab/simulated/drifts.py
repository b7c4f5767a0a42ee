"""Drift on request: what somebody or something else changed on a host behind Shipway's back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lab.simulated.host import Card, SimulatedHost
from lab.simulated.login_shell import make_noisy

Values = Mapping[str, str]


def _swap_on(host: SimulatedHost, values: Values) -> None:  # noqa: ARG001 - the shape of a drift
    host.kernel.swaps = [("/swap.img", 4_194_300)]


def _swap_off(host: SimulatedHost, values: Values) -> None:  # noqa: ARG001 - the shape of a drift
    host.kernel.swaps = []


def _sysctl(host: SimulatedHost, values: Values) -> None:
    host.kernel.set(values["key"], values["value"])


def _edit(host: SimulatedHost, values: Values) -> None:
    path = values["path"]
    before = host.files.text(path)
    text = before.replace(values["old"], values.get("new", "")) if "old" in values else before + values.get("add", "\n")
    host.files.write(path, text.encode())


def _remove(host: SimulatedHost, values: Values) -> None:
    host.files.remove(values["path"])


def _mode(host: SimulatedHost, values: Values) -> None:
    host.files.change(values["path"], mode=int(values["mode"], 8))


def _stop(host: SimulatedHost, values: Values) -> None:
    unit = host.units.get(values["unit"])
    if unit is not None:
        host.units.stop(unit)


def _disable(host: SimulatedHost, values: Values) -> None:
    unit = host.units.get(values["unit"])
    if unit is not None:
        host.units.disable(unit)


def _unhold(host: SimulatedHost, values: Values) -> None:
    host.packages.hold(values["package"], held=False)


def _half(host: SimulatedHost, values: Values) -> None:
    have = host.packages.installed[values["package"]]
    host.packages.put(values["package"], have.version, "U")


def _module(host: SimulatedHost, values: Values) -> None:
    host.kernel.modules.pop(values["module"], None)


def _hostname(host: SimulatedHost, values: Values) -> None:
    host.kernel.hostname = values["name"]


def _card(host: SimulatedHost, values: Values) -> None:
    """Change a GPU: state=Healthy, Unhealthy, or gone (fallen off the bus)."""
    index = int(values.get("index", "0"))
    if values.get("state") == "gone":
        del host.gpu.cards[index], host.kernel.pci[index]
    else:
        card: Card = host.gpu.cards[index]
        card.healthy = values.get("state", "Unhealthy") == "Healthy"


def _driver(host: SimulatedHost, values: Values) -> None:
    host.gpu.trouble = values.get("trouble", "unreachable")


def _locked(host: SimulatedHost, values: Values) -> None:
    host.packages.locked_by = values.get("by", "unattended-upgr")


def _unlocked(host: SimulatedHost, values: Values) -> None:  # noqa: ARG001 - the shape of a drift
    host.packages.locked_by = ""


def _skew(host: SimulatedHost, values: Values) -> None:
    host.skew = float(values["seconds"])


def _disk(host: SimulatedHost, values: Values) -> None:
    host.free_kib = int(values["free_kib"])


def _no_sudo(host: SimulatedHost, values: Values) -> None:  # noqa: ARG001 - the shape of a drift
    host.sudo = False


def _noisy(host: SimulatedHost, values: Values) -> None:
    make_noisy(host, values.get("user", "ops"))


def _cgroup(host: SimulatedHost, values: Values) -> None:
    host.kernel.cgroup = int(values["version"])


def _port(host: SimulatedHost, values: Values) -> None:
    host.link.reach.take_port(host, int(values["port"]), values.get("by", "nginx"))


def _source_down(host: SimulatedHost, values: Values) -> None:
    host.packages.world.down.add(values["url"])


def _source_up(host: SimulatedHost, values: Values) -> None:
    world = host.packages.world
    world.down.discard(values["url"])
    world.refused.discard(values["url"])


def _source_refused(host: SimulatedHost, values: Values) -> None:
    host.packages.world.refused.add(values["url"])


def _image_missing(host: SimulatedHost, values: Values) -> None:
    host.packages.world.missing_images.add(values["image"])


def _signing(host: SimulatedHost, values: Values) -> None:
    host.link.signing = values["is"] == "on"


DRIFTS: dict[str, Callable[[SimulatedHost, Values], None]] = {
    "swap-on": _swap_on,
    "swap-off": _swap_off,
    "sysctl": _sysctl,
    "edit": _edit,
    "remove": _remove,
    "mode": _mode,
    "stop": _stop,
    "disable": _disable,
    "unhold": _unhold,
    "half-installed": _half,
    "module": _module,
    "hostname": _hostname,
    "card": _card,
    "driver": _driver,
    "locked": _locked,
    "unlocked": _unlocked,
    "skew": _skew,
    "disk": _disk,
    "no-sudo": _no_sudo,
    "noisy": _noisy,
    "cgroup": _cgroup,
    "port": _port,
    "source-down": _source_down,
    "source-refused": _source_refused,
    "source-up": _source_up,
    "image-missing": _image_missing,
    "csr-signing": _signing,
}


def drift(host: SimulatedHost, kind: str, values: Values) -> None:
    """Let something drift; raises ValueError for an unknown kind or a missing value."""
    if kind not in DRIFTS:
        raise ValueError(f"{kind!r} is no drift; known: {', '.join(DRIFTS)}")
    try:
        DRIFTS[kind](host, values)
    except KeyError as error:
        raise ValueError(f"drift {kind!r} on {host.name}: {error} is not given or not there") from error
    host.changed()
