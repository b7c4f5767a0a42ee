"""The command line of a bootstrap; it is no part of flows.bootstrap, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from flows.audience import open_console
from flows.demo import Demo
from flows.flight import flown, history, program
from flows.local_api import LocalApi
from shipway.cluster import Cluster
from shipway.errors import Refused, ShipwayError

if TYPE_CHECKING:
    from prefect import State

    from flows.terminal import Plain
    from tasks.context import Mode, Run

REFUSED, FAILED = 1, 3


class Parser(argparse.ArgumentParser):
    """Bad usage ends with 1, as every other bad input does."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and how it is meant."""
        self.print_usage(sys.stderr)
        self.exit(REFUSED, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Give the parser of `python -m flows.bootstrap`."""
    made = Parser(
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
    console = open_console()
    try:
        return _run(asked, console)
    except ShipwayError as error:
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
        write_refusal(asked.report, error, "plan" if asked.plan else "bootstrap", console)
        return REFUSED
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to go on")
        return FAILED


def write_refusal(report: Path | None, error: ShipwayError, mode: Mode, console: Console) -> None:
    """Write the report of a run that never began, where one was asked for."""
    if report:
        from tasks.report import refused  # noqa: PLC0415 - a refusal without a report needs none of it

        try:
            refused(error, mode).write(report)
        except OSError as fault:
            console.print(f"warning: no report: {fault}", markup=False, highlight=False, soft_wrap=True)


def _checked(asked: argparse.Namespace) -> None:
    """Refuse bad input before anything is started. Raises Refused."""
    if asked.keep and asked.cluster_file:
        raise Refused("--keep is for the SIMULATED lab; a cluster of your own is never taken down")
    check(asked.report, asked.cluster_file, [*asked.host, *asked.reset])


def check(report: Path | None, cluster_file: Path | None, hosts: Sequence[str]) -> None:
    """Refuse a report that cannot be written, a faulty cluster file, hosts it does not have. Raises Refused."""
    if report and (report.is_dir() or not report.parent.is_dir()):
        raise Refused(f"--report {report}: name a file in a folder that is there")
    if cluster_file:
        known = [host.name for host in Cluster.load(cluster_file).hosts]
        if unknown := [name for name in hosts if name not in known]:
            raise Refused(f"no host {', '.join(unknown)} in {cluster_file}; it has {', '.join(known)}")


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
        history(console, api, run, missing)
        return run.report.exit_code


def _flown(asked: argparse.Namespace, path: Path, console: Console, *, simulated: bool) -> Plain:
    """Run the bootstrap under a view; give the view, which has the run. Raises Refused as the flow does."""
    from flows.bootstrap import bootstrap  # noqa: PLC0415 - as above

    mode: Mode = "plan" if asked.plan else "bootstrap"
    report = str(asked.report.resolve()) if asked.report else None
    file = str(path.resolve())

    async def flight() -> State[Any]:
        state: State[Any] = await bootstrap(
            file, mode, tuple(asked.host), tuple(asked.reset), report, return_state=True
        )
        return state

    title = f"{'SIMULATED ' if simulated else ''}{mode} of {path}"
    return flown(console, title, flight, quiet=asked.quiet)


def _kept(console: Console, demo: Demo, run: Run) -> None:
    """Say how to look around in a lab that stays up, and how to end it."""
    kubectl = f"kubectl --kubeconfig {run.folder / 'kubeconfig'}"
    ssh = run.cluster.target(run.control)
    lines = (
        f"SIMULATED lab stays up as process {demo.pid}; its folder is {demo.folder}",
        f"  {kubectl} get nodes,pods -A -o wide",
        f"  ssh -i {ssh.key} -p {ssh.port} -o UserKnownHostsFile={ssh.known_hosts} {ssh.user}@{ssh.address}",
        f"  {program('python')} -m flows.bootstrap {demo.folder / 'cluster.yaml'}     (again: nothing to change)",
        f"  kill {demo.pid} && rm -r {demo.folder}     (the end of it)",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
