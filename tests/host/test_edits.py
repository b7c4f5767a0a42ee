"""Edits of shared files keep foreign lines, and editing twice is editing once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shipway.edits.files import FileEdited
from shipway.edits.lines import BEGIN, END, OFF, fstab_without_swap, hosts_file, read_block, with_block
from shipway.host.ssh import Pool
from tests.places.shell_server import shell_server

# Any text is somebody's: carriage returns, form feeds, NUL, bytes that are no UTF-8 (as surrogates, PEP 383).
LINES = st.text(
    st.one_of(
        st.characters(exclude_characters="\n"),
        st.sampled_from("\r\x0b\x0c\x1c\x85\u2028\x00\udc80\udcff \t#"),
    )
)
TEXTS = st.lists(LINES | st.sampled_from([BEGIN, END, "127.0.1.1 te1", "/swap.img none swap sw 0 0"])).map("\n".join)
ENTRIES = {"te1": "10.0.0.1", "te2": "10.0.0.2"}


@given(TEXTS)
def test_hosts_file_edited_twice_is_edited_once(text: str) -> None:
    once = hosts_file(text, ENTRIES)
    assert hosts_file(once, ENTRIES) == once


@given(st.lists(LINES))
def test_a_block_keeps_every_foreign_line(lines: list[str]) -> None:
    foreign = "".join(f"{line}\n" for line in lines if line not in (BEGIN, END))
    assert with_block(foreign, ["10.0.0.1 te1"]) == f"{foreign}{BEGIN}\n10.0.0.1 te1\n{END}\n"
    assert with_block(f"{foreign}last", ["x"]) == f"{foreign}last\n{BEGIN}\nx\n{END}\n"
    inside = f"{foreign}{BEGIN}\nold\n{END}\n{foreign}"
    assert with_block(inside, ["new"]) == f"{foreign}{foreign}{BEGIN}\nnew\n{END}\n"


@given(TEXTS)
def test_hosts_file_loses_only_our_block_and_our_own_loopback_line(text: str) -> None:
    edited = hosts_file(text, ENTRIES).split("\n")
    for line in text.split("\n"):
        ours = line in (BEGIN, END, "") or line.split("#", 1)[0].split()[:1] == ["127.0.1.1"]
        inside = text.count(f"{BEGIN}\n")  # what stands between our own marks is ours
        assert ours or inside or line in edited


def test_a_block_without_its_end_loses_no_line_behind_it() -> None:
    assert "192.168.0.1 gateway" in with_block(f"a\n{BEGIN}\n192.168.0.1 gateway\n", ["x"])


def test_an_end_without_its_beginning_is_somebodys_line() -> None:
    assert with_block(f"a\n{END}\nb\n", ["x"]) == f"a\n{END}\nb\n{BEGIN}\nx\n{END}\n"


@given(TEXTS)
def test_fstab_edited_twice_is_edited_once_and_keeps_the_rest(text: str) -> None:
    once = fstab_without_swap(text)
    assert fstab_without_swap(once) == once
    assert [line.removeprefix(OFF) for line in once.split("\n")] == [
        line.removeprefix(OFF) for line in text.split("\n")
    ]
    assert once == text or OFF in once


def test_fstab_knows_swap_by_its_third_field_alone() -> None:
    text = "UUID=1 / ext4 defaults 0 1\n/swap.img none swap sw 0 0\n# swap was here\nLABEL=swap /swap ext4 rw 0 2\n"
    text += "#/old.img none swap sw 0 0\n# the swap swap\nswap swap\nswap\n"
    assert fstab_without_swap(text) == text.replace("/swap.img", f"{OFF}/swap.img")


def test_the_installer_s_own_loopback_line_goes() -> None:
    text = "127.0.0.1 localhost te2\n127.0.1.1 te1.example.com te1\n127.0.1.1 other\n"
    edited = hosts_file(text, ENTRIES)
    assert "te1.example.com" not in edited
    assert "127.0.0.1 localhost te2\n127.0.1.1 other\n" in edited
    assert "10.0.0.2 te2" in edited


def test_our_block_is_read_as_it_was_written_and_only_where_it_is_whole() -> None:
    entries = {"te1": "10.0.0.1", "api": "10.0.0.1 10.0.0.2"}
    text = hosts_file("127.0.0.1 localhost\n", entries)
    assert read_block(f"{text}10.0.0.9 printer\n") == entries
    assert read_block(text.replace("10.0.0.1 te1", "10.0.0.1 te1 # seen")) == entries
    assert read_block("127.0.0.1 localhost\n") == read_block(text.replace(f"{END}\n", "")) == {}
    assert read_block(f"{END}\n{text.replace(END, '')}") == {}, "what ends before it begins is no block"


async def test_bytes_that_are_no_utf8_stay_through_ssh_and_a_real_shell(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    foreign = b"10.9.9.9 caf\xe9 # \xff\xfe\r\n\xef\xbf\xbd is itself\n"
    path.write_bytes(foreign)
    step = FileEdited("x", str(path), partial(hosts_file, entries=ENTRIES), "2 hosts")
    pool = Pool()
    async with shell_server(tmp_path) as server:
        host = pool.host(server.target)
        assert await step.check(host)
        await step.apply(host)
        host.forget()
        assert await step.check(host) is None
        await pool.close()
    assert path.read_bytes() == foreign + f"{BEGIN}\n10.0.0.1 te1\n10.0.0.2 te2\n{END}\n".encode()
