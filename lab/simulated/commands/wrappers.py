"""Programs that run another one: env, timeout, sudo, sh; and true, false, sleep, echo, printf."""

from __future__ import annotations

import math
from itertools import count
from typing import TYPE_CHECKING

from lab.gpu_figures import SECONDS, write_figures
from lab.simulated.adapters import Adapter
from lab.simulated.clock import RanOut
from lab.simulated.commands.arguments import parse
from lab.simulated.commands.network import listening
from lab.simulated.commands.registry import Call, program, run
from lab.simulated.proxies import by_apt, by_containerd
from lab.simulated.wire import NotUnderstood, tokens
from shipway.facts.boot import ASK as BOOT
from shipway.facts.commands import WATCHED
from shipway.gpu.beside import GUARD, START, STOP
from shipway.gpu.figures import burn, rdma
from shipway.gpu.health.nvidia.xids import SCRIPT as XIDS
from shipway.gpu.health.ports import SCRIPT as ADAPTERS
from shipway.gpu.measuring import ON_HOST
from shipway.os.families import family_of
from shipway.ownership.evidence import PODS
from shipway.script import WHOLE
from shipway.steps.endpoint.old_way import SERVERS
from shipway.steps.kubernetes.reset import FORBIDDEN, UNUSED
from shipway.steps.maintain.restart import IMAGES
from shipway.steps.runtime.memlock import ASK as MEMLOCK
from shipway.steps.runtime.memlock import DROP_IN
from shipway.steps.system.kernel import SERVICES_SCRIPT
from shipway.steps.system.sources import DIAL, script_of

if TYPE_CHECKING:
    from lab.simulated.host import SimulatedHost

ASK = script_of(family_of("debian"))
# What shipway.host.session.operate puts around an operation that has a marker file.
MARKED = '"$@" && rm -f -- "$0"'


@program("umask", built_in=True)
async def umask(call: Call) -> int:
    """Show the mask of new files, or set it for the rest of the script."""
    if not call.args:
        return call.say(f"{call.shell.umask:04o}\n")
    call.shell.umask = int(call.args[0], 8)
    return 0


@program("make_room", built_in=True)
async def make_room(call: Call) -> int:
    """Prepare for new files, as the function of shipway.script does: their folders, nothing there, a mask."""
    files, folders = call.host.files, []
    call.shell.umask = 0o022
    for path in call.args:
        folder = path.rpartition("/")[0] + "/"
        if files.node(path, follow=False) is not None and (status := await run(call.like(("rm", "-f", "--", path)))):
            return status
        if files.names(folder) is None:
            folders.append(folder)
    if folders and (status := await run(call.like(("mkdir", "-p", "--", *folders)))):
        return status
    call.shell.umask = 0o077
    return 0


@program("was_whole", built_in=True)
async def was_whole(call: Call) -> int:
    """Take the line that ends a file in a script's input, as the function of shipway.script does."""
    if await call.stdin.read(len(WHOLE)) == WHOLE:
        return 0
    return call.warn("the input was cut short")


@program("true", ":", "sync")
async def true(call: Call) -> int:  # noqa: ARG001 - the shape of a program
    """Do nothing, well."""
    return 0


@program("false")
async def false(call: Call) -> int:  # noqa: ARG001 - the shape of a program
    """Do nothing, badly."""
    return 1


@program("echo")
async def echo(call: Call) -> int:
    """Print words."""
    return call.say(" ".join(call.args) + "\n")


@program("printf")
async def printf(call: Call) -> int:
    """Print a value as it is: `printf %s VALUE`, no other format."""
    return call.say(call.args[1]) if call.args[:1] == ("%s",) and len(call.args) == 2 else call.not_simulated()


@program("sleep")
async def sleep(call: Call) -> int:
    """Sleep in wall time: who sleeps wants the clock to move (file times and unit starts are compared by the second)."""
    await call.clock.took(float(call.args[0].rstrip("s")), wall=True)
    return 0


@program("hang")
async def hang(call: Call) -> int:
    """Never end: what a failure puts in a command's place."""
    await call.took(math.inf)
    return 1


