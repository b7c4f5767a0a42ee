"""What GPUs need so that network adapters reach their memory (GPUDirect RDMA): looked at, never changed.

A loaded peermem module proves nothing where the InfiniBand stack has no such interface (nccl#1939), memory that cannot
be locked makes NCCL go on over TCP without a word, ACS sends peer traffic through the IOMMU (nccl#2079), and an adapter
far from its GPU is slow. A host without such an adapter has nothing to be judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shipway.facts.commands import Says
from shipway.foreign.numbers import whole
from shipway.gpu.figures.judge import Row, Word

_SCRIPT = """
for one in /sys/class/infiniband/*; do [ -e "$one" ] || continue
echo "adapter ${one##*/} $(cat "$one/device/numa_node" 2>/dev/null) $(cat "$one/ports/1/link_layer" 2>/dev/null)"; done
for one in /sys/bus/pci/drivers/nvidia/0*; do [ -e "$one" ] || continue
echo "gpu ${one##*/} $(cat "$one/numa_node" 2>/dev/null)"; done
echo "kernel $(uname -r)"; grep -q 'Open Kernel Module' /proc/driver/nvidia/version 2>/dev/null && echo open
grep -qw CONFIG_DMABUF_MOVE_NOTIFY=y "/boot/config-$(uname -r)" 2>/dev/null && echo dmabuf
grep -q '^nvidia_peermem ' /proc/modules && echo peermem
grep -qw ib_register_peer_memory_client /proc/kallsyms && echo interface
echo "guest $(systemd-detect-virt 2>/dev/null)"
pid=$(systemctl show -p MainPID --value containerd.service 2>/dev/null)
grep '^Max locked memory' "/proc/${pid:-0}/limits" 2>/dev/null
command -v lspci >/dev/null && echo "acs $(lspci -vvv 2>/dev/null | grep -c 'ACSCtl:.*SrcValid+')"
true
"""
LOOK = Says(("sh", "-c", _SCRIPT), seconds=30)
DMABUF_KERNEL = (5, 12)
_NUMBERS = re.compile(r"(\d+)\.(\d+)")


def judge_rdma(host: str, said: str) -> list[Row]:
    """Return a row for each prerequisite of a host; one where it has no adapter for it."""
    lines = [line.split() for line in said.splitlines() if line.strip()]
    adapters = [words for words in lines if words[0] == "adapter"]
    if not adapters:
        return [Row(host, "", "its network", "RDMA", "not judged", "there is no InfiniBand or RoCE device")]
    judged = (_path(lines), _memory(lines), _acs(lines), _near(lines))
    names = ("GPU memory", "memlock", "ACS", "NUMA")
    return [
        Row(host, "", "its network", f"RDMA: {name}", word, why)
        for name, (word, why) in zip(names, judged, strict=True)
    ]


def _words(lines: list[list[str]], name: str) -> Iterator[list[str]]:
    return (words[1:] for words in lines if words[0] == name)


def _path(lines: list[list[str]]) -> tuple[Word, str]:
    """Judge the way to a GPU's memory: DMA-BUF, or peermem with an InfiniBand stack that has the interface for it."""
    flags = {words[0] for words in lines if len(words) == 1}
    kernel = _NUMBERS.match(next(_words(lines, "kernel"), [""])[0])
    new = kernel is not None and (int(kernel[1]), int(kernel[2])) >= DMABUF_KERNEL
    if {"open", "dmabuf"} <= flags and new:
        return "good", ""
    if {"peermem", "interface"} <= flags:
        return "good", ""
    why = "no DMA-BUF (the driver's open modules, kernel 5.12 and CONFIG_DMABUF_MOVE_NOTIFY)"
    return "bad", f"{why}, and no peermem with an InfiniBand stack that has the interface for it"


def _memory(lines: list[list[str]]) -> tuple[Word, str]:
    found = next((words for words in lines if words[:3] == ["Max", "locked", "memory"]), None)
    if found is None:
        return "not judged", "containerd does not run"
    limit = found[3] if len(found) > 3 else ""  # noqa: PLR2004 - the word behind the row's name
    return ("good", "") if limit == "unlimited" else ("bad", f"containerd may lock {limit} bytes, and so may pods")


def _acs(lines: list[list[str]]) -> tuple[Word, str]:
    guest = next(_words(lines, "guest"), [])
    if guest and guest[0] != "none":
        return "not judged", f"this is a guest ({guest[0]}), and bridges are its host's"
    count = whole(next(_words(lines, "acs"), [""])[0])
    if count is None:
        return "not judged", "lspci is not there"
    return ("bad", f"{count} bridges check sources (ACSCtl SrcValid+)") if count else ("good", "")


def _near(lines: list[list[str]]) -> tuple[Word, str]:
    """Judge whether each GPU's NUMA node has an adapter."""
    adapters = {words[1] for words in _words(lines, "adapter") if len(words) > 1}
    gpus = {words[0]: words[1] for words in _words(lines, "gpu") if len(words) > 1}
    if not gpus or "-1" in {*adapters, *gpus.values()}:
        return "not judged", "the machine does not tell the NUMA nodes of its devices"
    far = [name for name, node in gpus.items() if node not in adapters]
    return ("bad", f"no adapter is near the GPUs at {', '.join(far)}") if far else ("good", "")
