"""What on a host tells whose it is: kubeconfigs, authorities, the kubelet's certificate, static pods, running pods.

No single file decides: each of them was seen lost on a host whose pods went on running. Only public halves are read:
no key and no token leaves the host.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.host.session import Host
from shipway.known_failures.catalogue import failure
from shipway.kubeadm.config import ca_hash
from shipway.script import Output

ADMIN = "/etc/kubernetes/admin.conf"
KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
BOOTSTRAP = "/etc/kubernetes/bootstrap-kubelet.conf"
MANIFESTS = "/etc/kubernetes/manifests"
PKI = "/etc/kubernetes/pki"
AUTHORITY = f"{PKI}/ca.crt"
ETCD = "/var/lib/etcd/member"
FLAGS = "/var/lib/kubelet/kubeadm-flags.env"
CLIENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"
STARTED = "/var/lib/shipway/init-started"
JOINING = "/var/lib/shipway/control-plane-join-started"  # there until kubeadm's join of a control plane succeeded
# The static pods that kubeadm writes (its constants, GetStaticPodFilepath). Nothing else in that folder tells of an
# init or a join: the kubelet's package ships .kubelet-keep, and people put static pods of their own (kube-vip) there.
STATIC_PODS = ("etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml")
# Pods run where a shim of containerd's namespace k8s.io lives or a process is in the kubelet's cgroup (kubepods, or
# kubepods.slice with the systemd driver). /proc tells both without containerd, which may be stopped while they run. On
# a host that is itself a pod every process is in such a cgroup: there only the shims count.
RUNNING = (
    "grep -lszx 'k8s[.]io' /proc/[0-9]*/cmdline; "
    "grep -qs kubepods /proc/1/cgroup || grep -ls kubepods /proc/[0-9]*/cgroup"
)
PODS = Says(("sh", "-c", f"{RUNNING}; exit 0"))
POD_LOGS = Listing("/var/log/pods")  # the kubelet keeps a folder NAMESPACE_NAME_UID for each pod it knows
# The kubelet keeps each certificate in a dated file, and a link leads to the newest (client-go, certificate_store.go):
# so the folder is listed, for a look at a file's state sees no link.
CLIENT_FOLDER = Listing("/var/lib/kubelet/pki")
CERTIFICATE = Says(("sed", "-n", "/^-----BEGIN CERTIFICATE/,/^-----END CERTIFICATE/p", CLIENT))
_KEYS = "server|certificate-authority-data|client-certificate|client-certificate-data|current-context"
_FLAGS = "cluster-name|cluster-cidr|service-cluster-ip-range|advertise-address|secure-port"
KUBECONFIGS = Says(("grep", "-HsE", f"^[ -]*({_KEYS}):", KUBELET_CONF, BOOTSTRAP, ADMIN))
ARGUMENTS = Says(
    (
        *("grep", "-hsE", "-e", f"--({_FLAGS})="),
        *(f"{MANIFESTS}/{name}" for name in ("kube-apiserver.yaml", "kube-controller-manager.yaml")),
    )
)
_ENTRY = re.compile(rf"[ -]*({_KEYS}): *[\"']?([^\"'\s]*)")
_FLAG = re.compile(rf"--({_FLAGS})=([^\s\"',]+)")
_NODE = "system:node:"  # the user name of a kubelet (Kubernetes documentation, "Using Node Authorization")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
HTTPS = 443
Standing = Literal["nothing", "begun", "join broke off", "node", "control plane"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a host shows of the cluster it belongs to; empty values are what it does not show.

    `authorities` are hashes of CA public keys (kubeadm's `sha256:HEX`); `declared` are the arguments of the static
    pods that no running cluster can change: cluster-name, cluster-cidr, service-cluster-ip-range and the like.
    """

    host: str
    kubelet_conf: bool = False
    bootstrap: bool = False
    admin: bool = False
    certificate: bool = False
    etcd: bool = False
    static: tuple[str, ...] = ()
    pki: bool = False
    running: bool = False
    started_by: str | None = None
    joining: bool = False
    server: str = ""
    endpoint: str = ""
    authorities: frozenset[str] = frozenset()
    node: str = ""
    node_ip: str = ""
    declared: Mapping[str, str] = field(default_factory=dict)
    pods: tuple[str, ...] = ()

    @property
    def standing(self) -> Standing:
        """What the host is by all that is there: the strongest sign decides."""
        if self.admin or self.etcd or self.static:
            return "control plane"
        if self.certificate or self.running:
            return "node"
        if self.kubelet_conf or self.bootstrap:
            return "join broke off"  # a kubelet writes its kubelet.conf before it has a certificate
        return "begun" if self.pki or self.started_by is not None else "nothing"

    @property
    def bare(self) -> bool:
        """Whether no cluster has the host: nothing is there, or what an init or a join of ours begins with."""
        return self.standing in ("nothing", "begun")

    @property
    def joined(self) -> bool:
        """Whether pods may run here: the kubelet has credentials, pods run, or a control plane holds data."""
        return self.certificate or self.running or (self.admin and self.etcd)

    @property
    def unfinished(self) -> bool:
        """Whether an init of ours broke off here: its marker stays until kubeadm succeeded."""
        return self.started_by is not None

    @property
    def whole(self) -> bool:
        """Whether the host runs a control plane whose init or join came to its end."""
        return self.admin and self.etcd and not self.unfinished and not self.joining

    @property
    def whose(self) -> str:
        """Name the cluster for people: its API's address and the start of its CA's hash."""
        ca = ", ".join(sorted(one.removeprefix("sha256:")[:12] for one in self.authorities)) or "unknown"
        return f"{self.server or 'unknown address'} (CA {ca})"


