"""What befalls a host by other hands than its own: swap, a program on a port, another dpkg, a mirror that refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lab.containers.lab import Lab
from lab.simulated.lab import SimulatedLab

PORT = 8090  # no port of Kubernetes, nor of the lab
_UNIT = "conformance-other"
_LISTEN = f"import socket, time; one = socket.create_server(('', {PORT})); time.sleep(300)"
# Both locks, as dpkg takes them while another program runs it.
_LOCK = (
    "import fcntl, time; held = [open('/var/lib/dpkg/' + name, 'w') for name in ('lock-frontend', 'lock')]; "
    "[fcntl.lockf(one, fcntl.LOCK_EX) for one in held]; time.sleep(300)"
)
# Kind -> what it is on a simulated host.
KINDS = {
    "swap-on": ("swap-on", {}),
    "swap-off": ("swap-off", {}),
    "port-taken": ("port", {"port": str(PORT), "by": "python3"}),
    "port-free": ("port", {"port": str(PORT), "by": ""}),
    "locked": ("locked", {"by": "python3"}),
    "unlocked": ("unlocked", {}),
    "packages-403": ("source-refused", {"url": "http"}),
    "packages-ok": ("source-up", {"url": "http"}),
}
_PROGRAMS = {"port-taken": _LISTEN, "locked": _LOCK}
Befall = Callable[[str, str], Awaitable[None]]


def on_simulated(lab: SimulatedLab) -> Befall:
    """Return what lets it happen on a simulated lab."""

    async def befall(host: str, what: str) -> None:
        kind, values = KINDS[what]
        lab.drift(host, kind, values)

    return befall


def on_containers(lab: Lab) -> Befall:
    """Return what lets it really happen on a lab of containers."""

    def happen(host: str, what: str) -> None:
        if what in ("swap-on", "swap-off"):
            lab.swap(host, on=what == "swap-on")
        elif what == "packages-403":
            lab.mirror().answer(403)
        elif what == "packages-ok":
            lab.mirror().serve()
        elif what in _PROGRAMS:
            lab.exec(host, "systemd-run", "--quiet", "--collect", f"--unit={_UNIT}", "python3", "-c", _PROGRAMS[what])
            lab.exec(host, "sleep", "1")  # until it holds what it is to hold
        else:
            lab.exec(host, "systemctl", "stop", _UNIT)

    async def befall(host: str, what: str) -> None:
        await asyncio.to_thread(happen, host, what)

    return befall
