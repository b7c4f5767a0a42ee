"""Command line: run a simulated lab until it is told to end, or talk to one that runs."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

from lab.simulated.control import Control, ask
from lab.simulated.drifts import DRIFTS
from lab.simulated.failures import Spec
from lab.simulated.lab import SimulatedLab
from lab.simulated.options import Options
from lab.simulated.ssh.limits import SshLimits
from lab.simulated.systems import SYSTEMS
from shipway.errors import ShipwayError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.simulated", description="SIMULATED hosts behind a real SSH server."
    )
    parser.add_argument("--state", type=Path, help="folder for cluster.yaml, keys and the control socket")
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=1, help="GPUs per host")
    parser.add_argument("--profile", default="seed")
    parser.add_argument("--system", choices=sorted(SYSTEMS), default="ubuntu-22.04")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0.1, help="wall seconds for one second of a real host")
    parser.add_argument("--fail", action="append", default=[], type=Spec.parse, metavar="HOST,KIND[,NAME=VALUE]...")
    drifts = f"HOST,KIND[,NAME=VALUE]...; kinds: {', '.join(DRIFTS)}"
    parser.add_argument("--drift", action="append", default=[], type=Spec.parse, metavar="SPEC", help=drifts)
    limits = "NAME=VALUE,...: MaxSessions, MaxStartups, LoginGraceTime of every host's sshd (default: OpenSSH's)"
    parser.add_argument("--sshd", type=SshLimits.parse, default=Options().sshd, metavar="LIMITS", help=limits)
    parser.add_argument("--keep", action="store_true", help="keep the folder when the lab ends")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    parser.add_argument("--tell", metavar="JSON", help='talk to the lab of --state: {"do": "cut", "host": "te2"}')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    asked = _parser().parse_args(arguments)
    if asked.tell:
        return _tell(asked.state, asked.tell)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("asyncssh").setLevel(logging.ERROR)
    folder = asked.state or Path(tempfile.mkdtemp(prefix="shipway-simulated-"))
    options = Options(
        hosts=asked.hosts,
        gpus=asked.gpus,
        profile=asked.profile,
        system=asked.system,
        seed=asked.seed,
        scale=asked.latency,
        failures=tuple(asked.fail),
        drifts=tuple(asked.drift),
        sshd=asked.sshd,
    )
    try:
        asyncio.run(_live(folder, options, with_parent=asked.with_parent))
    except (ValueError, OSError, ShipwayError) as error:
        print(f"SIMULATED lab: {error}", file=sys.stderr)
        return 1
    finally:
        if not asked.keep:
            _clean(folder, whole=asked.state is None)
    return 0


def _tell(folder: Path | None, text: str) -> int:
    import json  # noqa: PLC0415 - only here, and start-up time counts

    if folder is None:
        print("SIMULATED lab: --tell needs --state", file=sys.stderr)
        return 1
    try:
        answer = ask(folder, **json.loads(text))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        print(f"SIMULATED lab: {str(error).removeprefix('SIMULATED lab: ')}", file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=2))
    return 0


async def _live(folder: Path, options: Options, *, with_parent: bool) -> None:
    """Run the lab until a signal, or the end of standard input."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if with_parent:
        os.set_blocking(sys.stdin.fileno(), False)
        loop.add_reader(sys.stdin.fileno(), _parent, ended)
    async with SimulatedLab(folder, options) as lab:
        control = Control(lab)
        await control.start()
        print(f"SIMULATED lab ready: {lab.cluster_file}", flush=True)
        try:
            await ended.wait()
        finally:
            await control.close()
    print("SIMULATED lab ended", flush=True)


def _parent(ended: asyncio.Event) -> None:
    """End with the parent: its end of standard input is closed when it dies."""
    try:
        data = os.read(sys.stdin.fileno(), 4096)
    except BlockingIOError:
        return
    except OSError:
        data = b""
    if not data:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        ended.set()


def _clean(folder: Path, *, whole: bool) -> None:
    """Remove what the lab wrote: the key opens nothing any more."""
    for name in ("cluster.yaml", "id_ed25519", "known_hosts", "control.sock"):
        (folder / name).unlink(missing_ok=True)
    if whole:
        with contextlib.suppress(OSError):
            folder.rmdir()


if __name__ == "__main__":
    sys.exit(main())
