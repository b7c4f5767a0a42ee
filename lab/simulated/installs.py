"""What a package brings to a simulated host when it is configured: files, units, and services that start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.simulated import recorded
from lab.simulated.files import Node
from lab.simulated.releases import minor_of, since
from lab.simulated.units import Unit, UnitFailed

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost


def _brought(package: str) -> dict[str, Any]:
    found: dict[str, Any] = recorded.table("installs.yaml").get(package, {})
    return found


def configure(host: SimulatedHost, name: str, *, running: bool = False) -> list[str]:
    """Do what configuring a package does; gives the lines that systemd adds to apt's output."""
    files = host.files
    brought = _brought(name)
    for path in brought.get("programs", ()):
        files.put(path, Node(b"SIMULATED program\n", 0o755, changed=host.now()))
    for path, text in brought.get("files", {}).items():
        if path.startswith("/usr") or not files.exists(path):  # what is in /etc is the administrator's
            files.write(path, text.encode())
    if name == "kubelet":
        version = host.packages.installed[name].version
        if not version.endswith("-00"):
            files.make_directory("/etc/kubernetes/manifests")
        if since(minor_of(version), "keeps_manifests"):
            files.put("/etc/kubernetes/manifests/.kubelet-keep", Node(b"", changed=host.now()))
    return [] if running or "unit" not in brought else _unit(host, name)


def _unit(host: SimulatedHost, package: str) -> list[str]:
    """Make the package's unit known, enable and start it, or restart one that runs (an upgrade)."""
    name, text = _brought(package)["unit"], _brought(package)["text"]
    known = host.units.all.get(name)
    said: list[str] = []
    if known is None:
        old_kubelet = package == "kubelet" and not host.packages.installed[package].version.endswith("-00")
        unit = host.units.add(Unit(name, f"SIMULATED {package}", wanted="disabled"), text=text)
        if not old_kubelet:  # the community's kubelet package leaves enabling to the administrator
            line = host.units.enable(unit)
            said = [line] if line else []
            _start(host, unit)
        return said
    host.units.reload()
    if known.active != "inactive":
        host.units.stop(known)
        _start(host, known)
    return said


def _start(host: SimulatedHost, unit: Unit) -> None:
    try:
        host.units.start(unit)
    except UnitFailed as error:
        host.services.note(unit.name.removesuffix(".service"), str(error))


def remove(host: SimulatedHost, name: str) -> None:
    """Do what removing a package does; configuration files stay."""
    brought = _brought(name)
    for path in brought.get("programs", ()):
        host.files.remove(path)
    unit = host.units.all.pop(brought.get("unit", ""), None)
    if unit is not None:
        host.units.stop(unit)
        host.files.remove(unit.fragment)
    host.changed()
