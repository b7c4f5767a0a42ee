"""Edits of shared files keep foreign lines, and editing twice is editing once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shipway.edits import BEGIN, END, OFF, fstab_without_swap, hosts_file, with_block

LINES = st.text(
    alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029\x85")
)
TEXTS = st.lists(LINES | st.sampled_from([BEGIN, END, "127.0.1.1 te1", "/swap.img none swap sw 0 0"])).map("\n".join)
ENTRIES = {"te1": "10.0.0.1", "te2": "10.0.0.2"}


@given(TEXTS)
def test_hosts_file_edited_twice_is_edited_once(text: str) -> None:
    once = hosts_file(text, ENTRIES)
    assert hosts_file(once, ENTRIES) == once


@given(st.lists(LINES))
def test_a_block_keeps_every_foreign_line(lines: list[str]) -> None:
    foreign = [line for line in lines if line not in (BEGIN, END)]
    edited = with_block("\n".join(foreign), ["10.0.0.1 te1"]).splitlines()
    at = edited.index(BEGIN)
    assert edited[:at] == "\n".join(foreign).splitlines()
    assert edited[at:] == [BEGIN, "10.0.0.1 te1", END]


def test_a_block_without_its_end_loses_no_line_behind_it() -> None:
    assert "192.168.0.1 gateway" in with_block(f"a\n{BEGIN}\n192.168.0.1 gateway\n", ["x"])


@given(TEXTS)
def test_fstab_edited_twice_is_edited_once_and_keeps_the_rest(text: str) -> None:
    once = fstab_without_swap(text)
    assert fstab_without_swap(once) == once
    assert [line.removeprefix(OFF) for line in once.splitlines()] == text.splitlines()


def test_fstab_knows_swap_by_its_third_field_alone() -> None:
    text = "UUID=1 / ext4 defaults 0 1\n/swap.img none swap sw 0 0\n# swap was here\nLABEL=swap /swap ext4 rw 0 2\n"
    assert fstab_without_swap(text) == text.replace("/swap.img", f"{OFF}/swap.img")


def test_the_installer_s_own_loopback_line_goes() -> None:
    text = "127.0.0.1 localhost\n127.0.1.1 te1.example.com te1\n127.0.1.1 other\n"
    edited = hosts_file(text, ENTRIES)
    assert "te1.example.com" not in edited
    assert "127.0.1.1 other" in edited
    assert "10.0.0.2 te2" in edited
