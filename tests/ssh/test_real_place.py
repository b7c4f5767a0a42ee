"""What the tests on a real sshd say where they cannot be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.places.real_sshd import what_lacks


@pytest.mark.parametrize(
    ("user", "status", "said"),
    [(0, 1, ""), (1000, 0, ""), (1000, 1, "sudo asks this user for a password")],
    ids=["root", "sudo without a password", "sudo with a password"],
)
def test_a_user_whose_sudo_asks_for_a_password_skips_what_needs_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, status: int, said: str
) -> None:
    (tmp_path / "sudo").write_text(f"#!/bin/sh\nexit {status}\n")
    (tmp_path / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert what_lacks("/usr/sbin/sshd", user).startswith(said)
    assert bool(what_lacks("/usr/sbin/sshd", user)) == bool(said)
    assert "openssh-server" in what_lacks(None, user)
