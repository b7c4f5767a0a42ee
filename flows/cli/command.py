"""What every verb's command line has in common: usage, refusals, faults of the program, and the exit status."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from flows.cli.audience import open_console, outlive_audience
from shipway.errors import Permanent, Refused, ShipwayError
from shipway.foreign.errors import describe_error

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.report import RunOutcome
    from tasks.stage_result import Mode

REFUSED, FAILED = 1, 3


class Parser(argparse.ArgumentParser):
    """Bad usage ends with 1, as every other bad input does."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and how it is meant."""
        self.print_usage(sys.stderr)
        self.exit(REFUSED, f"{self.prog}: {message}\n")


@dataclass(frozen=True)
class Command:
    """One verb: `python -m flows.MODULE` and `shipway VERB`."""

    module: str
    build_parser: Callable[[str], Parser]
    run: Callable[[argparse.Namespace, Console], int]
    mode: Callable[[argparse.Namespace], Mode]

    @property
    def verb(self) -> str:
        """What is typed behind `shipway`."""
        return self.module.replace("_", "-")

    def parser(self, prog: str = "") -> Parser:
        """Return the parser, for usage lines that begin with `prog`."""
        return self.build_parser(prog or f"python -m flows.{self.module}")

    def main(self, arguments: Sequence[str] | None = None, prog: str = "") -> int:
        """Run the command line. Returns the exit status: 1 only where nothing was changed, 3 for any fault of ours."""
        asked = self.parser(prog).parse_args(arguments)
        outlive_audience()
        if not asked.quiet:  # before anything large is imported: the first start on a slow machine takes long
            print(f"shipway {self.verb}: {asked.cluster_file or 'a SIMULATED lab of four hosts'}", flush=True)
        console = open_console()
        try:
            check(
                asked.report,
                asked.cluster_file,
                [*getattr(asked, "host", ()), *getattr(asked, "reset", ()), *getattr(asked, "without", ())],
            )
            return self.run(asked, console)
        except ShipwayError as error:
            self._end(asked, error, "refused", console)
            return REFUSED
        except KeyboardInterrupt:
            console.print("interrupted; run the same command again to go on")
            return FAILED
        except Exception as fault:  # noqa: BLE001 - whatever it is, exit status 1 would promise that nothing was changed
            self._end(asked, name_fault(fault), "failed", console)
            return FAILED

    def _end(self, asked: argparse.Namespace, error: ShipwayError, outcome: RunOutcome, console: Console) -> None:
        """Say why there was no run, also in the report where one was asked for."""
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
        if asked.report:
            from tasks.report import report_refusal  # noqa: PLC0415 - an end without a report needs none of it

            try:
                report_refusal(error, self.mode(asked), outcome=outcome).write(asked.report)
            except OSError as fault:
                console.print(
                    f"warning: no report: {describe_error(fault)}", markup=False, highlight=False, soft_wrap=True
                )


def name_fault(fault: Exception) -> Permanent:
    """Return the error of a fault of this program: one line, and the file that its traceback was put in, redacted."""
    from shipway.redact import redact  # noqa: PLC0415 - a fault is rare

    said = redact("".join(traceback.format_exception(fault)))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="shipway-fault-", suffix=".txt", delete=False) as file:
            file.write(said)
        where = f"The traceback is in {file.name}"
    except OSError as error:
        print(said, file=sys.stderr)
        where = f"The traceback is above ({error})"
    what = redact(" ".join(str(fault).split()))[:200]
    message = f"a fault in this program ended the run: {type(fault).__name__}: {what}"
    fix = f"{where}: report it. What was done so far stays; the same command with --help says how to look first."
    return Permanent(message, code="SHW-130", fix=fix)


def check(report: Path | None, cluster_file: Path | None, hosts: Sequence[str]) -> None:
    """Refuse a report that cannot be written, a faulty cluster file, hosts it does not have. Raises Refused."""
    if report and (report.is_dir() or not report.parent.is_dir()):
        raise Refused(f"--report {report}: name a file in a folder that is there", code="SHW-136")
    if report and not os.access(report.parent, os.W_OK):
        raise Refused(f"--report {report}: files cannot be made in that folder", code="SHW-136")
    if cluster_file:
        from shipway.cluster_file import load_cluster  # noqa: PLC0415 - it takes a second, and most commands need none

        known = [host.name for host in load_cluster(cluster_file).hosts]
        if unknown := [name for name in hosts if name not in known]:
            raise Refused(f"no host {', '.join(unknown)} in {cluster_file}; it has {', '.join(known)}")
