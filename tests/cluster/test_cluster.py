"""A cluster file is read whole: its defaults, its profile, its places, its faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from shipway.cluster.faults import spell_path
from shipway.cluster.hosts import first_label
from shipway.cluster.model import Cluster, node_ip
from shipway.cluster.profiles import merge
from shipway.cluster.text import source
from shipway.cluster_file import load_cluster, parse_cluster
from shipway.errors import Refused

TWO_LINES = "name: demo\nhosts: [10.0.0.1]\n"


def parsed(text: str = "") -> Cluster:
    return parse_cluster(TWO_LINES + text)


def faults(text: str) -> list[str]:
    with pytest.raises(Refused) as raised:
        parse_cluster(text)
    return raised.value.message.splitlines()[1:]


def test_two_lines_are_enough() -> None:
    cluster = parsed()
    host = cluster.hosts[0]
    assert (host.name, host.roles, node_ip(host)) == ("host-10-0-0-1", ("control_plane",), "10.0.0.1")
    assert cluster.profile == "current"
    assert cluster.schedules_on_control_plane
    assert (cluster.endpoint, cluster.api_name) == ("api.demo.internal:6443", "api.demo.internal")
    assert not cluster.dashboard.enabled


def test_the_first_host_is_the_control_plane_unless_roles_say_otherwise() -> None:
    cluster = parse_cluster("name: demo\nhosts: [10.0.0.1, 10.0.0.2]\n")
    assert [host.roles for host in cluster.hosts] == [("control_plane",), ("worker",)]
    assert not cluster.schedules_on_control_plane
    text = "name: demo\nhosts:\n  - 10.0.0.1\n  - {name: b, address: 10.0.0.2, roles: [control_plane, worker]}\n"
    cluster = parse_cluster(text)
    assert [host.roles for host in cluster.hosts] == [("worker",), ("control_plane", "worker")]
    assert cluster.schedules_on_control_plane
    assert cluster.control_planes[0].name == "b"


def test_a_cluster_survives_being_plain_data(tmp_path: Path) -> None:
    cluster = parse_cluster(TWO_LINES + "ssh: {key: id}\n", folder=tmp_path)
    assert Cluster.model_validate(cluster.model_dump(mode="json")) == cluster


def test_relative_paths_are_beside_the_cluster_file(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("key")
    (tmp_path / "net.yaml").write_text("{}")
    path = tmp_path / "cluster.yaml"
    path.write_text(
        TWO_LINES + "ssh: {key: id, known_hosts: hosts}\nnetwork: {provider: manifests, manifests: [net.yaml]}\n"
        "sources: {manifests: {tigera_operator: {path: ~/x.yaml}}}\n"
    )
    with pytest.raises(Refused, match=r"tigera_operator\.path: ~/x\.yaml cannot be read"):
        load_cluster(path)
    path.write_text(path.read_text().replace("~/x.yaml", "net.yaml"))
    cluster = load_cluster(path)
    assert cluster.ssh.key == str(tmp_path / "id")
    assert cluster.ssh.known_hosts == str(tmp_path / "hosts")
    assert cluster.network.manifests == (str(tmp_path / "net.yaml"),)
    assert cluster.sources.manifests["tigera_operator"].sha256 is None
    assert cluster.state_dir == "~/.shipway"


def test_what_the_user_names_replaces_the_profiles_other() -> None:
    path = parsed("sources: {apt: {docker: {key: {path: /k}}}}\n").sources.apt["docker"].key
    assert (path.path, path.url) == ("/k", None)
    assert path.fingerprint == "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
    mirror = parsed("sources: {manifests: {tigera_operator: {url: 'http://mirror/t.yaml'}}}\n").sources.manifests
    assert mirror["tigera_operator"].sha256 is not None


def in_place(section: str, value: object) -> dict[str, Any]:
    """Return a cluster file's data with this value at a section."""
    data = value
    for part in reversed(section.split(".")):
        data = {part: data}
    return cast("dict[str, Any]", data)


DOCKER = {"uri": "u", "suite": "{codename}", "components": ["stable"], "key": {"url": "k", "fingerprint": "f"}}


