"""Programs that change files: install, dd, cp, mv, rm, ln, mkdir, rmdir, chmod, chown, touch."""

from __future__ import annotations

import posixpath

from lab.simulated.commands.arguments import Parsed, parse
from lab.simulated.commands.files import NO_SUCH, content
from lab.simulated.commands.registry import Call, program
from lab.simulated.files import link

_USERS = ("root", "ops", "daemon", "nobody")


def _denied(call: Call, path: str) -> bool:
    """Say whether this user may not write here: only root may, but for homes and temporary folders."""
    return not call.root and not path.startswith((f"/home/{call.user}", "/tmp", "/var/tmp", "/run/user"))


def _into(call: Call, source: str, target: str) -> str:
    """Return where a copy of `source` lands: below the target where that is a directory."""
    node = call.host.files.node(target)
    folder = node is not None and node.kind == "dir"
    return posixpath.join(target, posixpath.basename(source)) if folder else target


def _write(call: Call, path: str, text: bytes, mode: int = 0o666) -> None:
    """Write a file: a new one has this mode without what the umask takes, one that is there keeps its own."""
    new = not call.host.files.exists(path)
    call.host.files.write(path, text, mode=mode & ~call.shell.umask if new else None)


def _unwritable(call: Call, path: str) -> str:
    """Return why this user cannot make a file here, in errno's words; empty where nothing hinders it."""
    if _denied(call, path):
        return "Permission denied"
    parent = call.host.files.node(posixpath.dirname(path) or "/")
    return NO_SUCH if parent is None or parent.kind != "dir" else ""


def _bad_owner(asked: Parsed) -> str:
    user = asked.value("-o")
    return user if user and user not in _USERS else ""


def _group(call: Call, asked: str) -> str:
    """Return a group's name; a number that is known is turned into it."""
    rows = (line.split(":") for line in call.host.files.text("/etc/group").splitlines())
    return next((row[0] for row in rows if row[2:3] == [asked]), asked)


@program("install")
async def install(call: Call) -> int:
    """Copy files or make directories with mode and owner."""
    asked = parse(call.args, flags="-D -d -v -T", values="-m -o -g")
    mode = int(asked.value("-m", default="755"), 8)
    files = call.host.files
    user, group = asked.value("-o", default="root"), _group(call, asked.value("-g", default="root"))
    if _bad_owner(asked):
        return call.warn(f"install: invalid user '{user}'")
    denied = [path for path in asked.rest[-1:] if _denied(call, path)]
    if denied:
        return call.warn(f"install: cannot create regular file '{denied[0]}': Permission denied")
    if asked.has("-d"):
        for path in asked.rest:
            files.make_directory(path)
            files.change(path, mode=mode, owner=f"{user}:{group}")
        return 0
    source, target = asked.rest[0], _into(call, asked.rest[0], asked.rest[1])
    found = b"" if source == "/dev/null" else content(call, source)
    if isinstance(found, str):
        return call.warn(f"install: cannot stat '{source}': {found}")
    if asked.has("-D"):
        files.make_directory(posixpath.dirname(target))
    if why := _unwritable(call, target):
        return call.warn(f"install: cannot create regular file '{target}': {why}")
    files.remove(target)
    files.write(target, found, mode=mode, owner=f"{user}:{group}")
    return 0


@program("dd")
async def dd(call: Call) -> int:
    """Copy standard input or a file into a file, keeping the mode of one that is there; of input one block, if asked."""
    pairs = dict(word.split("=", 1) for word in call.args if "=" in word)
    source, target = pairs.get("if"), pairs.get("of")
    blocks = {"0": 0, "1": int(pairs.get("bs", "512")) if pairs.get("iflag") == "fullblock" else None}
    block = blocks.get(pairs.get("count", ""))
    found = content(call, source) if source else await call.stdin.read(block)
    if isinstance(found, str):
        return call.warn(f"dd: failed to open '{source}': {found}")
    if target is None:
        call.out(found)
        return 0
    if why := _unwritable(call, target):
        return call.warn(f"dd: failed to open '{target}': {why}")
    _write(call, target, found)
    return 0


@program("cp")
async def cp(call: Call) -> int:
    """Copy a file; -p and -a keep mode and owner."""
    asked = parse(call.args, flags="-p -a -f -T -r -R -v -n -u")
    source, target = asked.rest[0], _into(call, asked.rest[0], asked.rest[1])
    found, node = content(call, source), call.host.files.node(source)
    if isinstance(found, str) or node is None:
        return call.warn(f"cp: cannot stat '{source}': {found if isinstance(found, str) else NO_SUCH}")
    if why := _unwritable(call, target):
        return call.warn(f"cp: cannot create regular file '{target}': {why}")
    if asked.has("-p", "-a"):
        call.host.files.write(target, found, mode=node.mode, owner=node.owner)
    else:
        _write(call, target, found, node.mode)
    return 0


