"""What is asked of Prefect for the Secret blocks that a cluster file names: each once, and none that is not named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prefect.blocks.system import Secret

from shipway.cluster import secrets as secret_place
from shipway.errors import Refused
from tasks.secret_blocks import load_blocks, secret
from tests.places.kube import cluster_of

PROXY = {"http": "http://proxy.example:3128", "credentials": "block:site-proxy"}
SUDO = {"user": "ops", "sudo_password_secret": "site-sudo"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names that Prefect is asked for; it has those that begin with site-."""
    names: list[str] = []

    async def aload(name: str) -> Any:
        names.append(name)
        if not name.startswith("site-"):
            message = f"Unable to find block document named {name}"
            raise ValueError(message)
        return SimpleNamespace(get=lambda: f"user:{name}")

    monkeypatch.setattr(secret_place, "_BLOCKS", {})
    monkeypatch.setattr(Secret, "aload", aload)
    return names


async def test_prefect_is_asked_once_for_a_block(asked: list[str]) -> None:
    assert [await secret("site-sudo") for _ in range(3)] == ["user:site-sudo"] * 3
    assert asked == ["site-sudo"]


async def test_a_block_that_is_not_there_is_refused_with_its_name_and_asked_for_again(asked: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(Refused, match="no Secret block other") as refused:
            await secret("other")
        assert refused.value.code == "SHW-352"
    assert asked == ["other"] * 2


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({}, []),
        ({"ssh": SUDO}, ["site-sudo"]),
        ({"proxy": PROXY, "ssh": SUDO}, ["site-proxy", "site-sudo"]),
        ({"proxy": PROXY, "ssh": {**SUDO, "sudo_password_secret": "site-proxy"}}, ["site-proxy"]),
    ],
)
async def test_a_run_begins_with_every_block_that_its_file_names(
    asked: list[str], sections: dict[str, Any], names: list[str]
) -> None:
    await load_blocks(cluster_of(("te1", "te2"), **sections))
    assert asked == names


async def test_a_run_does_not_begin_without_one_of_them(asked: list[str]) -> None:
    with pytest.raises(Refused, match="no Secret block other"):
        await load_blocks(cluster_of(("te1",), ssh={**SUDO, "sudo_password_secret": "other"}))
    assert asked == ["other"]