async def evidence(on: Host) -> Evidence:
    """Look at a host; costs the round trip that others ask in the same turn of the event loop.

    Raises CommandFailed where it cannot be determined whether pods run, and what keeps from reading.
    """
    (
        (kubelet, bootstrap, admin, clients),
        (static, etcd, pki, logs),
        (ca, started, flags, joining),
        seen,
    ) = await asyncio.gather(
        on.read(FileState(KUBELET_CONF), FileState(BOOTSTRAP), FileState(ADMIN), CLIENT_FOLDER),
        on.read(Listing(MANIFESTS), Listing(ETCD), Listing(PKI), POD_LOGS),
        on.read(FileText(AUTHORITY), FileText(STARTED), FileText(FLAGS), FileState(JOINING)),
        on.read(KUBECONFIGS, ARGUMENTS, CERTIFICATE, PODS),
    )
    configs, arguments, certificate, ran = seen
    texts = _entries(configs.stdout)
    own, admins = texts.get(KUBELET_CONF, {}) or texts.get(BOOTSTRAP, {}), texts.get(ADMIN, {})
    embedded = decode_pem(own.get("client-certificate-data", ""))
    trusted = (
        decode_pem(own.get("certificate-authority-data", ""))
        or ca
        or decode_pem(admins.get("certificate-authority-data", ""))
    )
    declared = dict(_FLAG.findall(arguments.stdout))
    if "cluster-name" not in declared and "@" in admins.get("current-context", ""):
        declared["cluster-name"] = admins["current-context"].rpartition("@")[2]
    running = running_pods(ran, on.name)
    return Evidence(
        host=on.name,
        kubelet_conf=kubelet is not None,
        bootstrap=bootstrap is not None,
        admin=admin is not None,
        certificate=has_client(clients) or (kubelet is not None and bool(embedded)),
        etcd=bool(etcd),
        static=static_pods(static),
        pki=bool(certificates_of(pki)),
        running=running,
        started_by=started.strip() if started is not None else None,
        joining=joining is not None,
        server=own.get("server", "") or admins.get("server", ""),
        endpoint=admins.get("server", ""),
        authorities=authorities(trusted),
        node=node_of(certificate.stdout) or node_of(embedded),
        node_ip=_flag(flags or "", "node-ip"),
        declared=declared,
        pods=tuple("/".join(name.split("_")[:2]) for name in logs) if running else (),
    )


