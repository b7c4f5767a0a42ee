"""A further control plane joins: etcd's members first, one at a time, and what a broken join left is taken back.

The keys that all control planes share go from one to the other through this run's own SSH sessions, not by
`kubeadm init phase upload-certs`: no Secret holds them, in etcd or in its backups, and no key for it has to be passed
on or runs out (kubernetes.io, "Creating Highly Available Clusters with kubeadm", "Manual certificate distribution").
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.edits.files import FileEdited
from shipway.edits.lines import hosts_file, read_block
from shipway.errors import ApiUnavailable, Blocked, Refused, ShipwayError, Transient
from shipway.etcd.quorum import why_not_leave
from shipway.facts.commands import Says
from shipway.facts.files import FileText, Listing
from shipway.host.session import OPERATIONS, Command, Host
from shipway.known_failures.catalogue import failure
from shipway.kubeadm.config import as_yaml, ca_hash, join_documents
from shipway.meanwhile import meanwhile
from shipway.os.family import Family
from shipway.ownership.evidence import (
    AUTHORITY,
    CLIENT,
    JOINING,
    KUBELET_CONF,
    MANIFESTS,
    PKI,
    POD_LOGS,
    Evidence,
    authorities,
    evidence,
)
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.endpoint import prove_endpoint
from shipway.steps.kubernetes.etcd_members import (
    PEER,
    Member,
    find_member,
    members_of,
    remove_member,
    settled_members,
)
from shipway.steps.kubernetes.evidence import collect_evidence
from shipway.steps.kubernetes.join.worker import forget_token, make_token
from shipway.steps.kubernetes.leftovers import clean
from shipway.steps.kubernetes.reset import CNI, FORBIDDEN, reset
from shipway.steps.system.names import HOSTS

OPERATION = "kubeadm-join-control-plane"
SILENT = 28  # curl's exit status where nothing answered in time
# What kubeadm must find on a further control plane before it joins (see the module); public halves are read by others.
SHARED = ("ca", "front-proxy-ca", "etcd/ca")
SIGNING = ("sa.key", "sa.pub")
# Like `shipway.steps.kubernetes.reset`, for a host on which our own join of a control plane broke off: static pods and
# those of the cluster's own parts may run there, and end with it; a pod of anybody else's keeps it as it is. $0 are the
# namespaces of the former, a blank around each. No variable is in braces: systemd would put one of its own there.
UNUSED = (
    f'[ -e "{JOINING}" ] || {{ echo "not reset: no join of ours broke off here" >&2; exit {FORBIDDEN}; }}\n'
    'for pod in /var/log/pods/*_*_*; do name=$(basename "$pod"); space=$(printf %s "$name" | cut -d_ -f1); '
    'case $0 in *" $space "*) ;; '
    f'*) [ ! -e "$pod" ] || {{ echo "not reset: $name runs here" >&2; exit {FORBIDDEN}; }} ;; esac; done\n'
    'exec "$@"'
)

# A kubelet that has just joined refuses a static pod for good whose requests its node does not show yet: etcd's pod
# asks for ephemeral storage (seen with 1.20.2 on a busy host: "no set of running pods found to reclaim resources", and
# kubeadm waited ten minutes for nothing). Started anew, it takes the pod. $0 is the manifest, $1 its least age in
# seconds, $2 where the kubelet makes a folder for each pod that it takes; an older one is of a join from before.
TAKE_ETCD = (
    'now=$(date +%s); made=$(stat -c %Y "$0" 2>/dev/null) && [ $((now - made)) -ge "$1" ] || exit 0\n'
    'for pod in "$2"/kube-system_etcd-*; do [ ! -e "$pod" ] || [ "$pod" -ot "$0" ] || exit 0; done\n'
    "exec systemctl restart kubelet"
)
REFUSED_SECONDS = 20  # a kubelet starts a pod within seconds, and tells its node's storage within ten


async def keep_etcd_taken(on: Host) -> None:
    """Start the kubelet anew where it does not take etcd's static pod, ever more rarely, until this is cancelled.

    Only while a join of ours is at work: the host has no pods but the control plane's own, and those go on.
    """
    pause = float(REFUSED_SECONDS)
    words = ("sh", "-c", TAKE_ETCD, f"{MANIFESTS}/etcd.yaml", str(REFUSED_SECONDS), POD_LOGS.path)
    while True:
        await asyncio.sleep(pause)
        with contextlib.suppress(ShipwayError):  # what the join itself meets is what counts
            await on.do(Command(words, seconds=120))
        pause *= 1.5


def port_answer(address: str, port: int) -> Says:
    """Return the fact of how a port of another host answers a connection, by curl's exit status."""
    url = f"https://{address}:{port}/"
    return Says(("curl", "-sSk", "--noproxy", "*", "--connect-timeout", "5", "--max-time", "6", "-o", "/dev/null", url))