@program("env")
async def env(call: Call) -> int:
    """Run a program with more in its environment."""
    pairs = dict(call.env)
    words = list(call.args)
    while words and (words[0] == "-i" or "=" in words[0].split("/")[0]):
        if words[0] != "-i":
            name, _, value = words[0].partition("=")
            pairs[name] = value
        words.pop(0)
    return await run(call.like(words, env=tuple(pairs.items()), via="env"))


@program("timeout")
async def timeout(call: Call) -> int:
    """Run a program for a limited time: 124 when it did not end, 137 when only KILL ended it."""
    asked = parse(
        call.args, flags="--foreground --preserve-status", values="-k -s --kill-after --signal", stop_at_first=True
    )
    limit, *words = asked.rest
    units = {"s": 1, "m": 60, "h": 3600}
    seconds = float(limit[:-1]) * units[limit[-1]] if limit[-1] in units else float(limit)
    clock = call.clock.within(seconds) if seconds else call.clock
    try:
        return await run(call.like(words, clock=clock, via="timeout"))
    except RanOut as over:
        if over.clock is not clock:
            raise
        return 124


@program("sudo")
async def sudo(call: Call) -> int:
    """Run a program as root, where this user may without a password."""
    asked = parse(call.args, flags="-n -E -H -S -k", values="-u", stop_at_first=True)
    if not call.root and not call.host.sudo:
        return call.warn("sudo: a password is required")
    return await run(call.like(asked.rest, user=asked.value("-u", default="root"), via="sudo"))


@program("sh", "bash")
async def sh(call: Call) -> int:
    """Run one plain command, or a script that the product writes itself; everything else is refused aloud."""
    if call.args[:1] != ("-c",) or len(call.args) < 2:
        return _refused(call, " ".join(call.args))
    text, *rest = call.args[1:]
    if text == GUARD and len(rest) > 2:
        return await run(call.like(tuple(rest[2:])))  # what it guards is behind its file and its limit
    known = await _known(call, text, rest)
    if known is not None:
        return known
    try:
        lines = tokens(text)
    except NotUnderstood:
        return _refused(call, text)
    status = 0
    for words in lines:
        if words[0] == "exit":
            return int(words[1]) if len(words) > 1 else status
        status = await run(call.like(words))
    return status


def _dial(call: Call, name: str, port: str) -> int:
    """Open a connection in bash's way: to a port of a host of the lab, or to a server of the world."""
    reach, world = call.host.link.reach, call.host.packages.world
    there = reach.target(call.host, name)
    proxy = world.proxy == f"http://{name}:{port}"
    answers = proxy or all(world.answers(f"{scheme}://{name}") for scheme in ("http", "https"))
    if (there is not None and int(port) in listening(there)) if reach.knows(call.host, name) else answers:
        return 0
    call.warn(f"{name}: connect: Connection refused")
    return call.warn(f"{name}: line 1: /dev/tcp/{name}/{port}: Connection refused")


def _pod_processes(call: Call) -> list[str]:
    """Return the files of /proc that tell of running containers: one of each shim, one of each container."""
    running = [name for name, state, _ in call.host.link.containers(call.host) if state == "Running"]
    return [f"/proc/{2000 + at}/{file}\n" for file in ("cmdline", "cgroup") for at in range(len(running))]


async def _reset(call: Call, rest: list[str]) -> int:
    """Do what follows the paths, unless pods run or one of the paths is there: the script of shipway.steps.kubernetes.reset."""
    count = int(rest[0])
    paths, words = rest[1 : count + 1], rest[count + 1 :]
    if _pod_processes(call):
        return call.warn("not reset: pods run here", FORBIDDEN)
    for path in paths:
        if call.host.files.node(path, follow=False) is not None:
            return call.warn(f"not reset: {path} is there", FORBIDDEN)
    return await run(call.like(words))


def _refused(call: Call, text: str) -> int:
    call.host.not_simulated.append(f"sh: {text[:300]}")
    return call.warn(f"SIMULATED host: this shell takes single plain commands, not: {text[:200]}", 2)


