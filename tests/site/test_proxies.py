"""Hosts behind a proxy: asked by the way that apt and containerd take, declared once, never with a password shown."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from lab.simulated.options import Options
from shipway.cluster.model import Cluster
from shipway.cluster_file import load_cluster, parse_cluster
from shipway.errors import Permanent, Refused, ShipwayError, Transient
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.host.session import Host
from shipway.os.debian.proxy import APT_CONF, EFFECTIVE, AptThroughProxy, apt_conf
from shipway.script import Output
from shipway.site.proxies import (
    DROP_IN,
    ENVIRONMENT,
    as_environment_file,
    direct,
    environment,
    lasting,
    no_proxy,
    of_environment_file,
    stale,
)
from shipway.step import Impact
from shipway.steps.system.origins import origins
from shipway.steps.system.proxies import ContainerdEnvironment
from shipway.steps.system.sources import ENVIRONMENT as HOSTS_ENVIRONMENT
from shipway.steps.system.sources import Source, SourcesReachable, ask_command
from tasks.stages import container_runtime, preflight, prepare_system
from tests.places.facts import DEBIAN, KnownFacts, said
from tests.places.loopback_proxy import loopback_proxy
from tests.places.simulated import Place, failed, simulated_place

PROXY = "http://proxy.corp.example:3128"
HOSTS = "name: demo\nhosts: [{name: cp, address: 10.0.0.1, gpus: 0}, {name: g, address: 10.0.0.2}]\n"
PASSWORD = "hun@t er:2"  # noqa: S105 - made up, with what must be encoded


def cluster(text: str, folder: Path | None = None) -> Cluster:
    return parse_cluster(HOSTS + text, folder=folder)


def secret_file(folder: Path, text: str = f"ops:{PASSWORD}\n", mode: int = 0o600) -> Path:
    path = folder / "proxy.secret"
    path.write_text(text)
    path.chmod(mode)
    return path


# --- what goes around the proxy


def test_nodes_pods_services_the_api_and_loopback_go_around_it() -> None:
    made = cluster(
        f"proxy: {{http: '{PROXY}', no_proxy: '.corp.example, 192.168.7.0/24'}}\n"
        "kubernetes: {api_endpoint: 'api.demo.example:6443', pod_network: 10.244.0.0/16}\n"
        "sources: {registry_mirrors: {quay.io: 'http://10.9.9.9:5000', docker.io: 'https://mirror.example'}}\n"
    )
    around = no_proxy(made)
    assert {"localhost", "127.0.0.1", "::1", ".svc", ".cluster.local", "api.demo.example"} <= set(around)
    assert {"10.244.0.0/16", "10.96.0.0/12", "10.0.0.1", "10.0.0.2", ".corp.example", "192.168.7.0/24"} <= set(around)
    assert "10.9.9.9" in around
    assert "mirror.example" not in around, "a mirror by its name is reached as the file says, and it says nothing"
    assert not {"10.0.0.1", "10.0.0.2"} & set(lasting(made)), "a host that joins restarts no containerd"


@pytest.mark.parametrize(
    ("host", "words", "around"),
    [
        ("10.244.3.4", ("10.244.0.0/16",), True),
        ("10.245.0.1", ("10.244.0.0/16",), False),
        ("a.corp.example", (".corp.example",), True),
        ("corp.example", (".corp.example",), False),
        ("corp.example", ("corp.example",), True),
        ("a.corp.example", ("corp.example",), True),
        ("notcorp.example", ("corp.example",), False),
        ("a.corp.example", ("*.corp.example",), True),
        ("A.Corp.Example", ("a.corp.example",), True),
        ("anything", ("*",), True),
        ("[::1]", ("::1",), True),
        ("10.0.0.1", ("corp.example", ""), False),
    ],
)
def test_what_goes_around_follows_containerds_own_rules(host: str, words: tuple[str, ...], *, around: bool) -> None:
    assert direct(host, words) is around


# --- the cluster file


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("proxy: {http: 'http://ops:x@proxy:3128'}", "holds credentials"),
        ("proxy: {http: 'http://proxy'}", "must name host and port"),
        ("proxy: {http: 'http://proxy:3128/path'}", "must end with the port"),
        ("proxy: {http: 'socks5://proxy:1080'}", "http:// or https://"),
        ("proxy: {no_proxy: [a]}", "names no proxy"),
        ("proxy: {http: 'http://proxy:3128', no_proxy: ['a b']}", "a host name"),
        ("proxy: {http: 'http://proxy:3128', credentials: 'block:a b'}", "must be block:NAME"),
    ],
)
def test_a_proxy_that_programs_would_read_in_different_ways_is_refused(text: str, fault: str) -> None:
    with pytest.raises(Refused) as raised:
        cluster(text + "\n")
    assert fault in raised.value.message
    assert "1 fault," in raised.value.message


def test_a_secret_that_others_may_read_is_refused_before_anything_is_begun(tmp_path: Path) -> None:
    secret_file(tmp_path, mode=0o644)
    file = tmp_path / "cluster.yaml"
    file.write_text(f"{HOSTS}proxy: {{http: '{PROXY}', credentials: proxy.secret}}\n")
    with pytest.raises(Refused, match=r"may be read by others than its owner \(mode 644\): chmod 600"):
        load_cluster(file)
    secret_file(tmp_path)
    load_cluster(file)
    (tmp_path / "proxy.secret").unlink()
    with pytest.raises(Refused, match="cannot be read"):
        load_cluster(file)


@pytest.mark.parametrize("text", ["", "\n", "onlyuser\n", ":x\n", "x:\n"])
def test_a_secret_of_another_form_is_refused_without_its_text(tmp_path: Path, text: str) -> None:
    secret_file(tmp_path, text)
    made = cluster(f"proxy: {{http: '{PROXY}', credentials: proxy.secret}}\n", tmp_path)
    with pytest.raises(Refused) as raised:
        environment(made)
    assert raised.value.code == "SHW-352"
    assert "onlyuser" not in str(raised.value)


# --- what apt and containerd are given


def test_apt_and_containerd_get_the_proxy_and_who_goes_around_it(tmp_path: Path) -> None:
    secret_file(tmp_path)
    made = cluster(
        f"proxy: {{http: '{PROXY}', credentials: proxy.secret, no_proxy: [pkgs.k8s.io, .docker.com]}}\n", tmp_path
    )
    whole = "http://ops:hun%40t%20er%3A2@proxy.corp.example:3128"
    conf = apt_conf(made)
    assert f'Acquire::http::Proxy "{whole}";' in conf
    assert f'Acquire::https::Proxy "{whole}";' in conf
    assert 'Acquire::https::Proxy::pkgs.k8s.io "DIRECT";' in conf
    assert 'Acquire::https::Proxy::download.docker.com "DIRECT";' in conf
    values = environment(made)
    assert values["HTTP_PROXY"] == values["HTTPS_PROXY"] == whole
    assert of_environment_file(as_environment_file(values)) == values
    steps = [*prepare_system.steps(made, made.hosts[0], DEBIAN), *container_runtime.steps(made, made.hosts[0], DEBIAN)]
    assert "hun" not in repr(steps), "no step shows what it writes"


def test_a_host_that_joins_is_no_reason_to_write_containerds_environment_anew() -> None:
    made = cluster(f"proxy: {{http: '{PROXY}', no_proxy: [.corp.example]}}\n")
    want, needed = environment(made), lasting(made)
    fewer = dict(want, NO_PROXY=",".join([*needed, "10.0.0.7"]))  # another node then, and none of today's
    assert not stale(fewer, want, needed)
    assert stale(dict(want, NO_PROXY=want["NO_PROXY"].replace(",.corp.example", "")), want, needed)
    assert stale(dict(want, NO_PROXY=want["NO_PROXY"] + ",old.example"), want, needed)
    assert stale(dict(want, HTTPS_PROXY="http://other:1"), want, needed)
    assert stale({}, want, needed)


async def test_an_environment_with_another_mode_or_proxy_is_drift_that_shows_no_password() -> None:
    want = {"HTTP_PROXY": "http://ops:secret@proxy:3128", "NO_PROXY": "localhost"}
    step = ContainerdEnvironment(want, ("localhost",))
    text = as_environment_file(want)
    info = FileInfo("0" * 64, "600", "root:root", 1)
    there: dict[Fact[Any], Any] = {FileText(ENVIRONMENT): text, FileState(ENVIRONMENT): info}
    assert await step.check(cast("Host", KnownFacts(there))) is None
    for facts in (
        {**there, FileState(ENVIRONMENT): FileInfo("0" * 64, "644", "root:root", 1)},
        {**there, FileText(ENVIRONMENT): text.replace("proxy:3128", "old:3128")},
        {},
    ):
        drift = await step.check(cast("Host", KnownFacts(facts)))
        assert drift is not None
        assert "secret" not in str(drift)
        assert "http://proxy:3128" in drift.want


async def test_a_later_file_of_apts_that_says_otherwise_is_reported_by_apt_itself() -> None:
    content = (
        'Acquire::http::Proxy "http://ops:secret@proxy:3128";\nAcquire::https::Proxy "http://ops:secret@proxy:3128";\n'
    )
    step = AptThroughProxy(content)
    host = KnownFacts({EFFECTIVE: said("http='http://ops:old@old:3128'\nhttps='http://ops:secret@proxy:3128'\n")})
    await step.apply(cast("Host", host))
    assert host.written[APT_CONF] == content
    host.facts[FileState(APT_CONF)] = FileInfo(hashlib.sha256(content.encode()).hexdigest(), "600", "root:root", 1)
    drift = await step.check(cast("Host", host))
    assert drift is not None
    assert "http://old:3128 for http" in drift.have
    assert "secret" not in str(drift)
    host.facts[EFFECTIVE] = said("http='http://ops:secret@proxy:3128'\nhttps='http://ops:secret@proxy:3128'\n")
    assert await step.check(cast("Host", host)) is None


# --- asked by the way that packages and images come: real bash, curl and apt, and a real proxy on loopback


async def _ask(
    url: str, by: str, env: Mapping[str, str] | None = None, drop_ins: Path | None = None
) -> tuple[str, str]:
    words = list(ask_command(Source(url, by), DEBIAN))
    words[2] = words[2].replace("/etc/systemd/system/containerd.service.d", str(drop_ins or "/nonexistent"))
    words[2] = words[2].replace("systemctl show", "true")
    clean = {"PATH": os.environ["PATH"], "LC_ALL": "C", **(env or {})}
    process = await asyncio.create_subprocess_exec(
        *words, env=clean, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    connect, _, code = out.decode().strip().partition(" ")
    return connect, code


NEEDS_APT = pytest.mark.skipif(shutil.which("apt-config") is None, reason="no apt on this machine")
NEEDS_CURL = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")


@NEEDS_APT
@NEEDS_CURL
async def test_a_package_source_is_asked_by_apts_own_proxy(tmp_path: Path) -> None:
    async with loopback_proxy() as proxy:
        conf = tmp_path / "apt.conf"
        conf.write_text(f'Acquire::http::Proxy "{proxy.url}";\nAcquire::http::Proxy::localhost "DIRECT";\n')
        env = {"APT_CONFIG": str(conf)}
        assert await _ask("http://nosuch.invalid/{os}/InRelease", "apt", env) == ("000", "200")
        assert await _ask("https://nosuch.invalid/InRelease", "apt", env) == ("502", "000"), "https takes http's"
        assert [line.split()[0] for line in proxy.heard] == ["GET", "CONNECT"]
        assert "{os}" not in proxy.heard[0]
        assert await _ask("http://localhost:1/InRelease", "apt", env) == ("000", "000"), "DIRECT goes around"
        assert len(proxy.heard) == 2


@NEEDS_APT
@NEEDS_CURL
async def test_the_sessions_own_environment_is_not_what_apts_and_containerds_units_have() -> None:
    async with loopback_proxy() as proxy:
        env = {"http_proxy": proxy.url, "HTTPS_PROXY": proxy.url, "APT_CONFIG": os.devnull}
        for way in ("apt", "containerd", "direct"):
            assert await _ask("http://nosuch.invalid/x", way, env) == ("000", "000")
        assert proxy.heard == []


@NEEDS_CURL
async def test_a_registry_is_asked_by_the_proxy_of_containerds_drop_ins(tmp_path: Path) -> None:
    async with loopback_proxy(f"ops:{PASSWORD}") as proxy:
        whole = f"http://ops:hun%%40t%%20er%%3A2@127.0.0.1:{proxy.port}"
        (tmp_path / "http-proxy.conf").write_text(
            f'[Service]\nEnvironment="HTTP_PROXY={whole}" "HTTPS_PROXY={proxy.url}"\nEnvironment=NO_PROXY=localhost\n'
        )
        assert await _ask("http://nosuch.invalid/v2/", "containerd", drop_ins=tmp_path) == ("000", "200")
        assert await _ask("https://nosuch.invalid/v2/", "containerd", drop_ins=tmp_path) == ("407", "000")
        assert await _ask("http://localhost:1/v2/", "containerd", drop_ins=tmp_path) == ("000", "000")
        file = tmp_path / "proxy.env"
        file.write_text(f'HTTPS_PROXY="{whole.replace("%%", "%")}"\n')
        (tmp_path / "shipway.conf").write_text(f"[Service]\nEnvironmentFile={file}\n")
        assert await _ask("https://nosuch.invalid/v2/", "containerd", drop_ins=tmp_path) == ("502", "000")


@NEEDS_CURL
async def test_a_declared_proxy_is_the_way_without_any_file_of_the_host() -> None:
    async with loopback_proxy() as proxy:
        assert await _ask("http://nosuch.invalid/x", proxy.url) == ("000", "200")


async def look(sources: tuple[Source, ...], *answers: tuple[int, str], password: bool = False, env: str = "") -> None:
    facts: dict[Fact[Any], Any] = {
        Says(ask_command(source, DEBIAN)): Output(status, text, "")
        for source, (status, text) in zip(sources, answers, strict=True)
    }
    facts[HOSTS_ENVIRONMENT] = env
    assert await SourcesReachable(sources, DEBIAN, password=password).check(cast("Host", KnownFacts(facts))) is None


async def test_a_proxy_that_asks_who_is_there_or_refuses_has_a_code_of_its_own() -> None:
    one = (Source("https://a.example/x", PROXY),)
    for answer in ((56, "407 000"), (0, "000 407")):
        with pytest.raises(
            Permanent, match=r"asks for a user and a password on the way to https://a\.example/"
        ) as raised:
            await look(one, answer)
        assert raised.value.code == "SHW-351"
        await look(one, answer, password=True)  # it has one, and is not asked with it: a command line can be read
    with pytest.raises(Permanent, match="the proxy refuses the way") as raised:
        await look(one, (56, "403 000"), password=True)
    assert raised.value.code == "SHW-351"
    with pytest.raises(Transient, match=r"https://a\.example/ \(connection refused, by http://proxy\.corp") as silent:
        await look(one, (7, "000 000"))
    assert silent.value.code == "SHW-207"


async def test_a_proxy_in_etc_environment_alone_is_reported_for_services_do_not_read_it() -> None:
    with pytest.raises(ShipwayError) as raised:
        await look((Source("https://a.example/x", "apt"),), (28, "000 000"), env="https_proxy=http://proxy:3128\n")
    assert "declare it as `proxy`" in raised.value.fix


def test_where_a_proxy_is_declared_each_source_is_asked_by_it_or_around_it() -> None:
    made = cluster(f"proxy: {{http: '{PROXY}', no_proxy: [.k8s.io]}}\n")
    ways = {source.url.split("/")[2]: source.by for source in origins(made, made.host("g"), DEBIAN)}
    assert ways["download.docker.com"] == ways["nvcr.io"] == PROXY
    assert ways["pkgs.k8s.io"] == ways["registry.k8s.io"] == "direct"
    undeclared = cluster("")
    assert {source.by for source in origins(undeclared, undeclared.host("g"), DEBIAN)} == {"apt", "containerd"}


# --- a whole site behind a proxy


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with simulated_place(tmp_path, Options(hosts=1, scale=0.0)) as one:
        one.lab.world.proxy = PROXY
        yield one


def redeclared(place: Place, section: str) -> None:
    text = place.lab.cluster_file.read_text()
    place.cluster = parse_cluster(f"{text}\n{section}", folder=place.lab.cluster_file.parent)


async def sources_of(place: Place) -> list[Any]:
    spec = place.cluster.hosts[0]
    reachable = [
        check for check in preflight.checks(place.cluster, spec, DEBIAN) if isinstance(check, SourcesReachable)
    ]
    return await place.run(reachable, spec.name, Impact.NOTHING)


async def test_a_host_that_has_a_proxy_already_passes_by_it(place: Place) -> None:
    (result,) = await sources_of(place)
    assert result.outcome == "failed"
    files = place.machine("te1").files
    files.write("/etc/apt/apt.conf.d/95proxy", f'Acquire::http::Proxy "{PROXY}";\n'.encode())
    files.write(
        "/etc/systemd/system/containerd.service.d/http-proxy.conf",
        f'[Service]\nEnvironment="HTTPS_PROXY={PROXY}"\n'.encode(),
    )
    (result,) = await sources_of(place)
    assert result.outcome == "ok", result
    assert not failed(await place.prepare("te1"))


async def test_a_declared_proxy_brings_a_host_up_and_changing_it_restarts_containerd_as_a_service(
    place: Place,
) -> None:
    place.lab.world.proxy_login = f"ops:{PASSWORD}"
    secret_file(place.lab.cluster_file.parent)
    redeclared(place, f"proxy: {{http: '{PROXY}', credentials: proxy.secret}}\n")
    (result,) = await sources_of(place)
    assert result.outcome == "ok", result
    assert not failed(await place.prepare("te1"))
    machine = place.machine("te1")
    assert machine.services.containerd_environment["HTTPS_PROXY"].startswith("http://ops:hun%40")
    for path in (APT_CONF, ENVIRONMENT):
        node = machine.files.node(path)
        assert node is not None
        assert node.mode & 0o777 == 0o600
    assert not any(PASSWORD in " ".join(ran.words) or "hun%40" in " ".join(ran.words) for ran in machine.ran)
    again = await place.prepare("te1")
    assert {row.outcome for row in again} == {"ok"}

    redeclared(place, "")
    runtime = container_runtime.steps(place.cluster, place.cluster.hosts[0], DEBIAN)
    withheld = await place.run(runtime, "te1", Impact.FILES)
    assert [row.step for row in withheld if row.outcome == "drifted"] == ["containerd runs its current configuration"]
    done = await place.run(runtime, "te1", Impact.SERVICE)
    assert {row.outcome for row in done} <= {"ok", "changed"}
    assert machine.services.containerd_environment == {}
    assert not machine.files.exists(DROP_IN)
    assert not machine.files.exists(ENVIRONMENT)
