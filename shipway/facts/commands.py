"""Facts that a program tells: its output as text, bounded in time where it may hang."""

from __future__ import annotations

from dataclasses import dataclass

from shipway.facts.fact import Fact, Words
from shipway.script import Output

NOT_ENDED = 124  # what timeout(1) gives
# A program that hangs in the kernel ignores even KILL, and timeout(1) would wait for it for ever (NVSentinel#1576): so
# bash reads what it says through a pipe for so long, and no longer. $0 limit, $1 last limit, then the program.
WATCHED = (
    'IFS= read -r -d "" -t "$1" said < <(exec 2>&1; timeout -k 2 "$0" "${@:2}"; printf "\\n=%s" "$?"); '
    "case $said in *$'\\n'=[0-9]*) ;; *) said+=$'\\n'=124 ;; esac; "
    'printf "%s" "${said%$\'\\n\'=*}"; exit "${said##*=}"'
)


@dataclass(frozen=True)
class Says(Fact[Output]):
    """What a read-only command answers; `seconds` bounds it (timeout sends TERM, then KILL 5 s later; status 124)."""

    command: Words
    seconds: int = 20

    def words(self) -> Words:
        """Run it under timeout(1)."""
        return ("timeout", "-k", "5", str(self.seconds), *self.command)

    def parse(self, output: Output) -> Output:
        """Return the output as it is."""
        return output


@dataclass(frozen=True)
class Watched(Fact[Output]):
    """What a read-only command answers that may hang for good, output and errors together; 124 where it did not end."""

    command: Words
    seconds: int = 30

    def words(self) -> Words:
        """Run it so that it is given up when it does not end."""
        return ("bash", "-c", WATCHED, str(self.seconds), str(self.seconds + 5), *self.command)

    def parse(self, output: Output) -> Output:
        """Return the output; a killed program did not end by itself either."""
        return Output(NOT_ENDED, output.stdout, "") if output.status in (NOT_ENDED, 137) else output
