"""A worker joins: with a token of its own, made for this join, short-lived, in a private file, deleted after."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import ClassVar

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.errors import ApiUnavailable, Blocked, Refused, ShipwayError, Transient
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText, Listing
from shipway.host.session import OPERATIONS, Command, Host
from shipway.kube.record import ASK
from shipway.kubeadm.config import as_yaml, ca_hash, join_documents
from shipway.os.family import Family
from shipway.ownership.evidence import (
    ADMIN,
    AUTHORITY,
    BOOTSTRAP,
    CLIENT,
    CLIENT_FOLDER,
    KUBELET_CONF,
    PKI,
    Evidence,
    authorities,
    certificates_of,
    evidence,
    has_client,
)
from shipway.redact import tail
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.endpoint import prove_endpoint
from shipway.steps.kubernetes.evidence import collect_evidence
from shipway.steps.kubernetes.reset import OF_NO_WORKER, reset

TOKEN_MINUTES = 15
# Kubernetes documentation, "Authenticating with Bootstrap Tokens"; the first half becomes a word of a command.
_TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
BOOTSTRAPPER, NONE = "system:bootstrap:", "<none>"  # the user that a join asks as; kubectl's word for no condition
PURPOSE = "join of "  # how each of our tokens is described, with the host's name after it


@dataclass(frozen=True)
class NodeJoined:
    """The host is a node of the cluster: its kubelet has credentials that this cluster's CA signed."""

    traps: ClassVar[tuple[int, ...]] = (12, 37, 40)
    impact: ClassVar[Impact] = Impact.WORKLOADS
    cluster: Cluster
    host: HostSpec
    family: Family
    control: Host
    name: str = "the node has joined"

    async def check(self, on: Host) -> Drift | None:
        """Compare all evidence with the control plane's; what is of another cluster, or has lost a part, is refused."""
        seen, installed = await asyncio.gather(evidence(on), on.read(self.family.package("kubeadm")))
        if installed is None:
            raise Blocked("kubeadm is not installed yet", host=on.name)
        if seen.bare:
            return Drift("not joined", "joined")
        await self._ours(seen, on.name)
        if seen.standing == "join broke off":
            return Drift("a join broke off before the kubelet had a client certificate", "joined")
        if not seen.kubelet_conf:
            raise self._lost(seen, on.name)
        return None

    async def _ours(self, seen: Evidence, host: str) -> None:
        """Let a host pass that shows this cluster's authority, its own name, no control plane. Raises Refused."""
        if seen.standing == "control plane":
            message = f"the host runs a control plane, of {seen.whose}: it is no worker"
            fix = (
                "Write `roles: [control_plane]` at it in the file of its cluster: it is never taken out of one unasked."
            )
            raise Refused(message, host=host, code="SHW-317", fix=fix)
        ca = await self.control.read(FileText(AUTHORITY))
        ours = authorities(ca or "")
        if ours and seen.authorities and not seen.authorities & ours:
            message = f"the host is a node of another cluster (its CA differs): of {seen.whose}"
            fix = f"Name {host} in the file of its own cluster, and not in this one: it is never taken out unasked."
            raise Refused(message, host=host, code="SHW-309", fix=fix)
        if seen.joined and seen.node and seen.node != self.host.name:
            message = f"the host is the node {seen.node}, and the file calls it {self.host.name}"
            fix = f"Write `name: {seen.node}` at this host: a joined host keeps its name."
            raise Refused(message, host=host, code="SHW-321", fix=fix)

    def _lost(self, seen: Evidence, host: str) -> Refused:
        """Say how a node whose kubelet.conf is gone gets it back; its pods go on running meanwhile."""
        there = [
            *(["its client certificate"] if seen.certificate else []),
            *([f"running pods ({', '.join(seen.pods[:5]) or 'unnamed'})"] if seen.running else []),
        ]
        message = f"kubelet.conf is lost, and the host is a node: there are {' and '.join(there)}"
        node, old = seen.node or self.host.name, self.cluster.kubernetes.minor < (1, 22)
        make = f"kubeadm {'alpha ' if old else ''}kubeconfig user --org system:nodes --client-name system:node:{node}"
        read = " ".join(("kubectl", "--kubeconfig", ADMIN, *ASK))
        fix = (
            f"Its pods need no restart. As root on {self.control.name}: `{read} > /root/kubeadm.yaml`, then `{make} "
            f"--config /root/kubeadm.yaml` prints a new one; put it into {KUBELET_CONF} on {host} (mode 600), then "
            "`systemctl restart kubelet` there, and run again."
        )
        return Refused(message, host=host, code="SHW-323", fix=fix)

    async def apply(self, on: Host) -> None:
        """Make a token, join, delete the token; a join of an interrupted run that is still at work is waited for."""
        await on.settled("kubeadm-join", "kubeadm-reset", seconds=self.cluster.kubernetes.join_seconds)
        await self._reachable(on)
        seen, pki = await asyncio.gather(evidence(on), on.read(Listing(PKI)))
        if seen.joined:
            raise Transient("the host has joined since the look", host=on.name, code="SHW-205")
        if seen.standing != "nothing":
            await self._ours(seen, on.name)
            await self._unused(seen, certificates_of(pki), on.name)
            await reset(on, forbidding=OF_NO_WORKER)
        ca = await self.control.read(FileText(AUTHORITY))
        if ca is None:
            raise Blocked("the control plane is not initialised yet", host=on.name)
        await prove_endpoint(on, self.cluster, ca)
        token = await make_token(self.control, self.host.name)
        config = f"{OPERATIONS}/kubeadm-join.yaml"
        try:
            documents = join_documents(self.cluster, self.host, token, ca_hash(ca))
            await on.write(config, as_yaml(documents).encode(), mode="600")
            words = ("kubeadm", "join", "--config", config)
            output = await on.operate("kubeadm-join", words, seconds=self.cluster.kubernetes.join_seconds)
            if not output.ok:
                raise await self._with_request(await collect_evidence(on, "kubeadm join", output))
        finally:
            await forget_token(self.control, token, on, config)

    async def _unused(self, seen: Evidence, pki: tuple[str, ...], host: str) -> None:
        """Let only what a join leaves be reset: its CA's certificate and kubeconfigs. Raises Refused for more.

        A Node of this name is a sign as well: its kubelet had a certificate once, and pods may have data here.
        """
        more = [name for name in pki if name != "ca.crt"]
        if more or (seen.started_by is not None and seen.pki):
            message = f"{PKI} holds more than a join leaves: {', '.join(more) or 'what an init began'}"
            fix = f"See what it belongs to; what nobody needs is moved away by hand on {host}, then run again."
            raise Refused(message, host=host, code="SHW-325", fix=fix)
        words = ("kubectl", "--kubeconfig", ADMIN, "get", "node", self.host.name, "--ignore-not-found", "-o", "name")
        self.control.forget()
        answer = await self.control.read(Says(words))
        if not answer.ok:
            message = f"whether {self.host.name} is a node already cannot be determined: {tail(answer.stderr, 2)}"
            raise ApiUnavailable(message, host=host)
        if answer.stdout.strip():
            message = f"the cluster has a node {self.host.name}, and its host has lost kubelet.conf and {CLIENT}"
            fix = (
                f"Empty it first: `kubectl drain {self.host.name} --ignore-daemonsets`, `kubectl delete node "
                f"{self.host.name}`, then run again: the host joins anew."
            )
            raise Refused(message, host=host, code="SHW-323", fix=fix)

    async def _with_request(self, error: ShipwayError) -> ShipwayError:
        """Name the certificate request that waits, where the join waited for one; the error is otherwise as it was."""
        columns = "custom-columns=NAME:.metadata.name,USER:.spec.username,CONDITIONS:.status.conditions[*].type"
        words = ("kubectl", "--kubeconfig", ADMIN, "get", "csr", "--no-headers", "-o", columns)
        try:
            self.control.forget()
            listed = await self.control.read(Says(words))
        except ShipwayError:
            return error
        rows = [line.split() for line in listed.stdout.splitlines()] if listed.ok else []
        waiting = [row[0] for row in rows if len(row) > 2 and row[1].startswith(BOOTSTRAPPER) and row[2] == NONE]  # noqa: PLR2004 - name, user, conditions
        if waiting:
            message = f"{error.message}\npending certificate requests of joins: {', '.join(waiting[:5])}"
            fix = (
                f"On {self.control.name}: `sudo kubectl --kubeconfig {ADMIN} get csr` shows them; kube-controller-"
                "manager approves them by itself, so see its log. The next run joins anew."
            )
            error.explain(message, code="SHW-326", fix=fix, retry=True)
        return error

    async def _reachable(self, on: Host) -> None:
        """Ask for the API from the host first: kubeadm itself would try for five minutes before it says so."""
        url = f"https://{self.cluster.endpoint}/livez"
        answer = await on.read(Says(("curl", "-sk", "--max-time", "8", "-o", "/dev/null", "-w", "%{http_code}", url)))
        if not answer.ok:
            message = f"the API at {self.cluster.endpoint} cannot be reached from this host (curl: {answer.status})"
            fix = f"Open the path from {on.name} to {self.cluster.endpoint} (firewall, route), then run again."
            raise ApiUnavailable(message, host=on.name, code="SHW-206", fix=fix)


