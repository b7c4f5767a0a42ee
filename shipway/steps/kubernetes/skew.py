"""The version that runs: no package step makes a kubelet another version than its API server, no bootstrap upgrades."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from shipway.errors import Blocked, Refused
from shipway.facts.commands import Says
from shipway.facts.files import FileState, FileText
from shipway.facts.versions import ProgramVersion
from shipway.host.session import Host
from shipway.kube.client import Kube
from shipway.ownership.evidence import ADMIN, KUBELET_CONF
from shipway.rules.compatibility import triple
from shipway.step import Drift, Step, id_of
from shipway.steps.kubernetes.health import KUBELET_CERTIFICATE

SECONDS = 8  # a server on the same network answers in milliseconds
CA = "/etc/kubernetes/pki/ca.crt"
_SERVER = re.compile(r"^\s*server:\s*[\"']?(https://[A-Za-z0-9.:\[\]-]+)[\"']?\s*$", re.MULTILINE)
_VERSION = re.compile(r"v(\d{1,4}\.\d{1,4}\.\d{1,5})")


def next_of(have: str, wanted: str) -> str:
    """Return what to do where a cluster runs another version than its file says: never what this command does."""
    back = f"set kubernetes.version to {have}, which runs."
    if triple(have) > triple(wanted):
        return f"Kubernetes knows no way back: {back}"
    return f"`shipway upgrade CLUSTER.yaml --plan` says how to get there (docs/upgrade.md); or {back}"


def version_of(answer: str) -> str | None:
    """Return 1.36.2 of the API's answer to /version; None where it is none."""
    try:
        said = json.loads(answer)["gitVersion"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    found = _VERSION.match(str(said))
    return found[1] if found else None


def _ask(server: str, *words: str, path: str = "version") -> Says:
    return Says(("curl", "-s", *words, "--max-time", str(SECONDS), f"{server}/{path}"), SECONDS + 5)


def own_api(conf: str, path: str = "version") -> tuple[str, Says] | None:
    """Return the server that a kubelet.conf names, and the fact of its answer to the kubelet's own certificate."""
    named = _SERVER.search(conf)
    return (named[1], _ask(named[1], "--cacert", CA, "--cert", KUBELET_CERTIFICATE, path=path)) if named else None


async def server_version(on: Host) -> str | None:
    """Return the version that the API server of this host's kubelet runs; None on a host that has not joined.

    It is asked from the server that kubelet.conf names, with the kubelet's own certificate. Raises Blocked where it
    cannot be determined.
    """
    conf = await on.read(FileText(KUBELET_CONF))
    if conf is None:
        return None
    own = own_api(conf)
    version = version_of((await on.read(own[1])).stdout) if own else None
    if version is None:
        where = own[0] if own else f"{KUBELET_CONF} names no server"
        fix = "Bring the control plane back first; until then no package of Kubernetes is changed on this host."
        raise Blocked(f"the API server's version cannot be determined ({where})", host=on.name, code="SHW-331", fix=fix)
    return version


async def permit_same_version(on: Host, *, wanted: str) -> None:
    """Return where packages of this version may be installed; raises Refused SHW-329 where the API server has another.

    A kubelet is never newer than its API server, and an older one is an upgrade that was not asked for (Kubernetes:
    version skew policy). One that is behind its API server waits for an upgrade as well, which empties the host first.
    """
    have = await server_version(on)
    if have is not None and have != wanted:
        message = f"the API server runs v{have}, so kubelet, kubeadm and kubectl {wanted} do not belong on this node"
        raise Refused(message, host=on.name, code="SHW-329", fix=next_of(have, wanted))
    kubelet = await on.read(ProgramVersion("kubelet")) if have is not None else ""
    if kubelet and triple(kubelet) < triple(wanted):
        message = f"its kubelet is v{kubelet}, behind the API server's v{have}: no upgrade has come here yet"
        raise Refused(message, host=on.name, code="SHW-329", fix="`shipway upgrade CLUSTER.yaml` goes on with it.")


class OnlyInItsVersion:
    """A step of a host that waits, where something is to be changed, for what permits packages of this version.

    The repository of another minor is not made known on a node that is not to get its packages.
    """

    def __init__(self, step: Step[Host], wanted: str) -> None:
        self.step, self._wanted = step, wanted
        self.impact, self.name, self.id = step.impact, step.name, id_of(step)

    async def check(self, on: Host) -> Drift | None:
        """Look as the step does. Raises Refused SHW-329, Blocked SHW-331."""
        drift = await self.step.check(on)
        if drift is not None:
            await permit_same_version(on, wanted=self._wanted)
        return drift

    async def apply(self, on: Host) -> None:
        """Do as the step does, once it is permitted at this moment."""
        await permit_same_version(on, wanted=self._wanted)
        await self.step.apply(on)


def _refused(have: str, wanted: str) -> Refused:
    message = f"the running cluster is v{have}, the file says v{wanted}: upgrades are not done by this command"
    return Refused(message, code="SHW-330", fix=next_of(have, wanted))


@dataclass(frozen=True)
class VersionDeclared:
    """The running cluster has the declared version; another one is a finding, and never changed by what finds it."""

    version: str
    name: str = "the running cluster has the declared version"

    async def check(self, on: Kube) -> Drift | None:
        """Ask /version; an API that says none is told of elsewhere."""
        _, text = await on.raw("/version")
        have = version_of(text)
        if have is None or have == self.version:
            return None
        return Drift(f"v{have}", f"v{self.version}: {next_of(have, self.version)}")


@dataclass(frozen=True)
class VersionRuns:
    """The running cluster has the declared version."""

    version: str
    name: str = "the running cluster has the declared version"

    async def check(self, on: Kube) -> Drift | None:
        """Ask /version; raises Refused SHW-330 where another one runs."""
        _, text = await on.raw("/version")
        have = version_of(text)
        if have is not None and have != self.version:
            raise _refused(have, self.version)
        return None if have else Drift("no version", f"v{self.version}")


@dataclass(frozen=True)
class VersionKept:
    """A control plane that runs here already has the declared version."""

    version: str
    port: int
    name: str = "the control plane that runs here has the declared version"

    async def check(self, on: Host) -> Drift | None:
        """Ask the host's own API server; one that does not answer is asked again, with credentials, by the gate.

        Raises Refused SHW-330 where it runs another version.
        """
        admin, said = await on.read(FileState(ADMIN), _ask(f"https://127.0.0.1:{self.port}", "-k"))
        have = version_of(said.stdout) if admin else None
        if have is not None and have != self.version:
            raise _refused(have, self.version)
        return None
