"""Container images written straight into the folder of a docker-registry: no engine, the same bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STORE = Path("docker/registry/v2")  # docker-registry's storage layout, version 2
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CREATED = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Image:
    """An image of one layer: `files` maps a path in it to a file or folder here, `links` to a link's target."""

    names: tuple[str, ...]
    files: dict[str, Path]
    links: dict[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return an entry that is the same whenever and by whomever it was built."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def _layer(image: Image) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in image.folders:
            entry = tarfile.TarInfo(path.strip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if path == "/tmp" else 0o755  # noqa: S108 - the image's own
            tar.addfile(entry)
        for path, source in sorted(image.files.items()):
            for found in sorted(source.rglob("*")) if source.is_dir() else [source]:
                below = found.relative_to(source) if source.is_dir() else Path()
                tar.add(found, arcname=str(Path(path.lstrip("/")) / below), recursive=False, filter=_plain)
        for path, target in sorted(image.links.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


class Registry:
    """The folder that docker-registry serves."""

    def __init__(self, root: Path) -> None:
        self.store = root / STORE

    def _blob(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        path = self.store / "blobs" / "sha256" / digest[:2] / digest / "data"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"sha256:{digest}"

    @staticmethod
    def _link(path: Path, digest: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "link").write_text(digest)

    def _piece(self, kind: str, content: bytes) -> dict[str, Any]:
        return {"mediaType": kind, "size": len(content), "digest": self._blob(content)}

    def add(self, image: Image) -> str:
        """Store an image under all its names (`repository:tag`); gives its digest."""
        layer = _layer(image)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": {"Env": image.env, "Entrypoint": image.entrypoint or None, "Cmd": image.command or None},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created": CREATED, "created_by": "shipway lab"}],
        }
        head = self._piece(CONFIG_TYPE, json.dumps(config, sort_keys=True).encode())
        body = self._piece(LAYER_TYPE, gzip.compress(layer, compresslevel=1, mtime=0))
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": head, "layers": [body]}
        digest = self._blob(json.dumps(manifest, sort_keys=True).encode())
        for name in image.names:
            repository, tag = name.rsplit(":", 1)
            folder = self.store / "repositories" / repository
            for blob in (head, body):
                algorithm, value = blob["digest"].split(":")
                self._link(folder / "_layers" / algorithm / value, blob["digest"])
            value = digest.split(":")[1]
            self._link(folder / "_manifests" / "revisions" / "sha256" / value, digest)
            self._link(folder / "_manifests" / "tags" / tag / "current", digest)
            self._link(folder / "_manifests" / "tags" / tag / "index" / "sha256" / value, digest)
        return digest
