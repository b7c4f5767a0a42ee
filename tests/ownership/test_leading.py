"""Which control plane leads, which endpoint a running cluster has, and what is refused of several control planes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from shipway.cluster.model import Cluster
from shipway.cluster_file import parse_cluster
from shipway.edits.lines import hosts_file, read_block
from shipway.errors import ApiUnavailable, Permanent, Refused
from shipway.facts.commands import Says
from shipway.facts.fact import Fact
from shipway.facts.files import FileInfo, FileState, FileText
from shipway.facts.packages import PackageInfo
from shipway.facts.services import UnitState
from shipway.kube.access import from_outside
from shipway.os.debian.dpkg import Package
from shipway.ownership.contradictions import contradictions
from shipway.ownership.evidence import JOINING, KUBECONFIGS, Evidence
from shipway.ownership.leading import as_running, choose_lead, endpoints_of
from shipway.site.proxies import lasting
from shipway.steps.system import api_proxy
from shipway.steps.system.api_proxy import ProxyPortFree, address_for, proxy_config
from shipway.steps.system.names import HOSTS, HostsNamed
from shipway.steps.system.own_service import OwnRuns
from tasks.context import Run
from tasks.leading import adopt_endpoint, ask_endpoint, choose, known, left_out, order_of_joins, refuse_second_cluster
from tasks.stages import prepare_system
from tests.places.facts import DEBIAN, KnownFacts, said, unit

A, B = frozenset({"sha256:aaaa"}), frozenset({"sha256:bbbb"})
NAME = "api.te.internal"


def cluster(planes: int = 3, more: str = "") -> Cluster:
    """Return a cluster file with so many control planes and one worker."""
    lines = [f"- {{name: cp{n}, address: 10.9.0.{n}, roles: [control_plane]}}\n" for n in range(1, planes + 1)]
    return parse_cluster(f"name: te\nhosts:\n{''.join(lines)}- {{name: w1, address: 10.9.0.9}}\n{more}")


def plane(name: str, server: str = f"https://{NAME}:6443", **more: Any) -> Evidence:
    """Return a host with a whole control plane."""
    whole: dict[str, Any] = {
        "admin": True,
        "etcd": True,
        "static": ("etcd.yaml",),
        "certificate": True,
        "kubelet_conf": True,
        "server": server,
        "endpoint": server,
        "authorities": A,
        "node": name,
    }
    return Evidence(name, **(whole | more))


def worker(name: str = "w1", **more: Any) -> Evidence:
    """Return a host that is a worker node."""
    whole: dict[str, Any] = {"certificate": True, "kubelet_conf": True, "authorities": A, "node": name}
    return Evidence(name, **(whole | more))


def lead(*seen: Evidence, ready: tuple[str, ...] = ()) -> str:
    return choose_lead(cluster(), {one.host: one for one in seen}, ready).name


def test_the_first_of_the_file_leads_only_where_no_other_holds_the_cluster() -> None:
    assert lead() == "cp1"
    assert lead(Evidence("cp1"), Evidence("cp2"), Evidence("cp3")) == "cp1"
    assert lead(Evidence("cp1"), plane("cp3")) == "cp3"
    assert lead(plane("cp1"), plane("cp2"), ready=("cp2",)) == "cp2"
    assert lead(plane("cp1"), plane("cp2"), ready=("cp1", "cp2")) == "cp1"
    assert lead(plane("cp1"), plane("cp2")) == "cp1"


def test_half_a_control_plane_never_leads_beside_a_whole_one() -> None:
    assert lead(plane("cp1", joining=True), plane("cp2")) == "cp2"
    assert lead(plane("cp1", started_by="te"), plane("cp2")) == "cp2"
    assert lead(plane("cp1", joining=True), Evidence("cp2", pki=True, started_by="te")) == "cp2"
    assert lead(Evidence("cp1"), plane("cp2", etcd=False)) == "cp2"


def codes(made: Cluster, *seen: Evidence, **more: Any) -> list[tuple[str, str]]:
    return [(one.host, one.code) for one in contradictions(made, seen, **more)]


def test_several_control_planes_of_one_cluster_are_no_contradiction_whole_bare_or_half_joined() -> None:
    assert codes(cluster(), plane("cp1"), plane("cp2"), plane("cp3")) == []
    assert codes(cluster(), Evidence("cp1"), plane("cp2"), plane("cp3"), kept=A) == []
    assert codes(cluster(), plane("cp1"), plane("cp2", joining=True, etcd=False), Evidence("cp3")) == []


def test_control_planes_of_two_clusters_are_refused() -> None:
    found = contradictions(cluster(), [plane("cp1"), plane("cp2", authorities=B)])
    assert [(one.host, one.code) for one in found] == [("cp2", "SHW-309")]
    assert "runs the control plane of another cluster" in found[0].cause


def test_a_cluster_that_was_made_with_an_address_keeps_it_and_is_told_no_other() -> None:
    old = "https://10.9.0.1:6443"
    one = cluster(1)
    assert one.endpoint == f"{NAME}:6443"
    assert as_running(one, old).endpoint == "10.9.0.1:6443"
    assert as_running(one, old).api_name == ""
    assert codes(one, plane("cp1", old)) == []
    assert as_running(one, f"https://{NAME}:6443") is one
    assert as_running(one, "") is one
    assert codes(one, plane("cp1", "https://other.example:6443")) == [("cp1", "SHW-319")]
    named = cluster(1, "kubernetes: {api_endpoint: {name: api.example}}\n")
    assert as_running(named, old) is named
    assert codes(named, plane("cp1", old)) == [("cp1", "SHW-319")]
    assert "shipway move-endpoint FILE" in contradictions(named, [plane("cp1", old)])[0].fix
    far = cluster(1, "kubernetes: {api_endpoint: lb.example}\n")
    assert "shipway move-endpoint FILE" in contradictions(far, [plane("cp1", old)])[0].fix
    other = cluster(1, "kubernetes: {api_endpoint: 10.9.0.7}\n")
    assert "move-endpoint" not in contradictions(other, [plane("cp1", f"https://{NAME}:6443")])[0].fix
    assert endpoints_of(one) == {f"{NAME}:6443", "10.9.0.1:6443"}
    assert lasting(one) == lasting(as_running(one, old))


def test_an_address_is_the_endpoint_of_one_control_plane_alone() -> None:
    found = {one.code: one for one in contradictions(cluster(), [plane("cp1", "https://10.9.0.1:6443")])}
    assert (found["SHW-762"].host, "shipway move-endpoint FILE" in found["SHW-762"].fix) == ("cp1", True)


def test_of_an_endpoint_nothing_is_said_where_no_control_plane_was_asked() -> None:
    adopted = as_running(cluster(), "https://10.9.0.1:6443")
    assert codes(adopted, plane("cp1", "https://10.9.0.1:6443")) == [("cp1", "SHW-762")]
    assert codes(adopted, worker(server="https://10.9.0.1:6443")) == []


def test_the_way_to_another_endpoint_is_told_only_where_the_endpoint_is_another() -> None:
    named = cluster(1, "kubernetes: {api_endpoint: {name: api.example}}\n")
    other = plane("cp1", "https://api.example:6443", declared={"cluster-name": "other"})
    (found,) = contradictions(named, [other])
    assert (found.code, "move-endpoint" in found.fix) == ("SHW-319", False)


def test_a_host_that_should_be_a_further_control_plane_is_no_witness_of_who_owns_the_others() -> None:
    """It is a worker of another cluster: that is its contradiction, and none of the others'."""
    assert codes(cluster(), Evidence("cp1"), worker("cp2", authorities=B), worker()) == [("cp2", "SHW-317")]


