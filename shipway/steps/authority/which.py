"""The authorities that kubeadm keeps on control planes: where each lies, who reads it, who is told of it.

The key that signs the tokens of ServiceAccounts is one as well: one half of it is trusted, the other one signs.

Sources: kubeadm, app/constants and app/phases/certs/certlist.go (names, the same since before 1.20); the manifests that
kubeadm 1.20.2 and 1.36.2 wrote (flags).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shipway.kubeadm.certificates import APISERVER, ETCD, LEAFS, MANAGER, Leaf
from shipway.kubeadm.writes import ETC, PKI
from shipway.steps.kubernetes.renewal import KEPT

Of = Literal["cluster", "etcd", "front-proxy", "service-accounts"]


@dataclass(frozen=True, slots=True)
class Which:
    """One authority: `word` is the user's for it, `name` its file below kubeadm's folder, `common` kubeadm's for it.

    `readers` are the static pods that read its certificate when they start, `flags` by which of their flags what of it
    is read. `told` is the key of extension-apiserver-authentication that publishes it; "" where nothing does. `half` is
    the ending of its public half: a certificate, or a public key alone. `noun` is what it is to a reader.
    """

    word: Of
    name: str
    common: str
    said: str
    readers: tuple[str, ...]
    flags: tuple[tuple[str, str, str], ...] = ()
    told: str = ""
    half: Literal["crt", "pub"] = "crt"
    noun: str = "CA"

    @property
    def path(self) -> str:
        """Where its public half lies: both, while both are trusted."""
        return f"{self.base}.{self.half}"

    @property
    def files(self) -> tuple[str, ...]:
        """What the old and the new one are called in their folder."""
        return (f"old.{self.half}", "old.key", f"new.{self.half}", "new.key")

    @property
    def mode(self) -> str:
        """Who may read its public half, as kubeadm writes it."""
        return "644" if self.half == "crt" else "600"

    @property
    def base(self) -> str:
        """The path of both halves, without their ending."""
        return f"{PKI}/{self.name}"

    @property
    def key(self) -> str:
        """Where its key lies."""
        return f"{self.base}.key"

    @property
    def inside(self) -> str:
        """The name, in kubeadm's folder, of the folder with the old and the new one."""
        return f"shipway-{self.name.replace('/', '-')}"

    @property
    def folder(self) -> str:
        """The folder with the old and the new one."""
        return f"{PKI}/{self.inside}"

    @property
    def part(self) -> str:
        """That folder while it is filled."""
        return f"{self.folder}.part"

    @property
    def kept(self) -> str:
        """How the folder is called once the rotation is over; a time follows."""
        return f"{ETC}/{KEPT}{self.name.replace('/', '-')}-"

    @property
    def subject(self) -> str:
        """How a new one is called, before its time: two of one name could not be told apart by what is served.

        A key has no name: the folder that is kept of its rotation has.
        """
        return f"{self.common.removesuffix('-ca')}-ca-" if self.half == "crt" else self.kept.removeprefix(f"{ETC}/")

    def read_by(self, part: str) -> tuple[str, ...]:
        """Return its files after whose change a static pod is started anew.

        The controller manager keeps tokens that it has asked for, and one of 1.20.2 was seen to go on with them when
        they were refused: it is started anew with its API server also where only who is trusted has changed.
        """
        if part not in self.readers:
            return ()
        return (self.path,) if self.half == "crt" else (self.path, self.key)

    @property
    def leafs(self) -> tuple[Leaf, ...]:
        """What kubeadm had it sign on a control plane."""
        return tuple(leaf for leaf in LEAFS if leaf.authority == self.name)

    @property
    def command(self) -> str:
        """The command that goes on with its rotation."""
        return "shipway rotate-ca FILE" + ("" if self.word == "cluster" else f" --of {self.word}")


CLUSTER_CA = Which("cluster", "ca", "kubernetes", "the cluster's CA", (APISERVER, MANAGER), told="client-ca-file")
ETCD_CA = Which(
    "etcd",
    "etcd/ca",
    "etcd-ca",
    "etcd's CA",
    (ETCD, APISERVER),
    (
        (ETCD, "trusted-ca-file", f"{PKI}/etcd/ca.crt"),
        (ETCD, "peer-trusted-ca-file", f"{PKI}/etcd/ca.crt"),
        (ETCD, "cert-file", f"{PKI}/etcd/server.crt"),
        (ETCD, "peer-cert-file", f"{PKI}/etcd/peer.crt"),
        (APISERVER, "etcd-cafile", f"{PKI}/etcd/ca.crt"),
        (APISERVER, "etcd-certfile", f"{PKI}/apiserver-etcd-client.crt"),
    ),
)
FRONT_PROXY = Which(
    "front-proxy",
    "front-proxy-ca",
    "front-proxy-ca",
    "the front proxy's CA",
    (APISERVER, MANAGER),
    (
        (APISERVER, "requestheader-client-ca-file", f"{PKI}/front-proxy-ca.crt"),
        (APISERVER, "proxy-client-cert-file", f"{PKI}/front-proxy-client.crt"),
        (MANAGER, "requestheader-client-ca-file", f"{PKI}/front-proxy-ca.crt"),
    ),
    told="requestheader-client-ca-file",
)
SERVICE_ACCOUNTS = Which(
    "service-accounts",
    "sa",
    "service-accounts",
    "the key that signs tokens",
    (APISERVER, MANAGER),
    (
        (APISERVER, "service-account-key-file", f"{PKI}/sa.pub"),
        (APISERVER, "service-account-signing-key-file", f"{PKI}/sa.key"),
        (MANAGER, "service-account-private-key-file", f"{PKI}/sa.key"),
    ),
    half="pub",
    noun="key",
)
ALL: dict[Of, Which] = {one.word: one for one in (CLUSTER_CA, ETCD_CA, FRONT_PROXY, SERVICE_ACCOUNTS)}
