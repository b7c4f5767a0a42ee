"""The hosts: real sshds on loopback, each in a mount namespace where one path leads to its own directory."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.work import NODE, Door, faults, laid, marks

PORT = 2222
SSHD = "/usr/sbin/sshd"
START_SECONDS = 30.0
CONFIG = """Port {port}
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
StrictModes no
MaxStartups 500
MaxSessions 100
Subsystem sftp internal-sftp
# A home of the host's own: Debian's bash reads ~/.bashrc under sshd, and this machine's may cost 0.1 s a command.
SetEnv HOME={home}
"""
# The host's directory at the common path, and a /tmp of its own: mounts that this sshd and its children alone see.
ENTER = 'mount --bind "$1" "$2" && mount --bind "$1/tmp" /tmp && shift 2 && exec "$@"'


class Place:
    """N hosts under `folder` (not below /tmp); needs root and OpenSSH's server."""

    def __init__(self, folder: Path, count: int, net: int = 77) -> None:
        self.folder, self.count = folder.resolve(), count
        self.doors = tuple(Door(f"n{n}", f"127.{net}.{n // 250}.{n % 250 + 1}", PORT) for n in range(count))
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def key(self) -> Path:
        """The private key that opens every host."""
        return self.folder / "id"

    @property
    def known_hosts(self) -> Path:
        """The hosts' keys, under their own addresses and those of the relay."""
        return self.folder / "known_hosts"

    @property
    def roots(self) -> list[Path]:
        """Each host's directory, seen from outside."""
        return [self.folder / door.name / "root" for door in self.doors]

    def __enter__(self) -> Self:
        if not Path(SSHD).exists():
            raise SystemExit(
                f"bench: no {SSHD}; install OpenSSH's server (Debian, Ubuntu: apt-get install openssh-server)"
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        Path(NODE).mkdir(parents=True, exist_ok=True)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        _keygen(self.key)
        _keygen(self.folder / "host_key")  # one key for all: what a handshake costs does not depend on it
        shutil.copy(self.folder / "id.pub", self.folder / "authorized_keys")
        public = " ".join((self.folder / "host_key.pub").read_text(encoding="utf-8").split()[:2])
        with self.known_hosts.open("w", encoding="utf-8") as file:
            for door in self.doors:
                for address in (door.address, relayed(door).address):
                    file.write(f"[{address}]:{PORT} {public}\n")
        self.fresh()
        for door, root in zip(self.doors, self.roots, strict=True):
            self._start(door, root)
        for door in self.doors:
            _answers(door)
        return self

    def _start(self, door: Door, root: Path) -> None:
        config = root.parent / "sshd_config"
        text = CONFIG.format(port=door.port, address=door.address, folder=self.folder, home=f"{NODE}/home")
        config.write_text(text, encoding="utf-8")
        inside = ["sh", "-c", ENTER, "sh", str(root), NODE, SSHD, "-D", "-f", str(config)]
        words = ["unshare", "--mount", "--propagation", "private", *inside]
        with (root.parent / "sshd.log").open("wb") as log:
            self._processes.append(subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def fresh(self) -> None:
        """Put every host back to what it is before a first run; the directory itself stays, for it is mounted."""
        for root in self.roots:
            root.mkdir(parents=True, exist_ok=True)
            for entry in ("etc", "flags", "home"):
                shutil.rmtree(root / entry, ignore_errors=True)
            tmp = root / "tmp"
            for left in tmp.iterdir() if tmp.exists() else ():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            laid(root)

    def faults(self) -> list[str]:
        """Return what is not done, host by host."""
        return [
            f"{door.name}: {', '.join(f)}" for door, r in zip(self.doors, self.roots, strict=True) if (f := faults(r))
        ]

    def marks(self) -> list[dict[str, tuple[int, int]]]:
        """Return inode and time of change of everything that is managed."""
        return [marks(root) for root in self.roots]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


def relayed(door: Door) -> Door:
    """Return the door through the bench's relay."""
    first, net, *rest = door.address.split(".")
    return Door(door.name, ".".join((first, str(int(net) + 1), *rest)), door.port)


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(path)], check=True)


def _answers(door: Door) -> None:
    """Wait until the host's sshd answers; raises TimeoutError."""
    ends, last = time.monotonic() + START_SECONDS, "no answer"
    while time.monotonic() < ends:
        try:
            with socket.create_connection((door.address, door.port), timeout=5) as link:
                if link.recv(4).startswith(b"SSH"):
                    return
        except OSError as error:
            last = str(error)
        time.sleep(0.05)
    raise TimeoutError(f"the sshd of {door.name} does not answer: {last}")
