"""A command that changes a host, as data: words, limit, input; and those that put a file in its place."""

from __future__ import annotations

from dataclasses import dataclass

from shipway.script import WHOLE


@dataclass(frozen=True, slots=True)
class Command:
    """A command that changes something: words, its own limit in seconds, and input of which it takes every byte.

    One that is `brief` (it writes, moves or marks a file on a disk of the host) has no limit but its exchange's:
    timeout(1) would cost as much as the command, and a process that waits for a disk cannot be ended anyway. Its input
    ends with the connection.
    """

    words: tuple[str, ...]
    seconds: int = 60
    feed: bytes = b""
    brief: bool = False

    def bounded(self) -> tuple[str, ...]:
        """Give the words under timeout(1), so that a command never outlives its limit on the host."""
        return self.words if self.brief else ("timeout", "-k", "10", str(self.seconds), *self.words)


def placed(path: str, content: bytes, mode: str, owner: str) -> tuple[Command, ...]:
    """Give what puts a file in place in one rename, private until it is complete; parent directories are made (755).

    The content goes through a new file that is 0600 and root's from before its first byte, by the shell's umask: the
    `install` of GNU would make it so, the one in Rust (seen in 0.0.17; Ubuntu's since 25.10) makes it readable and
    changes that a moment later, and who opened it meanwhile reads all that follows. dd is told the size, so that it
    takes its own bytes of an input that further commands share, and not one more; of an input that ends too early it
    takes what there is and ends with 0, so that what comes after the file is looked at too.
    """
    fresh = f"{path}.shipway-new"
    size = (f"bs={len(content)}", "count=1") if content else ("count=0",)
    return (
        Command(("make_room", fresh), brief=True),
        Command(("dd", *size, "iflag=fullblock", f"of={fresh}", "status=none"), feed=content, brief=True),
        Command(("was_whole",), feed=WHOLE, brief=True),
        *([Command(("chown", owner, fresh), brief=True)] if owner != "root:root" else []),
        Command(("chmod", mode, fresh), brief=True),
        Command(("mv", "-fT", fresh, path), brief=True),
    )
