"""A command on a host that works only while a pod of ours holds the host's GPUs, and ends with the run.

A file on the host is the word to go on: it is touched while the pod is seen to run. Where that stays away (the run was
killed, the link is cut, the API does not answer), or the file is gone (the run ends, the pod is gone), what guards the
command on the host ends it with all its processes. What a cancelled exchange leaves on a host would go on else.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable

from shipway.errors import ShipwayError, Transient
from shipway.host.command import Command
from shipway.host.operation import OPERATIONS
from shipway.host.session import Host
from shipway.script import Output

LOOK_SECONDS = 5.0
QUIET_SECONDS = 30  # of the guard's own looks, one a second: a word that comes late by some looks is no end
GRACE_SECONDS = 6  # from TERM to KILL, and what the guard takes to look
ENDED = "ended: "
Holds = Callable[[], Awaitable[bool]]

START = 'install -d -m 700 "$1" && : >"$0"'  # $0 the file, $1 its folder
# $0 the file, $1 how many looks without a word, then the command. Its processes are a group of their own (`set -m`).
# The guard has no stderr of its own: bash tells there that the work ended, and would itself end by SIGPIPE where nobody
# listens any more, before it has removed the files (seen on an H200, once its run was killed).
# The guard's number is written before the file is looked for, and read after that was removed: one of both is seen.
GUARD = f"""
set -m
echo "$$" >"$0.pid"
[ -e "$0" ] || {{ rm -f "$0.pid"; echo "{ENDED}its run ended before it began"; exit 0; }}
limit=$1; shift
end() {{
  kill -TERM -- "-$work"; for one in 1 2 3 4 5; do kill -0 -- "-$work" || break; sleep 1; done
  kill -KILL -- "-$work"; rm -f "$0" "$0.pid"
}}
trap 'end; exit 143' TERM INT HUP
"$@" <&0 & work=$!
exec 2>/dev/null
quiet=0 last=
while kill -0 "$work"; do
  word=$(stat -c %y "$0") || {{ end; echo "{ENDED}its run ends, or no pod of it holds the GPUs"; exit 0; }}
  [ "$word" = "$last" ] && quiet=$((quiet + 1)) || quiet=0
  last=$word
  [ "$quiet" -lt "$limit" ] || {{ end; echo "{ENDED}its run was silent for $limit s"; exit 0; }}
  sleep 1
done
wait "$work"; status=$?
rm -f "$0" "$0.pid"
exit "$status"
"""
# $0 the file: forbid what has not begun, and wait for the end of what has.
STOP = f"""
rm -f "$0"; guard=$(cat "$0.pid" 2>/dev/null) || exit 0
for look in $(seq {2 * (GRACE_SECONDS + 4)}); do
  kill -0 "$guard" 2>/dev/null || {{ rm -f "$0.pid"; exit 0; }}
  sleep .5
done
exit 1
"""


async def run_beside(on: Host, command: Command, holds: Holds, *, folder: str = OPERATIONS) -> Output:
    """Run a command on a host for as long as `holds` says that the host's GPUs are held; return what it said.

    When this returns or raises, cancelled or not, the command has ended: it was told so, or has heard nothing for so
    long that it must have. What was ended says why in its last line. Raises as `Host.do`.
    """
    path, told = f"{folder}/gpus-{secrets.token_hex(8)}", time.monotonic()
    guarded = Command(("bash", "-c", GUARD, path, str(QUIET_SECONDS), *command.words), command.seconds, command.feed)
    await on.do(Command(("sh", "-c", START, path, folder)))
    work = asyncio.create_task(on.do(guarded))
    try:
        while not (await asyncio.wait([work], timeout=LOOK_SECONDS))[0]:
            with contextlib.suppress(ShipwayError):  # who cannot tell says nothing
                if not await holds():
                    break
                told = time.monotonic() + QUIET_SECONDS  # of one that is lost nobody knows when it was heard
                await on.do(Command(("touch", "-c", path)))
                told = time.monotonic()
    finally:
        if not work.done() or work.cancelled() or isinstance(work.exception(), Transient):
            await _stop(on, path, told)
            await asyncio.wait([work], timeout=GRACE_SECONDS)
            work.cancel()
    return (await work)[-1]


async def _stop(on: Host, path: str, told: float) -> None:
    """End what is guarded by a file; where the host does not say that it has ended, wait until it must have."""
    try:
        await on.do(Command(("sh", "-c", STOP, path)))
    except ShipwayError:
        await asyncio.sleep(max(0.0, told + 1.5 * QUIET_SECONDS + GRACE_SECONDS - time.monotonic()))
