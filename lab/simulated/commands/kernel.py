"""Programs about the kernel: sysctl, modprobe, swapoff, uname, mokutil, dmesg, iptables."""

from __future__ import annotations

from lab.simulated.commands.arguments import parse
from lab.simulated.commands.registry import Call, program


@program("sysctl")
async def sysctl(call: Call) -> int:
    """Show and set kernel settings."""
    asked = parse(call.args, flags="-e -n -q -w")
    kernel, status = call.host.kernel, 0
    if asked.unknown:
        return call.not_simulated()
    for word in asked.rest:
        key, equals, value = (part.strip() for part in word.partition("="))
        key = key.replace("/", ".")
        if key not in kernel.settings:
            status = status if asked.has("-e") else _unknown(call, key)
            continue
        if equals:
            if not call.root:
                status = call.warn(f'sysctl: permission denied on key "{key}"', 255)
                continue
            kernel.set(key, value)
            call.host.changed()
        if not (asked.has("-q") and equals):
            shown = kernel.settings[key]
            call.say(f"{shown}\n" if asked.has("-n") else f"{key} = {shown}\n")
    return status


def _unknown(call: Call, key: str) -> int:
    where = f"/proc/sys/{key.replace('.', '/')}"
    status = 1 if call.host.system.id == "debian" else 255  # procps 4 and 3
    return call.warn(f"sysctl: cannot stat {where}: No such file or directory", status)


@program("modprobe")
async def modprobe(call: Call) -> int:
    """Load kernel modules."""
    asked = parse(call.args, flags="-n")
    dry, kernel = asked.has("-n"), call.host.kernel
    if not call.root and not dry:  # a dry run needs no right
        return call.warn("modprobe: ERROR: could not insert: Operation not permitted")
    for module in asked.rest[:1]:
        if not (kernel.knows(module) if dry else kernel.load(module)):
            folder = f"/lib/modules/{kernel.release}"
            return call.warn(f"modprobe: FATAL: Module {module} not found in directory {folder}")
    return 0


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


@program("uname")
async def uname(call: Call) -> int:
    """Say what runs here."""
    kernel = call.host.kernel
    shown = {"-s": "Linux", "-n": kernel.hostname, "-r": kernel.release, "-m": "x86_64"}
    asked = parse(call.args, flags="-s -n -r -m")
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


@program("iptables", "iptables-save", "ip6tables-save")
async def iptables(call: Call) -> int:
    """Show an empty table."""
    if not call.root:
        return call.warn(
            f"{call.words[0]} v1.8.7 (nf_tables): Could not fetch rule set generation id: Permission denied", 4
        )
    table = call.args[call.args.index("-t") + 1] if "-t" in call.args else "filter"
    chains = {"nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")}.get(table, ("INPUT", "FORWARD", "OUTPUT"))
    asked = [chain for chain in chains if chain in call.args]
    return call.say("".join(f"-P {chain} ACCEPT\n" for chain in asked or chains))
