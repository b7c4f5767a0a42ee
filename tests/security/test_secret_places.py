"""A secret is taken only from where its owner alone can read it, and is never part of what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipway.cluster import secrets as secret_place
from shipway.cluster.secrets import block_of, keep, read_block, secret, trouble, user_and_password
from shipway.errors import Refused
from shipway.host.ssh import sudo
from shipway.host.target import Target

WORD = "hunter2"


def written(folder: Path, text: str = f"{WORD}\n", mode: int = 0o600) -> Path:
    """Write a file of a mode."""
    path = folder / "secret"
    path.write_bytes(text.encode())
    path.chmod(mode)
    return path


@pytest.fixture(autouse=True)
def _no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_place, "_BLOCKS", {})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_a_file_that_others_may_open_is_refused_and_its_text_is_not_reported(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, mode=mode)
    assert f"mode {mode:03o}" in trouble(str(path))
    with pytest.raises(Refused) as refused:
        secret(str(path))
    assert refused.value.code == "SHW-352"
    assert WORD not in str(refused.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, f" {WORD} \nmore\n", mode)
    assert (trouble(str(path)), secret(str(path))) == ("", WORD)


def test_a_folder_a_device_and_what_is_not_there_hold_no_secret(tmp_path: Path) -> None:
    whys = {
        "/dev/null": "/dev/null is no regular file",
        str(tmp_path): f"{tmp_path} cannot be read: Is a directory",
        "/nowhere": "/nowhere cannot be read: No such file or directory",
        "~nobody-here/x": "~nobody-here/x cannot be read: Could not determine home directory.",
    }
    for place, why in whys.items():
        assert trouble(place) == why
        with pytest.raises(Refused):
            secret(place)


@pytest.mark.parametrize("text", ["", "\n", "  \nword\n"])
def test_an_empty_secret_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Refused, match="is empty"):
        secret(str(written(tmp_path, text)))


def test_a_block_is_the_value_that_was_kept_and_its_lack_is_refused_before_any_file_is_looked_for() -> None:
    assert (block_of("block:one"), block_of("/etc/one"), trouble("block:one"), read_block("one")) == (
        "one",
        "",
        "",
        None,
    )
    with pytest.raises(Refused, match="no Secret block one"):
        secret("block:one")
    keep("one", f"{WORD}\n")
    assert (secret("block:one"), read_block("one")) == (WORD, f"{WORD}\n")


@pytest.mark.parametrize("text", ["user", ":word", "user:", ":"])
def test_what_is_no_pair_is_refused_without_its_text(text: str) -> None:
    keep("pair", text)
    with pytest.raises(Refused, match=r"does not hold USER:PASSWORD") as refused:
        user_and_password("block:pair")
    assert "block:pair does" in str(refused.value)
    keep("pair", "user:pass:word")
    assert user_and_password("block:pair") == ("user", "pass:word")


def target(path: str = "", block: str = "") -> Target:
    """Return a target that names sudo's password."""
    return Target("te1", "192.0.2.1", sudo_password_file=path, sudo_password_secret=block)


async def nothing(name: str) -> str:
    """Return what no password is."""
    return {"empty": "", "two": "a\nb\n", "zero": "a\0b\n"}.get(name, f"{WORD}\r\n")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
async def test_sudos_password_is_not_read_from_a_file_that_others_may_open(tmp_path: Path, mode: int) -> None:
    with pytest.raises(Refused, match="may be read by others") as refused:
        await sudo.password(target(str(written(tmp_path, mode=mode))), None)
    assert (refused.value.code, refused.value.host) == ("SHW-348", "te1")
    assert WORD not in str(refused.value)


@pytest.mark.parametrize("text", ["", "\n", "a\nb\n", "a\0b\n", "\udcff"])
async def test_what_is_more_or_less_than_one_line_is_no_password(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, "")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Refused) as refused:
        await sudo.password(target(str(path)), None)
    assert refused.value.code == "SHW-348"


async def test_sudos_password_is_one_line_of_a_file_or_a_block() -> None:
    assert await sudo.password(target(), None) == ""
    assert await sudo.password(target(block="one"), nothing) == WORD
    for name in ("empty", "two", "zero"):
        with pytest.raises(Refused, match="holds no password"):
            await sudo.password(target(block=name), nothing)
    with pytest.raises(Refused, match="cannot be read here"):
        await sudo.password(target(block="one"), None)
    with pytest.raises(Refused, match="cannot be read"):
        await sudo.password(target("/nowhere"), None)


async def test_a_file_of_sudos_password_is_read_without_its_lines_end(tmp_path: Path) -> None:
    for text in (WORD, f"{WORD}\n", f"{WORD}\r\n"):
        assert await sudo.password(target(str(written(tmp_path, text))), None) == WORD
    assert await sudo.password(target(str(written(tmp_path, f" {WORD} \n"))), None) == f" {WORD} "
