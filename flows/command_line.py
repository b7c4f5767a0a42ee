"""The command line of a bootstrap; it is no part of flows.bootstrap, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from flows.demo import Demo
from flows.local_api import LocalApi
from shipway.cluster import Cluster
from shipway.errors import Refused, ShipwayError

if TYPE_CHECKING:
    from flows.terminal import Plain
    from tasks.context import Mode, Run

REFUSED, FAILED = 1, 3
WIDTH = 160  # of lines where no terminal says how wide it is


class _Parser(argparse.ArgumentParser):
    """Bad usage ends with 1, as every other bad input does."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and how it is meant."""
        self.print_usage(sys.stderr)
        self.exit(REFUSED, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Give the parser of `python -m flows.bootstrap`."""
    made = _Parser(
        prog="python -m flows.bootstrap",
        description="Bring up the Kubernetes cluster of a cluster file, its GPUs proven. Run it again to resume.",
        epilog="Exit status: 0 as wanted, 1 refused and nothing changed, 2 some hosts failed, 3 failed.",
    )
    made.add_argument("cluster_file", nargs="?", type=Path, help="without one: a SIMULATED lab of four hosts")
    made.add_argument("--plan", action="store_true", help="change nothing, say what would be changed")
    made.add_argument("--host", action="append", default=[], metavar="NAME", help="only this host (may be repeated)")
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    made.add_argument("--keep", action="store_true", help="leave the SIMULATED lab up afterwards")
    made.add_argument(
        "--reset", action="append", default=[], metavar="HOST", help="allow this host's unknown etcd data to be LOST"
    )
    made.add_argument("--quiet", action="store_true", help="only say how it ended")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    asked = parser().parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    try:
        return _run(asked, console)
    except ShipwayError as error:
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
        _refused(asked, error, console)
        return REFUSED
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to go on")
        return FAILED


def _refused(asked: argparse.Namespace, error: ShipwayError, console: Console) -> None:
    """Write the report of a run that never began, where one was asked for."""
    if asked.report:
        from tasks.report import refused  # noqa: PLC0415 - a refusal without a report needs none of it

        try:
            refused(error, "plan" if asked.plan else "bootstrap").write(asked.report)
        except OSError as fault:
            console.print(f"warning: no report: {fault}", markup=False, highlight=False, soft_wrap=True)


def _checked(asked: argparse.Namespace) -> None:
    """Refuse bad input before anything is started. Raises Refused."""
    if asked.keep and asked.cluster_file:
        raise Refused("--keep is for the SIMULATED lab; a cluster of your own is never taken down")
    if asked.report and (asked.report.is_dir() or not asked.report.parent.is_dir()):
        raise Refused(f"--report {asked.report}: name a file in a folder that is there")
    if asked.cluster_file:
        known = [host.name for host in Cluster.load(asked.cluster_file).hosts]
        if unknown := [name for name in (*asked.host, *asked.reset) if name not in known]:
            raise Refused(f"no host {', '.join(unknown)} in {asked.cluster_file}; it has {', '.join(known)}")


def _run(asked: argparse.Namespace, console: Console) -> int:
    """Start what a run needs at once, run it, say how it ended, and see its history recorded."""
    _checked(asked)
    with ExitStack() as stack:
        api = stack.enter_context(LocalApi())
        demo = None if asked.cluster_file else stack.enter_context(Demo(keep=asked.keep))
        if not asked.quiet:
            what = (
                f"Cluster: {asked.cluster_file}"
                if asked.cluster_file
                else "No cluster file: a SIMULATED lab of four hosts"
            )
            console.print(what, markup=False, highlight=False)
            console.print("Starting Prefect's API ..." if api.own else f"Prefect's API: {api.url}", highlight=False)

        from flows.summary import say  # noqa: PLC0415 - imports Prefect, which reads the environment set by now

        path = demo.cluster_file() if demo else asked.cluster_file
        api.wait()
        view = _flown(asked, path, console, simulated=demo is not None)
        run = view.run
        if run is None or run.report is None:
            return FAILED
        say(console, run.report, run, simulated=demo is not None, gone=bool(demo and not demo.keep))
        if demo and demo.keep:
            _kept(console, demo, run)
        missing = api.drain(run.flow_runs, len(run.task_runs))
        _history(console, api, run, missing)
        return run.report.exit_code


def _flown(asked: argparse.Namespace, path: Path, console: Console, *, simulated: bool) -> Plain:
    """Run the flow under a view; give the view, which has the run. Raises Refused as the flow does."""
    from flows.bootstrap import bootstrap  # noqa: PLC0415 - as above
    from flows.terminal import shown  # noqa: PLC0415
    from tasks.context import VIEW  # noqa: PLC0415

    mode: Mode = "plan" if asked.plan else "bootstrap"
    report = str(asked.report.resolve()) if asked.report else None
    file = str(path.resolve())

    async def fly() -> None:
        view.at_start = _end_on_signals  # after Prefect has set its own: that one cuts off what is under way
        state = await bootstrap(file, mode, tuple(asked.host), tuple(asked.reset), report, return_state=True)
        ended = await state.aresult(raise_on_failure=False)
        if isinstance(ended, ShipwayError):
            raise ended  # it never began
        if isinstance(ended, Exception):
            console.print("".join(traceback.format_exception(ended)), markup=False, highlight=False, soft_wrap=True)

    title = f"{'SIMULATED ' if simulated else ''}{mode} of {path}"
    with shown(console, title, quiet=asked.quiet) as view:
        VIEW.set(view)
        try:
            asyncio.run(fly())
        except (asyncio.CancelledError, KeyboardInterrupt):
            console.print("interrupted: connections are closed, and what was done so far is reported")
    return view


def _end_on_signals() -> None:
    """Let SIGINT and SIGTERM end the run in order; a second one ends it at once."""
    loop, main_task = asyncio.get_running_loop(), asyncio.current_task()

    def end() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        if main_task:
            main_task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)


def _kept(console: Console, demo: Demo, run: Run) -> None:
    """Say how to look around in a lab that stays up, and how to end it."""
    kubectl = f"kubectl --kubeconfig {run.folder / 'kubeconfig'}"
    ssh = run.cluster.target(run.control)
    lines = (
        f"SIMULATED lab stays up as process {demo.pid}; its folder is {demo.folder}",
        f"  {kubectl} get nodes,pods -A -o wide",
        f"  ssh -i {ssh.key} -p {ssh.port} -o UserKnownHostsFile={ssh.known_hosts} {ssh.user}@{ssh.address}",
        f"  python -m flows.bootstrap {demo.folder / 'cluster.yaml'}     (again: nothing to change)",
        f"  kill {demo.pid}     (the end of it)",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _history(console: Console, api: LocalApi, run: Run, missing: str) -> None:
    """Say where the run can be seen."""
    if missing:
        console.print(f"warning: Prefect's history of this run has gaps: {missing}", style="yellow", highlight=False)
    place = f"/runs/flow-run/{run.flow_runs[0]}"
    if api.own:
        home = os.environ.get("PREFECT_HOME")
        server = f"{f'PREFECT_HOME={home} ' if home else ''}prefect server start"
        line = f"see the run: `{server}`, then http://127.0.0.1:4200{place}"
    else:
        line = f"see the run: {api.url.removesuffix('/api')}{place}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
