"""The administrator's kubeconfig that this machine keeps of a cluster: it leads to a control plane by its address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shipway.cluster.model import node_ip
from shipway.cluster.parts import HostSpec
from shipway.errors import Blocked
from shipway.foreign.errors import describe_error
from shipway.kube.access import from_outside, parse_admin_conf, save_kubeconfig
from shipway.kube.client import Kube
from shipway.ownership.evidence import authorities
from shipway.step import Drift, Impact, StepResult
from tasks.context import Run
from tasks.leading import known

LASTS = timedelta(days=30)


def keep_kubeconfig(run: Run, admin_conf: str, name: str, *, renewed: bool = False) -> StepResult:
    """Keep the admin.conf of the control plane that leads, readable by its owner alone; it may lead to any of them.

    That of another control plane that is whole is as good, but where the certificates were `renewed`. Raises Refused
    SHW-320 where another cluster's is kept.
    """
    path = run.folder / "kubeconfig"
    api, planes = run.cluster.api_name, (run.control, *_staying(run))
    vip = run.cluster.api_vip  # it moves: whoever asks by it need not know which of them is there
    ways = [vip] if vip else [node_ip(host) for host in planes]
    texts = [from_outside(admin_conf, api, way) if api else admin_conf for way in ways]
    try:
        if path.exists() and not path.stat().st_mode & 0o077:
            kept = path.read_text(encoding="utf-8")
            if kept in texts or (not renewed and _is_of_another(run, kept, admin_conf)):
                return StepResult(name, "ok", Impact.FILES)
        save_kubeconfig(path, texts[0])
    except (OSError, UnicodeDecodeError) as error:  # this machine's disk is no reason to end what is done on hosts
        why = describe_error(error)
        run.warned.append(f"the kubeconfig was not kept: {why}; run a bootstrap when there is room")
        return StepResult(name, "drifted", Impact.FILES, Drift(f"cannot be written: {why}", str(path)))
    return StepResult(name, "changed", Impact.FILES)


def _is_of_another(run: Run, kept: str, admin_conf: str) -> bool:
    """Say whether a kubeconfig is another control plane's of the same cluster, one that is whole, and lasts."""
    from cryptography import x509  # noqa: PLC0415 - 60 ms of import that most runs need not pay

    seen = known(run)
    others = [host for host in _staying(run) if host != run.control]
    whole = {node_ip(host) for host in others if host.name in seen and seen[host.name].whole}
    if others and not run.cluster.api_name:
        whole = {run.cluster.endpoint.rpartition(":")[0]}  # the site's: every admin.conf leads there
    elif run.cluster.api_vip:
        whole = {run.cluster.api_vip}
    try:
        old = parse_admin_conf(kept)
        if old.host not in whole or authorities(old.ca) != authorities(parse_admin_conf(admin_conf).ca):
            return False
        ends = x509.load_pem_x509_certificate(old.certificate.encode()).not_valid_after_utc
    except (Blocked, ValueError):
        return False
    return ends - datetime.now(UTC) > LASTS


def _staying(run: Run) -> list[HostSpec]:
    """Return the control planes of the file but the one that leaves, if one does."""
    return [host for host in run.cluster.control_planes if host.name != run.retirement.host]


class LeadsToOneThatStays:
    """This machine's kubeconfig leads to no control plane that leaves; where none is kept there is nothing to lead."""

    name = "the kubeconfig on this machine leads to a control plane that stays"
    impact = Impact.FILES

    def __init__(self, run: Run) -> None:
        self._run = run

    async def check(self, on: Kube) -> Drift | None:
        """Read where it leads."""
        del on
        leaving = node_ip(self._run.cluster.host(self._run.retirement.host))
        try:
            host = parse_admin_conf((self._run.folder / "kubeconfig").read_text(encoding="utf-8")).host
        except (Blocked, OSError, UnicodeDecodeError):
            return None
        return Drift(host, node_ip(self._run.control)) if host == leaving else None

    async def apply(self, on: Kube) -> None:
        """Keep that of the control plane that leads; what this machine's disk keeps from it, the report says."""
        keep_kubeconfig(self._run, on.admin_conf, self.name)
