"""The members of a control plane's etcd, as they run: asked from etcd itself, by its HTTP API, with kubeadm's pair.

No program of etcd's is needed for it, and none is in a control plane's image that a host could run without a container.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from shipway.errors import Blocked
from shipway.facts.commands import Says
from shipway.host.session import Host

PKI = "/etc/kubernetes/pki/etcd"
LOCAL = "https://127.0.0.1:2379"  # kubeadm lets each member listen there (its app/util/etcd)
SECONDS = 8
_CURL = (
    *("curl", "-s", "--noproxy", "*", "--max-time", str(SECONDS), "--cacert", f"{PKI}/ca.crt"),
    *("--cert", f"{PKI}/healthcheck-client.crt", "--key", f"{PKI}/healthcheck-client.key"),
)
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,5}")
LIST = Says((*_CURL, "-X", "POST", "-d", "{}", f"{LOCAL}/v3/cluster/member/list"), SECONDS + 5)


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its name (empty before it has started once), its version (3.5.26; empty where it does not answer)."""

    name: str
    learner: bool
    version: str
    healthy: bool
    url: str


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


async def read_members(on: Host) -> list[Member]:
    """Return the members of the etcd that runs on this host. Raises Blocked where it does not answer."""
    said = await on.read(LIST)
    found = _json(said.stdout).get("members")
    listed = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    if not listed:
        fix = f"On {on.name}: `ctr -n k8s.io tasks ls`, `tail -n 20 /var/log/pods/kube-system_etcd-*/etcd/*.log`."
        raise Blocked("etcd does not say who its members are", host=on.name, code="SHW-782", fix=fix)
    urls = [_url(one) for one in listed]
    asked = [Says((*_CURL, f"{url}/{what}"), SECONDS + 5) for url in urls for what in ("version", "health")]
    answers = [_json(answer.stdout) for answer in await on.read_all(asked)]
    pairs = zip(answers[::2], answers[1::2], strict=True)
    return [_member(one, url, *pair) for one, url, pair in zip(listed, urls, pairs, strict=True)]


def _url(member: dict[str, Any]) -> str:
    """Return where a member is asked; one that has not started yet names no such place."""
    return str(next(iter(member.get("clientURLs") or ()), "https://127.0.0.1:1"))


def _member(listed: dict[str, Any], url: str, version: dict[str, Any], health: dict[str, Any]) -> Member:
    return Member(
        str(listed.get("name", "")),
        bool(listed.get("isLearner")),
        known[0] if (known := _VERSION.match(str(version.get("etcdserver", "")))) else "",
        str(health.get("health", "")).lower() == "true",
        url,
    )
