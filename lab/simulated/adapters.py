"""The InfiniBand and RoCE adapters of a simulated host, as its kernel shows them.

In the kernel's own form (drivers/infiniband/core/sysfs.c), not recorded: no such adapter was at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_STATES = {"DOWN": 1, "INIT": 2, "ARMED": 3, "ACTIVE": 4}
_PHYS = {"Polling": 2, "Disabled": 3, "LinkUp": 5, "LinkErrorRecovery": 6}


@dataclass
class Adapter:
    """One adapter with one port."""

    name: str
    state: str = "ACTIVE"
    phys: str = ""  # by default what goes with the state
    rate: str = "400 Gb/sec (4X NDR)"
    layer: str = "InfiniBand"
    counters: dict[str, int] = field(default_factory=dict)

    def write(self, index: int) -> str:
        """Return its files, each line after its path, as grep writes them."""
        phys = self.phys or ("LinkUp" if self.state == "ACTIVE" else "Polling")
        port = f"{self.name}/ports/1"
        told = {
            f"{self.name}/hca_type": "MT4129",
            f"{self.name}/device/uevent": f"PCI_SLOT_NAME=0000:{80 + index:02x}:00.0",
            f"{port}/state": f"{_STATES.get(self.state, 9)}: {self.state}",
            f"{port}/phys_state": f"{_PHYS.get(phys, 9)}: {phys}",
            f"{port}/rate": self.rate,
            f"{port}/link_layer": self.layer,
            **{f"{port}/counters/{name}": str(count) for name, count in {"link_downed": 0, **self.counters}.items()},
        }
        return "".join(f"{path}:{value}\n" for path, value in told.items())
