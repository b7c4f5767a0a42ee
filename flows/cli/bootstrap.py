"""`shipway bootstrap`; it is no part of flows.bootstrap, for that file runs as `__main__`."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import FAILED, Command, Parser
from flows.cli.demo import Demo
from flows.cli.ticker import Ticker
from flows.prefect_api.loading import uncollected
from flows.prefect_api.local import LocalApi
from shipway.errors import Refused

if TYPE_CHECKING:
    from prefect import State
    from rich.console import Console

    from tasks.context import Run
    from tasks.stage_result import Mode


def build_parser(prog: str) -> Parser:
    """Return the parser."""
    made = Parser(
        prog=prog,
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


def run_bootstrap(asked: argparse.Namespace, console: Console) -> int:
    """Start what a run needs at once, run it, say how it ended, and see its history recorded."""
    if asked.keep and asked.cluster_file:
        raise Refused("--keep is for the SIMULATED lab; a cluster of your own is never taken down")
    with ExitStack() as stack:
        ticker = stack.enter_context(Ticker("starting Prefect's API", quiet=asked.quiet))
        from shipway.cluster.profiles import DEFAULT_PROFILE  # noqa: PLC0415 - reads YAML: after the first line is said

        demo = None if asked.cluster_file else stack.enter_context(Demo(keep=asked.keep, profile=DEFAULT_PROFILE))
        api = stack.enter_context(LocalApi())
        ticker.text = "starting Prefect's API" if api.own else f"Prefect's API: {api.url}"
        with uncollected():  # what a run needs, while the ticker still moves; Prefect reads the environment set by now
            from flows.bootstrap import bootstrap  # noqa: F401, PLC0415
            from flows.cli.flight import history  # noqa: PLC0415
            from flows.cli.summary import say  # noqa: PLC0415

        if demo:
            ticker.text = "starting the SIMULATED lab of four hosts"
        path = demo.cluster_file() if demo else asked.cluster_file
        ticker.text = api.waited_for
        api.wait()
        ticker.stop()
        run = _run_flow(asked, path, console, simulated=demo is not None)
        if run is None or run.report is None:
            return FAILED
        say(console, run.report, run, simulated=demo is not None, gone=bool(demo and not demo.keep))
        if demo and demo.keep:
            _tell_kept(console, demo, run)
        missing = api.drain(run.flow_runs, len(run.task_runs))
        history(console, api, run, missing)
        return run.report.exit_code


def _run_flow(asked: argparse.Namespace, path: Path, console: Console, *, simulated: bool) -> Run | None:
    """Run the bootstrap under a view; return its run. Raises Refused as the flow does."""
    from flows.bootstrap import bootstrap  # noqa: PLC0415 - as above
    from flows.cli.flight import fly_flow  # noqa: PLC0415

    mode = mode_of(asked)
    report = str(asked.report.resolve()) if asked.report else None
    file = str(path.resolve())

    async def flight() -> State[Any]:
        state: State[Any] = await bootstrap(
            file, mode, tuple(asked.host), tuple(asked.reset), report, return_state=True
        )
        return state

    title = f"{'SIMULATED ' if simulated else ''}{mode} of {path}"
    return fly_flow(console, title, flight, quiet=asked.quiet)


def mode_of(asked: argparse.Namespace) -> Mode:
    """Return the mode that was asked for."""
    return "plan" if asked.plan else "bootstrap"


def _tell_kept(console: Console, demo: Demo, run: Run) -> None:
    """Say how to look around in a lab that stays up, and how to end it."""
    from flows.cli.flight import program  # noqa: PLC0415 - as above

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


COMMAND = Command("bootstrap", build_parser, run_bootstrap, mode_of)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main())