def evidence_of_files(host: str, *, admin_conf: str, manifests: str, authority: str) -> Evidence:
    """Return what a host will show once it has these files of a control plane, which may be another host's.

    So an address of that other host is no part of it.
    """
    entries = _entries("\n".join(f"{ADMIN}:{line}" for line in admin_conf.splitlines())).get(ADMIN, {})
    declared = {name: value for name, value in _FLAG.findall(manifests) if name != "advertise-address"}
    declared.setdefault("cluster-name", entries.get("current-context", "").rpartition("@")[2])
    server = entries.get("server", "")
    return Evidence(
        host=host,
        admin=True,
        etcd=True,
        static=STATIC_PODS,
        pki=True,
        server=server,
        endpoint=server,
        authorities=authorities(authority),
        declared=declared,
    )


def has_client(names: Iterable[str]) -> bool:
    """Say whether the names in the kubelet's certificate folder tell of a client certificate, new or old."""
    return any(name.startswith("kubelet-client-") and name.endswith(".pem") for name in names)


def running_pods(output: Output, host: str) -> bool:
    """Say whether pods run, from the answer of PODS; raises CommandFailed for none, which proves nothing."""
    if not output.ok:
        raise failure("look for running pods", output, host=host)
    return bool(output.stdout.strip())


def static_pods(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the names in /etc/kubernetes/manifests that only kubeadm can have written."""
    return tuple(name for name in names if name in STATIC_PODS)


def certificates_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the names in /etc/kubernetes/pki that hold certificates or keys: a folder or a mark is none."""
    return tuple(name for name in names if name.endswith((".crt", ".key", ".pub")) and not name.startswith("."))


def certificates_in(text: str) -> tuple[str, ...]:
    """Return the certificates in a text, each as PEM with its line end."""
    return tuple(f"{one}\n" for one in _PEM.findall(text))


def authorities(pem: str) -> frozenset[str]:
    """Return the hashes of the CA certificates in a text; none for what holds none."""
    found = set()
    for one in certificates_in(pem):
        try:
            found.add(ca_hash(one))
        except ValueError:
            continue
    return frozenset(found)


def node_of(pem: str) -> str:
    """Return the node's name that a kubelet's client certificate stands for; empty where it cannot be determined."""
    match = _PEM.search(pem)
    if not match:
        return ""
    from cryptography import x509  # noqa: PLC0415 - 60 ms of import that a run on bare hosts need not pay
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    try:
        names = x509.load_pem_x509_certificate(match[0].encode()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return ""
    name = str(names[0].value) if names else ""
    return name.removeprefix(_NODE) if name.startswith(_NODE) else ""


def address_of(server: str) -> str:
    """Return host:port of a kubeconfig's server, in lower case; empty for what is no address."""
    try:
        parts = urlsplit(server)
        name, port = parts.hostname, parts.port or HTTPS
    except ValueError:
        return ""
    return f"{name}:{port}" if name else ""


def _entries(said: str) -> dict[str, dict[str, str]]:
    """Return file -> key -> first value, from grep's lines `file:    key: value`."""
    found: dict[str, dict[str, str]] = {}
    for line in said.splitlines():
        path, _, rest = line.partition(":")
        match = _ENTRY.match(rest)
        if match:
            found.setdefault(path, {}).setdefault(match[1], match[2])
    return found


def decode_pem(data: str) -> str:
    """Return base64 of PEM as text; empty for anything else."""
    try:
        return base64.b64decode(data, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return ""


def read_servers(said: str) -> dict[str, str]:
    """Return the URL of the API's server by kubeconfig, from the answer of KUBECONFIGS."""
    return {path: values["server"] for path, values in _entries(said).items() if "server" in values}


def _flag(text: str, name: str) -> str:
    """Return the value of a kubelet's flag in kubeadm-flags.env."""
    match = re.search(rf"--{name}=([^\s\"']+)", text)
    return match[1] if match else ""
