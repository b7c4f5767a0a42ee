"""What could not be tested is no success where it must be tested."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest


@pytest.mark.parametrize(
    ("environment", "user", "skipped", "before", "after"),
    [
        ({"CI": "true"}, 0, 1, 0, 1),
        ({"CI": "true"}, 0, 0, 0, 0),
        ({"CI": "true"}, 0, 1, 2, 2),
        ({"CI": "true"}, 1000, 1, 0, 0),
        ({"CI": "true", "SHIPWAY_NOT_RUN": "file"}, 0, 1, 0, 0),
        ({}, 0, 1, 0, 0),
    ],
)
def test_a_skipped_test_fails_ci_unless_it_is_run_elsewhere(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *, user: int, skipped: int, before: int, after: int
) -> None:
    for name in ("CI", "SHIPWAY_NOT_RUN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    reporter = SimpleNamespace(getreports=lambda kind: [kind] * skipped)
    plugins = SimpleNamespace(get_plugin=lambda _: reporter)
    session: Any = SimpleNamespace(config=SimpleNamespace(pluginmanager=plugins), exitstatus=before)
    conftest.pytest_sessionfinish(session)
    assert session.exitstatus == after
