"""Programs that show files: cat, tail, base64, sha256sum, stat, ls, and openssl for when a certificate ends."""

from __future__ import annotations

import base64
import hashlib

from cryptography import x509

from lab.simulated.commands.arguments import parse
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


@program("tail")
async def tail(call: Call) -> int:
    """Print the last lines of files."""
    asked = parse(call.args, values="-n")
    status = 0
    for path in asked.rest:
        found = content(call, path)
        if isinstance(found, str):
            status = call.warn(f"tail: cannot open '{path}' for reading: {found}")
            continue
        call.out(b"".join(found.splitlines(keepends=True)[-int(asked.value("-n", default="10")) :]))
    return status


@program("base64")
async def encode(call: Call) -> int:
    """Print a file, or standard input, in base64; -w0 in one line, else in lines of 76 letters."""
    asked = parse(call.args, values="-w")
    path = asked.rest[0] if asked.rest else "-"
    found = await call.stdin.read() if path == "-" else content(call, path)
    if isinstance(found, str):
        return call.warn(f"base64: {path}: {found}")
    text = base64.b64encode(found).decode()
    width = int(asked.value("-w", default="76"))
    return call.say(text if not width else "".join(f"{text[at : at + width]}\n" for at in range(0, len(text), width)))


@program("sha256sum")
async def checksum(call: Call) -> int:
    """Print digests."""
    status = 0
    for path in parse(call.args, flags="-b").rest:
        found = content(call, path)
        if isinstance(found, bytes):
            call.say(f"{hashlib.sha256(found).hexdigest()}  {path}\n")
        else:
            status = call.warn(f"sha256sum: {path}: {found}")
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
        "%Y": str(int(node.changed)),
        "%F": kind,
        "%n": path,
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
    asked = parse(call.args, flags="-1 -A")
    status, found = 0, []
    for path in sorted(asked.rest or ["."]):
        if call.host.files.node(path) is None:
            call.warn(f"ls: cannot access '{path}': {NO_SUCH}")
            status = 2
        else:
            found.append((path, call.host.files.names(path)))
    plain = [path for path, names in found if names is None]
    call.say("".join(f"{path}\n" for path in plain))
    folders = [(path, names) for path, names in found if names is not None]
    for index, (path, names) in enumerate(folders):
        if len(asked.rest) > 1:
            call.say(f"{chr(10) if index or plain else ''}{path}:\n")
        call.say("".join(f"{name}\n" for name in names if asked.has("-A") or not name.startswith(".")))
    return status


@program("openssl")
async def openssl(call: Call) -> int:
    """Say when a certificate ends: `openssl x509 -noout -enddate -in FILE`."""
    asked = parse(call.args[1:], flags="-noout -enddate", values="-in", single_dash=True)
    if call.args[:1] != ("x509",) or not asked.has("-noout") or not asked.has("-enddate"):
        return call.not_simulated()
    path = asked.value("-in")
    content = call.host.files.read(path)
    if content is None:
        return call.warn(f"Could not open file or uri for loading certificate from {path}")
    ends = x509.load_pem_x509_certificate(content).not_valid_after_utc
    return call.say(f"notAfter={ends:%b} {ends.day:>2} {ends:%H:%M:%S %Y} GMT\n")
