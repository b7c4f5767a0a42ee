"""Every broken cluster file gets one clear refusal, and no connection is opened for it."""

from __future__ import annotations

from pathlib import Path

import asyncssh
import pytest

from shipway.cluster_file import load_cluster, parse_cluster
from shipway.errors import Refused
from tests.cluster.broken_files import broken_files, expected


@pytest.fixture(autouse=True)
def _no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a connection was opened for a broken cluster file")

    for name in ("connect", "connect_ssh", "create_connection"):
        if hasattr(asyncssh, name):
            monkeypatch.setattr(asyncssh, name, refuse)


def test_there_are_at_least_fifty() -> None:
    assert len(broken_files()) >= 50


@pytest.mark.parametrize("path", broken_files(), ids=lambda path: path.stem)
def test_a_broken_file_is_refused_with_its_faults(path: Path) -> None:
    with pytest.raises(Refused) as raised:
        load_cluster(path)
    message = raised.value.message
    texts = expected(path)
    assert texts, f"{path.name} says nothing of what to expect"
    for text in texts:
        assert text in message
    assert not raised.value.may_retry
    assert message.splitlines()[0].startswith(str(path))
    # Where only one fault is declared, there is only one: no fault brings others with it.
    if len(texts) == 1 and "\n" in message:
        assert "1 fault," in message.splitlines()[0], message


def test_a_file_over_one_mebibyte_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("name: demo\nhosts: [10.0.0.1]\n#" + "x" * 1024 * 1024)
    with pytest.raises(Refused, match="are more than the 1048576"):
        load_cluster(path)


def test_nesting_that_would_crash_the_reader_is_refused() -> None:
    with pytest.raises(Refused, match="nested more than 40 levels"):
        parse_cluster("name: demo\nhosts: " + "[" * 300_000)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(Refused, match="cannot be read"):
        load_cluster(path)
    with pytest.raises(Refused, match="cannot be read"):
        load_cluster(tmp_path / "absent.yaml")
