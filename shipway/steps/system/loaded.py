"""Whether a service runs the files that are there: judged by what was loaded, by clocks only where nobody kept that.

A clock that was wrong when a file was written dates it into the future, and a service then never seems to have started
after it (a hardware clock in local time: 8 h in UTC+8). So whoever restarts a service keeps beside it which start of it
(systemd's InvocationID) loaded which contents.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shipway.converge import wait_until
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.facts.services import UnitInfo, UnitState
from shipway.host.session import Command, Host
from shipway.step import Drift
from shipway.survey.first_look import CLOCK

FOLDER = "/var/lib/shipway/loaded"
RELOAD_SECONDS = 60.0  # haproxy is ready within a second, on a busy host within some


def _read_record(text: str | None) -> tuple[str, Mapping[str, str]]:
    """Return the start and the digests by path that a record holds; nothing for a record that cannot be read."""
    try:
        record = json.loads(text or "")
        return str(record["invocation"]), {str(path): str(digest) for path, digest in record["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", {}


def _digests(paths: Sequence[str], files: Sequence[FileInfo | None]) -> dict[str, str]:
    return {path: file.sha256 if file else "" for path, file in zip(paths, files, strict=True)}


async def is_loaded(on: Host, unit: str, paths: Sequence[str], *, same_second: bool) -> bool:
    """Say whether an active unit runs its files; `same_second`: one started in the second of the change is after it.

    The record of this very start decides: a file of other contents is not loaded, however old it is dated (a clock that
    went back, `cp -p`). Where the unit was started since, equal contents count as loaded unless a file was written
    between that start and now; without equal contents the dates are all that there is.
    """
    (info, text, clock), files = await asyncio.gather(
        on.read(UnitState(f"{unit}.service"), FileText(f"{FOLDER}/{unit}"), CLOCK),
        on.read_all([FileState(path) for path in paths]),
    )
    return info.active == "active" and judge_loaded(
        info, files, paths, _read_record(text), _now(clock.stdout), same_second=same_second
    )


def _now(said: str) -> float:
    try:
        return float(said)
    except ValueError:
        return float("inf")


def judge_loaded(
    info: UnitInfo,
    files: Sequence[FileInfo | None],
    paths: Sequence[str],
    kept: tuple[str, Mapping[str, str]],
    now: float,
    *,
    same_second: bool,
) -> bool:
    """Judge by the record, else by the dates; see `is_loaded`."""
    invocation, digests = kept
    current = _digests(paths, files)
    changed = max((file.changed for file in files if file), default=0)
    after = info.active_since >= changed if same_second else info.active_since > changed
    if invocation and invocation == info.invocation and current.keys() <= digests.keys():
        return all(digests[path] == digest for path, digest in current.items())
    return after or (bool(invocation) and digests == current and changed > now)


@dataclass(frozen=True)
class Reloaded:
    """A unit has read its files: it is `reloading` until it says so, though the command to reload it has ended.

    systemd.service(5), `Type=notify`; haproxy's master is so (seen with 2.6 on a busy host, 2026-11-30).
    """

    unit: str
    name: str = "what is reloaded is ready"

    async def check(self, on: Host) -> Drift | None:
        """Ask systemd."""
        info = await on.read(UnitState(f"{self.unit}.service"))
        return Drift(info.active, "active") if info.active == "reloading" else None


async def restart(on: Host, unit: str, paths: Sequence[str], *, reload: bool = False, verb: str = "restart") -> None:
    """Restart a unit, in a later second than the change, and keep which start of it loaded which contents.

    `reload` lets systemd read its unit files anew before; `verb` is `reload` for one that reads its file in passing.
    Raises as `Host.do`, and DeadlineExceeded where a reload does not end.
    """
    before = await on.read_all([FileState(path) for path in paths])
    anew = [Command(("systemctl", "daemon-reload"))] if reload else []
    await on.do(Command(("sleep", "1")), *anew, Command(("systemctl", verb, unit), seconds=180))
    if verb == "reload":
        await wait_until(Reloaded(unit), on, seconds=RELOAD_SECONDS)
    info = await on.read(UnitState(f"{unit}.service"))
    after = await on.read_all([FileState(path) for path in paths])
    digests = _digests(paths, after)
    if info.active == "active" and digests == _digests(paths, before):  # else nobody knows which of them it read
        record = {"invocation": info.invocation, "files": digests}
        await on.write(f"{FOLDER}/{unit}", f"{json.dumps(record)}\n".encode(), mode="600")
