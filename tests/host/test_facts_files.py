"""What a host answers about its files: there, not there, or not to be known, which is never taken for "not there"."""

from __future__ import annotations

from typing import Any

import pytest

from shipway.errors import CommandFailed
from shipway.facts.fact import Fact, Plan
from shipway.facts.files import FileInfo, FileState, FileText, Listing
from shipway.script import Output

GONE = "No such file or directory"
STATE, TEXT, NAMES = FileState("/a/b"), FileText("/a/b"), Listing("/a/b")
ABSENT: tuple[tuple[Fact[Any], list[Output], object], ...] = (
    (STATE, [Output(1, "", f"stat: cannot statx '/a/b': {GONE}\n"), Output(1, "", f"sha256sum: /a/b: {GONE}\n")], None),
    (
        STATE,
        [Output(0, "755|root:root|9|directory|/a/b\n", ""), Output(1, "", "sha256sum: /a/b: Is a directory\n")],
        None,
    ),
    (TEXT, [Output(1, "", f"cat: /a/b: {GONE}\n")], None),
    (TEXT, [Output(1, "", "cat: /a/b: Not a directory\n")], None),
    (NAMES, [Output(2, "", f"ls: cannot access '/a/b': {GONE}\n")], ()),
)
UNTOLD: tuple[tuple[Fact[Any], list[Output]], ...] = (
    (STATE, [Output(1, "", "stat: cannot statx '/a/b': Input/output error\n"), Output(1, "", "")]),
    (STATE, [Output(1, "", ""), Output(0, "", "")]),
    (
        STATE,
        [Output(0, "600|root:root|9|regular file|/a/b\n", ""), Output(1, "", "sha256sum: /a/b: Input/output error\n")],
    ),
    (TEXT, [Output(1, "half of a secret", "cat: /a/b: Input/output error\n")]),
    (TEXT, [Output(1, "", f"cat: /another: {GONE}\n")]),
    (NAMES, [Output(2, "", "ls: cannot open directory '/a/b': Input/output error\n")]),
    (NAMES, [Output(127, "", "sh: 1: ls: not found\n")]),
)


@pytest.mark.parametrize(("fact", "outputs", "value"), ABSENT)
def test_what_is_not_there_is_reported_by_the_programs_own_words(
    fact: Fact[Any], outputs: list[Output], value: object
) -> None:
    assert Plan([fact]).answers(outputs) == {fact: value}


@pytest.mark.parametrize(("fact", "outputs"), UNTOLD)
def test_a_look_that_failed_is_an_error_to_try_again_and_no_absence(fact: Fact[Any], outputs: list[Output]) -> None:
    with pytest.raises(CommandFailed) as caught:
        Plan([fact]).answers(outputs)
    assert caught.value.may_retry
    assert "/a/b" in caught.value.message
    assert "half of a secret" not in f"{caught.value}{caught.value.output}"


def test_one_of_several_files_may_be_absent() -> None:
    here, gone = FileState("/a/here"), FileState("/a/gone")
    stat = Output(1, "644|root:root|7|regular file|/a/here\n", f"stat: cannot statx '/a/gone': {GONE}\n")
    digest = Output(1, f"{'0' * 64}  /a/here\n", f"sha256sum: /a/gone: {GONE}\n")
    assert Plan([here, gone]).answers([stat, digest]) == {here: FileInfo("0" * 64, "644", "root:root", 7), gone: None}


def test_what_the_kernel_does_not_show_is_no_error() -> None:
    uuid = FileText("/sys/class/dmi/id/product_uuid")
    assert Plan([uuid]).answers([Output(1, "", "cat: ...: Input/output error\n")]) == {uuid: None}
