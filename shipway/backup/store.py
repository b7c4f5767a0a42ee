"""Backups in an object store that speaks S3: each whole or not there, its files' SHA-256 kept and told by the store.

boto3 is an extra that only this module imports. Who may write there is known by the environment or AWS's usual files of
this machine (AWS_ACCESS_KEY_ID, ~/.aws/credentials): no word of it passes through Shipway, or stands in a cluster file.

A backup's objects are BUCKET/PREFIX/CLUSTER/NAME/PATH, `manifest.json` last, so one without it is none. While it is
sent, `.uploading` is there with the same text: by that a broken-off one is ours, and goes with the next.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from shipway.backup.kept import MANIFEST, VERIFIED, LocalFolder, find_too_many, open_private, read_manifest
from shipway.backup.sealed import SUFFIX
from shipway.backup.state import NAME, taken_at
from shipway.cluster.parts import ObjectStore
from shipway.errors import Permanent, Refused, ShipwayError, Transient
from shipway.redact import redact

PART = 8 << 20  # bytes of one part, held in memory; S3 takes 10,000 of them and none below 5 MiB but the last
UPLOADING = ".uploading"
_DENIED = (401, 403)
_OWN_FAULT = 500
_NOT_THERE = 404
_ELSEWHERE = ("iam-role", "container-role")  # botocore's ways to ask a server of the machine's cloud
KEYS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and ~/.aws/credentials, for the user that runs "
    "Shipway on this machine; then run again."
)


def boto() -> Any:
    """Return the library that speaks S3; raises Refused SHW-758 where it is not installed."""
    try:
        import boto3  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "backups are kept in an object store, and the library boto3 is not installed on this machine"
        fix = "`pip install 'shipway[s3]'` into the environment that runs Shipway, then run again."
        raise Refused(message, code="SHW-758", fix=fix) from error
    logging.getLogger("botocore").setLevel(logging.WARNING)  # below that it logs headers, with tokens in them
    return boto3


def _client(spec: ObjectStore) -> Any:
    """Return a client by the credentials of this machine; raises Refused SHW-758 without the library, or any."""
    library = boto()
    import botocore.session  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    own = botocore.session.Session()
    try:
        for way in _ELSEWHERE:
            own.get_component("credential_provider").remove(way)
        session = library.session.Session(botocore_session=own)
        if session.get_credentials() is None:
            message = "an object store is declared for backups, and this machine has no credentials for it"
            raise Refused(message, code="SHW-758", fix=KEYS)
        style = {"addressing_style": "path"} if spec.endpoint else {}
        config = Config(
            s3=style,
            connect_timeout=10,
            read_timeout=120,
            retries={"mode": "standard", "total_max_attempts": 5},
            # Sums of the library's own choice are not known to every store; ours are sent, and compared, by ourselves.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return session.client("s3", endpoint_url=spec.endpoint, region_name=spec.region, config=config)
    except BotoCoreError as error:  # a profile that is not there, a file that cannot be read
        raise Refused(f"the object store's client: {_said(error)}", code="SHW-758", fix=KEYS) from error


def _said(error: BaseException) -> str:
    return redact(" ".join(str(error).split()))[:300]


@contextlib.contextmanager
def _asking(what: str) -> Iterator[None]:
    """Raise what the library raises as errors of ours: Permanent SHW-759 for a refusal, Transient where it may pass."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - an extra

    try:
        yield
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        message = f"{what}: {_said(error)}"
        if status >= _OWN_FAULT:
            fix = "Run again; where it stays so, ask who runs the store."
            raise Transient(message, code="SHW-759", fix=fix) from error
        allowed = "its key must be allowed to list, read, write and delete there" if status in _DENIED else ""
        fix = f"See `backup.s3` (bucket, endpoint, region); {allowed or 'then run again'}."
        raise Permanent(message, code="SHW-759", fix=fix) from error
    except BotoCoreError as error:
        fix = "See that this machine reaches `backup.s3.endpoint`, and run again."
        raise Transient(f"{what}: {_said(error)}", code="SHW-759", fix=fix) from error


