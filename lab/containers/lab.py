"""The lab as tests and the command line use it: up, down, fresh hosts, faults."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lab.containers import cluster_file, machine
from lab.containers.bundle import require_bundle
from lab.containers.commands import LabError, run, say
from lab.containers.engine import IMAGE, Engine
from lab.containers.host_files import host_files
from lab.containers.hosts import Hosts, each
from lab.containers.mirror import Mirror
from lab.containers.model import LabHost, LabPlan
from lab.containers.network import LabNetwork, set_conntrack_max
from lab.containers.places import Cache, default_state

GPUS = "/var/lib/labgpu/devices"


class Lab:
    """One lab of this machine; `state` is the folder with its keys, lab.json and engine."""

    def __init__(self, state: Path | None = None, cache: Cache | None = None) -> None:
        self.state = (state or default_state()).absolute()
        self.cache = cache or Cache.default()
        self.runtime = self.cache.part("stand-ins") / "lab-runtime"

    @property
    def plan(self) -> LabPlan:
        """Return what this lab is; raises LabError where it was never started."""
        return LabPlan.load(self.state)

    def engine(self, number: int | None = None) -> Engine:
        """Return the lab's engine."""
        return Engine(self.state, self.plan.number if number is None else number, self.runtime)

    def hosts(self) -> Hosts:
        """Return the lab's containers."""
        key = (self.cache.bundle / "host" / ".key").read_text()
        return Hosts(self.engine(), f"{IMAGE}:{key[:12]}")

    def mirror(self) -> Mirror:
        """Return the site's mirror, to put it out of order and back."""
        return Mirror(self.engine())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second process from changing the same lab meanwhile."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.state / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LabError(f"another process is changing the lab in {self.state}; wait for it to end") from error
            yield

    def up(self, wanted: LabPlan) -> None:
        """Start the lab, from nothing or from whatever is there; ends when sshd answers on every host.

        Raises LabError where the machine lacks something, or another plan is recorded in the same folder.
        """
        machine.load_modules()
        machine.require(self.cache.root)
        require_bundle(self.cache)
        with self._alone():
            started = time.monotonic()
            wanted = replace(wanted, packages=self._packages(wanted), key_fingerprint=self._fingerprint())
            if (self.state / "lab.json").is_file() and not self.plan.same_hosts(wanted):
                raise LabError(f"another lab is recorded in {self.state}; take it away with `down`, or use --state")
            self._record(wanted)
            network = LabNetwork(wanted.number)
            network.up()
            engine = self.engine()
            engine.up(network)
            hosts = self.hosts()
            engine.import_image(self.cache.bundle / "host" / "rootfs.tar", hosts.image.rpartition(":")[2])
            hosts.start_mirror(wanted.mirror, self.cache.bundle)
            each(self._start, wanted.hosts)
            self._learn_keys(wanted.hosts)
            cluster_file.write(wanted, self.state)
            say(
                f"lab of {len(wanted.hosts)} hosts is up after {time.monotonic() - started:.1f} s:"
                f" {self.state}/cluster.yaml"
            )

    def _packages(self, wanted: LabPlan) -> dict[str, str]:
        """Return the versions that this lab's repositories offer, by package."""
        found: dict[str, str] = {}
        for name in ("kubernetes", f"containerd-{wanted.containerd}", "nvidia"):
            text = (self.cache.bundle / "apt" / name / "Packages").read_text()
            found.update(re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)", text, re.MULTILINE))
        return dict(sorted(found.items()))

    def _fingerprint(self) -> str:
        return (self.cache.bundle / "apt" / "fingerprint").read_text().strip()

    def _record(self, wanted: LabPlan) -> None:
        """Write down what will be made before it is made, so that `down` can undo half a start."""
        record = self.state / "record.json"
        if not record.is_file():
            former = set_conntrack_max(max(131072, 32768 * (os.cpu_count() or 1)))
            record.write_text(json.dumps({"number": wanted.number, "conntrack_max": former}))
        key = self.state / "id_ed25519"
        if not key.is_file():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "shipway-lab", "-f", key)
        wanted.save(self.state)

    def _create(self, host: LabHost) -> None:
        archive_key = (self.cache.bundle / "apt" / "debian" / "Release.key").read_bytes()
        runtime = self.runtime if machine.lacks_sys_resource() else None
        login = (self.state / "id_ed25519.pub").read_bytes()
        files = host_files(host, self.plan, login_key=login, archive_key=archive_key, runtime=runtime)
        self.hosts().create(host, files, names=self.plan.mirror)

    def _start(self, host: LabHost) -> None:
        """Bring one host to running: created, started or resumed."""
        hosts, state = self.hosts(), self.hosts().state(host.name)
        if state == "created":  # a start that broke off before the host's files were there
            hosts.remove(host.name)
        if state in {"absent", "created"}:
            self._create(host)
        elif state == "paused":
            hosts.engine.docker("unpause", host.name)
        elif state != "running":
            hosts.engine.docker("start", host.name)
        hosts.plug(host)
        hosts.wait(host)

    def _learn_keys(self, changed: tuple[LabHost, ...]) -> None:
        """Write the hosts' public keys to known_hosts, in place of what was there for the same addresses."""
        path = self.state / "known_hosts"
        names = tuple(f"{host.address}," for host in changed)
        kept = [line for line in path.read_text().splitlines() if not line.startswith(names)] if path.is_file() else []
        fresh = [line for host in changed for line in self.hosts().host_keys(host)]
        path.write_text("\n".join([*kept, *fresh]) + "\n")

    def fresh(self, *names: str) -> None:
        """Replace hosts by bare ones of the same name and address (all of them without names)."""
        with self._alone():
            chosen = tuple(self.plan.host(name) for name in names) or self.plan.hosts
            started = time.monotonic()

            def renew(host: LabHost) -> None:
                self.hosts().remove(host.name)
                self._create(host)
                self.hosts().wait(host)

            each(renew, chosen)
            self._learn_keys(chosen)
            shown = ", ".join(host.name for host in chosen)
            say(f"fresh after {time.monotonic() - started:.1f} s: {shown}")

    def down(self) -> None:
        """Take the lab away: hosts, engine, namespace, routes, keys. The cache stays. May be repeated."""
        record = self.state / "record.json"
        if not record.is_file():
            say(f"no lab is recorded in {self.state}")
            return
        with self._alone():
            kept = json.loads(record.read_text())
            engine, network = self.engine(kept["number"]), LabNetwork(kept["number"])
            if engine.answers() and (containers := engine.docker("ps", "--all", "--quiet").split()):
                engine.docker("rm", "--force", "--volumes", *containers)
            engine.stop()
            engine.remove_cgroups()
            network.down()
            set_conntrack_max(kept["conntrack_max"])
            if engine.data.exists():
                shutil.rmtree(engine.data)
            for name in ("id_ed25519", "id_ed25519.pub", "known_hosts", "lab.json", "dockerd.log", "cluster.yaml"):
                (self.state / name).unlink(missing_ok=True)
            record.unlink()
            (self.state / ".lock").unlink()
        if not any(self.state.iterdir()):
            self.state.rmdir()
        say(f"the lab in {self.state} is gone")

    def cut(self, name: str) -> None:
        """Cut a host off the network."""
        self.hosts().cut(self.plan.host(name))

    def plug(self, name: str) -> None:
        """Put a cut-off host back, at the same address."""
        self.hosts().plug(self.plan.host(name))

    def pause(self, name: str) -> None:
        """Freeze all processes of a host: it hangs, its network stays."""
        self.engine().docker("pause", self.plan.host(name).name)

    def unpause(self, name: str) -> None:
        """Let a frozen host go on."""
        self.engine().docker("unpause", self.plan.host(name).name)

    def reboot(self, name: str) -> None:
        """Restart a host and wait for sshd; raises LabError where it does not come back."""
        self.hosts().reboot(self.plan.host(name))

    def exec(self, name: str, *words: str, give: str | bytes | None = None, seconds: float = 120) -> str:
        """Return the output of a command run as root on a host, past its network; raises LabError where it fails."""
        host = self.plan.host(name)
        return self.engine().docker("exec", "--interactive", host.name, *words, give=give, seconds=seconds)

    def gpu(self, name: str, gpu: str, health: str) -> None:
        """Set one GPU, by UUID or index, Healthy or Unhealthy; raises LabError where the host has no such GPU."""
        if health not in {"Healthy", "Unhealthy"}:
            raise LabError(f"a GPU is Healthy or Unhealthy, not {health!r}")
        rows = [line.split() for line in self.exec(name, "cat", GPUS).splitlines()]
        chosen = [row for index, row in enumerate(rows) if gpu in {row[0], str(index)}]
        if not chosen:
            raise LabError(f"{name} has no GPU {gpu!r}; it has {', '.join(row[0] for row in rows)}")
        chosen[0][1] = health
        text = "".join(f"{uuid} {state}\n" for uuid, state in rows)
        self.exec(name, "sh", "-c", f"cat > {GPUS}.new && mv {GPUS}.new {GPUS}", give=text)

    def swap(self, name: str, *, on: bool) -> None:
        """Show SIMULATED swap on a host, with its line in /etc/fstab, or take both away."""
        line = "/swap.img none swap sw 0 0"
        self.exec(name, "/usr/lib/lab/swap", "on" if on else "off")
        if on:
            self.exec(name, "sh", "-c", f"touch /swap.img; grep -qx '{line}' /etc/fstab || echo '{line}' >> /etc/fstab")
        else:
            self.exec(name, "sed", "-i", r"\@^/swap\.img @d", "/etc/fstab")

    def status(self) -> dict[str, str]:
        """Return each host's state: running, cut, paused, exited, absent."""
        hosts = self.hosts()
        found = {host.name: hosts.state(host.name) for host in self.plan.hosts}
        return {
            name: "cut" if state == "running" and not hosts.connected(name) else state for name, state in found.items()
        }

    def wait(self, name: str, *, seconds: float = 90) -> None:
        """Wait until a host's sshd answers."""
        self.hosts().wait(self.plan.host(name), seconds=seconds)
