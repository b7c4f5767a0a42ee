"""`python -m tests.bench`: measure every cell that is not measured yet, keep each at once, write the table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import __version__ as prefect_version

from flows.prefect_api.local import LocalApi
from tests.bench.cells import KINDS, alone, ran
from tests.bench.peers import contestants, environment, versions
from tests.bench.place import Place
from tests.bench.scale import TURNS, bootstrapped
from tests.bench.table import page

ROOT = Path(__file__).parent.parent.parent
CELL_LIMIT = 900.0
CROWD = ("floor", "shipway", "shipway+prefect")  # those that are measured on so many hosts that others take hours


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    made = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    made.add_argument("--results", type=Path, default=ROOT / "build/bench", help="folder of the results; resumed there")
    made.add_argument(
        "--work", type=Path, default=Path("/var/tmp/shipway-bench"), help="folder of the hosts, not in /tmp"
    )
    made.add_argument("--hosts", default="10,30,100")
    made.add_argument("--kinds", default="plain,rtt20,stragglers", help=f"of {', '.join(KINDS)}; the last two at --few")
    made.add_argument("--few", default="3,30", help="hosts of the kinds but plain: 3 do not fill this machine's cores")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--contestants", default="", help="names; all by default")
    made.add_argument("--crowd", type=int, default=1000, help=f"hosts on which only {', '.join(CROWD)} run, once")
    made.add_argument("--scale", default="50,200,1000", help="simulated hosts; empty for none")
    made.add_argument("--limit", type=float, default=CELL_LIMIT, help="seconds a run may take")
    made.add_argument("--page", type=Path, help="write the table into this page and end")
    return made


def cells(asked: argparse.Namespace) -> list[tuple[int, str, int]]:
    """Return (hosts, kind, repeat): small ones first, the repeats outermost, so that contestants are interleaved."""
    sizes, few = ([int(word) for word in words.split(",") if word] for words in (asked.hosts, asked.few))
    plain, *_ = KINDS
    kinds = [kind for kind in asked.kinds.split(",") if kind]
    pairs = [(size, plain) for size in sizes if plain in kinds]
    pairs += [(size, kind) for kind in kinds if kind != plain for size in few]
    crowd = [(asked.crowd, plain, 0)] if asked.crowd else []
    return [(size, kind, repeat) for repeat in range(asked.repeats) for size, kind in pairs] + crowd


def machine(peers: Path) -> dict[str, Any]:
    """Return what the figures were measured with."""
    model = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "prefect": prefect_version,
        "peers": versions(peers),
    }


def _kept(path: Path, result: dict[str, Any]) -> None:
    """Keep a cell's result in one rename: a bench that is broken off leaves whole files only."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(result, indent=1), encoding="utf-8")
    fresh.rename(path)
    short = {turn: f"{result[turn]['wall']:.1f}/{result[turn]['cpu']:.1f} s" for turn in TURNS if turn in result}
    print(f"{path.stem}: wall/CPU {short} {result.get('fault', '')}", flush=True)


def _measured(path: Path) -> bool:
    """Say whether a cell is there and ended well; one with a fault is tried again."""
    return path.exists() and "fault" not in json.loads(path.read_text(encoding="utf-8"))


def ssh_cells(asked: argparse.Namespace, peers: Path, folder: Path) -> None:
    """Measure what is missing on real sshds."""
    everyone = contestants(peers)
    chosen = [one for one in everyone if not asked.contestants or one.name in asked.contestants.split(",")]
    have = versions(peers)
    for one in [one for one in chosen if one.package and one.package not in have]:
        print(f"bench: NOT MEASURED, {one.package} is not installed: {one.name}", flush=True)
        chosen.remove(one)
    for count, kind, repeat in cells(asked):
        few = [one for one in chosen if count != asked.crowd or one.name in CROWD]
        paths = {one.name: folder / f"{kind}-{count}-{one.name}-{repeat}.json" for one in few}
        missing = [one for one in few if not _measured(paths[one.name])]
        if not missing:
            continue
        with Place(asked.work / "hosts", count) as place:
            for one in missing:
                given = {"hosts": count, "kind": kind, "contestant": one.name, "repeat": repeat}
                given["load"] = os.getloadavg()[0]
                result = ran(place, one, KINDS[kind], asked.work / "cell", asked.limit)
                _kept(paths[one.name], given | result)


def one_host(asked: argparse.Namespace, peers: Path, folder: Path) -> None:
    """Measure one host by itself, unless it was."""
    path = folder / "one-host.json"
    if not path.exists():
        shipway = next(one for one in contestants(peers) if one.name == "shipway")
        with Place(asked.work / "hosts", 1) as place:
            found = alone(place, shipway, asked.work / "cell")
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"one host: {found}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return the exit status."""
    asked = parser().parse_args(arguments)
    folder = asked.results.resolve()
    if asked.page:
        page(folder, asked.page)
        return 0
    if os.geteuid():
        sys.exit("bench: needs root: each host is an sshd in a mount namespace")
    folder.mkdir(parents=True, exist_ok=True)
    peers = environment(ROOT / "build/bench-peers")
    (folder / "machine.json").write_text(json.dumps(machine(peers), indent=1), encoding="utf-8")
    started = time.monotonic()
    home = asked.work / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home)
    os.environ.pop("PREFECT_API_URL", None)
    with LocalApi() as api:  # as `prefect server start` for daily use: its CPU is not the controller's
        api.wait()
        one_host(asked, peers, folder)
        ssh_cells(asked, peers, folder)
    for count in [int(word) for word in asked.scale.split(",") if word]:
        path = folder / f"scale-{count}.json"
        if not _measured(path):
            _kept(path, bootstrapped(count, asked.work / "scale", 3 * asked.limit))
    page(folder, ROOT / "docs/performance.md")
    print(f"bench: done in {time.monotonic() - started:.0f} s; docs/performance.md is written", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