def test_a_run_takes_the_running_clusters_endpoint() -> None:
    run = Run(cluster(1), "bootstrap")
    adopt_endpoint(run, {})
    assert run.cluster.api_name == NAME
    adopt_endpoint(run, {"cp1": plane("cp1", "https://10.9.0.1:6443")})
    assert (run.cluster.endpoint, run.cluster.api_name) == ("10.9.0.1:6443", "")
    assert run.control.name == "cp1"


@pytest.mark.parametrize("edited", ["https://127.0.0.1:6443", "https://10.9.0.1:6443"])
async def test_the_cluster_says_its_endpoint_where_one_file_says_another(
    monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    asked: list[str] = []

    class Recorded:
        async def get(self, _: str, __: str, name: str, ___: str) -> Any:
            asked.append(name)
            return {"data": {"ClusterConfiguration": f"controlPlaneEndpoint: {NAME}:6443\n"}}

    async def kube() -> Any:
        return Recorded()

    run = run_with({})
    run.lead, run.seen.elsewhere = "cp1", (plane("cp1", edited),)
    monkeypatch.setattr(run, "kube", kube)
    await ask_endpoint(run)
    assert asked == ["kubeadm-config"]
    adopt_endpoint(run, known(run))
    assert (known(run)["cp1"].endpoint, run.cluster.api_name) == (f"https://{NAME}:6443", NAME)
    await ask_endpoint(run)
    assert asked == ["kubeadm-config"]  # what agrees with the file is believed


async def test_where_the_record_is_lost_the_files_word_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    async def kube() -> Any:
        raise ApiUnavailable("no answer")

    run = run_with({})
    run.lead, run.seen.elsewhere = "cp1", (plane("cp1", "https://10.9.0.1:6443"),)
    monkeypatch.setattr(run, "kube", kube)
    await ask_endpoint(run)
    assert known(run)["cp1"].endpoint == "https://10.9.0.1:6443"


def run_with(seen: dict[str, Evidence], only: tuple[str, ...] = ()) -> Run:
    run = Run(cluster(), "bootstrap", only)
    run.seen.surveys = {name: SimpleNamespace(evidence=one) for name, one in seen.items()}  # type: ignore[assignment]
    return run


async def test_no_cluster_is_made_while_another_control_plane_does_not_answer() -> None:
    run = run_with({"cp1": Evidence("cp1"), "cp2": Evidence("cp2")})
    with pytest.raises(Refused) as raised:
        refuse_second_cluster(run, "cp1")
    assert (raised.value.code, "cp3 did not answer" in raised.value.message) == ("SHW-761", True)
    refuse_second_cluster(run_with({"cp1": plane("cp1")}), "cp1")
    refuse_second_cluster(run_with({name: Evidence(name) for name in ("cp1", "cp2", "cp3")}), "cp1")


async def test_the_lead_is_chosen_once_by_what_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with({"cp1": plane("cp1"), "cp2": plane("cp2")})
    answers = {"cp1": said("", 7), "cp2": said("ok")}

    class Answers(KnownFacts):
        async def read_all(self, facts: Any) -> list[Any]:
            return [answers[self.name] for _ in facts]

    def session(name: str) -> Any:
        found = Answers({})
        found.name = name
        return found

    monkeypatch.setattr(run, "session", session)
    await choose(run)
    assert run.control.name == "cp2"
    answers["cp1"], answers["cp2"] = said("ok"), said("")
    await choose(run)
    assert run.control.name == "cp2"


def joins(seen: dict[str, Evidence], prepared: tuple[str, ...]) -> tuple[list[str], str]:
    run = run_with(seen)
    order, last = order_of_joins(run, [run.cluster.host(name) for name in prepared])
    return [host.name for host in order], last.name if last else ""


def test_members_stay_odd_and_those_that_have_joined_come_first() -> None:
    bare = {name: Evidence(name) for name in ("cp1", "cp2", "cp3")}
    assert joins(bare, ("cp2", "cp3")) == (["cp2", "cp3"], "")
    assert joins(bare, ("cp3",)) == ([], "cp3")
    assert joins(bare, ()) == ([], "")
    assert joins({**bare, "cp3": plane("cp3")}, ("cp2", "cp3")) == (["cp3", "cp2"], "")
    assert joins({**bare, "cp3": plane("cp3")}, ("cp3",)) == (["cp3"], "")
    run = run_with(bare)
    run.admitted = {"cp1", "cp3"}
    error = left_out(run, run.cluster.host("cp3"))
    assert (error.code, "cp2 is not there" in error.fix) == ("SHW-764", True)


def test_the_proxy_knows_every_control_plane_and_the_name_leads_where_it_should() -> None:
    made = cluster()
    text = proxy_config(made)
    assert all(f"server cp{n} 10.9.0.{n}:6443" in text for n in (1, 2, 3))
    assert "bind 127.0.0.1:6443" in text
    assert [address_for(made, host) for host in made.hosts] == ["10.9.0.1", "10.9.0.2", "10.9.0.3", "127.0.0.1"]
    assert address_for(cluster(1), cluster(1).hosts[1]) == "10.9.0.1"

    def about_proxy(planes: int, host: str, more: str = "") -> int:
        one = cluster(planes, more)
        steps = prepare_system.steps(one, one.host(host), DEBIAN)
        return sum(getattr(step, "path", "") in (api_proxy.CONFIG, api_proxy.OWN.path) for step in steps)

    assert (about_proxy(3, "w1"), about_proxy(3, "cp2"), about_proxy(1, "w1")) == (2, 0, 0)
    assert about_proxy(3, "w1", "kubernetes: {api_endpoint: {kind: external, name: lb.example}}\n") == 0


THERE = FileInfo("0" * 64, "644", "root:root", 1)


def step_for(address: str) -> HostsNamed:
    return HostsNamed({"cp1": "10.9.0.1"}, NAME, address, ("10.9.0.1", "10.9.0.2", "10.9.0.3"))


async def line_of(text: str, address: str, facts: dict[Fact[Any], Any]) -> str:
    """Return what a host's file says of the API's name once the step was applied; "" for nothing."""
    host = KnownFacts({FileText(HOSTS): text, FileState(HOSTS): THERE, KUBECONFIGS: said(""), **facts})
    step = step_for(address)
    if await step.check(host):  # type: ignore[arg-type]
        await step.apply(host)  # type: ignore[arg-type]
        text = host.written[HOSTS]
    assert text.startswith("127.0.0.1 localhost\n")
    return read_block(text).get(NAME, "")


async def test_the_name_is_in_our_block_alone_and_leads_to_a_proxy_only_while_that_runs() -> None:
    bare = "127.0.0.1 localhost\n"
    running = {UnitState("shipway-api-proxy.service"): unit()}
    assert await line_of(bare, "10.9.0.2", {}) == "10.9.0.2"
    assert await line_of(bare, "127.0.0.1", running) == "127.0.0.1"
    assert await line_of(bare, "127.0.0.1", {}) == "10.9.0.1 10.9.0.2 10.9.0.3"  # until there is a proxy, any of them
    once = hosts_file(bare, {"cp1": "10.9.0.1", NAME: "127.0.0.1"})
    assert await line_of(once, "127.0.0.1", {}) == "127.0.0.1"  # a proxy that is down for a moment moves nothing
    for before in ("10.9.0.1", "10.9.0.7 10.9.0.1", "10.9.0.1 10.9.0.2 10.9.0.3"):  # .7 is no control plane any more
        text = hosts_file(bare, {"cp1": "10.9.0.1", NAME: before})
        assert await line_of(text, "127.0.0.1", {}) == "10.9.0.1 10.9.0.2 10.9.0.3"


async def test_a_proxy_is_started_only_where_haproxy_was_installed() -> None:
    there, stands = PackageInfo("2.6.12", held=False, sound=True), UnitState("shipway-api-proxy.service")
    step = next(step for step in api_proxy.steps(cluster(), DEBIAN) if isinstance(step, OwnRuns))
    for facts, drifts in (({}, False), ({Package("haproxy"): there}, True)):
        assert (await step.check(KnownFacts({stands: unit("inactive"), **facts})) is not None) is drifts  # type: ignore[arg-type, dict-item]


async def test_a_joining_control_planes_line_is_the_joins_own() -> None:
    text = hosts_file("127.0.0.1 localhost\n", {"cp1": "10.9.0.1", NAME: "10.9.0.1"})
    assert await line_of(text, "10.9.0.2", {FileState(JOINING): THERE}) == "10.9.0.1"
    assert await line_of(text, "10.9.0.2", {}) == "10.9.0.2"


async def test_a_host_of_a_cluster_with_an_address_gets_no_name() -> None:
    for path, server in (("kubelet", "https://10.9.0.1:6443"), ("admin", "https://10.9.0.1:6443")):
        said_by = said(f"/etc/kubernetes/{path}.conf:    server: {server}\n")
        assert await line_of("127.0.0.1 localhost\n", "10.9.0.2", {KUBECONFIGS: said_by}) == ""
    moving = replace(step_for("10.9.0.2"), always=True)
    host = KnownFacts({FileText(HOSTS): "127.0.0.1 localhost\n", FileState(HOSTS): THERE, KUBECONFIGS: said_by})
    await moving.apply(host)  # type: ignore[arg-type]
    assert read_block(host.written[HOSTS])[NAME] == "10.9.0.2"  # while the endpoint is moved to it
    ours = said(
        f"/etc/kubernetes/kubelet.conf:    server: https://10.9.0.2:6443\n"
        f"/etc/kubernetes/admin.conf:    server: https://{NAME}:6443\n"
    )
    assert await line_of("127.0.0.1 localhost\n", "10.9.0.2", {KUBECONFIGS: ours}) == "10.9.0.2"


async def test_a_line_that_is_there_outlives_an_admin_conf_that_a_person_pointed_elsewhere() -> None:
    edited = {KUBECONFIGS: said("/etc/kubernetes/admin.conf:    server: https://127.0.0.1:6443\n")}
    text = hosts_file("127.0.0.1 localhost\n", {"cp1": "10.9.0.1", NAME: "10.9.0.2"})
    assert await line_of(text, "10.9.0.2", edited) == "10.9.0.2"


async def test_a_foreign_program_on_the_proxys_port_is_named_and_our_own_proxy_is_none() -> None:
    line = 'LISTEN 0 128 127.0.0.1:6443 0.0.0.0:* users:(("nginx",pid=7,fd=6))\n'
    sockets = Says(("ss", "-Hltnp"))
    with pytest.raises(Permanent) as raised:
        await ProxyPortFree(6443).check(KnownFacts({sockets: said(line)}))  # type: ignore[arg-type]
    assert (raised.value.code, "nginx" in raised.value.message) == ("SHW-763", True)
    other = line.replace("127.0.0.1:6443", "10.0.0.5:6443")
    for facts in ({sockets: said(other)}, {sockets: said("")}):
        assert await ProxyPortFree(6443).check(KnownFacts(facts)) is None  # type: ignore[arg-type]
    ours: dict[Fact[Any], Any] = {sockets: said(line), UnitState("shipway-api-proxy.service"): unit()}
    assert await ProxyPortFree(6443).check(KnownFacts(ours)) is None  # type: ignore[arg-type]


def test_this_machines_kubeconfig_leads_to_an_address_and_expects_the_name() -> None:
    text = f"clusters:\n- cluster:\n    server: https://{NAME}:6443\n  name: te\n"
    want = f"clusters:\n- cluster:\n    server: https://10.9.0.1:6443\n    tls-server-name: {NAME}\n  name: te\n"
    assert from_outside(text, NAME, "10.9.0.1") == want
    assert from_outside(want, NAME, "10.9.0.1") == want


def test_an_admin_conf_that_a_person_edited_leads_this_machine_to_the_control_plane_all_the_same() -> None:
    text = "    server: https://127.0.0.1:6443\n  name: te\n"
    want = f"    server: https://10.9.0.1:6443\n    tls-server-name: {NAME}\n  name: te\n"
    assert from_outside(text, NAME, "10.9.0.1") == want
