"""A control plane that runs a new version: kubeadm's own upgrade, as a unit of the host, believed by what runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.parts import HostSpec
from shipway.errors import ApiUnavailable, Blocked
from shipway.facts.commands import Says
from shipway.facts.versions import ProgramVersion, StaticPodImages, tag_of
from shipway.foreign.addresses import in_url
from shipway.foreign.yaml import read_yaml, write_all
from shipway.host.session import OPERATIONS, Command, Host
from shipway.kube.record import ASK
from shipway.kubeadm.writes import ETC, MANIFESTS, PARTS
from shipway.rules.compatibility import minor_of
from shipway.script import Output
from shipway.step import Drift, Impact
from shipway.steps.kubernetes.evidence import collect_evidence
from shipway.steps.kubernetes.skew import version_of

OPERATION = "kubeadm-upgrade"
SECONDS = 1800  # four static pods one after the other, each with `MANIFESTS_MINUTES` at most; mostly under two minutes
MANIFESTS_MINUTES = 10  # kubeadm's own 5 are too few where one etcd is all there is (kubeadm#3297)
CONFIG = f"{OPERATIONS}/kubeadm-upgrade.yaml"
CONFIG_SINCE = (1, 31)  # kubeadm reads an UpgradeConfiguration from here on, and no flags beside it (kubespray#11350)
CGROUP_CHECKED = (1, 35)
_MIXED = "can not mix '--config' with"
OWN = PARTS[1:]  # etcd has a version of its own
_KUBECTL = ("kubectl", "--kubeconfig", f"{ETC}/admin.conf", "--request-timeout=8s")
PROXY = ("-n", "kube-system", "get", "daemonset", "kube-proxy", "--ignore-not-found", "-o")
PROXY_IMAGE = (*PROXY, "jsonpath={.spec.template.spec.containers[0].image}")


@dataclass(frozen=True)
class OwnApi:
    """How a control plane's own API server is asked, with the administrator's right, past every load balancer."""

    address: str
    port: int

    def ask(self, *words: str) -> Says:
        """Return the fact of what kubectl says with these words."""
        return Says((*_KUBECTL, "--server", f"https://{in_url(self.address)}:{self.port}", *words), 20)

    @property
    def version(self) -> Says:
        """The fact of the server's version."""
        return self.ask("get", "--raw", "/version")


def recorded(said: Output) -> str:
    """Return the version (1.36.2) of kubeadm's record of the cluster; empty where it cannot be read."""
    try:
        found = read_yaml(said.stdout)
        return str(found["kubernetesVersion"]).removeprefix("v") if said.ok else ""
    except (ValueError, LookupError, TypeError):
        return ""