@dataclass
class Sum:
    """The SHA-256 of an object as S3 tells it: of its bytes, or of the SHA-256s of its parts (a composite)."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    _left: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> list[bytes]:
        """Take some bytes; return the parts that are full by now."""
        self.size += len(data)
        self._left += data
        full = []
        while len(self._left) > PART:  # the last part is never empty, but for an empty object
            full.append(bytes(self._left[:PART]))
            del self._left[:PART]
        self.parts += [hashlib.sha256(part).digest() for part in full]
        return full

    def end(self) -> bytes:
        """Return the last part, which ends the sum."""
        last, self._left = bytes(self._left), bytearray()
        self.parts.append(hashlib.sha256(last).digest())
        return last

    @property
    def said(self) -> str:
        """It in letters, without the number of parts that S3 writes behind a composite."""
        whole = self.parts[0] if len(self.parts) == 1 else hashlib.sha256(b"".join(self.parts)).digest()
        return base64.b64encode(whole).decode()


@dataclass
class Upload:
    """One object on its way: sent in parts as it is written, each with its SHA-256; there only once it is finished."""

    store: Store
    key: str
    failed: ShipwayError | None = None
    sum: Sum = field(default_factory=Sum)
    _id: str = ""
    _tags: list[dict[str, Any]] = field(default_factory=list)

    def write(self, data: bytes) -> int:
        """Send the parts that are full by now."""
        try:
            for part in self.sum.add(data):
                self._send(part, len(self._tags) + 1)
        except ShipwayError as error:
            self.failed = error  # what writes may be age's thread, which tells another error
            raise
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is not a whole part waits."""

    def _send(self, part: bytes, number: int) -> None:
        store, told = self.store, base64.b64encode(hashlib.sha256(part).digest()).decode()
        with _asking(f"{self.key} could not be sent to {store.where}"):
            if not self._id:
                started = store.client.create_multipart_upload(**store.at(self.key), ChecksumAlgorithm="SHA256")
                self._id = str(started["UploadId"])
            sent = store.client.upload_part(
                **store.at(self.key), UploadId=self._id, PartNumber=number, Body=part, ChecksumSHA256=told
            )
        self._tags.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": told})

    def finish(self) -> None:
        """Send the rest, and let the store say what it has. Raises Permanent SHW-760 where that is something else."""
        store, last = self.store, self.sum.end()
        if self._id:
            self._send(last, len(self._tags) + 1)
            with _asking(f"{self.key} could not be ended in {store.where}"):
                parts = {"Parts": self._tags}
                store.client.complete_multipart_upload(**store.at(self.key), UploadId=self._id, MultipartUpload=parts)
            self._id = ""
        else:
            with _asking(f"{self.key} could not be sent to {store.where}"):
                told = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": self.sum.said}
                store.client.put_object(**store.at(self.key), Body=last, **told)
        store.compare(self.key, self.sum)

    def abort(self) -> None:
        """Leave nothing of it in the store; what keeps from that is the next upload's affair."""
        if self._id:
            with contextlib.suppress(ShipwayError), _asking("an upload could not be given up"):
                self.store.client.abort_multipart_upload(**self.store.at(self.key), UploadId=self._id)


