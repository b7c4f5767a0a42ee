"""Which request for a kubelet's serving certificate may be approved: by what the cluster file says of each host.

Kubernetes approves none of them by itself (kubernetes#73356): whoever holds a kubelet's client certificate could ask
for any name. So all of this must hold, and what it does not hold for is left and reported.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID, NameOID

from shipway.foreign.addresses import as_address

SIGNER = "kubernetes.io/kubelet-serving"
USER = "system:node:"
GROUP = "system:nodes"
USAGES = frozenset({"digital signature", "key encipherment", "server auth"})
OLDEST = timedelta(hours=1)
Address = IPv4Address | IPv6Address
Request = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a host may be called in its serving certificate: names, and addresses, as the cluster file has them."""

    names: frozenset[str]
    addresses: frozenset[Address]


def inventory(*texts: str) -> Inventory:
    """Return names and addresses apart, names in lower case (RFC 4343)."""
    addresses = {found for text in texts if (found := as_address(text))}
    return Inventory(frozenset(text.lower() for text in texts if text and not as_address(text)), frozenset(addresses))


def is_waiting(request: Request) -> bool:
    """Say whether a request is for a kubelet's serving certificate, and nobody has decided on it."""
    spec, status = request.get("spec") or {}, request.get("status") or {}
    return spec.get("signerName") == SIGNER and not status.get("conditions") and not status.get("certificate")


def objections(
    request: Request, hosts: Mapping[str, Inventory], nodes: Collection[str], now: datetime
) -> tuple[str, ...]:
    """Return why a request may not be approved; nothing where it may.

    `hosts` has what the cluster file says by the name of each node, `nodes` the names of the Nodes that are there.
    """
    spec, meta = request.get("spec") or {}, request.get("metadata") or {}
    user = str(spec.get("username", ""))
    node = user.removeprefix(USER) if user.startswith(USER) else ""
    known = hosts.get(node)
    usages = set(_texts(spec.get("usages")))
    found = [
        why
        for wrong, why in (
            (spec.get("signerName") != SIGNER, f"its signer is {spec.get('signerName') or 'unknown'}"),
            (not is_waiting(request), "it is decided already"),
            (known is None, f"{user or 'nobody'} asks, which is no host of the cluster file"),
            (known is not None and node not in nodes, f"there is no node {node}"),
            (GROUP not in _texts(spec.get("groups")), f"who asks is not in {GROUP}"),
            (
                not usages <= USAGES or "server auth" not in usages,
                f"its usages are {', '.join(sorted(usages)) or 'none'}",
            ),
            (not _is_young(meta.get("creationTimestamp"), now), "it is not younger than an hour"),
        )
        if wrong
    ]
    return (*found, *_of_content(spec.get("request"), user, known or Inventory(frozenset(), frozenset())))


def _texts(values: Any) -> list[str]:
    return [str(value) for value in values] if isinstance(values, Sequence) and not isinstance(values, str) else []


def _is_young(stamp: Any, now: datetime) -> bool:
    try:
        made = datetime.fromisoformat(str(stamp))
        return -OLDEST < now - made < OLDEST
    except (ValueError, TypeError):
        return False


def _of_content(encoded: Any, user: str, known: Inventory) -> list[str]:
    """Return what speaks against the request itself (PKCS #10): its subject, its names, its signature."""
    try:
        pem = base64.b64decode(str(encoded), validate=True)
        asked = x509.load_pem_x509_csr(pem)
        signed = asked.is_signature_valid
        names, organisations = _subject(asked, NameOID.COMMON_NAME), _subject(asked, NameOID.ORGANIZATION_NAME)
        alternatives = _alternatives(asked)
    except (binascii.Error, ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension):
        return ["it is no certificate request that can be read"]
    found = [] if signed else ["it is not signed by its own key"]
    if names != [user]:
        found.append(f"its subject is {', '.join(names) or 'nobody'}, and {user or 'nobody'} asks")
    if organisations != [GROUP]:
        found.append(f"its organisation is {', '.join(organisations) or 'none'}")
    if not alternatives:
        found.append("it names no address and no host")
    foreign = [str(one.value) for one in alternatives if not _is_known(one, known)]
    if foreign:
        found.append(f"it is for {', '.join(foreign)}, which the cluster file does not say of that host")
    return found


def _subject(asked: x509.CertificateSigningRequest, part: x509.ObjectIdentifier) -> list[str]:
    return [str(one.value) for one in asked.subject.get_attributes_for_oid(part)]


def _alternatives(asked: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        found = asked.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except x509.ExtensionNotFound:
        return []
    return list(found.value) if isinstance(found.value, x509.SubjectAlternativeName) else []


def _is_known(one: x509.GeneralName, known: Inventory) -> bool:
    """Say whether a name of the certificate is one of the host's: any other kind than a name or an address is not."""
    if isinstance(one, x509.DNSName):
        return one.value.lower() in known.names
    return isinstance(one, x509.IPAddress) and one.value in known.addresses