@pytest.mark.parametrize(
    ("section", "profile", "file", "result"),
    [
        ("sources.manifests.x", {"url": "u", "sha256": "s"}, {"path": "p"}, {"path": "p"}),
        ("sources.manifests.x", {"path": "p"}, {"url": "u"}, {"url": "u"}),
        ("sources.manifests.x", {"url": "u", "sha256": "s"}, {"url": "mirror"}, {"url": "mirror", "sha256": "s"}),
        ("sources.apt.x.key", {"url": "u", "fingerprint": "f"}, {"path": "p"}, {"path": "p", "fingerprint": "f"}),
        # A flat mirror in place of a suite with components: the line apt got was malformed, and every apt broke.
        (
            "sources.apt.docker",
            DOCKER,
            {"uri": "m", "suite": "./"},
            {"uri": "m", "suite": "./", "key": DOCKER["key"]},
        ),
        ("sources.apt.docker", DOCKER, {"uri": "m"}, {**DOCKER, "uri": "m"}),
        ("sources.apt.docker", DOCKER, {"suite": "{codename}"}, DOCKER),
        (
            "sources.apt.docker",
            DOCKER,
            {"suite": "trixie", "components": ["edge"]},
            {**DOCKER, "suite": "trixie", "components": ["edge"]},
        ),
        (
            "runtime",
            {"package": "containerd.io", "version": "2.3.1"},
            {"package": "containerd"},
            {"package": "containerd"},
        ),
        (
            "runtime",
            {"package": "containerd.io", "version": "2.3.1"},
            {"package": "containerd.io"},
            {"package": "containerd.io", "version": "2.3.1"},
        ),
    ],
)
def test_what_belongs_to_a_value_goes_with_it(section: str, profile: object, file: object, result: object) -> None:
    assert merge(in_place(section, profile), in_place(section, file)) == in_place(section, result)


def test_the_pin_of_another_versions_manifest_is_not_kept() -> None:
    found = faults(
        TWO_LINES + "network: {version: 3.31.7}\nsources: {manifests: {tigera_operator: {url: 'http://m/t.yaml'}, "
        "operator_crds: {url: 'http://m/c.yaml'}}}\n"
    )
    assert [line for line in found if "by url needs its sha256" in line]


@pytest.mark.parametrize("suite", ["./", "/", "deb/", "{arch}/"])
def test_a_flat_repository_in_place_of_a_profiles_gives_a_line_that_apt_reads(suite: str) -> None:
    text = f"sources: {{apt: {{docker: {{uri: 'http://mirror/apt', suite: '{suite}'}}}}}}\n"
    made = parsed(text).sources.apt["docker"]
    assert (made.suite, made.components) == (suite, ())


@pytest.mark.parametrize(
    ("repository", "why"),
    [
        ("{uri: 'http://m', suite: ./, components: [main]}", "has no components, but main stand here"),
        ("{uri: 'http://m', components: []}", "has no components: suite {codename} needs some"),
        ("{uri: 'http://m', suite: trixie}", "has no components: suite trixie needs some"),
    ],
)
def test_a_line_that_apt_would_call_malformed_is_refused(repository: str, why: str) -> None:
    assert why in "\n".join(faults(TWO_LINES + f"sources: {{apt: {{docker: {repository}}}}}\n"))


def test_an_empty_section_changes_nothing() -> None:
    assert parsed("kubernetes:\nssh:\nruntime:\n") == parsed()
    assert parsed("sources: {apt: }\n") == parsed()


def test_faults_of_values_and_of_what_cannot_work_come_together() -> None:
    found = faults("name: Demo\nhosts: [10.0.0.1]\ngpu: {toolkit: 1.18.0}\n")
    assert len(found) == 2
    assert found[0].startswith("  line 1: name: must be lower-case")
    assert found[1].startswith("  line 3: gpu.toolkit: 1.18.0 cannot be used")


def test_a_faulty_value_is_no_ground_for_further_faults() -> None:
    text = TWO_LINES + "kubernetes: {pod_network: 10.0.0.1/8, node_mask: fine}\n"
    assert [line.split(": ")[1] for line in faults(text)] == ["kubernetes.node_mask", "kubernetes.pod_network"]
    many = "\n".join(f"  - {{name: h{number}, address: 10.0.0.{number}, gpus: no}}" for number in range(1, 21))
    found = faults(f"name: demo\nprofile: seed\nhosts:\n{many}\n")
    assert len(found) == 21
    assert "makes room for 16 nodes, there are 20 hosts" in "\n".join(found)


def test_a_fault_behind_a_fault_is_reported_at_once() -> None:
    text = TWO_LINES + "sources: {apt: {docker: {key: {path: k, url: 'http://m/k', fingerprint: x}}}}\n"
    found = "\n".join(faults(text))
    assert "docker.key.fingerprint: must be" in found
    assert "docker.key: takes either url or path" in found


