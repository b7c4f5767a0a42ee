"""Facts about files: their state by digest, their text, what a directory holds.

That something is not there is known only by the program's own words for it. A look that failed for another reason (a
disk with errors, no memory, a broken program) says nothing, and is never taken for an absence: whether a host has
joined and whether etcd holds data is known by files, and a host is reset where they are not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shipway.facts.fact import Fact, Words
from shipway.foreign.numbers import whole
from shipway.known_failures.catalogue import failure
from shipway.script import Output

ABSENT = ("No such file or directory", "Not a directory", "Is a directory", "Too many levels of symbolic links")


NO_NAMES = ("", ".", "..")  # each name becomes a path, which may be removed
KERNEL = ("/proc/", "/sys/")  # what these show may be unreadable by its nature


def _absent(path: str, output: Output, program: str) -> None:
    """Return where the program says that there is no such file; raises CommandFailed where it says anything else.

    Looking again is always safe, so the error may be retried.
    """
    said = any(path in line and line.endswith(ABSENT) for line in output.stderr.splitlines())
    if not said and not path.startswith(KERNEL):
        error = failure(f"{program} {path}", Output(output.status, "", output.stderr))  # stdout may hold secrets
        error.may_retry = True
        raise error


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A regular file's SHA-256 (hex), mode (octal, like 644), owner, and time of change (seconds since 1970)."""

    sha256: str
    mode: str
    owner: str
    changed: int


@dataclass(frozen=True)
class FileState(Fact[FileInfo | None]):
    """Digest, mode and owner of a regular file; None where there is none. All files of a look cost two processes."""

    path: str

    @classmethod
    def ask_all(cls, facts: Sequence[FileState]) -> list[Words]:
        """Ask for all paths at once."""
        paths = tuple(fact.path for fact in facts)
        return [("stat", "-c", "%a|%U:%G|%Y|%F|%n", "--", *paths), ("sha256sum", "--", *paths)]

    @classmethod
    def answer_all(cls, facts: Sequence[FileState], outputs: Sequence[Output]) -> list[FileInfo | None]:
        """Join the answers of stat and sha256sum by path; raises CommandFailed where a look failed."""
        states: dict[str, tuple[str, str, int]] = {}
        seen: set[str] = set()
        for line in outputs[0].stdout.splitlines():
            mode, owner, changed, kind, path = (*line.split("|", 4), "", "", "", "", "")[:5]
            seen.add(path)
            when = whole(changed)
            if kind.startswith("regular") and when is not None:
                states[path] = (mode, owner, when)
        digests: dict[str, str] = {}
        for line in outputs[1].stdout.splitlines():
            digest, _, path = line.partition("  ")
            digests[path] = digest
        answers: list[FileInfo | None] = []
        for fact in facts:
            state, digest_of = states.get(fact.path), digests.get(fact.path)
            if fact.path not in seen:
                _absent(fact.path, outputs[0], "stat")
            elif state and not digest_of:
                _absent(fact.path, outputs[1], "sha256sum")
            answers.append(FileInfo(digest_of, *state) if state and digest_of else None)
        return answers


@dataclass(frozen=True)
class FileText(Fact[str | None]):
    """The text of a file; None where there is none."""

    path: str

    def words(self) -> Words:
        """Print the file."""
        return ("cat", "--", self.path)

    def parse(self, output: Output) -> str | None:
        """Return the text as it is; raises CommandFailed where the file is there and cannot be read."""
        if not output.ok:
            _absent(self.path, output, "cat")
            return None
        return output.stdout


@dataclass(frozen=True)
class Listing(Fact[tuple[str, ...]]):
    """The names in a directory, sorted; empty where there is no such directory."""

    path: str

    def words(self) -> Words:
        """List all names but . and .."""
        return ("ls", "-1A", "--", self.path)

    def parse(self, output: Output) -> tuple[str, ...]:
        """Return the names; one with a newline in it is seen as two, and none leads out of the directory.

        Raises CommandFailed where the directory is there and cannot be read.
        """
        if not output.ok:
            _absent(self.path, output, "ls")
            return ()
        return tuple(sorted(name for name in output.stdout.split("\n") if name not in NO_NAMES and "/" not in name))
