"""The console script: `shipway VERB ...` is `python -m flows.VERB ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from flows.cli import (
    backup,
    bootstrap,
    certificates,
    drift_repair,
    fleet,
    harden,
    maintain,
    move_endpoint,
    remove,
    replace,
    reset,
    restore,
    rotate_ca,
    upgrade,
    verify,
)
from flows.cli.command import REFUSED, Command

COMMANDS: dict[str, Command] = {
    made.COMMAND.verb: made.COMMAND
    for made in (
        bootstrap,
        drift_repair,
        verify,
        backup,
        restore,
        certificates,
        harden,
        move_endpoint,
        rotate_ca,
        upgrade,
        maintain,
        remove,
        replace,
        reset,
        fleet,
    )
}


def usage() -> str:
    """Return what is said for `shipway` alone and for `shipway --help`."""
    width = max(map(len, COMMANDS))
    lines = (f"  {verb:<{width}}  {command.parser().description}" for verb, command in COMMANDS.items())
    return "\n".join(("usage: shipway VERB ... (shipway VERB --help says more)", "", *lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb. Returns its exit status, 1 for a verb that is not there."""
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ("",)
    if verb in ("-h", "--help"):
        print(usage())
        return 0
    command = COMMANDS.get(verb.replace("_", "-"))
    if command is None:
        print(usage() + (f"\n\nshipway: no verb is called {verb}" if verb else ""), file=sys.stderr)
        return REFUSED
    return command.main(rest, f"shipway {verb}")


if __name__ == "__main__":
    sys.exit(main())
