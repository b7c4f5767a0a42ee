"""NetworkManager leaves the pod network's interfaces alone: it would take their routes away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shipway.edits.files import FileIs
from shipway.facts.files import FileState
from shipway.facts.services import UnitState
from shipway.host.session import Command, Host
from shipway.step import Drift, Impact

UNIT = UnitState("NetworkManager.service")
# The names that Calico's requirements page lists ("NetworkManager").
OURS = ("cali*", "tunl*", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali")
FILE = FileIs(
    "",
    "/etc/NetworkManager/conf.d/90-shipway.conf",
    f"[keyfile]\nunmanaged-devices={';'.join(f'interface-name:{name}' for name in OURS)}\n",
)


@dataclass(frozen=True)
class InterfacesLeftAlone:
    """Where NetworkManager is installed, it does not manage Calico's interfaces."""

    traps: ClassVar[tuple[int, ...]] = (43,)
    impact: ClassVar[Impact] = Impact.FILES
    name: str = "NetworkManager leaves Calico's interfaces alone"

    async def check(self, on: Host) -> Drift | None:
        """Compare its file; a host without NetworkManager needs none."""
        unit, info = await on.read(UNIT, FileState(FILE.path))
        return None if unit.load == "not-found" else FILE.drift(info)

    async def apply(self, on: Host) -> None:
        """Write the file, and let a running NetworkManager read it: connections stay as they are."""
        await FILE.apply(on)
        if (await on.read(UNIT)).active == "active":
            await on.do(Command(("systemctl", "reload", "NetworkManager")))
