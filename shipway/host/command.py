"""A command that changes a host, as data: words, limit, input; and those that put a file in its place."""

from __future__ import annotations

from collections.abc import Sequence
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
        """Return the words under timeout(1), so that a command never outlives its limit on the host."""
        return self.words if self.brief else ("timeout", "-k", "10", str(self.seconds), *self.words)


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is to be on a host: mode in octal, like 644; owner as user:group."""

    path: str
    content: bytes
    mode: str = "644"
    owner: str = "root:root"

    @property
    def fresh(self) -> str:
        """Where it grows until it is complete."""
        return f"{self.path}.shipway-new"


Part = tuple[Command, tuple[File, ...]]  # a command, and the files that it is about


def place_files(files: Sequence[File]) -> list[Part]:
    """Return what puts files in their places, each in one rename, private until all are complete; makes folders (755).

    The content goes through a new file that is 0600 and root's from before its first byte, by the shell's umask: the
    `install` of GNU would make it so, the one in Rust (seen in 0.0.17; Ubuntu's since 25.10) makes it readable and
    changes that a moment later, and who opened it meanwhile reads all that follows. dd is told the size, so that it
    takes its own bytes of the input that all files share, and not one more; of an input that ends too early it takes
    what there is and ends with 0, so that what comes after a file is looked at too.
    """
    parts: list[Part] = [(Command(("make_room", *(file.fresh for file in files)), brief=True), tuple(files))]
    for file in files:
        size = (f"bs={len(file.content)}", "count=1") if file.content else ("count=0",)
        words = ("dd", *size, "iflag=fullblock", f"of={file.fresh}", "status=none")
        parts += [
            (Command(words, feed=file.content, brief=True), (file,)),
            (Command(("was_whole",), feed=WHOLE, brief=True), (file,)),
        ]
    for owner in dict.fromkeys(file.owner for file in files if file.owner != "root:root"):
        parts.append(_together("chown", owner, [file for file in files if file.owner == owner]))
    for mode in dict.fromkeys(file.mode for file in files):
        parts.append(_together("chmod", mode, [file for file in files if file.mode == mode]))
    return parts + [(Command(("mv", "-fT", file.fresh, file.path), brief=True), (file,)) for file in files]


def _together(program: str, value: str, files: Sequence[File]) -> Part:
    return Command((program, value, *(file.fresh for file in files)), brief=True), tuple(files)
