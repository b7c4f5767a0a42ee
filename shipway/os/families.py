"""The families of operating systems that Shipway knows, and which one a host is of."""

from __future__ import annotations

from shipway.host.session import Host
from shipway.os.debian.family import Debian
from shipway.os.family import Family
from shipway.os.release import RELEASE, os_release

FAMILIES: tuple[Family, ...] = (Debian(),)


def family_of(system: str) -> Family:
    """Return the family of a system, by the `ID` of /etc/os-release; the first family where none has it.

    Preflight refuses a system that no family has (`SystemSupported`), so the first one's steps never run there.
    """
    return next((family for family in FAMILIES if system in family.systems), FAMILIES[0])


async def recognise(on: Host) -> Family:
    """Return a host's family; the host is only asked where there is more than one to choose from."""
    if len(FAMILIES) == 1:
        return FAMILIES[0]
    release: str | None = await on.read(RELEASE)
    return family_of(os_release(release or "").get("ID", ""))