@program("mv")
async def mv(call: Call) -> int:
    """Rename."""
    asked = parse(call.args, flags="-f -T -v -n --")
    source = asked.rest[0]
    target = asked.rest[1] if asked.has("-T") else _into(call, source, asked.rest[1])
    if call.host.files.node(source, follow=False) is None:
        return call.warn(f"mv: cannot stat '{source}': {NO_SUCH}")
    if why := _unwritable(call, target):
        return call.warn(f"mv: cannot move '{source}' to '{target}': {why}")
    call.host.files.move(source, target)
    return 0


@program("rm")
async def rm(call: Call) -> int:
    """Remove files, and with -r directories."""
    asked = parse(call.args, flags="-f -r -R -v -rf -fr --recursive --force")
    status = 0
    for path in asked.rest:
        node = call.host.files.node(path, follow=False)
        if node is None:
            forced = asked.has("-f", "-rf", "-fr", "--force")
            status = status if forced else call.warn(f"rm: cannot remove '{path}': {NO_SUCH}")
        elif _denied(call, path):
            status = call.warn(f"rm: cannot remove '{path}': Permission denied")
        elif node.kind == "dir" and not asked.has("-r", "-R", "-rf", "-fr", "--recursive"):
            status = call.warn(f"rm: cannot remove '{path}': Is a directory")
        else:
            call.host.files.remove(path)
    return status


@program("ln")
async def ln(call: Call) -> int:
    """Make a symbolic link."""
    asked = parse(call.args, flags="-s -f -n -T -v")
    target, path = asked.rest
    if call.host.files.node(path, follow=False) is not None and not asked.has("-f"):
        return call.warn(f"ln: failed to create symbolic link '{path}': File exists")
    call.host.files.put(path, link(target))
    return 0


@program("mkdir")
async def mkdir(call: Call) -> int:
    """Make directories."""
    asked = parse(call.args, flags="-p -v", values="-m --mode")
    for path in asked.rest:
        node = call.host.files.node(path)
        if node is not None and (node.kind != "dir" or not asked.has("-p")):
            return call.warn(f"mkdir: cannot create directory '{path}': File exists")
        why = _unwritable(call, path)
        if why and not (why == NO_SUCH and asked.has("-p")):
            return call.warn(f"mkdir: cannot create directory '{path}': {why}")
        _folders(call, path, asked.value("-m", "--mode"))
    return 0


def _folders(call: Call, path: str, mode: str) -> None:
    """Make a directory and the parents that are missing, all as the umask says; a mode that is given is its own alone."""
    masked = 0o777 & ~call.shell.umask
    parts = path.strip("/").split("/")
    for count in range(1, len(parts)):
        call.host.files.make_directory("/" + "/".join(parts[:count]), masked | 0o300)
    call.host.files.make_directory(path, int(mode, 8) if mode else masked)


@program("rmdir")
async def rmdir(call: Call) -> int:
    """Remove empty directories."""
    for path in parse(call.args, flags="-p").rest:
        names = call.host.files.names(path)
        if names is None or names:
            why = NO_SUCH if names is None else "Directory not empty"
            return call.warn(f"rmdir: failed to remove '{path}': {why}")
        call.host.files.remove(path)
    return 0


@program("chmod", "chown")
async def change(call: Call) -> int:
    """Change mode or owner."""
    name = call.words[0]
    asked = parse([word for word in call.args if not word.startswith("-") or word in ("-R", "--")], flags="-R")
    value, *paths = asked.rest or [""]
    if not paths:
        lacks = f"missing operand after '{value}'" if value else "missing operand"
        return call.warn(f"{name}: {lacks}\nTry '{name} --help' for more information.")
    if name == "chmod" and not value.isdigit():
        return call.warn(f"chmod: SIMULATED hosts take octal modes, not '{value}'")
    if name == "chown" and value.split(":")[0] not in _USERS:
        return call.warn(f"chown: invalid user: '{value}'")
    for path in paths:
        if not call.host.files.exists(path):
            return call.warn(f"{name}: cannot access '{path}': {NO_SUCH}")
        if _denied(call, path):
            return call.warn(f"{name}: changing '{path}': Operation not permitted")
        for each in [path, *(call.host.files.under(path) if asked.has("-R") else [])]:
            if name == "chmod":
                call.host.files.change(each, mode=int(value, 8))
            else:
                user, _, group = value.partition(":")
                call.host.files.change(each, owner=f"{user}:{group or user}")
    return 0


@program("touch")
async def touch(call: Call) -> int:
    """Make files newer, or empty ones, with `-c` none."""
    asked = parse(call.args, flags="-c")
    for path in asked.rest:
        if asked.has("-c") and call.host.files.node(path) is None:
            continue
        if why := _unwritable(call, path):
            return call.warn(f"touch: cannot touch '{path}': {why}")
        _write(call, path, call.host.files.read(path) or b"")
    return 0
