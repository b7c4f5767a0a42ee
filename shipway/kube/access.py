"""What admin.conf gives: where the API is, whose certificate to trust, and who we are; kept in memory."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shipway.errors import Blocked, Refused
from shipway.foreign.yaml import read_yaml
from shipway.ownership.evidence import authorities

ADMIN_CONF = "/etc/kubernetes/admin.conf"
HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Access:
    """The way into one cluster; certificates and keys are PEM texts and never shown."""

    host: str
    port: int
    ca: str = field(repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


def parse_admin_conf(text: str, *, host: str = "") -> Access:
    """Return the access that a kubeconfig's current context names; raises Blocked when it is not whole.

    The message never holds any of its content: half of it is a private key. `host` is where the file was read.
    """
    try:
        config = read_yaml(text)
        context = _find_named(config, "contexts", "context", config["current-context"])
        cluster = _find_named(config, "clusters", "cluster", context["cluster"])
        user = _find_named(config, "users", "user", context["user"])
        server = urlsplit(cluster["server"])
        access = Access(
            host=server.hostname or "",
            port=server.port or HTTPS_PORT,
            ca=_pem(cluster, "certificate-authority-data"),
            certificate=_pem(user, "client-certificate-data"),
            key=_pem(user, "client-key-data"),
            token=str(user.get("token", "")),
        )
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        raise _unusable("it is not a complete kubeconfig", host) from None  # the cause would quote the file
    if server.scheme != "https" or not access.host or not access.ca:
        raise _unusable("it names no https server with its certificate authority", host)
    if not ((access.certificate and access.key) or access.token):
        raise _unusable("it holds neither a client certificate with its key nor a token", host)
    return access


def _find_named(config: Mapping[str, Any], section: str, content: str, name: str) -> Mapping[str, Any]:
    """Return the content of the entry with that name in a kubeconfig's list."""
    found: Mapping[str, Any] = next(entry for entry in config[section] if entry["name"] == name)[content]
    return found


def _pem(entry: Mapping[str, Any], key: str) -> str:
    """Return a base64 field as text; empty where it is not there."""
    try:
        return base64.b64decode(entry.get(key, ""), validate=True).decode("ascii")
    except binascii.Error as error:
        raise ValueError(key) from error


def _unusable(why: str, host: str) -> Blocked:
    fix = f"Make it anew on that host with `kubeadm init phase kubeconfig admin`, after moving {ADMIN_CONF} away."
    return Blocked(f"{ADMIN_CONF} cannot be used: {why}", host=host, fix=fix)


@contextlib.contextmanager
def as_file(text: str) -> Iterator[str]:
    """Yield a path that a library reads the text from: anonymous memory on Linux, else a 0600 file that is removed."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("shipway")
        try:
            os.write(descriptor, text.encode())
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile("w", encoding="ascii") as file:  # mode 0600 from the start
        file.write(text)
        file.flush()
        yield file.name


def own_folder(path: Path) -> None:
    """Make a folder and what is missing above it, each open to its owner alone, whatever the umask is.

    `Path.mkdir` gives its mode to the last folder only: who may write to one above it could put another in its place.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def save_secret(path: Path, text: str) -> None:
    """Put a secret into a file: mode 0600 from the first byte, whole or not at all; the folder is made with 0700.

    Raises OSError when the place cannot be written.
    """
    own_folder(path.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def from_outside(text: str, name: str, address: str) -> str:
    """Return an administrator's kubeconfig for a machine that is no host of the cluster, and so does not know the name.

    It leads to one control plane by its address, and expects the name on the certificate (`tls-server-name`), whatever
    server that host's own admin.conf names.
    """
    server = re.compile(r"^(\s*)server: https://[^\s/]+:(\d+)/?\s*?$(?!\n\s*tls-server-name:)", re.MULTILINE)
    return server.sub(rf"\1server: https://{address}:\2\n\1tls-server-name: {name}", text)


def save_kubeconfig(path: Path, text: str) -> None:
    """Put an administrator's kubeconfig where kubectl finds it (KUBECONFIG=path), as `save_secret` does.

    Raises Refused (SHW-320) where a kubeconfig of another authority is there: it may be the only one of its cluster.
    """
    path = path.expanduser()
    kept = read_authorities(path)
    if kept is not None and not kept & _authorities_in(text):
        message = f"{path} is the kubeconfig of another cluster, and is never overwritten"
        fix = "Give one of the two another `name` or `state_dir` in its file, or move that kubeconfig away yourself."
        raise Refused(message, code="SHW-320", fix=fix)
    save_secret(path, text)


def read_authorities(path: Path) -> frozenset[str] | None:
    """Return the authorities of a kubeconfig on this machine: None where there is no file, none for an unusable one."""
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        return frozenset()
    return _authorities_in(text)


def _authorities_in(text: str) -> frozenset[str]:
    try:
        return authorities(parse_admin_conf(text).ca)
    except Blocked:
        return frozenset()
