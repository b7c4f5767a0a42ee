"""Errors that NVIDIA's kernel module tells in the kernel's log (Xids, SXids of NVSwitches), and what they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from shipway.facts.commands import Says
from shipway.gpu.health.model import Answer, Fault

# NVIDIA's catalogue of Xids, its "immediate action", as read in gpud's generated table of 2025-10; 94 is contained
# (the program is ended), 48 has a flow of its own that ends in a reset.
_ANSWERS: tuple[tuple[Answer, tuple[int, ...]], ...] = (
    ("application", (8, 13, 31, 32, 43, 45, 68, 69, 94, 109)),
    ("reset", (46, 48, 62, 64, 95, 110, 119, 120, 136, 140, 143, 155, 156, 158)),
    ("restart", (79, 151)),
    ("look closer", (74, 92, 121, 137, *range(144, 151), 157)),
)
INFORMATIONAL = frozenset((63, 154, *range(160, 167)))
ANSWER_TO: dict[int, Answer] = {number: answer for answer, numbers in _ANSWERS for number in numbers}

# The last line of each kind of error of each GPU, after how often it was said: a storm of one would hide another's, and
# what has left the kernel's ring the journal may still have (its lines begin alike; it has them all or a part of them,
# so the greater number counts). Fails where neither could be read; a journal without any line of a kernel was not.
# Before the first Xid of a GPU the module says who it is, in two lines (seen with 580): here they are one.
SCRIPT = r"""{ dmesg 2>/dev/null && echo kernel-log-told
echo kernel-log-next
timeout -k 2 10 journalctl -k -b -q --no-pager -o short-monotonic 2>/dev/null && echo kernel-log-told; } | awk '
BEGIN { from = 0 }
$0 == "kernel-log-next" { from = 1; lines = 0; next }
$0 == "kernel-log-told" { if (!from || lines) told = 1; next }
{ lines++ }
match($0, /NVRM: GPU at PCI:[0-9a-fA-F:.]+: GPU-[0-9a-f-]+/) { who = substr($0, RSTART, RLENGTH) }
match($0, /NVRM: GPU Board Serial Number: [0-9A-Za-z]+/) {
  if (who != "") named[who] = substr($0, RSTART + 31, RLENGTH - 31); who = ""
}
match($0, /SXid \(PCI:[0-9a-fA-F:.]+\): [0-9]+(, Fatal)?|NVRM: Xid \(PCI:[0-9a-fA-F:.]+\): [0-9]+/) {
  key = substr($0, RSTART, RLENGTH); often[from, key]++
  stamp = substr($0, 2) + 0
  if (!(key in last) || stamp >= at[key]) { last[key] = $0; at[key] = stamp }
}
END {
  for (key in last) printf "%dx %s\n", (often[0, key] > often[1, key] ? often[0, key] : often[1, key]), last[key]
  for (who in named) printf "%s serial %s\n", who, named[who]
  exit !told
}'"""
LOG = Says(("sh", "-c", SCRIPT))

# `[ 4817.123456] NVRM: Xid (PCI:0000:41:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.`
_STAMP = r"^(?:([0-9]{1,9})x )?(?:\[ *([0-9]+\.[0-9]+)[^]\n]*\] ?)?.*?"
_XID = re.compile(_STAMP + r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): ([0-9]{1,5})(?:, ([^\n]*))?$", re.MULTILINE)
# `nvidia-nvswitch2: SXid (PCI:0000:86:00.0): 20034, Fatal, Link 30 LTSSM Fault Up` (gpud's matcher; not seen).
_SXID = re.compile(_STAMP + r"SXid \(PCI:([0-9a-fA-F:.]+)\): ([0-9]{1,5}), (Fatal[^\n]*)$", re.MULTILINE)
_SERIAL = re.compile(r"^NVRM: GPU at PCI:([0-9a-fA-F:.]+): GPU-[0-9a-f-]+ serial ([0-9A-Za-z]{1,32})$", re.MULTILINE)
_NAME = re.compile(r"pid='?[^',]*'?, *|name=[^,]*, *")
SAID = 120  # characters of a line that are told


def slot_of(address: str) -> str:
    """Return a PCI address as sysfs writes it: of `00000000:00:06.0` and `0000:41:00` the domain has four digits."""
    words = address.lower().partition(".")[0].split(":")
    if len(words) == 2:  # noqa: PLR2004 - bus and device, without a domain
        words.insert(0, "0")
    return f"{words[0].lstrip('0').zfill(4)}:{':'.join(words[1:])}.0"


def find_xids(log: str) -> Iterator[tuple[str, Fault]]:
    """Yield each kind of Xid once for each slot, with how often it was said, and when last.

    A storm of one fault may fill the log (800,000 lines of 29 events: NVSentinel#1120). One that only informs is left
    out; one that the catalogue does not name is looked at closer.
    """
    counted: dict[tuple[str, int], tuple[int, float | None, str]] = {}
    for often, stamp, address, number, said in _XID.findall(log):
        key = (slot_of(address), int(number))
        before = counted.get(key, (0, None, ""))
        counted[key] = (
            before[0] + int(often or 1),
            float(stamp) if stamp else before[1],
            _NAME.sub("", said)[:SAID].strip(),
        )
    for (slot, number), (times, at, said) in counted.items():
        if number in INFORMATIONAL:
            continue
        repeated = f" ({times} times)" if times > 1 else ""
        yield slot, Fault(f"Xid {number}{repeated}", said, ANSWER_TO.get(number, "look closer"), at)


def find_serials(log: str) -> dict[str, str]:
    """Return by slot the serial numbers of the GPUs that have had an Xid, as the kernel's module told them then.

    Of one that does not answer any more nothing else tells which it is.
    """
    return {slot_of(address): serial for address, serial in _SERIAL.findall(log)}


def find_switch_faults(log: str) -> Iterator[tuple[str, Fault]]:
    """Yield each kind of fatal SXid once for each NVSwitch: its GPUs are reset together."""
    found = {(slot_of(address), number): (stamp, said) for _, stamp, address, number, said in _SXID.findall(log)}
    for (slot, number), (stamp, said) in found.items():
        yield slot, Fault(f"SXid {number}", said[:SAID].strip(), "reset", float(stamp) if stamp else None)
