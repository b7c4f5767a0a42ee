"""Each source is asked for by every host that needs it, at the place really used, and reported with its cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.errors import Permanent, Refused, Transient
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.host.session import Host
from shipway.script import Output
from shipway.steps.system.origins import origins, registry_of
from shipway.steps.system.sources import ManifestsFetched, Source, SourcesReachable, ask_command
from tasks.stages.preflight import checks, manifests
from tests.places.facts import DEBIAN, KnownFacts

SOURCES = (Source("https://a.example/x"), Source("https://b.example/y"))


def cluster(text: str = "") -> Cluster:
    hosts = "hosts: [{name: cp, address: 10.0.0.1, gpus: 0}, {name: g, address: 10.0.0.2}]\n"
    return parse_cluster(f"name: demo\n{hosts}{text}")


def asked_of(text: str, host: str) -> tuple[str, ...]:
    made = cluster(text)
    return tuple(source.url for source in origins(made, made.host(host), DEBIAN))


def test_a_file_of_each_origin_is_asked_for_and_the_registries_too() -> None:
    assert asked_of("profile: seed\ndashboard: {enabled: false}\n", "g") == (
        "https://download.docker.com/linux/{os}/dists/{codename}/InRelease",
        "https://nvidia.github.io/libnvidia-container/stable/deb/{arch}/InRelease",
        "https://pkgs.k8s.io/core:/stable:/v1.31/deb/InRelease",
        "https://registry.k8s.io/v2/",
        "https://nvcr.io/v2/",
        "https://quay.io/v2/",
        "https://registry-1.docker.io/v2/",  # Calico before 3.30 has its images there
    )


def test_a_host_without_gpus_needs_nothing_of_nvidia() -> None:
    assert not [url for url in asked_of("", "cp") if "nvidia" in url or "nvcr" in url]
    assert "https://registry-1.docker.io/v2/" not in asked_of("", "cp")  # Calico 3.32, no dashboard


def test_the_registries_of_an_add_ons_images_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = {"containers": [{"image": "one.example/a:1"}], "initContainers": [{"image": "two.example/b:1"}]}
    objects = [{"kind": "DaemonSet", "spec": {"template": {"spec": pod}}}, {"kind": "ServiceAccount"}]
    monkeypatch.setattr("shipway.steps.system.origins.add_on", {"node-problem-detector": objects}.__getitem__)
    asked = asked_of("addons: {node-problem-detector: {}}\n", "cp")
    assert {"https://one.example/v2/", "https://two.example/v2/"} <= set(asked)


def test_what_has_a_mirror_is_not_asked_itself() -> None:
    mirrors = "{registry.k8s.io: 'http://m:5000', nvcr.io: 'http://m:5000', quay.io: 'https://q/v2/proxy'}"
    asked = asked_of(f"sources: {{registry_mirrors: {mirrors}}}\n", "g")
    assert asked[-2:] == ("http://m:5000/v2/", "https://q/v2/")
    assert not [url for url in asked if "registry.k8s.io" in url or "nvcr.io" in url]
    everything = asked_of("sources: {registry_mirrors: {_default: 'http://m:5000'}}\n", "g")
    assert [url for url in everything if url.endswith("/v2/")] == ["http://m:5000/v2/"]


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("nvcr.io/nvidia/k8s-device-plugin", "nvcr.io"),
        ("mirror:5000/x", "mirror:5000"),
        ("localhost/x", "localhost"),
        ("calico/node", "docker.io"),
        ("pause", "docker.io"),
    ],
)
def test_an_image_names_its_registry(image: str, registry: str) -> None:
    assert registry_of(image) == registry


async def look(*answers: tuple[int, str]) -> None:
    facts: dict[Fact[Any], Any] = {
        Says(ask_command(source, DEBIAN)): Output(status, text, "")
        for source, (status, text) in zip(SOURCES, answers, strict=True)
    }
    assert await SourcesReachable(SOURCES, DEBIAN).check(cast("Host", KnownFacts(facts))) is None


async def test_any_answer_counts_but_a_refusal() -> None:
    await look((0, "200"), (0, "404"))
    await look((0, "401"), (0, "503"))
    with pytest.raises(Permanent, match=r"https://b\.example/ refuses this host's address") as raised:
        await look((0, "200"), (0, "403"))
    assert raised.value.code == "SHW-310"
    assert not raised.value.may_retry


async def test_silence_may_pass_and_is_reported_by_its_cause_in_the_same_words_on_every_host() -> None:
    with pytest.raises(Transient) as raised:
        await look((6, "000"), (60, "000"))
    assert raised.value.message == (
        "no answer from https://a.example/ (its name is not known), https://b.example/ (its certificate)"
    )
    assert raised.value.code == "SHW-207"


async def test_a_host_without_curl_is_asked_by_a_bare_connection() -> None:
    host = KnownFacts({})
    with pytest.raises(Transient, match=r"no answer from https://a\.example/, https://b\.example/"):
        await SourcesReachable(SOURCES, DEBIAN).check(cast("Host", host))
    assert "bash" in str(host.asked[-1])


def test_the_control_planes_host_answers_for_the_manifests() -> None:
    made = cluster("profile: seed\n")
    assert [manifest.name for manifest in manifests(made)] == ["tigera_operator", "dashboard"]
    assert [manifest.name for manifest in manifests(cluster())] == ["operator_crds", "tigera_operator"]
    asks = {host.name: any(isinstance(c, ManifestsFetched) for c in checks(made, host, DEBIAN)) for host in made.hosts}
    assert asks == {"cp": True, "g": False}


async def test_a_manifest_that_is_not_the_pinned_one_is_found_before_anything_is_changed(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n")
    text = f"sources: {{manifests: {{tigera_operator: {{path: {tmp_path}/m.yaml, sha256: '{'a' * 64}'}}}}}}\n"
    with pytest.raises(Refused, match="has sha256") as raised:
        await ManifestsFetched(manifests(cluster(f"profile: seed\n{text}"))[:1]).check(cast("Host", KnownFacts({})))
    assert raised.value.code == "SHW-112"