async def make_token(control: Host, node: str) -> str:
    """Make a token for a host on the control plane; it is in no argument, log or result.

    Raises Transient SHW-210 for what is no token. It lives for `TOKEN_MINUTES` where nobody deletes it.
    """
    words = ("kubeadm", "token", "create", "--kubeconfig", ADMIN, "--ttl", f"{TOKEN_MINUTES}m")
    made = await control.do(Command((*words, "--description", f"{PURPOSE}{node}"), seconds=90))
    token = next((word for word in reversed(made[-1].stdout.split()) if _TOKEN.fullmatch(word)), None)
    if token is None:
        message = "`kubeadm token create` answered something that is no token"
        fix = f"Run it by hand on {control.name}, look at what else it prints, then run again."
        raise Transient(message, host=control.name, code="SHW-210", fix=fix)
    return token


async def forget_token(control: Host, token: str, on: Host, path: str) -> None:
    """Delete a token, and the file on a host that holds it; what cannot be reached expires by itself."""
    identity = token.split(".", maxsplit=1)[0]  # the public half: the API names the token's Secret by it
    delete = Command(("kubeadm", "token", "delete", "--kubeconfig", ADMIN, identity), seconds=90)
    for session, command in ((on, Command(("rm", "-f", path))), (control, delete)):
        with contextlib.suppress(ShipwayError):
            await session.do(command)


@dataclass(frozen=True)
class NoBootstrapCredentials:
    """No bootstrap credentials are left on a node that has its own.

    kubeadm removes them at the end of a join; after one that a restart broke off, the kubelet joined by itself. While
    it still waits for its certificate they are all that it has.
    """

    impact: ClassVar[Impact] = Impact.FILES
    name: str = "no bootstrap credentials are left"

    async def check(self, on: Host) -> Drift | None:
        """See whether they are there beside the kubelet's own certificate."""
        left, own = await on.read(FileState(BOOTSTRAP), CLIENT_FOLDER)
        return Drift(f"{BOOTSTRAP} is there", "no such file") if left and has_client(own) else None

    async def apply(self, on: Host) -> None:
        """Remove them."""
        await on.do(Command(("rm", "-f", "--", BOOTSTRAP)))
