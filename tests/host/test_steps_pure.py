"""The decisions of steps, as tables of what is seen and what follows."""

from __future__ import annotations

import hashlib
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from pysequoia import Tsk

from shipway.gpu.nvidia.answers import NVIDIA
from shipway.kubeadm.config import ca_hash
from shipway.os.debian.packages import offers, version_matches
from shipway.os.signing_key import SigningKey, read_key
from shipway.ownership.evidence import certificates_of, static_pods
from shipway.steps.kubernetes.init import Seen, decide
from shipway.survey.first_look import addresses_of

BARE = {
    "admin": False,
    "etcd_data": False,
    "manifests": False,
    "certificates": False,
    "ready": False,
    "started_by": None,
}


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ({}, "bare"),
        ({"started_by": "te"}, "bare"),
        ({"certificates": True}, "foreign"),
        ({"manifests": True, "certificates": True, "started_by": "te"}, "resettable"),
        ({"admin": True, "manifests": True, "certificates": True}, "foreign"),
        ({"manifests": True, "certificates": True, "started_by": "another"}, "foreign"),
        ({"manifests": True, "certificates": True, "started_by": "te", "client": True}, "foreign"),
        ({"manifests": True, "complete": True, "started_by": "te", "client": True}, "resumable"),
        ({"manifests": True, "complete": True, "started_by": "te", "running": True}, "resumable"),
        ({"complete": True, "certificates": True, "running": True}, "foreign"),
        ({"client": True}, "foreign"),
        ({"etcd_data": True, "complete": True, "started_by": "te"}, "resumable"),
        ({"admin": True, "etcd_data": True, "complete": True, "ready": True, "started_by": "te"}, "resumable"),
        ({"etcd_data": True, "certificates": True, "started_by": "te"}, "foreign"),
        ({"etcd_data": True, "certificates": True, "started_by": "another"}, "foreign"),
        ({"etcd_data": True}, "foreign"),
        ({"admin": True, "etcd_data": True, "certificates": True, "ready": True}, "initialised"),
        ({"admin": True, "etcd_data": True, "certificates": True}, "down"),
        ({"manifests": True, "certificates": True, "at_work": True}, "at work"),
        ({"etcd_data": True, "started_by": "te", "at_work": True}, "at work"),
    ],
)
def test_an_initialisation_is_judged_by_what_is_there(seen: dict[str, object], state: str) -> None:
    assert decide(Seen(**(BARE | seen)), "te") == state  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "evidence"),
    [
        ((), ()),
        ((".kubelet-keep",), ()),  # the kubelet's own package (pkgs.k8s.io)
        ((".kube-apiserver.yaml.swp", ".backup.yaml", "kube-apiserver.yaml~", "kube-vip.yaml", "README"), ()),
        ((".kubelet-keep", "etcd.yaml", "kube-vip.yaml"), ("etcd.yaml",)),
        *(
            (("kube-vip.yaml", f"kube-{one}.yaml"), (f"kube-{one}.yaml",))
            for one in ("apiserver", "controller-manager")
        ),
        (("kube-scheduler.yaml",), ("kube-scheduler.yaml",)),
    ],
)
def test_only_what_kubeadm_writes_tells_of_an_init_or_a_join(names: tuple[str, ...], evidence: tuple[str, ...]) -> None:
    assert static_pods(names) == evidence


@pytest.mark.parametrize(
    ("names", "evidence"),
    [
        ((), ()),
        ((".keep", ".ca.crt", "etcd"), ()),
        (("ca.crt", "etcd", "sa.pub"), ("ca.crt", "sa.pub")),
    ],
)
def test_an_empty_folder_of_certificates_tells_nothing(names: tuple[str, ...], evidence: tuple[str, ...]) -> None:
    assert certificates_of(names) == evidence


@pytest.mark.parametrize(
    ("have", "want", "fits"),
    [
        ("1.31.7-1.1", "1.31.7", True),
        ("1.31.70-1.1", "1.31.7", False),
        ("1.20.2-00", "1.20.2", True),
        ("1.6.20~ds1-1+deb12u3", "1.6", True),
        ("1.6.20~ds1-1+deb12u3", "1.6.20", True),
        ("1.60.1-1", "1.6", False),
        ("5:28.0.1-1~debian", "28.0.1", True),
        ("2.1", "2.1", True),
        ("2.1", None, True),
    ],
)
def test_a_debian_version_fits_its_beginning_only_at_a_boundary(have: str, want: str | None, fits: bool) -> None:  # noqa: FBT001
    assert version_matches(have, want) is fits


def test_offered_versions_keep_their_order() -> None:
    said = " kubelet | 1.31.8-1.1 | https://x  Packages\n kubelet | 1.31.7-1.1 | https://x  Packages\nN: junk\n"
    assert offers(said) == {"kubelet": ["1.31.8-1.1", "1.31.7-1.1"]}


def test_a_key_is_judged_by_fingerprint_and_expiry() -> None:
    made = Tsk.generate("site <site@example.com>").extract_certificate()
    key = read_key(str(made).encode())
    assert key.armored.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert key.fingerprints == (made.fingerprint.upper(),)
    assert key.trouble(made.fingerprint.upper(), now=time.time()) == ""
    assert key.trouble(None, now=time.time()) == ""
    assert "not the pinned" in key.trouble("0" * 40, now=time.time())
    assert "expired on 1970-01-01" in SigningKey("", ("AA",), 1000).trouble(None, now=1001)
    assert SigningKey("", ("AA",), 1000).trouble(None, now=1000) == ""


@pytest.mark.parametrize(
    "data", [b"", b"<html>403 Forbidden</html>", b"\x99\x00", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"]
)
def test_what_is_no_key_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="OpenPGP"):
        read_key(data)


def test_gpus_are_devices_whose_vendor_and_class_both_match() -> None:
    root = "/sys/bus/pci/devices"
    vendors = f"{root}/0000:01:00.0/vendor\n{root}/0000:01:00.1/vendor\n{root}/0000:02:00.0/vendor\n"
    classes = f"{root}/0000:01:00.0/class\n{root}/0000:02:00.0/class\n{root}/0000:00:02.0/class\n"
    assert len(addresses_of(vendors, classes)) == 2
    assert addresses_of("", "") == ()


def test_gpu_uuids_are_read_from_the_driver_s_list() -> None:
    listed = "GPU 0: NVIDIA A10 (UUID: GPU-4a-b)\nGPU 1: NVIDIA A10 (UUID: GPU-5c)\n"
    assert NVIDIA.uuids(listed) == [
        "GPU-4a-b",
        "GPU-5c",
    ]


def test_a_ca_is_pinned_by_its_public_key_even_with_serial_zero() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = (
        built.serial_number(77).not_valid_before(start).not_valid_after(start + timedelta(days=1)).sign(key, SHA256())
    )
    expected = hashlib.sha256(
        key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()
    der = made.public_bytes(Encoding.DER).replace(b"\x02\x01\x4d", b"\x02\x01\x00", 1)  # serial 77 becomes 0
    assert ca_hash(ssl.DER_cert_to_PEM_cert(der)) == f"sha256:{expected}"


@pytest.mark.parametrize("pem", ["", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "junk"])
def test_what_is_no_certificate_is_refused(pem: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - ssl and we word it differently
        ca_hash(pem)
