"""Programs about the kernel: sysctl, modprobe, lsmod, swapoff, swapon, uname, mokutil, dmesg, iptables."""

from __future__ import annotations

from lab.simulated.commands.arguments import parse
from lab.simulated.commands.registry import Call, program


@program("sysctl")
async def sysctl(call: Call) -> int:
    """Show and set kernel settings."""
    asked = parse(call.args, flags="-e -n -q -a -w --system -p --ignore --values --quiet")
    kernel, status = call.host.kernel, 0
    quiet = asked.has("-q", "--quiet")
    if asked.has("--system"):
        return _system(call, quiet=quiet)
    words = [f"{key} = {value}" for key, value in sorted(kernel.settings.items())] if asked.has("-a") else asked.rest
    for word in words:
        key, equals, value = (part.strip() for part in word.partition("="))
        key = key.replace("/", ".")
        if key not in kernel.settings:
            status = status if asked.has("-e", "--ignore") else _unknown(call, key)
            continue
        if equals and not asked.has("-a"):
            if not call.root:
                status = call.warn(f'sysctl: permission denied on key "{key}"', 255)
                continue
            kernel.set(key, value)
            call.host.changed()
        if not (quiet and equals):
            shown = kernel.settings[key]
            call.say(f"{shown}\n" if asked.has("-n", "--values") else f"{key} = {shown}\n")
    return status


def _system(call: Call, *, quiet: bool) -> int:
    """Apply every file."""
    if not call.root:
        return call.warn("sysctl: permission denied", 255)
    for line in call.host.services.apply_sysctls():
        if line.startswith("sysctl:"):
            call.warn(line)
        elif not quiet:
            call.say(f"{line}\n")
    call.host.changed()
    return 0


def _unknown(call: Call, key: str) -> int:
    where = f"/proc/sys/{key.replace('.', '/')}"
    status = 1 if call.host.system.id == "debian" else 255  # procps 4 and 3
    return call.warn(f"sysctl: cannot stat {where}: No such file or directory", status)


@program("modprobe")
async def modprobe(call: Call) -> int:
    """Load kernel modules."""
    asked = parse(call.args, flags="-q -a -v -r -b -n --all")
    if asked.has("-n"):  # a dry run needs no right; -q says nothing of a module that is not there
        return 0 if all(call.host.kernel.knows(module) for module in asked.rest[:1]) else 1
    if not call.root:
        return call.warn("modprobe: ERROR: could not insert: Operation not permitted")
    for module in asked.rest if asked.has("-a", "--all") else asked.rest[:1]:
        if asked.has("-r"):
            call.host.kernel.modules.pop(module, None)
        elif not call.host.kernel.load(module):
            folder = f"/lib/modules/{call.host.kernel.release}"
            return call.warn(f"modprobe: FATAL: Module {module} not found in directory {folder}")
    return 0


@program("lsmod")
async def lsmod(call: Call) -> int:
    """List loaded modules."""
    call.say("Module                  Size  Used by\n")
    return call.say("".join(f"{name:<20} {16384:>7}  0\n" for name in reversed(call.host.kernel.modules)))


@program("swapoff")
async def swapoff(call: Call) -> int:
    """Turn swap off, all of it or one device."""
    if not call.root:
        return call.warn("swapoff: Not superuser.", 1)
    asked = parse(call.args, flags="-a -v --all")
    kernel = call.host.kernel
    if kernel.swaps:
        await call.took(3)
    kernel.swaps = [] if asked.has("-a", "--all") else [swap for swap in kernel.swaps if swap[0] not in asked.rest]
    for unit in call.host.units.all.values():
        if unit.name.endswith(".swap") and unit.active == "active":
            call.host.units.set(unit, "inactive", "dead")
    call.host.services.settle()
    return 0


@program("swapon")
async def swapon(call: Call) -> int:
    """Show swap, or turn it on."""
    asked = parse(call.args, flags="-a -s --show --noheadings --all --summary")
    kernel = call.host.kernel
    if asked.has("-a", "--all") or (asked.rest and not asked.has("--show")):
        kernel.swaps = [(asked.rest[0] if asked.rest else "/swap.img", 4_194_300)]
    elif kernel.swaps:
        if not asked.has("--noheadings"):
            call.say("NAME      TYPE SIZE USED PRIO\n")
        call.say("".join(f"{name} file   4G   0B   -2\n" for name, _ in kernel.swaps))
    return 0


@program("uname")
async def uname(call: Call) -> int:
    """Say what runs here."""
    kernel = call.host.kernel
    shown = {"-s": "Linux", "-n": kernel.hostname, "-r": kernel.release, "-m": "x86_64", "-v": "#1 SMP SIMULATED"}
    asked = parse(call.args, flags="-s -n -r -m -v -a -o -p -i")
    if asked.has("-a"):
        return call.say(f"Linux {kernel.hostname} {kernel.release} #1 SMP SIMULATED x86_64 GNU/Linux\n")
    return call.say(" ".join(shown[flag] for flag in shown if asked.has(flag)) or "Linux") or call.say("\n")


@program("mokutil")
async def mokutil(call: Call) -> int:
    """Say whether Secure Boot is on."""
    return call.say("SecureBoot disabled\n")


@program("dmesg")
async def dmesg(call: Call) -> int:
    """Print the kernel's messages: the first, and what was put into its log."""
    lines = [f"[    0.000000] Linux version {call.host.kernel.release} (SIMULATED)", *call.host.kernel.log]
    return call.say("".join(f"{line}\n" for line in lines))


@program("iptables", "ip6tables", "iptables-save", "ip6tables-save", "nft")
async def iptables(call: Call) -> int:
    """Show an empty table."""
    if not call.root:
        return call.warn(
            f"{call.words[0]} v1.8.7 (nf_tables): Could not fetch rule set generation id: Permission denied", 4
        )
    if "-V" in call.args or "--version" in call.args:
        return call.say("iptables v1.8.7 (nf_tables)\n")
    table = call.args[call.args.index("-t") + 1] if "-t" in call.args else "filter"
    chains = {"nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")}.get(table, ("INPUT", "FORWARD", "OUTPUT"))
    asked = [chain for chain in chains if chain in call.args]
    return call.say("".join(f"-P {chain} ACCEPT\n" for chain in asked or chains))
