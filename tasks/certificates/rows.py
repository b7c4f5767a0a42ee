"""The table of certificates: every one of a host, when it ends, who renews it, and whether the ports show it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from shipway.cluster.model import node_ip
from shipway.facts.certificates import CertificateAt, CertificateIn, CertificateInfo
from shipway.facts.files import FileText
from shipway.host.session import Host
from shipway.kubeadm.certificates import (
    AUTHORITIES,
    DAY,
    KUBELET_CLIENT,
    KUBELET_PORT,
    KUBELET_SELF_SIGNED,
    KUBELET_SERVER,
    LEAFS,
    authority_path,
    doors_of,
)
from shipway.kubeadm.writes import PARTS
from shipway.ownership.evidence import KUBELET_CONF
from shipway.steps.kubernetes.health import EXPIRY_DAYS, KUBELET_CONFIG
from shipway.steps.kubernetes.static_pods import differs, short
from tasks.context import Run
from tasks.passes.certificates import CertificateRow

KUBEADM, KUBELET, NOBODY = "kubeadm", "the kubelet", "nobody"
CA_DAYS = 365  # a CA that ends within a year ends before what it signs now
_GIVEN = re.compile(r"^\s*tlsCertFile:\s*\S", re.MULTILINE)  # of KubeletConfiguration
# What follows is said in the table's last column.
CA_ENDS = "ends before what it signs now: `shipway rotate-ca` replaces it, see docs/rotate-ca.md"
LATE = "the kubelet should have renewed it at 70 to 90 % of its life: see `journalctl -u kubelet`"
EXPIRED = "expired: the kubelet is cut off from the cluster"
SELF_SIGNED = "signed by itself; move it and kubelet.key away and restart the kubelet: it makes a new one"
OWN = "in kubelet.conf, where nobody renews it"


async def look_at_certificates(run: Run, host: Host) -> tuple[CertificateRow, ...]:
    """Return the rows of a host, worst end first within each kind; they cost the round trip that others ask as well."""
    spec = run.cluster.host(host.name)
    address, control = node_ip(spec), spec in run.cluster.control_planes
    own = {KUBELET_CLIENT: "kubelet client", KUBELET_CONF: "kubelet.conf", KUBELET_SERVER: "kubelet serving"}
    own[KUBELET_SELF_SIGNED] = "kubelet serving"
    leafs = {leaf.path: leaf.name for leaf in LEAFS} if control else {}
    authorities = {authority_path(name): name for name in AUTHORITIES} if control else {}
    paths = [*authorities, *leafs, *own]
    doors = [door for part in PARTS for door in doors_of(part, run.cluster.kubernetes.api_port)] if control else []
    ports = [*(door.port for door in doors), KUBELET_PORT]
    files, shown, config = await asyncio.gather(
        host.read_all([CertificateIn(path) for path in paths]),
        host.read_all([CertificateAt(address, port) for port in ports]),
        host.read(FileText(KUBELET_CONFIG)),
    )
    given = _GIVEN.search(config or "") is not None
    found = {path: info for path, info in zip(paths, files, strict=True) if info is not None}
    served = dict(zip(ports, shown, strict=True))
    rows = [_authority(host.name, authorities[path], found[path]) for path in authorities if path in found]
    for path in (path for path in leafs if path in found):
        at = {door.port: served[door.port] for door in doors if door.leaf == leafs[path]}
        rows.append(_leaf(host.name, leafs[path], found[path], at))
    if given:  # a person's own certificate, which no kubelet keeps in its folder
        found = {path: info for path, info in found.items() if path not in (KUBELET_SERVER, KUBELET_SELF_SIGNED)}
    return (*rows, *_kubelet(host.name, own, found, served[KUBELET_PORT]))


def _row(
    host: str, name: str, info: CertificateInfo, renewed_by: str, served: str = "", *findings: str
) -> CertificateRow:
    said = "; ".join(one for one in findings if one)
    if not info.serial:
        return CertificateRow(host, name, "", 0.0, "", renewed_by, served, said or "no certificate that can be read")
    ends = f"{datetime.fromtimestamp(info.ends, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return CertificateRow(host, name, ends, _days(info), info.serial, renewed_by, served, said)


def _days(info: CertificateInfo) -> float:
    return round((info.ends - time.time()) / DAY, 1)


def _authority(host: str, name: str, info: CertificateInfo) -> CertificateRow:
    return _row(host, name, info, NOBODY, "", CA_ENDS if _days(info) < CA_DAYS else "")


def _leaf(host: str, name: str, info: CertificateInfo, at: Mapping[int, CertificateInfo | None]) -> CertificateRow:
    served = ", ".join(f"{port}: {short(seen.serial) if seen else 'nothing'}" for port, seen in at.items())
    ended = "" if _days(info) > 0 or not info.serial else "has expired"
    return _row(host, name, info, KUBEADM, served, ended, *(differs(port, seen, info) for port, seen in at.items()))


def _kubelet(
    host: str, names: Mapping[str, str], found: Mapping[str, CertificateInfo], served: CertificateInfo | None
) -> Iterator[CertificateRow]:
    """Yield what the kubelet has: its client certificate, one in kubelet.conf, and what it serves with."""
    if (client := found.get(KUBELET_CLIENT)) is not None:
        said = EXPIRED if _days(client) <= 0 else LATE if _days(client) < EXPIRY_DAYS else ""
        yield _row(host, names[KUBELET_CLIENT], client, KUBELET, "", said)
    if (inside := found.get(KUBELET_CONF)) is not None and inside.serial:
        yield _row(host, names[KUBELET_CONF], inside, NOBODY, "", OWN)
    path = next((path for path in (KUBELET_SERVER, KUBELET_SELF_SIGNED) if path in found), "")
    if path:
        signed, info = path == KUBELET_SERVER, found[path]
        late = (LATE if signed else SELF_SIGNED) if _days(info) < EXPIRY_DAYS else ""
        at = f"{KUBELET_PORT}: {short(served.serial) if served else 'nothing'}"
        said = differs(KUBELET_PORT, served, info)
        yield _row(host, names[path], info, KUBELET if signed else NOBODY, at, late, said)
