"""The ways in which an exchange with a host or the API fails, each as something that happens to exactly one."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from lab.simulated import wire
from shipway.errors import ApiUnavailable, ConnectionLost, DeadlineExceeded
from shipway.script import PROLOGUE
from tests.faults.plain import Exchange, Key

RUNNING: set[asyncio.Future[Any]] = set()  # what goes on without anybody who waits for it
Spoil = Callable[[Key, Exchange], Awaitable[Any]]


async def cut_before(key: Key, exchange: Exchange) -> Any:  # noqa: ARG001 - a spoiler's signature
    """The connection breaks before anything was sent."""
    raise ConnectionLost("FAULT: the connection broke before", host=key[0])


async def cut_after(key: Key, exchange: Exchange) -> Any:
    """The connection breaks once all has taken effect: nobody hears the answer."""
    await exchange()
    raise ConnectionLost("FAULT: the connection broke after", host=key[0])


async def cut_while(key: Key, exchange: Exchange) -> Any:
    """The connection breaks while the host works: it goes on, and the next try or run meets it."""
    running = asyncio.ensure_future(exchange())
    RUNNING.add(running)
    running.add_done_callback(_ended)
    await asyncio.wait([running], timeout=0.03)
    raise ConnectionLost("FAULT: the connection broke while a command ran", host=key[0])


def _ended(running: asyncio.Future[Any]) -> None:
    """Let go of what ended; how is nobody's business any more."""
    RUNNING.discard(running)
    if not running.cancelled():
        running.exception()


async def timeout(key: Key, exchange: Exchange) -> Any:
    """The answer comes too late."""
    await exchange()
    raise DeadlineExceeded("FAULT: no answer in time", host=key[0])


async def garbage(key: Key, exchange: Exchange) -> Any:  # noqa: ARG001 - a spoiler's signature
    """The host takes effect and answers something else."""
    await exchange()
    return "\x00\x1b[31mrubbish \ufffd" * 40, "more rubbish"


def exit_1(place: Callable[[int], int]) -> Spoil:
    """Return a spoiler in which one command of the script, by its place, does nothing and answers status 1."""

    async def failed(key: Key, exchange: Exchange) -> Any:  # noqa: ARG001 - a spoiler's signature
        def change(text: str) -> str:
            script = wire.script(text)
            lines = [(line.verb, line.words) for line in script.lines]
            at = place(len(lines))
            lines[at] = (lines[at][0], ("false",))
            said = "".join(f"{verb} {shlex.join(words)}\n" for verb, words in lines)
            return f"b={script.boundary}\n{PROLOGUE}{said}"

        return await exchange(change)

    return failed


async def exit_1_after(key: Key, exchange: Exchange) -> Any:  # noqa: ARG001 - a spoiler's signature
    """Every command takes effect, and the last one answers status 1 nevertheless."""
    out, err = await exchange()
    head, frame, status = out.rpartition("\n--shipway-")
    boundary, _, number = status.strip().partition(" ")
    return (f"{head}{frame}{boundary} {'1' if number == '0' else number}\n", err) if frame else (out, err)


def api_code(code: int, reason: str) -> Spoil:
    """Return a spoiler that answers with an HTTP code instead of doing anything."""

    async def answered(key: Key, exchange: Exchange) -> Any:  # noqa: ARG001 - a spoiler's signature
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
        return code, json.dumps({**status, "message": f"FAULT: {reason}"})

    return answered


async def api_lost(key: Key, exchange: Exchange) -> Any:  # noqa: ARG001 - a spoiler's signature
    """The API takes effect and its answer is lost: a dropped connection, or a dropped watch."""
    await exchange()
    raise ApiUnavailable("FAULT: the answer was lost")


async def api_garbage(key: Key, exchange: Exchange) -> Any:  # noqa: ARG001 - a spoiler's signature
    """Something that is not the API answers."""
    return 502, "<html>FAULT: a proxy speaks</html>"


HOST_KINDS: dict[str, Spoil] = {
    "cut before": cut_before,
    "cut while": cut_while,
    "cut after": cut_after,
    "timeout": timeout,
    "garbage": garbage,
    "exit 1 of the first command": exit_1(lambda _: 0),
    "exit 1 of a command in the middle": exit_1(lambda count: count // 2),
    "exit 1 of the last command": exit_1(lambda count: count - 1),
    "exit 1 after all took effect": exit_1_after,
}
API_KINDS: dict[str, Spoil] = {
    "409": api_code(409, "Conflict"),
    "429": api_code(429, "TooManyRequests"),
    "500": api_code(500, "InternalError"),
    "503": api_code(503, "ServiceUnavailable"),
    "lost": api_lost,
    "garbage": api_garbage,
}


def exit_1_of_each(count: int) -> dict[str, Spoil]:
    """Return for each of so many commands the spoiler in which that one answers status 1."""
    return {f"exit 1 of command {at + 1} of {count}": exit_1(partial(min, at)) for at in range(count)}


def kinds_for(where: str) -> dict[str, Spoil]:
    """Return the kinds that fit an exchange."""
    return API_KINDS if where == "api" else HOST_KINDS
