"""One cell of the measuring: a contestant on N hosts of a kind, its first run and one with nothing to change."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.peers import Contestant, environ
from tests.bench.place import Place, relayed
from tests.bench.work import Order, shares

BASE = 0.2  # seconds that a guarded command takes


@dataclass(frozen=True, slots=True)
class Kind:
    """What surrounds a cell: round-trip time in seconds (0: no relay), and whether some hosts are slow."""

    name: str
    delay: float | None = None
    stragglers: bool = False


FAR = Kind("far", 0.2)  # so long that a round trip is all that a look's time is made of
KINDS = {
    "plain": Kind("plain"),
    "rtt20": Kind("rtt20", 0.020),
    "stragglers": Kind("stragglers", stragglers=True),
}


class Relaying:
    """The relay's process, for as long as a cell lasts; without a delay there is none."""

    def __init__(self, order: Path, delay: float | None) -> None:
        words = [sys.executable, "-m", "tests.bench.relay", str(order), str((delay or 0) / 2)]
        self._process = None
        if delay is not None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(words, env=environ({}), stdin=pipe, stdout=pipe, text=True)
            if self._process.stdout is None or self._process.stdout.readline() != "ready\n":
                raise RuntimeError("the bench's relay did not start")

    def turns(self) -> int | None:
        """Return the most turns of a host since the last call."""
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            return None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return max(json.loads(self._process.stdout.readline()).values(), default=0)

    def close(self) -> None:
        """End it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(10)


def ordered(place: Place, kind: Kind, folder: Path) -> tuple[Order, Path, Path]:
    """Write the orders of a cell: the contestant's, and the relay's; return both paths."""
    works = tuple(shares(place.count, base=BASE, stragglers=kind.stragglers))
    direct = Order(place.doors, works, str(place.key), str(place.known_hosts))
    doors = direct.doors if kind.delay is None else tuple(relayed(door) for door in direct.doors)
    order = Order(doors, works, direct.key, direct.known_hosts)
    order.write(folder / "order.json")
    direct.write(folder / "direct.json")
    return order, folder / "order.json", folder / "direct.json"


def ran(place: Place, contestant: Contestant, kind: Kind, folder: Path, limit: float) -> dict[str, Any]:
    """Measure a first run and one with nothing to change; what was not done, or done twice, is in `fault`."""
    folder.mkdir(parents=True, exist_ok=True)
    order, path, direct = ordered(place, kind, folder)
    words, extra = contestant.start(path, folder)
    place.fresh()
    relay = Relaying(direct, kind.delay)
    result: dict[str, Any] = {"path": max(work.path for work in order.works)}
    try:
        result["first"] = _once(words, extra, folder, limit) | {"turns": relay.turns()}
        if fault := place.faults():
            return result | {"fault": f"not done: {fault[0]} ({len(fault)} hosts); {_said(folder)}"}
        before = place.marks()
        result["second"] = _once(words, extra, folder, limit) | {"turns": relay.turns()}
        if place.marks() != before:
            result["fault"] = "changed what was as wanted"
    except (subprocess.TimeoutExpired, RuntimeError) as error:
        result["fault"] = f"{error}"[:400]
    finally:
        relay.close()
    return result


def alone(place: Place, shipway: Contestant, folder: Path) -> dict[str, Any]:
    """Measure one host on which nothing is to change, on a new connection and on a warm one."""
    folder.mkdir(parents=True, exist_ok=True)
    _, through, direct = ordered(place, FAR, folder)
    words, extra = shipway.start(direct, folder)
    place.fresh()
    _once(words, extra, folder, 120.0)
    relay = Relaying(direct, FAR.delay)
    asked = [sys.executable, "-m", "tests.bench.one_host", str(direct), str(through), str(FAR.delay)]
    try:
        done = subprocess.run(asked, env=environ({}), check=True, capture_output=True, text=True, timeout=300)
    finally:
        relay.close()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _said(folder: Path) -> str:
    return (folder / "log").read_text(encoding="utf-8", errors="replace")[-600:]


def _once(words: list[str], extra: dict[str, str], folder: Path, limit: float) -> dict[str, Any]:
    """Run it once under the measuring process."""
    out = folder / "measured.json"
    out.unlink(missing_ok=True)
    measure = [sys.executable, "-m", "tests.bench.measure", str(out), str(limit), *words]
    with (folder / "log").open("wb") as log:
        done = subprocess.run(
            measure, env=environ(extra), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, cwd=folder
        )
    if not out.exists():
        raise RuntimeError(f"measuring ended with {done.returncode}: {_said(folder)}")
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    if result["status"]:
        raise RuntimeError(f"ended with {result['status']}: {_said(folder)}")
    for line in _said(folder).splitlines():
        if line.startswith('{"exchanges"'):
            result |= json.loads(line)
    return result
