"""Static pods that are started anew: the kubelet ends one whose manifest is moved away, and starts it when it is back.

To delete its mirror pod in the API ends nothing. A manifest that is away lies in AWAY; whoever finds it there, after a
restart of the host in that moment, puts it back before anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from shipway.errors import Blocked, DeadlineExceeded, Permanent, ShipwayError
from shipway.facts.certificates import CertificateAt, CertificateIn, CertificateInfo
from shipway.facts.files import FileText, Listing
from shipway.facts.static_pods import PARTS, StaticPodsRunning
from shipway.foreign.addresses import in_url
from shipway.foreign.yaml import read_yaml
from shipway.host.session import OPERATIONS as RUN
from shipway.host.session import Command, Host
from shipway.known_failures.catalogue import failure
from shipway.kubeadm.certificates import APISERVER, ETCD, doors_of, leafs_of
from shipway.kubeadm.writes import ETC, MANIFESTS
from shipway.redact import tail
from shipway.script import Output
from shipway.step import Drift, Impact

AWAY = f"{ETC}/manifests-moved-by-shipway"
SCRIPT = f"{RUN}/restart-static-pod.sh"  # a file, for systemd cannot read a unit with several lines of a command again
OPERATION = "restart-{}"  # of each part, as `Host.operate` calls it
OPERATIONS = tuple(OPERATION.format(part) for part in PARTS)
GONE_SECONDS = 180  # the kubelet reads its folder every 20 s, and an API server is given 60 s to end what it serves
READY_SECONDS = 240  # kubeadm's own limit for a part of the control plane (controlPlaneComponentHealthCheck, 4 m)
# As long as a container that has ended is there, the kubelet waits before it starts the next one of the same pod, the
# first time not, then 10 s, then twice as long each time (MaxContainerBackOff; forgotten after twice this). A manifest
# that comes back makes the same pod. It removes what has ended once a minute; crictl, where it is, does so at once.
BACK_OFF_SECONDS = 300
MOST_SECONDS = GONE_SECONDS + READY_SECONDS + BACK_OFF_SECONDS + 60
CRI = "crictl --runtime-endpoint unix:///run/containerd/containerd.sock"
STAYS, UNREADY = 41, 42  # how the script ends where the old container does not go, or the new one is not ready
# Functions of the scripts that let a static pod end: whether $pod runs, and what removes what has ended of it, or adds
# the kubelet's wait to $ready, how long the next one is waited for.
POD_ENDS = f"""
alive() {{
  running=$(ctr -n k8s.io tasks ls | awk '$3 == "RUNNING" {{ print $1 }}') || return 0
  label="labels.\\"io.kubernetes.pod.name\\"==\\"$pod\\",labels.\\"io.kubernetes.pod.namespace\\"==\\"kube-system\\""
  own=$(ctr -n k8s.io containers ls -q "$label") || return 0
  [ -n "$own" ] && printf '%s\\n' "$running" | grep -qxF -- "$own"
}}
rested() {{
  command -v crictl >/dev/null || {{ ready=$((ready + {BACK_OFF_SECONDS})); return; }}
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    own=$(ctr -n k8s.io containers ls -q "$label,labels.\\"io.cri-containerd.kind\\"==\\"container\\"") || break
    [ -n "$own" ] || break
    {CRI} rm $own >/dev/null 2>&1 || sleep 0.5
  done
  return 0
}}
"""
# $1 the part, $2 its pod, $3 manifests, $4 where they are kept meanwhile, $5 and $6 limits in seconds, then the command
# that ends with 0 once it is ready. The manifest goes back however this ends, but for a SIGKILL.
RESTART = f"""
set -u
part=$1 pod=$2 here=$3/$1.yaml away=$4/$1.yaml gone=$5 ready=$6; folder=$4; shift 6
{POD_ENDS}back() {{ [ ! -e "$away" ] || [ -e "$here" ] || mv -T -- "$away" "$here"; }}
trap back EXIT
trap 'exit 143' TERM INT HUP
install -d -m 700 -- "$folder"
if [ -e "$here" ]; then mv -fT -- "$here" "$away"; fi
began=$SECONDS
while alive; do
  if [ $((SECONDS - began)) -ge "$gone" ]; then
    echo "$pod still runs $gone s after its manifest was moved away"; exit {STAYS}
  fi
  sleep 0.5
