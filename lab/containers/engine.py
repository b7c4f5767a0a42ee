"""A Docker engine of the lab's own, in the lab's network namespace, with its own data, socket and cgroup."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from lab.containers import machine
from lab.containers.commands import LabError, end, read_if_there, run, spawn_daemon, wait_until
from lab.containers.network import LabNetwork

CPU_SHARES = "8192"  # eight times the default: under load a starved control plane loses its leases
CPU_WEIGHT = "800"
IMAGE = "shipway-lab-host"
NETWORK = "lab"


@dataclass(frozen=True)
class Engine:
    """One dockerd; `state` holds its data and what it recorded about itself."""

    state: Path
    number: int
    runtime: Path

    @property
    def run_folder(self) -> Path:
        """Return the folder of sockets: short, because a socket's path has at most 107 characters."""
        return Path(f"/run/shipway-lab{self.number}")

    @property
    def data(self) -> Path:
        """Return the engine's data root."""
        return self.state / "engine"

    @property
    def cgroup(self) -> str:
        """Return the cgroup above all of the lab's containers."""
        return f"shipway-lab{self.number}"

    @property
    def bridge(self) -> str:
        """Return the name of the hosts' bridge, inside the namespace."""
        return f"lab{self.number}"

    @property
    def log(self) -> Path:
        """Return the engine's log file."""
        return self.state / "dockerd.log"

    def docker(self, *words: str | Path, give: str | bytes | None = None, seconds: float = 120) -> str:
        """Return the output of one docker call against this engine."""
        return run("docker", "--host", f"unix://{self.run_folder}/docker.sock", *words, give=give, seconds=seconds)

    def answers(self) -> bool:
        """Say whether the engine is up."""
        if not (self.run_folder / "docker.sock").exists():
            return False
        try:
            self.docker("version", "--format", "{{.Server.Version}}", seconds=10)
        except LabError:
            return False
        return True

    def _settings(self) -> dict[str, object]:
        lacking = machine.lacks_sys_resource()
        wrapped = {"default-runtime": "lab", "runtimes": {"lab": {"path": str(self.runtime)}}} if lacking else {}
        return {
            "hosts": [f"unix://{self.run_folder}/docker.sock"],
            "data-root": str(self.data),
            "exec-root": str(self.run_folder / "exec"),
            "pidfile": str(self.run_folder / "docker.pid"),
            "bridge": "none",
            "ip6tables": False,
            "userland-proxy": False,
            "storage-driver": "overlay2",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": f"/{self.cgroup}",
            "log-driver": "local",
            "log-level": "warn",
            **wrapped,
        }

    def up(self, network: LabNetwork) -> None:
        """Start the engine where it does not answer, with its network; raises LabError with the end of its log."""
        if not self.answers():
            self.stop()
            for folder in (self.run_folder, self.data):
                folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            config = self.run_folder / "daemon.json"
            config.write_text(json.dumps(self._settings(), indent=2))
            # nsenter, not `ip netns exec`: that one mounts a /sys of its own, without cgroups.
            words = ["nsenter", f"--net=/run/netns/{network.namespace}", "dockerd", "--config-file", str(config)]
            process = spawn_daemon(words, self.log, {"PATH": f"{os.environ.get('PATH', '')}:{machine.SBIN}"})
            wait_until("the lab's engine answers", lambda: self._look(process), seconds=60)
        if NETWORK not in self.docker("network", "ls", "--format", "{{.Name}}").split():
            options = (
                "com.docker.network.bridge.name=" + self.bridge,
                "com.docker.network.bridge.enable_ip_masquerade=false",
            )
            words = [word for option in options for word in ("--opt", option)]
            gateway = network.subnet.replace(".0/24", ".1")
            self.docker("network", "create", "--subnet", network.subnet, "--gateway", gateway, *words, NETWORK)
        network.open_forward(self.bridge)
        self._weigh()

    def _look(self, process: int) -> str | None:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            last = "\n".join(self.log.read_text(errors="replace").splitlines()[-6:])
            code = os.waitstatus_to_exitcode(status)
            raise LabError(f"dockerd ended with exit code {code}; the end of {self.log}:\n{last}")
        return None if self.answers() else f"no answer yet from process {process}"

    def _weigh(self) -> None:
        """Let the lab's cgroup have more of the CPU than ordinary processes get."""
        if machine.cgroup_v2():
            folder, file, value = machine.CGROUPS / self.cgroup, "cpu.weight", CPU_WEIGHT
        else:
            folder, file, value = machine.CGROUPS / "cpu" / self.cgroup, "cpu.shares", CPU_SHARES
        folder.mkdir(exist_ok=True)
        if (folder / file).exists():
            (folder / file).write_text(value)

    def import_image(self, archive: Path, key: str) -> None:
        """Make the hosts' image from a root file system, once for each content (`key`)."""
        tag = f"{IMAGE}:{key[:12]}"
        if tag not in self.docker("images", "--format", "{{.Repository}}:{{.Tag}}", IMAGE).split():
            self.docker("import", "--change", "ENV container=docker", "--change", 'CMD ["/sbin/init"]', archive, tag)

    def pid(self) -> int | None:
        """Return the engine's process id, if the process of that id is this engine."""
        number = int(read_if_there(self.run_folder / "docker.pid") or 0)
        line = read_if_there(Path(f"/proc/{number}/cmdline"))
        return number if line and str(self.run_folder / "daemon.json") in line else None

    def _members(self) -> set[int]:
        """Return the processes in the lab's own cgroups."""
        found: set[int] = set()
        for top in (machine.CGROUPS / self.cgroup, *machine.CGROUPS.glob(f"*/{self.cgroup}")):
            for folder, _, _ in os.walk(top):  # which, unlike rglob, does not mind a folder that goes away
                found.update(int(number) for number in (read_if_there(Path(folder, "cgroup.procs")) or "").split())
        return found

    def stop(self) -> None:
        """End the engine and whatever is left in the lab's cgroups, and unmount what they held."""
        number = self.pid()
        if number is not None:
            end(number, signal.SIGTERM)
            wait_until("the engine has ended", lambda: "still there" if self.pid() else None, seconds=40)
        for member in self._members():
            end(member, signal.SIGKILL)
        wait_until("the lab's processes have ended", lambda: str(self._members() or "") or None, seconds=20)
        self._end_helpers()
        self._unmount()
        if self.run_folder.exists():
            shutil.rmtree(self.run_folder)

    def _end_helpers(self) -> None:
        """End containerd and its shims where dockerd died without them: their command lines name our run folder."""
        mark = f"{self.run_folder}/"
        for folder in Path("/proc").glob("[0-9]*"):
            words = (read_if_there(folder / "cmdline") or "").split("\0")
            if words[0].split("/")[-1].startswith("containerd") and any(mark in word for word in words):
                end(int(folder.name), signal.SIGKILL)

    def _unmount(self) -> None:
        """Unmount, deepest first, what is mounted on and below the lab's own folders."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        points = [line.split()[4] for line in lines]
        for point in sorted(points, key=len, reverse=True):
            if f"{point}/".startswith((f"{self.data}/", f"{self.run_folder}/")):
                run("umount", "--lazy", point)

    def remove_cgroups(self) -> None:
        """Remove the lab's empty cgroups."""
        for top in [machine.CGROUPS / self.cgroup, *machine.CGROUPS.glob(f"*/{self.cgroup}")]:
            for folder in sorted(top.rglob("*/"), key=lambda path: len(path.parts), reverse=True):
                folder.rmdir()
            if top.is_dir():
                top.rmdir()
