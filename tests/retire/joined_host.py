"""A worker that a bootstrap joined, as a double: its files, units, containers and rules; and things of the site."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.edits.containerd import BEFORE, CONFIG, edit_config
from shipway.edits.lines import OFF, hosts_file, with_modules, with_sysctls
from shipway.facts.fact import Fact
from shipway.facts.files import FileText, Listing
from shipway.facts.services import UnitInfo, UnitState
from shipway.gpu.chosen import VENDOR
from shipway.host.session import Command
from shipway.kubeadm.config import CRI_SOCKET
from shipway.ownership.evidence import PODS
from shipway.script import Output
from shipway.site.proxies import DROP_IN, ENVIRONMENT
from shipway.steps.reset.kubelet import DELETE, EMPTY, SHIMS
from shipway.steps.runtime.crictl import crictl_finds
from shipway.steps.runtime.memlock import DROP_IN as MEMLOCK
from tasks.stages import container_runtime, prepare_system
from tests.os.debian_machine import DebianMachine
from tests.os.machine import Installed, Words

DEFAULT = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "x"\n'
PACKAGED = 'disabled_plugins = ["cri"]\n# the packager\'s\n'
OWN_RULES = [
    ":INPUT ACCEPT [0:0]",
    ":SITE-OWN - [0:0]",
    "-A INPUT -s 192.0.2.7/32 -p tcp -j ACCEPT",
    "-A SITE-OWN -j RETURN",
]
KUBE_RULES = [
    ":KUBE-SERVICES - [0:0]",
    ":CNI-HOSTPORT-DNAT - [0:0]",
    "-A INPUT -j KUBE-SERVICES",
    "-A KUBE-SERVICES -j RETURN",
]
FOREIGN = {
    "/etc/sysctl.d/10-site.conf": b"vm.swappiness = 1\n",
    "/etc/cni/net.d/87-podman-bridge.conflist": b"{}",
    "/etc/cni/net.d/.kubernetes-cni-keep": b"",
    "/etc/apt/sources.list.d/site.list": b"deb http://site/ x main\n",
    "/etc/containerd/certs.d/site.example/hosts.toml": b'server = "https://site.example"\n',
    "/root/.kube/config": b"clusters: []\ncontexts: []\nusers: []\n",
    "/usr/bin/kubelet": b"",
    "/var/run/cdi/nvidia.yaml": b"cdiVersion: 0.5.0\n",
}


class KilledError(BaseException):
    """The controlling process is gone."""


def cluster() -> Cluster:
    return parse_cluster(
        "name: te\nprofile: seed\nhosts: [{name: te1, address: 10.0.0.1}, {name: te2, address: 10.0.0.2, gpus: 1}]\n"
    )


@dataclass
class JoinedHost(DebianMachine):
    """Answers as such a host; `die_after` is how many changes the controller lives to see."""

    release: str = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
    units: dict[str, list[str]] = field(
        default_factory=lambda: {"kubelet": ["active", "enabled"], "containerd": ["active", "enabled"]}
    )
    containers: int = 4
    links: set[str] = field(default_factory=lambda: {"lo", "eth0", "docker0", "cni0", "cali0123456789a"})
    netns: dict[str, str] = field(default_factory=lambda: {"cni-1": "", "cni-podmans": "71\n", "site": ""})
    mounts: list[str] = field(
        default_factory=lambda: ["/", "/var/lib/kubelet", "/var/lib/kubelet/pods/1/volumes/a\\040b"]
    )
    routes: list[str] = field(
        default_factory=lambda: [
            *("default via 10.0.0.254 dev eth0", "10.244.64.0/20 via 10.0.0.253 dev eth0"),
            *("10.244.65.0/24 via 10.0.0.1 dev eth0", "blackhole 10.244.66.0/26 proto 80", "10.0.0.0/24 dev eth0"),
        ]
    )
    rules: list[str] = field(default_factory=lambda: [*OWN_RULES, *KUBE_RULES])
    foreign: str = ""
    silent: bool = False  # containerd does not answer ctr
    kubeadm_fails: bool = False
    die_after: int = -1
    changes: int = 0

    def __post_init__(self) -> None:
        """Put the files of a bootstrap in place, and some of the site's."""
        super().__post_init__()
        self.name = "te2"
        declared = cluster()
        names = {host.name: host.address for host in declared.hosts}
        runtime = container_runtime.wanted_config(declared)
        edited = edit_config(PACKAGED, DEFAULT, runtime)
        edited = edit_config(edited, DEFAULT, container_runtime.wanted_config(declared, VENDOR.runtime))
        held = ("containerd.io", "kubelet", "kubeadm", "kubectl", "nvidia-container-toolkit")
        self.packages = {**{name: Installed("1", held=True) for name in held}, "site-agent": Installed("1", held=True)}
        texts = {
            "/etc/kubernetes/kubelet.conf": "server: https://10.0.0.1:6443\n",
            "/etc/kubernetes/pki/ca.crt": "CA",
            "/var/lib/kubelet/config.yaml": "x",
            "/var/lib/kubelet/pki/kubelet-client-current.pem": "x",
            "/etc/cni/net.d/10-calico.conflist": "{}",
            "/var/lib/cni/networks/pods/10.244.65.2": "x",
            "/var/lib/cni/networks/podman/10.88.0.2": "x",
            "/var/lib/calico/nodename": "te2",
            "/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json": "{}",
            "/var/run/cdi/k8s.gpu.nvidia.com-claim_1.yaml": "x",
            "/etc/hosts": hosts_file("127.0.0.1 localhost\n10.0.0.9 printer\n127.0.1.1 te2\n", names),
            "/etc/fstab": f"/dev/sda1 / ext4 defaults 0 1\n{OFF}/swap.img none swap sw 0 0\n",
            "/etc/sysctl.d/k8s.conf": with_sysctls("", prepare_system.BRIDGED),
            "/etc/sysctl.d/90-shipway-inotify.conf": "x",
            "/etc/modules-load.d/k8s.conf": with_modules("site_module\n", prepare_system.MODULES, ()),
            "/etc/cloud/cloud.cfg.d/99-shipway.cfg": "x",
            "/etc/NetworkManager/conf.d/90-shipway.conf": "x",
            "/etc/crictl.yaml": crictl_finds(CRI_SOCKET).edit(""),
            CONFIG: edited,
            BEFORE: PACKAGED,
            "/etc/containerd/certs.d/docker.io/hosts.toml": "# Kept by Shipway: declared\n",
            "/etc/containerd/certs.d/docker.io/shipway-ca.crt": "x",
            DROP_IN: "x",
            MEMLOCK: "x",
            ENVIRONMENT: "x",
            "/etc/apt/sources.list.d/shipway-docker.list": "deb x\n",
            "/etc/apt/keyrings/shipway-docker.asc": "x",
            "/etc/apt/apt.conf.d/99zz-shipway-proxy": "x",
            "/etc/apt/sources.list": f"{OFF}deb http://deb.debian.org/debian bookworm main\n",
            "/var/lib/shipway/loaded/containerd": "x",
            "/var/lib/shipway/backups/2026/snapshot.db": "kept",
            "/etc/systemd/system/shipway-scheduled-backup.timer": "x",
            "/etc/systemd/system/timers.target.wants/shipway-scheduled-backup.timer": "x",
            "/etc/systemd/system/shipwayward.service": "x",
            "/proc/sys/kernel/hostname": "te2\n",
        }
        self.files |= {path: text.encode() for path, text in texts.items()} | dict(FOREIGN)

    def state(self) -> dict[str, Any]:
        """Return all that a reset may change, to be compared."""
        kept = {path: text for path, text in self.files.items() if not path.startswith("/proc/")}
        held = {name: one.held for name, one in self.packages.items()}
        return copy.deepcopy(
            {"files": kept, "held": held, "units": self.units, "containers": self.containers, "links": self.links}
            | {"netns": self.netns, "mounts": self.mounts, "routes": self.routes, "rules": self.rules}
        )

    def _value(self, fact: Fact[Any]) -> Any:
        if isinstance(fact, UnitState):
            state = self.units.get(fact.unit.removesuffix(".service"))
            load = "loaded" if state else "not-found"
            active, enabled = state or ["inactive", ""]
            return UnitInfo(load, active, "", enabled, 1, needs_reload=False)
        if fact == PODS:
            return Output(0, "/proc/7/cmdline\n" if self.containers else "", "")
        if isinstance(fact, Listing) and fact.path in ("/sys/class/net", "/run/netns"):
            return tuple(sorted(self.links if fact.path == "/sys/class/net" else self.netns))
        if isinstance(fact, FileText) and fact.path == "/proc/mounts":
            return "".join(f"x {point} ext4 rw 0 0\n" for point in self.mounts)
        if isinstance(fact, Listing):
            folder = f"{fact.path.rstrip('/')}/"
            return tuple(sorted({p.removeprefix(folder).split("/")[0] for p in self.files if p.startswith(folder)}))
        return super()._value(fact)

    async def operate(self, name: str, words: Sequence[str], *, seconds: int) -> Output:
        """Run a long command, which goes on when the controller dies."""
        del name, seconds
        self._live()
        return self.run(words)

    async def settled(self, *names: str, seconds: int) -> None:
        """Have nothing of an earlier run at work."""

    async def do(self, *commands: Command) -> list[Output]:
        """Run commands one after the other; the controller may die between two."""
        return [self._changed(command.words) for command in commands]

    async def succeed(self, name: str, words: Sequence[str], *, seconds: int) -> Output:
        """Run a long command that has to end well."""
        del name, seconds
        return self._changed(words)

    async def write(self, path: str, content: bytes, **more: str) -> None:
        """Put a file in place."""
        self._live()
        await super().write(path, content, **more)

    def _live(self) -> None:
        if self.changes == self.die_after:
            raise KilledError
        self.changes += 1

    def _changed(self, words: Sequence[str]) -> Output:
        self._live()
        return self._succeeded(words)

    def run(self, words: Sequence[str]) -> Output:
        """Answer one command."""
        words = tuple(words)
        words = words[4:] if words[:2] == ("timeout", "-k") else words
        said = self._look(words)
        if said is None:
            said = self._change(words)
        return super().run(words) if said is None else said

    def _look(self, words: Words) -> Output | None:
        shown = {
            SHIMS.command: f"-namespace\n{self.foreign}\n-namespace\nk8s.io\n" if self.foreign else "k8s.io\n",
            ("containerd", "config", "default"): DEFAULT,
            ("iptables-save",): "*filter\n" + "\n".join(self.rules) + "\nCOMMIT\n",
            ("iptables-nft-save",): "*filter\n" + "\n".join(self.rules) + "\nCOMMIT\n",
            ("ip", "-4", "route", "show"): "\n".join(self.routes),
            ("ip", "-o", "-4", "addr", "show"): "2: eth0    inet 10.0.0.2/24\n",
            ("getent", "passwd", "root"): "root:x:0:0:root:/root:/bin/sh\n",
        }
        if words in shown:
            return Output(0, shown[words], "")
        match words:
            case ("ctr", *_, "containers", "ls", "-q", _) if self.silent:
                return Output(1, "", "ctr: context deadline exceeded")
            case ("ctr", *_, "containers", "ls", "-q", _):
                return Output(0, "c\n" * self.containers, "")
            case ("ip", "netns", "pids", name):
                return Output(0, self.netns[name], "")
            case (program, *_) if program.endswith("-save") or program in ("nft", "ipset", "kubeadm"):
                return None if words[:2] == ("kubeadm", "reset") else Output(127, "", "not found")
        return None

    def _change(self, words: Words) -> Output | None:  # noqa: C901, PLR0912 - a row each program
        match words:
            case ("kubeadm", "reset", *_) if self.kubeadm_fails:
                return Output(1, "", "error: it does not work")
            case ("kubeadm", "reset", *_):
                self.containers = 1  # kubeadm passes over what it cannot remove
                self._remove("/etc/kubernetes", "/var/lib/kubelet")
            case ("sh", "-c", script, *_) if script == DELETE:
                self.containers = 0
            case ("sh", "-c", script, *_) if script == EMPTY:
                self._remove("/var/lib/kubelet")
            case ("sh", "-c", script, "sh", *points):
                self.mounts = [one for one in self.mounts if one.replace("\\040", " ") not in points]
            case ("rm", "-rf", "--one-file-system", "--", *paths):
                self._remove(*paths)
            case ("systemctl", "start", unit):
                self.units[unit][0] = "active"
            case ("systemctl", verb, *_, unit) if verb in ("stop", "disable") and unit in self.units:
                self.units[unit][verb == "disable"] = "inactive" if verb == "stop" else "disabled"
            case ("systemctl", *_) | ("rmdir", *_):
                pass
            case ("ip", "link", "delete", name):
                self.links.discard(name)
            case ("ip", "netns", "delete", name):
                del self.netns[name]
            case ("ip", "-4", "route", "delete", *which):
                self.routes = [one for one in self.routes if not one.startswith(" ".join(which))]
            case (program, "--noflush", path) if program.endswith("-restore"):
                self._restore(self.files[path].decode())
            case ("mv", "-fT", "--", source, target):
                self.files[target] = self.files.pop(source)
            case _:
                return None
        return Output(0, "", "")

    def _remove(self, *paths: str) -> None:
        self.files = {
            p: text
            for p, text in self.files.items()
            if not p.startswith(tuple(f"{one}/" for one in paths)) and p not in paths
        }

    def _restore(self, text: str) -> None:
        for line in text.splitlines():
            chain = line[1:].split(" ")[0]
            if line.startswith(":"):
                self.rules = [one for one in self.rules if not one.startswith(f"-A {chain} ")]
            elif line.startswith("-D "):
                self.rules.remove(f"-A {line[3:]}")
            elif line.startswith("-X "):
                self.rules = [one for one in self.rules if not one.startswith(f":{line[3:]} ")]
