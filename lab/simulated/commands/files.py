"""Programs that show files: cat, stat, sha256sum, ls, readlink, test, head, tail, wc."""

from __future__ import annotations

import base64
import hashlib
import time

from lab.simulated.commands.arguments import Parsed, parse
from lab.simulated.commands.registry import Call, program
from lab.simulated.files import Node

_TYPES = {"file": "regular file", "dir": "directory", "link": "symbolic link"}
NO_SUCH = "No such file or directory"


def readable(call: Call, node: Node) -> bool:
    """Say whether the caller may read a file: root, its owner, or everybody."""
    if call.root or node.mode & 0o004:
        return True
    return node.owner.split(":")[0] == call.user and bool(node.mode & 0o400)


def content(call: Call, path: str) -> bytes | str:
    """Return a file's content, or the reason in errno's words why not."""
    node = call.host.files.node(path)
    if node is None:
        return NO_SUCH
    if node.kind == "dir":
        return "Is a directory"
    return node.content if readable(call, node) else "Permission denied"


@program("cat")
async def cat(call: Call) -> int:
    """Print files, or standard input."""
    status = 0
    for path in parse(call.args).rest or ["-"]:
        found = await call.stdin.read() if path == "-" else content(call, path)
        if isinstance(found, bytes):
            call.out(found)
        else:
            status = call.warn(f"cat: {path}: {found}")
    return status


@program("head", "tail")
async def ends(call: Call) -> int:
    """Print the first or last lines or bytes of files."""
    asked = parse(call.args, flags="-q -f", values="-n -c --lines --bytes")
    status = 0
    for path in asked.rest or ["-"]:
        found = await call.stdin.read() if path == "-" else content(call, path)
        if isinstance(found, str):
            status = call.warn(f"{call.words[0]}: cannot open '{path}' for reading: {found}")
            continue
        last = call.words[0] == "tail"
        size = asked.value("-c", "--bytes")
        if size:
            call.out(found[-int(size) :] if last else found[: int(size)])
            continue
        lines = found.splitlines(keepends=True)
        count = int(asked.value("-n", "--lines", default="10"))
        call.out(b"".join(lines[-count:] if last else lines[:count]))
    return status


@program("base64")
async def encode(call: Call) -> int:
    """Print a file, or standard input, in base64; -w0 in one line, else in lines of 76 letters."""
    asked = parse(call.args, flags="-d", values="-w")
    path = asked.rest[0] if asked.rest else "-"
    found = await call.stdin.read() if path == "-" else content(call, path)
    if isinstance(found, str):
        return call.warn(f"base64: {path}: {found}")
    if asked.has("-d"):
        call.out(base64.b64decode(found))
        return 0
    text = base64.b64encode(found).decode()
    width = int(asked.value("-w", default="76"))
    return call.say(text if not width else "".join(f"{text[at : at + width]}\n" for at in range(0, len(text), width)))


@program("wc")
async def wc(call: Call) -> int:
    """Count lines or bytes."""
    asked = parse(call.args, flags="-l -c")
    for path in asked.rest:
        found = content(call, path)
        if isinstance(found, str):
            return call.warn(f"wc: {path}: {found}")
        call.say(f"{found.count(bytes([10])) if asked.has('-l') else len(found)} {path}\n")
    return 0


@program("sha256sum", "md5sum")
async def checksum(call: Call) -> int:
    """Print digests."""
    status = 0
    for path in parse(call.args, flags="-b").rest:
        found = content(call, path)
        if isinstance(found, bytes):
            made = hashlib.sha256(found) if call.words[0] == "sha256sum" else hashlib.md5(found, usedforsecurity=False)
            call.say(f"{made.hexdigest()}  {path}\n")
        else:
            status = call.warn(f"{call.words[0]}: {path}: {found}")
    return status


@program("stat")
async def stat(call: Call) -> int:
    """Print a file's properties by a format, or with -f the kind of its file system."""
    asked = parse(call.args, flags="-f -L", values="-c --format")
    status = 0
    for path in asked.rest:
        node = call.host.files.node(path, follow=asked.has("-L"))
        if node is None:
            kind = "cannot read file system information for" if asked.has("-f") else "cannot statx"
            status = call.warn(f"stat: {kind} '{path}': {NO_SUCH}")
        else:
            shape = asked.value("-c", "--format", default="%n %s %a %U:%G")
            fields = {"%T": _filesystem(call, path), "%n": path} if asked.has("-f") else fields_of(path, node)
            call.say(f"{_filled(shape, fields)}\n")
    return status


