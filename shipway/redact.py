"""Secrets are never printed, logged or stored: every foreign text passes through here first."""

from __future__ import annotations

import re

HIDDEN = "[hidden]"
# Foreign text must not steer a terminal (ECMA-48 control functions) nor turn its line around (Unicode, UAX #9), and
# PostgreSQL stores no NUL: what is left of it is a mark.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# Bootstrap tokens: six characters, a dot, sixteen (Kubernetes documentation, "Authenticating with Bootstrap Tokens").
_BOOTSTRAP_TOKEN = re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b")
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]{8,}")
# kubeadm prints the certificate key on a line of its own, or behind its flag; a CA hash has `sha256:` before it.
_CERTIFICATE_KEY = re.compile(r"((?:certificate[- ]?key:?[\s=]*\n?\s*))[0-9a-f]{64}\b", re.IGNORECASE)
_YAML_SECRET = re.compile(
    r"((?:client-key-data|certificate-authority-data|client-certificate-data|token|password|certificateKey)"
    r"\"?\s*[:=]\s*\"?)[^\s\"',}]+",
    re.IGNORECASE,
)
# Credentials in front of a host (RFC 3986, 3.2.1): apt, curl and containerd print a proxy's address as they got it.
_URL_USER = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/@\"']+@", re.IGNORECASE)
_AUTHORIZATION = re.compile(
    r"((?:proxy-)?authorization\"?\s*[:=]\s*\[?\"?(?:basic|bearer)\s+)(?!\[hidden)[^\s\"',\]]+", re.IGNORECASE
)
_AGE_KEY = re.compile(r"AGE-(?:SECRET-KEY|PLUGIN)-[0-9A-Z-]+", re.IGNORECASE)  # age's own format, in capitals or not
_TOKEN_FLAG = re.compile(r"(--token[ =])\S+")


def redact(text: str) -> str:
    """Return the text with private keys, bootstrap tokens, service account tokens and certificate keys hidden.

    Control characters but tab and newline become U+FFFD, first: no secret passes by holding one.
    """
    text = _CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _PEM.sub(HIDDEN, text)
    text = _JWT.sub(HIDDEN, text)
    text = _AGE_KEY.sub(HIDDEN, text)
    text = _BOOTSTRAP_TOKEN.sub(HIDDEN, text)
    text = _CERTIFICATE_KEY.sub(rf"\g<1>{HIDDEN}", text)
    text = _URL_USER.sub(rf"\g<1>{HIDDEN}@", text)
    text = _AUTHORIZATION.sub(rf"\g<1>{HIDDEN}", text)
    text = _TOKEN_FLAG.sub(rf"\g<1>{HIDDEN}", text)
    return _YAML_SECRET.sub(rf"\g<1>{HIDDEN}", text)


def tail(text: str, lines: int = 12, width: int = 400) -> str:
    """Return the last lines of a text, redacted and each cut to a width, for an error message."""
    kept = [line[:width] for line in redact(text).strip().splitlines() if line.strip()]
    return "\n".join(kept[-lines:])


def keep_ends(text: str, limit: int) -> str:
    """Return a text in one line of at most `limit` characters: what is cut out is its middle.

    A program's long error begins with what was tried and ends with the cause.
    """
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    last = limit * 2 // 3
    return f"{line[: limit - last - 5].rstrip()} ... {line[-last:].lstrip()}"
