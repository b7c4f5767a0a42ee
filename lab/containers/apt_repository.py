"""Flat, signed apt repositories: packages in, indices and signatures out."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from lab.containers.commands import run

KEY_NAME = "Shipway lab archive <lab@localhost>"


class SigningKey:
    """The lab's archive key, made once per cache: its fingerprint stays the same for all labs of this machine."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700, parents=True, exist_ok=True)

    def gpg(self, *words: str | Path) -> str:
        """Return the output of one gpg call on this key's own keyring."""
        return run("gpg", "--homedir", self.home, "--batch", "--yes", "--no-tty", *words)

    def _fingerprints(self) -> list[str]:
        lines = [line.split(":") for line in self.gpg("--list-keys", "--with-colons").splitlines()]
        return [fields[9] for fields in lines if fields[0] == "fpr"]

    def fingerprint(self) -> str:
        """Return the 40 digits of the key's fingerprint; makes the key where there is none."""
        if not self._fingerprints():
            self.gpg("--passphrase", "", "--quick-generate-key", KEY_NAME, "rsa3072", "sign", "never")
        return self._fingerprints()[0]

    def public(self) -> str:
        """Return the armoured public key."""
        return self.gpg("--armor", "--export", self.fingerprint())

    def close(self) -> None:
        """End the agent that gpg started for this keyring."""
        run("gpgconf", "--homedir", self.home, "--kill", "all")


def index(folder: Path, name: str, key: SigningKey) -> None:
    """Make one folder of .deb files a repository `./`: Packages, Release, InRelease and the public key.

    Origin and Label never change: apt refuses a mirror where they do.
    """
    packages = run("apt-ftparchive", "packages", ".", cwd=folder) + "\n"
    (folder / "Packages").write_text(packages)
    (folder / "Packages.gz").write_bytes(gzip.compress(packages.encode(), mtime=0))
    names = {"Origin": "shipway-lab", "Label": f"shipway-lab-{name}", "Suite": "lab", "Codename": "lab"}
    options = [word for field, value in names.items() for word in ("-o", f"APT::FTPArchive::Release::{field}={value}")]
    release = run("apt-ftparchive", *options, "release", ".", cwd=folder) + "\n"
    (folder / "Release").write_text(release)
    user = ("--local-user", key.fingerprint(), "--digest-algo", "SHA512")
    key.gpg(*user, "--clearsign", "--output", folder / "InRelease", folder / "Release")
    key.gpg(*user, "--detach-sign", "--armor", "--output", folder / "Release.gpg", folder / "Release")
    (folder / "Release.key").write_text(key.public() + "\n")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
