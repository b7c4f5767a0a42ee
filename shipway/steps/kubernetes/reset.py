"""`kubeadm reset`, only where nothing has run: what forbids it is asked in the very process that does it."""

from __future__ import annotations

from collections.abc import Sequence

from shipway.errors import Refused
from shipway.facts.files import Listing
from shipway.host.session import Command, Host
from shipway.known_failures.catalogue import failure
from shipway.ownership.evidence import ADMIN, CLIENT, ETCD, RUNNING, STARTED
from shipway.steps.kubernetes.leftovers import clean

CNI = "/etc/cni/net.d"
FORBIDDEN = 75  # the exit status of a reset that was not begun; kubeadm's own are below 10
# $0 is how many paths follow that must not be there; after them comes the command. The look and the reset are one
# process of the host: whatever came to be there since the last look of ours is seen.
UNUSED = (
    f"ran=$({RUNNING})\n"
    f'[ -z "$ran" ] || {{ echo "not reset: pods run here" >&2; exit {FORBIDDEN}; }}\n'
    'n=$0; while [ "$n" -gt 0 ]; do [ ! -e "$1" ] && [ ! -L "$1" ] || '
    f'{{ echo "not reset: $1 is there" >&2; exit {FORBIDDEN}; }}; shift; n=$((n-1)); done\n'
    'exec "$@"'
)


async def reset(on: Host, *, forbidding: Sequence[str] = (CLIENT,)) -> None:
    """Undo kubeadm's work on a host that no pod runs on; CNI files go, their folder stays (containerd watches it).

    `forbidding` are paths of which none may be there. Raises Refused (SHW-324) where one is, or where pods run, and
    then nothing was changed; CommandFailed where kubeadm fails.
    """
    words = ("sh", "-c", UNUSED, str(len(forbidding)), *forbidding, "kubeadm", "reset", "-f")
    output = await on.operate("kubeadm-reset", words, seconds=300)
    if output.status == FORBIDDEN:
        said = f"{output.stdout}\n{output.stderr}".strip().splitlines()
        fix = f"See `sudo ctr -n k8s.io tasks ls` and `sudo ls /var/lib/kubelet/pki` on {on.name}: it is in use."
        raise Refused(said[0] if said else "not reset: the host is in use", host=on.name, code="SHW-324", fix=fix)
    if not output.ok:
        raise failure("kubeadm reset", output, host=on.name)
    # A dot file there is a package's mark (kubernetes-cni's .kubernetes-cni-keep), no configuration of a network.
    files = [f"{CNI}/{name}" for name in await on.read(Listing(CNI)) if not name.startswith(".")]
    await on.do(Command(("rm", "-rf", "--", STARTED, *files)))
    await clean(on)


# What a worker never has: with one of these it is, or was, a control plane or a node.
OF_NO_WORKER = (CLIENT, ADMIN, ETCD)
