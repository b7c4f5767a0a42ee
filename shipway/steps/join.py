"""A worker joins: with a token of its own, made for this join, short-lived, in a private file, deleted after."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import ClassVar

from shipway.cluster import Cluster
from shipway.cluster_parts import HostSpec
from shipway.errors import ApiUnavailable, Blocked, ShipwayError, Transient
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.facts.packages import Package
from shipway.host import OPERATIONS, Command, Host
from shipway.kubeadm import as_yaml, ca_hash, join_documents
from shipway.step import Drift, Impact
from shipway.steps.evidence import collected
from shipway.steps.init import ADMIN, MANIFESTS, PKI, certificates_of, reset, static_pods

KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
TOKEN_MINUTES = 15
# Kubernetes documentation, "Authenticating with Bootstrap Tokens"; the first half becomes a word of a command.
_TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
PURPOSE = "join of "  # how each of our tokens is described, with the host's name after it


@dataclass(frozen=True)
class NodeJoined:
    """The host is a node of the cluster: its kubelet has credentials that this cluster's CA signed."""

    traps: ClassVar[tuple[int, ...]] = (12, 37, 40)
    impact: ClassVar[Impact] = Impact.WORKLOADS
    cluster: Cluster
    host: HostSpec
    control: Host
    name: str = "the node has joined"

    async def check(self, on: Host) -> Drift | None:
        """A kubelet.conf and the cluster's own CA are there; another cluster's CA is refused."""
        credentials, ca, installed = await on.read(
            FileState(KUBELET_CONF), FileText("/etc/kubernetes/pki/ca.crt"), Package("kubeadm")
        )
        if installed is None:
            raise Blocked("kubeadm is not installed yet", host=on.name)
        if credentials is None:
            return Drift("not joined" if ca is None else "a join broke off", "joined")
        ours = await self.control.read(FileText("/etc/kubernetes/pki/ca.crt"))
        if ours is not None and ca is not None and ca.strip() != ours.strip():
            message = "the host is a node of another cluster (its CA differs)"
            fix = f"Drain and remove it there, then run `kubeadm reset` on {on.name}: it is never done unasked."
            raise ShipwayError(message, host=on.name, code="SHW-309", fix=fix)
        return None

    async def apply(self, on: Host, drift: Drift) -> None:  # noqa: ARG002 - looked at anew
        """Make a token, join, delete the token; a join of an interrupted run that is still at work is waited for."""
        await on.settled("kubeadm-join", "kubeadm-reset", seconds=self.cluster.kubernetes.join_seconds)
        await self._reachable(on)
        begun, manifests, pki = await on.read(Listing("/etc/kubernetes"), Listing(MANIFESTS), Listing(PKI))
        if static_pods(manifests) or certificates_of(pki) or "bootstrap-kubelet.conf" in begun:
            await reset(on)  # a join that broke off before its kubelet had credentials: no pod ever ran here
        ca = await self.control.read(FileText("/etc/kubernetes/pki/ca.crt"))
        if ca is None:
            raise Blocked("the control plane is not initialised yet", host=on.name)
        token = await self._token()
        config = f"{OPERATIONS}/kubeadm-join.yaml"
        try:
            documents = join_documents(self.cluster, self.host, token, ca_hash(ca))
            await on.write(config, as_yaml(documents).encode(), mode="600")
            words = ("kubeadm", "join", "--config", config)
            output = await on.operate("kubeadm-join", words, seconds=self.cluster.kubernetes.join_seconds)
            if not output.ok:
                raise await collected(on, "kubeadm join", output)
        finally:
            await self._forget(on, config, token)

    async def _reachable(self, on: Host) -> None:
        """Ask for the API from the host first: kubeadm itself would try for five minutes before it says so."""
        url = f"https://{self.cluster.endpoint}/livez"
        answer = await on.read(Says(("curl", "-sk", "--max-time", "8", "-o", "/dev/null", "-w", "%{http_code}", url)))
        if not answer.ok:
            message = f"the API at {self.cluster.endpoint} cannot be reached from this host (curl: {answer.status})"
            fix = f"Open the path from {on.name} to {self.cluster.endpoint} (firewall, route), then run again."
            raise ApiUnavailable(message, host=on.name, code="SHW-206", fix=fix)

    async def _token(self) -> str:
        """Make a token on the control plane; it is in no argument, log or result. Raises Transient for what is none."""
        words = ("kubeadm", "token", "create", "--kubeconfig", ADMIN, "--ttl", f"{TOKEN_MINUTES}m")
        made = await self.control.do(Command((*words, "--description", f"{PURPOSE}{self.host.name}"), seconds=90))
        token = next((word for word in reversed(made[-1].stdout.split()) if _TOKEN.fullmatch(word)), None)
        if token is None:
            message = "`kubeadm token create` answered something that is no token"
            fix = f"Run it by hand on {self.control.name}, look at what else it prints, then run again."
            raise Transient(message, host=self.control.name, code="SHW-210", fix=fix)
        return token

    async def _forget(self, on: Host, config: str, token: str) -> None:
        """Delete file and token; what cannot be reached expires by itself."""
        identity = token.split(".", maxsplit=1)[0]  # the public half: the API names the token's Secret by it
        delete = Command(("kubeadm", "token", "delete", "--kubeconfig", ADMIN, identity), seconds=90)
        for session, command in ((on, Command(("rm", "-f", config))), (self.control, delete)):
            with contextlib.suppress(ShipwayError):
                await session.do(command)