def test_a_hostile_value_is_shown_on_one_line_and_cut() -> None:
    found = faults(f'name: "{"x" * 5000}\\n\\e[31m"\nhosts: [10.0.0.1]\n')
    assert len(found) == 1
    assert len(found[0]) < 250
    assert "\x1b" not in found[0]


def test_more_faults_than_anyone_reads_are_counted() -> None:
    found = faults("name: demo\nhosts:\n" + "".join(f"  - {number}\n" for number in range(200)))
    assert found[-1] == "  … and 100 more"


def test_targets_take_the_hosts_own_values_first() -> None:
    text = (
        "name: demo\nhosts:\n  - {name: a, address: 10.0.0.1, ssh: {port: 2222, jump: {address: inner}}}\n"
        "  - 10.0.0.2\n"
        "ssh: {user: ops, key: /k, jump: {address: outer, user: gate}, host_keys: accept-new, connect_seconds: 3}\n"
    )
    cluster = parse_cluster(text)
    first, second = (cluster.target(host) for host in cluster.hosts)
    assert (first.port, first.user, first.key, first.accept_new, first.connect_seconds) == (2222, "ops", "/k", True, 3)
    assert first.jump
    assert second.jump
    assert (first.jump.address, first.jump.user) == ("inner", "ops")
    assert (second.jump.address, second.jump.user, second.port) == ("outer", "gate", 22)


def test_hosts_on_one_address_may_differ_by_port() -> None:
    text = (
        "name: demo\nhosts:\n  - {name: a, address: 127.0.0.1, node_ip: 10.0.0.1, ssh: {port: 1022}}\n"
        "  - {name: b, address: 127.0.0.1, node_ip: 10.0.0.2, ssh: {port: 1023}}\n"
    )
    assert len(parse_cluster(text).hosts) == 2


@pytest.mark.parametrize(
    ("address", "name"),
    [("gpu1.example.com", "gpu1"), ("GPU2", "gpu2"), ("10.0.0.1", "host-10-0-0-1"), ("fe80::1", "host-fe80-1")],
)
def test_a_bare_host_gets_its_name_from_its_address(address: str, name: str) -> None:
    assert first_label(address) == name


def test_places_are_spelled_as_people_write_them() -> None:
    assert spell_path(("hosts", 1, "ssh", "port")) == "hosts[1].ssh.port"
    assert spell_path(("sources", "registry_mirrors", "a b\n")) == "sources.registry_mirrors.'a b\\n'"
    assert spell_path(()) == "file"


def test_a_thousand_hosts_are_read_in_moments() -> None:
    hosts = "\n".join(f"  - 10.{1 + number // 250}.0.{1 + number % 250}" for number in range(1000))
    networks = "kubernetes: {pod_network: 172.16.0.0/13, node_mask: 24, service_network: 192.168.0.0/16}\n"
    assert len(parse_cluster(f"name: big\n{networks}hosts:\n{hosts}\n").hosts) == 1000


@pytest.mark.parametrize("url", ["http://me:s3cret@mirror", "http://me:s3 cret@mirror", "ftp://me:s3cret@mirror"])
def test_a_refusal_never_shows_a_password(url: str) -> None:
    with pytest.raises(Refused) as raised:
        parse_cluster(f"name: demo\nhosts: [10.0.0.1]\nsources: {{registry_mirrors: {{docker.io: '{url}'}}}}\n")
    assert "s3" not in str(raised.value)


def test_a_fault_deep_inside_names_its_place() -> None:
    text = "name: demo\nhosts: [10.0.0.1]\nkubernetes: {kubelet: {a: [1, {b: !!set {x}}]}}\n"
    with pytest.raises(Refused, match=r"holds a set at a\[1\]\.b: put it in quotes"):
        parse_cluster(text)


def test_a_file_is_parsed_once_per_run_and_what_it_names_is_looked_for_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, key = tmp_path / "te.yaml", tmp_path / "id"
    key.touch()
    file.write_text("name: once\nssh: {key: id}\nhosts: [10.0.0.1]\n")
    parses: list[str] = []
    monkeypatch.setattr("shipway.cluster_file.source", lambda text, where: parses.append(where) or source(text, where))
    assert load_cluster(file) is load_cluster(file)
    assert len(parses) == 1
    key.unlink()
    with pytest.raises(Refused, match="id cannot be read"):
        load_cluster(file)
    key.touch()
    file.write_text("name: twice\nssh: {key: id}\nhosts: [10.0.0.1]\n")
    assert load_cluster(file).name == "twice"
