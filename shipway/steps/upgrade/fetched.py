"""The control plane's images of a new version, pulled before anything is changed; kubeadm says which they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from shipway.errors import Blocked
from shipway.facts.commands import Says
from shipway.host.session import OPERATIONS, Host
from shipway.kube.nodes import few
from shipway.kubeadm.config import CRI_SOCKET
from shipway.step import Drift, Impact

BESIDE = "/var/lib/shipway/upgrade/kubeadm"  # the new one, while the old one is installed
ON_WORKERS = ("kube-proxy", "pause")
PULL_SECONDS = 1800
SCRIPT = f"{OPERATIONS}/pull-images.sh"
# $1 where the new kubeadm is kept, $2 its version, $3 the registry: what that version wants, by itself.
LIST = """
for kubeadm in "$1" kubeadm; do
  [ "$("$kubeadm" version -o short 2>/dev/null)" = "v$2" ] || continue
  exec "$kubeadm" config images list --kubernetes-version="v$2" --image-repository="$3"
done
exit 127
"""
NOT_THERE = 127  # as a program that is not there
PRESENT = Says(("ctr", "--connect-timeout", "5s", "-n", "k8s.io", "images", "ls", "-q"))
# Through the kubelet's own door, so that mirrors and credentials of containerd's configuration count.
PULL = """
set -eu
socket=$1; shift
for image; do
  if command -v crictl >/dev/null; then
    crictl --runtime-endpoint "$socket" --image-endpoint "$socket" pull "$image"
  else
    ctr -n k8s.io images pull --hosts-dir /etc/containerd/certs.d "$image"
  fi
done
"""


def list_images(version: str, repository: str) -> Says:
    """Return the fact of which images a kubeadm of that version wants; status 127 where none is on the host yet."""
    return Says(("sh", "-c", LIST, "sh", BESIDE, version, repository), 60)


@dataclass(frozen=True)
class ImagesPulled:
    """The images that the new version needs on this host are there."""

    impact: ClassVar[Impact] = Impact.FILES
    version: str
    repository: str
    control: bool

    @property
    def name(self) -> str:
        """The version."""
        return f"the images of v{self.version} are on the host"

    async def _missing(self, on: Host) -> list[str]:
        listed, present = await on.read(list_images(self.version, self.repository), PRESENT)
        if listed.status == NOT_THERE:
            raise Blocked(f"kubeadm {self.version} is not there yet, and it says which", host=on.name)
        there = set(present.stdout.split())
        return [one for one in self._needed(listed.stdout.split()) if one not in there]

    def _needed(self, listed: Sequence[str]) -> list[str]:
        """Return the images of this host's role: a worker runs none of the control plane's."""
        names = [one for one in listed if ":" in one.rpartition("/")[2]]
        return [one for one in names if self.control or one.rpartition("/")[2].partition(":")[0] in ON_WORKERS]

    async def check(self, on: Host) -> Drift | None:
        """Compare kubeadm's list with what containerd has. Raises Blocked before the new kubeadm is there."""
        missing = await self._missing(on)
        return Drift(f"missing: {few(missing)}", "all there") if missing else None

    async def apply(self, on: Host) -> None:
        """Pull what is missing, as a unit of the host."""
        await on.write(SCRIPT, PULL.encode(), mode="700")
        words = ("bash", SCRIPT, CRI_SOCKET, *await self._missing(on))
        await on.succeed("pull-images", words, seconds=PULL_SECONDS)
