"""Programs about the machine: names, users, time, disk, CPUs, cloud-init, the journal and what runs."""

from __future__ import annotations

import time

from lab.simulated.commands.arguments import parse
from lab.simulated.commands.files import NO_SUCH
from lab.simulated.commands.registry import Call, program

_DISK_KIB = 264_212_084


@program("hostname")
async def hostname(call: Call) -> int:
    """Say the host's name."""
    return call.say(f"{call.host.kernel.hostname}\n")


@program("hostnamectl")
async def hostnamectl(call: Call) -> int:
    """Set the host's name now and for good, or say the lasting one."""
    asked = parse(call.args, flags="--static")
    host = call.host
    if asked.rest == ["set-hostname"]:
        return call.warn("Too few arguments.")
    if asked.rest[:1] == ["set-hostname"]:
        if not call.root:
            return call.warn("Could not set static hostname: Interactive authentication required.")
        name = asked.rest[1]
        host.kernel.hostname = name
        host.files.write("/etc/hostname", f"{name}\n".encode())
        return 0
    if asked.has("--static"):
        return call.say(host.files.text("/etc/hostname"))
    return call.not_simulated()


@program("date")
async def date(call: Call) -> int:
    """Say the host's time by a format."""
    asked = parse(call.args, flags="-u", values="-d")
    now = call.host.now()
    shape = next((word[1:] for word in asked.rest if word.startswith("+")), "%a %b %e %H:%M:%S UTC %Y")
    shape = shape.replace("%N", f"{int(now % 1 * 1e9):09d}").replace("%s", str(int(now)))
    return call.say(time.strftime(shape, time.gmtime(now)) + "\n")


@program("df")
async def df(call: Call) -> int:
    """Say how full the one disk is."""
    asked = parse(call.args, flags="-P -k -h -T", values="--output")
    free = call.host.free_kib
    used = _DISK_KIB - free
    kind, shown = ("Type     ", "ext4     ") if asked.has("-T") else ("", "")
    paths = asked.rest or ["/"]
    absent = [path for path in paths if not call.host.files.exists(path)]
    for path in absent:
        call.warn(f"df: {path}: {NO_SUCH}")
    if len(absent) < len(paths):
        call.say(f"Filesystem     {kind}1024-blocks     Used Available Capacity Mounted on\n")
    percent = -(-used * 100 // (used + free))
    row = f"/dev/sda1      {shown}{_DISK_KIB:>11} {used:>8} {free:>9} {percent:>7}% /\n"
    call.say(row * (len(paths) - len(absent)))
    return 1 if absent else 0


@program("nproc")
async def nproc(call: Call) -> int:
    """Say how many CPUs there are."""
    return call.say(f"{call.host.kernel.cpus}\n")


@program("getent")
async def getent(call: Call) -> int:
    """Look names up in passwd, group and hosts."""
    base, *names = call.args
    text = call.host.files.text(f"/etc/{base}")
    status = 0
    for name in names:
        for line in text.splitlines():
            words = line.split() if base == "hosts" else line.split(":")
            if name in (words[1:] + words[:1] if base == "hosts" else (words[0], words[2])):
                call.say(f"{words[0]:<15} {' '.join(words[1:])}\n" if base == "hosts" else f"{line}\n")
                break
        else:
            status = 2
    return status


@program("cloud-init", needs=("cloud-init",))
async def cloud_init(call: Call) -> int:
    """Say that the first boot is done, or wait until it is."""
    asked = parse(call.args, flags="--wait --long")
    if asked.rest[:1] != ["status"]:
        return call.not_simulated()
    while call.host.packages.locked_by == "cloud-init" and asked.has("--wait"):
        await call.took(5)
    running = call.host.packages.locked_by == "cloud-init"
    return call.say(f"status: {'running' if running else 'done'}\n")


@program("journalctl")
async def journalctl(call: Call) -> int:
    """Print what a unit left in the journal, line by line: with `-o cat` alone."""
    asked = parse(call.args, flags="--no-pager", values="-u -n -o")
    if asked.value("-o") != "cat":
        return call.not_simulated()
    lines = call.host.services.journal.get(asked.value("-u").removesuffix(".service"), [])
    shown = lines[-int(asked.value("-n", default="1000")) :]
    return call.say("".join(f"{line}\n" for line in shown) or "-- No entries --\n")


@program("busctl")
async def busctl(call: Call) -> int:
    """Say who inhibits what: nobody."""
    return (
        call.say('{"type":"a(ssssuu)","data":[[]]}\n')
        if call.args[-1:] == ("ListInhibitors",)
        else call.not_simulated()
    )


@program("dkms")
async def dkms(call: Call) -> int:
    """Say which modules it builds: none, and it is there all the same."""
    return 0 if call.args == ("status",) else call.not_simulated()


@program("ps")
async def ps(call: Call) -> int:
    """Show the services that run, by the names asked for; there are no other processes here."""
    if call.args[:1] == ("-eo",):
        return 0
    if "-C" not in call.args:
        return call.not_simulated()
    names = call.args[call.args.index("-C") + 1].split(",")
    units = {name: call.host.units.get(name) for name in names}
    running = [name for name, unit in units.items() if unit is not None and unit.active == "active"]
    lines = call.host.services.command_lines
    call.say("".join(f"{lines[name]}\n" for name in running if name in lines))
    return 0 if running else 1