def _looked(call: Call, text: str) -> str | None:
    """Return what a look at the boot, the kernels, or the package manager's locks says; None for another script."""
    host = call.host
    if text == BOOT:
        kernel, born = host.kernel.release, int(host.booted)
        return (
            f"simulated-{host.boots}\n{kernel}\n100\n{born}\n{int(host.now())}\n1 (systemd) S {'0 ' * 18}{host.boots}\n"
        )
    looks = {
        START: "",
        STOP: "",
        rdma.LOOK.command[2]: host.figures.network,
        SERVERS.command[2]: _servers(host),
        ADAPTERS: "".join(map(Adapter.write, host.adapters, count())),
        XIDS: "".join(f"1x {line}\n" for line in host.kernel.log if "Xid (PCI:" in line),
    }
    if text in looks:
        return looks[text]
    if text == MEMLOCK:
        return _locked(host)
    if text == IMAGES.command[2]:
        names = host.files.names("/boot") or ()
        return "".join(f"{int(host.booted)} /boot/{name}\n" for name in names if name.startswith("vmlinuz-"))
    if "/proc/locks" in text:
        return f"{host.packages.locked_by} (1234)\n" if host.packages.locked_by else ""
    return None


def _servers(host: SimulatedHost) -> str:
    """Return which servers kubeadm's kubeconfigs name, as grep writes what it found of each."""
    paths = [f"/etc/kubernetes/{name}" for name in host.files.names("/etc/kubernetes") or () if name.endswith(".conf")]
    texts = {path: node.content.decode() for path in paths if (node := host.files.node(path)) is not None}
    found = [(path, line.strip()) for path, text in texts.items() for line in text.splitlines()]
    return "".join(f"{path}:{line}\n" for path, line in found if line.startswith("server: "))


def _locked(host: SimulatedHost) -> str:
    """Return how much memory containerd and the first process may lock: a drop-in counts from the next start on."""
    said = "/proc/1/limits:Max locked memory         8388608              8388608              bytes\nCapEff:\t000001ffffffffff\n"
    unit = host.units.get("containerd")
    if unit is None or not unit.pid:
        return said
    limit = "unlimited" if DROP_IN in unit.began_with else "8388608"
    return f"/proc/{unit.pid}/limits:Max locked memory         {limit:21}{limit:21}bytes\n{said}"


async def _known(call: Call, text: str, rest: list[str]) -> int | None:
    """Run one of the scripts that the product writes, each known by its whole text; None where it is another one."""
    if (said := _looked(call, text)) is not None:
        return call.say(said)
    if text == burn.SCRIPT:
        return call.say(call.host.figures.burn)
    if text == ON_HOST and len(rest) > 1:
        return await _measured(call, rest[1])
    if text == PODS.command[2]:
        return call.say("".join(_pod_processes(call)))
    return await _reset(call, rest) if text == UNUSED and rest else await _wrapped(call, text, rest)


async def _measured(call: Call, size: str) -> int:
    """Say what the GPUs reach on the host itself, where no process holds one."""
    await call.stdin.read(int(size))
    scene = call.host.figures
    if scene.busy:
        return call.say(f"busy: {scene.busy}\n")
    await call.took(SECONDS)
    return call.say(write_figures([gpu.uuid for gpu in call.host.gpu.devices], scene, where="host"))


async def _wrapped(call: Call, text: str, rest: list[str]) -> int | None:
    """Run a script that runs another program; None where it is none of the product's."""
    if text == MARKED and rest:
        marker, *words = rest
        status = await run(call.like(words))
        return await run(call.like(("rm", "-f", "--", marker))) if status == 0 else status
    if text == WATCHED and len(rest) > 2:
        return await timeout(call.like(("timeout", rest[0], *rest[2:]), err=call.out))
    if text == DIAL and len(rest) > 1:
        return _dial(call, *rest[:2])
    if text == SERVICES_SCRIPT:
        return call.say("".join(f"{kind} {unit.name}\n" for kind, unit in call.host.units.for_swap()))
    if text == ASK and len(rest) > 1:
        system, (url, who, *words) = call.host.system, rest
        release = ("{release}", system.version_id.replace(".", "")), ("{machine}", "x86_64")
        for part, value in (("{os}", system.id), ("{codename}", system.codename), ("{arch}", "amd64"), *release):
            url = url.replace(part, value)
        ways = {"direct": "", "apt": by_apt(call.host.files, url), "containerd": by_containerd(call.host, url)}
        way = ways.get(who, who)
        return await run(call.like((*words, url), env=(*call.env, ("http_proxy", way), ("https_proxy", way))))
    return None
