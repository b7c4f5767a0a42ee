"""A whole simulated lab in this process: hosts behind a real SSH server, a simulated cluster, what can befall them."""

from __future__ import annotations

import asyncio
import hashlib
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import asyncssh

from lab.simulated.cluster_file import cluster_data, known_hosts, write_cluster_file, write_private
from lab.simulated.cluster_link import ClusterLink
from lab.simulated.drifts import drift
from lab.simulated.failures import Failure, Spec
from lab.simulated.host import SimulatedHost
from lab.simulated.login_shell import make_noisy
from lab.simulated.options import Options
from lab.simulated.site import site
from lab.simulated.ssh.server import SshServer
from shipway.cluster.profiles import merge, profile_data

PORT, API_PORT = 2222, 6443
_TRIES = 64
_PER_NET = 250


def _allow_files(hosts: int) -> None:
    """Raise this process's limit of open files where it can: a host is a socket, and a session a few more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * hosts + 512
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))


class SimulatedLab:
    """An async context manager; `folder` gets cluster.yaml, id_ed25519 and known_hosts."""

    def __init__(self, folder: Path, options: Options | None = None) -> None:
        self.folder = folder
        self.options = options or Options()
        self.hosts: dict[str, SimulatedHost] = {}
        profile = merge(profile_data(self.options.profile), self.options.cluster)
        self.site = site(profile, self.options.os)
        self.world = self.site.world
        self.link = ClusterLink(self.options.scale, self.options.seed)
        self._server: SshServer | None = None

    @property
    def cluster_file(self) -> Path:
        """Where the cluster file is."""
        return self.folder / "cluster.yaml"

    @property
    def ssh(self) -> SshServer:
        """The SSH server; only between start and close."""
        if self._server is None:
            raise RuntimeError("the simulated lab is not started")
        return self._server

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Make hosts and keys, listen, write the files, then let the asked failures and drifts be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _allow_files(len(self.options.host_names()))
        client = asyncssh.generate_private_key("ssh-ed25519", comment="SIMULATED lab")
        server, keys = self._listening(client)
        self._server = server
        write_private(self.folder / "id_ed25519", client.export_private_key())
        (self.folder / "known_hosts").write_text(known_hosts(keys), encoding="utf-8")
        hosts = list(self.hosts.values())
        data = cluster_data(hosts, server.port, self.folder.resolve(), self.options.profile)
        write_cluster_file(self.cluster_file, merge(data, self.site.settings), self.options.cluster)
        if self.options.noisy and len(hosts) > 1:
            make_noisy(hosts[-1])
        try:
            for spec in self.options.drifts:
                self.drift(spec.host, spec.kind, spec.values)
            for spec in self.options.failures:
                self.fail(spec)
        except ValueError:
            await self.close()
            raise

    def _listening(self, client: asyncssh.SSHKey) -> tuple[SshServer, list[tuple[str, int, asyncssh.SSHKey]]]:
        """Return a server on addresses 127.B.C.N of which all are free, and the hosts' keys."""
        loop = asyncio.get_running_loop()
        seed = hashlib.sha256(f"{self.folder.resolve()}/{loop.time()}".encode()).digest()
        for attempt in range(_TRIES):
            net = (64 + (seed[0] + attempt) % 128, seed[1])
            server = SshServer(PORT, client, self.link.way, self.options.sshd, self.options.seed)
            self.hosts, keys = {}, []
            try:
                for index, name in enumerate(self.options.host_names()):
                    host = self._host(name, index, net)
                    key = asyncssh.generate_private_key("ssh-ed25519", comment="SIMULATED host")
                    server.add(host, key)
                    self.hosts[name] = host
                    keys.append((host.address, PORT, key))
            except OSError:
                server.drop()
                continue
            self.link.lab(self.hosts, self.world, server)
            return server, keys
        raise OSError(f"no free addresses 127.B.C.N:{PORT} found in {_TRIES} tries")

    def _host(self, name: str, index: int, net: tuple[int, int]) -> SimulatedHost:
        address = f"127.{net[0]}.{(net[1] + index // _PER_NET) % 256}.{index % _PER_NET + 1}"
        return SimulatedHost(
            name,
            address,
            world=self.world,
            system=self.options.os,
            gpus=self.options.gpus_of(index),
            scale=self.options.scale,
            seed=self.options.seed,
            swap=self.options.swap,
            link=self.link,
        )

    def _named(self, name: str) -> list[SimulatedHost]:
        """Return the hosts a name stands for; `*` is all of them. Raises ValueError for an unknown one."""
        if name == "*":
            return list(self.hosts.values())
        if name not in self.hosts:
            raise ValueError(f"no simulated host {name!r}; there are {', '.join(list(self.hosts)[:8])}")
        return [self.hosts[name]]

    def drift(self, name: str, kind: str, values: Mapping[str, str]) -> None:
        """Let something drift on a host; see lab.simulated.drifts."""
        for host in self._named(name):
            drift(host, kind, values)

    def fail(self, spec: Spec) -> None:
        """Let a failure wait; `api` as the host name is for the API: status=503,path=/api,times=2."""
        if spec.host == "api":
            self.link.faults.add(spec.kind, spec.values)
            return
        if spec.kind in ("unreachable", "refused"):
            for host in self._named(spec.host):
                self.cut(host.name, refuse=spec.kind == "refused")
            return
        for host in self._named(spec.host):
            host.failures.waiting.append(spec.failure())

    def fail_command(self, name: str, failure: Failure) -> None:
        """Let a failure of a command wait on a host."""
        for host in self._named(name):
            host.failures.waiting.append(failure)

    def cut(self, name: str, *, refuse: bool = False, stall: bool = False) -> None:
        """Cut a host off: connections end (or `stall`), new ones get silence, or are refused."""
        for host in self._named(name):
            host.reachable = False
            host.refusing = refuse
            self.ssh.cut(host.name, stall=stall)
            if refuse:
                self.ssh.refuse(host.name)
            host.changed()

    def plug(self, name: str) -> None:
        """Plug a host in again."""
        for host in self._named(name):
            host.reachable, host.refusing = True, False
            self.ssh.cut(host.name)
            self.ssh.up(host.name)
            host.changed()

    def rekey(self, name: str) -> None:
        """Replace a host's SSH key, and end its connections: the next one meets the new key."""
        for host in self._named(name):
            self.ssh.rekey(host.name)
            self.ssh.cut(host.name)

    def reboot(self, name: str) -> None:
        """Reboot a host; it is away for 30 simulated seconds."""
        for host in self._named(name):
            self.link.reboot(host)

    async def close(self) -> None:
        """End everything."""
        if self._server is not None:
            await self._server.close()
        for host in self.hosts.values():
            await host.close()
        await self.link.close()
