"""What is secret never passes: tokens, keys, kubeconfig data; what only looks like it stays readable."""

from __future__ import annotations

import pytest

from shipway.known_failures.catalogue import failure
from shipway.redact import HIDDEN, keep_ends, redact, tail
from shipway.script import Output

TOKEN = "abcdef.0123456789abcdef"  # noqa: S105 - made up, of the form of a bootstrap token
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLW9mLWl0"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----"
DATA = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="
KEY = "a" * 64


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"kubeadm join 10.0.0.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash sha256:{KEY}", TOKEN),
        (f"--token={TOKEN}", TOKEN),
        (f"Authorization: Bearer {JWT}", JWT),
        (PEM, "MIIEow"),
        ("-----BEGIN PRIVATE KEY-----\ncut short", "cut short"),
        (f"client-key-data: {DATA}", DATA),
        (f'"client-certificate-data": "{DATA}"', DATA),
        (f"[upload-certs] Using certificate key:\n{KEY}\n", KEY),
        (f"--certificate-key {KEY}", KEY),
        ("password: hunter2", "hunter2"),
        ("Could not connect to http://ops:hunter2@proxy.corp.example:3128 (timed out)", "hunter2"),
        ("Environment=HTTPS_PROXY=http://ops:hun%40ter2@proxy.corp.example:3128", "hun%40ter2"),
        ("Proxy-Authorization: Basic b3BzOmh1bnRlcjI=", "b3BzOmh1bnRlcjI="),
        ("token: s3cr3t", "s3cr3t"),
        (f"the pod printed {JWT} and ended", JWT),  # each by its own form, whatever stands before it
        (f"[bootstrap] made {TOKEN} for an hour", TOKEN),
        ("kubeadm join --token s3cr3t", "s3cr3t"),
        (f"[upload-certs] Using certificate key:\r\n{KEY}\r\n", KEY),
    ],
)
def test_a_secret_is_hidden(text: str, secret: str) -> None:
    hidden = redact(text)
    assert secret not in hidden
    assert HIDDEN in hidden
    assert redact(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        f"sha256:{KEY}",
        "could not find a JWS signature in the cluster-info ConfigMap for the id",
        "[kubelet-start] Starting the kubelet",
        "k8s.gcr.io/kube-apiserver:v1.20.2",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("mark", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\u202e", "\u2067"])
def test_what_would_steer_a_terminal_or_turn_a_line_around_is_a_mark(mark: str) -> None:
    assert redact(f"a{mark}[31mb") == "a\ufffd[31mb"


def test_tabs_and_lines_stay_whichever_way_they_end() -> None:
    assert redact("a\tb\r\nc\rd\ne") == "a\tb\nc\nd\ne"


def test_an_error_carries_no_secret() -> None:
    output = Output(1, f"token: {TOKEN}\n", f"error: --token {TOKEN} refused\n{PEM}\n")
    error = failure("kubeadm join", output, host="w1")
    for secret in (TOKEN, "MIIEow"):
        assert secret not in f"{error} {error.output} {error.report().as_dict()}"


def test_a_tail_keeps_the_last_lines_cut_to_a_width() -> None:
    text = "\n".join(f"line {number} " + "x" * 500 for number in range(30))
    kept = tail(text, lines=3, width=20).splitlines()
    assert kept == [f"line {number} ".ljust(20, "x") for number in (27, 28, 29)]


def test_empty_lines_take_no_place_of_a_tail() -> None:
    assert tail("first\n\nsecond\n  \n\nthird\n\n", lines=2) == "second\nthird"


@pytest.mark.parametrize("size", [30, 60, 400])
def test_of_a_long_text_the_beginning_and_the_end_are_kept(size: int) -> None:
    text = "OCI runtime create failed:\n" + "x" * 300 + " failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND"
    kept = keep_ends(text, size)
    assert len(kept) <= size
    assert kept.startswith("OCI")
    assert kept.endswith("NOT_FOUND")
    assert "\n" not in kept


@pytest.mark.parametrize("size", [9, 10])
def test_a_text_that_has_its_place_is_kept_whole_in_one_line(size: int) -> None:
    assert keep_ends(" failed:\n1 ", size) == "failed: 1"
