"""systemctl: show, start, stop, enable, mask and list units, in systemd's words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from lab.simulated.commands.arguments import Parsed, parse
from lab.simulated.commands.registry import Call, program
from lab.simulated.units import Unit, UnitFailed, Units

_FLAGS = "--no-reload -q --quiet --now --no-pager --no-legend --plain --all -a --no-block --force -f --full -l"
_VALUES = "-p --property -t --type -n --lines"
_CHANGES = {
    *("start", "stop", "restart", "try-restart", "reload", "reload-or-restart", "enable", "disable", "mask", "unmask"),
    *("daemon-reload", "reset-failed"),
}
_NOT_RUNNING = 3  # systemctl's status for a unit that is not active
_UNKNOWN, _NOT_FOUND = 4, 5
_SECONDS = {"containerd.service": 1.0, "kubelet.service": 0.5}


@program("systemctl")
async def systemctl(call: Call) -> int:
    """Do one of systemctl's actions."""
    asked = parse(call.args, flags=_FLAGS, values=_VALUES)
    action, *names = asked.rest or ["list-units"]
    if action in _CHANGES and not call.root:
        return call.warn(f"Failed to {action} unit: Interactive authentication required.")
    if action in ("show", "is-active", "is-enabled", "status", "list-units"):
        return _look(call, action, names, asked)
    if action == "is-system-running":
        return _system(call)
    if action == "reboot":
        call.host.link.reboot(call.host)
        return 0
    if action == "daemon-reload":
        await call.took(0.3)
        call.host.units.reload()
        return 0
    if action == "reset-failed" and not names:
        names = [unit.name for unit in call.host.units.all.values() if unit.active == "failed"]
    status = 0
    for name in names:
        status = await _change(call, action, name, asked) or status
    return status


def _system(call: Call) -> int:
    """Say whether a unit has failed."""
    failed = any(unit.active == "failed" for unit in call.host.units.all.values())
    return int(failed) + call.say("degraded\n" if failed else "running\n")


def _look(call: Call, action: str, names: Sequence[str], asked: Parsed) -> int:
    call.host.services.settle()
    units = call.host.units
    if action == "show":
        wanted = [
            name
            for value in [*asked.values.get("-p", []), *asked.values.get("--property", [])]
            for name in value.split(",")
        ]
        call.say("\n".join(_properties(units, name, wanted) for name in names))
        return 0
    if action == "list-units":
        return _listed(call, asked)
    answers = {"is-active": _is_active, "is-enabled": _is_enabled}
    if action in answers:
        unknown = [name for name in names if action == "is-enabled" and units.get(name) is None]
        for name in unknown:
            call.warn(f"Failed to get unit file state for {units.full(name)}: No such file or directory")
        results = [answers[action](units, name) for name in names]
        if not asked.has("-q", "--quiet"):
            call.say("".join(f"{word}\n" for word, _ in results if word))
        return min(status for _, status in results) if results else 1
    return _status(call, names)


def _properties(units: Units, name: str, wanted: Sequence[str]) -> str:
    """Return the properties of a unit, in systemd's order, one a line."""
    full, unit = units.full(name), units.get(name)
    shown = unit or Unit(full)
    load = unit.load if unit else "not-found"
    since = time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(shown.since)) if shown.since else ""
    state = "masked" if shown.masked else "transient" if shown.transient else shown.wanted
    known = {
        "Type": shown.type,
        "Restart": "no",
        "MainPID": str(shown.pid),
        "Result": shown.result,
        "NRestarts": str(shown.restarts),
        "Id": full,
        "Names": full,
        "Description": shown.description or full,
        "LoadState": load,
        "ActiveState": shown.active,
        "FreezerState": "running",
        "SubState": shown.sub,
        "FragmentPath": shown.fragment.removeprefix("/usr") if unit else "",
        "UnitFileState": state,
        "ActiveEnterTimestamp": since,
        "InvocationID": f"{shown.pid:032x}" if shown.pid else "",
        "NeedDaemonReload": "yes" if unit and units.needs_reload(unit) else "no",
    }
    return "".join(f"{key}={value}\n" for key, value in known.items() if not wanted or key in wanted)


