"""How a simulated host runs a request: a script line by line with framed answers, or one plain command."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from lab.simulated import commands as _programs  # noqa: F401 - registers all programs
from lab.simulated.commands.registry import Call, Input, Shell, Write, run
from lab.simulated.failures import Failure
from lab.simulated.host import Ran, SimulatedHost
from lab.simulated.wire import NotUnderstood, Script, request, script
from shipway.script import OPENING

log = logging.getLogger("lab.simulated")
_NOT_UNDERSTOOD = 2
_LOOKS, _BETWEEN = 60_000, 0.002  # two minutes for a text to appear, looked for often: phases are short


class Cut(Exception):
    """The connection is to be cut here, as a failure asked for it."""


@dataclass(frozen=True)
class Terminal:
    """The session's ends: input, output, error, and whether the client is still there."""

    stdin: Input
    out: Write
    err: Write
    gone: Callable[[], bool]


async def serve(host: SimulatedHost, user: str, command: str, ends: Terminal) -> int:
    """Run one exec request; return its exit status. Raises Cut where a failure cuts the connection."""
    try:
        asked = request(command)
        if asked.sudo and user != "root" and not host.sudo:
            if not asked.password:
                ends.err(b"sudo: a password is required\n")
                return 1
            if not await _admitted(host, ends):
                return 1
        user = "root" if asked.sudo else user
        if asked.script:
            return await _read(host, user, ends)
    except NotUnderstood as error:
        log.error("SIMULATED host %s: request not understood: %s", host.name, error)
        host.not_simulated.append(f"request: {error}")
        ends.err(f"SIMULATED host {host.name} does not understand this request: {error}\n".encode())
        return _NOT_UNDERSTOOD
    call = Call(host, asked.words, ends.out, ends.err, host.clock(), user, ends.stdin)
    return await _one(call, "d")


async def _admitted(host: SimulatedHost, ends: Terminal) -> bool:
    """Read a password as sudo 1.9 does with -S: three tries, each a line of the input."""
    wrong = 0
    while wrong < 3 and (line := await ends.stdin.line()):
        if host.sudo_password and line.rstrip(b"\n").decode(errors="replace") == host.sudo_password:
            return True
        wrong += 1
        ends.err(b"Sorry, try again.\n" if wrong < 3 else b"")
    if wrong < 3:
        ends.err(b"sudo: no password was provided\n")
    if wrong:
        ends.err(f"sudo: {wrong} incorrect password attempt{'s' if wrong > 1 else ''}\n".encode())
    return False


async def _given(stdin: Input) -> tuple[str, Script] | None:
    """Take a script from the input, as READER does: its token and lines; None where the input ends before. Raises NotUnderstood."""
    while line := await stdin.line():
        token, _, size = line.decode(errors="replace").strip().partition(" ")
        if token.startswith(OPENING):
            text = (await stdin.read(int(size))).decode()
            if len(text.encode()) < int(size):
                return None
            if not (text.startswith("{\n") and text.endswith("}\n")):
                raise NotUnderstood("the script is not one group of commands")
            return token, script(text[2:-2])
    return None


async def _read(host: SimulatedHost, user: str, ends: Terminal) -> int:
    """Read a script from the input and run it; 97 where the input ends before it begins, 2 where it is cut short."""
    found = await _given(ends.stdin)
    if found is None:
        return 97
    token, taken = found
    ends.out(f"{token}\n".encode())
    ends.err(f"{token}\n".encode())
    return await _script(host, user, taken, ends)


async def _script(host: SimulatedHost, user: str, script: Script, ends: Terminal) -> int:
    """Run the lines; `d` lines end at the first that fails, and no `l` follows then, as the prologue says."""
    failed, shell = False, Shell()
    for line in script.lines:
        if line.verb in ("d", "l") and failed:
            return 0
        stdin = ends.stdin if line.verb == "d" else Input()
        call = Call(host, line.words, ends.out, ends.err, host.clock(), user, stdin, shell=shell)
        status = await _one(call, line.verb)
        if ends.gone():  # the shell's printf meets a closed pipe and dies of it
            return 1
        ends.out(f"\n{script.boundary} {status}\n".encode())
        ends.err(f"\n{script.boundary}\n".encode())
        failed = status != 0 and line.verb != "l"
    return 0


async def _one(call: Call, verb: str) -> int:
    """Run one command, unless a failure has something else to happen; what was run is remembered."""
    host = call.host
    failure = host.failures.at(call.words)
    if failure is not None:
        log.warning("SIMULATED host %s: %s at: %s", host.name, failure.kind, " ".join(call.words)[:200])
    if failure is not None and failure.kind == "cut-before":
        raise Cut
    status = await (run(call) if failure is None or failure.kind == "cut-after" else _failing(call, failure))
    host.ran.append(Ran(host.now(), verb, call.words, status))
    if failure is not None and failure.kind == "cut-after":
        raise Cut
    return status


async def _failing(call: Call, failure: Failure) -> int:
    """Do what the failure says instead of, or beside, the command."""
    if failure.kind == "exit":
        return call.warn(failure.text or "SIMULATED failure: this command was asked to fail")
    if failure.kind == "full":
        call.host.free_kib = int(failure.text or 0)
        return await run(call)
    if failure.kind == "garbage":
        call.out(random.Random(failure.nth).randbytes(2000))
        return 0
    if failure.kind == "kill":
        unit = next((word.removeprefix("--unit=") for word in call.words if word.startswith("--unit=")), "")
        log_file = next((word.partition("append:")[2] for word in call.words if "StandardOutput=append:" in word), "")
        call.host.background(_kill(call.host, unit, failure, log_file))
        return await run(call)
    words = call.words
    at = words.index("--") + 1 if "--" in words and words[0] == "systemd-run" else 4 if words[0] == "timeout" else 0
    return await run(call.like((*words[:at], "hang")))


async def _kill(host: SimulatedHost, unit: str, failure: Failure, log_file: str) -> None:
    """Kill a transient unit in the middle: so long after its start, or after a text stands in its log."""
    for _ in range(_LOOKS):
        if failure.text in host.files.text(log_file):
            break
        await asyncio.sleep(_BETWEEN)
    else:
        log.error("SIMULATED host %s: %r never stood in %s: %s lives on", host.name, failure.text, log_file, unit)
        return
    await asyncio.sleep(failure.after * host.scale)
    host.kill(unit)
