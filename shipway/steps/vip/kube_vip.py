"""The API's address for clients outside by kube-vip: a static pod on each control plane, in a file of ours.

It is written once the host's own API server serves: nothing waits for the address, so neither super-admin.conf nor an
order of init is needed (kube-vip#684). One of them has a Lease, and with it the address; it asks its own API server by
the host's own address (dell/omnia#4992), so that one whose API server is lost loses both. Names of variables, defaults
and capabilities are those of kube-vip v1.2.3 (pkg/kubevip/config_envvar.go, config_generator.go, cmd/kube-vip.go).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.cluster.hosts import HostSpec, node_ip
from shipway.cluster.model import Cluster
from shipway.edits.files import FileIs
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.host.session import Command, Host
from shipway.kubeadm.config import as_yaml
from shipway.kubeadm.writes import ETC, MANIFESTS
from shipway.step import Check, Drift, Impact
from shipway.steps.vip.network import VipInNetwork
from shipway.survey.first_look import ADDRESSES

POD = "shipway-api-vip"  # its container and its Lease as well; a kube-vip of the site's has other names
MANIFEST, ADMIN = f"{MANIFESTS}/{POD}.yaml", f"{ETC}/admin.conf"
FRESH = f"{MANIFESTS}/.{POD}.new"  # the kubelet passes over names that begin with a dot
FOLDER = "/var/lib/shipway/kube-vip"
KEPT = f"{FOLDER}/pod.yaml"  # what says which address is ours, once the manifest is gone
LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS = 5, 3, 1
# Who took the address over tells the network only at the next beat (pkg/arp/arp.go); the default is 3 s, the least 500.
ARP_MILLISECONDS = 1000
# Which node has the Lease; empty where none has, as after one that ended in order.
LEASE = Says(
    (
        *("kubectl", f"--kubeconfig={ADMIN}", "--request-timeout=8s", "-n", "kube-system", "get", "lease", POD),
        *("--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}"),
    )
)
GONE_SECONDS = 90  # the kubelet reads its folder every 20 s, and gives a pod 30 s to end
_DIGEST = "shipway.dev/admin-conf"  # the annotation that says with which admin.conf it was started
_MARK = "# Kept by Shipway: kube-vip holds "
# $1 the manifest, $2 the container, $3 the address, $4 a limit in seconds, $5 our folder. A pod that was killed leaves
# the address there.
_GONE = (
    'rm -f -- "$1"; alive() { '
    'own=$(ctr -n k8s.io containers ls -q "labels.\\"io.kubernetes.container.name\\"==\\"$2\\"") || '
    "return 1; running=$(ctr -n k8s.io tasks ls | awk '$3 == \"RUNNING\" { print $1 }'); "
    '[ -n "$own" ] && printf "%s\\n" "$running" | grep -qxF -- "$own"; }; began=$SECONDS; while alive; do '
    'if [ $((SECONDS - began)) -ge "$4" ]; then echo "$2 still runs $4 s after its manifest is gone"; exit 1; fi; '
    'sleep 0.5; done; if [ -n "$3" ]; then ip -o -4 addr show to "$3/32" | while read -r _ on _; do '
    'ip addr del "$3/32" dev "$on" || exit 1; done; fi && rm -rf -- "$5"'
)


def pod(cluster: Cluster, host: HostSpec, interface: str, admin: str) -> dict[str, Any]:
    """Return the static pod of a control plane. `admin` is the digest of admin.conf: a new one has the pod start anew.

    Nothing but the control plane's address is served by it, and its metrics to this host alone.
    """
    values = {
        "vip_arp": "true",
        "cp_enable": "true",
        "cp_namespace": "kube-system",
        "address": cluster.api_vip,
        "port": str(cluster.kubernetes.api_port),
        "vip_interface": interface,
        "kubernetes_addr": f"{node_ip(host)}:{cluster.kubernetes.api_port}",
        "vip_leaderelection": "true",
        "vip_leasename": POD,
        "vip_leaseduration": str(LEASE_SECONDS),
        "vip_renewdeadline": str(RENEW_SECONDS),
        "vip_retryperiod": str(RETRY_SECONDS),
        "vip_arpRate": str(ARP_MILLISECONDS),
        "prometheus_server": "127.0.0.1:2112",
    }
    name = {"name": "vip_nodename", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    container = {
        "name": POD,
        "image": cluster.kube_vip_image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["manager"],
        "env": [*({"name": key, "value": value} for key, value in values.items()), name],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}},
        "volumeMounts": [{"name": "kubeconfig", "mountPath": ADMIN, "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "namespace": "kube-system", "annotations": {_DIGEST: admin}},
        "spec": {
            "hostNetwork": True,
            "priorityClassName": "system-node-critical",
            "containers": [container],
            "volumes": [{"name": "kubeconfig", "hostPath": {"path": ADMIN, "type": "File"}}],
        },
    }


def manifest(cluster: Cluster, host: HostSpec, interface: str, admin: str) -> str:
    """Return the pod's file."""
    return f"{_MARK}{cluster.api_vip}\n{as_yaml([pod(cluster, host, interface, admin)])}"


