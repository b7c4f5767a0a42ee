"""Copies encrypted for age's recipients: nothing of a secret is in clear here, and only a key's owner gets it back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest
from pydantic import ValidationError

from shipway.backup.kept import LocalFolder
from shipway.backup.sealed import IDENTITY, SUFFIX, parts_of, sealing
from shipway.cluster.parts import Backup
from shipway.converge import converge
from shipway.errors import Permanent, Refused
from shipway.host.session import Host
from shipway.redact import redact
from shipway.step import Impact
from shipway.steps.backup.brought import BackupBrought
from shipway.steps.backup.kept import AgeThere, KeptLocally
from tests.backup.machine import LocalShell, Machine

OWNER, OTHER = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
TEXT = bytes(range(256)) * 4096  # more than a pipe and one of age's own parts hold


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The owner's key, in the form of age-keygen."""
    path = tmp_path / "key.txt"
    path.write_text(f"# created: 2026-11-29\n# public key: {OWNER.to_public()}\n{OWNER}\n")
    monkeypatch.setenv(IDENTITY, str(path))
    return path


def sealed(folder: Path, text: bytes) -> Path:
    path = folder / f"snapshot.db{SUFFIX}"
    with path.open("wb") as file, sealing(file, [str(OTHER.to_public()), str(OWNER.to_public())]) as write:
        for at in range(0, len(text), 1000):
            write(text[at : at + 1000])
    return path


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, len(TEXT)])
def test_what_is_written_encrypted_is_read_back_by_each_owner_in_parts(tmp_path: Path, key: Path, size: int) -> None:
    path = sealed(tmp_path, TEXT[:size])
    parts = list(parts_of(path, 5000))
    assert b"".join(parts) == TEXT[:size]
    assert parts
    assert max(map(len, parts)) <= 5000
    assert path.read_bytes().startswith(b"age-encryption.org/v1")
    assert str(OWNER).encode() in key.read_bytes()


@pytest.mark.parametrize("case", ["another key", "one bit", "cut off"])
def test_what_is_not_opened_by_the_key_or_was_changed_is_never_given_out_as_whole(
    tmp_path: Path, key: Path, case: str
) -> None:
    path = sealed(tmp_path, TEXT)
    if case == "another key":
        key.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    elif case == "one bit":
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Permanent) as caught:
        list(parts_of(path, 5000))
    assert caught.value.code == "SHW-757"
    assert IDENTITY in caught.value.fix


@pytest.mark.parametrize("case", ["not named", "not there", "empty", "mistyped", "no text"])
def test_without_a_private_key_it_is_said_what_to_name_and_no_letter_of_one(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    path = sealed(tmp_path, b"text")
    if case == "not named":
        monkeypatch.delenv(IDENTITY)
    elif case == "not there":
        key.unlink()
    else:
        key.write_bytes({"empty": b"", "mistyped": f"{OWNER}"[:-1].encode(), "no text": b"\xff\xfe"}[case])
    with pytest.raises(Refused) as caught:
        list(parts_of(path, 5000))
    assert caught.value.code == "SHW-756"
    assert str(OWNER)[20:40] not in f"{caught.value} {caught.value.fix}"


async def test_without_the_library_a_backup_is_refused_with_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(Refused) as caught:
        await AgeThere().check(Host("cp1", LocalShell(Machine(tmp_path))))
    assert caught.value.code == "SHW-755"
    assert "shipway[age]" in caught.value.fix


def write_much(path: Path) -> None:
    with path.open("wb", buffering=0) as file, sealing(file, [str(OWNER.to_public())]) as write:
        for _ in range(100):
            write(TEXT)


def test_a_disk_that_is_full_is_an_error_and_no_wait() -> None:
    with pytest.raises(OSError, match="No space left"):
        write_much(Path("/dev/full"))


@pytest.mark.usefixtures("key")
async def test_a_copy_is_encrypted_on_its_way_and_comes_back_to_a_host_by_the_owners_key(tmp_path: Path) -> None:
    origin, bare = Machine(tmp_path / "origin"), Machine(tmp_path / "bare")
    code, said = origin.run("take")
    assert code == 0, said
    folder, (name,) = LocalFolder(tmp_path / "kept", "te"), origin.names()
    script, on = (origin.here / "script").read_text(), Host("cp1", LocalShell(origin))
    clear = KeptLocally(script, folder, str(origin.root))
    hidden = KeptLocally(script, folder, str(origin.root), (str(OWNER.to_public()),))
    assert [one.outcome for one in await converge([clear], on, Impact.FILES)] == ["changed"]
    assert [one.outcome for one in await converge([hidden], on, Impact.FILES)] == ["changed"], "it was in clear"
    assert [one.outcome for one in await converge([hidden], on, Impact.FILES)] == ["ok"]
    assert folder.names() == [name]
    files = [path for path in (folder.own / name).rglob("*") if path.is_file()]
    assert {path.name for path in files if path.suffix != SUFFIX} == {"manifest.json", "verified"}
    assert not any(b"a key" in path.read_bytes() or b"canary old" in path.read_bytes() for path in files)
    assert not any(path.stat().st_mode & 0o077 for path in files)
    bare_on, brought = (
        Host("cp1", LocalShell(bare)),
        BackupBrought((bare.here / "script").read_text(), folder, name, str(bare.root)),
    )
    (result,) = await converge([brought], bare_on, Impact.FILES)
    assert (result.outcome, result.error) == ("changed", None)
    code, said = bare.run("verify", str(bare.root / name))
    assert code == 0, said


@pytest.mark.parametrize(
    "value",
    [
        "age1qhqsm9gxn7kj4rmpt3r8cl02zss2v3c028nxrf9lqedkvvp2daeqs9nmhv",
        "age1qhqsm9gxn7kj4rmpt3r8cl02zss2v3c028nxrf9lqedkvvp2daeqs9nm",
        "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ",
        "ssh-ed25519 AAAA",
        "",
    ],
)
def test_what_is_no_public_key_of_age_is_refused_in_the_file(value: str) -> None:
    with pytest.raises(ValidationError):
        Backup(encrypt_to=(value,))


@pytest.mark.parametrize("form", [str.upper, str.lower])
def test_a_private_key_that_gets_into_a_text_is_hidden(form: Callable[[str], str]) -> None:
    said = redact(f"encrypt_to: {form(str(OWNER))}, and more")
    assert form(str(OWNER))[20:30] not in said
    assert "and more" in said


def test_the_public_keys_that_age_makes_are_taken() -> None:
    keys = tuple(str(pyrage.x25519.Identity.generate().to_public()) for _ in range(20))
    assert Backup(encrypt_to=keys).encrypt_to == keys
