"""Secret blocks of Prefect: one way to them, for whatever the cluster file names one for."""

from __future__ import annotations

import pytest
from prefect.blocks.system import Secret

from shipway.cluster import secrets as secret_place
from shipway.errors import Refused
from shipway.host.ssh.sudo import password
from shipway.site.registries import registry_files
from tasks.context import Run
from tasks.secret_blocks import load_blocks, secret
from tests.places.kube import cluster_of

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_place")]
NAMES = ("site-proxy", "site-registry", "site-sudo")
SECTIONS = {
    "proxy": {"http": "http://proxy.example:3128", "credentials": "block:site-proxy"},
    "sources": {"registries": {"registry.example": {"credentials": "block:site-registry"}}},
    "ssh": {"user": "ops", "sudo_password_secret": "site-sudo"},
}


@pytest.fixture(autouse=True)
def none_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_place, "_BLOCKS", {})


async def save(name: str) -> None:
    await Secret(value=f"user:{name}").save(name, overwrite=True)  # type: ignore[misc] - it dispatches by the caller


@pytest.mark.parametrize("missing", NAMES)
async def test_a_block_that_is_not_there_is_reported_before_anything_is_begun(missing: str) -> None:
    cluster = cluster_of(("te1", "te2"), **SECTIONS)
    for name in NAMES:
        if name == missing:
            secret_place._BLOCKS.pop(name, None)
        else:
            secret_place.keep(name, "u:p")
    with pytest.raises(Refused, match=f"no Secret block {missing}") as refused:
        await load_blocks(cluster)
    assert refused.value.code == "SHW-352"
    with pytest.raises(Refused, match=missing):
        await secret(missing)


async def test_what_blocks_hold_reaches_proxy_registry_and_sudo_and_prefect_is_asked_once() -> None:
    for name in NAMES:
        await save(name)
    cluster = cluster_of(("te1", "te2"), **SECTIONS)
    await load_blocks(cluster)
    for name in NAMES:
        await Secret.adelete(name) if hasattr(Secret, "adelete") else await Secret.delete(name)  # type: ignore[misc]
    assert secret_place.user_and_password("block:site-proxy") == ("user", "site-proxy")
    assert any("authorization" in file.text for file in registry_files(cluster))
    run = Run(cluster, "plan")
    target = cluster.target(cluster.hosts[0])
    assert await password(target, run._pool._secret) == "user:site-sudo"