def _is_active(units: Units, name: str) -> tuple[str, int]:
    unit = units.get(name)
    state = unit.active if unit else "inactive"
    return state, 0 if state == "active" else _NOT_RUNNING


def _is_enabled(units: Units, name: str) -> tuple[str, int]:
    unit = units.get(name)
    state = "" if unit is None else "masked" if unit.masked else unit.wanted or "disabled"
    return state, 0 if state in ("enabled", "static", "generated") else 1


def _listed(call: Call, asked: Parsed) -> int:
    kinds = ",".join([*asked.values.get("-t", []), *asked.values.get("--type", [])]).split(",")
    for name, unit in sorted(call.host.units.all.items()):
        if kinds != [""] and name.rsplit(".", 1)[1] not in kinds:
            continue
        if asked.has("--all", "-a") or unit.active != "inactive":
            call.say(f"{name} {unit.load} {unit.active} {unit.sub} {unit.description or name}\n")
    return 0


def _status(call: Call, names: Sequence[str]) -> int:
    for name in names:
        unit = call.host.units.get(name)
        if unit is None:
            return call.warn(f"Unit {call.host.units.full(name)} could not be found.", _UNKNOWN)
        since = time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(unit.since))
        mark = "●" if unit.active == "active" else "○"
        call.say(
            f"{mark} {unit.name} - {unit.description}\n     Loaded: {unit.load} ({unit.fragment}; {unit.wanted})\n"
        )
        call.say(f"     Active: {unit.active} ({unit.sub}) since {since}\n")
        for line in call.host.services.journal.get(unit.name.removesuffix(".service"), [])[-5:]:
            call.say(f"{line}\n")
        if unit.active != "active":
            return _NOT_RUNNING
    return 0


async def _change(call: Call, action: str, name: str, asked: Parsed) -> int:
    units = call.host.units
    full, unit = units.full(name), units.get(name)
    if action in ("mask", "unmask"):
        return _mask(call, action, name, asked)
    if unit is None and action in ("enable", "disable"):
        return call.warn(f"Failed to {action} unit: Unit file {full} does not exist.")
    if unit is None:
        why = "not loaded" if action in ("stop", "reset-failed") else "not found"
        return call.warn(f"Failed to {action} {full}: Unit {full} {why}.", _NOT_FOUND)
    if action in ("enable", "disable"):
        return await _enable(call, action, unit, asked)
    if action == "reset-failed":
        units.set(unit, "inactive", "dead")
        if unit.transient:
            del units.all[unit.name]
        return 0
    return await _run(call, action, unit)


def _mask(call: Call, action: str, name: str, asked: Parsed) -> int:
    units = call.host.units
    unit = units.get(name)
    line = units.mask(name) if action == "mask" else units.unmask(name)
    if unit is not None and action == "mask" and asked.has("--now"):
        units.stop(unit)
    return call.warn(line, 0) if line and not asked.has("-q", "--quiet") else 0


async def _enable(call: Call, action: str, unit: Unit, asked: Parsed) -> int:
    units = call.host.units
    if unit.masked and action == "enable":
        return call.warn(f"Failed to enable unit: Unit file /etc/systemd/system/{unit.name} is masked.")
    line = units.enable(unit) if action == "enable" else units.disable(unit)
    if line and not asked.has("-q", "--quiet"):
        call.warn(line)
    if asked.has("--now"):
        return await _run(call, "start" if action == "enable" else "stop", unit)
    return 0


async def _run(call: Call, action: str, unit: Unit) -> int:
    """Start, stop or restart."""
    units = call.host.units
    if action == "try-restart" and unit.active == "inactive":
        return 0
    await call.took(_SECONDS.get(unit.name, 0.2))
    if action == "stop":
        task = call.host.operations.get(unit.name)
        if task is not None:
            units.set(unit, "deactivating", "stop-sigterm")
            task.cancel()
            await asyncio.wait([task])
        units.stop(unit)
        return 0
    if action != "start":
        units.stop(unit)
    try:
        units.start(unit)
    except UnitFailed as error:
        return call.warn(str(error))
    if call.host.units.needs_reload(unit):
        call.warn(
            f"Warning: The unit file, source configuration file or drop-ins of {unit.name} changed on disk. Run 'systemctl daemon-reload' to reload units."
        )
    call.host.services.settle()
    return 0
