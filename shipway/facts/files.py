"""Facts about files: their state by digest, their text, what a directory holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shipway.facts.fact import Fact, Words
from shipway.script import Output


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A regular file's SHA-256 (hex), mode (octal, like 644), owner, and time of change (seconds since 1970)."""

    sha256: str
    mode: str
    owner: str
    changed: int


@dataclass(frozen=True)
class FileState(Fact[FileInfo | None]):
    """Digest, mode and owner of a file; None where there is none. All files of a look cost two processes."""

    path: str

    @classmethod
    def ask_all(cls, facts: Sequence[FileState]) -> list[Words]:
        """Ask for all paths at once."""
        paths = tuple(fact.path for fact in facts)
        return [("stat", "-c", "%a|%U:%G|%Y|%F|%n", "--", *paths), ("sha256sum", "--", *paths)]

    @classmethod
    def answer_all(cls, facts: Sequence[FileState], outputs: Sequence[Output]) -> list[FileInfo | None]:
        """Join the answers of stat and sha256sum by path."""
        states: dict[str, tuple[str, str, int]] = {}
        for line in outputs[0].stdout.splitlines():
            mode, owner, changed, kind, path = (*line.split("|", 4), "", "", "", "", "")[:5]
            if kind.startswith("regular") and changed.isdigit():
                states[path] = (mode, owner, int(changed))
        digests: dict[str, str] = {}
        for line in outputs[1].stdout.splitlines():
            digest, _, path = line.partition("  ")
            digests[path] = digest
        answers: list[FileInfo | None] = []
        for fact in facts:
            state, digest_of = states.get(fact.path), digests.get(fact.path)
            answers.append(FileInfo(digest_of, *state) if state and digest_of else None)
        return answers


@dataclass(frozen=True)
class FileText(Fact[str | None]):
    """The text of a file; None where there is none or it cannot be read."""

    path: str

    def words(self) -> Words:
        """Print the file."""
        return ("cat", "--", self.path)

    def parse(self, output: Output) -> str | None:
        """Give the text as it is."""
        return output.stdout if output.ok else None


@dataclass(frozen=True)
class Listing(Fact[tuple[str, ...]]):
    """The names in a directory, sorted; empty where there is no such directory."""

    path: str

    def words(self) -> Words:
        """List all names but . and .."""
        return ("ls", "-1A", "--", self.path)

    def parse(self, output: Output) -> tuple[str, ...]:
        """Give the names."""
        return tuple(sorted(output.stdout.splitlines())) if output.ok else ()
