"""Cut what a machine tells of itself (time, room, addresses, ports) down to the shape that the product reads."""

from __future__ import annotations

import re
import time

# What the product looks for (shipway.steps.system.preflight.PortsFree), sshd's own, and the one that a test takes.
_PORTS = frozenset([22, 6443, 2379, 2380, 10250, 10257, 10259, 8090])
_NEAR = 120.0  # seconds: all hosts of a lab show the machine's clock
_DF = re.compile(r"(\S+) +(\d+) +(\d+) +(\d+) +(\d+)% (/.*)")
_ADDRESS = re.compile(r"\d+: (\S+)( +inet )([\d.]+)/\d+( brd [\d.]+)?( .*)")


def clock(text: str) -> str:
    """Return `date +%s.%N` as `now`, where it is a number with nine decimals and near this machine's time."""
    good = re.fullmatch(r"\d+\.\d{9}\n", text) and abs(float(text) - time.time()) < _NEAR
    return "now" if good else text


def number(text: str) -> str:
    """Return a line of one number that is not 0."""
    return "a number" if re.fullmatch(r"[1-9]\d*\n", text) else text


def release(text: str) -> str:
    """Return a kernel's release."""
    return "a release" if re.fullmatch(r"\d+\.\d+\.\d+[\w.+-]*\n", text) else text


def room(text: str) -> str:
    """Return df's table with what differs replaced, where its numbers add up as df's do."""
    return "\n".join(_row(re.sub(r" +", " ", line)) for line in text.splitlines())


def _row(line: str) -> str:
    found = _DF.fullmatch(line)
    if not found:
        return line
    size, used, free, percent = (int(value) for value in found.groups()[1:5])
    right = used + free <= size and percent == -(-used * 100 // (used + free))
    return "<device> <size> <used> <available> <percent>% <mount>" if right else line


def addresses(text: str) -> str:
    """Return `ip -o -4 addr` without numbers of interfaces, lengths and broadcast addresses of networks."""
    return "\n".join(_ADDRESS.sub(r"<n>: \1\2\3/<length>\5", line) for line in text.splitlines())


def ports(text: str) -> str:
    """Return state, address and owner of the sockets on ports that somebody asks for."""
    rows = set()
    for line in text.splitlines():
        fields = line.split()
        port = fields[3].rpartition(":")[2] if len(fields) > 3 else ""
        if not port.isdigit() or int(port) in _PORTS:
            owner = re.search(r'users:\(\("([^"]+)",pid=\d+,fd=\d+\)', line)
            rows.add(f"{fields[0]} {fields[3]} {fields[4]} {owner[1] if owner else '-'}")
    return "\n".join(sorted(rows))
