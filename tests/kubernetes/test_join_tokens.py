"""A join whose token is gone fails soon, and the next try makes a fresh one; on the SIMULATED lab."""

from __future__ import annotations

from typing import Any

import pytest

from lab.simulated.kubeadm.config import BadConfig, read
from shipway.kubeadm.config import DISCOVERY_SECONDS, as_yaml, join_documents
from tests.faults.left_over import left_over
from tests.faults.plain import Direct, Line, brought_up, installed
from tests.faults.undisturbed import fresh
from tests.kubernetes.test_kubeadm_config import MINORS, TOKEN, cluster


async def test_a_token_that_is_deleted_before_its_use_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    script, deleted = Direct.script, list[str]()
    async with fresh() as lab:

        async def meddled(shell: Direct, text: str, **more: Any) -> tuple[str, str]:
            if not deleted and "systemd-run" in text and "kubeadm-join" in text:
                assert lab.link.cluster is not None
                store = lab.link.cluster.world.store
                for secret in store.objects("secrets", "kube-system"):
                    if secret["metadata"]["name"].startswith("bootstrap-token-"):
                        deleted.append(secret["metadata"]["name"])
                        store.remove("secrets", "kube-system", deleted[-1])
            return await script(shell, text, **more)

        monkeypatch.setattr(Direct, "script", meddled)
        report = await brought_up(lab, Line())
        assert report.outcome == "ok", report.errors
        assert deleted
        made = ["token create" in " ".join(one.words) for one in lab.hosts["te1"].ran]
        assert made.count(True) > 2, "two workers, and at least one of them twice"
        assert left_over(lab) == []


@pytest.mark.parametrize("minor", MINORS, ids=lambda minor: f"1.{minor[1]}")
def test_kubeadm_of_every_minor_heeds_the_limit_of_a_join(minor: tuple[int, int]) -> None:
    made = cluster(minor)
    text = as_yaml(join_documents(made, made.hosts[1], TOKEN, "sha256:00"))
    asked = read(text, minor[1], node_name="w", address="10.0.0.2", version=f"1.{minor[1]}.0")
    assert asked.discovery_seconds == DISCOVERY_SECONDS


@pytest.mark.parametrize(
    ("api", "limit", "seconds"),
    [
        ("v1beta4", "timeouts: {discovery: 2m30s}", 150),
        ("v1beta4", "discovery: {timeout: 12s}", 300),
        ("v1beta3", "discovery: {timeout: 1h0m5s}", 3605),
        ("v1beta3", "timeouts: {discovery: 12s}", 300),
        ("v1beta3", "discovery: {timeout: soon}", None),
    ],
)
def test_the_limit_counts_where_its_api_has_it(api: str, limit: str, seconds: float | None) -> None:
    text = f"apiVersion: kubeadm.k8s.io/{api}\nkind: JoinConfiguration\n{limit}\n"
    if seconds is None:
        with pytest.raises(BadConfig, match="invalid duration"):
            read(text, 31, node_name="w", address="10.0.0.2", version="1.31.0")
    else:
        asked = read(text, 31, node_name="w", address="10.0.0.2", version="1.31.0")
        assert asked.discovery_seconds == seconds
