"""Backups in an object store: whole or not there, encrypted on their way, believed by the store's own SHA-256."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyrage
import pytest
from botocore.loaders import Loader

from shipway.backup import store as stores
from shipway.backup.kept import LocalFolder
from shipway.backup.sealed import IDENTITY
from shipway.backup.store import UPLOADING, Store, Sum, Upload
from shipway.cluster.parts import ObjectStore
from shipway.cluster_file import parse_cluster
from shipway.converge import converge
from shipway.errors import Permanent, Refused, ShipwayError, Transient
from shipway.host.session import Host
from shipway.step import Impact, StepResult
from shipway.steps.backup.brought import BackupBrought
from shipway.steps.backup.stored import KeptInStore, NotTooManyStored, StoreReady
from tasks.backup import restores
from tasks.context import Run
from tests.backup.machine import LocalShell, Machine
from tests.backup.object_store import ObjectServer, serving
from tests.backup.test_several_steps import FILE

pytestmark = pytest.mark.long  # each starts a store, and most take a backup for it

OWNER = pyrage.x25519.Identity.generate()
TO = (str(OWNER.to_public()),)
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"  # noqa: S105 - AWS's own example
OLD = ("20261101T000000Z", "20261102T000000Z", "20261103T000000Z")


@cache
def _loader(*_: object) -> Loader:
    return Loader()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectServer]:
    """A store with a bucket, and credentials in this process's environment."""
    from moto.core.models import DEFAULT_ACCOUNT_ID  # noqa: PLC0415 - 0.8 s, for these tests alone
    from moto.s3.models import s3_backends  # noqa: PLC0415

    monkeypatch.setattr("botocore.session.create_loader", _loader)  # what it reads of S3 is the same for every client
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
    with serving() as made:
        store_of(made).client.create_bucket(Bucket="backups-1")
        yield made


def store_of(server: ObjectServer, **changes: Any) -> Store:
    values = {"bucket": "backups-1", "prefix": "sites/a", "endpoint": server.url, "region": "us-east-1", **changes}
    return Store(ObjectStore(**values), "te")


def keys(store: Store) -> set[str]:
    return {one["Key"] for page in store._pages("") for one in page.get("Contents") or ()}


def taken(folder: Path, kind: type[Machine] = Machine) -> tuple[Machine, Host, str]:
    """Return a host on which a backup was taken, and its name."""
    machine = kind(folder)
    code, said = machine.run("take")
    assert code == 0, said
    return machine, Host("cp1", LocalShell(machine)), machine.names()[0]


def kept_of(machine: Machine, store: Store, recipients: tuple[str, ...] = TO) -> KeptInStore:
    return KeptInStore((machine.here / "script").read_text(), store, str(machine.root), recipients)


async def sent(step: KeptInStore, on: Host) -> StepResult:
    (result,) = await converge([step], on, Impact.FILES)
    return result


