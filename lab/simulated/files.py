"""A host's files in memory, over a base that all hosts share: contents, modes, owners, times, and views like /proc."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Node:
    """One file, directory or symbolic link; `changed` is in seconds since 1970, 0 stands for the host's boot."""

    content: bytes = b""
    mode: int = 0o644
    owner: str = "root:root"
    changed: float = 0.0
    kind: Literal["file", "dir", "link"] = "file"

    @property
    def target(self) -> str:
        """Where a link leads."""
        return self.content.decode()


def directory(mode: int = 0o755, owner: str = "root:root") -> Node:
    """Return a directory."""
    return Node(mode=mode, owner=owner, kind="dir")


def link(target: str) -> Node:
    """Return a symbolic link."""
    return Node(target.encode(), 0o777, kind="link")


def _parents(path: str) -> list[str]:
    """Return every directory above a path, without the root."""
    return [path[:at] for at, letter in enumerate(path) if letter == "/" and at]


class Views(Protocol):
    """What the kernel shows as files: computed when looked at."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a computed file; None where there is none."""

    def names(self, path: str) -> list[str] | None:
        """Return the names in a computed directory; None where there is none."""

    def write(self, path: str, content: bytes) -> bool:
        """Take what is written to a computed file; False where it is not one."""


class NoSpace(OSError):
    """The disk is full: the file was emptied, and what was to be in it could not be written."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: No space left on device")
        self.path = path


IN_MEMORY = ("/run/", "/dev/", "/proc/", "/sys/")


class FileTree:
    """The files of one host. Paths are absolute; links are followed; parents of base files exist by themselves."""

    def __init__(self, base: Mapping[str, Node], views: Views, now: Callable[[], float]) -> None:
        self._base = base
        self._own: dict[str, Node | None] = {}
        self._below = Counter(parent for path in base for parent in _parents(path))  # how many paths are below each
        self._views = views
        self._now = now
        self.full: Callable[[], bool] = lambda: False  # whether the disk has no room left

    def resolve(self, path: str) -> str:
        """Return the path with every link on the way followed."""
        path = posixpath.normpath(path if path.startswith("/") else f"/{path}")
        for _ in range(16):
            walked = ""
            for part in path.split("/")[1:]:
                walked = f"{walked}/{part}"
                node = self._node(walked)
                if node is not None and node.kind == "link":
                    target = posixpath.join(posixpath.dirname(walked), node.target)
                    path = posixpath.normpath(target + path[len(walked) :])
                    break
            else:
                return path
        return path

    def _node(self, path: str) -> Node | None:
        return self._own[path] if path in self._own else self._base.get(path)

    def node(self, path: str, *, follow: bool = True) -> Node | None:
        """Return what is at the path; None where nothing is."""
        path = self.resolve(path) if follow else posixpath.normpath(path)
        node = self._node(path)
        if node is not None:
            return node
        content = self._views.read(path)
        if content is not None:
            return Node(content, 0o644 if path.startswith("/proc/sys/") else 0o444, changed=self._now())
        names = self._views.names(path)
        if names is not None:
            return Node(mode=0o555, changed=self._now(), kind="dir")
        return directory() if path == "/" or self._has_children(path) else None

    def _has_children(self, path: str) -> bool:
        return self._below[path] > 0

    def _set(self, path: str, node: Node | None) -> None:
        """Let a node be at the path, or nothing, and count it with the directories above it."""
        change = (node is not None) - (self._node(path) is not None)
        if node is None and path not in self._base:
            self._own.pop(path, None)
        else:
            self._own[path] = node
        if change:
            for parent in _parents(path):
                self._below[parent] += change

    def _paths(self) -> Iterable[str]:
        yield from (path for path, node in self._own.items() if node is not None)
        yield from (path for path in self._base if path not in self._own)

    def read(self, path: str) -> bytes | None:
        """Return a file's content; None where there is no file."""
        node = self.node(path)
        return node.content if node is not None and node.kind == "file" else None

    def text(self, path: str) -> str:
        """Return a file's text, empty where there is no file."""
        return (self.read(path) or b"").decode(errors="replace")

    def exists(self, path: str) -> bool:
        """Say whether anything is there."""
        return self.node(path) is not None

    def names(self, path: str) -> list[str] | None:
        """Return the sorted names in a directory; None where it is none."""
        node = self.node(path)
        if node is None or node.kind != "dir":
            return None
        path = self.resolve(path)
        start = "/" if path == "/" else f"{path}/"
        found = {
            name[len(start) :].split("/", 1)[0] for name in self._paths() if name.startswith(start) and name != start
        }
        return sorted(found | set(self._views.names(path) or ()))

    def under(self, path: str) -> list[str]:
        """Return every path below a directory, deepest last."""
        start = f"{self.resolve(path)}/"
        return sorted(name for name in self._paths() if name.startswith(start))

    def write(self, path: str, content: bytes, *, mode: int | None = None, owner: str | None = None) -> None:
        """Put content into a file, keeping mode and owner of one that is there (644 root:root of a new one).

        Raises NoSpace where the disk is full; the file is there then, and empty.
        """
        path = self.resolve(path)
        if self._views.write(path, content):
            return
        known = self._node(path)
        old = known if known is not None and known.kind == "file" else Node()
        full = bool(content) and self.full() and not path.startswith(IN_MEMORY)
        made = Node(
            b"" if full else content,
            old.mode if mode is None else mode,
            old.owner if owner is None else owner,
            self._now(),
        )
        self._set(path, made)
        if full:
            raise NoSpace(path)

    def put(self, path: str, node: Node) -> None:
        """Put a node in place as it is."""
        self._set(posixpath.normpath(path), node)

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Make a directory and its parents where they are not there."""
        path = self.resolve(path)
        parent = posixpath.dirname(path)
        if parent not in ("", "/"):
            self.make_directory(parent)
        if self.node(path) is None:
            self._set(path, replace(directory(mode), changed=self._now()))

    def change(self, path: str, *, mode: int | None = None, owner: str | None = None) -> None:
        """Change mode or owner; the time of change of the content stays. Nothing happens where nothing is."""
        path = self.resolve(path)
        node = self.node(path)
        if node is not None:
            mode, owner = node.mode if mode is None else mode, node.owner if owner is None else owner
            self._set(path, replace(node, mode=mode, owner=owner))

    def remove(self, path: str) -> bool:
        """Remove a file, a link or a whole directory; False where nothing was."""
        path = posixpath.normpath(path)
        parent = self.resolve(posixpath.dirname(path) or "/")
        path = posixpath.join(parent, posixpath.basename(path))
        if self.node(path, follow=False) is None:
            return False
        for name in [path, *self.under(path)]:
            self._set(name, None)
        return True

    def move(self, source: str, target: str) -> None:
        """Rename a file or a directory, in place of what was there."""
        source, target = self.resolve(source), self.resolve(target)
        moved = {name: self._node(name) for name in [source, *self.under(source)]}
        self.remove(target)
        self.remove(source)
        for name, node in moved.items():
            if node is not None:
                self._set(target + name[len(source) :], node)

    def changes(self) -> dict[str, Node | None]:
        """Return what differs from the base: a snapshot for tests and for the control socket."""
        return dict(self._own)
