"""A command outlives whoever watches it: pipes, terminals and disks that go away while a run is at work."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.audience import GONE, Audience

ROOT = Path(__file__).parents[2]
SAYS = (
    "import sys; from flows.cli.audience import open_console; console = open_console()\n"
    "for number in range(3000): console.print(f'line {number} of a run')\n"
    "sys.stdout.flush(); import pathlib; pathlib.Path(sys.argv[1]).write_text('done')\n"
)


class Broken(io.StringIO):
    """A stream whose reader is gone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.tried = number, 0

    def write(self, text: str) -> int:
        """Fail as the system does."""
        self.tried += len(text) > 0
        raise OSError(self.number, os.strerror(self.number))


def test_a_log_line_that_cannot_be_sent_prints_nothing_below_the_run() -> None:
    program = (
        "import logging; from flows.cli.audience import outlive_audience; outlive_audience()\n"
        "class Away(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        try: raise ConnectionError('All connection attempts failed')\n"
        "        except ConnectionError: self.handleError(record)\n"
        "logging.getLogger().addHandler(Away()); logging.getLogger().error('a line')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stderr == ""


@pytest.mark.parametrize("number", sorted(GONE))
def test_a_stream_that_nobody_reads_any_more_is_written_to_once(number: int) -> None:
    stream = Broken(number)
    audience = Audience(stream)
    assert [audience.write("one line\n"), audience.write("another\n")] == [9, 8]
    audience.flush()
    assert (audience.gone, stream.tried) == (True, 1)


def test_a_closed_stream_is_no_fault_of_the_run() -> None:
    stream = io.StringIO()
    stream.close()
    audience = Audience(stream)
    assert audience.write("a line") == 6
    assert audience.gone


def test_any_other_fault_of_a_stream_is_raised() -> None:
    with pytest.raises(OSError, match="Permission denied"):
        Audience(Broken(errno.EACCES)).write("a line")


@pytest.mark.parametrize(
    "way", ["{run} | head -n 1", "{run} >&-", "{run} >&- 2>&- <&-", "{run} >/dev/full 2>/dev/full"]
)
def test_a_program_goes_on_to_its_end_without_an_audience(way: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    run = f'{sys.executable} -W error -c "$PROGRAM" {marker}'
    line = f"set -o pipefail; {way.format(run=run)}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, env={**os.environ, "PROGRAM": SAYS}, capture_output=True, text=True, check=False
    )
    assert (marker.read_text(encoding="utf-8"), done.returncode, done.stderr) == ("done", 0, "")


def test_a_session_that_hangs_up_ends_no_program(tmp_path: Path) -> None:
    program = SAYS.replace("for number", "import os, signal; os.kill(os.getpid(), signal.SIGHUP)\nfor number")
    subprocess.run(
        [sys.executable, "-c", program, tmp_path / "marker"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True
    )
    assert (tmp_path / "marker").read_text(encoding="utf-8") == "done"


def test_sigterm_closes_what_is_open_in_order() -> None:
    program = (
        "import os, signal, sys; from flows.cli.audience import open_console; open_console()\n"
        "try: os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "except KeyboardInterrupt: sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 7
