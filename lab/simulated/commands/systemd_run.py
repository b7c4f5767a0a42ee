"""systemd-run: a command as a transient unit of its own, that lives on when the session that started it is gone."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from lab.simulated.clock import Clock, RanOut
from lab.simulated.commands.arguments import parse
from lab.simulated.commands.registry import Call, Input, Shell, program, run
from lab.simulated.units import Unit

_FLAGS = "--quiet -q --collect -G --wait --pipe -P --no-block --user --scope"
_VALUES = "--unit -u -p --property --setenv -E --description --slice --uid --on-active"


@program("systemd-run")
async def systemd_run(call: Call) -> int:
    """Start the unit, and with --wait give its exit status."""
    asked = parse(call.args, flags=_FLAGS, values=_VALUES, stop_at_first=True)
    if not call.root:
        return call.warn("Failed to start transient service unit: Interactive authentication required.")
    name = call.host.units.full(asked.value("--unit", "-u", default=f"run-u{len(call.host.ran)}"))
    if name in call.host.units.all:
        return call.warn(
            f"Failed to start transient service unit: Unit {name} was already loaded or has a fragment file."
        )
    properties = dict(
        value.split("=", 1) for value in [*asked.values.get("-p", []), *asked.values.get("--property", [])]
    )
    environment = tuple(
        (pair.partition("=")[0], pair.partition("=")[2])
        for pair in [*asked.values.get("--setenv", []), *asked.values.get("-E", [])]
    )
    described = asked.value("--description", default=" ".join(asked.rest)[:100])
    unit = call.host.units.add(Unit(name, described, transient=True, type="simple"))
    call.host.units.set(unit, "active", "running")
    end = _End()
    call = call.like(asked.rest, env=environment)
    work = _work(call, unit, properties, end, collect=asked.has("--collect", "-G"))
    task: asyncio.Task[int] = call.host.background(work)
    call.host.operations[name] = task
    if not asked.has("--quiet", "-q"):
        call.warn(f"Running as unit: {name}")
    if not asked.has("--wait"):
        return 0
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    if not asked.has("--quiet", "-q"):
        call.warn(f"Finished with result: {end.result}\nMain processes terminated with: code={end.how}")
    return end.status


@dataclass
class _End:
    """How a unit ended, for who waits for it: killed, where nothing else is said."""

    status: int = 1
    result: str = "signal"
    how: str = "killed/status=KILL"


def _file(target: str) -> str:
    """Return the file that `append:FILE` names, else nothing: then it is the journal."""
    return target.removeprefix("append:") if target.startswith("append:") else ""


async def _work(
    call: Call,
    unit: Unit,
    properties: dict[str, str],
    end: _End,
    *,
    collect: bool,
) -> int:
    """Run the command with the unit's outputs and limit; whatever ends it, the unit is done after."""
    host, umask = call.host, int(properties.get("UMask", "0022"), 8)

    def into(path: str) -> object:
        if not path:
            return lambda data: host.services.note(
                unit.name.removesuffix(".service"), data.decode(errors="replace").rstrip()
            )
        if not host.files.exists(path):
            host.files.write(path, b"", mode=0o666 & ~umask)
        return lambda data: host.files.write(path, (host.files.read(path) or b"") + data)

    out = into(_file(properties.get("StandardOutput", "")))
    err = into(_file(properties.get("StandardError", "")))
    limit = properties.get("RuntimeMaxSec", "infinity")
    clock = Clock(host.scale, math.inf if limit == "infinity" else float(limit))
    ends = {"out": out, "err": err, "stdin": Input(), "shell": Shell(umask)}
    inner = call.like(call.words, clock=clock, via="systemd", user="root", **ends)
    try:
        end.status = await run(inner)
        end.result = "success" if end.status == 0 else "exit-code"
        end.how = f"exited/status={end.status}"
    except RanOut:
        end.result, end.how = "timeout", "killed/status=TERM"
    except asyncio.CancelledError:
        if unit.active == "deactivating":  # systemd takes the end by its own SIGTERM for a good one
            end.status, end.result, end.how = 0, "success", "killed/status=TERM"
        raise
    finally:
        host.operations.pop(unit.name, None)
        state = "inactive", "dead"
        host.units.set(unit, *(state if end.result == "success" else ("failed", "failed")), end.result)
        if collect or end.result == "success":
            host.units.all.pop(unit.name, None)
    return end.status