@dataclass(frozen=True)
class ControlPlaneJoined:
    """The host runs a further control plane: a voting member of the cluster's etcd, and an API server that is ready."""

    traps: ClassVar[tuple[int, ...]] = (37, 40)
    impact: ClassVar[Impact] = Impact.WORKLOADS
    cluster: Cluster = field(hash=False)
    host: HostSpec = field(hash=False)
    family: Family = field(hash=False)
    lead: Host = field(hash=False)
    spaces: tuple[str, ...] = (
        "kube-system",
    )  # whose pods may run where a join broke off: those of the cluster's parts
    peers: tuple[Host, ...] = field(default=(), hash=False)
    name: str = "the control plane has joined"

    @property
    def _address(self) -> str:
        return node_ip(self.host)

    async def _authorities(self) -> frozenset[str]:
        """Return the authorities of the cluster that the host joins."""
        ca = await self.lead.read(FileText(AUTHORITY))
        return authorities(ca or "")

    def _ready(self) -> Says:
        url = f"https://{self._address}:{self.cluster.kubernetes.api_port}/readyz"
        return Says(("curl", "-sk", "--noproxy", "*", "--max-time", "8", url))

    async def check(self, on: Host) -> Drift | None:
        """Tell how far the host has come; what is of another cluster, or has joined as a worker, is refused."""
        seen, installed, ready = await asyncio.gather(
            evidence(on), on.read(self.family.package("kubeadm")), on.read(self._ready())
        )
        if installed is None:
            raise Blocked("kubeadm is not installed yet", host=on.name)
        if seen.joining:
            return Drift("a join of ours is under way or broke off", "joined")
        if seen.bare:
            return Drift("not joined", "joined")
        await self._ours(seen, on.name)
        if ready.stdout.strip() != "ok":
            message = f"its API server is not ready on {self._address}"
            raise ApiUnavailable(message, host=on.name, code="SHW-768", fix=_SEE.format(host=on.name))
        return None

    async def _ours(self, seen: Evidence, host: str) -> None:
        """Let a whole control plane of this cluster pass. Raises Refused for all else."""
        if seen.standing != "control plane":
            message = f"the host is a worker node of {seen.whose}, and the file calls it a control plane"
            fix = f"Write `roles: [worker]` at it, or take it out first: `shipway remove FILE {host}`."
            raise Refused(message, host=host, code="SHW-317", fix=fix)
        ours = await self._authorities()
        if ours and seen.authorities and not seen.authorities & ours:
            message = f"the host runs a control plane of another cluster (its CA differs): of {seen.whose}"
            fix = f"Name {host} in the file of its own cluster, and not in this one: it is never taken out unasked."
            raise Refused(message, host=host, code="SHW-309", fix=fix)
        if not seen.whole:
            message = (
                "it runs part of a control plane, and no join of ours left that: etcd's data or admin.conf is gone"
            )
            fix = f"Put them back from a backup of {host}; a control plane is never made anew beside what is there."
            raise Refused(message, host=host, code="SHW-765", fix=fix)

    async def apply(self, on: Host) -> None:
        """Take back what a broken join left, bring the shared keys, join, and see etcd and the API server ready."""
        await on.settled(OPERATION, "kubeadm-reset", seconds=self.cluster.kubernetes.init_seconds)
        on.forget()
        self.lead.forget()
        seen = await evidence(on)
        if not seen.joining and not seen.bare:
            raise Transient("the host has another state than a moment ago, so look again", host=on.name, code="SHW-205")
        await self._members_whole(seen, on)
        if seen.joining or seen.standing == "begun":
            await self._take_back(seen, on)
        await self._peers_reach(on)
        await self._join(on)
        await self._serves(on)

    async def _members_whole(self, seen: Evidence, on: Host) -> None:
        """See that every member of etcd is healthy, but for those of bare hosts: this one's and its peers' go.

        A member goes that a join left which broke off (a learner, or one that never started), and one whose host is
        bare by now: this host, or another control plane of the file that shows nothing of any cluster at this moment.
        Raises ApiUnavailable SHW-766 for any other that is not healthy: with it a further member may cost the quorum.
        """
        members = await settled_members(self.lead, besides=self._address)
        own = find_member(members, self._address)
        ill = [one for one in members if one is not own and not one.whole]
        bare = [one for one in ill if await self._is_of_bare_peer(one)]
        if rest := [one.said for one in ill if one not in bare]:
            message = f"etcd has members that are not healthy: {', '.join(rest)}; no control plane joins beside them"
            raise ApiUnavailable(message, host=on.name, code="SHW-766", fix=_MEMBERS.format(lead=self.lead.name))
        if own and own.healthy and not seen.joining:
            message = f"etcd has the healthy member {own.said} at {self._address}, and the host there shows none of it"
            fix = f"Two machines have that address, or the file names the wrong one: correct it at {self.host.name}."
            raise Refused(message, host=on.name, code="SHW-765", fix=fix)
        for one in [*bare, *([own] if own else [])]:
            await self._take_out(one, members, on)
            members.remove(one)

    async def _is_of_bare_peer(self, member: Member) -> bool:
        """Tell whether a member that does not answer is of a control plane of the file whose host is bare now.

        A host that cannot be looked at may be whole: its member stays.
        """
        for peer in self.peers:
            if member.healthy or find_member([member], node_ip(self.cluster.host(peer.name))) is None:
                continue
            peer.forget()
            with contextlib.suppress(ShipwayError):
                return (await evidence(peer)).standing == "nothing"
        return False

    async def _take_out(self, member: Member, members: Sequence[Member], on: Host) -> None:
        """Take one member out of etcd; raises Refused SHW-767 where the quorum forbids it."""
        if not member.learner and member.name:
            voters = [one for one in members if not one.learner]
            healthy = sum(one.healthy for one in voters)
            why = why_not_leave(len(voters), healthy, goes_healthy=member.healthy, allow=True)
            if why:
                message = f"etcd has the member {member.said}, whose host has none of its data; it may not leave: {why}"
                raise Refused(message, host=on.name, code="SHW-767", fix=_MEMBERS.format(lead=self.lead.name))
        await remove_member(self.lead, member)
        self.lead.forget()

    async def _take_back(self, seen: Evidence, on: Host) -> None:
        """Reset what a join of ours left on the host; where it left no mark, only what cannot be in use is there."""
        if seen.authorities:
            ours = await self._authorities()
            if ours and not seen.authorities & ours:
                message = f"what a join left is of another cluster: of {seen.whose}"
                fix = f"See `sudo ls -l {PKI}` on {on.name}; what nobody needs is moved away by hand, then run again."
                raise Refused(message, host=on.name, code="SHW-309", fix=fix)
        if not seen.joining and seen.started_by == self.cluster.name:
            await reset(on)  # an init of ours broke off here before anything ran, and the cluster was made elsewhere
            return
        if not seen.joining:
            message = f"{PKI} holds certificates or keys, and no join of ours left them"
            fix = f"See what they belong to; what nobody needs is moved away by hand on {on.name}, then run again."
            raise Refused(message, host=on.name, code="SHW-325", fix=fix)
        strangers = [pod for pod in seen.pods if pod.partition("/")[0] not in self.spaces]
        if strangers:
            message = f"a join broke off here, and pods run beside it: {', '.join(strangers[:5])}"
            fix = f"Drain {self.host.name} (`kubectl drain`), then run again: the host is reset, and joins anew."
            raise Refused(message, host=on.name, code="SHW-324", fix=fix)
        output = await on.operate(
            "kubeadm-reset", ("sh", "-c", UNUSED, f" {' '.join(self.spaces)} ", "kubeadm", "reset", "-f"), seconds=300
        )
        if output.status == FORBIDDEN:
            said = (output.stdout or output.stderr).strip().splitlines()
            message = said[0] if said else "not reset: the host is in use"
            raise Refused(message, host=on.name, code="SHW-324", fix=_SEE.format(host=on.name))
        if not output.ok:
            raise failure("kubeadm reset", output, host=on.name)
        files = [f"{CNI}/{name}" for name in await on.read(Listing(CNI)) if not name.startswith(".")]
        await on.do(Command(("rm", "-rf", "--", "/var/lib/etcd/member", CLIENT, KUBELET_CONF, *files)))
        await clean(on)

    async def _peers_reach(self, on: Host) -> None:
        """See that the members of etcd will reach each other, before one is added: a cluster of two needs both.

        What nobody listens on yet answers with a refusal; a firewall that drops packets says nothing.
        """
        here, there = await asyncio.gather(
            self.lead.read(port_answer(self._address, PEER)),
            on.read(port_answer(node_ip(self.cluster.host(self.lead.name)), PEER)),
        )
        for who, whom, answer in ((self.lead.name, on.name, here), (on.name, self.lead.name, there)):
            if answer.status == SILENT or "route" in answer.stderr:
                message = f"{who} does not reach port {PEER} of {whom}: etcd's members could not talk to each other"
                fix = f"Open TCP ports 2379 and {PEER} between the control planes (firewall, route), then run again."
                raise ApiUnavailable(message, host=on.name, code="SHW-769", fix=fix)

    async def _join(self, on: Host) -> None:
        """Bring the keys, make a token, join, delete the token; until then the API's name leads to the lead."""
        ca = await self.lead.read(FileText(AUTHORITY))
        if ca is None:
            raise Blocked("the control plane is not initialised yet", host=on.name)
        await prove_endpoint(on, self.cluster, ca)
        shared = await self._read_shared()
        await on.write(JOINING, f"{self.cluster.name}\n".encode(), mode="600")
        await asyncio.gather(
            *(
                on.write(f"{PKI}/{name}", text.encode(), mode="600" if name.endswith(".key") else "644")
                for name, text in shared.items()
            )
        )
        await self._point_name(on, node_ip(self.cluster.host(self.lead.name)))
        token = await make_token(self.lead, self.host.name)
        config = f"{OPERATIONS}/{OPERATION}.yaml"
        try:
            documents = join_documents(self.cluster, self.host, token, ca_hash(ca), control_plane=True)
            await on.write(config, as_yaml(documents).encode(), mode="600")
            words = ("kubeadm", "join", "--config", config)
            limit = self.cluster.kubernetes.init_seconds  # it pulls the same images as an init
            async with meanwhile(keep_etcd_taken(on)):
                output = await on.operate(OPERATION, words, seconds=limit, marker=JOINING)
            if not output.ok:
                raise await collect_evidence(on, "kubeadm join --control-plane", output)
        finally:
            await forget_token(self.lead, token, on, config)
        await self._point_name(on, self._address)

    async def _read_shared(self) -> Mapping[str, str]:
        """Return what all control planes share, by its path below PKI; raises Blocked where the lead has not all."""
        names = [f"{name}.{part}" for name in SHARED for part in ("crt", "key")] + list(SIGNING)
        texts = await self.lead.read_all([FileText(f"{PKI}/{name}") for name in names])
        missing = [name for name, text in zip(names, texts, strict=True) if not text]
        if missing:
            fix = f"Put them back on {self.lead.name}: without the CA's keys no control plane can be added by kubeadm."
            raise Blocked(f"{PKI} lacks {', '.join(missing)}", host=self.lead.name, code="SHW-770", fix=fix)
        self.lead.forget()  # keys are kept in memory no longer than this takes
        return {name: text or "" for name, text in zip(names, texts, strict=True)}

    async def _point_name(self, on: Host, address: str) -> None:
        """Let the API's name lead to an address on this host, where the name is ours."""
        if not self.cluster.api_name:
            return
        on.forget()
        text = await on.read(FileText(HOSTS))
        known = read_block(text or "")
        edit = partial(hosts_file, entries={**known, self.cluster.api_name: address})
        await FileEdited("", HOSTS, edit, address).apply(on)

    async def _serves(self, on: Host) -> None:
        """See that etcd took the host in as a voter, and that its API server is ready. Raises ApiUnavailable."""
        for pause in (*PAUSES, 0.0):
            on.forget()
            self.lead.forget()
            members, ready = await asyncio.gather(members_of(self.lead), on.read(self._ready()))
            own = find_member(members, self._address)
            if own is not None and own.whole and ready.stdout.strip() == "ok":
                return
            if pause:
                await asyncio.sleep(pause)
        state = own.said if own else "no member of etcd"
        message = f"it has joined, and yet: etcd: {state}; API server: {ready.stdout.strip()[:80] or 'no answer'}"
        raise ApiUnavailable(message, host=on.name, code="SHW-768", fix=_SEE.format(host=on.name))


PAUSES = (2.0,) * 45  # seconds; an API server is ready within one minute of its start, or something is wrong
_SEE = (
    "On {host}: `sudo crictl ps -a`, `sudo journalctl -u kubelet -n 50` and the logs below /var/log/pods/kube-system_* "
    "tell why; then run again."
)
_MEMBERS = (
    "On {lead}: see `etcdctl member list` and `etcdctl endpoint health --cluster`; bring that member's host back, or "
    "take the member out where its host is gone for good (`etcdctl member remove ID`), then run again."
)
