"""IMEX: what lets hosts whose GPUs NVLink joins (GB200, GB300) reach each other's GPU memory.

By NVIDIA's IMEX guide and the comments of its config.cfg; how it is asked, by dra-driver-nvidia-gpu's prerequisites
("Host-managed IMEX"), which take READY for ready and nothing else. None of it was seen: no such machine was there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from shipway.facts.commands import Says
from shipway.facts.files import FileText
from shipway.gpu.health.nvidia.report import is_untold, read_gpus
from shipway.gpu.verdict import TWICE
from shipway.script import Output

SERVICE = "nvidia-imex"
CONFIG = "/etc/nvidia-imex/config.cfg"
NODES = "/etc/nvidia-imex/shipway-nodes.cfg"  # a file of ours: the package's own may hold somebody's list
SOCKET = "/run/nvidia-imex-ctrl.sock"  # not below /etc, where units with ProtectSystem=full cannot make one
# Whoever reaches the command service can stop IMEX (`nvidia-imex-ctl -s`), and it asks nobody who he is.
SETTINGS = {
    "IMEX_NODE_CONFIG_FILE": NODES,
    "IMEX_CMD_ENABLED": "1",
    "IMEX_CMD_BIND_INTERFACE_IP": "127.0.0.1",
    "IMEX_CMD_UNIX_DOMAIN_PATH": SOCKET,
}
ASK = Says((f"{SERVICE}-ctl", "-q", "-u", SOCKET), 30)
READY = "READY"
CHANNELS = "nvidia-caps-imex-channels"  # the kernel's name of what isolates users of one domain, and its folder in /dev
KINDS = FileText("/proc/devices")
NODES_OF_CHANNELS = Says(("sh", "-c", f"stat -c '%F|%t|%n' /dev/{CHANNELS}/*"))
_NOWHERE = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Fellow:
    """A host whose GPUs NVLink joins to other hosts': its address, and its fabric; None where that cannot be told.

    The fabric is empty where it reaches no other host.
    """

    name: str
    address: str
    fabric: str | None
    why: str = ""


Fellows = Callable[[], Awaitable[Sequence[Fellow]]]


def read_fabric(said: Output) -> tuple[str | None, str]:
    """Return the fabric that all GPUs of a host have joined, by `nvidia-smi -q`, and why where it cannot be told.

    Hosts are of one fabric where ClusterUUID and CliqueId are the same; "" where they name none.
    """
    report = read_gpus(said.stdout)
    if not said.ok or report.forged or not report.gpus:
        return None, report.forged or "its driver does not tell"
    found = set()
    for values in report.gpus.values():
        state, status, cluster, clique = (
            values.get(("Fabric", name), "") for name in ("State", "Status", "ClusterUUID", "CliqueId")
        )
        if state != "Completed" or status != "Success":
            return None, f"a GPU's fabric is {state or 'not told'}, {status or 'not told'}"
        if is_untold(cluster) or is_untold(clique) or TWICE in (cluster, clique):
            return None, "a GPU does not tell its ClusterUUID and CliqueId"
        found.add("" if cluster == _NOWHERE else f"{cluster} {clique}")
    return (found.pop(), "") if len(found) == 1 else (None, "its GPUs have joined several fabrics")


def nodes_text(addresses: Iterable[str]) -> str:
    """Return the list of a domain's nodes: IMEX wants the same one on each, so it is sorted and has nothing else."""
    return "".join(f"{one}\n" for one in sorted(set(addresses), key=lambda one: int(ip_address(one))))
