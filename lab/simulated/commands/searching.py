"""find and grep, as far as looks at a host need them."""

from __future__ import annotations

import posixpath
import re
from fnmatch import fnmatchcase

from lab.simulated.commands.arguments import parse
from lab.simulated.commands.files import NO_SUCH, content
from lab.simulated.commands.registry import Call, program, run


def _walk(call: Call, path: str, depth: int, limit: int) -> list[tuple[str, int]]:
    """Return every path from `path` down with its depth, a directory before what is in it."""
    found = [(path, depth)]
    names = call.host.files.names(path) if depth < limit else None
    for name in names or ():
        found += _walk(call, posixpath.join(path, name), depth + 1, limit)
    return found


@program("find")
async def find(call: Call) -> int:
    """Find files by depth, name and kind; print them or hand them to a program."""
    words = [word for word in call.args if word not in ("-L", "-H", "-P", "-print")]
    actions: list[str] = []
    if "-exec" in words:
        at = words.index("-exec")
        words, actions = words[:at], words[at + 1 :]
    asked = parse(words, values="-mindepth -maxdepth -name -type -path -newermt", single_dash=True)
    if asked.unknown:
        return call.warn(f"find: unknown predicate `{asked.unknown[0]}'")
    low, high = int(asked.value("-mindepth", default="0")), int(asked.value("-maxdepth", default="64"))
    status, hits = 0, []
    for start in asked.rest or ["."]:
        if not call.host.files.exists(start):
            status = call.warn(f"find: '{start}': {NO_SUCH}")
            continue
        hits += [
            path for path, depth in _walk(call, start, 0, high) if depth >= low and _fits(call, path, asked.values)
        ]
    if actions:
        return await _handed(call, actions, hits) or status
    call.say("".join(f"{path}\n" for path in hits))
    return status


def _fits(call: Call, path: str, values: dict[str, list[str]]) -> bool:
    if not all(fnmatchcase(posixpath.basename(path), pattern) for pattern in values.get("-name", [])):
        return False
    if not all(fnmatchcase(path, pattern) for pattern in values.get("-path", [])):
        return False
    node = call.host.files.node(path)
    if not all(node is not None and node.changed > float(at.removeprefix("@")) for at in values.get("-newermt", [])):
        return False
    kinds = {"f": "file", "d": "dir", "l": "link"}
    return all(node is not None and node.kind == kinds.get(kind) for kind in values.get("-type", []))


async def _handed(call: Call, actions: list[str], hits: list[str]) -> int:
    """Run the program of `-exec ... {} +`, once for all."""
    words, end = actions[:-1], actions[-1]
    if end != "+":
        return call.not_simulated()
    full = [part for word in words for part in (hits if word == "{}" else [word])]
    return await run(call.like(full)) if hits else 0


@program("sed")
async def sed(call: Call) -> int:
    """Print the lines from one pattern to another: `sed -n /FROM/,/TO/p FILE`, no other script."""
    asked = parse(call.args, flags="-n -E -r", values="-e --expression")
    script, *paths = asked.rest or [""]
    between = re.fullmatch(r"/([^/]*)/,/([^/]*)/p", script)
    if not between or not asked.has("-n") or len(paths) != 1:
        return call.not_simulated()
    found = content(call, paths[0])
    if isinstance(found, str):
        return call.warn(f"sed: can't read {paths[0]}: {found}", 2)
    inside = False
    for line in found.decode(errors="replace").splitlines():
        starts = not inside and re.search(between[1], line) is not None
        if inside or starts:
            call.say(f"{line}\n")
        inside = starts or (inside and re.search(between[2], line) is None)
    return 0


@program("grep")
async def grep(call: Call) -> int:
    """Search files or standard input."""
    asked = parse(call.args, flags="-l -H -h -E -F -s -n -r", values="-e")
    if asked.unknown:
        return call.not_simulated()
    patterns = asked.values.get("-e") or asked.rest[:1]
    paths = asked.rest if "-e" in asked.values else asked.rest[1:]
    texts = [re.escape(pattern) if asked.has("-F") else pattern for pattern in patterns]
    matcher = re.compile("|".join(f"(?:{text})" for text in texts))
    any_hit, trouble = False, False
    if asked.has("-r"):
        paths = [
            found for path in paths for found, _ in _walk(call, path, 0, 64) if call.host.files.names(found) is None
        ]
    for path in paths or ["-"]:
        found = await call.stdin.read() if path == "-" else content(call, path)
        if isinstance(found, str):
            trouble = True
            if not asked.has("-s"):
                call.warn(f"grep: {path}: {found}")
            continue
        lines = found.decode(errors="replace").splitlines()
        hits = [(at, line) for at, line in enumerate(lines, 1) if matcher.search(line)]
        any_hit = any_hit or bool(hits)
        _shown(call, path, hits, asked.flags, many=len(paths) > 1)
    return 2 if trouble else int(not any_hit)


def _shown(call: Call, path: str, hits: list[tuple[int, str]], flags: set[str], *, many: bool) -> None:
    if "-l" in flags:
        if hits:
            call.say(f"{path}\n")
        return
    named = "-H" in flags or (many and "-h" not in flags)
    before = f"{path}:" if named else ""
    for at, line in hits:
        call.say(f"{before}{f'{at}:' if '-n' in flags else ''}{line}\n")