async def test_a_backup_goes_encrypted_into_the_store_and_comes_back_by_the_owners_key(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, on, name = taken(tmp_path / "origin")
    store, bare = store_of(server), Machine(tmp_path / "bare")
    step = kept_of(machine, store)
    assert step.name == "the newest verified backup is kept in s3://backups-1/sites/a/te, encrypted"
    first = await sent(step, on)
    assert (first.outcome, first.error) == ("changed", None)
    assert (await sent(step, on)).outcome == "ok"
    there = keys(store)
    base = f"sites/a/te/{name}/"
    assert all(key.startswith(base) for key in there)
    clear = {key.removeprefix(base) for key in there if not key.endswith(".age")}
    assert clear == {"manifest.json", "verified"}
    bodies = [store.read(key.removeprefix("sites/a/te/")) or b"" for key in there]
    assert not any(b"a key" in body or b"canary old" in body for body in bodies)
    assert store.names() == [name]
    folder = LocalFolder(tmp_path / "fetched", "te")
    (tmp_path / "fetched").mkdir()
    store.fetch(name, folder)
    assert folder.digest(name) == store.digest(name) != ""
    assert not any(path.stat().st_mode & 0o077 for path in (folder.own / name).rglob("*"))
    key = tmp_path / "key"
    key.write_text(f"{OWNER}\n")
    monkeypatch.setenv(IDENTITY, str(key))
    brought = BackupBrought((bare.here / "script").read_text(), folder, name, str(bare.root))
    (result,) = await converge([brought], Host("cp1", LocalShell(bare)), Impact.FILES)
    assert (result.outcome, result.error) == ("changed", None)
    code, said = bare.run("verify", str(bare.root / name))
    assert code == 0, said


async def test_one_in_clear_is_sent_again_once_it_is_to_be_encrypted(server: ObjectServer, tmp_path: Path) -> None:
    machine, on, name = taken(tmp_path / "origin")
    store = store_of(server, prefix=None)
    assert (await sent(kept_of(machine, store, ()), on)).outcome == "changed"
    assert f"te/{name}/snapshot.db" in keys(store)
    assert (await sent(kept_of(machine, store), on)).outcome == "changed"
    assert (await sent(kept_of(machine, store), on)).outcome == "ok"
    assert f"te/{name}/snapshot.db.age" in keys(store)
    assert f"te/{name}/snapshot.db" not in keys(store), "the clear one stayed"


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 20_000])
def test_a_large_object_goes_in_parts_each_with_its_sum_and_the_store_tells_the_whole(
    server: ObjectServer, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(stores, "PART", 4096)
    store, text = store_of(server), os.urandom(size)
    upload = Upload(store, "x/big")
    for at in range(0, size, 1000):
        upload.write(text[at : at + 1000])
    upload.finish()
    assert store.read("x/big") == text
    parts = [one for one in server.asked if "partNumber=" in one]
    assert len(parts) == (0 if size <= 4096 else -(-size // 4096))
    told = Sum()
    told.add(text + b"x")
    told.end()
    with pytest.raises(Permanent) as caught:
        store.compare("x/big", told)
    assert caught.value.code == "SHW-760"


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("a byte is lost", "SHW-759", "BadDigest"),
        ("no sums", "SHW-760", "has no SHA-256 there"),
        ("other sums", "SHW-760", "is not what was sent"),
    ],
)
async def test_what_the_store_has_otherwise_is_never_called_kept(
    server: ObjectServer, tmp_path: Path, fault: str, code: str, said: str
) -> None:
    machine, on, name = taken(tmp_path / "origin")
    store = store_of(server)
    server.faults.add(fault)
    failed = await sent(kept_of(machine, store), on)
    assert failed.outcome == "failed"
    assert failed.error
    assert failed.error.code == code
    assert said in failed.error.message
    server.faults.clear()
    assert store.names() == []
    assert store.digest(name) == ""
    assert (await sent(kept_of(machine, store), on)).outcome == "changed"
    assert store.names() == [name]


async def test_an_upload_that_was_broken_off_is_no_backup_and_goes_with_the_next(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, on, name = taken(tmp_path / "origin")
    store = store_of(server)
    foreign = ("sites/a/te/notes.txt", "sites/a/te/20260101T000000Z/theirs", "sites/a/other/20260101T000000Z/x", "y")
    for key in foreign:
        store.client.put_object(Bucket="backups-1", Key=key, Body=b"theirs")
    monkeypatch.setattr(stores, "PART", 64)
    monkeypatch.setattr(Upload, "abort", lambda _: None)  # as where the controller was killed
    sending = Upload._send

    def dies(upload: Upload, part: bytes, number: int) -> None:
        if "snapshot.db" in upload.key and number == 2:
            raise Transient("the connection is lost")
        sending(upload, part, number)

    with monkeypatch.context() as patched:
        patched.setattr(Upload, "_send", dies)
        assert (await sent(kept_of(machine, store), on)).outcome == "failed"
    assert store.names() == []
    assert f"sites/a/te/{name}/{UPLOADING}" in keys(store)
    assert store.client.list_multipart_uploads(Bucket="backups-1").get("Uploads")
    later, on_later, newer = taken(tmp_path / "later")
    newer_name = newer if newer != name else name
    assert (await sent(kept_of(later, store), on_later)).outcome == "changed"
    assert store.names() == [newer_name]
    left = keys(store)
    assert not [key for key in left if key.endswith(UPLOADING)]
    assert name == newer_name or not [key for key in left if f"/{name}/" in key]
    assert not store.client.list_multipart_uploads(Bucket="backups-1").get("Uploads")
    assert left >= set(foreign)


async def test_only_what_is_ours_by_its_manifest_goes_by_count_and_age(server: ObjectServer, tmp_path: Path) -> None:
    machine, on, name = taken(tmp_path / "origin")
    store = store_of(server)
    assert (await sent(kept_of(machine, store), on)).outcome == "changed"
    manifest = store.read(f"{name}/manifest.json") or b""
    for old in OLD:
        for path in ("manifest.json", "verified", "snapshot.db.age"):
            store.client.put_object(**store.at(f"{old}/{path}"), Body=manifest if path == "manifest.json" else b"x")
    theirs = {"sites/a/te/20200101T000000Z/manifest.json": b'{"made_by": "somebody"}'}
    theirs["sites/a/te/20200102T000000Z/x"] = b""
    for key, body in theirs.items():
        store.client.put_object(Bucket="backups-1", Key=key, Body=body)
    assert store.names() == [name, *reversed(OLD)]
    day = datetime(2026, 11, 4, tzinfo=UTC)
    assert store.too_many(14, 30, day) == []
    assert store.too_many(2, 30, day) == ["20261102T000000Z", "20261101T000000Z"]
    assert store.too_many(14, 2, day) == ["20261101T000000Z"]
    (done,) = await converge([NotTooManyStored(store, 2, 3650)], on, Impact.FILES)
    assert done.outcome == "changed"
    assert store.names() == [name, "20261103T000000Z"]
    assert keys(store) >= set(theirs)
    assert not [key for key in keys(store) if "20261101" in key or "20261102" in key]


async def test_a_removal_that_was_broken_off_leaves_none_that_counts_as_whole(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, on, name = taken(tmp_path / "origin")
    store = store_of(server)
    assert (await sent(kept_of(machine, store), on)).outcome == "changed"

    def dies(*_: Any) -> None:
        raise Transient("the connection is lost")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_empty", dies)
        with pytest.raises(Transient):
            store.remove(name)
    assert store.names() == []
    assert store.too_many(0, 30, datetime.now(UTC)) == []  # the only one is the newest: it stays, by count and age
    store.remove(name)
    assert keys(store) == set()


async def test_an_object_that_was_changed_in_the_store_is_not_brought(server: ObjectServer, tmp_path: Path) -> None:
    machine, on, name = taken(tmp_path / "origin")
    store = store_of(server)
    assert (await sent(kept_of(machine, store), on)).outcome == "changed"
    whole = store.read(f"{name}/snapshot.db.age") or b""
    store.client.put_object(**store.at(f"{name}/snapshot.db.age"), Body=whole[:-1] + bytes([whole[-1] ^ 1]))
    (tmp_path / "fetched").mkdir()
    folder = LocalFolder(tmp_path / "fetched", "te")
    with pytest.raises(Permanent) as caught:
        store.fetch(name, folder)
    assert caught.value.code == "SHW-760"
    assert folder.names() == []


# --- who may write there


@pytest.mark.parametrize("case", ["none", "profile", "bucket", "away", "busy", "library"])
async def test_what_keeps_from_the_store_is_said_before_a_backup_is_taken_and_no_letter_of_a_key(
    server: ObjectServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    store, code, kind = store_of(server), "SHW-758", Refused
    if case == "none":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    elif case == "profile":
        monkeypatch.setenv("AWS_PROFILE", "nobody")
    elif case == "library":
        monkeypatch.setitem(sys.modules, "boto3", None)
    else:
        code, kind = "SHW-759", Permanent if case == "bucket" else Transient  # type: ignore[assignment]
        store = {
            "bucket": store_of(server, bucket="not-there"),
            "away": store_of(server, endpoint="http://127.0.0.1:9"),
        }.get(case, store)
    if case == "busy":
        server.faults.add("busy")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with caplog.at_level(logging.DEBUG), pytest.raises(ShipwayError) as caught:
        await StoreReady(store).check(Host("cp1", shell=None))  # type: ignore[arg-type]
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert caught.value.fix
    assert SECRET not in f"{caught.value} {caught.value.fix} {caplog.text}"
    assert case != "library" or "shipway[s3]" in caught.value.fix


async def test_keys_come_from_awss_files_of_this_machine_too(
    server: ObjectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text(f"[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    assert await StoreReady(store_of(server)).check(Host("cp1", shell=None)) is None  # type: ignore[arg-type]


def test_nothing_but_this_machine_is_asked_for_keys(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud's own server of keys would give Shipway the rights of whatever runs on that machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/keys")
    before = len(server.asked)
    with pytest.raises(Refused):
        store_of(server).look()
    assert len(server.asked) == before


# --- the cluster file, and a restore


@pytest.mark.parametrize(
    ("backup", "refused_"),
    [
        ("{s3: {bucket: backups-1}}", True),
        ("{s3: {bucket: backups-1, clear_text: true}}", False),
        ("{s3: {bucket: backups-1, clear_text: true, endpoint: 'http://s3.example.com'}}", True),
        (f"{{s3: {{bucket: backups-1, endpoint: 'http://s3.example.com'}}, encrypt_to: [{TO[0]}]}}", False),
        (f"{{s3: {{bucket: backups-1}}, encrypt_to: [{TO[0]}]}}", False),
        ("{keep_local: /srv/backups}", False),
    ],
    ids=["in clear", "said so", "in clear over http", "sealed over http", "sealed", "no store"],  # the key is random
)
def test_what_would_lie_in_clear_in_a_store_is_refused_unless_the_file_says_so(backup: str, *, refused_: bool) -> None:
    said = ""
    try:
        assert parse_cluster(f"{FILE}backup: {backup}\n").backup
    except Refused as refused:
        said = str(refused)
    assert bool(said) == refused_
    assert not refused_ or "backup.s3" in said


async def test_a_restore_fetches_what_it_names_and_leaves_nothing_of_it_here(
    server: ObjectServer, tmp_path: Path
) -> None:
    machine, on, name = taken(tmp_path / "origin")
    declared = f"s3: {{bucket: backups-1, prefix: sites/a, endpoint: '{server.url}', region: us-east-1}}"
    text = f"{FILE}state_dir: {tmp_path}/state\nbackup: {{encrypt_to: [{TO[0]}], {declared}}}\n"
    run = Run(parse_cluster(text), "restore")
    run.backup.stored = True
    for source in ("newest", name):
        run.backup.source = source
        with pytest.raises(Refused, match="has no whole backup") as caught:
            restores._fetch(run)
        assert caught.value.code == "SHW-734"
    assert (await sent(kept_of(machine, store_of(server)), on)).outcome == "changed"
    run.backup.source = "newest"
    assert restores._fetch(run) == [name]
    assert run.backup.source == name
    assert restores.kept_here(run).names() == [name]
    before = len(server.asked)
    assert restores._fetch(run) == [name]  # a second attempt has it already
    assert not [one for one in server.asked[before:] if "snapshot.db.age" in one and one.startswith("GET")]
    run.results = [SimpleNamespace(stands=False)]  # type: ignore[list-item]
    restores.forget_fetched(run)
    assert restores.kept_here(run).names() == [name]  # the restore that failed may be gone on with
    run.results = []
    restores.forget_fetched(run)
    assert not (run.folder / restores.FETCHED).exists()


async def test_without_a_store_in_the_file_none_is_asked(tmp_path: Path) -> None:
    run = Run(parse_cluster(f"{FILE}state_dir: {tmp_path}/state\n"), "restore")
    run.backup.stored, run.backup.source = True, "newest"
    with pytest.raises(Refused, match="names no object store"):
        restores._fetch(run)
