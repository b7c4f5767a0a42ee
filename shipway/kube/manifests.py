"""Manifests: our own templates filled in, and foreign ones by path or URL, used only if their SHA-256 is right."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from shipway.cluster.model import Cluster
from shipway.cluster.parts import Manifest
from shipway.errors import Refused, Transient
from shipway.foreign.errors import describe_error
from shipway.foreign.yaml import read_all
from shipway.kube.access import save_secret
from shipway.kube.paths import Object
from shipway.rules.files import ADD_ONS

TEMPLATES = Path(__file__).resolve().parents[2] / "manifests"
DOWNLOAD_SECONDS = 60.0
CONNECT_SECONDS = 15.0
LARGEST = 16 * 1024 * 1024  # bytes; Calico's definitions, the largest we know, are 2 MB
_HOLE = re.compile(r"\$\{([a-z_]+)\}")
_ABSENT = object()


def render(template: str, **values: Any) -> list[Object]:
    """Return the objects of one of our templates with its holes `${name}` filled.

    Holes are filled after the YAML was read, so that no value can change the structure: a hole that is a whole value
    takes any type (None leaves its key out), a hole inside a text takes text. Raises KeyError for a hole without a
    value and ValueError for a value without a hole: both are faults of ours, found by tests.
    """
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    unused = set(values) - set(_HOLE.findall(text))
    if unused:
        raise ValueError(f"{template} has no hole for {', '.join(sorted(unused))}")
    return [_fill(document, values) for document in read_all(text) if document]


def _fill(part: Any, values: dict[str, Any]) -> Any:
    """Return a part of a template with its holes filled."""
    if isinstance(part, dict):
        pairs = {key: _fill(value, values) for key, value in part.items()}
        return {key: value for key, value in pairs.items() if value is not _ABSENT}
    if isinstance(part, list):
        return [entry for entry in (_fill(entry, values) for entry in part) if entry is not _ABSENT]
    if not isinstance(part, str):
        return part
    whole = _HOLE.fullmatch(part)
    if whole:
        value = values[whole[1]]
        return _ABSENT if value is None else value
    return _HOLE.sub(lambda hole: str(values[hole[1]]), part)


def parse(text: str, *, where: str) -> list[Object]:
    """Return the objects of a YAML stream, lists opened; raises Refused that names the document that is no object.

    `status` and empty creation times, which generators leave in, are the server's and are dropped.
    """
    try:
        documents = [document for document in read_all(text) if document is not None]
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise Refused(f"manifest {where} is not YAML: {error}", code="SHW-110") from error
    objects: list[Object] = []
    for number, document in enumerate(documents, 1):
        is_list = isinstance(document, dict) and str(document.get("kind", "")).endswith("List") and "items" in document
        members = (document["items"] or ()) if is_list else [document]
        members = members if isinstance(members, list | tuple) else [members]
        objects.extend(_whole(obj, f"manifest {where}, document {number}") for obj in members)
    if not objects:
        raise Refused(f"manifest {where} holds no object", code="SHW-110")
    return objects


def _whole(obj: Any, where: str) -> Object:
    """Return an object that has all that a request needs."""
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
        raise Refused(f"{where} is no Kubernetes object", code="SHW-110")
    missing = [key for key in ("apiVersion", "kind") if not isinstance(obj.get(key), str)]
    missing += [] if isinstance(obj["metadata"].get("name"), str) else ["metadata.name"]
    if missing:
        raise Refused(f"{where} has no {' and no '.join(missing)}", code="SHW-110")
    meta = {key: value for key, value in obj["metadata"].items() if not (key == "creationTimestamp" and value is None)}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": meta}


def add_on(name: str) -> list[Object]:
    """Return the objects of an add-on, file after file of its folder."""
    texts = [file.read_text(encoding="utf-8") for file in sorted((ADD_ONS / name).glob("*.yaml"))]
    return parse("\n---\n".join(texts), where=f"addons/{name}")


def images_of(objects: Sequence[Object]) -> list[str]:
    """Return the images of the pods that these objects make."""
    pods = [obj["spec"]["template"]["spec"] for obj in objects if "template" in (obj.get("spec") or {})]
    return [one["image"] for pod in pods for one in (*pod.get("initContainers", ()), *pod["containers"])]


@dataclass(frozen=True)
class ForeignManifest:
    """The objects of a manifest somebody else wrote; read once, and kept by its SHA-256 when it was downloaded."""

    name: str
    manifest: Manifest
    cache: Path
    change: Callable[[list[Object]], list[Object]] = lambda objects: objects
    _loaded: list[Object] = field(default_factory=list, compare=False, repr=False)

    async def load(self) -> Sequence[Object]:
        """Return the objects; raises Refused (unreadable, wrong SHA-256, no manifest), Transient (download failed)."""
        if not self._loaded:
            where = self.manifest.url or self.manifest.path or self.name
            data = await self.fetched()
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise Refused(f"manifest {where} is not UTF-8 text", code="SHW-110") from error
            # In a thread: megabytes of YAML would keep every SSH connection waiting for a second.
            objects = self.change(await asyncio.to_thread(parse, text, where=where))
            self._loaded[:] = objects  # two who ask at once read it twice, and hold it once
        return self._loaded

    async def fetched(self) -> bytes:
        """Return the content as it is pinned; raises as `load`."""
        where = self.manifest.url or self.manifest.path or self.name
        return _verify(await self._bytes(), self.manifest.sha256, f"{self.name} ({where})")

    async def _bytes(self) -> bytes:
        """Return the content from its path, the cache, or its URL; a download is cached once it is verified."""
        if self.manifest.url is None:
            return _read(self.manifest.path or "", self.name)
        kept = self.cache / f"{self.manifest.sha256}.yaml"
        if kept.is_file():
            data = kept.read_bytes()
            if hashlib.sha256(data).hexdigest() == self.manifest.sha256:
                return data
        data = await _download(self.manifest.url, self.name)
        _verify(data, self.manifest.sha256, f"{self.name} ({self.manifest.url})")
        save_secret(kept, data.decode("utf-8", errors="replace"))  # no secret, but whole or not at all
        return data


def _read(path: str, name: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise Refused(f"manifest {name} cannot be read: {describe_error(error)}", code="SHW-111") from error


def _verify(data: bytes, sha256: str | None, what: str) -> bytes:
    """Return the data if it is what the cluster file pins; a local file may be without a pin."""
    found = hashlib.sha256(data).hexdigest()
    if sha256 and found != sha256:
        fix = "Do not use it: find out why it changed. If that is right, write the new sha256 into the cluster file."
        raise Refused(f"manifest {what} has sha256 {found}, not {sha256}", code="SHW-112", fix=fix)
    return data


async def _download(url: str, name: str) -> bytes:
    """Return what is at the URL; through the proxy of the environment, where it names one."""
    fix = f"Check that {url} can be reached from here, or name a local copy under sources.manifests.{name}.path."
    timeout = aiohttp.ClientTimeout(total=DOWNLOAD_SECONDS, sock_connect=CONNECT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session, session.get(url) as answer:
            if answer.status != 200:  # noqa: PLR2004 - HTTP success
                retry = answer.status >= 500 or answer.status == 429  # noqa: PLR2004 - the server's trouble, not ours
                message = f"manifest {name}: {url} answered {answer.status} {answer.reason}"
                raise Transient(message, code="SHW-208", fix=fix, retry=retry)
            data = await answer.content.read(LARGEST + 1)
            while len(data) <= LARGEST and (more := await answer.content.read(LARGEST)):
                data += more
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        said = describe_error(error)
        raise Transient(f"manifest {name} cannot be downloaded from {url} ({said})", code="SHW-208", fix=fix) from error
    if len(data) > LARGEST:
        raise Refused(f"manifest {name}: {url} is larger than {LARGEST} bytes", code="SHW-110")
    return data


def foreign(
    cluster: Cluster, name: str, change: Callable[[list[Object]], list[Object]] = lambda objects: objects
) -> ForeignManifest:
    """Return a manifest of the cluster file's `sources.manifests`; raises Refused where it is not named there."""
    manifest = cluster.sources.manifests.get(name)
    if manifest is None:
        fix = f"Name it: sources.manifests.{name} with url and sha256, or with path."
        raise Refused(f"sources.manifests.{name} is needed and not named", code="SHW-113", fix=fix)
    return ForeignManifest(name, manifest, Path(cluster.state_dir).expanduser() / "manifests", change)