@dataclass(frozen=True)
class ControlPlaneRuns:
    """The three parts of a control plane run a version, and so does kubeadm's record of the cluster.

    The first control plane of a cluster is upgraded by `kubeadm upgrade apply`, which writes that record; all others by
    `kubeadm upgrade node`, which reads it. Which of the two is due is told by the record, at the moment of the act.
    """

    impact: ClassVar[Impact] = Impact.WORKLOADS
    version: str
    cluster: Cluster = field(repr=False, compare=False)
    host: HostSpec = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The version."""
        return f"the control plane runs v{self.version}"

    @property
    def _api(self) -> OwnApi:
        return OwnApi(node_ip(self.host), self.cluster.kubernetes.api_port)

    async def check(self, on: Host) -> Drift | None:
        """Look at the manifests' images, at what the host's own API server says, and at the record.

        Raises ApiUnavailable where that API does not answer: it may restart at this moment.
        """
        images, served, record = await on.read(StaticPodImages(MANIFESTS), self._api.version, self._api.ask(*ASK))
        if not images:
            raise Blocked(f"no static pod is in {MANIFESTS}", host=on.name)
        wrong = [f"{part} {tag_of(images[part])}" for part in OWN if part in images and not self._is(images[part])]
        wrong += [f"no {part}" for part in OWN if part not in images]
        have = version_of(served.stdout)
        if have is None:
            fix = f"On {on.name}: `tail -n 20 /var/log/pods/kube-system_kube-apiserver-*/*/*.log`; then run again."
            raise ApiUnavailable("its own API server does not say its version", host=on.name, fix=fix)
        if have != self.version:
            wrong.append(f"its API server answers as v{have}")
        if (kept := recorded(record)) != self.version:
            wrong.append(f"kubeadm's record says {kept or 'nothing'}")
        return Drift("; ".join(wrong), f"v{self.version}") if wrong else None

    def _is(self, image: str) -> bool:
        return tag_of(image) == f"v{self.version}"

    async def apply(self, on: Host) -> None:
        """Let kubeadm upgrade it; one that an earlier run began and that still works is waited for.

        Raises CommandFailed with kubeadm's last words: it has put the old manifest back then.
        """
        record, kubeadm = await on.read(self._api.ask(*ASK), ProgramVersion("kubeadm"))
        if kubeadm != self.version:
            raise Blocked(f"kubeadm is {kubeadm or 'not there'}, and not {self.version}", host=on.name)
        await upgrade(on, self.cluster, self.version, apply=recorded(record) != self.version)


async def upgrade(on: Host, cluster: Cluster, version: str, *, apply: bool) -> None:
    """Run `kubeadm upgrade apply` or `kubeadm upgrade node` as a unit. Raises CommandFailed with what died."""
    output = await _run(on, cluster, version, apply=apply)
    if not output.ok and _MIXED in output.stdout + output.stderr:
        output = await _run(on, cluster, version, apply=apply, forced=True)
    if not output.ok:
        raise await collect_evidence(on, f"kubeadm upgrade {'apply' if apply else 'node'}", output)
    await on.do(Command(("rm", "-f", CONFIG)))


async def _run(on: Host, cluster: Cluster, version: str, *, apply: bool, forced: bool = False) -> Output:
    """Run it; where kubeadm reads a configuration, that is written first: flags beside it are refused.

    `forced` is for the first kubeadms that read one and then take no `-y` beside it: they ask no question only so.
    """
    words: tuple[str, ...] = ("kubeadm", "upgrade", *(("apply", f"v{version}") if apply else ("node",)))
    if minor_of(version) >= CONFIG_SINCE:
        document = upgrade_document(cluster, version, apply=apply, forced=forced)
        await on.write(CONFIG, write_all([document]).encode(), mode="600")
        words = (*words, "--config", CONFIG)
    return await on.operate(OPERATION, (*words, *(("-y",) if apply and not forced else ())), seconds=SECONDS)


def upgrade_document(cluster: Cluster, version: str, *, apply: bool, forced: bool = False) -> dict[str, Any]:
    """Return the UpgradeConfiguration (kubeadm v1beta4): its limits, and which check it may pass over."""
    skipped = minor_of(version) >= CGROUP_CHECKED and cluster.kubernetes.allow_cgroup_v1
    part: dict[str, Any] = {"ignorePreflightErrors": ["SystemVerification"]} if skipped else {}
    if apply and forced:
        part |= {"forceUpgrade": True}
    return {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "UpgradeConfiguration",
        "apply" if apply else "node": part,
        "timeouts": {"upgradeManifests": f"{MANIFESTS_MINUTES}m0s"},
    }


@dataclass(frozen=True)
class ProxyRuns:
    """kube-proxy is of the new version on every node: kubeadm brings it and CoreDNS after the last control plane.

    A cluster without kube-proxy has none, and is as wanted. It is told by what the API server holds, so a run that was
    killed between the two is gone on with.
    """

    impact: ClassVar[Impact] = Impact.SERVICE
    version: str
    cluster: Cluster = field(repr=False, compare=False)
    host: HostSpec = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The version."""
        return f"kubeadm's own add-ons are of v{self.version}"

    async def check(self, on: Host) -> Drift | None:
        """Ask for the image of the DaemonSet."""
        api = OwnApi(node_ip(self.host), self.cluster.kubernetes.api_port)
        said = await on.read(api.ask(*PROXY_IMAGE))
        if not said.ok:
            raise ApiUnavailable("its own API server does not answer", host=on.name)
        tag = tag_of(said.stdout.strip())
        return None if tag in ("", f"v{self.version}") else Drift(f"kube-proxy {tag}", f"kube-proxy v{self.version}")

    async def apply(self, on: Host) -> None:
        """Let kubeadm go through its upgrade once more: what is done already is as wanted to it."""
        await upgrade(on, self.cluster, self.version, apply=True)