def address_in(text: str | None) -> str:
    """Return the address that a file of ours tells kube-vip of; empty for any other."""
    first = (text or "").partition("\n")[0]
    return first.removeprefix(_MARK) if first.startswith(_MARK) else ""


@dataclass(frozen=True)
class VipPod:
    """The kubelet has the manifest of kube-vip: it starts the pod, and starts it anew where its file changed."""

    impact: ClassVar[Impact] = Impact.START
    path: ClassVar[str] = MANIFEST
    cluster: Cluster = field(hash=False)
    host: HostSpec = field(hash=False)
    name: str = "kube-vip is a static pod that is told of the API's address"

    async def _file(self, on: Host) -> FileIs:
        addresses, admin = await on.read(ADDRESSES, FileState(ADMIN))
        where = VipInNetwork(self.cluster, self.host).interfaces(addresses.stdout, on.name)
        text = manifest(self.cluster, self.host, where.outside, admin.sha256 if admin else "")
        return FileIs(self.name, MANIFEST, text, mode="600")

    async def check(self, on: Host) -> Drift | None:
        """Compare the file with what it is to be on this host."""
        (made, _) = await asyncio.gather(self._file(on), on.read(FileState(MANIFEST)))
        return await made.check(on)

    async def apply(self, on: Host) -> None:
        """Put the file in place."""
        await _put(on, (await self._file(on)).content)


async def _put(on: Host, text: str) -> None:
    """Put the manifest in place in one rename: the kubelet reads whatever lies in its folder."""
    await on.write(KEPT, text.encode(), mode="600")
    await on.do(
        Command(("install", "-m", "600", "-T", "--", KEPT, FRESH)), Command(("mv", "-fT", "--", FRESH, MANIFEST))
    )


@dataclass(frozen=True)
class VipPodReadAdmin:
    """A kube-vip of ours was started since admin.conf is as it is: it reads it then and never again.

    Its manifest stays what it is but for the digest of that file.
    """

    impact: ClassVar[Impact] = Impact.START
    name: str = "kube-vip, where it holds the API's address, has read admin.conf as it is"

    async def check(self, on: Host) -> Drift | None:
        """Compare the digest in the manifest with that of the file; where either is not there, nothing is wanted."""
        text, admin = await on.read(FileText(MANIFEST), FileState(ADMIN))
        if admin is None or not address_in(text) or admin.sha256 in (text or ""):
            return None
        return Drift("was started with another admin.conf", "started anew")

    async def apply(self, on: Host) -> None:
        """Put the manifest in place with the digest of the file."""
        text, admin = await on.read(FileText(MANIFEST), FileState(ADMIN))
        if text is not None and admin is not None:
            await _put(on, re.sub(rf"({re.escape(_DIGEST)}: )\S+", rf"\g<1>{admin.sha256}", text))


@dataclass(frozen=True)
class KubeVipGone:
    """No kube-vip of ours is there any more, and no address that it held.

    Its Lease stays in the cluster: to delete it would let another one take the address from who has it.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    name: str = "nothing is left of kube-vip"

    async def check(self, on: Host) -> Drift | None:
        """Look for its manifest, and for what says which address was its."""
        manifest, kept = await on.read(FileState(MANIFEST), FileState(KEPT))
        return Drift(f"{MANIFEST if manifest else KEPT} is there", "no such file") if manifest or kept else None

    async def apply(self, on: Host) -> None:
        """Take the manifest away, wait until the pod has ended, and take off the address where it was left there."""
        kept, manifest = await on.read(FileText(KEPT), FileText(MANIFEST))
        words = (MANIFEST, POD, address_in(kept) or address_in(manifest), str(GONE_SECONDS), FOLDER)
        await on.succeed("kube-vip-gone", ("bash", "-c", _GONE, "bash", *words), seconds=GONE_SECONDS + 30)


def steps(cluster: Cluster, host: HostSpec) -> list[Check[Host]]:
    """Return the steps of a control plane."""
    return [VipPod(cluster, host)]
