"""Secrets of a whole bootstrap over real SSH: on no command line of a host, in no log; tokens short-lived and gone."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import yaml

from lab.simulated.commands.registry import Call
from lab.simulated.failures import Failure
from lab.simulated.kube.cluster import Cluster as SimulatedCluster
from lab.simulated.kubeadm import join as kubeadm_join
from lab.simulated.kubeadm.config import Asked
from lab.simulated.options import Options
from shipway.kube.client import Kube
from shipway.steps.kubernetes.join.worker import TOKEN_MINUTES
from tests.places.simulated import Place, failed, simulated_place
from tests.security.secret_forms import BOOTSTRAP_TOKEN, SECRET_FORMS

CONFIG = "/run/shipway/kubeadm-join.yaml"


def living(cluster: SimulatedCluster) -> list[str]:
    """Return the ids of the bootstrap tokens that the cluster holds, sorted."""
    names = [secret["metadata"]["name"] for secret in cluster.store.objects("secrets", "kube-system")]
    return sorted(name.removeprefix("bootstrap-token-") for name in names if name.startswith("bootstrap-token-"))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with simulated_place(tmp_path, Options(hosts=2, scale=0.0)) as one:
        yield one


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Every bootstrap token that is made, with its life in seconds."""
    made: dict[str, float] = {}
    plain = SimulatedCluster.create_token

    def create(cluster: SimulatedCluster, ttl: float = 86400.0, *words: Any, **more: Any) -> str:
        token = plain(cluster, ttl, *words, **more)
        made[token] = ttl
        return token

    monkeypatch.setattr(SimulatedCluster, "create_token", create)
    return made


@pytest.fixture
def joined_with(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What kubeadm join was given: the token, and the mode of the file that it came in."""
    seen: list[tuple[str, int]] = []
    plain = kubeadm_join.join

    async def join(call: Call, asked: Asked) -> int:
        node = call.host.files.node(CONFIG)
        seen.append((asked.token, node.mode if node else 0))
        return await plain(call, asked)

    monkeypatch.setattr(kubeadm_join, "join", join)
    return seen


def all_words(place: Place) -> list[str]:
    """Return every word of every command that any host ran: all that `ps` there could show."""
    return [word for host in place.lab.hosts.values() for one in host.ran for word in one.words]


async def test_a_bootstraps_secrets_are_on_no_command_line_and_in_no_log(
    place: Place,
    tokens: dict[str, float],
    joined_with: list[tuple[str, int]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(asyncssh.logging.SSHLogger, "_debug_level", 2)
    assert failed(await place.prepare("te1", "te2")) == []
    assert failed(await place.init()) == []
    first = set(tokens)
    assert failed(await place.join("te2")) == []
    kube = await Kube.connect(place.session("te1"), place.cluster)
    dashboard = await kube.create_token("default", "default", 3600)
    user = yaml.safe_load(kube.admin_conf)["users"][0]["user"]
    await kube.close()

    ours = set(tokens) - first
    assert joined_with == [(token, 0o600) for token in ours]
    assert len(ours) == 1
    secrets = [*tokens, dashboard, user["client-key-data"], *(token.split(".")[1] for token in tokens)]
    words = all_words(place)
    assert "kubeadm" in words
    assert "Command: " in caplog.text  # asyncssh tells every command it sends: it was listened to
    for secret in secrets:
        assert not [word for word in words if secret in word]
        assert secret not in caplog.text
    assert not [word for word in words if SECRET_FORMS.search(word)]
    assert not BOOTSTRAP_TOKEN.search(caplog.text)


async def test_a_joins_token_is_short_lived_and_gone_after(place: Place, tokens: dict[str, float]) -> None:
    assert failed(await place.prepare("te1", "te2")) == []
    assert failed(await place.init()) == []
    first = set(tokens)
    assert failed(await place.join("te2")) == []
    cluster = place.lab.link.cluster
    assert cluster is not None
    assert {tokens[token] for token in set(tokens) - first} == {TOKEN_MINUTES * 60.0}
    assert set(living(cluster)) <= {token.split(".")[0] for token in first}
    assert {tokens[token] for token in first} <= {600.0, 86400.0}
    for host in place.lab.hosts.values():
        left = [path for path in host.files.changes() if path.startswith("/run/shipway") and host.files.exists(path)]
        assert not [path for path in left if not path.endswith("/run/shipway")], left
        texts = {path: host.files.text(path) for path, node in host.files.changes().items() if node is not None}
        assert not [path for path, text in texts.items() for token in set(tokens) - first if token in text]


async def test_a_join_that_fails_deletes_its_token_and_tells_none(
    place: Place, tokens: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert failed(await place.prepare("te1", "te2")) == []
    assert failed(await place.init()) == []
    first = set(tokens)
    heard = "error: token abcdef.0123456789abcdef is refused\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n"
    place.machine("te2").failures.waiting.append(Failure("exit", "kubeadm join", times=9, text=heard))
    (error, *_) = failed(await place.join("te2"))
    cluster = place.lab.link.cluster
    assert cluster is not None
    assert set(tokens) - first
    assert set(living(cluster)) <= {token.split(".")[0] for token in first}
    assert not place.machine("te2").files.exists(CONFIG)
    for text in (error, caplog.text):
        assert not BOOTSTRAP_TOKEN.search(text)
        assert "MIIE" not in text
    assert not [word for word in all_words(place) if SECRET_FORMS.search(word)]
