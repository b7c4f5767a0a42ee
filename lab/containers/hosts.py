"""The lab's hosts as containers: created bare, waited for, cut off, restarted."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lab.containers.commands import LabError, wait_until
from lab.containers.engine import NETWORK, Engine
from lab.containers.host_files import HostFile, archive
from lab.containers.model import LabHost

AT_ONCE = 4
BOOT_SECONDS = 90.0
STOP_SECONDS = "10"  # systemd does not end within 20 s while pods run: after this the engine ends it hard
MODULES = Path("/lib/modules")
MIRROR = "mirror"


def each(act: Callable[[LabHost], None], hosts: Iterable[LabHost]) -> None:
    """Do one act on several hosts at once; raises LabError that names every host on which it failed."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [(host, pool.submit(act, host)) for host in hosts]
    faults = [f"{host.name}: {error}" for host, job in jobs if (error := job.exception())]
    if faults:
        raise LabError("\n".join(faults))


def banner(host: LabHost) -> str | None:
    """Say why sshd does not answer yet, or None."""
    try:
        with socket.create_connection((host.address, host.port), timeout=2) as connection:
            connection.settimeout(2)
            text = connection.recv(64)
    except OSError as error:
        return str(error)
    return None if text.startswith(b"SSH-") else f"answered {text!r}"


@dataclass(frozen=True)
class Hosts:
    """The containers of one engine, all from one image."""

    engine: Engine
    image: str

    def state(self, name: str) -> str:
        """Return running, paused, exited, created, ... or absent."""
        rows = self.engine.docker("ps", "--all", "--format", "{{.Names}} {{.State}}").splitlines()
        return dict(row.split(" ", 1) for row in rows).get(name, "absent")

    def start_mirror(self, address: str, bundle: Path) -> None:
        """Start the site's mirror, which serves the bundle: apt on port 80, images on port 5000."""
        state = self.state(MIRROR)
        if state == "absent":
            place = ("--network", NETWORK, "--ip", address, "--volume", f"{bundle}:/srv:ro", "--init")
            words = ("--name", MIRROR, "--hostname", MIRROR, "--restart", "unless-stopped", "--log-opt", "max-size=1m")
            self.engine.docker("run", "--detach", *words, *place, self.image, "/srv/tools/serve")
        elif state != "running":
            self.engine.docker("start", MIRROR)

    def create(self, host: LabHost, files: list[HostFile], *, names: str) -> None:
        """Make and start one bare host; `names` is the address of its name server."""
        words = ["--name", host.name, "--hostname", host.name, "--network", NETWORK, "--ip", host.address]
        # /var on a volume: containerd's overlay snapshots cannot lie on the container's own overlay.
        words += [
            "--privileged",
            "--cgroupns",
            "private",
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/run/lock",
            "--volume",
            "/var",
        ]
        # `reboot` inside ends the container; the engine then starts it again.
        words += ["--restart", "unless-stopped", "--stop-signal", "SIGRTMIN+3", "--stop-timeout", STOP_SECONDS]
        # The engine answers for the lab's own names and asks this server for others: it denies them at once, where no
        # answer at all would cost every such look-up 20 seconds.
        words += ["--dns", names]
        if MODULES.is_dir():
            words += ["--volume", f"{MODULES}:{MODULES}:ro"]
        self.engine.docker("create", *words, self.image)
        self.engine.docker("cp", "--archive", "-", f"{host.name}:/", give=archive(files))
        self.engine.docker("start", host.name)

    def remove(self, name: str) -> None:
        """Take a host away with all it held."""
        if self.state(name) != "absent":
            self.engine.docker("rm", "--force", "--volumes", name)

    def wait(self, host: LabHost, *, seconds: float = BOOT_SECONDS) -> None:
        """Wait until sshd answers; raises LabError with the last thing seen."""
        wait_until(f"{host.name} ({host.address}) answers on port {host.port}", lambda: banner(host), seconds=seconds)

    def host_keys(self, host: LabHost) -> list[str]:
        """Return the host's known_hosts lines, read from the host itself and not from the network."""
        command = ("sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub")
        keys = self.engine.docker("exec", host.name, *command).splitlines()
        return [f"{host.address},{host.name} {' '.join(key.split()[:2])}" for key in keys]

    def connected(self, name: str) -> bool:
        """Say whether the host is on the lab's network."""
        form = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
        return NETWORK in self.engine.docker("inspect", "--format", form, name).split()

    def cut(self, host: LabHost) -> None:
        """Pull the network cable."""
        if self.connected(host.name):
            self.engine.docker("network", "disconnect", NETWORK, host.name)

    def plug(self, host: LabHost) -> None:
        """Put the network cable back: the same address."""
        if not self.connected(host.name):
            self.engine.docker("network", "connect", "--ip", host.address, NETWORK, host.name)

    def reboot(self, host: LabHost) -> None:
        """Restart the host's whole system and wait for sshd."""
        self.engine.docker("restart", "--time", STOP_SECONDS, host.name)
        self.wait(host)