def fields_of(path: str, node: Node) -> dict[str, str]:
    """Return what stat's format letters stand for."""
    user, _, group = node.owner.partition(":")
    kind = _TYPES[node.kind]
    if node.kind == "file" and not node.content and not path.startswith("/proc"):
        kind = "regular empty file"
    if path == "/dev/null" or path.startswith("/dev/nvidia"):
        kind = "character special file"
    return {
        "%a": f"{node.mode:o}",
        "%U": user,
        "%G": group,
        "%u": "0" if user == "root" else "1000",
        "%g": "0" if group == "root" else "1000",
        "%Y": str(int(node.changed)),
        "%s": str(0 if path.startswith("/proc") else len(node.content)),
        "%F": kind,
        "%n": path,
        "%N": f"'{path}' -> '{node.target}'" if node.kind == "link" else f"'{path}'",
        "%y": time.strftime("%Y-%m-%d %H:%M:%S.000000000 +0000", time.gmtime(node.changed)),
    }


def _filled(shape: str, fields: dict[str, str]) -> str:
    out, at = "", 0
    while at < len(shape):
        pair = shape[at : at + 2]
        out += fields.get(pair, shape[at])
        at += 2 if pair in fields else 1
    return out.replace("\\n", "\n")


def _filesystem(call: Call, path: str) -> str:
    if path.startswith("/sys/fs/cgroup"):
        return "cgroup2fs" if call.host.kernel.cgroup == 2 else "tmpfs"
    return {"/proc": "proc", "/sys": "sysfs", "/run": "tmpfs"}.get("/" + path.split("/")[1], "ext2/ext3")


@program("ls")
async def ls(call: Call) -> int:
    """List directories."""
    asked = parse(call.args, flags="-1 -A -a -l -d -R -h -t -r")
    status, found = 0, []
    for path in sorted(asked.rest or ["."]):
        if call.host.files.node(path) is None:
            call.warn(f"ls: cannot access '{path}': {NO_SUCH}")
            status = 2
        else:
            found.append((path, None if asked.has("-d") else call.host.files.names(path)))
    plain = [path for path, names in found if names is None]
    call.say("".join(_entry(call, path, path, asked) for path in plain))
    folders = [(path, names) for path, names in found if names is not None]
    for index, (path, names) in enumerate(folders):
        if len(asked.rest) > 1:
            call.say(f"{chr(10) if index or plain else ''}{path}:\n")
        shown = [name for name in names if asked.has("-A", "-a") or not name.startswith(".")]
        call.say("".join(_entry(call, f"{path.rstrip('/')}/{name}", name, asked) for name in shown))
    return status


def _entry(call: Call, path: str, name: str, asked: Parsed) -> str:
    return f"{_long(call, path, name)}\n" if asked.has("-l") else f"{name}\n"


def _long(call: Call, path: str, name: str) -> str:
    node = call.host.files.node(path, follow=False) or Node()
    kind = {"dir": "d", "link": "l", "file": "-"}[node.kind]
    letters = "".join(letter if node.mode & 0o400 >> index else "-" for index, letter in enumerate("rwxrwxrwx"))
    user, _, group = node.owner.partition(":")
    when = time.strftime("%b %e %H:%M", time.gmtime(node.changed))
    target = f" -> {node.target}" if node.kind == "link" else ""
    return f"{kind}{letters} 1 {user} {group} {len(node.content):>6} {when} {name}{target}"


@program("readlink", "realpath")
async def readlink(call: Call) -> int:
    """Print where a link leads."""
    asked = parse(call.args, flags="-f -e -m -n")
    for path in asked.rest:
        if asked.has("-f", "-e", "-m") or call.words[0] == "realpath":
            call.say(f"{call.host.files.resolve(path)}\n")
            continue
        node = call.host.files.node(path, follow=False)
        if node is None or node.kind != "link":
            return 1
        call.say(f"{node.target}\n")
    return 0


@program("test", "[")
async def test(call: Call) -> int:
    """Answer a question about files or texts by the exit status."""
    words = [word for word in call.args if word != "]"]
    negated = words[:1] == ["!"]
    words = words[1:] if negated else words
    return int(_true(call, words) == negated)


def _true(call: Call, words: list[str]) -> bool:
    if len(words) == 2:
        test, word = words
        node = call.host.files.node(word, follow=test not in ("-L", "-h"))
        if test in ("-n", "-z"):
            return bool(word) == (test == "-n")
        wanted = {"-f": "file", "-d": "dir", "-L": "link", "-h": "link"}.get(test)
        if node is None:
            return False
        if test == "-s":
            return bool(node.content)
        return node.kind == wanted if wanted else True
    if len(words) == 3:
        left, operator, right = words
        return {"=": left == right, "==": left == right, "!=": left != right, "-eq": left == right}.get(operator, False)
    return bool(words and words[0])