done
echo "$pod has ended after $((SECONDS - began)) s"
rested
back
rmdir -- "$folder" 2>/dev/null
began=$SECONDS
until said=$("$@" 2>&1); do
  if [ $((SECONDS - began)) -ge "$ready" ]; then
    printf '%s\\n' "$said" | tail -n 3; echo "$pod is not ready $ready s after its manifest was back"; exit {UNREADY}
  fi
  sleep 0.5
done
echo "$pod is ready after $((SECONDS - began)) s"
"""


@dataclass(frozen=True)
class ManifestsBack:
    """No manifest of the control plane is left where a restart of its static pod, broken off, has put it.

    One that is in its place as well was written anew since: then what is left is only an old copy.
    """

    impact: ClassVar[Impact] = Impact.START
    name: str = "the control plane's manifests are in their place"

    async def check(self, on: Host) -> Drift | None:
        """List both folders."""
        left = await _left(on)
        return Drift(f"{', '.join(left)} moved to {AWAY} by a restart that broke off", MANIFESTS) if left else None

    async def apply(self, on: Host) -> None:
        """Put them back, in the order of a start; a restart that is still at work does so itself, and is waited for.

        Raises Transient (SHW-205) after such a one, so that the caller looks again.
        """
        await on.settled(*OPERATIONS, seconds=MOST_SECONDS)
        on.forget()
        for name in await _left(on):
            await on.do(Command(("mv", "-nT", "--", f"{AWAY}/{name}", f"{MANIFESTS}/{name}")))


async def _left(on: Host) -> list[str]:
    away, here = await on.read(Listing(AWAY), Listing(MANIFESTS))
    return [name for part in PARTS if (name := f"{part}.yaml") in away and name not in here]


@dataclass(frozen=True)
class StaticPodLoaded:
    """A static pod was started after its certificates were written, and shows those that lie in its files.

    A file says nothing of what is served: what a port shows decides (`address` is the host's own, as nodes know it).
    `also` are further certificates that it reads when it starts.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    part: str
    node: str
    address: str
    api_port: int
    also: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """What the step is about."""
        return f"StaticPodLoaded {self.part}"

    @property
    def name(self) -> str:
        """The fact."""
        return f"{self.part} uses its current certificates"

    async def check(self, on: Host) -> Drift | None:
        """Compare serial numbers, and the age of the process with that of the files.

        Raises Blocked where its manifest or a certificate is not there; an etcd that is elsewhere is as wanted.
        """
        leafs, doors = leafs_of(self.part), doors_of(self.part, self.api_port)
        (here, running), files, shown, more = await asyncio.gather(
            on.read(Listing(MANIFESTS), StaticPodsRunning()),
            on.read_all([CertificateIn(leaf.path) for leaf in leafs]),
            on.read_all([CertificateAt(self.address, door.port) for door in doors]),
            on.read_all([CertificateIn(path) for path in self.also]),
        )
        own = {leaf.name: info for leaf, info in zip(leafs, files, strict=True) if info is not None}
        if f"{self.part}.yaml" not in here:
            if self.part == ETCD and not own:
                return None
            raise Blocked(
                f"no {MANIFESTS}/{self.part}.yaml", host=on.name, fix="Run a bootstrap: it says what is lost."
            )
        if self.part not in running.since:
            return Drift("does not run", "runs")
        wrong = [
            line
            for door, info in zip(doors, shown, strict=True)
            if door.leaf in own and (line := differs(door.port, info, own[door.leaf]))
        ]
        # Equal seconds count as after: kubeadm writes both at once. A file dated into the future says nothing.
        since = running.since[self.part] + 1
        read = [*own.items(), *((path, info) for path, info in zip(self.also, more, strict=True) if info)]
        late = [name for name, info in read if since < info.changed <= running.now]
        if late:
            wrong.append(f"started before {', '.join(late)} changed")
        return Drift("; ".join(wrong), "started after, and the files' serial numbers served") if wrong else None

    async def apply(self, on: Host) -> None:
        """Move the manifest away, wait until the pod has ended, move it back, wait until it is ready.

        Raises DeadlineExceeded SHW-744 where the old pod does not end, Permanent SHW-745 where the new one does not
        come up.
        """
        manifest = await on.read(FileText(f"{MANIFESTS}/{self.part}.yaml"))
        if manifest is None:
            raise Blocked(f"no {MANIFESTS}/{self.part}.yaml", host=on.name)
        limits = (str(GONE_SECONDS), str(READY_SECONDS))
        pod = f"{self.part}-{self.node}"
        await on.write(SCRIPT, RESTART.encode(), mode="700")
        ready = ready_words(self.part, self.address, self.api_port, manifest)
        words = ("bash", SCRIPT, self.part, pod, MANIFESTS, AWAY, *limits, *ready)
        output = await on.operate(OPERATION.format(self.part), words, seconds=MOST_SECONDS)
        if not output.ok:
            raise _broken(self.part, output, on.name)


def ready_words(part: str, address: str, api_port: int, manifest: str) -> tuple[str, ...]:
    """Return the command that ends with 0 once a static pod is ready: what its manifest's own probe asks.

    The API server is asked for its readiness by the administrator's right, which needs a new admin.conf as well.
    """
    if part == APISERVER:
        kubectl = ("kubectl", "--kubeconfig", f"{ETC}/admin.conf", "--server", f"https://{in_url(address)}:{api_port}")
        return (*kubectl, "--request-timeout=8s", "get", "--raw", "/readyz")
    curl = ("curl", "-skf", "--noproxy", "*", "--max-time", "8", "-o", "/dev/null", "-S")
    return (*curl, probe(manifest, part))


def differs(port: int, shown: CertificateInfo | None, own: CertificateInfo) -> str:
    """Return what a port shows, where that is not what lies in its file; "" where it is the same."""
    if shown is None:
        return f"nothing answers on {port}"
    if shown.serial == own.serial:
        return ""
    return f"{port} serves serial {short(shown.serial)}, the file has {short(own.serial)}: renewed, not loaded"


def short(serial: str) -> str:
    """Return the last half of a serial number of 64 bits and more: enough to tell two apart."""
    return serial if len(serial) <= 8 else f"…{serial[-8:]}"  # noqa: PLR2004 - digits that people compare


_PROBES = {
    "etcd": "http://127.0.0.1:2381/health",
    "kube-controller-manager": "https://127.0.0.1:10257/healthz",
    "kube-scheduler": "https://127.0.0.1:10259/healthz",
}


def probe(manifest: str, part: str) -> str:
    """Return the address that a static pod's liveness probe asks; kubeadm's usual one where the manifest has none."""
    try:
        (container,) = read_yaml(manifest)["spec"]["containers"]
        asked = container["livenessProbe"]["httpGet"]
        port = _port(asked["port"], container.get("ports") or ())
        host = in_url(str(asked.get("host") or "127.0.0.1"))
        return f"{str(asked.get('scheme') or 'HTTP').lower()}://{host}:{port}{asked['path']}"
    except (ValueError, LookupError, TypeError, AttributeError):
        return _PROBES[part]


def _port(asked: Any, ports: Sequence[Any]) -> int:
    """Return a port that a probe names or numbers: kubeadm gives it a name since 1.34. Raises LookupError for none."""
    if isinstance(asked, int):
        return asked
    return next((int(port["containerPort"]) for port in ports if port.get("name") == asked), 0) or int(asked)


def _broken(part: str, output: Output, host: str) -> ShipwayError:
    """Return the error of a restart that did not end well; the manifest is in its place again."""
    said = tail(output.stdout, 4)
    if output.status == STAYS:
        fix = f"See `ctr -n k8s.io tasks ls` and `journalctl -u kubelet -n 50` on {host}, then run again."
        return DeadlineExceeded(f"the old {part} does not end: {said}", host=host, code="SHW-744", fix=fix)
    if output.status == UNREADY:
        fix = (
            f"On {host}: `tail -n 20 /var/log/pods/kube-system_{part}-*/*/*.log` says why. The certificates from "
            f"before lie in {ETC}/before-renewal-*. What comes after it was not touched: mend it, then run again."
        )
        return Permanent(f"{part} does not come up again: {said}", host=host, code="SHW-745", fix=fix)
    return failure(f"restart of {part}", output, host=host)
