"""Programs about the machine: names, users, time, disk, CPUs, cloud-init and the journal."""

from __future__ import annotations

import time

from lab.simulated.commands.arguments import parse
from lab.simulated.commands.files import NO_SUCH
from lab.simulated.commands.registry import Call, program

_DISK_KIB = 264_212_084


@program("hostname")
async def hostname(call: Call) -> int:
    """Say the host's name or addresses, or set the name for now."""
    if call.args[:1] == ("-I",):
        return call.say(f"{call.host.address} \n")
    if call.args and not call.args[0].startswith("-"):
        call.host.kernel.hostname = call.args[0]
        return 0
    return call.say(f"{call.host.kernel.hostname}\n")


@program("hostnamectl")
async def hostnamectl(call: Call) -> int:
    """Show the host's name, or set it now and for good."""
    asked = parse(call.args, flags="--static --transient --pretty")
    host = call.host
    if asked.rest == ["set-hostname"]:
        return call.warn("Too few arguments.")
    if asked.rest[:1] in (["set-hostname"], ["hostname"]) and len(asked.rest) > 1:
        if not call.root:
            return call.warn("Could not set static hostname: Interactive authentication required.")
        name = asked.rest[1]
        host.kernel.hostname = name
        host.files.write("/etc/hostname", f"{name}\n".encode())
        return 0
    static = host.files.text("/etc/hostname").strip()
    if asked.has("--static") or asked.rest[:1] == ["hostname"]:
        return call.say(f"{static}\n")
    lines = [
        f"   Static hostname: {static}",
        *([] if static == host.kernel.hostname else [f"Transient hostname: {host.kernel.hostname}"]),
        f"        Machine ID: {host.machine_id}",
        f"  Operating System: {host.system.pretty}",
        f"            Kernel: Linux {host.kernel.release}",
        "      Architecture: x86-64",
    ]
    return call.say("\n".join(lines) + "\n")


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


@program("id")
async def identity(call: Call) -> int:
    """Say who runs this."""
    asked = parse(call.args, flags="-u -g -n -G")
    user = asked.rest[0] if asked.rest else call.user
    number = {"root": 0, "ops": 1000}.get(user)
    if number is None:
        return call.warn(f"id: '{user}': no such user")
    if asked.has("-u", "-g"):
        return call.say(f"{user if asked.has('-n') else number}\n")
    return call.say(f"uid={number}({user}) gid={number}({user}) groups={number}({user})\n")


@program("whoami", "logname")
async def whoami(call: Call) -> int:
    """Say the user's name."""
    return call.say(f"{call.user}\n")


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
        return call.warn("cloud-init: SIMULATED hosts know `status` alone", 2)
    while call.host.packages.locked_by == "cloud-init" and asked.has("--wait"):
        await call.took(5)
    running = call.host.packages.locked_by == "cloud-init"
    return call.say(f"status: {'running' if running else 'done'}\n")


@program("lsb_release")
async def lsb_release(call: Call) -> int:
    """Say which system this is."""
    system = call.host.system
    short = {"-cs": system.codename, "-is": system.name, "-rs": system.version_id, "-ds": system.pretty}
    return call.say(f"{short.get(''.join(call.args), system.pretty)}\n")


@program("journalctl")
async def journalctl(call: Call) -> int:
    """Print what units left in the journal."""
    asked = parse(call.args, flags="--no-pager -x -e -q -b --all", values="-u -n -o -t --since --unit --lines --output")
    unit = asked.value("-u", "--unit").removesuffix(".service")
    lines = call.host.services.journal.get(unit, [])
    count = asked.value("-n", "--lines")
    shown = lines[-int(count) :] if count.isdigit() else lines
    if not shown:
        return call.say("-- No entries --\n")
    plain = asked.value("-o", "--output") == "cat"
    name, stamp = call.host.kernel.hostname, time.strftime("%b %d %H:%M:%S", time.gmtime(call.host.now()))
    return call.say("".join(f"{line}\n" if plain else f"{stamp} {name} {unit}[1]: {line}\n" for line in shown))


@program("ps", "free", "uptime", "w")
async def ps(call: Call) -> int:
    """Show the services that run, by the names asked for; there are no other processes here."""
    if call.words[0] == "ps" and "-C" in call.args:
        names = call.args[call.args.index("-C") + 1].split(",")
        units = {name: call.host.units.get(name) for name in names}
        running = [name for name, unit in units.items() if unit is not None and unit.active == "active"]
        lines = call.host.services.command_lines
        call.say("".join(f"{lines[name]}\n" for name in running if name in lines))
        return 0 if running else 1
    if call.words[0] == "free":
        total = call.host.kernel.memory_kib
        swap = sum(size for _, size in call.host.kernel.swaps)
        return call.say(f"               total\nMem:  {total:>14}\nSwap: {swap:>14}\n")
    if call.words[0] == "uptime":
        return call.say(" 00:00:00 up 1 day,  0 users,  load average: 0.10, 0.05, 0.01\n")
    return call.say("    PID TTY          TIME CMD\n")


@program("reboot", "shutdown", "poweroff")
async def reboot(call: Call) -> int:
    """Reboot the host: it is away for a while, then up with what lasts."""
    if not call.root:
        return call.warn(f"{call.words[0]}: must be root")
    call.host.link.reboot(call.host)
    return 0


@program("update-initramfs", "ldconfig", "update-grub", "systemd-machine-id-setup")
async def quiet(call: Call) -> int:
    """Do what shows in no other answer."""
    await call.took(2)
    return 0
