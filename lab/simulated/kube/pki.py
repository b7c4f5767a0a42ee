"""The cluster's certificate authority, the certificates it signs, and kubeconfigs made from them."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# kubeadm's life times: ten years for the authority, one for what it signs.
CA_LIFE, LEAF_LIFE = timedelta(days=3650), timedelta(days=365)
_PEM, _PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
_PLAIN = serialization.NoEncryption()


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, both as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A cluster's own CA. Its key is RSA 2048 as kubeadm's is, so that openssl's CA-hash recipe works on it."""

    def __init__(self, common_name: str = "kubernetes") -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = _builder(name, name, self._key.public_key(), CA_LIFE)
        builder = builder.add_extension(_usage(encipher=True, certificates=True), critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.certificate = self._certificate.public_bytes(_PEM)
        self.key = self._key.private_bytes(_PEM, _PKCS8, _PLAIN)

    @property
    def hash(self) -> str:
        """Return what `--discovery-token-ca-cert-hash` takes: sha256 of the public key's DER form."""
        der = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return "sha256:" + hashlib.sha256(der).hexdigest()

    def client(self, user: str, groups: Iterable[str] = ()) -> KeyPair:
        """Return a client certificate for a user (CN) in groups (O)."""
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        return self._leaf(x509.Name(attributes), ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def server(self, common_name: str, names: Iterable[str]) -> KeyPair:
        """Return a serving certificate for these host names and IP addresses."""
        alternatives: list[x509.GeneralName] = []
        for name in dict.fromkeys(names):
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._leaf(subject, ExtendedKeyUsageOID.SERVER_AUTH, x509.SubjectAlternativeName(alternatives))

    def _leaf(
        self, subject: x509.Name, purpose: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None
    ) -> KeyPair:
        # P-256 for what is made by the thousand: an RSA key costs a hundred times as much to make.
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._certificate.subject, key.public_key(), LEAF_LIFE)
        builder = builder.add_extension(_usage(), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(authority, critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return KeyPair(certificate.public_bytes(_PEM), key.private_bytes(_PEM, _PKCS8, _PLAIN))

    def server_context(self, pair: KeyPair) -> ssl.SSLContext:
        """Return the TLS context of the API server: client certificates of this CA are optional."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=self.certificate.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        # ssl takes a key from a file only; mkstemp makes it readable for its owner alone.
        handle, path = tempfile.mkstemp(prefix="simulated-kube-", suffix=".pem")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(pair.certificate + pair.key)
            context.load_cert_chain(path)
        finally:
            Path(path).unlink()
        return context


def _usage(*, encipher: bool = False, certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=encipher,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    # Five minutes back: kubeadm allows for clocks that differ a little.
    return builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + life)


def kubeconfig(server: str, ca: bytes, cluster: str, user: str, credentials: KeyPair | str | None) -> str:
    """Return a kubeconfig as YAML, in kubeadm's shape: a key pair, a bearer token, or no credentials at all."""
    data = {"certificate-authority-data": base64.b64encode(ca).decode(), "server": server}
    if credentials is None:  # what cluster-info carries
        bare: dict[str, object] = {
            "apiVersion": "v1",
            "kind": "Config",
            "preferences": {},
            "contexts": None,
            "users": None,
        }
        return yaml.safe_dump({**bare, "current-context": "", "clusters": [{"name": "", "cluster": data}]})
    if isinstance(credentials, str):
        secret = {"token": credentials}
    else:
        secret = {
            "client-certificate-data": base64.b64encode(credentials.certificate).decode(),
            "client-key-data": base64.b64encode(credentials.key).decode(),
        }
    context = f"{user}@{cluster}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [{"name": cluster, "cluster": data}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
        "users": [{"name": user, "user": secret}],
    }
    return yaml.safe_dump(document)