@dataclass(frozen=True)
class Store:
    """The place of a cluster's backups in an object store."""

    spec: ObjectStore
    cluster: str

    @cached_property
    def client(self) -> Any:
        """The library's client; raises Refused SHW-758."""
        return _client(self.spec)

    @property
    def base(self) -> str:
        """What the keys of this cluster's objects begin with."""
        return "/".join(filter(None, ((self.spec.prefix or "").strip("/"), self.cluster))) + "/"

    @property
    def where(self) -> str:
        """The place, for people."""
        return f"s3://{self.spec.bucket}/{self.base}".rstrip("/")

    def at(self, key: str) -> dict[str, str]:
        """Return how an object of this cluster is named to the library."""
        return {"Bucket": self.spec.bucket, "Key": f"{self.base}{key}"}

    def look(self) -> None:
        """Ask for the bucket, and list what is there. Raises SHW-758 and SHW-759."""
        self.list_names()

    def read(self, key: str) -> bytes | None:
        """Return a small object; None where there is none."""
        client = self.client
        try:
            with _asking(f"{key} cannot be read in {self.where}"):
                return bytes(client.get_object(**self.at(key))["Body"].read())
        except Permanent as error:
            if _is_missing(error):
                return None
            raise

    def head(self, key: str) -> Mapping[str, Any] | None:
        """Return what the store says of an object, its SHA-256 too; None where there is none."""
        client = self.client
        try:
            with _asking(f"{key} cannot be looked at in {self.where}"):
                return dict(client.head_object(**self.at(key), ChecksumMode="ENABLED"))
        except Permanent as error:
            if _is_missing(error):
                return None
            raise

    def compare(self, key: str, wanted: Sum) -> None:
        """Compare what the store says of an object with what was sent. Raises Permanent SHW-760."""
        told = self.head(key) or {}
        size, checksum = told.get("ContentLength"), str(told.get("ChecksumSHA256") or "")
        if size == wanted.size and checksum.partition("-")[0] == wanted.said:
            return
        fault = "is not what was sent" if checksum or size != wanted.size else "has no SHA-256 there"
        fix = (
            "The store must keep and tell the SHA-256 that an object is sent with (x-amz-checksum-sha256): see its "
            "documentation and version; then run again."
        )
        raise Permanent(f"{self.where}/{key} {fault}: nobody could tell that it is whole", code="SHW-760", fix=fix)

    def put(self, key: str, content: bytes) -> None:
        """Send a small object, and compare what the store has."""
        upload = Upload(self, key)
        upload.write(content)
        upload.finish()

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a kept backup's manifest; "" where it is not kept, or not whole."""
        text = self.read(f"{name}/{MANIFEST}")
        return hashlib.sha256(text).hexdigest() if text is not None else ""

    def sealed(self, name: str) -> bool:
        """Say whether a kept backup is encrypted."""
        return self.head(f"{name}/snapshot.db{SUFFIX}") is not None

    def list_names(self) -> list[str]:
        """Return the names below this cluster's place that a backup may have, newest first."""
        found = []
        for page in self._pages(self.base, "/"):
            prefixes = [str(one["Prefix"]) for one in page.get("CommonPrefixes") or ()]
            found += [name for one in prefixes if _is_name(name := one.removeprefix(self.base).rstrip("/"))]
        return sorted(found, reverse=True)

    def _pages(self, prefix: str, delimiter: str = "") -> Iterator[Mapping[str, Any]]:
        pages = self.client.get_paginator("list_objects_v2")
        with _asking(f"{self.where} cannot be listed"):
            more = {"Delimiter": delimiter} if delimiter else {}
            yield from pages.paginate(Bucket=self.spec.bucket, Prefix=prefix, **more)

    def _ours(self, name: str, file: str) -> bool:
        text = self.read(f"{name}/{file}")
        try:
            return text is not None and bool(read_manifest(text.decode(errors="replace"), self.cluster))
        except Permanent:
            return False

    def names(self) -> list[str]:
        """Return the backups that are whole, and ours by their manifest, newest first."""
        return [
            name
            for name in self.list_names()
            if self._ours(name, MANIFEST) and self.head(f"{name}/{VERIFIED}") is not None
        ]

    def begin(self, name: str, manifest: str) -> None:
        """Say in the store what is sent now, and take away what an earlier upload left that was broken off."""
        for other in self.list_names():
            if self._ours(other, UPLOADING) and (other == name or self.read(f"{other}/{MANIFEST}") is None):
                self._empty(other)
        with _asking(f"uploads cannot be listed in {self.where}"):
            found = self.client.list_multipart_uploads(Bucket=self.spec.bucket, Prefix=self.base).get("Uploads") or ()
            for one in found:
                if _is_name(str(one["Key"]).removeprefix(self.base).partition("/")[0]):
                    self.client.abort_multipart_upload(
                        Bucket=self.spec.bucket, Key=one["Key"], UploadId=one["UploadId"]
                    )
        self.put(f"{name}/{UPLOADING}", manifest.encode())

    def finish(self, name: str, manifest: str, *, sealed: bool) -> None:
        """Make a backup whose files are all there, encrypted or not, a whole one; what lay there otherwise goes."""
        self.put(f"{name}/{MANIFEST}", manifest.encode())
        other = "" if sealed else SUFFIX
        files = read_manifest(manifest, self.cluster)["files"]
        self._delete([self.at(f"{name}/{path}{other}")["Key"] for path in files])
        self._delete([self.at(f"{name}/{UPLOADING}")["Key"]])

    def too_many(self, keep: int, days: int, now: datetime) -> list[str]:
        """Return the backups that are one too many or too old; the newest is never among them."""
        ours = [name for name in self.list_names() if self._ours(name, MANIFEST)]
        return find_too_many(ours, keep, days, now)

    def remove(self, name: str) -> None:
        """Remove a backup; what tells that it is whole goes first, what tells that it is ours last."""
        self._delete([self.at(f"{name}/{VERIFIED}")["Key"]])
        self._empty(name)

    def _empty(self, name: str) -> None:
        last = {self.at(f"{name}/{MANIFEST}")["Key"], self.at(f"{name}/{UPLOADING}")["Key"]}
        keys = [str(one["Key"]) for page in self._pages(f"{self.base}{name}/") for one in page.get("Contents") or ()]
        self._delete([key for key in keys if key not in last])
        self._delete([key for key in keys if key in last])

    def _delete(self, keys: Sequence[str]) -> None:
        """Delete objects one by one: the call for many asks for checksums that not every store knows."""
        for key in keys:
            with _asking(f"{key} cannot be removed from {self.spec.bucket}"):
                self.client.delete_object(Bucket=self.spec.bucket, Key=key)

    def fetch(self, name: str, folder: LocalFolder) -> None:
        """Bring a backup into a folder of this machine, as it lies there: each file compared with the store's SHA-256.

        Raises Permanent SHW-731 for a manifest that is not ours, SHW-760 for an object that is not what the store
        says, and OSError.
        """
        text = (self.read(f"{name}/{MANIFEST}") or b"").decode(errors="replace")
        manifest = read_manifest(text, self.cluster)
        suffix = SUFFIX if self.sealed(name) else ""
        part = folder.begin(name)
        for path in (*(f"{one}{suffix}" for one in manifest["files"]), VERIFIED, MANIFEST):
            self._bring(f"{name}/{path}", part / path)
        folder.finish(name, part)

    def _bring(self, key: str, to: Path) -> None:
        seen = Sum()
        with open_private(to) as file, _asking(f"{key} cannot be read in {self.where}"):
            body = self.client.get_object(**self.at(key))["Body"]
            while data := body.read(1 << 20):
                seen.add(data)
                file.write(data)
        seen.end()
        self.compare(key, seen)


def _is_name(text: str) -> bool:
    try:
        return bool(NAME.fullmatch(text) and taken_at(text))
    except ValueError:
        return False


def _is_missing(error: Permanent) -> bool:
    response = getattr(error.__cause__, "response", {})
    return bool(response.get("ResponseMetadata", {}).get("HTTPStatusCode") == _NOT_THERE) and (
        response.get("Error", {}).get("Code") != "NoSuchBucket"
    )
